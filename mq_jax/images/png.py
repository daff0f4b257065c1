"""PNG files by their own chunks: what makes pixels is strict, all else may be odd or broken."""

import zlib
from typing import NamedTuple

from mq_jax.images.metadata import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Profiles of printers take a few megabytes; what inflates to more is none.
_LARGEST_PROFILE = 2**22
_TRANSPARENCY, _END, _METADATA = b"tRNS", b"IEND", (b"eXIf", b"iTXt", b"iCCP")
# A bit of the first letter.
_ANCILLARY = 0x20
_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"


class Header(NamedTuple):
    """What is known before a pixel is decoded.

    Attributes:
      width: pixels.
      height: pixels.
      metadata: Exif, XMP, ICC.
      reduced: a PNG file of the chunks that make the pixels.
    """

    width: int
    height: int
    metadata: Metadata
    reduced: bytes


def read_header(data: bytes) -> Header:
    """Reads the chunks; of ancillary ones only tRNS makes pixels, and may not be broken.

    Args:
      data: a PNG file.

    Returns:
      The header.

    Raises:
      ValueError: a chunk that makes pixels is damaged or not there.
    """
    view, position = memoryview(data), len(SIGNATURE)
    parts, found = [SIGNATURE], {}
    # What is cut off behind the pixels, the last chunk too, changes none of them.
    while position + 12 <= len(data):
        kind, length = data[position + 4 : position + 8], int.from_bytes(view[position:][:4])
        end = position + 12 + length
        if kind == _END:
            break
        pixels = kind == _TRANSPARENCY or not kind[0] & _ANCILLARY
        if pixels or kind in _METADATA:
            crc = int.from_bytes(view[end - 4 : end])
            sound = end <= len(data) and zlib.crc32(view[position + 4 : end - 4]) == crc
            if pixels and not sound:
                raise ValueError(f"its chunk {kind!r} at byte {position} is damaged or cut off")
            if pixels:
                parts.append(view[position:end])
            elif sound:
                found.setdefault(kind, []).append(data[position + 8 : end - 4])
        position = end
    header = bytes(parts[1]) if len(parts) > 1 else b""
    if header[4:8] != b"IHDR" or len(header) != 25:
        raise ValueError("its first chunk is no IHDR")
    parts.append(bytes(4) + _END + zlib.crc32(_END).to_bytes(4))
    width, height = int.from_bytes(header[8:12]), int.from_bytes(header[12:16])
    return Header(width, height, _metadata(found), b"".join(parts))


def _metadata(found: dict[bytes, list[bytes]]) -> Metadata:
    """From the sound ancillary chunks, by kind."""
    exif = found.get(b"eXIf", [b""])[0]
    texts = (text for text in found.get(b"iTXt", ()) if text.startswith(_XMP))
    xmp = next(texts, _XMP)[len(_XMP) :]
    return Metadata(exif, xmp, _inflated(found.get(b"iCCP", [b""])[0]))


def _inflated(chunk: bytes) -> bytes:
    """The ICC profile of an iCCP chunk: a name, a zero, the method 0, the deflated profile."""
    _, _, packed = chunk.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""
