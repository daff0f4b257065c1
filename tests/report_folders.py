"""Folders of runs as training and evaluation leave them, with known numbers, for the report."""

import json

import numpy as np

from configs import base
from mq_jax.runs import workdir
from mq_jax.runs.snapshot import Snapshot, write_snapshot

ENVIRONMENT = {"packages": {"jax": "0.10.2"}, "python": "3.11.7", "devices": {"kind": "cpu"}}
BASE_METRICS = {"mse": 0.0123, "psnr": 25.4321, "usage": 0.75, "perplexity": 2.5}


def make_rows(steps=4, best=3):
    """Lines of metrics.jsonl: an evaluation at each step, the lowest MSE at `best`."""
    return [
        {
            "step": step,
            "inner/loss": 1 / step,
            "inner/usage": 0.5,
            "outer/direct_norm": 0.5,
            "outer/indirect_norm": 0.001 * step,
            "outer/direct_indirect_cosine": -0.25,
            "train/images_per_second": 10.0 * step,
            "eval/mse": 0.5 + abs(step - best),
            "eval/psnr": 20.0 + step / 8,
            "eval/usage": 0.625,
        }
        for step in range(1, steps + 1)
    ]


def make_snapshot(step=3, size=16, seed=0):
    """K codes of which the last quarter is dead, and two images."""
    rng = np.random.default_rng(seed)
    counts = np.where(np.arange(size) < 3 * size // 4, np.arange(size) + 1, 0)
    originals = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    noise = rng.integers(-9, 10, originals.shape)
    reconstructions = np.clip(originals + noise, 0, 255).astype(np.uint8)
    codebook = rng.normal(size=(size, 4)).astype(np.float32)
    return Snapshot(step, counts, codebook, originals, reconstructions)


def make_evaluation(step=3, **metrics):
    """evaluation.json."""
    data = {"source": "photos", "split": "validation", "images": 1234}
    return {
        "protocol": {"version": 1, "data": data, "measures": {"mse": "mean"}},
        "metrics": {**BASE_METRICS, **metrics},
        "run": {"step": step, "packages": {}},
    }


def make_run(folder, *, rows=None, snapshot=None, evaluation=None, changes=()):
    """Writes a whole folder.

    Args:
      folder: created.
      rows: of metrics.jsonl.
      snapshot: of the best state.
      evaluation: evaluation.json.
      changes: values of the configuration by dotted name.

    Returns:
      The folder.
    """
    config = base.get_config()
    config.data.source = "photos"
    for name, value in dict(changes).items():
        config.update_from_flattened_dict({name: value})
    workdir.claim(folder, config.to_dict())
    lines = [json.dumps(row) + "\n" for row in rows or make_rows()]
    (folder / "metrics.jsonl").write_text("".join(lines))
    write_snapshot(folder, snapshot or make_snapshot())
    (folder / "evaluation.json").write_text(json.dumps(evaluation or make_evaluation()))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return folder
