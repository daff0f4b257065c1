"""The codebook C(phi) = net(E): a module whose call returns f32[K, D]."""

from collections.abc import Callable

import jax
from flax import linen as nn

from mq_jax.quantizers.initialiser import uniform_fan_in

KINDS = ("mlp", "mlp-relu", "linear", "basis", "embedding")


class Codebook(nn.Module):
    """K codewords from an embedding E, the base, through a hyper-net, the map.

    `mlp`: dense -> tanh -> dense (the paper's); `mlp-relu`: the same with ReLU; `linear`: one
    dense layer (with E frozen: SimVQ); `basis`: E f32[D, D] through a dense layer D -> K,
    transposed; `embedding`: E itself, the plain codebook of VQ-VAE. Another map is `Bridge`.

    Attributes:
      kind: one of KINDS.
      size: K.
      dim: D.
      embedding_dim: D_e, columns of E for `mlp`, `mlp-relu` and `linear`.
      hidden: width of the hidden layer of `mlp` and `mlp-relu`.
      base: what E starts from: N(0, 1), or one of bases.py.
    """

    kind: str
    size: int
    dim: int
    embedding_dim: int
    hidden: int
    base: Callable = nn.initializers.normal(1.0)

    @nn.compact
    def __call__(self) -> jax.Array:
        """The codebook, f32[K, D]."""
        shapes = {"embedding": (self.size, self.dim), "basis": (self.dim, self.dim)}
        shape = shapes.get(self.kind, (self.size, self.embedding_dim))
        embedding = self.param("embedding", self.base, shape)
        if self.kind == "embedding":
            return embedding
        if self.kind == "basis":
            return dense(self.size, self.dim, "net_out")(embedding).T
        if self.kind == "linear":
            return dense(self.dim, self.embedding_dim, "net_out")(embedding)
        if self.kind not in ("mlp", "mlp-relu"):
            raise ValueError(f"codebook kind is {self.kind!r}; expected one of {KINDS}.")
        activation = nn.tanh if self.kind == "mlp" else nn.relu
        hidden = activation(dense(self.hidden, self.embedding_dim, "net_in")(embedding))
        return dense(self.dim, self.hidden, "net_out")(hidden)


def dense(features: int, fan_in: int, name: str) -> nn.Dense:
    """A dense layer with PyTorch's default initialisation.

    Args:
      features: outputs.
      fan_in: inputs.
      name: of the submodule.

    Returns:
      The module.
    """
    init = uniform_fan_in(fan_in)
    # On accelerators a product of float32 else rounds its factors, to TF32 or bfloat16.
    highest = jax.lax.Precision.HIGHEST
    return nn.Dense(features, precision=highest, kernel_init=init, bias_init=init, name=name)
