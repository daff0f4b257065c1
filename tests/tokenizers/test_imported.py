"""Tokenizers of peers, from the files that they come in: what the peers themselves make of images.

tests/fixtures/make_peer_tokenizers.py has run them.
"""

import jax
import numpy as np
import pytest
from peer_files import write_peer
from peer_tokenizers import peer

from mq_jax.peers.tokenizer import read_peer
from mq_jax.tokenizers.architecture import config_of
from mq_jax.tokenizers.imported import _export_of, import_tokenizer
from mq_jax.training.build import make_autoencoder

# The slow ones share names or a lookup with one that is not.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ibq", "janus", "diffusers")]
PEERS = ["taming", "llamagen", "amused", *SLOW]
FORMATS = {"ibq": "ibq"}


@pytest.mark.parametrize("name", PEERS)
def test_encodings_indices_and_pixels_are_the_peers(name, tmp_path):
    path, own = write_peer(tmp_path, name), peer(name)
    export = _export_of(read_peer(path, FORMATS.get(name, "")), 16)
    module = make_autoencoder(config_of(export.architecture))
    z = jax.jit(lambda theta, x: module.apply({"params": theta}, x, train=False, method="encode"))(
        export.weights.theta, own.images
    )
    np.testing.assert_allclose(z, own.z, atol=1e-5 * np.abs(own.z).max())
    tokenizer = import_tokenizer(path, FORMATS.get(name, ""), image_size=16)
    indices = tokenizer.encode(own.images)
    np.testing.assert_array_equal(indices, own.indices)
    assert len(np.unique(indices)) > 3
    pixels = tokenizer.coding.pixels(tokenizer.weights, own.indices)
    np.testing.assert_allclose(pixels, own.decoded, atol=1e-5 * np.abs(own.decoded).max())
