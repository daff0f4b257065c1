"""A tokenizer out of the files of others: each of its arrays used once, under our names."""

import hashlib
import pathlib
import pickle
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mq_jax.models import maskgit, vqgan
from mq_jax.peers import layouts
from mq_jax.peers.discriminator import Patches, patch_shapes, patch_tensors, patches_of
from mq_jax.peers.maskgit import FORMAT as MASKGIT
from mq_jax.peers.names import Tensor
from mq_jax.peers.net import Net
from mq_jax.peers.opening import located, opened, parts
from mq_jax.peers.recognition import Recognised, recognised
from mq_jax.peers.usage import USAGE, Usage, groups_of, require_plain
from mq_jax.tensorfiles.arrays import Arrays

# What a training's file has beside the tokenizer: its losses' networks, a count of codes' use.
_BESIDE = ("loss.", "quantize.codebook_used")

# Lightning's moving averages: names without their dots, behind this.
_AVERAGES = "model_ema."
_OF_AVERAGES = ("decay", "num_updates")

# In an error; the rest is counted.
_SHOWN = 5


class PeerTokenizer(NamedTuple):
    """What files of others say.

    Attributes:
      format: one of usage.USAGE.
      net: without what its arrays cannot tell.
      size: K.
      groups: of GroupNorm.
      usage: how its images are made and its codes found.
      arrays: f32 by our names, those of an export, and of the discriminator psi/...; moving
        averages where the file has them and evaluates with them.
      files: sha256 by name.
      patches: of the discriminator that it was trained against; None without.
      left: how many arrays of the file are of other networks or of its training.
    """

    format: str
    net: Net
    size: int
    groups: int
    usage: Usage
    arrays: dict[str, np.ndarray]
    files: dict[str, str]
    patches: Patches | None
    left: int


def read_peer(path: pathlib.Path, format: str = "") -> PeerTokenizer:
    """Reads a tokenizer of others; runs nothing of its files.

    Args:
      path: of a file, or of the folder of a model.
      format: one of usage.USAGE; "": as its names say.

    Returns:
      A PeerTokenizer.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, of no known format, or its arrays are not those of a net: says
        which are missing, left over or of another shape.
    """
    file, config = located(path)
    try:
        with opened(file) as arrays:
            found = recognised(arrays.shapes, format)
            require_plain(found.format, config)
            groups = groups_of(found.format, config)
            read, patches, left = _arrays(arrays, found, groups)
    except (ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} cannot be imported: {str(error).rstrip('.')}.") from error
    usage = USAGE[found.format]
    files = {part.name: _sha256(part) for part in parts(file)}
    made = found.format, found.net, found.size, groups, usage(found.net)
    return PeerTokenizer(*made, read, files, patches, left)


def _arrays(
    arrays: Arrays, found: Recognised, groups: int
) -> tuple[dict[str, np.ndarray], Patches | None, int]:
    """The arrays by our names, what discriminator is among them, and how many others there are."""
    net = found.tensors
    sources = _sources(net, arrays.shapes, found.prefix)
    shapes = _our_shapes(found, groups)
    patches = patches_of(arrays.shapes, found.prefix)
    psi = [] if patches is None else patch_tensors(patches)
    if patches is not None:
        sources |= {tensor.theirs: tensor.theirs for tensor in psi}
        shapes |= patch_shapes(patches)
    places = {tensor: found.prefix + sources[tensor.theirs] for tensor in (*net, *psi)}
    for tensor, place in places.items():
        if place not in arrays.shapes:
            raise ValueError(f"it lacks {place}")
        _require_shape(tensor, arrays.shapes[place], shapes)
    read = arrays.read(list(places.values()))
    ours = {tensor.ours: _numbers(read[place], tensor) for tensor, place in places.items()}
    return ours, patches, len(arrays.shapes) - len(places)


def _sources(net: Sequence[Tensor], names: Collection[str], prefix: str) -> dict[str, str]:
    """The name in the file of each array of the net, by its usual one: averages where there are."""
    short = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    sources = {tensor.theirs: tensor.theirs for tensor in net}
    averages = {name for name in short if name.startswith(_AVERAGES)}
    beside = {name for name in short if name.startswith(_BESIDE)}
    _require_each_once(sources, short - beside - averages)
    if not averages:
        return sources
    sources = {name: _AVERAGES + name.replace(".", "") for name in sources}
    # Of the loss's networks there are averages, too, which nobody uses.
    unused = {name for name in averages if name.startswith(_AVERAGES + "loss")}
    _require_each_once(sources, averages - unused - {_AVERAGES + name for name in _OF_AVERAGES})
    return sources


def _require_each_once(sources: Mapping[str, str], there: Collection[str]) -> None:
    """Raises unless the arrays that are there are those that are needed."""
    missing = sorted(set(sources.values()) - set(there))
    if missing:
        raise ValueError(f"it lacks {_listed(missing)}")
    over = sorted(set(there) - set(sources.values()))
    if over:
        raise ValueError(f"the net that its arrays make has no place for {_listed(over)}")


def _listed(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _our_shapes(found: Recognised, groups: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the module's parameters and of the codebook, by our names."""
    net = found.net
    fields = {"groups": groups, "layer_norm": False, "init_std": 0.0, "remat": False}
    fields |= {"dtype": jnp.float32}
    if found.format == MASKGIT:
        own = {name: getattr(net, name) for name in ("channels", "multipliers", "blocks", "dim")}
        module = maskgit.AutoEncoder(**own, **fields)
    else:
        module = vqgan.AutoEncoder(**net._asdict(), **fields)
    side = module.downsampling
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    key = jax.random.key(0)
    made = jax.eval_shape(lambda x: module.init(key, x, train=False), images)["params"]
    leaves = jax.tree_util.tree_leaves_with_path({"theta": made})
    shapes = {"/".join(part.key for part in place): leaf.shape for place, leaf in leaves}
    return shapes | {"codebook": (found.size, net.dim)}


def _require_shape(tensor: Tensor, found: tuple[int, ...], shapes: Mapping[str, Any]) -> None:
    """Raises unless an array has the shape that its place in the net asks for."""
    expected = layouts.theirs(np.broadcast_to(0, shapes[tensor.ours]), tensor.layout).shape
    if found != expected:
        raise ValueError(f"{tensor.theirs} is {found}; its net asks for {expected}")


def _numbers(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """An array in float32 and in our layout."""
    numbers = np.ascontiguousarray(layouts.ours(array, tensor.layout), np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{tensor.theirs} is not finite")
    return numbers


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
