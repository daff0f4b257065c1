"""Image files to RGB arrays: strict about damage, defined for every colour mode.

The bytes' own signature decides, not the name: what changes or ends the pixels is refused, and
what does not is no reason to refuse a file.
"""

import io
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, PngImagePlugin, TiffImagePlugin
from PIL.WebPImagePlugin import WebPImageFile

from mq_jax.devices.reading import open_regular
from mq_jax.images import jpeg, png, wide
from mq_jax.images.metadata import Metadata, orientation, srgb_transform, to_srgb, upright

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Pillow's classes, without its `open`, which tries each of them.
_PILLOW: dict[bytes, Callable[[io.BytesIO], Image.Image]] = {
    b"GIF8": GifImagePlugin.GifImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"RIFF": WebPImageFile,
    **dict.fromkeys(_TIFFS, TiffImagePlugin.TiffImageFile),
}
# Of a mode, the one without transparency in which a profile may speak of it.
_OPAQUE = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}


class Reading(NamedTuple):
    """How image files are read.

    Attributes:
      icc: whether an embedded colour profile is followed, to sRGB.
      max_pixels: of an image; larger ones are refused before they are decoded.
      max_bytes: of a file; larger ones are refused before they are read; 0: any.
    """

    icc: bool = True
    max_pixels: int = 10**8
    max_bytes: int = 2**28


USUAL = Reading()


def read_image(path: str | os.PathLike, reading: Reading) -> np.ndarray:
    """Reads and decodes one image file.

    Args:
      path: of the file.
      reading: how.

    Returns:
      As decode_image's.

    Raises:
      ValueError: it cannot be read, is no regular file, too large, or as decode_image.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            _require_bytes(size, reading)
            data = file.read(size)
    except OSError as error:
        raise ValueError(f"cannot read the file ({error}).") from error
    return decode_image(data, reading)


def decode_image(data: bytes, reading: Reading = USUAL) -> np.ndarray:
    """Decodes one image file.

    Greyscale is replicated to three channels, 16-bit values keep their high byte, floats in [0, 1]
    are scaled, palettes become RGB, transparency is composited over white, CMYK is converted, the
    EXIF orientation is applied.

    Args:
      data: a whole JPEG, PNG, WebP, GIF, BMP or TIFF file; of several images, the first counts.
      reading: how.

    Returns:
      u8[H, W, 3], sRGB in [0, 255].

    Raises:
      ValueError: the pixels are damaged or not whole, too many, or of another format.
    """
    try:
        _require_bytes(len(data), reading)
        if data.startswith(jpeg.SIGNATURE):
            return _from_jpeg(data, reading)
        if data.startswith(png.SIGNATURE):
            return _from_png(data, reading)
        for signature, plugin in _PILLOW.items():
            if data.startswith(signature):
                return _from_pillow(plugin, data, reading)
        raise ValueError(f"none of {', '.join(FORMATS)}")
    except MemoryError:
        raise
    # Pillow raises anything from SyntaxError to struct.error on damaged files.
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = f"{kind}{error}"
        raise ValueError(f"cannot decode an image of {len(data)} bytes ({reason}).") from error


def _from_jpeg(data: bytes, reading: Reading) -> np.ndarray:
    header = jpeg.read_header(data)
    _require_pixels(header.width, header.height, reading)
    pixels = jpeg.decode_pixels(data, header)
    icc = header.metadata.icc if reading.icc else b""
    mode = {1: "L", 4: "CMYK"}.get(header.components, "RGB")
    if mode == "CMYK" or srgb_transform(icc, mode):
        values = {"L": pixels[..., 0], "RGB": pixels, "CMYK": 255 - pixels}[mode]
        pixels = np.array(to_srgb(Image.fromarray(values, mode), icc))
    return upright(pixels, orientation(header.metadata))


def _from_png(data: bytes, reading: Reading) -> np.ndarray:
    header = png.read_header(data)
    _require_pixels(header.width, header.height, reading)
    with PngImagePlugin.PngImageFile(io.BytesIO(header.reduced)) as image:
        pixels = _rgb(image, header.metadata.icc if reading.icc else b"")
    return upright(pixels, orientation(header.metadata))


def _from_pillow(plugin: Callable, data: bytes, reading: Reading) -> np.ndarray:
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow's own limit would refuse what this one was raised for.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, reading.max_pixels)
    if data.startswith(_TIFFS):
        # Before Pillow, which refuses some kinds that OpenCV reads.
        _require_pixels(*wide.tiff_size(data), reading)
    try:
        image = plugin(io.BytesIO(data))
    except SyntaxError:
        if not data.startswith(_TIFFS):
            raise
        image = wide.read_tiff(data)
    with image:
        _require_pixels(*image.size, reading)
        kinds = ("exif", "xmp", "icc_profile")
        metadata = Metadata(*(image.info.get(kind, b"") for kind in kinds))
        pixels = _rgb(image, metadata.icc if reading.icc else b"")
    # Pillow turns a TIFF as it loads it.
    return pixels if data.startswith(_TIFFS) else upright(pixels, orientation(metadata))


def _rgb(image: Image.Image, icc: bytes) -> np.ndarray:
    """The image as RGB, over white where it is transparent."""
    image.load()
    if image.mode.startswith(("I", "F")):
        # Pillow's own conversion clips at 255 instead of scaling.
        image = Image.fromarray(wide.bytes_of(np.array(image)))
    mode = _OPAQUE.get(image.mode, "RGB")
    colours = to_srgb(image if image.mode == mode else image.convert(mode), icc)
    if not image.has_transparency_data:
        return np.array(colours)
    colours.putalpha(image.convert("RGBA").getchannel("A"))
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, colours).convert("RGB"))


def _require_pixels(width: int, height: int, reading: Reading) -> None:
    if width * height > reading.max_pixels:
        raise ValueError(
            f"it has {width} x {height} pixels; max_pixels is {reading.max_pixels}, raise it to "
            "read such images"
        )


def _require_bytes(size: int, reading: Reading) -> None:
    if 0 < reading.max_bytes < size:
        raise ValueError(
            f"the file has {size} bytes; max_bytes is {reading.max_bytes}, raise it to read such "
            "files."
        )
