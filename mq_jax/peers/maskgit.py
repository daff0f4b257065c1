"""MaskGIT's tokenizer as Flax numbers its layers: by class, in the order of their calls.

Its arrays have our order of axes, since its program is of Flax as ours is.
"""

from collections.abc import Iterator, Mapping

from mq_jax.peers.names import Tensor
from mq_jax.peers.net import Net

FORMAT = "maskgit"
CODEBOOK = "quantizer.codebook"


def net_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Net:
    """The net that shapes make, as far as single arrays tell it.

    Args:
      shapes: by the names of the format.

    Returns:
      A Net, without attention; its z_channels say nothing.

    Raises:
      ValueError: they are those of no such net.
    """
    # A convolution before the levels, one between two, and one behind them.
    levels = _count(shapes, "decoder.Conv_{}.kernel") - 1
    blocks = _count(shapes, "encoder.ResBlock_{}.Conv_0.kernel")
    if levels < 1 or not blocks or blocks % (levels + 1):
        raise ValueError(
            f"its decoder has {levels} levels and its encoder {blocks} residual blocks; expected "
            "as many behind the levels as in each of them"
        )
    blocks //= levels + 1
    channels = _width(shapes, "encoder.Conv_0.kernel")
    firsts = (f"encoder.ResBlock_{level * blocks}.Conv_0.kernel" for level in range(levels))
    widths = [_width(shapes, name) for name in firsts]
    if any(width % channels for width in widths):
        raise ValueError(
            f"its levels are {widths} wide, and its first layer {channels}; expected multiples"
        )
    dim = _width(shapes, "encoder.Conv_1.kernel")
    multipliers = tuple(width // channels for width in widths)
    return Net(channels, multipliers, blocks, (), middle_attention=False, z_channels=dim, dim=dim)


def maskgit_tensors(net: Net) -> list[Tensor]:
    """All arrays of a net and its codebook.

    Args:
      net: from net_of_shapes.

    Returns:
      Tensors, no name twice.
    """
    found = [Tensor(CODEBOOK, "codebook", "table"), _kernel("encoder.Conv_0", "encoder/Conv_0")]
    between = {
        f"decoder.Conv_{i + 1}": f"decoder/NearestUpsample_{i}" for i in range(net.levels - 1)
    }
    biased = {"encoder.Conv_1": "encoder/Conv_1", "decoder.Conv_0": "decoder/Conv_0"}
    for theirs, ours in (biased | between | {f"decoder.Conv_{net.levels}": "decoder/head"}).items():
        bias = Tensor(f"{theirs}.bias", f"theta/{ours}/bias", "vector")
        found += [_kernel(theirs, ours), bias]
    for half in ("encoder", "decoder"):
        found += _norm(f"{half}.GroupNorm_0", f"{half}/GroupNorm_0")
        for number, (ours, widens) in enumerate(_blocks(net, half)):
            theirs = f"{half}.ResBlock_{number}"
            for i in range(2):
                found += _norm(f"{theirs}.GroupNorm_{i}", f"{ours}/GroupNorm_{i}")
                found += [_kernel(f"{theirs}.Conv_{i}", f"{ours}/Conv_{i}")]
            found += [_kernel(f"{theirs}.Conv_2", f"{ours}/shortcut")] if widens else []
    return found


def _blocks(net: Net, half: str) -> Iterator[tuple[str, bool]]:
    """Our place of each block, in the order of the calls, and whether it changes the width."""
    stacks = [(f"level_{level}", width) for level, width in enumerate(net.widths)]
    stacks += [("middle", net.widths[-1])]
    width = net.channels if half == "encoder" else net.widths[-1]
    for stack, features in stacks if half == "encoder" else reversed(stacks):
        for i in range(net.blocks):
            yield f"{half}/{stack}/MaskGITBlock_{i}", width != features
            width = features


def _kernel(theirs, ours):
    return Tensor(f"{theirs}.kernel", f"theta/{ours}/kernel", "kernel")


def _norm(theirs, ours):
    return [
        Tensor(f"{theirs}.{name}", f"theta/{ours}/{name}", "vector") for name in ("scale", "bias")
    ]


def _count(shapes, template):
    number = 0
    while template.format(number) in shapes:
        number += 1
    return number


def _width(shapes, name):
    """Channels that a convolution makes."""
    if name not in shapes:
        raise ValueError(f"it has no array {name}")
    if len(shapes[name]) != 4 or min(shapes[name]) < 1:
        raise ValueError(f"{name} is {shapes[name]}; expected 4 axes")
    return shapes[name][-1]
