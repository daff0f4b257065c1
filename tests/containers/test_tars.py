"""Tar shards: which samples one has, whoever wrote it, and what of a damaged one is told."""

import io
import json
import os
import tarfile

import pytest
from shard_files import png, samples, write_tar

from mq_jax.containers.extents import read_extent, stacked
from mq_jax.containers.tars import tar_extents

ENDINGS = (".jpg", ".png", ".webp")


def _read(path, label_key=""):
    """(name, label, bytes) of each sample; None for no image."""
    extents = stacked(tar_extents(path, ENDINGS, label_key))
    return [
        (
            name.decode(),
            label.decode(),
            None if place[1] < 0 else read_extent(path, place, 0),
        )
        for place, name, label in zip(*extents, strict=True)
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_files_of_one_name_up_to_the_first_dot(tmp_path, format):
    long = "d" * 80 + "/" + "n" * 90 + ("é" if format != tarfile.USTAR_FORMAT else "")
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("./x/7.seg.png", b"mask"),
            ("./x/7.PNG", b"seven"),
            ("./x/7.cls", b"12\n"),
            ("y/7.jpg", b"other seven"),
            ("y/.hidden.jpg", b"no sample"),
            ("y/8.json", json.dumps({"label": "cat", "id": 5}).encode()),
            ("y/8.webp", b"eight"),
            (f"{long}.jpg", b"long"),
        ],
        format=format,
    )
    assert _read(path) == [
        ("./x/7", "12", b"seven"),
        ("y/7", "", b"other seven"),
        ("y/8", "cat", b"eight"),
        (long, "", b"long"),
    ]
    assert _read(path, "id")[2] == ("y/8", "5", b"eight")


def test_links_and_folders_are_no_images(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("a.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("b.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    assert _read(tmp_path / "a.tar") == [("b", "", b"abc")]


def test_a_sample_without_an_image_keeps_its_place(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.cls", b"4"), ("2.png", b"two"), ("3.txt", b"")])
    assert _read(path) == [("1", "4", None), ("2", "", b"two"), ("3", "", None)]


@pytest.mark.parametrize(
    "label", [b"[1]", b'{"label": [1]}', b"{", b"[" * 9000, b'{"label": 1e99}']
)
def test_a_description_that_tells_no_class_is_none(tmp_path, label):
    path = write_tar(tmp_path / "a.tar", [("1.png", b"one"), ("1.json", label)])
    assert _read(path) == [("1", "", b"one")]


@pytest.mark.parametrize("kept", [512 * 5, 512 * 5 - 100, 512 * 4, 512 * 6])
def test_a_shard_that_was_cut_is_refused_wherever_the_cut_is(tmp_path, kept):
    path = write_tar(tmp_path / "a.tar", samples(range(5)))
    os.truncate(path, kept)
    with pytest.raises(ValueError, match="a.tar is no whole tar file .*; copy it again"):
        _read(path)


def test_a_damaged_header_in_the_middle_does_not_end_the_shard_in_silence(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(range(5)))
    data = bytearray(path.read_bytes())
    data[512 * 4 + 5] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match="neither a member nor the end at byte 2048"):
        _read(path)


def test_a_member_of_negative_size_ends_the_reading(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(range(2)))
    header = tarfile.TarInfo("1.png")
    header.size = -1024
    block = header.tobuf(format=tarfile.GNU_FORMAT)
    path.write_bytes(path.read_bytes()[:1024] + block + bytes(1024))
    with pytest.raises(ValueError, match="no whole tar file"):
        _read(path)


@pytest.mark.parametrize("kind", ["text", "empty", "fifo", "compressed"])
def test_what_is_no_tar_file_is_refused(tmp_path, kind):
    path = tmp_path / "a.tar"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "compressed":
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("1.png")
            member.size = len(png(1))
            archive.addfile(member, io.BytesIO(png(1)))
    else:
        path.write_text("text" * 1000 * (kind == "text"))
    with pytest.raises(ValueError, match="a.tar is no whole tar file"):
        _read(path)
