"""How the tokenizers of each format are used: what their names and arrays do not say."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mq_jax.peers.net import Net


class Usage(NamedTuple):
    """How images are made and codes are found.

    Attributes:
      quantizer: kind of ours that finds the same codes.
      unit_pixels: whether its layers see pixels in [0, 1], not [-1, 1].
      image_size: side of the images that it was published for, pixels.
      filter: of ours, the nearest to its own.
      published: its own preparation of images, in words.
    """

    quantizer: str
    unit_pixels: bool
    image_size: int
    filter: str
    published: str


_ADM = (
    "[-1, 1]; halved by box filters while twice too large, smaller side bicubic to the size, "
    "centre crop (ADM's); reconstructions clipped"
)
_TAMING = (
    "[-1, 1]; smaller side to the size by OpenCV's bilinear filter, which aliases, centre crop; "
    "reconstructions clipped to [-1, 1]"
)

_MASKGIT = "[0, 1]; how images are scaled is not said; reconstructions clipped to [0, 1]"


def _of_diffusers(net: Net) -> Usage:
    """aMUSEd alone has no attention in the middle, and alone sees [0, 1]."""
    unit = not net.middle_attention
    span = "[0, 1], as aMUSEd" if unit else "[-1, 1]"
    size = 512 if unit else 256
    return Usage("vq", unit, size, "area", f"{span}; how images are scaled is not said")


USAGE = {
    "taming": lambda net: Usage("vq", False, 256, "bilinear", _TAMING),
    "ibq": lambda net: Usage("ibq", False, 256, "bilinear", _TAMING),
    "llamagen": lambda net: Usage("l2", False, 256, "area", _ADM),
    "janus": lambda net: Usage("l2", False, 384, "area", "[-1, 1]; smaller side to the size"),
    "diffusers": _of_diffusers,
    "maskgit": lambda net: Usage("vq", True, 256, "area", _MASKGIT),
}

# Fields of a model's config.json under which its net is not VQGAN's, with the values that are.
_PLAIN = {
    "norm_type": "group",
    "act_fn": "silu",
    "in_channels": 3,
    "out_channels": 3,
    "double_latent": False,
}


# Of GroupNorm in all published nets; what `diffusers` takes, too, where its config.json has none.
_GROUPS = 32


def groups_of(format: str, config: Mapping[str, Any]) -> int:
    """Groups of GroupNorm: 32 in all of these nets, but where `diffusers` says otherwise.

    Args:
      format: one of USAGE.
      config: config.json of the model's folder; {} without one.

    Returns:
      At least 1.

    Raises:
      ValueError: they are no whole number.
    """
    told = format == "diffusers" and "norm_num_groups" in config
    groups = config["norm_num_groups"] if told else _GROUPS
    if type(groups) is not int or groups < 1:
        raise ValueError(f"norm_num_groups in its config.json is {groups!r}; expected 32, say")
    return groups


def require_plain(format: str, config: Mapping[str, Any]) -> None:
    """Raises where a model says that its net is another one than its arrays look like.

    Args:
      format: one of USAGE.
      config: as groups_of's.

    Raises:
      ValueError: names the field, its value and the one that can be imported.
    """
    for name, value in _PLAIN.items():
        if name in config and config[name] != value:
            raise ValueError(f"{name} in its config.json is {config[name]!r}; expected {value!r}")
