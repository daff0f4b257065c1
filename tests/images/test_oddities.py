"""Files that are odd, and files that are damaged: what the pixels are made of decides."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mq_jax.images import jpeg, png
from mq_jax.images.decode import decode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
JPEGS = {
    "plain": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "grey": ("L", {}),
    "grey progressive": ("L", {"progressive": True}),
    "full chroma": ("RGB", {"subsampling": 0}),
    "restarts": ("RGB", {"restart_marker_blocks": 2}),
    "inks": ("CMYK", {}),
    "of a phone": ("RGB", {"format": "MPO"}),
}
EACH = pytest.mark.parametrize("kind", JPEGS)


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def jpeg_of(kind):
    mode, options = JPEGS[kind]
    image = Image.fromarray(PIXELS).convert(mode)
    if "format" in options:
        options = {**options, "save_all": True, "append_images": [image]}
    return encoded(image, **{"format": "JPEG", "quality": 95, **options})


def shown(data):
    """What Pillow makes of a file."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def scan_of(data):
    """Where the first scan's header, its coded data and the end of the picture begin."""
    header = data.index(b"\xff\xda")
    end = data.index(b"\xff\xd9", header)
    return header, header + 2 + int.from_bytes(data[header + 2 : header + 4]), end


def zeroed_scan_header(data):
    _, begin, _ = scan_of(data)
    return data[: begin - 3] + bytes(3) + data[begin:]


def before(marker, padding):
    def insert(data):
        at = data.index(bytes((0xFF, marker)), 2)
        return data[:at] + padding + data[at:]

    return insert


def other_revision(data):
    at = data.index(b"JFIF\0") + 5
    return data[:at] + b"\x09\x63" + data[at + 2 :]


def short_comment(data):
    """A comment whose length leaves out half of it."""
    return data[:2] + b"\xff\xfe\x00\x08" + b"half of this is too much" + data[2:]


def many_zeros(data):
    """As many as a pattern that goes back over them would not end with."""
    return before(0xDB, bytes(200_000))(before(0xD9, bytes(200_000))(data))


def unknown_transform(data):
    """Adobe's segment with a transform that nobody defines: three components are then YCbCr."""
    return data[:2] + b"\xff\xee\x00\x0eAdobe\0d" + bytes(4) + b"\x07" + data[2:]


HARMLESS = {
    "Ss, Se, Ah, Al of zero": (zeroed_scan_header, ["plain", "grey", "restarts", "of a phone"]),
    "zeros before a table": (before(0xDB, bytes(3)), JPEGS),
    "bytes before a table": (before(0xC4, b"ab\xff\xff"), JPEGS),
    "bytes before the scan": (before(0xDA, b"\x20"), JPEGS),
    "zeros before the end": (before(0xD9, bytes(70)), ["plain", "grey", "restarts", "inks"]),
    "fill before the end": (before(0xD9, b"\xff" * 9), JPEGS),
    "very many zeros": (many_zeros, ["plain", "inks"]),
    "an odd revision of JFIF": (other_revision, ["plain", "progressive", "grey"]),
    "an odd transform of Adobe": (unknown_transform, ["plain", "progressive"]),
    "a comment with a wrong length": (short_comment, JPEGS),
    "no end": (lambda data: data[: scan_of(data)[2]], ["plain", "grey", "inks"]),
    "half an end": (lambda data: data[: scan_of(data)[2] + 1], ["plain", "grey", "inks"]),
    "something behind the end": (lambda data: data + b"\0" * 99 + b"\xff\xd8\xff\xda", JPEGS),
    "broken Exif": (lambda data: data[:2] + b"\xff\xe1\x00\x0eExif\0\0nonsen" + data[2:], JPEGS),
}


@pytest.mark.parametrize(
    ("oddity", "kind"), [(name, kind) for name, (_, kinds) in HARMLESS.items() for kind in kinds]
)
def test_a_jpeg_that_is_odd_has_the_pixels_of_the_clean_one(oddity, kind):
    clean = jpeg_of(kind)
    odd = HARMLESS[oddity][0](clean)
    assert odd != clean
    np.testing.assert_array_equal(decode_image(odd), shown(clean))


@EACH
def test_a_clean_jpeg_and_its_reduced_form_have_the_pixels_that_pillow_shows(kind):
    data = jpeg_of(kind)
    np.testing.assert_array_equal(decode_image(data), shown(data))
    reduced = jpeg._reduced(data, jpeg.read_header(data))
    np.testing.assert_array_equal(decode_image(reduced), shown(data))


@EACH
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("new", [bytes(60), b"\x55" * 60, b"\xff\xd9" * 30, b"\xff\xe1" * 30])
def test_a_jpeg_with_sixty_other_bytes_in_its_scan_is_refused(kind, share, new):
    data = jpeg_of(kind)
    _, begin, end = scan_of(data)
    at = begin + int(share * (end - begin - 60))
    with pytest.raises(ValueError, match="cannot decode"):
        decode_image(data[:at] + new + data[at + 60 :])


@EACH
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_jpeg_that_is_cut_off_is_refused_with_an_end_or_without(kind, share):
    data = jpeg_of(kind)
    _, begin, end = scan_of(data)
    cut = data[: begin + int(share * (end - begin))]
    for ending in (b"", b"\xff\xd9", bytes(500), bytes(500) + b"\xff\xd9"):
        with pytest.raises(ValueError, match="cannot decode"):
            decode_image(cut + ending)


@pytest.mark.parametrize("kind", ["progressive", "grey progressive"])
def test_a_scan_that_is_missing_or_has_lost_its_marker_is_refused(kind):
    data = jpeg_of(kind)
    last = data.rindex(b"\xff\xda")
    for damaged in (data[:last], data[:last] + b"\0\0" + data[last + 2 :]):
        with pytest.raises(ValueError, match="cannot decode"):
            decode_image(damaged)


def test_colours_whose_segment_lost_its_marker_are_refused():
    data = jpeg_of("inks")
    at = data.index(b"\xff\xee")
    with pytest.raises(ValueError, match="belong to none"):
        decode_image(data[:at] + b"\0\0" + data[at + 2 :])


def chunk(kind, content, crc=None):
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_with(*chunks, behind=b"IHDR", image=None):
    """A PNG with more chunks behind the first of a kind."""
    data = encoded(image or Image.fromarray(PIXELS), format="PNG")
    at = data.index(behind) - 4
    at += 12 + int.from_bytes(data[at : at + 4])
    return data[:at] + b"".join(chunks) + data[at:]


LONG = bytes(3_000_000)
GOOD_PNGS = {
    "3 MB of text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "3 MB of text, not compressed": chunk(b"tEXt", b"Comment\0" + LONG),
    "3 MB of international text": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(LONG)),
    "much text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000))) * 100,
    "3 MB of profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(LONG)),
    "30 MB of profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(LONG * 10)),
    "a profile that is none": chunk(b"iCCP", b"icc\0\0nothing"),
    "a wrong checksum of text": chunk(b"tEXt", b"Comment\0a", crc=1),
    "a wrong checksum of a profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"a"), crc=1),
    "a wrong checksum of Exif": chunk(b"eXIf", b"MM\0*", crc=1),
    "a wrong size of pixels": chunk(b"pHYs", b"a"),
    "an unknown chunk": chunk(b"abCd", b"\0" * 9, crc=0),
}


@pytest.mark.parametrize("oddity", GOOD_PNGS)
@pytest.mark.parametrize("behind", [b"IHDR", b"IDAT"])
def test_a_png_that_is_odd_beside_its_pixels_has_them(oddity, behind):
    odd = png_with(GOOD_PNGS[oddity], behind=behind)
    np.testing.assert_array_equal(decode_image(odd), PIXELS)


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_png_whose_end_alone_is_cut_off_has_its_pixels(cut):
    np.testing.assert_array_equal(decode_image(png_with()[:-cut]), PIXELS)


def flipped(kind, offset, image=None):
    def damage():
        data = bytearray(png_with(image=image))
        data[data.index(kind) + offset] ^= 4
        return bytes(data)

    return damage


PALETTE = Image.fromarray(PIXELS).quantize(16)
BAD_PNGS = {
    "a flipped bit of pixels": flipped(b"IDAT", 400),
    "a wrong checksum of pixels": flipped(b"IEND", -6),
    "a flipped bit of the size": flipped(b"IHDR", 7),
    "a flipped bit of the palette": flipped(b"PLTE", 9, PALETTE),
    "a flipped bit of transparency": lambda: png_with(
        chunk(b"tRNS", b"\0", crc=1), behind=b"PLTE", image=PALETTE
    ),
    "no pixels": lambda: png_with()[:33],
    "pixels cut off, with an end": lambda: (
        png_with()[:33] + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    ),
    "no size": lambda: png.SIGNATURE + png_with()[33:],
}


@pytest.mark.parametrize("damage", BAD_PNGS)
def test_a_png_whose_pixels_are_damaged_is_refused(damage):
    with pytest.raises(ValueError, match="cannot decode"):
        decode_image(BAD_PNGS[damage]())


def test_the_name_of_a_format_does_not_matter_and_its_signature_does():
    """Two pictures in a file that phones call .jpg: the first, as strictly as any JPEG."""
    data = jpeg_of("of a phone")
    assert Image.open(io.BytesIO(data)).format == "MPO"
    with pytest.raises(ValueError, match="none of JPEG, PNG"):
        decode_image(b"\0" + data)
