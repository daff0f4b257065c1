"""A tokenizer of others in use, straight from its files."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from mq_jax.devices.places import local_path
from mq_jax.peers.fields import fields_of
from mq_jax.peers.tokenizer import PeerTokenizer, read_peer
from mq_jax.runs.earlier import completed
from mq_jax.tokenizers.architecture import architecture_of, quantizer_of
from mq_jax.tokenizers.coding import Weights
from mq_jax.tokenizers.export import Export, fingerprint, named
from mq_jax.tokenizers.tokenizer import Tokenizer

# Codewords compared at a time; of no effect on what is found.
_LOOKUP_CHUNK = 4096


def import_tokenizer(
    path: str | os.PathLike, format: str = "", *, image_size: int = 0
) -> Tokenizer:
    """Loads a tokenizer that others have trained; runs no code of its files.

    Args:
      path: a VQGAN of taming-transformers or latent-diffusion, an IBQ (.ckpt), a LlamaGen (.pt),
        the folder of a VQModel of `diffusers` or of a JanusVQVAE of `transformers`, MaskGIT's
        tokenizer as Flax writes it.
      format: taming, ibq, llamagen, janus, diffusers or maskgit; "": as the names of its arrays
        say.
      image_size: side of the images that `preparation` makes, pixels; 0: as published.

    Returns:
      A Tokenizer.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or no tokenizer of these formats; says what is wrong.
    """
    return Tokenizer(_export_of(read_peer(local_path(path, "The tokenizer"), format), image_size))


def parameters_of(peer: PeerTokenizer) -> tuple[dict, dict]:
    """Its arrays as a training has them.

    Args:
      peer: from read_peer.

    Returns:
      (theta, phi).
    """
    nested = traverse_util.unflatten_dict(peer.arrays, sep="/")
    return nested["theta"], {"embedding": nested["codebook"]}


def psi_of(peer: PeerTokenizer) -> dict:
    """The parameters of its discriminator, which it has."""
    return traverse_util.unflatten_dict(peer.arrays, sep="/")["psi"]


def _export_of(peer: PeerTokenizer, image_size: int) -> Export:
    """As if it had been exported."""
    sections = fields_of(peer, image_size)
    # Of a training alone.
    del sections["discriminator"]
    sections["codebook"]["lookup_chunk"] = _LOOKUP_CHUNK
    config = ConfigDict(completed(sections))
    architecture = architecture_of(config)
    theta, phi = parameters_of(peer)
    quantizer = quantizer_of(architecture)
    _, state = jax.eval_shape(quantizer.init, jax.random.key(0))
    folded = jax.jit(quantizer.fold)(jax.tree.map(jnp.asarray, phi), state)
    weights = Weights(theta, {}, jax.tree.map(np.asarray, folded))
    preparation = {n: config.data[n] for n in ("image_size", "crop", "resize", "filter")}
    return Export(architecture, preparation, weights, fingerprint(architecture, named(weights)))
