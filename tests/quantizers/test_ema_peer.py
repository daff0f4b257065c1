"""Running means step by step beside an independent implementation; see test_peers.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from arrays import peer
from kinds import jit

from mq_jax.quantizers.ema import EMA

close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6)


def test_running_means_agree_over_three_batches():
    theirs = peer("ema")
    quantizer = EMA(16, 4, decay=0.9, commitment=1.0)
    state = {"counts": jnp.ones(16), "sums": jnp.asarray(theirs["codebooks"][0])}

    @jit
    def step(state, z):
        q = quantizer((), state, z, straight_through="encoder", train=True)
        parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
        advanced = quantizer.advance((), state, parts, jax.random.key(0))
        return q.indices, q.loss, advanced.state, quantizer.fold((), advanced.state)

    for z, codes, loss, after in zip(
        theirs["z"], theirs["codes"], theirs["losses"], theirs["codebooks"][1:], strict=True
    ):
        indices, its_loss, state, codebook = step(state, z)
        np.testing.assert_array_equal(indices, codes)
        close(its_loss, loss)
        close(codebook, after)
