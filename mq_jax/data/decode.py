"""Image files to RGB arrays: strict about damage, defined for every colour mode."""

import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

_EXIF_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def decode_image(data: bytes) -> np.ndarray:
    """Decodes one image file.

    Greyscale is replicated to three channels, 16-bit grey keeps its high byte, palettes become
    RGB, transparency is composited over white, CMYK is converted, the EXIF orientation is applied.

    Args:
      data: a whole JPEG, PNG, WebP, GIF (first frame) or BMP file.

    Returns:
      u8[H, W, 3], RGB in [0, 255].

    Raises:
      ValueError: the file is truncated, corrupt, too large or of another format.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # OpenCV and Pillow accept some damaged JPEGs; strict libjpeg-turbo does not.
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
            else:
                pixels = np.array(_rgb(image))
            orientation = _orientation(image)
    except MemoryError:
        raise
    # Pillow raises anything from SyntaxError to struct.error on damaged files.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, UnidentifiedImageError):
            reason = f"none of {', '.join(FORMATS)}"
        raise ValueError(f"cannot decode an image of {len(data)} bytes ({reason}).") from error
    upright = _UPRIGHT.get(orientation)
    return pixels if upright is None else np.ascontiguousarray(upright(pixels))


def _rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, over white where it is transparent."""
    image.load()
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 instead of scaling.
        return Image.fromarray((np.array(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    # Broken metadata does not make the pixels unreadable.
    except Exception:
        return 1
