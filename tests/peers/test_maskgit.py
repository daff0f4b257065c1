"""MaskGIT's tokenizer out of what Flax writes: its encodings, codes and pixels, and refusals."""

import jax
import maskgit
import numpy as np
import pytest
from flax import traverse_util

from mq_jax.peers.tokenizer import read_peer
from mq_jax.tokenizers.architecture import config_of
from mq_jax.tokenizers.imported import _export_of, import_tokenizer
from mq_jax.training.build import make_autoencoder


def written(folder, changed=lambda tree: tree):
    """Its file, without an ending as the published one is."""
    path = folder / "tokenizer_checkpoint"
    path.write_bytes(maskgit.file_of(changed(maskgit.parameters())))
    return path


def test_encodings_indices_and_pixels_are_those_of_its_description(tmp_path):
    path = written(tmp_path)
    params = jax.tree.map(np.float64, maskgit.parameters())
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    expected = maskgit.encode(params, (np.float64(images) + 1) / 2)
    export = _export_of(read_peer(path), 16)
    module = make_autoencoder(config_of(export.architecture))
    z = jax.jit(lambda theta, x: module.apply({"params": theta}, x, train=False, method="encode"))(
        export.weights.theta, images
    )
    np.testing.assert_allclose(z, expected, atol=1e-5 * np.abs(expected).max())
    tokenizer = import_tokenizer(path, image_size=16)
    indices = tokenizer.encode(images)
    np.testing.assert_array_equal(indices, maskgit.indices_of(params, expected))
    assert len(np.unique(indices)) > 3
    decoded = 2 * maskgit.decode(params, indices) - 1
    pixels = tokenizer.coding.pixels(tokenizer.weights, indices)
    np.testing.assert_allclose(pixels, decoded, atol=1e-5 * np.abs(decoded).max())


def test_the_net_is_that_of_the_shapes_and_every_array_is_used(tmp_path):
    found = read_peer(written(tmp_path), "maskgit")
    assert (found.format, found.size, found.left) == ("maskgit", maskgit.K, 0)
    assert (found.net.channels, found.net.multipliers, found.net.blocks) == (32, (1, 2), 2)
    assert len(found.arrays) == len(maskgit.shapes())
    assert found.usage.unit_pixels and found.usage.image_size == 256


def changed(name, value):
    """The tree with an array in the place of another, or without it."""

    def change(tree):
        flat = traverse_util.flatten_dict(tree, sep="/")
        flat |= {name: value}
        return traverse_util.unflatten_dict(
            {own: array for own, array in flat.items() if array is not None}, sep="/"
        )

    return change


HEAD = "decoder/Conv_2/kernel"
REFUSED = {
    "an array is missing": (
        changed("decoder/ResBlock_3/Conv_1/kernel", None),
        "it lacks decoder.ResB",
    ),
    "an array is unknown": (
        changed("encoder/ResBlock_0/Conv_2/kernel", np.zeros((1, 1, 32, 32), "f4")),
        "no place for encoder.ResBlock_0.Conv_2.kernel",
    ),
    "axes are swapped": (
        changed("decoder/Conv_0/kernel", np.zeros((3, 3, 64, 4), "f4")),
        r"decoder.Conv_0.kernel is \(3, 3, 64, 4\); its net asks for \(3, 3, 4, 64\)",
    ),
    "a number is infinite": (
        changed("encoder/Conv_1/bias", np.full(4, np.inf, "f4")),
        "encoder.Conv_1.bias is not finite",
    ),
    "a level is missing": (changed("decoder/Conv_1/kernel", None), "its decoder has 0 levels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_where(case, tmp_path):
    change, message = REFUSED[case]
    path = written(tmp_path, change)
    with pytest.raises(ValueError, match=f"tokenizer_checkpoint cannot be imported: .*{message}"):
        read_peer(path)


def test_it_is_no_other_format(tmp_path):
    with pytest.raises(ValueError, match="its names are those of maskgit, not of taming"):
        read_peer(written(tmp_path), "taming")


def test_a_truncated_file_is_refused(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be imported: no whole file of Flax's arrays"):
        read_peer(path)
