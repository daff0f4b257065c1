"""Token sets: the codes of the tokenizer itself, the same bytes however often they are made."""

import os

import exports
import jax
import numpy as np
import pytest
import token_sets

from mq_jax.data.sources import open_source
from mq_jax.tokenizers.tokenizer import Tokenizer
from mq_jax.tokensets import make_token_set, open_tokens, shards
from mq_jax.tokensets.encoding import Encoder
from mq_jax.tokensets.manifest import read_manifest
from mq_jax.tokensets.shards import shard_count
from mq_jax.tokensets.views import make_views


@pytest.fixture(autouse=True)
def encoders_shared():
    with token_sets.encoders_shared():
        yield


@pytest.mark.parametrize(
    ("kind", "views", "dtype"),
    [("plain", "center,flip,ten-crop:1.1", "uint8"), ("vq residual", "center", "uint8")],
)
def test_a_set_has_the_codes_that_the_tokenizer_gives_each_view_and_the_labels_of_the_data(
    tmp_path, kind, views, dtype
):
    spec = token_sets.spec(tmp_path, kind, views=views)
    made = make_token_set(spec, tmp_path / "set")
    tokens, tokenizer = open_tokens(tmp_path / "set"), Tokenizer(exports.export(kind))
    source = open_source("folder", directory=spec.directory, split="all")
    preparation = {n: v for n, v in tokenizer.preparation.items() if n != "icc"}
    names, views_of = make_views(views, preparation)
    assert (made.encoded, made.kept, len(tokens)) == (10, 0, 10)
    assert tokens.views == names and made.manifest["dtype"] == dtype
    assert tokens.tokenizer == tokenizer.fingerprint and tokens.class_names == ("a", "b")
    assert (tokens.size, tokens.depth) == (tokenizer.size, tokenizer.depth)
    shown = np.stack([views_of(record.image) for record in source])
    codes = tokenizer.encode(shown.reshape(-1, *shown.shape[2:]))
    for index, item in enumerate(tokens):
        own = codes[index * len(names) : (index + 1) * len(names)]
        np.testing.assert_array_equal(item.tokens, own)
        assert item.tokens.dtype == np.int32 and item.tokens.shape[1:] == tokens.shape
        assert (item.index, item.label) == (index, source[index].label)


def test_codes_do_not_depend_on_the_number_of_devices():
    tokenizer = Tokenizer(exports.export("plain"))
    images = exports.images(200).reshape(40, 5, 32, 32, 3)
    found = [list(Encoder(tokenizer, jax.devices()[:n]).codes(images)) for n in (1, 3)]
    np.testing.assert_array_equal(*found)
    assert np.shape(found[0]) == (40, 5, 8, 8)
    assert list(Encoder(tokenizer, jax.devices()[:1]).codes([])) == []


class Killed(BaseException):
    """What no handler of the program takes for an error of its own."""


def test_a_stopped_command_keeps_whole_shards_and_ends_with_the_same_bytes(tmp_path):
    spec = token_sets.spec(tmp_path)
    make_token_set(spec, tmp_path / "once")

    def killed(total, kept):
        seen = []

        def advance(images):
            seen.append(images)
            if len(seen) == 8:
                raise Killed

        return advance

    with pytest.raises(Killed):
        make_token_set(spec, tmp_path / "set", progress=killed)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    kept = [name for name in before if name.endswith("array_record")]
    assert len(kept) == 3 and not read_manifest(tmp_path / "set")["complete"]
    with pytest.raises(ValueError, match="is not whole; the command that makes it goes on"):
        open_tokens(tmp_path / "set")
    made = make_token_set(spec, tmp_path / "set")
    assert (made.encoded, made.kept) == (3, 7)
    assert all((tmp_path / "set" / n).stat().st_mtime_ns == before[n] for n in kept)
    assert token_sets.files(tmp_path / "set") == token_sets.files(tmp_path / "once")
    assert len(token_sets.files(tmp_path / "set")) == 5


def test_what_was_damaged_or_removed_is_made_again(tmp_path):
    spec, folder = token_sets.spec(tmp_path), tmp_path / "set"
    make_token_set(spec, folder)
    whole = token_sets.files(folder)
    first, second, third, _ = sorted(name for name in whole if name != "manifest.json")
    (folder / first).unlink()
    (folder / second).write_bytes(whole[second][:-1] + b"x")
    os.truncate(folder / third, 100)
    made = make_token_set(spec, folder)
    assert token_sets.files(folder) == whole and made.encoded == 7


def test_another_set_is_refused_or_replaced_and_foreign_files_are_left_alone(tmp_path):
    spec, folder = token_sets.spec(tmp_path), tmp_path / "set"
    make_token_set(spec, folder)
    other = spec._replace(views="flip", shards=2)
    with pytest.raises(ValueError, match="something else: views, shard_count differ"):
        make_token_set(other, folder)
    make_token_set(other, folder, overwrite=True)
    assert open_tokens(folder).views == ("flip",) and len(token_sets.files(folder)) == 3
    (folder / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match="holds files that are of no token set, thesis.tex"):
        make_token_set(spec, folder, overwrite=True)
    (folder / "thesis.tex").unlink()
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds shards without a manifest.json"):
        make_token_set(spec, folder)
    make_token_set(spec, folder, overwrite=True)


def test_unreadable_images_are_left_out_and_named_unless_they_are_too_many(tmp_path):
    spec, folder = token_sets.spec(tmp_path, shards=2), tmp_path / "set"
    (tmp_path / "images" / "b" / "003.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 10 images cannot be read; at most 0 .* b/003.png"):
        make_token_set(spec, folder)
    made = make_token_set(spec._replace(max_bad_share=0.1), folder)
    bad = [shard["bad"] for shard in made.manifest["shards"]]
    assert bad == [[], [{"index": 6, "name": "b/003.png"}]]
    tokens = open_tokens(folder)
    assert [item.index for item in tokens] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert tokens[6].label == 1 and made.manifest["records"] == 10


def test_a_full_disk_is_an_error_of_the_folder_and_leaves_no_part(tmp_path, monkeypatch):
    real, full = shards.ArrayRecordWriter, []

    def writer(path, options):
        full.append(path)
        return real(path if len(full) == 1 else "/dev/full", options)

    monkeypatch.setattr(shards, "ArrayRecordWriter", writer)
    spec, folder = token_sets.spec(tmp_path), tmp_path / "set"
    with pytest.raises(OSError, match="set cannot be written: .*No space left on device"):
        make_token_set(spec, folder)
    left = {path.name for path in folder.iterdir()}
    first = "tokens-00000-of-00004"
    assert left == {f"{first}.array_record", f"{first}.json", "manifest.json"}


def test_shards_are_as_many_as_the_data_asks_for_whoever_makes_them(tmp_path):
    counts = {1: 1, 256: 1, 257: 2, 50_000: 16, 70_000: 18, 1_281_167: 313}
    assert {records: shard_count(records) for records in counts} == counts
    with pytest.raises(ValueError, match="--shards is 11; expected at most one for each of the 10"):
        make_token_set(token_sets.spec(tmp_path, shards=11), tmp_path / "set")
    assert not (tmp_path / "set").exists()
