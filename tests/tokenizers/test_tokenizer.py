"""The tokenizer: what evaluation reconstructs, bit for bit; sizes, batches, and what it refuses."""

import copy
import functools
import multiprocessing
import pickle
import warnings

import exports
import jax
import numpy as np
import pytest

from mq_jax.evaluation.evaluate import make_eval_step
from mq_jax.images.scale import from_uint8
from mq_jax.metrics.collections import empty_evaluation
from mq_jax.tokenizers import tokenizer as module
from mq_jax.tokenizers import transcribe
from mq_jax.tokenizers.coding import Coding
from mq_jax.tokenizers.items import Item
from mq_jax.tokenizers.shards import Tokens
from mq_jax.tokenizers.stages import Stages
from mq_jax.tokenizers.tokenizer import Tokenizer

SLOW = {"vqgan in bfloat16"}
EACH = pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in exports.KINDS],
)


@functools.cache
def tokenizer(kind):
    return Tokenizer(exports.export(kind))


@EACH
def test_pixels_and_codes_are_those_of_the_objective_in_evaluation_bit_for_bit(kind):
    _, objective, state = exports.model(kind)
    tok = tokenizer(kind)

    @jax.jit
    def evaluated(state, x):
        passed = *state.evaluated[:3], from_uint8(x)
        _, outputs = objective(*passed, straight_through="encoder", train=False)
        return outputs.indices, outputs.images

    used = set()
    for seed in range(5):
        images = exports.images(4, seed=seed)
        indices, pixels = evaluated(state, images)
        found = tok.encode(images)
        np.testing.assert_array_equal(found, indices)
        used |= {*found.ravel().tolist()}
        np.testing.assert_array_equal(tok.coding.pixels(tok.weights, found), pixels)
    assert len(used) > 2


@pytest.mark.parametrize("kind", ["vqvae with averages"])
def test_reconstructions_are_those_of_the_evaluation_step_bit_for_bit(kind):
    config, objective, state = exports.model(kind)
    images = exports.images(8)
    step = jax.jit(make_eval_step(objective))
    metrics = empty_evaluation(config.codebook.size, ("mse", "psnr"))
    _, expected = step(state, metrics, images, np.ones(8, np.float32), ())
    found = tokenizer(kind).reconstruct(images)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, tokenizer(kind).decode(tokenizer(kind).encode(images)))


@pytest.mark.parametrize("kind", ["vqvae"])
def test_floats_have_the_codes_of_their_bytes(kind):
    images, tok = exports.images(3), tokenizer(kind)
    floats = np.asarray(from_uint8(images))
    np.testing.assert_array_equal(tok.encode(floats), tok.encode(images))
    np.testing.assert_array_equal(tok.encode(floats.astype(np.float64)), tok.encode(images))


@pytest.mark.parametrize("kind", ["vqvae", pytest.param("vqgan", marks=pytest.mark.slow)])
def test_any_number_of_images_has_the_codes_that_each_has_alone(kind, monkeypatch):
    """And its pixels, but for the order in which a program of another batch size adds."""
    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    images, tok = exports.images(11, 16, 16), tokenizer(kind)
    alone = np.concatenate([tok.encode(image[None]) for image in images])
    pixels = np.concatenate([tok.decode(codes[None]) for codes in alone])
    for count in (0, 1, 2, 3, 5, 8, 11):
        found = tok.encode(images[:count])
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, alone[:count])
        difference = np.abs(tok.decode(found).astype(int) - pixels[:count])
        assert difference.max(initial=0) <= 1 and difference.sum() <= 1e-3 * difference.size


def test_any_sequence_of_batch_sizes_compiles_a_bounded_number_of_programs(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BATCH", 8)
    tok = Tokenizer(exports.export("vqvae"))
    for count in [*range(1, 20), 33, 100]:
        tok.decode(tok.encode(exports.images(count, 8, 8)))
    # 1, 2, 4, 8.
    assert tok.coding.encode._cache_size() == tok.coding.decode._cache_size() == 4


@pytest.fixture
def held(monkeypatch):
    """A tokenizer that computes nothing, and of each call how many results the device held."""
    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    tok, counts = Tokenizer(exports.export("vqvae")), []

    def program(shape_of, dtype):
        def compute(weights, rows, *sizes):
            shape = shape_of(*rows.shape[1:3])
            result = jax.device_put(np.zeros((len(rows), *shape), dtype))
            alike = [a for a in jax.live_arrays() if a.shape[1:] == shape and a.dtype == dtype]
            counts.append(len(alike))
            return result

        return compute

    encode = program(lambda height, width: (height // 4, width // 4), np.int32)
    decode = program(lambda height, width: (height * 4, width * 4, 3), np.uint8)
    monkeypatch.setattr(tok, "_coding", Coding(encode, None, decode, encode))
    return tok, counts


# Of sides that no other array here has.
MANY, SIZES = np.zeros((40, 28, 44, 3), np.uint8), np.tile(np.int32([28, 44]), (40, 1))
ITEMS = [Item(f"{i}.png", image, "") for i, image in enumerate(MANY)]
MIXED = [item._replace(image=item.image[: 28 - i % 20]) for i, item in enumerate(ITEMS)]
CODED = Tokens([item.name for item in ITEMS], np.zeros((40, 7, 11), np.uint8), SIZES)
IN_BATCHES = {
    "encode": (lambda t: t.encode(MANY), 10),
    "encode_within": (lambda t: t.encode_within(MANY, SIZES), 10),
    "decode": (lambda t: t.decode(CODED.indices), 10),
    "reconstruct": (lambda t: t.reconstruct(MANY), 20),
    "a folder encoded": (lambda t: [*transcribe.encode_images(t, ITEMS, 64, print, Stages(1))], 10),
    "sizes encoded": (lambda t: [*transcribe.encode_images(t, MIXED, 16, print, Stages(1))], 10),
    "a folder decoded": (
        lambda t: [*transcribe.decode_tokens(t, [CODED], {*CODED[0]}, 64, Stages(1))],
        10,
    ),
    "a folder through both": (
        lambda t: [*transcribe.reconstruct_images(t, ITEMS, 64, print, Stages(1))],
        20,
    ),
}


@pytest.mark.parametrize(("function", "calls"), IN_BATCHES.values(), ids=IN_BATCHES)
def test_the_device_holds_the_results_of_two_batches_and_no_more(held, function, calls):
    tok, counts = held
    # Counted when a result is made, which is the second; one more would wait for nothing.
    function(tok)
    assert len(counts) >= calls and max(counts) == 2


@pytest.mark.parametrize(
    ("kind", "height", "width"),
    [("vqvae", 48, 32), ("vqvae", 13, 30), ("vqvae", 1, 5), ("vqgan", 13, 9)],
)
def test_any_height_and_width_is_taken_and_given_back(kind, height, width):
    images, tok = exports.images(2, height, width), tokenizer(kind)
    indices = tok.encode(images)
    f = tok.downsampling
    assert f == (2 if kind == "vqgan" else 4)
    assert indices.shape == (2, -(-height // f), -(-width // f))
    padded = np.pad(images, [(0, 0), (0, -height % f), (0, -width % f), (0, 0)], mode="edge")
    np.testing.assert_array_equal(indices, tok.encode(padded))
    whole = tok.decode(indices)
    assert whole.shape == padded.shape and whole.dtype == np.uint8
    np.testing.assert_array_equal(tok.reconstruct(images), whole[:, :height, :width])


@pytest.mark.parametrize("kind", ["vqvae", "vqgan"])
def test_images_of_any_size_on_one_canvas_have_the_codes_that_each_has_alone(kind):
    """Whatever lies beyond their edges."""
    tok = tokenizer(kind)
    f = tok.downsampling
    sizes = np.array([(8, 16), (32, 4), (16, 32), (32, 32), (4, 4)], np.int32)
    for beyond in (0, 255):
        canvas = np.full((len(sizes), 32, 32, 3), beyond, np.uint8)
        for place, (height, width) in zip(canvas, sizes, strict=True):
            place[:height, :width] = exports.images(1, height, width, seed=height + width)[0]
        found = tok.encode_within(canvas, sizes)
        for row, (height, width) in enumerate(sizes):
            alone = tok.encode(canvas[row : row + 1, :height, :width])[0]
            np.testing.assert_array_equal(found[row, : height // f, : width // f], alone)
    with pytest.raises(ValueError, match="expected multiples of"):
        tok.encode_within(canvas, sizes + 1)


def test_what_it_says_of_itself():
    tok = tokenizer("vqvae in chunks")
    assert (tok.size, tok.depth, tok.dim) == (80, 0, 4)
    assert (tok.downsampling, tok.image_size) == (4, 32)
    geometry = {"image_size": 32, "crop": 0, "resize": False, "filter": "area"}
    assert tok.preparation == {**geometry, "icc": True}
    assert len(tok.fingerprint) == 64
    parameters = sum(a.size for a in jax.tree.leaves((tok.weights.theta, tok.weights.codebook)))
    assert repr(tok) == (
        f"Tokenizer(vector quantization, K=80, D=4, downsampling=4, image_size=32, "
        f"parameters={parameters}, fingerprint={tok.fingerprint[:16]}...)"
    )


def test_the_codebook_is_the_callers_own_and_decodes_to_what_its_codes_do():
    tok = tokenizer("vqvae")
    codebook = tok.codebook
    assert (codebook.dtype, codebook.shape) == (np.float32, (tok.size, tok.dim))
    np.testing.assert_array_equal(codebook, tok.weights.codebook)
    codebook[:] = 0
    assert tok.codebook.any()


@pytest.mark.parametrize("sides", [(48, 32), (13, 30), (1, 5), (4, 4)])
def test_the_grid_is_that_of_encode(sides):
    tok = tokenizer("vqvae")
    assert tok.grid(*sides) == tok.encode(exports.images(1, *sides)).shape[1:]


@pytest.mark.parametrize(
    ("sides", "message"),
    [((0, 4), r"of \(0, 4\) pixels; expected at least 1 x 1"), ((4.0, 4), "two whole numbers")],
)
def test_no_grid_is_told_of_sides_that_no_image_has(sides, message):
    with pytest.raises(ValueError, match=message):
        tokenizer("vqvae").grid(*sides)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_rows_of_codes_that_make_a_square_are_decoded_as_the_square(dtype):
    tok, images = tokenizer("vqvae"), exports.images(3)
    codes = tok.encode(images)
    rows = codes.reshape(3, -1).astype(dtype)
    np.testing.assert_array_equal(tok.decode(rows), tok.decode(codes))
    cropped = tok.decode(rows, (30, 31))
    np.testing.assert_array_equal(cropped, tok.decode(codes)[:, :30, :31])


FLOATS = np.zeros((1, 8, 8, 3), np.float32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (FLOATS[0], r"images have the shape \(8, 8, 3\); expected \[B, H, W, 3\]"),
        (FLOATS[..., :1], r"expected \[B, H, W, 3\]"),
        (FLOATS[:, :0], r"expected \[B, H, W, 3\]"),
        (FLOATS.astype(np.int32), "images are int32; expected uint8, or floats"),
        (FLOATS + 2, r"images lie in \[2, 2\]; expected floats in \[-1, 1\]"),
        (FLOATS + np.nan, r"images lie in \[nan, nan\]"),
    ],
)
def test_other_images_are_refused(images, message):
    for function in (tokenizer("vqvae").encode, tokenizer("vqvae").reconstruct):
        with pytest.raises(ValueError, match=message):
            function(images)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_floats_of_every_width_are_taken(dtype):
    tok = tokenizer("vqvae")
    floats = np.asarray(from_uint8(exports.images(2))).astype(dtype)
    np.testing.assert_array_equal(tok.encode(floats), tok.encode(floats.astype(np.float32)))


@pytest.mark.parametrize("function", ["encode", "reconstruct"])
def test_floats_that_look_like_0_to_1_are_warned_of_once(function):
    tok, images = tokenizer("vqvae"), exports.images(2)
    for dtype in ("float32", "bfloat16"):
        floats = (images / 255).astype(dtype)
        with pytest.warns(UserWarning, match=r"looks like \[0, 1\]; .*give 2 x - 1") as caught:
            getattr(tok, function)(floats)
        assert len(caught) == 1


def test_floats_of_the_right_range_and_bytes_are_not_warned_of():
    tok = tokenizer("vqvae")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (exports.images(2), np.asarray(from_uint8(exports.images(2))), FLOATS):
            tok.encode(images)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_a_copy_is_the_same_tokenizer(copied):
    tok, images = tokenizer("vqvae"), exports.images(2)
    other = copied(tok)
    assert (other.fingerprint, other.preparation) == (tok.fingerprint, tok.preparation)
    np.testing.assert_array_equal(other.encode(images), tok.encode(images))
    np.testing.assert_array_equal(other.decode(tok.encode(images)), tok.decode(tok.encode(images)))


@pytest.mark.slow
def test_a_worker_process_encodes_the_same():
    tok, images = tokenizer("vqvae"), exports.images(2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(tok.encode, (images,))
    np.testing.assert_array_equal(found, tok.encode(images))


CODES = np.zeros((1, 2, 3), np.int64)


@pytest.mark.parametrize(
    ("indices", "size", "message"),
    [
        (CODES[0], None, r"the shape \(2, 3\), and 3 codes make no square; give \[B, h, w\]"),
        (CODES[0, :, :0], None, r"0 codes make no square"),
        (CODES[0, 0], None, r"indices have the shape \(3,\); expected \[B, h, w\]"),
        (CODES[None], None, r"expected \[B, h, w\]"),
        (CODES[:, :0], None, r"expected \[B, h, w\]"),
        (CODES / 2, None, "indices are float64; expected integers"),
        (CODES - 1, None, r"indices lie in \[-1, -1\]; expected \[0, 15\]"),
        (CODES + 16, None, r"indices lie in \[16, 16\]; expected \[0, 15\]"),
        (CODES, (9, 12), r"size is \(9, 12\); expected .* at most \(8, 12\)"),
        (CODES, (8, 0), r"size is \(8, 0\)"),
        (CODES, 30, r"size is 30; expected two whole numbers, \(height, width\)"),
        (CODES, (8,), r"size is \(8,\); expected two"),
        (CODES, (8, 12, 3), r"size is \(8, 12, 3\); expected two"),
        (CODES, (8.0, 12), r"size is \(8\.0, 12\); expected two"),
        (CODES, "88", r"size is '88'; expected two"),
        (CODES, [[8], 12], r"expected two whole numbers"),
    ],
)
def test_other_indices_are_refused(indices, size, message):
    with pytest.raises(ValueError, match=message):
        tokenizer("vqvae").decode(indices, size)
