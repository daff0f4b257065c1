"""Lookup on a mesh: every device compares its own rows, with all codewords or with a share."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mq_jax.devices.sharding import AXES, replicated
from mq_jax.quantizers.nearest import Lookup, as_constants, lowest_scores, nearest_codeword


@functools.cache
def make_lookup(mesh: Mesh, *, chunk: int, sharded: bool) -> Lookup:
    """A lookup in a codebook, for use inside jit; the same function for the same arguments.

    Sharded, the K codewords are split over `fsdp`: a device takes the rows of its group, finds
    the lowest score of each among its K / fsdp codewords, sends each row's back to its owner,
    and keeps the lowest of what it is sent. No device holds the codebook, nor more than a chunk
    of the group's rows times its codewords.

    Args:
      mesh: from sharding.make_mesh.
      chunk: as nearest_codeword's, of the codewords that a device compares.
      sharded: whether to split the codewords.

    Returns:
      (z f[..., D], codebook f[K, D]) -> indices i32[...] in [0, K), without a gradient; ties go
      to the lowest index. Raises ValueError, when traced, where they disagree on D or, sharded,
      where fsdp does not divide K.
    """
    if not sharded:
        return _make_whole(mesh, chunk)
    rows, codewords = PartitionSpec(AXES), PartitionSpec("fsdp")
    search = jax.shard_map(
        functools.partial(_search, chunk=chunk),
        mesh=mesh,
        in_specs=(rows, codewords),
        out_specs=rows,
        # The checker takes the scan's initial minimum for equal on all devices.
        check_vma=False,
    )

    def lookup(z, codebook):
        z, codebook = as_constants(z, codebook)
        if len(codebook) % mesh.shape["fsdp"]:
            raise ValueError(
                f"The codebook has {len(codebook)} codewords; expected a multiple of "
                f"config.mesh.fsdp, {mesh.shape['fsdp']}, or config.codebook.shard_lookup False."
            )
        flat = z.reshape(-1, z.shape[-1])
        padded = jnp.pad(flat, ((0, -len(flat) % mesh.size), (0, 0)))
        return search(padded, codebook)[: len(flat)].reshape(z.shape[:-1])

    return lookup


def _make_whole(mesh, chunk):
    """The lookup of a device's rows among all codewords."""

    def lookup(z, codebook):
        z, codebook = as_constants(z, codebook)
        # Gathered once: XLA else gathers it for the scores, for the norms and for the blocks.
        codebook = jax.lax.with_sharding_constraint(codebook, replicated(mesh))
        return nearest_codeword(z, codebook, chunk=chunk)

    return lookup


def _search(z, codewords, *, chunk):
    """One device's share: its rows f32[n, D] and K / fsdp codewords to its indices i32[n]."""
    group = jax.lax.all_gather(z, "fsdp", tiled=True)
    scores, indices = lowest_scores(group, codewords, chunk=chunk)
    indices += jax.lax.axis_index("fsdp") * len(codewords)
    # From every row and my codewords to my rows and every device's codewords, in their order.
    scores, indices = (
        jax.lax.all_to_all(found.reshape(-1, len(z)), "fsdp", split_axis=0, concat_axis=0)
        for found in (scores, indices)
    )
    # argmin takes the first of equals: the device with the lower indices.
    best = jnp.argmin(scores, axis=0)
    return jnp.take_along_axis(indices, best[None], axis=0)[0]
