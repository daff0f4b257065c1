"""Which format the names of a file are of, and what net the shapes of its arrays make."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from mq_jax.peers import maskgit
from mq_jax.peers.names import (
    DIFFUSERS,
    FORMATS,
    OLD_DIFFUSERS,
    Names,
    Tensor,
    level_name,
    tensors,
)
from mq_jax.peers.net import Net

# Before the names of a tokenizer in a file that has other networks, too.
PREFIXES = (
    *("", "first_stage_model.", "gen_vision_model.", "model.vqmodel.", "vqmodel.", "module."),
    "params.",
)

_CODEBOOK = "quantize.embedding.weight"
_TOLD = ", ".join((*FORMATS, maskgit.FORMAT))

# IBQ has the names of taming's nets, of which none was published with as many blocks a level.
_BLOCKS_OF_IBQ = 4


class Recognised(NamedTuple):
    """What a file is of.

    Attributes:
      format: one of usage.USAGE.
      prefix: before each name in the file.
      net: which the shapes make.
      size: K.
      tensors: all arrays of it, under the names of that format or of its older version.
    """

    format: str
    prefix: str
    net: Net
    size: int
    tensors: list[Tensor]


def recognised(shapes: Mapping[str, tuple[int, ...]], wanted: str = "") -> Recognised:
    """The format and the net of a file.

    Args:
      shapes: of its arrays, by their names in the file.
      wanted: the format that it is said to be of, one of usage.USAGE; "": to be found.

    Returns:
      A Recognised.

    Raises:
      ValueError: it is of none, of another one than was said, of one of two that cannot be told
        apart, or its shapes make no net.
    """
    prefix, table = _place(shapes)
    own = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
    size = _axes(own, table, 2)[0]
    if table == maskgit.CODEBOOK:
        _require_wanted(wanted, [maskgit.FORMAT])
        net = maskgit.net_of_shapes(own)
        return Recognised(maskgit.FORMAT, prefix, net, size, maskgit.maskgit_tensors(net))
    found = [name for name, names in FORMATS.items() if _has_names(own, names)]
    if not found:
        raise ValueError(f"its names are of no known format; expected one of {_TOLD}")
    _require_wanted(wanted, found)
    names = FORMATS[found[0]]
    if names is DIFFUSERS and not any(".to_q." in name for name in own):
        names = OLD_DIFFUSERS if any(".query." in name for name in own) else DIFFUSERS
    net = _net(own, names)
    if not wanted and "ibq" in found and net.blocks == _BLOCKS_OF_IBQ:
        raise ValueError(
            "taming and ibq have the same names, and by its blocks, 4 a level, it may be either: "
            "say --format=ibq, whose codes are the largest product, or --format=taming, the "
            "smallest distance"
        )
    return Recognised(wanted or found[0], prefix, net, size, tensors(net, names))


def _place(shapes):
    """The name of the codebook, in two parts, of which the first is before all others, too."""
    places = ((prefix, table) for prefix in PREFIXES for table in (_CODEBOOK, maskgit.CODEBOOK))
    found = next((place for place in places if "".join(place) in shapes), None)
    if found is None and any(name.startswith("theta/") for name in shapes):
        raise ValueError("it is an export of ours: config.init_from takes its folder")
    if found is None:
        first = ", ".join(sorted(shapes)[:3]) or "none at all"
        raise ValueError(
            f"it has no array {_CODEBOOK}, nor {maskgit.CODEBOOK}, of which the formats {_TOLD} "
            f"have one; its first are {first}"
        )
    return found


def _require_wanted(wanted, found):
    """Raises where a file is of another format than was said."""
    if wanted and wanted not in found:
        raise ValueError(f"its names are those of {' and '.join(found)}, not of {wanted}")


def _has_names(shapes: Collection[str], names: Names) -> bool:
    """Whether the first layers of either half have a format's names."""
    levels = _count(shapes, names)
    if not levels:
        return False
    # The decoder counts its levels from either end: the lowest resolution has a resampling.
    resampling = level_name(names.resample["decoder"], levels, levels - 1)
    return levels == 1 or f"{resampling}.weight" in shapes


def _count(shapes, names):
    level = 0
    while _block(names, level) in shapes:
        level += 1
    return level


def _block(names, level, i=0, layer="conv1"):
    return f"{names.block['encoder'].format(level=level, i=i)}.{layer}.weight"


def _net(shapes: Mapping[str, tuple[int, ...]], names: Names) -> Net:
    """The net that shapes make, as far as single arrays tell it."""
    levels = _count(shapes, names)
    channels = _axes(shapes, "encoder.conv_in.weight", 4)[0]
    widths = [_axes(shapes, _block(names, level), 4)[0] for level in range(levels)]
    if any(width % channels for width in widths):
        raise ValueError(
            f"its levels are {widths} wide, and its first layer {channels}; expected multiples"
        )
    blocks = 0
    while _block(names, 0, blocks) in shapes:
        blocks += 1
    norm, query, *_ = names.projections
    attention = names.attention["encoder"]
    attending = [
        level
        for level in range(levels)
        if f"{attention.format(level=level, i=0)}.{norm}.weight" in shapes
    ]
    dim, z_channels, *_ = _axes(shapes, "quant_conv.weight", 4)
    return Net(
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        blocks=blocks,
        attention=tuple(attending),
        middle_attention=f"encoder.{names.middle[1]}.{query}.weight" in shapes,
        z_channels=z_channels,
        dim=dim,
    )


def _axes(shapes, name, count):
    """The shape of an array that there must be."""
    if name not in shapes:
        raise ValueError(f"it has no array {name}")
    if len(shapes[name]) != count or min(shapes[name]) < 1:
        raise ValueError(f"{name} is {shapes[name]}; expected {count} axes")
    return shapes[name]
