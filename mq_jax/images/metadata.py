"""What an image file says of its pixels beside them: orientation and colours."""

import functools
import io
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}

# A profile further from sRGB than by rounding; most files carry sRGB itself.
_ROUNDING = 1


class Metadata(NamedTuple):
    """The raw bytes of each kind, empty where there are none.

    Attributes:
      exif: without its own signature.
      xmp: XML.
      icc: a profile.
    """

    exif: bytes = b""
    xmp: bytes = b""
    icc: bytes = b""


def orientation(metadata: Metadata) -> int:
    """The EXIF orientation, else that of XMP.

    Args:
      metadata: of an image.

    Returns:
      1 to 8; 1 (upright) where there is none, or broken metadata.
    """
    try:
        exif = Image.Exif()
        if metadata.exif:
            exif.load(metadata.exif)
        found = exif.get(_ORIENTATION)
    # Pillow raises anything; broken metadata does not make the pixels unreadable.
    except Exception:
        return 1
    if found is None and (match := _XMP_ORIENTATION.search(metadata.xmp)):
        found = int(match[1])
    return found if found in _UPRIGHT else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as they are to be seen.

    Args:
      pixels: u8[H, W, 3].
      orientation: as EXIF counts.

    Returns:
      u8[H, W, 3] or, turned, u8[W, H, 3]; contiguous.
    """
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Converts an image.

    Args:
      image: of mode L, RGB or CMYK.
      icc: its profile; empty, broken or of another kind of colours: none.

    Returns:
      An image of mode RGB; may be the given one.
    """
    if transform := srgb_transform(icc, image.mode):
        return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


# A data set has few profiles; making a transform takes longer than decoding an image.
@functools.lru_cache(maxsize=16)
def srgb_transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of a profile.

    Args:
      icc: the profile, or no bytes.
      mode: of the images, L, RGB or CMYK.

    Returns:
      From that mode to RGB; None where the profile is absent, broken, of another kind of colours
      or sRGB itself.
    """
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if _MODES.get(profile.profile.xcolor_space) != mode:
            return None
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(profile, srgb, mode, "RGB")
        every = _colours(mode)
        change = np.array(transform.apply(every), int) - np.array(every.convert("RGB"))
    # LittleCMS and Pillow raise several kinds; a broken profile does not make pixels unreadable.
    except Exception:
        return None
    return transform if np.abs(change).max() > _ROUNDING else None


def _colours(mode: str) -> Image.Image:
    """An image of colours from all over the mode's cube."""
    levels = {"L": 256, "RGB": 16, "CMYK": 8}[mode]
    channels = len(Image.new(mode, (1, 1)).getbands())
    axis = np.linspace(0, 255, levels).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[axis] * channels), -1).reshape(1, -1, channels)
    return Image.fromarray(cube[..., 0] if channels == 1 else cube, mode)
