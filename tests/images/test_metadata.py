"""Colour profiles inside image files: followed to sRGB, or the colours as they are."""

import io

import numpy as np
import profiles
import pytest
from PIL import Image, ImageCms

from mq_jax.images import metadata
from mq_jax.images.decode import Reading, decode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
RGB, GREY = profiles.profile(), profiles.profile("GRAY", 1.4)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}}


def converted(image, icc):
    """What LittleCMS makes of an image, through Pillow's one-call form."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    target = ImageCms.createProfile("sRGB")
    return np.array(ImageCms.profileToProfile(image, source, target, outputMode="RGB"))


@pytest.mark.parametrize("format", [*LOSSLESS, "JPEG"])
def test_a_profile_is_followed_in_every_format_that_has_one(format):
    image = Image.fromarray(PIXELS)
    options = LOSSLESS.get(format, {"quality": 95})
    data = profiles.encoded(image, format, icc_profile=RGB, **options)
    plain = decode_image(data, Reading(icc=False))
    np.testing.assert_array_equal(plain, np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    expected = converted(Image.fromarray(plain), RGB)
    np.testing.assert_array_equal(decode_image(data), expected)
    assert np.abs(expected.astype(int) - plain).max() > 20


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_profile_of_grey_is_followed_for_grey(format):
    image = Image.fromarray(PIXELS[..., 0])
    data = profiles.encoded(image, format, icc_profile=GREY)
    grey = decode_image(data, Reading(icc=False))[..., 0]
    found = decode_image(data)
    np.testing.assert_array_equal(found, converted(Image.fromarray(grey), GREY))
    assert np.abs(found[..., 0].astype(int) - grey).max() > 20


def test_long_profiles_are_put_together_from_their_parts():
    """JPEG's segments hold 64 kB each."""
    long = RGB + bytes(150_000)
    data = profiles.encoded(Image.fromarray(PIXELS), "JPEG", icc_profile=long)
    assert data.count(b"ICC_PROFILE") == 3
    plain = decode_image(data, Reading(icc=False))
    np.testing.assert_array_equal(decode_image(data), converted(Image.fromarray(plain), RGB))
    # One part lost: no profile.
    np.testing.assert_array_equal(decode_image(data.replace(b"ICC_PROFILE", b"X", 1)), plain)


def test_transparency_is_composited_after_the_colours():
    image = Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))
    data = profiles.encoded(image, "PNG", icc_profile=RGB)
    opaque = Image.fromarray(np.dstack([converted(Image.fromarray(PIXELS), RGB), PIXELS[..., 0]]))
    white = Image.new("RGBA", image.size, "white")
    expected = np.array(Image.alpha_composite(white, opaque).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), expected)


@pytest.mark.parametrize(
    ("mode", "icc"),
    {
        "absent": ("RGB", b""),
        "sRGB itself": ("RGB", SRGB),
        "no profile": ("RGB", b"nothing of the kind"),
        "cut off": ("RGB", RGB[:200]),
        "of grey, for colours": ("RGB", GREY),
        "of colours, for grey": ("L", RGB),
        "of colours, for inks": ("CMYK", RGB),
    }.values(),
)
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_colours_stay_as_they_are_without_a_profile_that_speaks_of_them(mode, icc, format):
    data = profiles.encoded(Image.fromarray(PIXELS).convert(mode), format, icc_profile=icc)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), expected)


def test_a_damaged_profile_never_costs_its_image():
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(RGB)
        for at in rng.integers(0, len(RGB), 4):
            damaged[at] = rng.integers(256)
        data = profiles.encoded(Image.fromarray(PIXELS), "PNG", icc_profile=bytes(damaged))
        assert decode_image(data).shape == PIXELS.shape


def test_a_transform_is_made_once_for_all_images_of_a_profile():
    first = metadata.srgb_transform(RGB, "RGB")
    assert first is not None and metadata.srgb_transform(bytes(bytearray(RGB)), "RGB") is first
