"""Every kind with a single code, and with encodings of fewer bits than its own arithmetic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from kinds import DIM, KINDS, jit, table

from mq_jax.quantizers.anchors import Anchors
from mq_jax.quantizers.ema import EMA
from mq_jax.quantizers.entropy import Entropy
from mq_jax.quantizers.gumbel import Gumbel
from mq_jax.quantizers.ibq import IBQ
from mq_jax.quantizers.sqvae import SQVAE
from mq_jax.quantizers.usage_restart import UsageRestart
from mq_jax.quantizers.vq import VQ
from mq_jax.quantizers.wasserstein import Wasserstein

WITH_ONE_CODE = {
    "vq terms": lambda: VQ(table(size=1), terms=(Wasserstein(), Entropy())),
    "ema restart": lambda: EMA(1, DIM, restart_below=0.5),
    "cvq": lambda: VQ(table(size=1), restart=Anchors()),
    "usage restart": lambda: VQ(table(size=1), restart=UsageRestart(every=1)),
    "sqvae III": lambda: SQVAE(table(size=1), "III"),
    "gumbel": lambda: Gumbel(table(size=1), channels=3),
    "ibq": lambda: IBQ(table(size=1)),
}


@pytest.mark.parametrize("kind", WITH_ONE_CODE)
def test_a_single_code_is_every_encodings_with_finite_slopes(kind):
    quantizer = WITH_ONE_CODE[kind]()
    z = jnp.asarray(normal(0, 5, quantizer.channels))

    @jit
    def step(rng):
        params, state = quantizer.init(rng)

        def loss(params, z):
            q = quantizer(params, state, z, straight_through="encoder", train=True, rng=rng)
            return q.loss + jnp.sum(q.z_hat), q

        gradients, q = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, z)
        parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
        return q.indices, gradients, quantizer.advance(params, state, parts, rng)[:2]

    indices, *trees = step(jax.random.key(0))
    np.testing.assert_array_equal(indices, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trees))


@pytest.mark.parametrize("kind", KINDS)
def test_encodings_in_bfloat16_are_quantized_in_float32(kind):
    quantizer = KINDS[kind]()
    key = jax.random.key(0)
    params, state = jax.eval_shape(quantizer.init, key)
    z = jax.ShapeDtypeStruct((5, quantizer.channels), jnp.bfloat16)

    def step(params, state, z):
        call = functools.partial(quantizer, straight_through="encoder", train=True, rng=key)
        q = call(params, state, z)
        parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
        return q[1:5], quantizer.advance(params, state, parts, key)[:2]

    values, advanced = jax.eval_shape(step, params, state, z)
    assert {leaf.dtype for leaf in jax.tree.leaves(values)} == {jnp.dtype(jnp.float32)}
    assert jax.tree.map(lambda leaf: leaf.dtype, advanced) == jax.tree.map(
        lambda leaf: leaf.dtype, (params, state)
    )
