"""The discriminator of taming's checkpoints: the logits that it gives, and where it is found."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from peer_files import write_peer
from peer_tokenizers import discriminator

from mq_jax.models.discriminator import Discriminator
from mq_jax.peers.discriminator import patches_of
from mq_jax.peers.tokenizer import read_peer


def test_its_logits_are_tamings(tmp_path):
    weights, images, logits = discriminator()
    found = read_peer(write_peer(tmp_path, "taming", lambda tensors: tensors | weights))
    assert found.patches == (8, 3)
    psi = traverse_util.unflatten_dict(found.arrays, sep="/")["psi"]
    module = Discriminator(**found.patches._asdict(), norm="batch", dtype=jnp.float32)
    given = jax.jit(module.apply)({"params": psi}, images)
    np.testing.assert_allclose(given, logits, atol=1e-5 * np.abs(logits).max())
    # Running means and variances of its three normalised layers.
    assert found.left == 6


def test_one_of_other_layers_is_none_that_can_be_taken():
    shapes = {name: array.shape for name, array in discriminator()[0].items()}
    assert patches_of(shapes, "") == (8, 3)
    logits = "loss.discriminator.main.11.weight"
    assert patches_of({n: s for n, s in shapes.items() if n != logits}, "") is None
    assert patches_of({}, "") is None
