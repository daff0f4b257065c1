"""Images of more than 8 bits a value, whole or floating, to bytes."""

import io

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

_WIDTH, _HEIGHT = 256, 257


def bytes_of(values: np.ndarray) -> np.ndarray:
    """Values of a wide type as bytes, by the range that they use.

    Args:
      values: u16, whose range is its own: the high byte is kept; or i32, f32 or f64, whose range
        is the smallest that holds all of them: floats [0, 1], and [0, 255], [0, 65535], for whole
        numbers also [0, 2^32).

    Returns:
      u8 of the same shape.

    Raises:
      ValueError: values are negative, not finite or beyond every range.
    """
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    floating = values.dtype.kind == "f"
    low, high = values.min(), values.max()
    largest = next((top for top in _ranges(floating) if high <= top), None)
    if largest is None or not low >= -1e-3 * floating:
        raise ValueError(f"its values lie in [{low}, {high}]; expected [0, 1] or whole ranges")
    if not floating:
        return (values // ((largest + 1) // 256)).astype(np.uint8)
    return np.clip(np.rint(values * (255 / largest)), 0, 255).astype(np.uint8)


def _ranges(floating: bool) -> tuple[int, ...]:
    return (1, 255, 2**16 - 1) if floating else (255, 2**16 - 1, 2**32 - 1)


def tiff_size(data: bytes) -> tuple[int, int]:
    """Width and height of a TIFF's first image, of whatever type its values are."""
    # The second version's header, of files beyond 4 GB, is twice as long.
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if b"+" in data[:4] else 8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    return int(directory[_WIDTH]), int(directory[_HEIGHT])


def read_tiff(data: bytes) -> Image.Image:
    """A TIFF whose values Pillow does not read, floating colours say, as 8 bits.

    Raises:
      ValueError: OpenCV does not read it either, or its values have no range.
    """
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim == 3 and values.shape[2] not in (3, 4):
        raise ValueError("neither Pillow nor OpenCV reads this kind of TIFF")
    pixels = values if values.dtype == np.uint8 else bytes_of(values)
    # OpenCV's order of channels.
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    return Image.fromarray(pixels if pixels.ndim == 2 else pixels[..., order[pixels.shape[2]]])
