"""Checksums: every byte of every file counts, and several processes look at all of them."""

import pytest

from mq_jax.runs import checksums
from mq_jax.runs.checksums import FILE, is_unchanged, require_unchanged, write_checksums


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of no block, of less than one, of one and of more."""
    for name, size in {"_BLOCK": 16, "_BUFFER": 8, "_PAGE": 8}.items():
        monkeypatch.setattr(checksums, name, size)
    (tmp_path / "deep").mkdir()
    for size in (0, 7, 16, 40):
        (tmp_path / "deep" / str(size)).write_bytes(bytes(range(size)))
    (tmp_path / "later").write_text("")
    write_checksums(tmp_path, without=["later"])
    return tmp_path


def test_unchanged_files_pass_and_what_is_written_later_is_left_out(folder):
    (folder / "later").write_text("x")
    require_unchanged(folder)
    assert is_unchanged(folder, "deep/40") and is_unchanged(folder / "deep", "7")


@pytest.mark.parametrize("place", [0, 4, 15, 16, 39])
def test_every_byte_counts(folder, place):
    content = bytearray((folder / "deep" / "40").read_bytes())
    content[place] ^= 1
    (folder / "deep" / "40").write_bytes(content)
    with pytest.raises(ValueError, match="deep/40 does not have the bytes that were written"):
        require_unchanged(folder)
    assert not is_unchanged(folder, "deep/40") and is_unchanged(folder, "deep/16")


def test_pages_that_change_places_show(folder):
    content = (folder / "deep" / "40").read_bytes()
    (folder / "deep" / "40").write_bytes(content[8:16] + content[:8] + content[16:])
    with pytest.raises(ValueError, match="deep/40"):
        require_unchanged(folder)


DAMAGES = {
    "longer": lambda folder: (folder / "deep" / "0").write_bytes(b"\0"),
    "shorter": lambda folder: (folder / "deep" / "16").write_bytes(bytes(range(15))),
    "missing": lambda folder: (folder / "deep" / "7").unlink(),
    "not JSON": lambda folder: (folder / FILE).write_text("{"),
    "not a table": lambda folder: (folder / FILE).write_text("[1]"),
    "not UTF-8": lambda folder: (folder / FILE).write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_any_kind_is_a_value_error(folder, damage):
    DAMAGES[damage](folder)
    with pytest.raises(ValueError):
        require_unchanged(folder)


@pytest.mark.parametrize("name", ["deep/0", "deep/7", "deep/16", "deep/40"])
def test_one_of_several_processes_sees_the_damage(folder, name):
    (folder / name).write_bytes(b"other")
    seen = []
    for part in range(3):
        try:
            require_unchanged(folder, part, 3)
        except ValueError:
            seen.append(part)
    assert len(seen) == 1
