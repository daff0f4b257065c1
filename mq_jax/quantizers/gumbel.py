"""Codes drawn from logits by Gumbel's trick, with the gradient of a softmax."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.families import OfCodebook
from mq_jax.quantizers.initialiser import uniform_fan_in
from mq_jax.quantizers.quantizer import Advanced, Quantized
from mq_jax.quantizers.soft_assignment import assign_softly, rows
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class Gumbel(OfCodebook):
    """Straight-through Gumbel-softmax (Jang et al., 2017), hard forward and soft backward.

        l     = z W + b,    k = argmax(l + G),    y = softmax((l + G) / tau)
        z_hat = C[k], with the gradient of sum_k y_k C_k in y: g C^T J_y / tau to l

    So the decoder's gradient reaches z and all of W and b through the softmax, and of the
    codewords the chosen ones. `kl`, the mean of ln K - H(softmax(l)), draws the logits to the
    uniform distribution. Evaluation draws nothing: k = argmax l. `straight_through` is not read.

    Attributes:
      codebook: module whose call returns f32[K, D].
      channels: of z.
      kl_weight: of `kl`.
      temperature: tau before the first step.
      last_temperature: tau after `anneal_steps` and from then on; between, half a cosine.
      anneal_steps: steps of that.
      chunk: codewords at a time in a softmax; 0 for all.
    """

    codebook: Codebook
    channels: int
    kl_weight: float = 5e-4
    temperature: float = 1.0
    last_temperature: float = 1.0
    anneal_steps: int = 100_000
    chunk: int = 0

    depth = 0

    def __post_init__(self):
        if min(self.temperature, self.last_temperature) <= 0:
            raise ValueError(
                f"temperature is {self.temperature} and last_temperature "
                f"{self.last_temperature}; expected more than 0."
            )

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """The codebook's parameters, the head W and b; the number of steps."""
        codebook_key, kernel_key, bias_key = jax.random.split(rng, 3)
        draw = uniform_fan_in(self.channels)
        head = {
            "kernel": draw(kernel_key, (self.channels, self.size)),
            "bias": draw(bias_key, (self.size,)),
        }
        params = {"codebook": self.codebook.init(codebook_key)["params"], "head": head}
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
        folded = self.fold(params, state)
        head, codewords = folded["head"], folded["codewords"]
        flat = rows(z, codewords, self.channels)
        certain = assign_softly(_logits, flat, head, chunk=self.chunk)
        kl = jnp.mean(math.log(self.size) - certain.entropy)
        loss = self.kl_weight * kl
        if not train:
            indices = certain.indices.reshape(z.shape[:-1])
            z_q = codewords[indices]
            return Quantized(indices, z_q, z_q, loss, {"kl": kl})
        drawn = assign_softly(
            _logits,
            flat,
            head,
            # The codewords' gradient is that of the hard choice.
            jax.lax.stop_gradient(codewords),
            chunk=self.chunk,
            temperature=self.tau(state),
            rng=rng,
        )
        indices = drawn.indices.reshape(z.shape[:-1])
        z_q = codewords[indices]
        soft = drawn.mean.reshape(z_q.shape)
        # The soft value enters with its gradient alone.
        z_hat = apply_straight_through(soft, z_q, kind="encoder-and-codewords")
        return Quantized(indices, z_q, z_hat, loss, {"kl": kl})

    def tau(self, state: jax.Array) -> jax.Array:
        """The temperature after so many steps, i32[]."""
        done = jnp.minimum(state / self.anneal_steps, 1.0)
        over = self.temperature - self.last_temperature
        return self.last_temperature + over * (1 + jnp.cos(math.pi * done)) / 2

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """One step further in the temperature's schedule."""
        return Advanced(params, state + 1)

    def fold(self, params: Any, state: Any) -> Any:
        """The codewords f32[K, D], and the head's rows f32[K, channels] and f32[K]."""
        codewords = self.codebook.apply({"params": params["codebook"]})
        head = params["head"]["kernel"].T, params["head"]["bias"]
        return {"codewords": codewords, "head": head}

    def encode(self, folded: Any, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        flat = rows(z, folded["codewords"], self.channels)
        found = assign_softly(_logits, flat, folded["head"], chunk=self.chunk)
        return found.indices.reshape(z.shape[:-1])

    def decode(self, folded: Any, indices: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return folded["codewords"][indices]

    def codewords(self, folded: Any) -> jax.Array:
        """As Quantizer's."""
        return folded["codewords"]


def _logits(z, head):
    kernel, bias = head
    return jnp.matmul(z, kernel.T, precision=jax.lax.Precision.HIGHEST) + bias
