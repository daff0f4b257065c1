"""Sizes of the transformers."""

import dataclasses
from typing import Any

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Net:
    """A transformer, but for what it reads and predicts.

    Attributes:
      layers: of the trunk.
      heads: of attention; their width, `width / heads`, is a multiple of 4.
      width: of the residual stream.
      depth_layers: of the small net that predicts the levels of a place one after another; without
        effect where there is one level.
      multiple: the inside of a feed-forward layer, 8/3 of the width, is rounded up to one of it.
      qk_norm: whether queries and keys are normalised over each head's channels.
      token_dropout: of the embedded tokens, in [0, 1).
      residual_dropout: of what attention adds, in [0, 1).
      ffn_dropout: of what the feed-forward layer adds, in [0, 1).
      dtype: of products and activations. Parameters, normalisations, the softmax and the logits are
        float32.
      remat: whether the backward pass computes each layer anew rather than keep its inside.
    """

    layers: int
    heads: int
    width: int
    depth_layers: int = 2
    multiple: int = 256
    qk_norm: bool = False
    token_dropout: float = 0.1
    residual_dropout: float = 0.1
    ffn_dropout: float = 0.1
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self):
        for name in ("layers", "heads", "width", "depth_layers", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"Net.{name} is {getattr(self, name)}; expected at least 1.")
        if self.width % (4 * self.heads):
            raise ValueError(
                f"Net.width is {self.width} and Net.heads {self.heads}; expected the width to be a "
                "multiple of 4 heads: rows and columns each rotate pairs of a head's channels."
            )
        for name in ("token_dropout", "residual_dropout", "ffn_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Net.{name} is {getattr(self, name)}; expected one in [0, 1).")

    @property
    def head_width(self) -> int:
        """d."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Width inside a feed-forward layer: 8/3 of the width, rounded up to the multiple."""
        return -(-(8 * self.width // 3) // self.multiple) * self.multiple


# `tiny` has 2 M parameters with K = 1024, for a CPU; the others' widths are LlamaGen's.
SIZES = {
    "tiny": {"layers": 6, "heads": 4, "width": 144, "multiple": 32},
    "B": {"layers": 12, "heads": 12, "width": 768, "depth_layers": 4},
    "L": {"layers": 24, "heads": 16, "width": 1024, "depth_layers": 6},
    "XL": {"layers": 36, "heads": 20, "width": 1280, "depth_layers": 6},
}


def net_of(size: str, **changes: Any) -> Net:
    """A named size, with other fields where they are given.

    Args:
      size: one of SIZES.
      **changes: fields of Net.

    Returns:
      The net.

    Raises:
      ValueError: there is no such size, or a field is out of its range.
    """
    if size not in SIZES:
        raise ValueError(f"The size is {size!r}; expected one of {tuple(SIZES)}.")
    return Net(**{**SIZES[size], **changes})
