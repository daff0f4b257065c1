"""The net of VQGAN as all its families have it: how many levels, how wide, where attention is."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Net(NamedTuple):
    """What decides which arrays there are, beside K.

    Attributes:
      channels: width at full resolution, before the first multiplier.
      multipliers: of the width, one a level, full resolution first.
      blocks: residual blocks a level in the encoder; the decoder has one more.
      attention: levels with attention, 0 at full resolution.
      middle_attention: whether the middle has it.
      z_channels: width between the 3x3 convolution and the 1x1 convolution to D, on either side.
      dim: D.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    middle_attention: bool
    z_channels: int
    dim: int

    @property
    def levels(self) -> int:
        """Resolutions, each half of the one before."""
        return len(self.multipliers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


def net_of(config: Mapping[str, Any]) -> Net:
    """The net of a configuration.

    Args:
      config: its sections model, codebook and data, of kind vqgan.

    Returns:
      A Net.
    """
    model, side = config["model"], config["data"]["image_size"]
    levels = range(len(model["multipliers"]))
    return Net(
        channels=model["channels"][0],
        multipliers=tuple(model["multipliers"]),
        blocks=model["blocks"],
        attention=tuple(level for level in levels if side >> level in model["attention"]),
        middle_attention=model["middle_attention"],
        z_channels=model["z_channels"],
        dim=config["codebook"]["dim"],
    )
