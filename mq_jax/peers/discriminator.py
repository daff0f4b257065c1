"""The discriminator in a checkpoint of taming's training: PatchGAN's, as ours is."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mq_jax.models.discriminator import Discriminator, smallest_side
from mq_jax.peers.names import Tensor

_MAIN = "loss.discriminator.main"


class Patches(NamedTuple):
    """What decides which arrays it has.

    Attributes:
      channels: width of the first layer.
      layers: strided convolutions.
    """

    channels: int
    layers: int


def patches_of(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> Patches | None:
    """The discriminator of a file.

    Args:
      shapes: of its arrays, by their names in the file.
      prefix: before each name of the tokenizer.

    Returns:
      None where it has none, or one of other layers.
    """
    # Normalised are all layers but the first and the last: as many as have a stride.
    layers = 0
    while f"{prefix}{_MAIN}.{3 * layers + 3}.running_mean" in shapes:
        layers += 1
    first, logits = (shapes.get(f"{prefix}{_MAIN}.{n}.weight") for n in (0, 3 * layers + 2))
    if layers < 1 or first is None or logits is None:
        return None
    return Patches(first[0], layers)


def patch_tensors(patches: Patches) -> list[Tensor]:
    """Its arrays: of BatchNorm without running statistics, which no discriminator uses.

    Args:
      patches: whose.

    Returns:
      Tensors; ours begin with "psi".
    """
    last = patches.layers + 1
    found = []
    for i in range(last + 1):
        conv = f"{_MAIN}.{3 * i - 1 if i else 0}"
        found.append(Tensor(f"{conv}.weight", f"psi/Conv_{i}/kernel", "conv"))
        if i in (0, last):
            found.append(Tensor(f"{conv}.bias", f"psi/Conv_{i}/bias", "vector"))
        else:
            norm, ours = f"{_MAIN}.{3 * i}", f"psi/GroupNorm_{i - 1}"
            found.append(Tensor(f"{norm}.weight", f"{ours}/scale", "vector"))
            found.append(Tensor(f"{norm}.bias", f"{ours}/bias", "vector"))
    return found


def patch_shapes(patches: Patches) -> dict[str, tuple[int, ...]]:
    """The shapes of our module's parameters, by our names."""
    module = Discriminator(**patches._asdict(), norm="batch", dtype=jnp.float32)
    side = smallest_side(patches.layers)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), images)["params"]
    leaves = jax.tree_util.tree_leaves_with_path({"psi": made})
    return {"/".join(part.key for part in place): leaf.shape for place, leaf in leaves}
