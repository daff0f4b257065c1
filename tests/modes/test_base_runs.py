"""Runs whose codebook starts from data: the same on any devices, and needed at the start alone."""

import signal
from unittest import mock

import numpy as np
import pytest
import runs

from mq_jax.runs.base import read_base
from mq_jax.training import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

FIELDS = {"train__hypergradient": "joint", "codebook__kind": "embedding", "train__steps": 5}
KMEANS = {**FIELDS, "codebook__base": "kmeans", "codebook__base_images": 64}


VGG = {"codebook__kind": "linear", "codebook__features": "vgg", "codebook__embedding_dim": 512}


@pytest.mark.parametrize("changes", [{}, {"quantizer__kind": "ema"}, VGG], ids=["vq", "ema", "vgg"])
def test_the_base_is_the_same_on_any_devices(tmp_path, changes):
    command = runs.arguments(**{**KMEANS, **changes})
    # In processes of their own: tests compile without passes that change the last bits.
    several, alone = (
        runs.outcome(
            runs.launch(*command, f"--workdir={tmp_path / name}", JAX_NUM_CPU_DEVICES=devices)
        )
        for name, devices in (("eight", "8"), ("one", "1"))
    )
    assert (several.code, alone.code) == (0, 0), several.err + alone.err
    assert read_base(tmp_path / "one") == read_base(tmp_path / "eight")
    assert "The codebook starts from k-means of" in alone.err
    # At step 0 both evaluate the same codebook.
    first, other = (runs.metrics(tmp_path / name)[0] for name in ("one", "eight"))
    np.testing.assert_allclose(first["eval/mse"], other["eval/mse"], rtol=1e-4)


def test_a_file_is_read_once_and_nothing_later_asks_for_it(tmp_path):
    place = tmp_path / "base.npy"
    table = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    np.save(place, table)
    given = runs.arguments(**FIELDS, codebook__base="file", codebook__base_file=place)
    whole = runs.cli(*given, f"--workdir={tmp_path / 'whole'}")
    assert whole.code == 0, whole.err
    folder = f"--workdir={tmp_path / 'run'}"
    with runs.signalled_after(3, signal.SIGTERM):
        assert runs.cli(*given, folder).code == 0
    place.unlink()
    with mock.patch.object(train, "starting_tables", None):
        last = runs.cli(*given, folder)
    assert last.code == 0 and "Going on from the checkpoint of step 3" in last.err
    runs.assert_same_run(tmp_path / "run", tmp_path / "whole")
    for mode in (["--mode=evaluate", "--metrics="], ["--mode=export"]):
        done = runs.cli(*mode, folder)
        assert done.code == 0, done.err
    assert runs.cli(*given, "--mode=plan", "--compile=False").code == 0
    np.save(place, table + 1)
    other = runs.cli(*given, folder)
    assert other.code == 1 and "is not the file that the run" in other.err
