"""Exports whose hashes are right and whose content is not: named by field or array, in one line."""

import functools
import json

import exports
import numpy as np
import pytest
import safetensors.numpy

from mq_jax import load_tokenizer
from mq_jax.tokenizers.export import fingerprint, named


def signed_file(path, change_header=None, change_arrays=None, kind="vqvae"):
    """A safetensors file whose hashes are right, whatever it says."""
    header, arrays = exports.export(kind).header, dict(named(exports.export(kind).weights))
    header = json.loads(json.dumps(header))
    if change_arrays:
        change_arrays(arrays)
    if change_header:
        change_header(header)
    if isinstance(header.get("architecture"), dict) and "fingerprint" in header:
        header["fingerprint"] = fingerprint(header["architecture"], arrays)
    safetensors.numpy.save_file(arrays, path, metadata={"mq_jax": json.dumps(header)})
    return path


KERNEL = "theta/encoder/Conv_0/kernel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("codebook"), "'codebook' is missing; its architecture has"),
        (lambda a: [a.pop(n) for n in list(a) if n.startswith("theta/")], "'theta/.*is missing"),
        (lambda a: a.pop(KERNEL), f"'{KERNEL}' is missing"),
        (lambda a: a.update(other=np.zeros(3)), r"'other' is \[3\] float64; its .* has no array"),
        (lambda a: a.update(codebook=np.zeros(64, np.float32)), r"'codebook' is \[64\] float32"),
        (lambda a: a.update(codebook=a["codebook"].astype(np.int32)), r"'codebook' is \[16, 4\] I"),
        (lambda a: a.update({KERNEL: a[KERNEL][:-1]}), f"'{KERNEL}' is"),
    ],
)
def test_parts_that_do_not_fit_under_a_right_fingerprint_are_named(tmp_path, change, message):
    path = signed_file(tmp_path / "t.safetensors", change_arrays=change)
    with pytest.raises(ValueError, match=f"t.safetensors is damaged or was edited: {message}"):
        load_tokenizer(path)


def setting(*place, value):
    """A function that puts a value into a nested header, or takes one out."""

    def change(header):
        for name in place[:-1]:
            header = header[name]
        header.pop(place[-1]) if value is None else header.update({place[-1]: value})

    return change


DEEP = functools.reduce(lambda inner, _: [inner], range(200), [])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("architecture",), None, "its header lacks architecture"),
        (("architecture",), [], "its header.architecture is a list of 0; expected an object"),
        (("architecture", "model"), None, "its header.architecture lacks model"),
        (
            ("architecture", "model", "kind"),
            "x",
            r"model.kind is 'x'; expected one of vqvae, vqgan, maskgit",
        ),
        (("architecture", "model", "channels"), 4, "model.channels is 4; expected a list of 1 to"),
        (("architecture", "model", "channels"), [0], "model.channels is a list of 1; expected"),
        (("architecture", "model", "blocks"), 10**9, "model.blocks is 1000000000; expected a who"),
        (("architecture", "model", "init_std"), float("nan"), "init_std is nan"),
        (("architecture", "model", "dtype"), "object", "dtype is 'object'"),
        (("architecture", "codebook", "size"), -1, "codebook.size is -1"),
        (("architecture", "codebook", "size"), 2**30, r"'codebook' is \[16, 4\] float32; its arch"),
        (("architecture", "data", "image_size"), 1.5, r"image_size is 1\.5"),
        (("preparation",), None, "its header lacks preparation"),
        (("preparation", "filter"), "x", "preparation.filter is 'x'"),
        (("preparation", "image_size"), 0, "preparation.image_size is 0"),
        (("fingerprint",), None, "its header lacks fingerprint"),
        (("preparation_sha256",), 3, "preparation_sha256 is 3; expected 64 hex"),
        (("other",), DEEP, "nested deeper than 32 levels"),
    ],
)
def test_a_hostile_header_is_named_by_its_field_in_one_line(tmp_path, place, value, message):
    path = signed_file(tmp_path / "t.safetensors", setting(*place, value=value))
    with pytest.raises(ValueError, match=f"t.safetensors is .*{message}") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


def test_an_architecture_that_makes_no_model_is_named(tmp_path):
    def change(header):
        model = exports.export("vqgan").architecture["model"]
        header["architecture"]["model"] = {**model, "groups": 3}

    path = signed_file(tmp_path / "t.safetensors", change)
    with pytest.raises(ValueError, match="its architecture makes no model .*groups") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


QUANTIZER = ("architecture", "quantizer")
TREE = "vq groups of residuals"


@pytest.mark.parametrize(
    ("kind", "place", "value", "message"),
    [
        ("l2", QUANTIZER, [], r"quantizer is a list of 0; expected an object"),
        ("l2", QUANTIZER, None, "its header.version is 2; expected 1, as its .* has no quantizer"),
        ("l2", ("version",), 1, "its header.version is 1; expected 2, as its .* has a quantizer"),
        ("l2", (*QUANTIZER, "kind"), "x", "quantizer.kind is 'x'; expected one of vq, l2"),
        ("l2", (*QUANTIZER, "kind"), ["l2"], "quantizer.kind is a list of 1"),
        ("l2", (*QUANTIZER, "kind"), "fsq", "quantizer lacks fsq"),
        ("l2", (*QUANTIZER, "kind"), "gumbel", "'codebook' is .*; its architecture has no array"),
        ("l2", (*QUANTIZER, "groups"), 3, "quantizer.groups is 3; expected a divisor of"),
        ("l2", (*QUANTIZER, "groups"), 0, "quantizer.groups is 0; expected a whole number"),
        ("l2", (*QUANTIZER, "groups"), 2, "'codebook' is .*; its architecture has no array"),
        ("l2", (*QUANTIZER, "depth"), 10**9, "quantizer.depth is 1000000000; expected"),
        ("l2", (*QUANTIZER, "depth"), 1000, "depth 1000; expected at most 256 codes"),
        ("l2", (*QUANTIZER, "depth"), 2, "'codebook' is .*; its architecture has no array"),
        ("l2", (*QUANTIZER, "shared"), "yes", "quantizer.shared is 'yes'; expected true or false"),
        ("l2", ("architecture", "codebook", "size"), 2**31, r"has \[2147483648, 4\] float32"),
        (TREE, (*QUANTIZER, "depth"), 2, "'codebook/0/2' is .*; its architecture has no array"),
        (TREE, (*QUANTIZER, "shared"), True, "'codebook/0' is missing; its architecture has"),
        (TREE, (*QUANTIZER, "depth"), 4, "'codebook/0/3' is missing; its architecture has"),
        ("fsq", (*QUANTIZER, "fsq"), None, "quantizer lacks fsq"),
        ("fsq", (*QUANTIZER, "fsq", "levels"), [7, 5, 1], "fsq.levels is a list of 3; expected a"),
        ("fsq", (*QUANTIZER, "fsq", "levels"), "755", "fsq.levels is '755'; expected a list of"),
        ("fsq", (*QUANTIZER, "fsq", "levels"), [7, 5], r"quantizer.kind 'fsq' makes \(35, 2\)"),
        ("fsq", (*QUANTIZER, "fsq", "levels"), [5, 5, 7], "fingerprint"),
        ("fsq", (*QUANTIZER, "fsq", "levels"), [999] * 10**5, "levels is a list of 100000; exp"),
        ("fsq", (*QUANTIZER, "fsq", "levels"), [999] * 3, "fsq makes more than 16,777,216 codes"),
        ("fsq", (*QUANTIZER, "depth"), 2, "which has no codewords for what a level leaves"),
        ("fsq", ("architecture", "codebook", "size"), 176, "makes .175, 3. of its own fields"),
        ("bsq groups", (*QUANTIZER, "bsq", "bits"), 30, "bsq.bits is 30; expected a whole number"),
        ("sqvae III", (*QUANTIZER, "sqvae", "variance"), "II", "sqvae.variance is 'II'; expected"),
        ("sqvae III", (*QUANTIZER, "sqvae", "variance"), "I", "'theta/encoder/.*its architecture"),
        ("sqvae III", ("architecture", "model", "layer_norm"), True, "layer_norm False"),
        (
            "ibq",
            (*QUANTIZER, "ibq", "scale"),
            float("nan"),
            "ibq.scale is nan; expected a finite",
        ),
    ],
)
def test_a_hostile_quantizer_is_named_by_its_field_in_one_line(
    tmp_path, kind, place, value, message
):
    path = tmp_path / "t.safetensors"
    if message == "fingerprint":
        # Another model of the same arrays, whose fingerprint is not made to fit.
        header = json.loads(json.dumps(exports.export(kind).header))
        setting(*place, value=value)(header)
        metadata = {"mq_jax": json.dumps(header)}
        safetensors.numpy.save_file(named(exports.export(kind).weights), path, metadata=metadata)
    else:
        signed_file(path, setting(*place, value=value), kind=kind)
    with pytest.raises(ValueError, match=f"t.safetensors is .*{message}") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_plain_model_with_a_section_for_its_quantizer_is_one_of_the_second_version(tmp_path):
    """As a program that does not leave the section out would write it; nothing is lost."""

    def change(header):
        plain = {"kind": "vq", "groups": 1, "depth": 1, "shared": False}
        header["architecture"]["quantizer"] = plain
        header["version"] = 2

    tokenizer = load_tokenizer(signed_file(tmp_path / "t.safetensors", change))
    expected = exports.export("vqvae").weights.codebook
    np.testing.assert_array_equal(tokenizer.codebook, expected)
