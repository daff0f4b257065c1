"""FID's Inception network against a peer that holds the same weights; the reading of its file."""

import hashlib
import http.server
import os
import pickle
import threading
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.interpreters import partial_eval
from torch_files import old_format

from mq_jax.models import inception, inception_weights

SHAPES = inception.weight_shapes()


def random_tensors(seed=0):
    """By PyTorch's names and in its order of axes; no activation dies or explodes."""
    rng, tensors = np.random.default_rng(seed), {}
    for key, shapes in SHAPES.items():
        height, width, inputs, outputs = shapes["kernel"].shape
        spread = np.sqrt(2 / (height * width * inputs))
        kernel = rng.normal(0, spread, (outputs, inputs, height, width))
        for name, values in {
            "conv.weight": kernel,
            "bn.weight": rng.uniform(0.8, 1.2, outputs),
            "bn.bias": rng.normal(0, 0.1, outputs),
            "bn.running_mean": rng.normal(0, 0.1, outputs),
            "bn.running_var": rng.uniform(0.8, 1.2, outputs),
        }.items():
            tensors[f"{key}.{name}"] = values.astype(np.float32)
    return tensors


def test_the_network_has_as_many_convolutions_and_parameters_as_the_paper():
    assert len(SHAPES) == 94
    assert sum(np.prod(s["kernel"].shape) for s in SHAPES.values()) == 21_751_136


def peers_weights(tensors):
    """As the peer's own file nests them."""
    nested = {}
    for key in SHAPES:
        place = nested
        for part in key.split("."):
            place = place.setdefault(part, {})
        place["conv"] = {"kernel": tensors[f"{key}.conv.weight"].transpose(2, 3, 1, 0)}
        names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        place["bn"] = {own: tensors[f"{key}.bn.{name}"] for own, name in names.items()}
    return nested


def test_the_features_are_those_of_a_peer_with_the_same_weights(tmp_path):
    peer = pytest.importorskip("fidax.inception", reason="launch/test.sh installs it")
    tensors, path = random_tensors(), tmp_path / "weights.pickle"
    path.write_bytes(pickle.dumps(peers_weights(tensors)))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    with mock.patch.object(peer, "download", lambda *_, **__: path):
        model = peer.InceptionV3(pretrained=True)

        # Its initialisers return the weights of the file; nothing is drawn.
        def run(x):
            return model.init_with_output(jax.random.key(0), x, train=False)[0]

        expected = tiny.jit(run)(images)
    weights = inception_weights.fold(tensors)
    found = tiny.jit(inception.inception_features)(weights, images)
    assert found.shape == (2, 2048)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, np.reshape(expected, (2, 2048)), atol=1e-5 * scale)
    assert np.std(found[0] - found[1]) > 1e-3 * scale


def test_images_are_resized_by_pytorchs_bilinear_rule(monkeypatch):
    """Half-pixel centres, clamped at the edges, no antialiasing: from its definition."""
    size, side = 7, inception.SIDE
    images = np.random.default_rng(2).uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
    place = np.maximum((np.arange(side) + 0.5) * size / side - 0.5, 0)
    low = np.floor(place).astype(int)
    high, share = np.minimum(low + 1, size - 1), place - low
    rows = images[:, low] * (1 - share)[:, None, None] + images[:, high] * share[:, None, None]
    expected = rows[:, :, low] * (1 - share)[:, None] + rows[:, :, high] * share[:, None]
    monkeypatch.setattr(inception, "BLOCKS", inception.BLOCKS[:1])
    monkeypatch.setattr(inception, "_branch", lambda weights, block, layers, x: x)
    monkeypatch.setattr(inception.jnp, "mean", lambda x, axis: x)
    found = inception.inception_features({}, jnp.asarray(images))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_spatial_features_are_seven_channels_of_mixed_6d_and_see_nothing_behind_it():
    """By what they depend on: the third block at 17 x 17 whose 7 x 7 convolutions have 160."""
    images = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    pool, spatial = jax.eval_shape(inception.inception_activations, SHAPES, images)
    assert (pool.shape, spatial.shape) == ((1, inception.DIM), (1, inception.SPATIAL_DIM))
    assert spatial.shape == (1, 2023)

    def second(weights, x):
        return inception.inception_activations(weights, x)[1]

    jaxpr = jax.make_jaxpr(second)(SHAPES, images).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True])
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(SHAPES)]
    read = {path[0].key for path, own in zip(paths, used[:-1], strict=True) if own}
    blocks = {key.rpartition(".")[0] for key in read}
    assert blocks == {"", *(f"Mixed_5{x}" for x in "bcd"), *(f"Mixed_6{x}" for x in "abcd")}
    (block,) = [block for block in inception.BLOCKS if block.name == "Mixed_6d"]
    first = block.branches[0][0]
    assert first.name == "branch1x1" and first.features >= inception.SPATIAL_CHANNELS == 7
    widths = {x: SHAPES[f"Mixed_6{x}.branch7x7_1"]["bias"].shape[0] for x in "bcde"}
    assert widths == {"b": 128, "c": 160, "d": 160, "e": 192}


def test_the_spatial_features_are_the_first_channels_behind_the_relu(monkeypatch):
    blocks = [
        inception.Block(f"Mixed_6{x}", ((inception.Convolution("branch1x1", 9),),)) for x in "cde"
    ]
    monkeypatch.setattr(inception, "BLOCKS", blocks)
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(2, 3, 3, 4))
    weights, expected = {}, x.reshape(-1, 4)
    for block, inputs in zip(blocks, (4, 9, 9), strict=True):
        kernel, bias = rng.normal(size=(inputs, 9)), rng.normal(size=9)
        own = {"kernel": kernel[None, None], "bias": bias}
        weights[f"{block.name}.branch1x1"] = jax.tree.map(np.float32, own)
        expected = np.maximum(expected @ kernel + bias, 0)
        if block.name == "Mixed_6d":
            spatial = expected[:, :7].reshape(2, -1)
    found = inception.inception_activations(weights, jnp.float32(x))
    np.testing.assert_allclose(found[0], expected.reshape(2, 9, 9).mean(1), rtol=1e-4)
    np.testing.assert_allclose(found[1], spatial, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a file of the whole network, and its hash."""
    folder = tmp_path_factory.mktemp("weights")
    data = old_format(random_tensors())
    (folder / inception_weights.FILE).write_bytes(data)
    return folder, hashlib.sha256(data).hexdigest()


def test_the_weights_of_a_file_are_folded(published):
    folder, sha256 = published
    found = inception_weights.load_weights(str(folder), sha256=sha256)
    assert jax.tree.map(lambda leaf: leaf.shape, found) == jax.tree.map(lambda s: s.shape, SHAPES)
    own = {name: t.astype(np.float64) for name, t in random_tensors().items()}
    key = "Mixed_6b.branch7x7_2"
    factor = own[f"{key}.bn.weight"] / np.sqrt(own[f"{key}.bn.running_var"] + 1e-3)
    bias = own[f"{key}.bn.bias"] - own[f"{key}.bn.running_mean"] * factor
    np.testing.assert_allclose(found[key]["bias"], bias, rtol=1e-6)
    kernel = own[f"{key}.conv.weight"][3, 5] * factor[3]
    np.testing.assert_allclose(found[key]["kernel"][:, :, 5, 3], kernel, rtol=1e-6)


def test_the_logits_have_the_files_weights_and_no_bias(monkeypatch):
    tensors = {"fc.bias": np.ones(1008, np.float32)}
    monkeypatch.setattr(inception_weights, "_published", lambda *_: tensors)
    monkeypatch.setattr(inception_weights, "fold", lambda found: found)
    with pytest.raises(ValueError, match="lack fc.weight; expected .1008, 2048"):
        inception_weights.load_network()
    tensors["fc.weight"] = np.arange(2048 * 1008, dtype=np.float32).reshape(2048, 1008)
    with pytest.raises(ValueError, match="have .2048, 1008. for fc.weight"):
        inception_weights.load_network()
    tensors["fc.weight"] = tensors["fc.weight"].T
    network, classifier = inception_weights.load_network()
    np.testing.assert_array_equal(classifier, tensors["fc.weight"].T)
    assert network is tensors


def test_another_file_is_refused_before_it_is_read(published):
    folder, _ = published
    with mock.patch.object(inception_weights, "read_state_dict") as read:
        with pytest.raises(ValueError, match="expected the published Inception weights, 6726825d"):
            inception_weights.load_weights(str(folder))
        read.assert_not_called()


def test_a_file_larger_than_any_published_one_is_not_read(tmp_path):
    path = tmp_path / inception_weights.FILE
    path.write_bytes(b"PK")
    # Sparse: it takes no room.
    os.truncate(path, 3 << 30)
    with pytest.raises(ValueError, match="no published weights: it has 3,221,225,472 bytes"):
        inception_weights.load_weights(str(tmp_path))


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_network_of_another_shape_is_refused(change):
    tensors = random_tensors()
    name = "Mixed_7a.branch3x3_2.conv.weight"
    values = tensors.pop(name)
    if change == "shape":
        tensors[name] = values[:5]
    with pytest.raises(ValueError, match="Mixed_7a.branch3x3_2"):
        inception_weights.fold(tensors)


def test_no_file_says_where_it_was_looked_for_and_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/pt_inception.*--download_weights"):
        inception_weights.find(str(tmp_path))


@pytest.fixture
def served(published):
    """The address of a server with the file."""
    folder, sha256 = published

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", sha256
    server.shutdown()
    server.server_close()


def test_the_file_is_fetched_once(served, tmp_path):
    address, sha256 = served
    url = f"{address}/{inception_weights.FILE}"
    path = inception_weights.download(str(tmp_path / "w"), url=url, sha256=sha256)
    assert [p.name for p in path.parent.iterdir()] == [inception_weights.FILE]
    assert inception_weights.download(str(tmp_path / "w"), url="nowhere", sha256=sha256) == path


@pytest.mark.parametrize(
    ("name", "sha256", "error"),
    [("absent.pth", "x", OSError), (inception_weights.FILE, "0" * 64, ValueError)],
)
def test_a_failed_download_leaves_nothing(served, tmp_path, name, sha256, error):
    with pytest.raises(error, match="absent.pth|expected the published"):
        inception_weights.download(str(tmp_path), url=f"{served[0]}/{name}", sha256=sha256)
    assert list(tmp_path.iterdir()) == []
