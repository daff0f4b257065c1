"""What `decode_image` makes of every kind of image file."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from configs import base
from mq_jax.images.decode import FORMATS, Reading, decode_image, read_image
from mq_jax.runs import earlier


def _smooth(height=24, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([6 * x, 10 * y, 3 * (x + y)], -1).astype(np.uint8)


def _encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "format, options", [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})]
)
def test_lossless_files_decode_to_their_pixels(format, options):
    pixels = _smooth()
    decoded = decode_image(_encode(Image.fromarray(pixels), format, **options))
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8 and decoded.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_decodes_close_to_its_pixels(options):
    decoded = decode_image(_encode(Image.fromarray(_smooth()), "JPEG", quality=95, **options))
    assert np.abs(decoded.astype(int) - _smooth()).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_grey_is_replicated(format):
    decoded = decode_image(_encode(Image.fromarray(_smooth()[..., 0]), format))
    assert decoded.shape == (24, 40, 3)
    np.testing.assert_array_equal(decoded, decoded[..., :1].repeat(3, -1))


def test_sixteen_bit_grey_keeps_the_high_byte():
    grey = _smooth()[..., 0].astype(np.uint16) * 256 + 77
    decoded = decode_image(_encode(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(decoded[..., 1], _smooth()[..., 0])


def test_bilevel_becomes_black_and_white():
    decoded = decode_image(_encode(Image.fromarray(_smooth()[..., 0] > 100), "PNG"))
    np.testing.assert_array_equal(decoded[..., 2], (_smooth()[..., 0] > 100) * np.uint8(255))


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palette_becomes_rgb(format):
    image = Image.fromarray(_smooth()).quantize(16)
    np.testing.assert_array_equal(
        decode_image(_encode(image, format)), np.array(image.convert("RGB"))
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_over_white(mode):
    image = Image.new(mode, (3, 1))
    grey = (100,) * (len(mode) - 1)
    for x, alpha in enumerate((255, 0, 51)):
        image.putpixel((x, 0), (*grey, alpha))
    decoded = decode_image(_encode(image, "PNG"))
    np.testing.assert_array_equal(decoded[0, :, 0], [100, 255, 224])


def test_the_transparent_palette_entry_becomes_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode_image(_encode(image, "PNG", transparency=1))
    np.testing.assert_array_equal(decoded[0], [[10, 20, 30], [255, 255, 255]])


def test_cmyk_jpeg_is_converted():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode_image(_encode(image, "JPEG", quality=95))
    assert decoded.shape == (16, 16, 3)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(Image.fromarray(_smooth()), format, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous


def test_broken_exif_leaves_the_pixels_readable():
    data = _encode(Image.fromarray(_smooth()), "JPEG", exif=b"Exif\x00\x00nonsense")
    assert decode_image(data).shape == (24, 40, 3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    "mode, format",
    [
        *(("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGB", "WEBP")),
        *(("RGB", "TIFF"), ("L", "GIF"), ("RGB", "BMP")),
    ],
)
def test_a_truncated_file_is_refused(mode, format, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = _encode(Image.fromarray(noise).convert(mode), format)
    with pytest.raises(ValueError, match="cannot decode"):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(64)])
def test_garbage_is_refused(data):
    with pytest.raises(ValueError, match=f"an image of {len(data)} bytes"):
        decode_image(data)


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_of_too_many_pixels_is_refused_by_its_header(format, monkeypatch):
    image = Image.fromarray(_smooth())
    data = _encode(image, format)
    assert decode_image(data, Reading(max_pixels=24 * 40)).shape == (24, 40, 3)
    for name in ("PngImagePlugin.PngImageFile.load", "ImageFile.ImageFile.load"):
        monkeypatch.setattr(f"PIL.{name}", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="has 40 x 24 pixels; max_pixels is 959, raise it"):
        decode_image(data, Reading(max_pixels=959))


@pytest.mark.parametrize("format", FORMATS)
def test_the_limit_of_pillow_is_not_ours(format, monkeypatch):
    """It warns at its own limit and refuses at twice that, with no field to raise it by."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(_encode(Image.fromarray(_smooth()), format)).shape == (24, 40, 3)


def test_a_small_file_of_very_many_pixels_is_refused_at_once():
    """Grey, two megabytes, 13,300 pixels a side: its header alone is needed."""
    data = bytearray(_encode(Image.new("L", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (13_300).to_bytes(2) * 2
    with pytest.raises(ValueError, match="has 13300 x 13300 pixels; max_pixels is 100000000"):
        decode_image(bytes(data))


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(ValueError, match="has 3000000000 bytes; max_bytes is 268435456, raise it"):
        read_image(tmp_path / "sparse.png", Reading())
    data = _encode(Image.fromarray(_smooth()), "PNG")
    with pytest.raises(ValueError, match=f"has {len(data)} bytes; max_bytes is 10"):
        decode_image(data, Reading(max_bytes=10))
    assert decode_image(data, Reading(max_bytes=0)).shape == (24, 40, 3)


@pytest.mark.parametrize("kind", ["device", "link to a device", "pipe", "folder", "nothing"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "image.png"
    if kind == "device":
        path = "/dev/zero"
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(ValueError, match="cannot read the file"):
        read_image(path, Reading())


def test_the_limits_of_a_configuration_are_those_of_reading():
    data = base.get_config().data
    assert Reading(data.icc, data.max_pixels, data.max_bytes) == Reading()
    assert Reading(**{n.split(".")[1]: v for n, v in earlier.ADDED.items() if _of_reading(n)}) == (
        Reading(icc=False, max_pixels=2 * (2**30 // 4 // 3), max_bytes=0)
    )


def _of_reading(name):
    return name.removeprefix("data.") in Reading._fields


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_jpeg"}])
def test_tiff_decodes_to_its_pixels(options):
    decoded = decode_image(_encode(Image.fromarray(_smooth()), "TIFF", **options))
    assert np.abs(decoded.astype(int) - _smooth()).mean() < (3 if "jpeg" in str(options) else 1e-9)


def test_a_tiff_is_turned_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _encode(Image.fromarray(_smooth()), "TIFF", exif=exif)
    np.testing.assert_array_equal(decode_image(data), np.rot90(_smooth(), -1))


def test_the_first_of_several_pages_or_frames_counts():
    pages = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    for format in ("TIFF", "GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = _encode(pages[0], format, save_all=True, append_images=pages[1:], **options)
        assert (decode_image(data) == 10).all(), format


GREY = _smooth()[..., 0].astype(int)
# Values, and the bytes that they are to become.
WIDE = {
    "whole, 16 bits": (GREY.astype(np.uint16) * 257, GREY),
    "whole, 32 bits, of which 8": (GREY.astype(np.int32), GREY),
    "whole, 32 bits, of which 16": (GREY.astype(np.int32) * 256 + 255, GREY),
    "whole, 32 bits": (GREY.astype(np.int32) * 2**23, GREY // 2),
    "floats in [0, 1]": ((GREY / 255).astype(np.float32), GREY),
    "floats in [0, 255]": (GREY.astype(np.float32), GREY),
    "floats in [0, 65535]": ((GREY * 257).astype(np.float32), GREY),
    "floats just outside": ((GREY / 255).astype(np.float32) - 1e-4, GREY),
    "dark floats": (GREY.astype(np.float32) / 510, (GREY + 1) // 2),
}


@pytest.mark.parametrize("kind", WIDE)
def test_wide_grey_tiffs_are_scaled_to_bytes(kind):
    values, expected = WIDE[kind]
    decoded = decode_image(_encode(Image.fromarray(values), "TIFF"))
    assert np.abs(decoded.astype(int) - expected[..., None]).max() <= ("dark" in kind)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_wide_coloured_tiffs_are_scaled_to_bytes(dtype):
    values = _smooth() / 255 if dtype == np.float32 else _smooth().astype(int) * 257
    _, data = cv2.imencode(".tiff", values.astype(dtype)[..., ::-1])
    np.testing.assert_array_equal(decode_image(data.tobytes()), _smooth())
    with pytest.raises(ValueError, match="has 40 x 24 pixels; max_pixels is 1"):
        decode_image(data.tobytes(), Reading(max_pixels=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 70000])
def test_floats_without_a_range_are_refused(value):
    values = np.full((8, 8), 0.5, np.float32)
    values[3, 3] = value
    with pytest.raises(ValueError, match="its values lie in|it has values"):
        decode_image(_encode(Image.fromarray(values), "TIFF"))
