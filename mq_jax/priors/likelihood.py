"""How well a prior predicts a whole token set."""

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.generation.losses import bits
from mq_jax.generation.prior import Prior
from mq_jax.priors.feed import evaluation_pass
from mq_jax.priors.state import MONITOR, PriorState
from mq_jax.tokensets.reading import TokenSet


class Likelihood:
    """Evaluates states of one run; compiles once.

    Args:
      config: validated.
      prior: of the run.
      tokens: of the validation.
      mesh: from sharding.make_mesh.
    """

    def __init__(self, config: ConfigDict, prior: Prior, tokens: TokenSet, mesh: Mesh):
        self._config, self._prior, self._tokens, self._mesh = config, prior, tokens, mesh
        self._rng = jax.random.key(config.seed)
        everywhere = sharding.replicated(mesh)
        self._step = jax.jit(self._merged, out_shardings=everywhere)
        nothing = clu_metrics.Average.from_model_output(jnp.zeros(0))
        self._nothing = jax.device_put(nothing, everywhere)

    def run(self, state: PriorState) -> dict[str, float]:
        """One pass over the whole set.

        Args:
          state: its `evaluated` is read.

        Returns:
          eval/nats_per_token, eval/bits_per_token, and both per pixel of the decoded image; of a
          masked prior a bound, estimated with the same draws at each call.
        """
        found, before = self._nothing, None
        for batch in evaluation_pass(
            self._config, self._tokens, self._prior.space, self._mesh.size
        ):
            on_devices = sharding.shard_batch(self._mesh, batch)
            before, found = found, self._step(state.evaluated, found, *on_devices)
            # One batch ahead and no further, as in evaluation/.
            jax.block_until_ready(before)
        token = float(found.compute())
        # So many tokens are so many pixels of the decoded image.
        pixel = token * self._prior.space.levels / self._tokens.downsampling**2
        return {
            MONITOR: token,
            "eval/bits_per_token": bits(token),
            "eval/nats_per_pixel": pixel,
            "eval/bits_per_pixel": bits(pixel),
        }

    def _merged(self, params, found, tokens, labels, index, mask):
        """With a batch; an image's draws depend on its number alone."""

        def of_image(tokens, label, index):
            label = label[None] if self._prior.space.classes else None
            key = jax.random.fold_in(self._rng, index)
            return self._prior.likelihood(params, tokens[None], label, key).objective

        nats = jax.vmap(of_image)(tokens, labels, index)
        update = clu_metrics.Average.from_model_output(nats, mask=mask)
        return found.merge(update)
