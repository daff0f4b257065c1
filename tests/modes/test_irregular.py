"""A FIFO in the place of any file that is read: an error, where opening it would wait for ever."""

import os
import pathlib

import pytest
import report_folders
import runs

from mq_jax import commandline
from mq_jax.data.inputs import open_training
from mq_jax.evaluation.protocol import read_evaluation
from mq_jax.images.decode import USUAL
from mq_jax.metrics.frechet import load_reference
from mq_jax.models import inception_weights, lpips_weights
from mq_jax.report import write_report
from mq_jax.runs import cost, listing, snapshot, standing, workdir, writers
from mq_jax.tokenizers import claims, shards, transcribe
from mq_jax.tokenizers.export_reading import read_export, read_orbax, read_safetensors
from mq_jax.tokenizers.shards import Shard
from mq_jax.tokenizers.stages import Stages

# What reads a file, by the file.
READERS = {
    "config.json": workdir.read_config,
    "data.json": listing.read_recorded,
    "metrics.jsonl": lambda folder: writers.read_metrics(folder / "metrics.jsonl"),
    "metrics.jsonl of a run that goes on": lambda folder: writers.MetricsFile(
        folder / "metrics.jsonl of a run that goes on", 3
    ),
    "cost.json": cost.read_cost,
    "settled.json": standing.read_settled,
    "snapshot.npz": snapshot.read_snapshot,
    "evaluation.json": read_evaluation,
    "manifest.json": claims.read_manifest,
    "tokens-00000.npz": lambda folder: shards.read_shard(Shard(folder / "tokens-00000.npz")),
    "tokens-00001.npz": lambda folder: shards.read_shard_names(Shard(folder / "tokens-00001.npz")),
    "tokenizer.safetensors": lambda folder: read_safetensors(folder / "tokenizer.safetensors"),
    "export": lambda folder: read_export(folder / "export"),
    "orbax": lambda folder: read_orbax(folder),
    lpips_weights.FILES["vgg"].name: lambda folder: lpips_weights.load_weights("vgg", str(folder)),
    pathlib.Path(inception_weights.URL).name: lambda folder: inception_weights.load_weights(
        str(folder)
    ),
    "images": lambda folder: transcribe.list_images(folder / "images"),
    "only.png": lambda folder: open_training(
        runs.configure(data__source="folder", data__dir=str(folder))
    ),
    "config.py": lambda folder: commandline._load(str(folder / "config.py")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises((OSError, ValueError, commandline.UsageError)) as caught:
        READERS[name](tmp_path)
    assert "\n" not in str(caught.value)


def test_reference_statistics_that_are_a_fifo_are_left(tmp_path):
    os.mkfifo(tmp_path / "reference.npz")
    assert load_reference(tmp_path / "reference.npz", "key", 3) is None


@pytest.mark.parametrize(
    "name",
    [
        *("metrics.jsonl", "snapshot.npz", "evaluation.json", "environment.json", "cost.json"),
        "settled.json",
    ],
)
def test_a_report_is_written_without_what_is_a_fifo(tmp_path, name):
    folder = report_folders.make_run(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    write_report([folder], tmp_path / "report.html")
    assert name in (tmp_path / "report.html").read_text()


def test_tokenize_names_images_that_are_none_anymore_and_goes_on(tmp_path):
    runs.write_images(tmp_path / "images", 4)
    root, names = transcribe.list_images(tmp_path / "images")
    (root / names[0]).unlink()
    os.mkfifo(root / names[0])
    first, *others = transcribe.read_images(root, names, None, USUAL, 2, Stages(2))
    assert first.image is None and "a FIFO; expected a regular file" in first.reason
    assert all(item.image is not None for item in others)
