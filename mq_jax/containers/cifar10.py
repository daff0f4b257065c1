"""The archives of CIFAR-10, in pickles of Python 2 or as bytes."""

from __future__ import annotations

import gzip
import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

from mq_jax.containers.official import Archive, Example
from mq_jax.devices.reading import open_regular
from mq_jax.storage.restricted import RestrictedUnpickler

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
# A batch of 10,000 images has 31 MB.
_MOST_BATCH = 2**26


def cifar10_archive(path: pathlib.Path) -> Archive:
    """Reads CIFAR-10; no code that a pickle names is run.

    Args:
      path: of cifar-10-python.tar.gz or cifar-10-binary.tar.gz.

    Returns:
      The Archive.

    Raises:
      ValueError: it is damaged, or no such archive.
      OSError: it cannot be read.
      tarfile.TarError: it is no tar file.
      EOFError: it is not whole.
      zlib.error: it is damaged.
    """
    names = [name for split in _BATCHES.values() for name in split]
    found = {}
    with (
        open_regular(path) as file,
        gzip.GzipFile(fileobj=file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,
    ):
        for member in archive:
            name = pathlib.PurePosixPath(member.name).name
            if member.isreg() and name.removesuffix(".bin") in names:
                if member.size > _MOST_BATCH:
                    raise ValueError(f"{name} has {member.size:,} bytes")
                data = archive.extractfile(member).read()
                read = _binary_batch if name.endswith(".bin") else _pickled_batch
                found[name.removesuffix(".bin")] = read(data, name)
        # The checksum comes last, and not all is read before.
        while plain.read(2**20):
            pass
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")

    def examples(split):
        number = 0
        for name in _BATCHES[split]:
            for label, pixels in zip(*found[name], strict=True):
                yield Example(
                    number,
                    _png(pixels.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)),
                    {"label": int(label), "id": f"{split}_{number:05d}"},
                )
                number += 1

    counts = {s: sum(len(found[name][0]) for name in own) for s, own in _BATCHES.items()}
    return Archive("cifar10", counts, {}, examples)


def _binary_batch(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels u8[N] and pixels u8[N, 3072]."""
    if not data or len(data) % (1 + _PIXELS):
        raise ValueError(f"{name} has {len(data)} bytes; expected a multiple of {1 + _PIXELS}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return _required(rows[:, 0], rows[:, 1:], name)


def _pickled_batch(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """As _binary_batch."""
    try:
        batch = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels = np.frombuffer(batch[b"data"].data, np.uint8).reshape(-1, _PIXELS)
        return _required(np.array(batch[b"labels"]), pixels, name)
    # A damaged pickle raises almost anything.
    except Exception as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{name} is no batch of images ({told})") from error


def _required(labels, pixels, name):
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(f"{name} has labels {labels.shape} for {len(pixels)} images")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"{name} has labels from {labels.min()} to {labels.max()}")
    return labels, pixels


class _Array:
    """Stands for an array that a pickle describes: its bytes, and nothing of what they would be."""

    def __init__(self, *_):
        self.data = b""

    def __setstate__(self, state):
        self.data = state[4]


class _Kind:
    """Stands for the dtype of an array."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


class _BatchUnpickler(RestrictedUnpickler):
    """Builds dicts, lists and descriptions of arrays."""

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Kind,
    }
    refusal = "it names {}, expected arrays alone"


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
