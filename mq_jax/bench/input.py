"""The input pipeline beside the step that it feeds."""

import pathlib
import statistics
import tarfile
import tempfile
import time

import cv2
from ml_collections import ConfigDict
from PIL import Image

from mq_jax.bench.program import compiled_step
from mq_jax.bench.tables import print_by_row
from mq_jax.bench.timing import calls_between_waits, interleaved
from mq_jax.data import inputs
from mq_jax.data.sources import open_source

JPEGS = 400
JPEG_SIZE = (500, 375)  # pixels, the median of ImageNet
# Of each source, batches a turn.
TURNS, BATCHES = 5, 8


def bench_input(config: ConfigDict, cores: int) -> None:
    """Times the input pipeline, beside what the exact MQ step takes.

    Args:
      config: validated; its source is read if it is there.
      cores: that the process may use.
    """
    print_by_row(
        f"Input, {cores} core(s), {config.data.threads} thread(s): images per second",
        ["source", "pipeline", "unrolled step takes", "ratio"],
        _rows(config),
    )


def _rows(config):
    """A row for each source."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        _write_jpegs(place)
        jpegs = ConfigDict(config.to_dict())
        jpegs.data.update(train_split="all", image_size=128, crop=0, resize=True, flip=0.5)
        jpegs.model.channels = (32, 64, 64)
        sides = "{}x{} JPEG, ImageNet augmentation".format(*JPEG_SIZE)
        for title, each, sources in (
            (config.data.source, config, {config.data.source: config.data.dir}),
            (sides, jpegs, dict.fromkeys(("folder", "parquet", "wds"), folder)),
        ):
            rates = _input_rates(each, sources)
            run = compiled_step(each, "unrolled", "encoder").run
            seconds = interleaved({"step": run}, 3, calls_between_waits())["step"]
            appetite = 2 * each.train.batch_size / seconds
            for source, rate in rates.items():
                name = title if source == title else f"{source}: {title}"
                yield [name, f"{rate:.0f}", f"{appetite:.0f}", f"{rate / appetite:.1f}"]


def _input_rates(config, sources: dict[str, str]) -> dict[str, float]:
    """Images a second through the training pipeline, of sources and their places."""
    opened, seconds = {}, {source: [] for source in sources}
    for source, place in sources.items():
        config.data.update(source=source, dir=place)
        opened[source] = inputs.open_training(config).autoencoder
    # In turns, so that a machine whose speed drifts slows them all alike.
    for turn in range(TURNS):
        for source, images in opened.items():
            stream = inputs.stream(config, images, level=0, start=turn * BATCHES)
            next(stream)
            started = time.perf_counter()
            for _ in range(BATCHES):
                next(stream)
            seconds[source].append(time.perf_counter() - started)
            stream.close()
    images = BATCHES * config.train.batch_size
    return {source: images / statistics.median(each) for source, each in seconds.items()}


def _write_jpegs(folder: pathlib.Path) -> None:
    """Photographic JPEGs of ImageNet's median size, and larger files of the same."""
    # Imported here: a second that no other part shall wait for.
    import pyarrow as pa
    import pyarrow.parquet as pq

    photos = open_source("photos", directory="", split="train")
    for number in range(JPEGS):
        image = cv2.resize(photos[number % len(photos)].image, JPEG_SIZE)
        Image.fromarray(image).save(folder / f"{number:04d}.jpg", quality=90)
    jpegs = sorted(folder.glob("*.jpg"))
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in jpegs]
    # As the hub writes them.
    pq.write_table(pa.table({"image": rows}), folder / "images.parquet", row_group_size=100)
    with tarfile.open(folder / "images.tar", "w") as archive:
        for path in jpegs:
            archive.add(path, path.name)
