"""Token files of any origin: what is read of them, and the one line that refuses the rest."""

import errno
import hashlib
import json
import threading
import tracemalloc
import types

import numpy as np
import pools
import pytest

from mq_jax.tokenizers import shards, tokens
from mq_jax.tokenizers.claims import claimed, make_claim, read_manifest
from mq_jax.tokenizers.stages import Stages

TOKENIZER = types.SimpleNamespace(fingerprint="ab" * 32, size=16, depth=0, downsampling=4)
NAMES = ["a/é.png", "b.png"]
INDICES = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
SIZES = np.int32([[8, 12], [5, 9]])


def write_tokens(place, tokenizer=TOKENIZER, indices=INDICES):
    """A whole folder of two images."""
    claim = make_claim("encode", place, tokenizer, None)
    with claimed(place / "tokens", claim, force=False) as manifest:
        writer = tokens.ShardWriter(place / "tokens", manifest, Stages(1))
        writer.add(tokens.Tokens(NAMES, indices, SIZES))
        writer.flush()
    return place / "tokens"


@pytest.fixture
def folder(tmp_path):
    """A whole folder of two images."""
    return write_tokens(tmp_path)


def replace_shard(folder, **arrays):
    """Another shard, which the manifest's hash is made to fit."""
    path = folder / "tokens-00000.npz"
    with np.load(path) as stored:
        arrays = {**stored, **arrays}
    np.savez_compressed(path, **arrays)
    change_manifest(folder, lambda m: m["shards"][0].update(sha256=digest(path)))
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest = change(manifest) or manifest
    path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


def read(folder):
    """Everything that a command reads of tokens."""
    tokens.token_source(folder)
    return tokens.read_names(folder), list(tokens.read_tokens(folder))


@pytest.mark.parametrize("kind", [str, lambda path: path])
@pytest.mark.parametrize("name", ["", "tokens-00000.npz"])
def test_tokens_are_read_by_any_kind_of_path(folder, kind, name):
    names, (part,) = read(kind(folder / name))
    assert names == part.names == NAMES
    np.testing.assert_array_equal(part.indices, INDICES)
    np.testing.assert_array_equal(part.sizes, SIZES)
    assert tokens.token_source(kind(folder / name))[0] == TOKENIZER.fingerprint
    if not name:
        assert read_manifest(kind(folder))["images"] == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sizes": np.int32([[9, 12], [5, 9]])}, r"a size is \[9, 12\]; its codes make \[8, 12\]"),
        ({"sizes": np.int32([[8, 0], [5, 9]])}, "a size is 0"),
        ({"sizes": SIZES / 1}, "sizes is float64"),
        ({"names": np.array(["a", "a"])}, "it names 'a' twice"),
        ({"names": np.array(["a", "b", "c"])}, "images is 3; the manifest says 2"),
        ({"names": np.array(["a"])}, "images is 1; the manifest says 2"),
        ({"tokenizer": np.array("cd" * 32)}, "tokenizer is 'cdcd.*; the manifest says 'abab"),
        ({"codebook_size": np.array(17)}, "codebook_size is 17; the manifest says 16"),
        ({"indices": INDICES.astype(np.int8)}, "indices is int8"),
        ({"indices": INDICES + np.uint8(9)}, "rows of codes below 16"),
    ],
)
def test_a_shard_that_does_not_fit_is_named_in_one_line(folder, arrays, message):
    replace_shard(folder, **arrays)
    with pytest.raises(ValueError, match=f"tokens-00000.npz is damaged .*({message})") as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_sizes_of_a_lone_shard_are_held_against_the_tokenizers_downsampling(folder):
    path = folder / "tokens-00000.npz"
    assert list(tokens.read_tokens(path, 4))
    with pytest.raises(ValueError, match=r"its codes make \[4, 6\]"):
        list(tokens.read_tokens(path, 2))


def test_an_image_in_two_shards_is_named(folder):
    claim = make_claim("encode", folder.parent, TOKENIZER, None)
    with claimed(str(folder), claim, force=False) as manifest:
        writer = tokens.ShardWriter(folder, manifest, Stages(1))
        writer.add(tokens.Tokens(["c.png", NAMES[1]], INDICES, SIZES))
        writer.flush()
    with pytest.raises(ValueError, match="has the codes of 'b.png' twice"):
        tokens.read_names(folder)


def test_a_shard_that_would_fill_the_memory_is_refused_before_it_is_read(folder, monkeypatch):
    """Declared sizes of a bomb: a few kilobytes on the disk."""
    monkeypatch.setattr(shards, "MOST_BYTES", 1 << 22)
    path = replace_shard(folder, indices=np.zeros((2, 5000, 5000), np.uint8))
    assert path.stat().st_size < 1 << 17
    for source in (folder, path):
        tracemalloc.start()
        with pytest.raises(ValueError, match="its arrays have 50,00.* bytes; expected at most 4,"):
            list(tokens.read_tokens(source))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_codes_of_an_image_larger_than_any_are_refused(folder, monkeypatch):
    monkeypatch.setattr(shards, "MOST_PIXELS", 95)
    with pytest.raises(ValueError, match=r"its images have \[8, 12\] pixels; expected at most 95"):
        list(tokens.read_tokens(folder))


def test_many_codes_are_on_the_disk_before_the_images_fill_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD_BYTES", 20)
    claim = make_claim("encode", tmp_path, TOKENIZER, None)
    with claimed(tmp_path / "tokens", claim, force=False) as manifest:
        writer = tokens.ShardWriter(tmp_path / "tokens", manifest, Stages(1))
        for count, name in enumerate("abcdefg", start=1):
            writer.add(tokens.Tokens([name], INDICES[:1], SIZES[:1]))
            writer.settle()
            # Six bytes each: the fourth makes 24.
            assert manifest["images"] == count // 4 * 4


def filled(folder, shards, pool=None):
    """A writer to whom so many shards of one image were given, and the manifest."""
    writer = tokens.ShardWriter(folder, manifest := read_manifest(folder), Stages(1))
    writer._pool = pool or writer._pool
    for number in range(shards):
        writer.add(tokens.Tokens([f"{number}.jpg"], INDICES[:1], SIZES[:1]))
    return writer, manifest


def test_one_shard_waits_while_one_is_written_and_no_further_one(folder, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 1)
    monkeypatch.setattr(tokens, "wait", lambda futures: None)
    events = []
    filled(folder, 4, pools.Recorded(events))
    gives = [("gives", number) for number in range(4)]
    waits = [("waits for", number) for number in range(2)]
    assert events == [*gives[:2], waits[0], gives[2], waits[1], gives[3]]


def test_codes_are_taken_while_a_shard_is_written_and_none_is_lost(folder, monkeypatch):
    """The first shard waits for the codes of the third, which only a thread beside it takes."""
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 1)
    write, third = tokens.write_shard, threading.Event()

    def slow(*arguments):
        assert third.wait(60)
        return write(*arguments)

    monkeypatch.setattr(tokens, "write_shard", slow)
    writer, manifest = filled(folder, 2)
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 100)
    writer.add(tokens.Tokens(["2.jpg"], INDICES[:1], SIZES[:1]))
    third.set()
    writer.flush()
    assert [shard["images"] for shard in manifest["shards"]] == [2, 1, 1, 1]
    assert tokens.read_names(folder) == [*NAMES, "0.jpg", "1.jpg", "2.jpg"]


def test_a_shard_that_cannot_be_written_is_told_and_the_others_are_there(folder, monkeypatch):
    write, calls = tokens.write_shard, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(tokens, "write_shard", full)
    writer, _ = filled(folder, 1)
    writer._hand_over()
    writer.add(tokens.Tokens(["1.jpg"], INDICES[:1], SIZES[:1]))
    writer._hand_over()
    with pytest.raises(OSError, match="No space left"):
        writer.settle()
    writer.add(tokens.Tokens(["2.jpg"], INDICES[:1], SIZES[:1]))
    writer.flush()
    assert tokens.read_names(folder) == [*NAMES, "0.jpg", "2.jpg"]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: "{}", "it lacks version"),
        (lambda m: "[]", "it is a list of 0; expected an object"),
        (lambda m: DEEP, "it is nested deeper than 32 levels"),
        (lambda m: m.update(command="delete"), "command is 'delete'; expected one of encode"),
        (lambda m: m.update(command=["encode"]), "command is a list of 1"),
        (lambda m: m.pop("shards") and None, "it lacks shards"),
        (lambda m: m.update(shards={}), "shards is an object of 0; expected a list"),
        (lambda m: m.update(shards=[3]), r"shards\[0\] is 3; expected an object"),
        (lambda m: m["shards"][0].pop("file") and None, r"shards\[0\] lacks file"),
        (lambda m: m["shards"][0].update(file=3), r"shards\[0\].file is 3; expected tokens-NNNNN"),
        (lambda m: m["shards"][0].update(file="../x.npz"), "expected tokens-NNNNN.npz"),
        (lambda m: m["shards"][0].update(images=1.5), r"images is 1\.5; expected a whole number"),
        (lambda m: m["shards"][0].update(sha256=""), "sha256 is ''; expected 64 hexadecimal"),
        (lambda m: m.update(codebook_size=0), "codebook_size is 0"),
        (lambda m: m.update(depth=-1), "depth is -1; expected a whole number"),
        (lambda m: m.update(depth=None), "depth is None; expected a whole number"),
        (lambda m: m.update(downsampling=2**62), "downsampling is 4611686018427387904"),
        (lambda m: m.update(bad="none"), "bad is 'none'; expected a list"),
        (lambda m: m.update(bad=[{"name": 1}]), r"bad\[0\].name is 1; expected text"),
        (lambda m: m.update(preparation=[]), "preparation is a list of 0; expected an object"),
        (lambda m: m.update(complete="yes"), "complete is 'yes'; expected true or false"),
        (lambda m: m.update(shape=[0, 2]), r"shape\[0\] is 0"),
        (lambda m: m.update(dtype="object"), "dtype is 'object'; expected one of uint8"),
        (lambda m: m.update(tokenizer=None), "tokenizer is None; expected text"),
    ],
)
def test_a_hostile_manifest_is_named_by_its_field_in_one_line(folder, change, message):
    change_manifest(folder, change)
    for reader in (tokens.token_source, tokens.read_names, read_manifest):
        with pytest.raises(ValueError, match=f"manifest.json is damaged .*{message}") as error:
            reader(folder)
        assert "\n" not in str(error.value)


def test_a_forced_start_removes_the_shards_of_a_damaged_manifest_too(folder):
    change_manifest(folder, lambda m: "{")
    (folder / "tokens-mine.npz").write_bytes(b"mine")
    tokens.remove_shards(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "tokens-mine.npz"]


# Positions of three codes each, more than a byte holds.
SEVERAL = types.SimpleNamespace(fingerprint="ab" * 32, size=300, depth=3, downsampling=4)
THREES = np.arange(36, dtype=np.int32).reshape(2, 2, 3, 3) * 8


@pytest.fixture
def several(tmp_path):
    """A whole folder of two images whose positions have several codes."""
    return write_tokens(tmp_path, SEVERAL, THREES)


def test_positions_of_several_codes_are_written_and_read(several):
    for place in (several, several / "tokens-00000.npz"):
        names, (part,) = read(place)
        assert names == NAMES and part.indices.dtype == np.uint16
        np.testing.assert_array_equal(part.indices, THREES)
        np.testing.assert_array_equal(part.sizes, SIZES)
    manifest = read_manifest(several)
    assert (manifest["codebook_size"], manifest["depth"]) == (300, 3)
    assert (manifest["shape"], manifest["dtype"]) == ([2, 3, 3], "uint16")
    # Pixels are of the first two axes alone.
    with pytest.raises(ValueError, match=r"a size is \[8, 12\]; its codes make \[4, 6\]"):
        list(tokens.read_tokens(several / "tokens-00000.npz", 2))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (THREES[..., :2], "depth is 2; the manifest says 3"),
        (THREES[..., 0], "depth is 0; the manifest says 3"),
        (THREES[..., :0], "depth is 0; the manifest says 3"),
        (THREES[..., None], "expected 3 or 4 axes and a dtype of kind u"),
        (THREES + 30, "rows of codes below 300"),
    ],
)
def test_positions_of_another_number_of_codes_are_named_in_one_line(several, indices, message):
    replace_shard(several, indices=indices.astype(np.uint16))
    with pytest.raises(ValueError, match=f"tokens-00000.npz is damaged .*({message})") as error:
        read(several)
    assert "\n" not in str(error.value)


def test_a_lone_shard_whose_positions_have_no_code_is_named(several):
    path = replace_shard(several, indices=THREES[..., :0].astype(np.uint16))
    with pytest.raises(ValueError, match="indices are uint16"):
        list(tokens.read_tokens(path))


def test_a_manifest_of_before_positions_had_several_codes_is_of_one(folder):
    change_manifest(folder, lambda m: m.pop("depth") and None)
    assert read_manifest(folder)["depth"] == 0
    np.testing.assert_array_equal(read(folder)[1][0].indices, INDICES)
    # The same command goes on in it, and one of another depth does not.
    claim = make_claim("encode", folder.parent, TOKENIZER, None)
    with claimed(folder, claim, force=False) as manifest:
        assert manifest["images"] == 2
    with pytest.raises(ValueError, match="depth is 0 there, 3 now"):
        write_tokens(folder.parent, types.SimpleNamespace(**{**vars(TOKENIZER), "depth": 3}))
