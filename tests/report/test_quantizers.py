"""Pages on runs of any quantizer: K as it is, codes by position, nothing of what is not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import KINDS
from pages import figure_named, page_of
from report_folders import make_evaluation, make_rows, make_run, make_snapshot

from mq_jax.report.names import reading
from mq_jax.runs.snapshot import Snapshot

JOINT = {"train.hypergradient": "joint"}
FSQ = {**JOINT, "quantizer.kind": "fsq", "codebook.size": 15, "codebook.dim": 2}
LEVELS = {**JOINT, "quantizer.depth": 2, "codebook.size": 8, "codebook.dim": 4}


def rows():
    """Of one level: without the outer one's metrics."""
    kept = [{n: v for n, v in row.items() if not n.startswith("outer/")} for row in make_rows()]
    return [row | {"inner/quantization": 0.1} for row in kept]


def snapshot(codes, dim):
    """Of the codes the first two thirds occur, in two evaluation images."""
    usual = make_snapshot()
    counts = np.where(np.arange(codes) < 2 * codes // 3, 5, 0)
    codebook = np.random.default_rng(1).normal(size=(codes, dim)).astype(np.float32)
    return Snapshot(3, counts, codebook, usual.originals, usual.reconstructions)


def test_k_is_what_the_kind_makes_and_there_is_no_section_on_two_levels(tmp_path):
    run = make_run(tmp_path / "run", rows=rows(), snapshot=snapshot(15, 2), changes=FSQ)
    page = page_of(run)
    assert "quantizer fsq of 2 channels, each code one of 15 (3.907 bits)," in page.words
    assert "5 of 15 codes (33.3%) do not occur among the 50" in page.words
    assert "of 15" in page.words and "The two levels" not in page.words
    assert "15 codewords of 2 dimensions" in page.words


def test_the_codes_of_a_position_are_counted_apart_and_each_has_its_use(tmp_path):
    few = make_evaluation(usage=0.25, perplexity=4.0)
    changed = {"snapshot": snapshot(16, 4), "changes": LEVELS, "evaluation": few}
    page = page_of(make_run(tmp_path / "run", rows=rows(), **changed))
    assert "each code one of 8 (3 bits), 2 at each position," in page.words
    assert "6 of 16 codes (37.5%) do not occur among the 50" in page.words
    assert "In use of a position's 2 codes: 100.0%, 25.0%." in page.words
    assert "Perplexity 4.0 of 16" in page.words


@pytest.mark.parametrize("shape", [(16, 4), (15, 1), (1, 1)])
def test_codewords_of_any_number_and_width_are_drawn_where_there_are_two(tmp_path, shape):
    changes = {**JOINT, "quantizer.kind": "lfq", "codebook.size": shape[0]}
    folder = make_run(tmp_path / "run", rows=rows(), snapshot=snapshot(*shape), changes=changes)
    page = page_of(folder)
    assert ("Codewords in two dimensions" in page.words) == (shape[0] > 1)
    if shape[0] > 1:
        assert figure_named(page, "Codewords in two dimensions")["data"]


def test_the_terms_of_every_kind_say_how_they_are_read():
    for kind, make in KINDS.items():
        quantizer = make()
        key = jax.eval_shape(lambda: jax.random.key(0))

        def terms(key, quantizer=quantizer):
            z = jnp.zeros((2, 3, quantizer.channels))
            rest = {"straight_through": "encoder", "train": True, "rng": key}
            return quantizer(*quantizer.init(key), z, **rest).terms

        for name in jax.eval_shape(terms, key):
            assert reading(f"inner/{name}"), (kind, name)
