"""--mode=prepare: an official archive into a set that `tfds:NAME` reads, without TensorFlow."""

import pathlib

import jax
from absl import flags, logging

from mq_jax.commandline import UsageError
from mq_jax.containers.celeba import ANNOTATIONS, PARTITION
from mq_jax.containers.official import ARCHIVES, Archive, is_as_published
from mq_jax.data.prepared import data_directory
from mq_jax.data.preparing import folder_of, open_archive, prepare, require_free
from mq_jax.devices.places import local_path
from mq_jax.storage.files import size_of
from mq_jax.terminal.console import ImageBar
from mq_jax.terminal.streams import tell


def run_preparation(given: flags.FlagValues) -> None:
    """Writes the set of an archive.

    Args:
      given: the flags of mq_jax.main.

    Raises:
      UsageError: no archive is given, or there are several processes.
      FileNotFoundError: the archive, or CelebA's list, is not there.
      ValueError: the archive is damaged or another one, or the set is there.
      OSError: it cannot be written.
    """
    if not given["from"].value:
        raise UsageError(f"--from is missing; give an archive: {', '.join(ARCHIVES)}.")
    if jax.process_count() > 1:
        raise UsageError("--mode=prepare writes one set; run it in one process.")
    path = local_path(given["from"].value, "--from")
    partition = local_path(given.partition, "--partition") if given.partition else None
    directory = pathlib.Path(data_directory(given.output, "--output"))
    archive = open_archive(path, partition)
    require_free(folder_of(directory, archive.dataset))
    for file in _files(archive, path, partition or path.with_name(PARTITION)):
        if not is_as_published(file):
            logging.warning("%s is not what was published, by its sha256; it is taken", file)
    bar = ImageBar(sum(archive.counts.values()))
    try:
        folder = prepare(archive, directory, bar.advance)
    finally:
        bar.close()
    counts = ", ".join(f"{split} {count:,}" for split, count in archive.counts.items())
    tell(f"{folder}: {counts}; {size_of(folder):,} bytes")
    shown = f" --config.data.dir={directory}" if given.output else ""
    tell(f"To read it: --config.data.source=tfds:{archive.dataset}{shown}")


def _files(archive: Archive, path: pathlib.Path, partition: pathlib.Path) -> list[pathlib.Path]:
    """The files that a set is made of; says which of CelebA's are not."""
    if archive.dataset != "celeb_a":
        return [path]
    beside = [partition.with_name(name) for name in ANNOTATIONS.values()]
    if archive.annotations:
        return [path, partition, *beside]
    logging.warning(
        "Images alone, without %s, which TFDS's own set has and nothing here reads: not all of %s "
        "lie in %s",
        *(", ".join(words) for words in (ANNOTATIONS, ANNOTATIONS.values())),
        partition.parent,
    )
    return [path, partition]
