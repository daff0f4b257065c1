"""Exports whose hashes are right and whose content is not: named by field or array, in one line."""

import functools
import json

import exports
import numpy as np
import pytest
import safetensors.numpy

from mq_jax import load_tokenizer
from mq_jax.tokenizers.export import fingerprint, named


def signed_file(path, change_header=None, change_arrays=None):
    """A safetensors file whose hashes are right, whatever it says."""
    header, arrays = exports.export("vqvae").header, dict(named(exports.export("vqvae").weights))
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
            r"model.kind is 'x'; expected one of vqvae, vqgan",
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
