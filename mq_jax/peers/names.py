"""What each format calls the layers of VQGAN's net, beside what we call them."""

from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.peers.net import Net


class Names(NamedTuple):
    """The names that a format gives to layers, by our half of the net where these differ.

    A layer of a level has `{level}`, 0 at full resolution, or `{coarse}`, 0 at the lowest one, and
    `{i}`, its number in the level.

    Attributes:
      block: a residual block of a level, by half.
      attention: that which follows a residual block, by half.
      resample: the convolution between two levels, by half: of the encoder that behind a level,
        of the decoder likewise.
      middle: the residual block, the attention and the residual block at the lowest resolution.
      norm_out: the normalisation before the last layer.
      shortcut: the 1x1 convolution of a residual block whose widths differ.
      projections: of attention: norm, query, key, value and out.
      projection: layout of the last four, "conv" or "dense".
    """

    block: dict[str, str]
    attention: dict[str, str]
    resample: dict[str, str]
    middle: tuple[str, str, str]
    norm_out: str
    shortcut: str
    projections: tuple[str, str, str, str, str]
    projection: str


TAMING = Names(
    block={
        "encoder": "encoder.down.{level}.block.{i}",
        "decoder": "decoder.up.{level}.block.{i}",
    },
    attention={
        "encoder": "encoder.down.{level}.attn.{i}",
        "decoder": "decoder.up.{level}.attn.{i}",
    },
    resample={
        "encoder": "encoder.down.{level}.downsample.conv",
        "decoder": "decoder.up.{level}.upsample.conv",
    },
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    norm_out="norm_out",
    shortcut="nin_shortcut",
    projections=("norm", "q", "k", "v", "proj_out"),
    projection="conv",
)

LLAMAGEN = TAMING._replace(
    block={
        "encoder": "encoder.conv_blocks.{level}.res.{i}",
        "decoder": "decoder.conv_blocks.{coarse}.res.{i}",
    },
    attention={
        "encoder": "encoder.conv_blocks.{level}.attn.{i}",
        "decoder": "decoder.conv_blocks.{coarse}.attn.{i}",
    },
    resample={
        "encoder": "encoder.conv_blocks.{level}.downsample.conv",
        "decoder": "decoder.conv_blocks.{coarse}.upsample.conv",
    },
    middle=("mid.0", "mid.1", "mid.2"),
)

# LlamaGen's net in `transformers`: taming's names, yet the decoder's levels in LlamaGen's order.
JANUS = TAMING._replace(
    block={**TAMING.block, "decoder": "decoder.up.{coarse}.block.{i}"},
    attention={**TAMING.attention, "decoder": "decoder.up.{coarse}.attn.{i}"},
    resample={**TAMING.resample, "decoder": "decoder.up.{coarse}.upsample.conv"},
)

DIFFUSERS = Names(
    block={
        "encoder": "encoder.down_blocks.{level}.resnets.{i}",
        "decoder": "decoder.up_blocks.{coarse}.resnets.{i}",
    },
    attention={
        "encoder": "encoder.down_blocks.{level}.attentions.{i}",
        "decoder": "decoder.up_blocks.{coarse}.attentions.{i}",
    },
    resample={
        "encoder": "encoder.down_blocks.{level}.downsamplers.0.conv",
        "decoder": "decoder.up_blocks.{coarse}.upsamplers.0.conv",
    },
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm_out="conv_norm_out",
    shortcut="conv_shortcut",
    projections=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    projection="dense",
)

# Of before the attention of `diffusers` had a module of its own.
OLD_DIFFUSERS = DIFFUSERS._replace(projections=("group_norm", "query", "key", "value", "proj_attn"))

# IBQ's net is taming's; its codes are not found by the distance.
FORMATS = {
    "taming": TAMING,
    "ibq": TAMING,
    "llamagen": LLAMAGEN,
    "janus": JANUS,
    "diffusers": DIFFUSERS,
}


class Tensor(NamedTuple):
    """An array of a net under both its names.

    Attributes:
      theirs: "encoder.conv_in.weight", as a state dict of PyTorch has it.
      ours: "theta/encoder/Conv_0/kernel", as an export has it.
      layout: of theirs, one of layouts.LAYOUTS.
    """

    theirs: str
    ours: str
    layout: str


def tensors(net: Net, names: Names) -> list[Tensor]:
    """All arrays of a net and its codebook.

    Args:
      net: whose.
      names: of the format.

    Returns:
      Tensors, no name twice.
    """
    found = [Tensor("quantize.embedding.weight", "codebook", "table")]
    for layer in _layers(net, names):
        weight = "scale" if layer.layout == "vector" else "kernel"
        found.append(Tensor(f"{layer.theirs}.weight", f"theta/{layer.ours}/{weight}", layer.layout))
        found.append(Tensor(f"{layer.theirs}.bias", f"theta/{layer.ours}/bias", "vector"))
    return found


def level_name(template: str, net_levels: int, level: int, i: int = 0) -> str:
    """The name of a layer of a level.

    Args:
      template: of Names.
      net_levels: how many levels there are.
      level: 0 at full resolution.
      i: the layer's number in it.

    Returns:
      A name without `.weight`.
    """
    return template.format(level=level, coarse=net_levels - 1 - level, i=i)


def _layers(net: Net, names: Names) -> Iterator[Tensor]:
    """The layers with a weight and a bias, without the endings of their names."""
    last = net.levels
    yield from _convolutions(
        {
            "encoder.conv_in": "encoder/Conv_0",
            "encoder.conv_out": f"encoder/Conv_{last}",
            "quant_conv": f"encoder/Conv_{last + 1}",
            "post_quant_conv": "decoder/Conv_0",
            "decoder.conv_in": "decoder/Conv_1",
            "decoder.conv_out": "decoder/head",
        }
    )
    for half in ("encoder", "decoder"):
        yield Tensor(f"{half}.{names.norm_out}", f"{half}/GroupNorm_0", "vector")
        yield from _middle(net, names, half)
        for level in range(net.levels):
            yield from _level(net, names, half, level)
    for level in range(net.levels - 1):
        down = level_name(names.resample["encoder"], net.levels, level)
        yield from _convolutions({down: f"encoder/Conv_{level + 1}"})
        up = level_name(names.resample["decoder"], net.levels, level + 1)
        yield from _convolutions({up: f"decoder/NearestUpsample_{net.levels - 2 - level}"})


def _convolutions(pairs):
    for theirs, ours in pairs.items():
        yield Tensor(theirs, ours, "conv")


def _level(net, names, half, level):
    """The blocks of a level, whose numbers count attention, too, where it follows each."""
    attends = level in net.attention
    inputs = _inputs(net, half, level)
    for i in range(net.blocks + (half == "decoder")):
        theirs = level_name(names.block[half], net.levels, level, i)
        ours = f"{half}/level_{level}/ResidualBlock_{2 * i if attends else i}"
        width = inputs if i == 0 else net.widths[level]
        yield from _residual(names, theirs, ours, shortcut=width != net.widths[level])
        if attends:
            theirs = level_name(names.attention[half], net.levels, level, i)
            yield from _attention(names, theirs, f"{half}/level_{level}/Attention_{2 * i + 1}")


def _inputs(net, half, level):
    """Channels that come into a level."""
    if half == "encoder":
        return net.widths[level - 1] if level else net.channels
    return net.widths[min(level + 1, net.levels - 1)]


def _middle(net, names, half):
    first, attention, second = (f"{half}.{name}" for name in names.middle)
    yield from _residual(names, first, f"{half}/middle/ResidualBlock_0", shortcut=False)
    if net.middle_attention:
        yield from _attention(names, attention, f"{half}/middle/Attention_1")
    number = 1 + net.middle_attention
    yield from _residual(names, second, f"{half}/middle/ResidualBlock_{number}", shortcut=False)


def _residual(names, theirs, ours, *, shortcut):
    for i in range(2):
        yield Tensor(f"{theirs}.norm{i + 1}", f"{ours}/GroupNorm_{i}", "vector")
        yield Tensor(f"{theirs}.conv{i + 1}", f"{ours}/Conv_{i}", "conv")
    if shortcut:
        yield Tensor(f"{theirs}.{names.shortcut}", f"{ours}/shortcut", "conv")


def _attention(names, theirs, ours):
    norm, *projections = names.projections
    yield Tensor(f"{theirs}.{norm}", f"{ours}/GroupNorm_0", "vector")
    for name, own in zip(projections, ("query", "key", "value", "out"), strict=True):
        yield Tensor(f"{theirs}.{name}", f"{ours}/{own}", names.projection)
