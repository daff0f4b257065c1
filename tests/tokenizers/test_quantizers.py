"""Every kind of quantizer as a tokenizer: exported, read back, coding as evaluation does."""

import functools
import hashlib
import json
import math
import pickle
import re

import exports
import jax
import numpy as np
import pytest
import runs
import safetensors.numpy
from exports import FACTS, QUANTIZERS, same

from mq_jax.evaluation.evaluate import make_eval_step
from mq_jax.metrics.collections import empty_evaluation
from mq_jax.quantizers.quantizer import codes, distinct
from mq_jax.runs.snapshot import read_snapshot
from mq_jax.tokenizers.architecture import quantizer_in_words
from mq_jax.tokenizers.export import named
from mq_jax.tokenizers.export_card import card_of, page_of
from mq_jax.tokenizers.export_reading import read_export
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.tokenizers.programs import read_program
from mq_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mq_jax.training.quantizing import KINDS

# Those whose encode, decode or tree is of a shape that no other of them has.
QUICK = {"l2", "sqvae III", "gumbel in chunks", "fsq", "bsq", "vq groups of residuals"}
IMAGES = exports.images(4, 16, 16)
TREE, ARITHMETIC = "vq groups of residuals", "fsq"


def each(quick):
    """A test of every kind, slow but for a few."""
    return pytest.mark.parametrize(
        "kind", [pytest.param(k, marks=[] if k in quick else pytest.mark.slow) for k in QUANTIZERS]
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The function from a kind to the folder of its export."""
    root = tmp_path_factory.mktemp("quantizers")

    @functools.cache
    def folder(kind):
        return write_export(root / kind, exports.export(kind), FACTS)

    return folder


@pytest.fixture(scope="module")
def loaded(written):
    """The function from a kind to its tokenizer, read from the disk."""
    return functools.cache(lambda kind: load_tokenizer(written(kind)))


@each(QUICK)
def test_what_is_read_back_codes_as_evaluation_does_bit_for_bit(loaded, kind):
    _, objective, state = exports.model(kind)
    tok, quantizer = loaded(kind), objective.quantizer
    nothing = empty_evaluation(codes(quantizer), ("mse", "psnr"))
    step = jax.jit(make_eval_step(objective))
    metrics, expected = step(state, nothing, IMAGES, np.ones(4, np.float32), ())
    found = tok.encode(IMAGES)
    own = (quantizer.depth,) if quantizer.depth else ()
    assert (tok.size, tok.depth, tok.dim) == (quantizer.size, quantizer.depth, quantizer.dim)
    assert found.shape == (4, *tok.grid(16, 16), *own) and found.dtype == np.int32
    counts = np.bincount(np.ravel(distinct(found, quantizer)), minlength=codes(quantizer))
    np.testing.assert_array_equal(counts, metrics.usage.counts)
    assert np.count_nonzero(counts) > 2
    np.testing.assert_array_equal(tok.decode(found), expected)
    rows = found.reshape(4, -1, *own)
    np.testing.assert_array_equal(tok.decode(rows), expected)


@each(QUICK | {"ema", "bsq groups", "vq residual shared"})
def test_every_format_gives_the_same_model_back(written, kind):
    for part in ("tokenizer.safetensors", "orbax"):
        same(read_export(written(kind) / part), exports.export(kind))


@each({ARITHMETIC, "gumbel in chunks", TREE})
def test_programs_code_as_the_tokenizer_does(written, loaded, kind):
    tok, folder = loaded(kind), written(kind)
    encode, decode = (
        read_program(folder / f"{name}.stablehlo", tok.fingerprint) for name in ("encode", "decode")
    )
    found = tok.encode(IMAGES)
    np.testing.assert_array_equal(encode.call(IMAGES), found)
    # Weights inside may be folded: the last bit may differ.
    assert np.abs(np.asarray(decode.call(found), int) - tok.decode(found)).max() <= 1


@each({TREE})
def test_images_on_one_canvas_have_the_codes_that_each_has_alone(loaded, kind):
    tok = loaded(kind)
    canvas = np.pad(IMAGES[:, :8, :12], [(0, 0), (0, 8), (0, 4), (0, 0)])
    found = tok.encode_within(canvas, np.tile(np.int32([8, 12]), (4, 1)))
    np.testing.assert_array_equal(found[:, :4, :6], tok.encode(IMAGES[:, :8, :12]))


@each(QUANTIZERS)
def test_the_codebook_is_what_codes_decode_to_and_a_copy_keeps_it(kind):
    tok, quantizer = Tokenizer(exports.export(kind)), exports.model(kind)[1].quantizer
    codebook = tok.codebook
    assert len(codebook) == tok.size * max(tok.depth, 1) and codebook.dtype == np.float32
    if not tok.depth:
        decoded = quantizer.decode(tok.weights.codebook, np.arange(tok.size, dtype=np.int32))
        np.testing.assert_array_equal(codebook, decoded)
    other = pickle.loads(pickle.dumps(tok))
    np.testing.assert_array_equal(other.codebook, codebook)
    assert repr(other) == repr(tok)


def test_every_kind_that_a_configuration_can_name_is_exported_here():
    assert {kind.split()[0] for kind in QUANTIZERS} == set(KINDS)
    words = {quantizer_in_words(exports.export(kind).architecture) for kind in QUANTIZERS}
    assert len(words) == len(QUANTIZERS)


def test_arrays_of_a_tree_have_names_that_say_which_part_they_are():
    found = {
        kind: [name for name in named(exports.export(kind).weights) if name[:8] == "codebook"]
        for kind in ("ema", "fsq", "bsq groups", "gumbel in chunks", TREE)
    }
    assert found == {
        "ema": ["codebook"],
        "fsq": [],
        "bsq groups": [],
        "gumbel in chunks": ["codebook/codewords", "codebook/head/0", "codebook/head/1"],
        TREE: [f"codebook/{group}/{level}" for group in range(2) for level in range(3)],
    }


def test_a_plain_export_is_what_it_was_before_there_were_other_kinds():
    """Written by the code of commit 0934218."""
    export = exports.export("plain")
    assert export.fingerprint == "0c9e345352f48560d1a78c4cebcf22bc82b67ba0341598fc94ca8b0cbafabc2c"
    metadata = {"mq_jax": json.dumps(export.header)}
    content = safetensors.numpy.save(named(export.weights), metadata)
    expected = "08e889a60ebbe84b0e45766331456d62c8a532f7df9b0bec1626af3b701bcc21"
    assert hashlib.sha256(content).hexdigest() == expected


def test_what_only_training_reads_changes_no_fingerprint():
    alike = exports.QUANTIZERS["fsq"] | {"quantizer__shared": True, "quantizer__noise": 0.5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exports.QUANTIZERS, "fsq trained otherwise", alike)
        assert exports.export("fsq trained otherwise").fingerprint == (
            exports.export("fsq").fingerprint
        )


TOLD = {
    "fsq": "Tokenizer(finite scalar quantization, levels 7 x 5 x 5, K=175, D=3, downsampling=2, ",
    "sqvae III": "Tokenizer(stochastic vector quantization (SQ-VAE), Gaussian III, K=16, D=4, ",
    "vq residual shared": "Tokenizer(2 residual levels of vector quantization, which share a "
    "codebook, K=16, J=2, D=4, ",
    TREE: "Tokenizer(2 groups of 3 residual levels of vector quantization, K=16, J=6, D=4, ",
}


@pytest.mark.parametrize("kind", TOLD)
def test_a_tokenizer_says_its_kind_and_its_codes(kind):
    assert repr(Tokenizer(exports.export(kind))).startswith(TOLD[kind])


def test_the_card_is_honest_about_bits():
    def told(kind):
        card = card_of(exports.export(kind), FACTS, {})
        return card["tokenizer"], " ".join(page_of(card).split())

    fields, page = told("fsq")
    assert fields["bits_per_code"] == fields["bits_per_position"] == math.log2(175)
    assert "become one code of 175 (7.451 bits)" in page and "K = 175 " in page
    assert "codes are arithmetic, without a table" in page
    assert "| quantizer | finite scalar quantization, levels 7 x 5 x 5 |" in page
    fields, page = told(TREE)
    assert (fields["codes_per_position"], fields["bits_per_position"]) == (6, 24)
    assert "K = 16, J = 6" in page and "become 6 codes of 16 each (6 x 4 = 24 bits)" in page
    assert fields["parameters"]["codebook"] == 6 * 16 * 2
    assert "-> i32[B, h, w, 6]" in page and "-> i32[B, h, w]" not in page


def test_the_card_names_meta_quantization_only_where_it_trained():
    for hypergradient in ("unrolled", "finite-difference", "none", "joint"):
        config = {"train": {"hypergradient": hypergradient}}
        facts = {**FACTS, "training": {**FACTS["training"], "config": config}}
        page = page_of(card_of(exports.export("fsq"), facts, {}))
        assert ("Meta-Quantization" in page) == (hypergradient not in ("none", "joint"))


@pytest.mark.parametrize("kind", [ARITHMETIC, TREE, "l2"])
def test_the_code_of_the_card_runs_as_it_stands(written, loaded, kind, monkeypatch):
    page, arrays = (written(kind) / "README.md").read_text(), named(exports.export(kind).weights)
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(written(kind))
    for block in blocks[:1] + blocks[2:]:
        names = {"images": IMAGES}
        exec(block, names)
        if "indices" in names:
            np.testing.assert_array_equal(names["indices"], loaded(kind).encode(IMAGES))
        elif kind == ARITHMETIC:
            assert "codebook" not in names and len(names["arrays"]) == len(arrays)
        else:
            expected = {name: a for name, a in arrays.items() if name.startswith("codebook")}
            found = names["codebook"] if kind == TREE else {"codebook": names["codebook"]}
            assert found.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)


CODES = np.zeros((1, 2, 3, 6), np.int64)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (CODES[..., 0], r"the shape \(1, 2, 3\); expected \[B, h, w, 6\], 6 codes a position"),
        (CODES[..., :5], r"the shape \(1, 2, 3, 5\); expected \[B, h, w, 6\]"),
        (CODES[0, 0], r"the shape \(3, 6\); expected \[B, h, w, 6\]"),
        (CODES[:, 0], r"3 codes make no square; give \[B, h, w, 6\]"),
        (CODES[:, :0], r"expected \[B, h, w, 6\]"),
        (CODES + 16, r"indices lie in \[16, 16\]; expected \[0, 15\]"),
    ],
)
def test_indices_without_their_codes_of_a_position_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(exports.export(TREE)).decode(indices)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "ema", "groups": 2, "depth": 2},
        {"kind": "gumbel", "groups": 1, "depth": 1},
        {"kind": "fsq", "groups": 1, "depth": 1},
    ],
)
def test_a_run_is_exported_with_what_no_gradient_moves(tmp_path, changes):
    """From training, through a checkpoint, to what its evaluation showed."""
    fields = {f"quantizer__{name}": value for name, value in changes.items()}
    if changes["kind"] == "fsq":
        fields |= {"quantizer__fsq__levels": (7, 5, 5)}
    fields |= {"train__hypergradient": "joint", "train__steps": 4, "train__ema_decay": 0.5}
    folder = tmp_path / "run"
    for given in (
        [*runs.arguments(**fields), f"--workdir={folder}"],
        ["--mode=evaluate", "--metrics=", f"--workdir={folder}"],
        ["--mode=export", f"--workdir={folder}"],
    ):
        outcome = runs.cli(*given)
        assert outcome.code == 0, outcome.err
    tok, snapshot = load_tokenizer(folder), read_snapshot(folder)
    assert tok.depth == (4 if changes["kind"] == "ema" else 0)
    found = tok.reconstruct(snapshot.originals).astype(int)
    assert np.abs(found - snapshot.reconstructions).max() <= 1
    np.testing.assert_allclose(tok.codebook, snapshot.codebook, atol=1e-6)
