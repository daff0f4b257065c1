"""Where arrays live: one mesh over all devices, batches split over it, the state replicated."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """A mesh of all devices of all processes with the one axis `data`.

    Returns:
      The mesh. Its axis is Auto: jit places intermediate arrays, and BatchNorm's means over a
      sharded batch are means over all of it.
    """
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: parameters, optimizer states, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Puts this process's rows on its devices, as part of the global batch.

    Args:
      mesh: from make_mesh.
      batch: tree of host arrays [b, ...], b rows of this process.

    Returns:
      The tree with global arrays [B, ...].
    """
    # Copied: JAX would keep what it aliases, such as memory that a worker process shares.
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(split(mesh), np.array(rows)), batch
    )


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of a batch that was made by shard_batch, on the host.

    Args:
      array: [B, ...], rows over `data`.

    Returns:
      [b, ...].
    """
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
