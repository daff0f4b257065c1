"""Official archives into the files that TFDS would make of them, without TensorFlow."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mq_jax.containers.celeba import PARTITION, celeba_archive
from mq_jax.containers.cifar10 import CLASSES, cifar10_archive
from mq_jax.containers.official import ARCHIVES, Archive

# As the builders of TFDS declare them.
VERSIONS = {"cifar10": "3.0.2", "celeb_a": "2.1.0"}
# What they are prepared from.
PREPARED_FROM = {"cifar10": ARCHIVES[0], "celeb_a": ARCHIVES[2]}

# What reading a damaged archive raises.
_DAMAGED = (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


def open_archive(path: pathlib.Path, partition: pathlib.Path | None = None) -> Archive:
    """Opens an official archive; nothing is extracted to a disk, and nothing in it is run.

    Args:
      path: of cifar-10-python.tar.gz, cifar-10-binary.tar.gz or img_align_celeba.zip, under any
        name that ends so.
      partition: of CelebA's list_eval_partition.txt; None: beside the archive.

    Returns:
      The Archive.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: it is damaged, or no such archive.
    """
    for file in (path, partition):
        if file is not None and not file.exists():
            raise FileNotFoundError(f"{file} does not exist; expected an official archive.")
    try:
        if path.name.endswith(".zip"):
            return celeba_archive(path, partition or path.with_name(PARTITION))
        if path.name.endswith((".tar.gz", ".tgz")):
            return cifar10_archive(path)
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path} cannot be read ({error}); download it again.") from error
    raise ValueError(f"{path} is none of {', '.join(ARCHIVES)}; expected one of them.")


def folder_of(directory: pathlib.Path, dataset: str) -> pathlib.Path:
    """Where TFDS looks for a set.

    Args:
      directory: TFDS's data_dir.
      dataset: a name of VERSIONS.

    Returns:
      The folder.
    """
    return directory / dataset / VERSIONS[dataset]


def prepare(
    archive: Archive, directory: pathlib.Path, progress: Callable[[int], Any] | None = None
) -> pathlib.Path:
    """Writes a set as `tfds build --file_format=array_record` does, in the same order.

    Args:
      archive: of the images.
      directory: TFDS's data_dir.
      progress: told the number of further images that are done.

    Returns:
      The folder of the set, which appears whole or not at all.

    Raises:
      ValueError: the set is there, or the archive is damaged.
      OSError: it cannot be written.
    """
    folder = folder_of(directory, archive.dataset)
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        _write(archive, temporary, progress or (lambda images: None))
        require_free(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def require_free(folder: pathlib.Path) -> None:
    """Checks that nothing is where a set shall be.

    Args:
      folder: of the set.

    Raises:
      ValueError: something is.
    """
    if folder.exists():
        raise ValueError(f"{folder} is there already; use it, or move it away to prepare it anew.")


def _write(archive: Archive, folder: pathlib.Path, progress: Callable[[int], Any]) -> None:
    """Fills the folder of a set."""
    # Imported here: 0.6 s that only this needs.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import (
        dataset_info,
        example_serializer,
        file_adapters,
        naming,
        writer,
    )

    # Those of its own; the caller shows one.
    tfds.disable_progress_bar()
    name, version = archive.dataset, VERSIONS[archive.dataset]
    identity = dataset_info.DatasetIdentity(name, version, str(folder), module_name="")
    features = _features(tfds, archive)
    keys = ("image", "label") if "label" in features else None
    info = tfds.core.DatasetInfo(builder=identity, features=features, supervised_keys=keys)
    info.set_file_format("array_record")
    serializer = example_serializer.ExampleSerializer(info.features.get_serialized_info())
    splits = []
    for split in archive.counts:
        template = naming.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        # It sorts by a hash of the key with the name of the split.
        written = writer.Writer(
            serializer=serializer,
            filename_template=template,
            hash_salt=split,
            disable_shuffling=False,
            example_writer=writer.ExampleWriter(file_adapters.FileFormat.ARRAY_RECORD),
        )
        for example in archive.examples(split):
            encoded = {"image": io.BytesIO(example.image), **example.others}
            written.write(example.key, info.features.encode_example(encoded))
            progress(1)
        lengths, size = written.finalize()
        splits.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
            )
        )
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(folder)


def _features(tfds: Any, archive: Archive) -> Any:
    """What a record has."""
    if archive.dataset == "cifar10":
        label = tfds.features.ClassLabel(names=CLASSES)
        image = tfds.features.Image(shape=(32, 32, 3))
        features = {"id": tfds.features.Text(), "image": image, "label": label}
    else:
        image = tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg")
        kinds = {"attributes": np.bool_, "landmarks": np.int64, "identity": np.int64}
        groups = archive.annotations.items()
        told = {group: dict.fromkeys(columns, kinds[group]) for group, columns in groups}
        features = {"image": image, **told}
    return tfds.features.FeaturesDict(features)
