"""The input pipeline beside the step that it feeds."""

import pathlib
import tempfile
import time

import cv2
from ml_collections import ConfigDict
from PIL import Image

from mq_jax.bench.step import compiled_step
from mq_jax.bench.timing import interleaved
from mq_jax.data import inputs
from mq_jax.data.sources import open_source
from mq_jax.terminal import console

JPEGS = 200
JPEG_SIZE = (500, 375)  # pixels, the median of ImageNet


def bench_input(config: ConfigDict, cores: int) -> None:
    """Times the input pipeline, beside what the exact MQ step takes.

    Args:
      config: validated; its source is read if it is there.
      cores: that the process may use.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _write_jpegs(pathlib.Path(folder))
        jpegs = ConfigDict(config.to_dict())
        jpegs.data.update(source="folder", dir=folder, train_split="all", image_size=128)
        jpegs.data.update(crop=0, resize=True, flip=0.5)
        jpegs.model.channels = (32, 64, 64)
        title = "{}x{} JPEG, ImageNet augmentation".format(*JPEG_SIZE)
        for name, each in ((config.data.source, config), (title, jpegs)):
            rate = _input_rate(each)
            run = compiled_step(each, "unrolled", "encoder").run
            seconds = interleaved({"step": run}, 3)["step"]
            appetite = 2 * each.train.batch_size / seconds
            rows.append([name, f"{rate:.0f}", f"{appetite:.0f}", f"{rate / appetite:.1f}"])
    console.print_table(
        f"Input, {cores} core(s), {config.data.threads} thread(s): images per second",
        ["source", "pipeline", "unrolled step takes", "ratio"],
        rows,
    )


def _input_rate(config) -> float:
    """Images a second through the training pipeline."""
    source = inputs.open_training(config).autoencoder
    stream = inputs.stream(config, source, level=0, start=0)
    next(stream)
    batches, started = 0, time.perf_counter()
    while time.perf_counter() - started < 5:
        next(stream)
        batches += 1
    rate = batches * config.train.batch_size / (time.perf_counter() - started)
    stream.close()
    return rate


def _write_jpegs(folder: pathlib.Path) -> None:
    """Photographic JPEGs of ImageNet's median size."""
    photos = open_source("photos", directory="", split="train")
    for number in range(JPEGS):
        image = cv2.resize(photos[number % len(photos)].image, JPEG_SIZE)
        Image.fromarray(image).save(folder / f"{number:04d}.jpg", quality=90)
