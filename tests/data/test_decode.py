"""What `decode_image` makes of every kind of image file."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from mq_jax.data.decode import decode_image


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
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGB", "WEBP")],
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


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="DecompressionBomb"):
        decode_image(_encode(Image.fromarray(_smooth()), "PNG"))
