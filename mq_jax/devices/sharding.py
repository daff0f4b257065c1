"""Where arrays live: one mesh over all devices, batches split over it, large arrays shared out.

The axes are `data`, over which only batches are split, and `fsdp`, over which large parameters,
their moments and their averages are split too (fully sharded data parallelism).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")


def mesh_shape(data: int, fsdp: int, devices: int) -> tuple[int, int]:
    """The two sides of the mesh.

    Args:
      data: groups of devices; 0 for as many as the devices make.
      fsdp: devices of a group, at least 1.
      devices: in all.

    Returns:
      (data, fsdp), whose product is `devices`.

    Raises:
      ValueError: there are no such sides.
    """
    groups = data or devices // fsdp
    if groups * fsdp != devices:
        raise ValueError(
            f"config.mesh.data is {data} and config.mesh.fsdp {fsdp} on {devices} device(s); "
            "expected data * fsdp to be their number, or data 0 and fsdp a divisor of it."
        )
    return groups, fsdp


def make_mesh(data: int = 0, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a run, over all devices of all processes.

    Args:
      data: as mesh_shape's.
      fsdp: as mesh_shape's.
      devices: the devices to use; None for all.

    Returns:
      The mesh. Its axes are Auto: jit places intermediate arrays, and BatchNorm's means over a
      sharded batch are means over all of it.

    Raises:
      ValueError: as mesh_shape's.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(data, fsdp, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def shardings(tree: Any, mesh: Mesh, shard_from: int) -> Any:
    """Where everything that a run carries from step to step lives.

    A batch, of a field called `images`, is split as batches are, and so is what a pass over one
    left, of a field called `residuals`, where it has rows. For all else there is one rule.

    A matrix or kernel with at least `shard_from` numbers is split over `fsdp` along its largest
    axis that fsdp divides, of equal ones the last. All else is replicated: scalars, random keys,
    and vectors, which are biases, statistics of BatchNorm and code histograms. Moments and
    averages have the shapes of their parameters, and so live where these do.

    Args:
      tree: of arrays or their descriptions.
      mesh: from make_mesh.
      shard_from: see above.

    Returns:
      A tree of NamedShardings like `tree`.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(path, leaf, mesh, shard_from)), tree
    )


def _spec(path, leaf, mesh, shard_from):
    """How one array is split."""
    if {"images", "residuals"} & {getattr(key, "name", "") for key in path}:
        # Of a run that this machine has not the devices to go on with, a batch is only read.
        has_rows = leaf.ndim and leaf.shape[0] % mesh.size == 0
        return PartitionSpec(AXES) if has_rows else PartitionSpec()
    devices = mesh.shape["fsdp"]
    divisible = [axis for axis, side in enumerate(leaf.shape) if side % devices == 0]
    if devices == 1 or leaf.ndim < 2 or leaf.size < shard_from or not divisible:
        return PartitionSpec()
    axis = max(divisible, key=lambda axis: (leaf.shape[axis], axis))
    return PartitionSpec(*(None,) * axis, "fsdp")


def placed(tree: Any, mesh: Mesh, shard_from: int) -> Any:
    """Describes arrays together with where they live.

    Args:
      tree: of arrays or their descriptions.
      mesh: from make_mesh.
      shard_from: as shardings's.

    Returns:
      The tree with ShapeDtypeStructs that have shardings.
    """
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        tree,
        shardings(tree, mesh, shard_from),
    )


def whole(tree: Any, mesh: Mesh) -> Any:
    """Describes arrays that every device holds whole.

    Args:
      tree: of arrays or their descriptions.
      mesh: from make_mesh.

    Returns:
      The tree with ShapeDtypeStructs that have shardings.
    """
    everywhere = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree
    )


class Holding(NamedTuple):
    """What one part of a tree takes.

    Attributes:
      name: of the part, `params/autoencoder` say.
      arrays: their number.
      sharded: how many of them are split.
      axes: names of the mesh's axes over which any is.
      elements: numbers in all arrays.
      size: bytes of all arrays.
      per_device: bytes that one device holds of them.
    """

    name: str
    arrays: int
    sharded: int
    axes: tuple[str, ...]
    elements: int
    size: int
    per_device: int

    def cells(self) -> list[str]:
        """The row of a table with the columns HOLDING_COLUMNS."""
        split_ones = f"{self.sharded} over {', '.join(self.axes)}" if self.sharded else "none"
        sizes = [f"{count / 2**20:,.2f}" for count in (self.size, self.per_device)]
        return [self.name, str(self.arrays), f"{self.elements:,}", *sizes, split_ones]


HOLDING_COLUMNS = ("part", "arrays", "numbers", "MiB", "MiB per device", "split")


def holdings(tree: Any) -> list[Holding]:
    """What every part takes, and what one device holds of it.

    Args:
      tree: of arrays or their descriptions, with NamedShardings.

    Returns:
      A Holding for each part, in order; fields that are named tuples count field by field.
    """
    parts: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        # Only the fields of dataclasses and named tuples, not the modules in dictionaries.
        fields = [key for key in path[:2] if isinstance(key, jax.tree_util.GetAttrKey)]
        name = jax.tree_util.keystr(tuple(fields) or path[:1], simple=True, separator="/")
        parts.setdefault(name, []).append(leaf)
    return [_holding(name, leaves) for name, leaves in parts.items()]


def total(parts: Sequence[Holding]) -> Holding:
    """The sum of several holdings.

    Args:
      parts: from holdings.

    Returns:
      A Holding with the name `all`.
    """
    axes = tuple(axis for axis in AXES if any(axis in part.axes for part in parts))
    counts = ("arrays", "sharded", "elements", "size", "per_device")
    sums = {name: sum(getattr(part, name) for part in parts) for name in counts}
    return Holding(name="all", axes=axes, **sums)


def _holding(name, leaves):
    """One part's row."""
    axes = [_axes_of(leaf.sharding.spec) for leaf in leaves]
    local = [
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * _item_size(leaf) for leaf in leaves
    ]
    return Holding(
        name,
        arrays=len(leaves),
        sharded=sum(map(bool, axes)),
        axes=tuple(axis for axis in AXES if any(axis in used for used in axes)),
        elements=sum(leaf.size for leaf in leaves),
        size=sum(leaf.size * _item_size(leaf) for leaf in leaves),
        per_device=sum(local),
    )


def _axes_of(spec):
    """Names of the mesh axes that a specification uses."""
    return {axis for entry in spec if entry for axis in np.atleast_1d(entry).tolist()}


def _item_size(leaf):
    """Bytes of one element; a random key has several words."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), leaf.dtype))
        return words.size * words.dtype.itemsize
    return leaf.dtype.itemsize


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
      array: [B, ...], rows over all devices.

    Returns:
      [b, ...].
    """
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
