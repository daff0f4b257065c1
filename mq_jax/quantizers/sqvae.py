"""Stochastic quantization: codes are drawn by how far they are from z, less and less so."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.families import OfCodebook, Tabled
from mq_jax.quantizers.nearest import Lookup, nearest_codeword
from mq_jax.quantizers.quantizer import Advanced, Quantized, check_channels
from mq_jax.quantizers.soft_assignment import assign_softly

VARIANCES = ("I", "III")


@dataclasses.dataclass(frozen=True)
class SQVAE(OfCodebook, Tabled):
    """Gaussian SQ-VAE (Takida et al., 2022), whose variance anneals itself.

        w   = 1 / (2 v),    v = 1 + e^s (I), or e^(mean of the log-variances) + e^s (III)
        P_k = softmax_k(-w |z - c_k|^2)
        z_q = sum_k y_k c_k,    y = softmax((ln P + Gumbel) / tau),    tau = e^(-rate * step)

    s is a parameter. With III a position brings its own variance: z has D channels and, behind
    them, D of log-variances. In evaluation the code is the nearest, and z_q its codeword.

    The loss is the mean over the first axis, images, of sums over their positions: of
    sum_k P_k ln P_k (`negative_entropy`) and of w |z - z_q|^2 (`regularisation`). It belongs to
    a reconstruction loss that is a sum over pixels, (pixels / 2) ln(mean squared error).

    The decoder's gradient and both terms reach z, s, the variances and all codewords, through
    the softmax: `straight_through` is not read.

    Attributes:
      codebook: module whose call returns f32[K, D].
      variance: one of VARIANCES.
      lookup: nearest_codeword, or one of its kind.
      log_variance: s before the first step. Adam moves it by about a learning rate a step, whatever
        the loss; until it is near 0, codes are mixtures, and evaluation, which decodes codewords,
        is of a decoder that has hardly seen them.
      rate: of tau's decay, per step.
      lowest_temperature: of tau, which else would fall to 0.
      chunk: codewords at a time in a softmax; 0 for all.
    """

    codebook: Codebook
    variance: str = "I"
    lookup: Lookup = nearest_codeword
    log_variance: float = math.log(20)
    rate: float = 1e-5
    lowest_temperature: float = 1e-2
    chunk: int = 0

    def __post_init__(self):
        if self.variance not in VARIANCES:
            raise ValueError(f"variance is {self.variance!r}; expected one of {VARIANCES}.")

    @property
    def channels(self) -> int:
        """D, or 2 D with log-variances."""
        return self.dim * (2 if self.variance == "III" else 1)

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """The codebook's parameters and s; the number of steps."""
        codebook = self.codebook.init(rng)["params"]
        params = {"codebook": codebook, "log_variance": jnp.asarray(self.log_variance)}
        return params, jnp.zeros((), jnp.int32)

    def __call__(
        self,
        params: Any,
        state: Any,
        z: jax.Array,
        *,
        straight_through: str,
        train: bool,
        rng: jax.Array | None = None,
    ) -> Quantized:
        """As Quantizer's; rng is of the codes drawn."""
        codewords = self.fold(params, state)
        indices = self.encode(codewords, z)
        means, weights = self._split(params, z.astype(jnp.result_type(z, codewords)))
        rows = means.reshape(-1, self.dim), weights.reshape(-1, 1)
        z_q = codewords[indices]
        if train:
            drawn = assign_softly(
                self._logits,
                rows,
                codewords,
                codewords,
                chunk=self.chunk,
                temperature=self.tau(state),
                rng=rng,
            )
            z_q = drawn.mean.reshape(means.shape)
        certain = assign_softly(self._logits, rows, codewords, chunk=self.chunk)
        images = len(z)
        terms = {
            "negative_entropy": -jnp.sum(certain.entropy) / images,
            "regularisation": jnp.sum(weights * jnp.square(means - z_q)) / images,
        }
        return Quantized(indices, z_q, z_q, sum(terms.values()), terms)

    def tau(self, state: jax.Array) -> jax.Array:
        """The temperature after so many steps, i32[]."""
        return jnp.maximum(jnp.exp(-self.rate * state), self.lowest_temperature)

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """One step further in tau's decay."""
        return Advanced(params, state + 1)

    def fold(self, params: Any, state: Any) -> jax.Array:
        """The codewords, f32[K, D]."""
        return self.codebook.apply({"params": params["codebook"]})

    def encode(self, folded: jax.Array, z: jax.Array) -> jax.Array:
        """As Quantizer's; log-variances are not read."""
        check_channels(z, self.channels)
        return self.lookup(z[..., : self.dim], folded)

    def _split(self, params, z):
        """The D channels that are quantized, and w f32[..., 1]."""
        means, spread = z[..., : self.dim], jnp.exp(params["log_variance"])
        own = jnp.ones_like(z[..., :1])
        if self.variance == "III":
            own = jnp.exp(jnp.mean(z[..., self.dim :], axis=-1, keepdims=True))
        return means, 1 / (2 * jnp.maximum(own + spread, 1e-10))

    @staticmethod
    def _logits(rows, codewords):
        """-w |z - c|^2 less -w |z|^2, which no probability feels."""
        z, weights = rows
        products = jnp.matmul(z, codewords.T, precision=jax.lax.Precision.HIGHEST)
        return weights * (2 * products - jnp.sum(jnp.square(codewords), axis=-1))
