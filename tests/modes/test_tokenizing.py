"""The command line of tokenizers: what it writes, how it goes on, and what it refuses."""

import errno
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from unittest import mock

import cv2
import exports
import numpy as np
import profiles
import pytest
import runs
from PIL import Image

import mq_jax
from mq_jax import tokenize
from mq_jax.modes import tokenizing
from mq_jax.tokenizers import claims, pngs, tokens, transcribe
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.tokenizers.items import Item
from mq_jax.tokenizers.stages import Stages
from mq_jax.tokenizers.tokenizer import Tokenizer

TOKENIZER = Tokenizer(exports.export("vqvae"))
OTHER = Tokenizer(exports.export("vqvae with averages"))
SEVERAL = Tokenizer(exports.export("vq groups of residuals"))


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """Tokenizers by name, loaded already."""
    known = {"mine": TOKENIZER, "other": OTHER, "several": SEVERAL}
    monkeypatch.setattr(tokenizing, "load_tokenizer", lambda path: known[str(path)])
    monkeypatch.setattr(tokenizing, "use_compilation_cache", lambda: None)
    # Only a process of its own may be ended.
    monkeypatch.setattr(tokenizing, "end_within", lambda seconds, code: None)


@pytest.fixture
def run(tmp_path, capfd):
    """Runs a command on folders in tmp_path; (exit code, standard output, standard error)."""

    def command(name, source, target, *flags, tokenizer="mine"):
        paths = ["--input", str(tmp_path / source), "--output", str(tmp_path / target)]
        code = tokenize.main([name, "--tokenizer", tokenizer, *paths, *map(str, flags)])
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def images(tmp_path):
    """Ten images of 32 x 32 in two sub-folders."""
    runs.write_images(tmp_path / "images", 10)
    return tmp_path / "images"


def pixels(path):
    return np.asarray(Image.open(path))


def every_token(folder):
    """(index, size) by name."""
    return {
        name: (index, tuple(size.tolist()))
        for part in tokens.read_tokens(folder)
        for name, index, size in zip(part.names, part.indices, part.sizes, strict=True)
    }


def content(folder):
    """Bytes of every file."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_encode_writes_the_codes_of_every_image_and_a_manifest(run, images, tmp_path):
    code, out, err = run("encode", "images", "tokens")
    told = "Images: each as it is, as the model was trained on crops of 32 x 32 alone; "
    assert (code, err) == (0, f"{told}--size=N scales and crops all to N x N.\n")
    assert out.startswith("10 encoded, 8 x 8 codes each, in ") and "images/s" in out
    found = every_token(tmp_path / "tokens")
    assert list(found) == sorted(p.relative_to(images).as_posix() for p in images.rglob("*.png"))
    for name, (index, size) in found.items():
        np.testing.assert_array_equal(index, TOKENIZER.encode(pixels(images / name)[None])[0])
        assert size == (32, 32) and index.dtype == np.uint8
    manifest = claims.read_manifest(tmp_path / "tokens")
    assert manifest["tokenizer"] == TOKENIZER.fingerprint
    assert (manifest["codebook_size"], manifest["shape"], manifest["dtype"]) == (
        16,
        [8, 8],
        "uint8",
    )
    assert (manifest["images"], manifest["complete"], manifest["bad"]) == (10, True, [])


def test_decode_writes_reconstructions_under_the_names_of_the_inputs(run, images, tmp_path):
    assert run("encode", "images", "tokens")[0] == 0
    code, out, err = run("decode", "tokens", "decoded")
    assert (code, err) == (0, "") and out.startswith("10 written, PNG files, in ")
    assert run("reconstruct", "images", "direct")[0] == 0
    names = [p.relative_to(images) for p in images.rglob("*.png")]
    for folder in ("decoded", "direct"):
        pngs = [p.relative_to(tmp_path / folder) for p in (tmp_path / folder).rglob("*.png")]
        assert sorted(pngs) == sorted(names)
    for name in names:
        expected = TOKENIZER.reconstruct(pixels(images / name)[None])[0]
        for folder in ("decoded", "direct"):
            difference = pixels(tmp_path / folder / name).astype(int) - expected
            assert np.abs(difference).max() <= 1


def test_positions_of_several_codes_go_through_both_commands(run, tmp_path):
    (tmp_path / "images").mkdir()
    images = exports.images(2, 13, 30)
    for name, image in zip("ab", images, strict=True):
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    code, out, _ = run("encode", "images", "tokens", tokenizer="several")
    assert code == 0 and out.startswith("2 encoded, 7 x 15 x 6 codes each, in ")
    manifest = claims.read_manifest(tmp_path / "tokens")
    assert (manifest["codebook_size"], manifest["depth"]) == (SEVERAL.size, 6)
    found = every_token(tmp_path / "tokens")
    for name, expected in zip("ab", SEVERAL.encode(images), strict=True):
        np.testing.assert_array_equal(found[f"{name}.png"][0], expected)
    code, out, err = run("decode", "tokens", "decoded", tokenizer="several")
    assert (code, err) == (0, "") and out.startswith("2 written, PNG files, in ")
    for name, expected in zip("ab", SEVERAL.reconstruct(images), strict=True):
        np.testing.assert_array_equal(pixels(tmp_path / "decoded" / f"{name}.png"), expected)


def test_images_as_they_are_keep_their_sizes(run, tmp_path):
    """Odd sides, several shapes in one batch, one of them often."""
    sizes = [(13, 30), (32, 32), (13, 30), (8, 9), (32, 32), (13, 30), (5, 4)]
    (tmp_path / "images").mkdir()
    for number, (height, width) in enumerate(sizes):
        image = exports.images(1, height, width, seed=number)[0]
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    code, out, _ = run("encode", "images", "tokens", "--size=0", "--batch_size=2")
    assert code == 0 and "codes of several shapes" in out
    assert claims.read_manifest(tmp_path / "tokens")["shape"] is None
    for name, (index, size) in every_token(tmp_path / "tokens").items():
        height, width = sizes[int(name[0])]
        assert size == (height, width)
        assert index.shape == (-(-height // 4), -(-width // 4))
    assert run("decode", "tokens", "decoded")[0] == 0
    for number, (height, width) in enumerate(sizes):
        assert pixels(tmp_path / "decoded" / f"{number}.png").shape == (height, width, 3)


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_images_of_mixed_sizes_share_programs_and_have_the_codes_that_each_has_alone(
    run, tmp_path, monkeypatch, command
):
    """Sixteen sizes, of which padding to the downsampling makes one."""
    (tmp_path / "images").mkdir()
    stored = {}
    for height, width in itertools.product(range(13, 17), range(29, 33)):
        name = f"{height}x{width}.png"
        stored[name] = exports.images(1, height, width, seed=height * width)
        Image.fromarray(stored[name][0]).save(tmp_path / "images" / name)
    seen, encode = set(), TOKENIZER.encode
    monkeypatch.setattr(TOKENIZER, "encode", lambda x: seen.add(x.shape) or encode(x))
    assert run(command, "images", "out", "--size=0")[0] == 0
    assert seen == {(16, 16, 32, 3)}
    for name, image in stored.items():
        if command == "encode":
            index, size = every_token(tmp_path / "out")[name]
            np.testing.assert_array_equal(index, encode(image)[0])
            assert size == image.shape[1:3]
        else:
            difference = pixels(tmp_path / "out" / name) - TOKENIZER.reconstruct(image)[0].astype(
                int
            )
            assert np.abs(difference).max() <= 1


def test_images_of_many_sizes_take_few_programs_and_have_the_codes_that_each_has_alone(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(transcribe, "_OWN_PROGRAMS", 1)
    (tmp_path / "images").mkdir()
    stored, canvases = {}, set()
    for number, (height, width) in enumerate(itertools.product(range(33, 41, 2), repeat=2)):
        name = f"{number:02}.png"
        stored[name] = exports.images(1, height, width, seed=number)
        Image.fromarray(stored[name][0]).save(tmp_path / "images" / name)
    within = TOKENIZER.encode_within
    monkeypatch.setattr(
        TOKENIZER, "encode_within", lambda x, sizes: canvases.add(x.shape) or within(x, sizes)
    )
    assert run("encode", "images", "tokens", "--size=0")[0] == 0
    assert canvases == {(8, 48, 48, 3)}
    found = every_token(tmp_path / "tokens")
    for name, image in stored.items():
        np.testing.assert_array_equal(found[name][0], TOKENIZER.encode(image)[0])
        assert found[name][1] == image.shape[1:3]


def test_a_canvas_is_at_most_a_half_longer_and_there_are_few():
    canvas_of = transcribe._canvases(4, own=0)
    canvases = {side: canvas_of((side, side, 3))[0] for side in range(1, 1025)}
    for side, canvas in canvases.items():
        assert canvas % 4 == 0 and side <= canvas < 1.5 * side + 4
    assert len(set(canvases.values())) <= 2 * 9


def test_a_size_scales_and_crops(run, images, tmp_path):
    code, out, err = run("encode", "images", "tokens", "--size=16")
    assert code == 0 and "4 x 4 codes each" in out
    told = "Images: smaller side to 16 (area), centre crop 16 x 16; --size=0 keeps each as it is."
    assert err.splitlines() == [told]


def test_a_model_of_crops_alone_says_what_it_does_without_a_size_and_no_other(run, images):
    """What was asked for needs no reason."""
    told = [run("encode", "images", f"t{flags}", *flags)[2] for flags in ((), ("--size=0",))]
    assert ["crops of 32 x 32 alone" in text for text in told] == [True, False]
    assert all("Images: each as it is" in text and "--size=N" in text for text in told)


def readme_blocks():
    """The README's lines of Python on a tokenizer, each block of them without its indentation."""
    text = (runs.ROOT / "README.md").read_text()
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [textwrap.dedent(block) for block in blocks if "mq_jax import load_tokenizer" in block]


class _NumPyAsTorch:
    """The one function of torch that the lines need, where torch is not installed."""

    from_numpy = staticmethod(lambda array: array)


def test_the_readmes_lines_of_python_do_what_they_say(run, images, tmp_path, monkeypatch):
    assert run("encode", "images", "tokens")[0] == 0
    monkeypatch.setattr(mq_jax, "load_tokenizer", lambda path: TOKENIZER)
    if importlib.util.find_spec("torch") is None:
        monkeypatch.setitem(sys.modules, "torch", _NumPyAsTorch)
    using, tokens_of_torch = readme_blocks()
    found = {"images": exports.images(2)}
    exec(using, found)
    assert found["images"].shape == (2, 32, 32, 3)
    assert found["codebook"].shape == (16, 4) and (found["h"], found["w"]) == (64, 64)
    exec(tokens_of_torch.replace("TOKENS", str(tmp_path / "tokens")), found)
    names = sorted(images.rglob("*.png"))
    assert found["classes"].tolist() == ["a", "b"]
    assert [found["classes"][n] for n in np.asarray(found["labels"])] == [
        name.parent.name for name in names
    ]
    originals = np.stack([pixels(name) for name in names])
    codes = TOKENIZER.encode(originals)
    rows = np.asarray(found["tokens"])
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, codes.reshape(10, -1))
    np.testing.assert_array_equal(found["pictures"], TOKENIZER.decode(codes[:8]))


@pytest.mark.parametrize("colours", [{}, {"icc": True}])
def test_images_are_made_as_those_of_the_training_were(run, images, tmp_path, monkeypatch, colours):
    prepared = {"image_size": 8, "crop": 24, "resize": True, "filter": "bilinear", **colours}
    monkeypatch.setattr(TOKENIZER, "preparation", prepared)
    code, out, err = run("encode", "images", "tokens")
    assert code == 0 and "2 x 2 codes each" in out
    assert "centre crop 24, then smaller side to 8 (bilinear), centre crop 8 x 8" in err
    assert claims.read_manifest(tmp_path / "tokens")["preparation"] == prepared


def test_one_file_is_an_input_too(run, images, tmp_path):
    (name, *_) = sorted(images.rglob("*.png"))
    assert run("encode", name, "tokens")[0] == 0
    assert list(every_token(tmp_path / "tokens")) == [name.name]
    assert run("decode", "tokens/tokens-00000.npz", "decoded")[0] == 0
    assert (tmp_path / "decoded" / name.name).exists()


def test_the_same_command_again_does_nothing_but_say_so(run, images, tmp_path):
    for command, source, target in (
        ("encode", "images", "tokens"),
        ("decode", "tokens", "decoded"),
        ("reconstruct", "images", "direct"),
    ):
        run(command, source, target)
        before = content(tmp_path / target)
        code, out, _ = run(command, source, target)
        assert code == 0 and out.startswith("0 ") and "10 were there already" in out
        assert content(tmp_path / target) == before


def test_new_images_are_added(run, images, tmp_path):
    run("encode", "images", "tokens")
    image = exports.images(1)[0]
    Image.fromarray(image).save(images / "zwölf, later.png")
    code, out, _ = run("encode", "images", "tokens")
    assert code == 0 and out.startswith("1 encoded") and "10 were there already" in out
    index, _ = every_token(tmp_path / "tokens")["zwölf, later.png"]
    np.testing.assert_array_equal(index, TOKENIZER.encode(image[None])[0])


def test_shards_are_cut_and_read_in_order(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 4)
    run("encode", "images", "tokens", "--batch_size=2")
    manifest = claims.read_manifest(tmp_path / "tokens")
    assert [shard["images"] for shard in manifest["shards"]] == [4, 4, 2]
    names = [name for part in tokens.read_tokens(tmp_path / "tokens") for name in part.names]
    assert names == sorted(names) and len(names) == 10


def test_bad_files_are_named_counted_and_left_out(run, images, tmp_path):
    (images / "a" / "broken.png").write_bytes(b"no image")
    code, out, err = run("encode", "images", "tokens")
    assert code == 0 and "1 of 11 cannot be read" in out
    assert "Skipping a/broken.png: cannot decode an image of 8 bytes (none of JPEG" in err
    (bad,) = claims.read_manifest(tmp_path / "tokens")["bad"]
    assert bad["name"] == "a/broken.png" and "cannot decode" in bad["reason"]
    assert run("encode", "images", "strict", "--strict")[0] == 1
    assert len(every_token(tmp_path / "strict")) == 10
    assert run("reconstruct", "images", "direct", "--strict")[0] == 1


@pytest.mark.parametrize("size", ["--size=0", "--size=8"])
def test_colour_profiles_are_followed_where_the_training_followed_them(
    run, tmp_path, monkeypatch, size
):
    profiles.write_red(tmp_path / "images" / "red.png")
    stored, seen = dict(TOKENIZER.preparation), {}
    encode = TOKENIZER.encode
    for name in ("new", "old"):
        # Exports of before have no such entry.
        kept = {key: value for key, value in stored.items() if name == "new" or key != "icc"}
        monkeypatch.setattr(TOKENIZER, "preparation", kept)
        monkeypatch.setattr(
            TOKENIZER,
            "encode",
            lambda images, name=name: seen.__setitem__(name, images[0, 0, 0]) or encode(images),
        )
        assert run("encode", "images", name, size)[0] == 0
        prepared = claims.read_manifest(tmp_path / name)["preparation"]
        assert prepared is None or ("icc" in prepared) == (name == "new")
    assert seen["old"].tolist() == profiles.RED and seen["new"].tolist() != profiles.RED


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--max_pixels=100", "it has 32 x 32 pixels; max_pixels is 100, raise it"),
        ("--max_bytes=10", "bytes; max_bytes is 10, raise it"),
    ],
)
def test_images_over_a_limit_are_bad_and_say_which(run, images, tmp_path, flag, reason):
    code, out, err = run("encode", "images", "tokens", flag)
    assert code == 1 and "10 of 10 cannot be read" in out and reason in err
    name = flag.split("=")[0]
    assert run("encode", "images", "tokens", f"{name}=1000000")[0] == 0


def test_an_image_that_cannot_be_transformed_is_bad(run, images, tmp_path, monkeypatch):
    def fail(image):
        if image[0, 0, 0] == pixels(sorted(images.rglob("*.png"))[0])[0, 0, 0]:
            raise cv2.error("too thin")
        return image[:8, :8]

    monkeypatch.setattr(tokenizing, "make_eval_transform", lambda **_: fail)
    code, out, err = run("encode", "images", "tokens", "--size=8")
    assert code == 0 and "1 of 10 cannot be read" in out
    assert "cannot crop and scale an image of 32 x 32 pixels (error: too thin)" in err


def test_nothing_but_bad_files_is_a_failure(run, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.jpg").write_bytes(b"")
    code, out, _ = run("encode", "images", "tokens")
    assert code == 1 and out.startswith("0 encoded") and "1 of 1 cannot be read" in out


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_another_tokenizer_or_size_is_refused_until_told(run, images, tmp_path, command):
    run(command, "images", "out")
    before = content(tmp_path / "out")
    for flags, named in ((["--size=16"], "preparation is None there"), ([], "tokenizer is ")):
        tokenizer = "mine" if flags else "other"
        code, out, err = run(command, "images", "out", *flags, tokenizer=tokenizer)
        assert (code, out) == (1, "") and named in err and "--force" in err
        assert err.splitlines()[-1].startswith("error: The output ")
        assert content(tmp_path / "out") == before
    code, out, _ = run(command, "images", "out", "--force", tokenizer="other")
    assert code == 0 and out.startswith("10 ")
    assert claims.read_manifest(tmp_path / "out")["tokenizer"] == OTHER.fingerprint


def test_tokens_of_another_tokenizer_are_refused(run, images, tmp_path):
    run("encode", "images", "tokens")
    for source in ("tokens", "tokens/tokens-00000.npz"):
        code, out, err = run("decode", source, "decoded", tokenizer="other")
        assert (code, out) == (1, "") and not (tmp_path / "decoded").exists()
        assert f"of fingerprint {TOKENIZER.fingerprint[:16]}" in err
        assert f"has {OTHER.fingerprint[:16]}" in err


def test_a_folder_with_other_files_is_refused_and_force_leaves_them(run, images, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    assert run("encode", "images", "hidden")[0] == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    code, _, err = run("encode", "images", "out")
    assert code == 1 and "is not empty and has no manifest.json" in err
    assert run("encode", "images", "out", "--force")[0] == 0
    assert run("encode", "images", "out", "--force")[0] == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("absent", "out", "The input .*absent does not exist"),
        ("empty", "out", "no image in .*empty"),
        ("images", "images/out", "lies in the input"),
        ("images", "file", "file is a file; expected a folder"),
        ("images", "file/out", "file/out cannot be written to|Not a directory"),
    ],
)
@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_wrong_paths_get_one_line_and_leave_nothing(
    run, images, tmp_path, command, source, target, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(command, source, target)
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert re.search(message, err)
    assert sorted(tmp_path.rglob("*")) == before


def test_decode_asks_for_tokens(run, images, tmp_path):
    run("reconstruct", "images", "direct")
    assert "holds decoded images; expected" in run("decode", "direct", "out")[2]
    assert "images/manifest.json does not exist" in run("decode", "images", "out")[2]


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d[:50] + b"x" + d[51:]])
def test_a_damaged_shard_is_named(run, images, tmp_path, damage):
    run("encode", "images", "tokens")
    shard = tmp_path / "tokens" / "tokens-00000.npz"
    shard.write_bytes(damage(shard.read_bytes()))
    for command, source, target in (("decode", "tokens", "out"), ("encode", "images", "tokens")):
        code, _, err = run(command, source, target)
        assert code == 1 and "tokens-00000.npz is damaged" in err and "--force" in err


def test_decode_unpacks_each_shard_once_and_touches_nothing_where_one_is_damaged(
    run, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 4)
    run("encode", "images", "tokens", "--batch_size=2")
    reading = mock.Mock(wraps=tokens.read_shard)
    monkeypatch.setattr(tokens, "read_shard", reading)
    assert run("decode", "tokens", "whole")[0] == 0
    shards = sorted((tmp_path / "tokens").glob("*.npz"))
    assert [call.args[0].path for call in reading.call_args_list] == shards and len(shards) == 3
    before = content(tmp_path / "whole")
    # Codes alone: the names, which are all that is read at first, are right.
    with np.load(shards[1]) as stored:
        arrays = dict(stored)
    np.savez_compressed(shards[1], **{**arrays, "indices": arrays["indices"][:, ::-1]})
    for target, flags in (("out", ()), ("whole", ("--force",))):
        code, _, err = run("decode", "tokens", target, *flags)
        assert code == 1 and "tokens-00001.npz is damaged (its sha256 is not the manifest" in err
    # Ten images, the manifest, and what they came from.
    assert content(tmp_path / "whole") == before and len(before) == 12
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_manifest_is_named(run, images, tmp_path, text):
    run("encode", "images", "tokens")
    (tmp_path / "tokens" / "manifest.json").write_text(text)
    code, _, err = run("encode", "images", "tokens")
    assert code == 1 and "manifest.json is damaged" in err and "--force" in err
    assert run("encode", "images", "tokens", "--force")[0] == 0


def test_a_manifest_of_another_version_is_named(run, images, tmp_path):
    run("encode", "images", "tokens")
    path = tmp_path / "tokens" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 9}))
    assert "is of version 9; expected 1" in run("decode", "tokens", "out")[2]


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["a.jpg", "b/c.webp", "d.tar.png"], ["a.png", "b/c.png", "d.tar.png"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["c/A.jpg", "c/a.JPG"], ["c/A.jpg.png", "c/a.JPG.2.png"]),
        (["a.jpg", "a.png", "a.jpg.webp"], ["a.jpg.2.png", "a.png.png", "a.jpg.png"]),
        (["x.jpg", "x.png/y.jpg"], ["x.jpg.png", "x.png/y.png"]),
        (["x.jpg", "X.png/y.jpg"], ["x.jpg.png", "X.png/y.png"]),
    ],
)
def test_no_two_images_share_a_file_in_any_case(names, paths):
    assert list(pngs.png_paths(names).values()) == paths


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", ""])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(ValueError, match="leads out of the output folder"):
        pngs.png_paths(["fine.png", name])


def test_another_input_is_refused(run, images, tmp_path):
    runs.write_images(tmp_path / "others", 3, seed=1)
    run("encode", "images", "tokens")
    run("encode", "others", "other tokens")
    run("decode", "tokens", "decoded")
    for command, source, target in (
        ("encode", "others", "tokens"),
        ("decode", "other tokens", "decoded"),
        ("reconstruct", "images", "decoded"),
        ("reconstruct", "images", "tokens"),
    ):
        before = content(tmp_path / target)
        code, _, err = run(command, source, target)
        assert code == 1 and "is of another command" in err
        same = (source, target) == ("images", "tokens")
        assert ("the input is another folder or file" in err) != same
        assert content(tmp_path / target) == before


def test_a_forced_start_leaves_nothing_of_the_one_before(run, images, tmp_path, monkeypatch):
    """Also where it is interrupted, and goes on without being forced."""
    run("reconstruct", "images", "out")
    reconstruct, calls = Tokenizer.reconstruct, []

    def interrupted(self, images):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reconstruct(self, images)

    monkeypatch.setattr(Tokenizer, "reconstruct", interrupted)
    given = ["reconstruct", "images", "out", "--size=16", "--batch_size=4"]
    code, _, err = run(*given, "--force")
    assert code == 130 and "the same command without --force goes on" in err
    code, out, _ = run(*given)
    assert code == 0 and out.startswith("6 written") and "4 were there already" in out
    sizes = {pixels(path).shape for path in (tmp_path / "out").rglob("*.png")}
    assert sizes == {(16, 16, 3)}


def test_what_is_not_complete_says_so(run, images, tmp_path, monkeypatch):
    run("encode", "images", "tokens")
    runs.write_images(tmp_path / "images" / "more", 3, seed=1)
    monkeypatch.setattr(tokenizing, "encode_images", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("encode", "images", "tokens")
    code, out, err = run("decode", "tokens", "decoded")
    assert code == 0 and "tokens is not complete; the same encode command" in err


def test_a_second_process_is_refused_while_the_first_one_writes(run, images, tmp_path):
    claim = claims.make_claim("encode", images, TOKENIZER, None)
    with claims.claimed(tmp_path / "tokens", claim, force=False):
        for flag in ([], ["--force"]):
            code, _, err = run("encode", "images", "tokens", *flag)
            assert code == 1 and f"({os.getpid()} on " in err and "writes into" in err
    assert run("encode", "images", "tokens")[0] == 0


def test_force_removes_no_file_but_shards(run, images, tmp_path):
    run("encode", "images", "tokens")
    path = tmp_path / "tokens" / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("mine.txt", "../mine.txt"):
        (tmp_path / "tokens" / name).write_text("kept")
        manifest["shards"].append({"file": name, "images": 1, "sha256": ""})
    path.write_text(json.dumps(manifest))
    assert (
        "shards[1].file is 'mine.txt'; expected tokens-NNNNN.npz"
        in run("decode", "tokens", "out")[2]
    )
    assert run("encode", "images", "tokens", "--force")[0] == 0
    assert (tmp_path / "tokens" / "mine.txt").exists() and (tmp_path / "mine.txt").exists()


def test_a_bad_file_may_have_any_name(run, images, tmp_path):
    (images / os.fsdecode(b"latin-\xe9.png")).write_bytes(b"no image")
    code, out, _ = run("encode", "images", "tokens")
    assert code == 0 and "1 of 11 cannot be read" in out
    assert len(claims.read_manifest(tmp_path / "tokens")["bad"]) == 1


def test_many_shapes_are_on_the_disk_before_one_of_them_fills_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 4)
    claim = claims.make_claim("encode", tmp_path, TOKENIZER, None)
    with claims.claimed(tmp_path / "out", claim, force=False) as manifest:
        writer = tokens.ShardWriter(tmp_path / "out", manifest, Stages(1))
        for side in (1, 2, 3, 4, 5):
            part = np.zeros((1, side, side), np.int32)
            writer.add(tokens.Tokens([str(side)], part, np.int32([[4, 4]])))
        writer.settle()
        assert len(tokens.written_names(tmp_path / "out")) == 4
        monkeypatch.setattr(tokens, "FLUSH_SECONDS", -1)
        writer.add(tokens.Tokens(["6"], np.zeros((1, 6, 6), np.int32), np.int32([[4, 4]])))
        writer.settle()
        assert len(tokens.written_names(tmp_path / "out")) == 6


def test_batches_are_small_where_images_are_large(monkeypatch):
    monkeypatch.setattr(transcribe, "BATCH_PIXELS", 200)
    monkeypatch.setattr(transcribe, "HELD_PIXELS", 500)
    sides = [10] * 5 + [30] * 2 + [4, 5, 6, 7, 8, 9, 11, 12, 13]
    items = [Item(str(i), np.zeros((s, s, 3), np.uint8), "") for i, s in enumerate(sides)]
    batches = list(transcribe._by_shape(iter(items), 64, None))
    assert sorted(item.name for batch in batches for item in batch) == sorted(i.name for i in items)
    assert [len(batch) for batch in batches if batch[0].image.shape[0] == 30] == [1, 1]
    assert max(sum(item.image[..., 0].size for item in batch) for batch in batches[:3]) <= 900
    assert all(len({item.image.shape for item in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.zeros((10, 8, 8), np.float32)}, "indices is float32"),
        ({"indices": np.full((10, 8, 8), 16, np.uint8)}, "codes below 16"),
        ({"indices": np.zeros((9, 8, 8), np.uint8)}, "9 rows of codes"),
        ({"sizes": np.zeros(10, np.int32)}, r"sizes is int32\[10\]"),
        ({"sizes": np.zeros((10, 2), np.float32)}, "sizes is float32"),
        ({"sizes": np.zeros((10, 2), np.int32)}, "a size is 0; expected at least 1 pixel"),
        ({"sizes": np.full((10, 2), -4)}, "a size is -4"),
        ({"names": np.array(["a"] * 10)}, "it names 'a' twice"),
        ({"names": np.array([["a"] * 5] * 2)}, r"names is <U1\[2, 5\]"),
        ({"indices": np.zeros((10, 8, 0), np.uint8)}, r"indices are uint8\(10, 8, 0\)"),
        ({"tokenizer": np.array(3)}, "tokenizer is int64"),
        ({"codebook_size": np.array("many")}, "codebook_size is <U4"),
    ],
)
def test_a_shard_whose_arrays_do_not_fit_is_named(run, images, tmp_path, change, message):
    run("encode", "images", "tokens")
    path = tmp_path / "tokens" / "tokens-00000.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez_compressed(path, **{**arrays, **change})
    with pytest.raises(ValueError, match=f"tokens-00000.npz is damaged.*{message}"):
        list(tokens.read_tokens(path))
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ValueError, match="it is no whole .npz file"):
        list(tokens.read_tokens(tmp_path / "x.npy"))


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_inputs_that_changed_between_two_calls_are_said(run, images, tmp_path, command):
    assert run(command, "images", "out")[0] == 0
    before = content(tmp_path / "out")
    first, second, *_ = sorted(images.rglob("*.png"))
    Image.fromarray(exports.images(1)[0]).save(first)
    second.unlink()
    os.utime(sorted(images.rglob("*.png"))[2], ns=(5, 5))
    code, out, err = run(command, "images", "out")
    assert code == 0 and err.count("\n") == 2
    assert "3 input(s) changed after they were read: 'a/000.png' is another, 'a/0" in err
    assert "is gone" in err and "--force starts anew" in err
    # What is there stays.
    assert {name: content(tmp_path / "out")[name] for name in before if name.suffix != ".json"} == {
        name: data for name, data in before.items() if name.suffix != ".json"
    }
    assert run(command, "images", "out", "--strict")[0] == 1
    assert run(command, "images", "out", "--force", "--strict")[0] == 0
    assert run(command, "images", "out", "--strict")[2].count("\n") == 1


def test_tokens_that_were_made_anew_between_two_calls_are_said(run, images, tmp_path):
    run("encode", "images", "tokens")
    assert run("decode", "tokens", "out")[0] == 0
    assert run("decode", "tokens", "out") == run("decode", "tokens", "out")
    next(images.rglob("*.png")).unlink()
    run("encode", "images", "tokens", "--force")
    code, _, err = run("decode", "tokens", "out")
    assert code == 0 and "1 input(s) changed after they were read: 'tokens-00000.npz' is an" in err


def test_an_input_that_is_replaced_while_the_command_runs_is_bad(
    run, images, tmp_path, monkeypatch
):
    first, second, third, *_ = sorted(images.rglob("*.png"))
    read = transcribe.read_images

    def changing(*given):
        first.write_bytes(second.read_bytes() + b" ")
        third.unlink()
        return read(*given)

    monkeypatch.setattr(tokenizing, "read_images", changing)
    code, out, err = run("encode", "images", "tokens")
    assert code == 0 and "2 of 10 cannot be read" in out
    assert "a/000.png: it was replaced, written to or removed after it was listed" in err
    assert len(every_token(tmp_path / "tokens")) == 8


def test_an_output_that_cannot_be_written_stops_no_other(run, tmp_path):
    """A name too long with its number, a folder in the way: all others are written."""
    (tmp_path / "images").mkdir()
    names = ["a" * 251 + ".png", "b" * 250 + ".png", "b" * 250 + ".jpg", "c.png", "d.png"]
    for number, name in enumerate(names):
        Image.fromarray(exports.images(1, seed=number)[0]).save(tmp_path / "images" / name)
    assert run("encode", "images", "tokens")[0] == 0
    (tmp_path / "out" / "c.png" / "in the way").mkdir(parents=True)
    for command, source in (("decode", "tokens"), ("reconstruct", "images")):
        for target in ("out", f"new {command}"):
            code, out, err = run(command, source, target, "--force")
            blocked = target == "out"
            assert code == 0, err
            # 255 bytes are a name; `.jpg.png` is too long where two share the short one.
            written = {p.name for p in (tmp_path / target).iterdir() if p.is_file()}
            assert {names[0], "d.png"} <= written and ("c.png" in written) != blocked
            assert f"{2 + blocked} of 5 cannot be read or written" in out
            assert ("c.png: cannot be written" in err) == blocked
            assert err.count("cannot be written: [Errno 36] File name too long") == 2
            assert run(command, source, target, "--strict")[0] == 1


def test_names_that_no_file_can_have_stop_no_other(run, images, tmp_path):
    run("encode", "images", "tokens")
    path = tmp_path / "tokens" / "tokens-00000.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["names"][:3] = ["a\0b", "c\ud800", "d\n.png"]
    np.savez_compressed(path, **arrays)
    for flags in ([], ["--force"]):
        target = tmp_path / f"out{len(flags)}"
        code, out, err = run("decode", "tokens/tokens-00000.npz", target.name, *flags)
        assert code == 0 and "2 of 10 cannot be read or written" in out
        assert len(list(target.rglob("*.png"))) == 8


def test_a_full_disk_ends_the_command_at_once(run, images, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pngs, "replacing", full)
    code, out, err = run("reconstruct", "images", "out")
    assert (code, out) == (1, "") and "No space left" in err and "Skipping" not in err


def test_interrupted_it_keeps_what_is_encoded_and_goes_on(run, images, tmp_path, monkeypatch):
    encode, calls = Tokenizer.encode, []

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(Tokenizer, "encode", interrupted)
    code, out, err = run("encode", "images", "tokens", "--batch_size=2")
    assert (code, out) == (130, "") and "the same command goes on" in err
    assert len(every_token(tmp_path / "tokens")) == 4
    assert not claims.read_manifest(tmp_path / "tokens")["complete"]
    code, out, _ = run("encode", "images", "tokens", "--batch_size=2")
    assert code == 0 and out.startswith("6 encoded") and "4 were there already" in out
    assert len(every_token(tmp_path / "tokens")) == 10


def test_interrupted_while_a_shard_is_written_it_keeps_what_is_encoded(
    run, images, tmp_path, monkeypatch
):
    """Reading is interrupted once two shards are with the thread that writes."""
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 2)
    write, watched, interrupted = tokens.write_shard, tokenizing.Sources.watched, threading.Event()

    def slow(*given):
        assert interrupted.wait(60)
        return write(*given)

    def watched_until(self, items, root):
        for number, item in enumerate(watched(self, items, root)):
            if number == 6:
                interrupted.set()
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(tokens, "write_shard", slow)
    monkeypatch.setattr(tokenizing.Sources, "watched", watched_until)
    code, out, err = run("encode", "images", "tokens", "--batch_size=2")
    assert (code, out) == (130, "") and "the same command goes on" in err
    assert len(every_token(tmp_path / "tokens")) == 6
    assert [s["images"] for s in claims.read_manifest(tmp_path / "tokens")["shards"]] == [2, 2, 2]


def test_a_full_disk_ends_encoding_and_what_was_written_before_is_whole(
    run, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(tokens, "SHARD_IMAGES", 4)
    write, calls = tokens.write_shard, []

    def full(*given):
        calls.append(given)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*given)

    monkeypatch.setattr(tokens, "write_shard", full)
    code, out, err = run("encode", "images", "tokens", "--batch_size=2")
    assert (code, out) == (1, "") and "No space left" in err and "tokens)" in err
    assert len(every_token(tmp_path / "tokens")) == 4
    monkeypatch.setattr(tokens, "write_shard", write)
    assert run("encode", "images", "tokens")[1].startswith("6 encoded")


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_an_error_of_our_own_leaves_no_thread_that_waits_for_room(
    run, images, monkeypatch, command
):
    """Python would wait for it at its end, as long as the traceback keeps who reads."""
    monkeypatch.setattr(transcribe, "AHEAD_PIXELS", 1)
    read, threads = transcribe.read_image, set()

    def noted(*given):
        threads.add(threading.current_thread())
        return read(*given)

    monkeypatch.setattr(transcribe, "read_image", noted)
    last = {"encode": (tokens.ShardWriter, "add"), "reconstruct": (tokenizing.Tally, "advance")}
    monkeypatch.setattr(*last[command], lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError) as kept:
        run(command, "images", "out", "--batch_size=1", "--threads=2")
    for thread in threads:
        thread.join(60)
    assert threads and not any(thread.is_alive() for thread in threads) and kept.tb


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_threads_change_no_byte_and_the_last_line_says_what_they_took(
    run, images, tmp_path, command
):
    (images / "a" / "broken.png").write_bytes(b"no image")
    for threads in (1, 7):
        code, out, _ = run(command, "images", f"out{threads}", f"--threads={threads}")
        assert code == 0
        over = r" over 7 threads" if threads > 1 else ""
        written = over if command == "reconstruct" else ""
        seconds = r"\d+\.\d s"
        assert re.fullmatch(
            rf"Reading {seconds}{over} \({seconds} waited for\), network {seconds}, "
            rf"writing {seconds}{written}: (reading|network|writing) decides\.",
            out.splitlines()[-1],
        )
    assert content(tmp_path / "out1") == content(tmp_path / "out7")


@pytest.mark.slow
def test_a_killed_program_goes_on_and_ends_as_one_that_was_not(tmp_path):
    """The whole program, on a real export, killed by SIGKILL after its first files."""
    runs.write_images(tmp_path / "images", 40)
    write_export(tmp_path / "export", exports.export("vqvae"), FACTS)
    command = [sys.executable, "-m", "mq_jax.tokenize", "reconstruct", "--batch_size=1"]
    paths = ["--tokenizer", tmp_path / "export", "--input", tmp_path / "images", "--output"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "XDG_CACHE_HOME": str(tmp_path / "c")}
    launch = {"cwd": runs.ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True}
    killed = subprocess.Popen([*command, *paths, tmp_path / "out"], **launch)
    while not list((tmp_path / "out").rglob("*.png")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    left = len(list((tmp_path / "out").rglob("*.png")))
    whole = subprocess.run([*command, *paths, tmp_path / "whole"], check=True, **launch)
    again = subprocess.run([*command, *paths, tmp_path / "out"], check=True, **launch)
    assert whole.stdout.startswith("40 written")
    assert f"{left} were there already" in again.stdout
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob(".*"))


FACTS = {
    "training": {"source": "photos", "split": "train", "step": 1, "config": {}},
    "evaluation": None,
    "environment": {"python": "3", "packages": {}},
}


def test_help_names_the_commands_and_their_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        tokenize.main(["encode", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "--tokenizer",
        "--input",
        "--output",
        "--size",
        "--threads",
        "--force",
        "--strict",
    ):
        assert flag in text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["encod"], "'encod' is no command (did you mean encode?); expected one of encode, decode"),
        (["x"], "'x' is no command; expected one of encode, decode, reconstruct."),
        (["encode", "--sise=3"], "unrecognized arguments: --sise=3 (did you mean --size?)"),
        (["decode", "--size=3"], "--size=3 (a flag of encode, reconstruct)\n"),
        (["decode", "--qqq", "x"], "unrecognized arguments: --qqq x\n"),
    ],
)
def test_what_is_near_to_a_command_or_a_flag_is_told_which(given, told, capsys):
    paths = [f"--{name}=x" for name in ("tokenizer", "input", "output")]
    with pytest.raises(SystemExit) as ended:
        tokenize.main([*given, *paths])
    assert ended.value.code == 2 and told in capsys.readouterr().err
