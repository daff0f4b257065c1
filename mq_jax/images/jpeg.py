"""JPEG files by their own markers: what makes pixels is strict, all else may be odd or broken."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg

from mq_jax.images.metadata import Metadata

SIGNATURE = b"\xff\xd8"

_DHT, _DAC, _EOI, _SOS, _DQT, _DRI, _APP0, _APP1, _APP2, _APP14 = (
    *(0xC4, 0xCC, 0xD9, 0xDA, 0xDB, 0xDD),
    *(0xE0, 0xE1, 0xE2, 0xEE),
)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, _DAC}
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
# SOI, restarts and TEM are two bytes in all.
_WITHOUT_BODY = frozenset(range(0xD0, 0xD9)) | {0x01}

# 0xFF before a zero or a restart belongs to the coded data; a run of it is fill.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"(\xff[\xd0-\xd7])")

# Revision 1.01, without a density or a thumbnail.
_JFIF = b"\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


class Segment(NamedTuple):
    """A marker with what follows it.

    Attributes:
      marker: its second byte.
      gap: bytes before it that belong to nothing, fill bytes left out.
      body: its two bytes of length and its content; empty for a marker alone.
      end: where the next bytes begin, those of a scan among them.
    """

    marker: int
    gap: bytes
    body: bytes
    end: int


class Header(NamedTuple):
    """What is known before a pixel is decoded.

    Attributes:
      width: pixels.
      height: pixels.
      components: 1 grey, 3 colour, 4 inks.
      metadata: Exif, XMP, ICC.
    """

    width: int
    height: int
    components: int
    metadata: Metadata


def read_header(data: bytes) -> Header:
    """Reads the segments before the first scan.

    Args:
      data: a JPEG file.

    Returns:
      The header; of several pictures in one file, as phones write them, that of the first.

    Raises:
      ValueError: there is no frame or no scan.
    """
    frame, exif, xmp, icc = None, b"", b"", {}
    for marker, _, body, _ in _segments(data):
        if marker in _FRAMES and frame is None and len(body) >= 8:
            frame = body
        elif marker == _APP1 and body[2:8] == b"Exif\0\0":
            exif = exif or body[8:]
        elif marker == _APP1 and body[2:31] == b"http://ns.adobe.com/xap/1.0/\0":
            xmp = xmp or body[31:]
        elif marker == _APP2 and body[2:14] == b"ICC_PROFILE\0" and len(body) > 16:
            icc[body[14], body[15]] = body[16:]
        elif marker == _SOS and frame is not None:
            height, width = int.from_bytes(frame[3:5]), int.from_bytes(frame[5:7])
            return Header(width, height, frame[7], Metadata(exif, xmp, _joined(icc)))
    raise ValueError("it has no picture: no frame before a scan")


def decode_pixels(data: bytes, header: Header) -> np.ndarray:
    """Decodes strictly what makes the pixels.

    A decoder that takes no warning reads the file as it is, else reduced to its frame, tables
    and scans in their usual form. What it then still refuses is the pixels' own damage.

    Args:
      data: a JPEG file.
      header: its own.

    Returns:
      u8[H, W, 3] RGB, or u8[H, W, 4] CMYK, inverted as files have it.

    Raises:
      ValueError: the coded pixels are damaged or not whole.
    """
    space = "CMYK" if header.components == 4 else "RGB"
    try:
        return simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    except ValueError:
        # An oddity or damage: only the reduced file tells.
        pass
    try:
        return simplejpeg.decode_jpeg(_reduced(data, header), colorspace=space, strict=True)
    except ValueError:
        # Zeros before a marker may be padding; where they were codes, a scan is now too short.
        reduced = _reduced(data, header, padded=True)
        return simplejpeg.decode_jpeg(reduced, colorspace=space, strict=True)


def _reduced(data: bytes, header: Header, *, padded: bool = False) -> bytes:
    """Frame, tables and scans alone, in their usual form; `padded`: without zeros before markers.

    Raises:
      ValueError: a scan is missing, or bytes between segments may be one.
    """
    parts, scans, sequential = [SIGNATURE], [], False
    for marker, gap, body, end in _segments(data):
        # Lost behind a broken marker may be a scan, or which colours the components are.
        if b"Adobe" in gap or (scans and gap.strip(b"\0")):
            raise ValueError(f"{len(gap)} bytes between its segments belong to none")
        if marker in _FRAMES:
            sequential = marker in _SEQUENTIAL
        elif marker == _APP0 and body[2:7] == b"JFIF\0":
            body = _JFIF
        elif marker == _APP14 and body[2:7] == b"Adobe":
            body = _adobe(body, header.components)
        elif marker == _SOS:
            # A sequential scan has all coefficients, whatever these bytes say.
            body = body[:-3] + bytes((0, 63, 0)) if sequential else body
            scans.append(body)
        elif marker not in (_DHT, _DAC, _DQT, _DRI):
            continue
        parts += [bytes((0xFF, marker)), body]
        if marker == _SOS:
            coded = data[end : _end_of_scan(data, end)].rstrip(b"\xff")
            parts.append(_unpadded(coded) if padded else coded)
    _require_whole(scans, header.components)
    return b"".join((*parts, bytes((0xFF, _EOI))))


def _segments(data: bytes) -> Iterator[Segment]:
    """The segments of the first picture, in order; at each next call, a scan is passed over."""
    position = len(SIGNATURE)
    while match := _MARKER.search(data, position):
        marker, begin = data[match.end() - 1], match.end()
        gap = data[position : match.start()].strip(b"\xff")
        length = 0
        if marker != _EOI and marker not in _WITHOUT_BODY:
            length = int.from_bytes(data[begin : begin + 2])
            if length < 2 or begin + length > len(data):
                raise ValueError(f"its segment {marker:02X} at byte {begin} is not whole")
        position = begin + length
        yield Segment(marker, gap, data[begin:position], position)
        if marker == _EOI:
            return
        if marker == _SOS:
            position = _end_of_scan(data, position)


def _end_of_scan(data: bytes, begin: int) -> int:
    """Where the coded data of a scan end: at the next marker, or with the file."""
    match = _END_OF_SCAN.search(data, begin)
    return match.start() if match else len(data)


def _unpadded(coded: bytes) -> bytes:
    """A scan without the zeros before each restart and its end; one after 0xFF is no padding."""
    pieces = [piece.rstrip(b"\0") for piece in _RESTART.split(coded)]
    return b"".join(piece + b"\0" if piece[-1:] == b"\xff" else piece for piece in pieces)


def _adobe(body: bytes, components: int) -> bytes:
    """Adobe's segment; a transform that it does not define is read as the usual one."""
    known = {3: (1, 0), 4: (2, 0)}.get(components, (0,))
    if len(body) < 14 or body[13] in known:
        return body
    return body[:13] + bytes(known[:1]) + body[14:]


def _require_whole(scans: list[bytes], components: int) -> None:
    """Raises unless the scans bring every coefficient of each component to its last bit."""
    found = set()
    for body in scans:
        first, last, low = body[-3], body[-2], body[-1] & 15
        if not low:
            ids = body[3 : 3 + 2 * body[2] : 2]
            found |= {(each, k) for each in ids for k in range(first, last + 1)}
    if len(found) < 64 * components:
        raise ValueError("it lacks a scan")


def _joined(chunks: dict[tuple[int, int], bytes]) -> bytes:
    """An ICC profile from its chunks, by (number, count); empty where one is missing."""
    whole = sorted(chunks) == [(number + 1, len(chunks)) for number in range(len(chunks))]
    return b"".join(chunks[key] for key in sorted(chunks)) if whole else b""
