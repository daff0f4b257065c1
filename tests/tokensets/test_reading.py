"""What a token set holds, and the one line that refuses what cannot be one."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import token_sets

from mq_jax.tokenizers.claims import claimed, make_claim
from mq_jax.tokensets import open_tokens
from mq_jax.tokensets.record import Layout


@pytest.fixture
def folder(tmp_path):
    return token_sets.write_set(tmp_path / "set")


def change(folder, edit):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("size", "dtype", "width"), [(256, "uint8", 1), (65_536, "uint16", 2), (65_537, "uint32", 4)]
)
def test_codes_take_the_fewest_bytes_that_hold_them(size, dtype, width, tmp_path):
    codes = np.array([[[0, size - 1], [1, 2]]])
    layout = Layout(1, (2, 2), np.min_scalar_type(size - 1).name)
    data = layout.packed(2**40, -1, codes)
    assert layout.dtype == dtype and len(data) == 12 + 4 * width
    item = layout.unpacked(data)
    assert (item.index, item.label, item.tokens.dtype) == (2**40, -1, np.int32)
    np.testing.assert_array_equal(item.tokens, codes)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_any_image_is_read_by_its_number_alone(tmp_path, shape):
    tokens = open_tokens(token_sets.write_set(tmp_path / "set", shape=shape))
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 300, (3, *shape)) for _ in range(10)]
    for index in (9, 0, 5, 4):
        np.testing.assert_array_equal(tokens[index].tokens, codes[index])
        assert (tokens[index].label, tokens[index].index) == (index % 2, index)
        np.testing.assert_array_equal(tokens.view(index, 2).tokens, codes[index][2])
    assert (len(tokens), tokens.classes, tokens.shape) == (10, 2, shape)
    assert len(pickle.dumps(tokens)) < 4000 and "10 images of folder all" in repr(tokens)
    for wrong in (-1, 10):
        with pytest.raises(IndexError, match=f"image {wrong} of 10"):
            tokens[wrong]
    with pytest.raises(IndexError, match="view 3 of 3"):
        tokens.view(0, 3)


def test_a_set_is_the_same_wherever_it_lies_and_another_one_is_not(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert open_tokens(moved).digest == open_tokens(folder).digest
    other = token_sets.write_set(tmp_path / "other", size=299)
    assert open_tokens(other).digest != open_tokens(folder).digest


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(version=2), "its version is 2; expected 1"),
        (lambda m: m.update(complete=False), "lists 2 shards of 2"),
        (lambda m: m.update(images=11), "images are 11"),
        (lambda m: m.update(shard_count=3), "lists 2 shards of 3"),
        (lambda m: m.update(depth=2), r"shape is \[2, 3\], depth 2"),
        (lambda m: m.update(views=[]), "it has 0 views"),
        (lambda m: m["shards"][0].update(file="../../x"), "file is '../../x'; expected a shard"),
        (lambda m: m.pop("class_names"), "it lacks class_names"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder, edit, message):
    change(folder, edit)
    with pytest.raises(ValueError, match=f"is no manifest of a token set .*{message}"):
        open_tokens(folder)


def test_shards_that_are_not_what_was_written_are_refused(folder, tmp_path):
    path = folder / "tokens-00001-of-00002.array_record"
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 1)
    with pytest.raises(ValueError, match="missing or damaged .it has .* bytes; the manifest says"):
        open_tokens(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="missing or damaged .*a FIFO; expected a regular file"):
        open_tokens(folder)
    path.unlink()
    damaged = bytearray(whole)
    damaged[whole.index(Layout(3, (2, 3), "uint16").packed(7, 1, 0)[:12]) + 14] ^= 1
    path.write_bytes(damaged)
    tokens = open_tokens(folder)
    assert tokens[4].index == 4
    with pytest.raises(ValueError, match="Image 7 of .* is damaged .*hash mismatch.* copy the set"):
        tokens[7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.full((3, 2, 3), 300)}, r"a code is 300; expected \[0, 299\]"),
        ({"label": 2}, "its label is 2 of 2 classes"),
        ({"label": -2}, "its label is -2 of 2 classes"),
    ],
)
def test_a_record_past_the_tables_of_a_model_is_refused(tmp_path, changes, message):
    tokens = open_tokens(token_sets.write_set(tmp_path / "set", **changes))
    with pytest.raises(ValueError, match=message):
        tokens[0]


def test_other_folders_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="which --mode=tokens makes"):
        open_tokens(tmp_path)
    tokenizer = token_sets.exports.export("plain")
    fake = type("Fake", (), {"fingerprint": tokenizer.fingerprint, "size": 16, "depth": 0})
    fake.downsampling = 4
    with claimed(tmp_path / "named", make_claim("encode", tmp_path, fake, None), force=False):
        pass
    with pytest.raises(ValueError, match="whose tokens mq_jax.tokenizers.read_tokens reads"):
        open_tokens(tmp_path / "named")
