"""The state of a quantizer is that of the whole batch, however many devices share it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from kinds import KINDS, jit

from mq_jax.devices import sharding


def stateful(kind):
    return jax.tree.leaves(jax.eval_shape(KINDS[kind]().init, jax.random.key(0))[1])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if stateful(kind)])
def test_eight_devices_advance_as_one(kind):
    quantizer = KINDS[kind]()
    params, state = jit(quantizer.init)(jax.random.key(0))
    # Few encodings: some codes are idle and restart, the same ones by the same draws.
    z = jnp.asarray(normal(1, 8, quantizer.channels))

    def step(params, state, z):
        keys = jax.random.split(jax.random.key(1))
        q = quantizer(params, state, z, straight_through="encoder", train=True, rng=keys[0])
        parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
        return q.loss, quantizer.advance(params, state, parts, keys[1])

    mesh = sharding.make_mesh(4, 2)
    whole = jit(step)(params, state, z)
    everywhere = jax.device_put((params, state), sharding.replicated(mesh))
    shared = jit(step)(*everywhere, jax.device_put(z, sharding.split(mesh)))
    for one, eight in zip(jax.tree.leaves(whole), jax.tree.leaves(shared), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-6)
