"""Runs of other quantizers through the whole program: training, evaluation, report."""

import math

import pages
import pytest
import runs

from mq_jax.runs.snapshot import read_snapshot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

JOINT = {"train__hypergradient": "joint"}

# Fields; the codes of a position, and K.
KINDS = {
    "fsq": ({"quantizer__kind": "fsq", "quantizer__fsq__levels": "5,3"}, 1, 15),
    "levels in groups of running means": (
        {"quantizer__kind": "ema", "quantizer__groups": 2, "quantizer__depth": 2},
        4,
        16,
    ),
    "a variance of each position": (
        {
            "quantizer__kind": "sqvae",
            "quantizer__sqvae__variance": "III",
            "model__layer_norm": False,
            "train__reconstruction": "log-mse",
            "train__quantization_weight": 1.0,
        },
        1,
        16,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_quantizer_goes_through_every_mode_that_looks_at_a_run(tmp_path, name):
    changes, codes, size = KINDS[name]
    given = [*runs.arguments(**JOINT, **changes), f"--workdir={tmp_path / 'run'}"]
    trained = runs.cli(*given)
    assert trained.code == 0, trained.err
    several = f", {codes} at each position" if codes > 1 else ""
    assert f"each is one of {size} ({math.log2(size):.4g} bits){several}" in trained.err
    rows = runs.metrics(tmp_path / "run")
    assert all(math.isfinite(value) for row in rows for value in row.values())
    evaluated = runs.cli("--mode=evaluate", f"--workdir={tmp_path / 'run'}", "--metrics=")
    assert evaluated.code == 0, evaluated.err
    counts = read_snapshot(tmp_path / "run").counts
    # Ten images of 32 pixels, a code for each 2 x 2 of them.
    assert counts.shape == (codes * size,) and counts.sum() == 10 * 16 * 16 * codes
    assert f"of {codes * size} codes" in pages.page_of(tmp_path / "run").words
