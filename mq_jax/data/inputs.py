"""From a configuration to images: sources, training streams, the evaluation pass."""

from collections.abc import Iterable, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from mq_jax.algorithm.state import Parts
from mq_jax.containers.parquet import Columns
from mq_jax.data.folder import require_folder
from mq_jax.data.pipeline import eval_batches, train_stream
from mq_jax.data.sharded import KINDS
from mq_jax.data.shards import require_shards
from mq_jax.data.sources import Source, halves, open_source
from mq_jax.images.decode import Reading
from mq_jax.images.transforms import make_eval_transform, make_train_transform


def require_directory(config: ConfigDict) -> None:
    """Checks that the folder or the files of the data are there, where the source needs one.

    Args:
      config: validated.

    Raises:
      FileNotFoundError: config.data.dir is empty, or there is nothing.
    """
    if config.data.source == "folder":
        require_folder(config.data.dir)
    elif config.data.source in KINDS:
        require_shards(config.data.dir)


def open_training(config: ConfigDict) -> Parts:
    """Opens the sources of the two levels.

    Args:
      config: validated.

    Returns:
      Parts(autoencoder=the inner level's source, codebook=the outer level's).

    Raises:
      ValueError: the data is not there, or too little for one batch.
      FileNotFoundError: the folder is not there.
    """
    return levels(config, open_split(config))


def open_split(config: ConfigDict) -> Source:
    """Opens the split that both levels are trained on.

    Args:
      config: validated.

    Returns:
      The source.

    Raises:
      ValueError: the data is not there.
      FileNotFoundError: the folder is not there.
    """
    return _open(config, config.data.train_split)


def levels(config: ConfigDict, source: Source) -> Parts:
    """Shares a training split out to the two levels.

    Args:
      config: validated.
      source: from open_split.

    Returns:
      As open_training.

    Raises:
      ValueError: there is too little for two levels.
    """
    return (
        Parts(*halves(source)) if config.train.outer_data == "held-out" else Parts(source, source)
    )


def reads_outer(config: ConfigDict) -> bool:
    """Whether the outer level reads batches of its own, beside those of the inner.

    Args:
      config: validated.

    Returns:
      False where there is no such level, and where it sees the inner batches.
    """
    alone = config.train.hypergradient in ("joint", "pipelined")
    return not alone and config.train.outer_data != "same"


def open_evaluation(config: ConfigDict) -> Source:
    """Opens the source of the evaluation.

    Args:
      config: validated.

    Returns:
      The source.

    Raises:
      ValueError: the data is not there.
      FileNotFoundError: the folder is not there.
    """
    return _open(config, config.data.eval_split)


def require_divisible(config: ConfigDict, devices: int) -> None:
    """Checks that training batches can be split over the devices; those of evaluation are padded.

    Args:
      config: validated.
      devices: of all processes.

    Raises:
      ValueError: the batch size is no multiple of their number.
    """
    size, accumulate = config.train.batch_size, config.train.accumulate
    parts = devices * accumulate
    if size % parts:
        parted = f" times config.train.accumulate, {accumulate}" if accumulate > 1 else ""
        raise ValueError(
            f"config.train.batch_size is {size}; expected a multiple of the {devices} devices"
            f"{parted}; give --config.train.batch_size={-(-size // parts) * parts}, or take fewer "
            "devices by CUDA_VISIBLE_DEVICES."
        )


def stream(config: ConfigDict, source: Source, *, level: int, start: int) -> Iterator[dict]:
    """The endless training batches of one level, this process's rows of them.

    Args:
      config: validated.
      source: the level's.
      level: 0 for the inner, 1 for the outer: each has an order of its own.
      start: batches consumed already.

    Returns:
      As data.pipeline.train_stream's.
    """
    return train_stream(
        source,
        _train_transform(config),
        batch_size=config.train.batch_size,
        seed=_seed(config, level),
        start=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        workers=config.data.workers,
    )


def first_images(
    config: ConfigDict, source: Source, *, count: int, batch_size: int
) -> Iterator[np.ndarray]:
    """The images that the inner level sees first, all of them in this process.

    Args:
      config: validated.
      source: the inner level's.
      count: of images, rounded up to whole batches.
      batch_size: whatever that of the training is, the images are the same.

    Yields:
      u8[batch_size, S, S, 3]; what cannot be read is replaced, as in training.
    """
    batches = train_stream(
        source,
        _train_transform(config),
        batch_size=batch_size,
        seed=_seed(config, 0),
        threads=config.data.threads,
    )
    try:
        for _ in range(-(-count // batch_size)):
            yield next(batches)["image"]
    finally:
        batches.close()


def evaluation_side(config: ConfigDict) -> int:
    """The side of an evaluation image, pixels.

    Args:
      config: validated.

    Returns:
      config.data.eval_image_size, or where it is 0 image_size.
    """
    return config.data.eval_image_size or config.data.image_size


def evaluation_pass(config: ConfigDict, source: Source, devices: int) -> Iterable[dict]:
    """One deterministic pass, this process's rows of it.

    Args:
      config: validated.
      source: from open_evaluation.
      devices: over which a batch is split. Where they do not divide eval.batch_size it is rounded
        up to them: as many images on a device as without, and no device is idle.

    Returns:
      As data.pipeline.eval_batches's.
    """
    transform = make_eval_transform(image_size=evaluation_side(config), **_geometry(config))
    return eval_batches(
        source,
        transform,
        batch_size=-(-config.eval.batch_size // devices) * devices,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        # Not processes: to start them takes seconds, at each evaluation, beside those of training.
        threads=evaluation_threads(config),
    )


def evaluation_threads(config: ConfigDict) -> int:
    """Threads of a process that read an evaluation: as many as its workers have in training.

    Args:
      config: of the experiment.

    Returns:
      Their number; 0 where each batch is read when it is asked for.
    """
    return config.data.threads * max(config.data.workers, 1)


def _open(config, split):
    data = config.data
    reading = Reading(data.icc, data.max_pixels, data.max_bytes)
    return open_source(
        data.source,
        directory=data.dir,
        split=split,
        holdout=data.holdout,
        columns=Columns(data.image_column, data.label_column),
        reading=reading,
    )


def _seed(config, level):
    """Of the order and the augmentation of one level."""
    return int(np.random.SeedSequence((config.seed, level)).generate_state(1)[0])


def _train_transform(config):
    return make_train_transform(
        image_size=config.data.image_size, flip=config.data.flip, **_geometry(config)
    )


def _geometry(config):
    return {
        "crop": config.data.crop,
        "resize": config.data.resize,
        "filter": config.data.filter,
    }
