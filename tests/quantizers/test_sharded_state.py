"""The state of a quantizer is that of the whole batch, whatever devices and processes share it."""

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from kinds import KINDS, jit
from processes import two_scripts

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


_STEPS = """
    import os
    import jax
    import numpy as np
    from arrays import normal
    from kinds import KINDS, jit
    from mq_jax.devices import sharding
    from mq_jax.devices.distributed import find_cluster, initialize

    initialize(find_cluster(os.environ))
    mesh = sharding.make_mesh(2, 2)
    assert jax.device_count() == 4 and jax.local_device_count() == 2

    def everywhere(array, place):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, place, lambda rows: array[rows])

    def check(kind):
        quantizer = KINDS[kind]()
        one = jit(quantizer.init)(jax.random.key(0))
        both = jax.tree.map(lambda leaf: everywhere(leaf, sharding.replicated(mesh)), one)

        def step(carried, z, number):
            keys = jax.random.split(jax.random.key(number))
            q = quantizer(*carried, z, straight_through="encoder", train=True, rng=keys[0])
            parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
            return tuple(quantizer.advance(*carried, parts, keys[1])[:2])

        alone = jit(step)
        together = jit(step, out_shardings=sharding.replicated(mesh))
        began = one
        for number in range(2):
            # Few encodings: some codes are idle and restart, the same ones by the same draws.
            z = normal(number, 8, quantizer.channels)
            one = alone(one, z, number)
            both = together(both, everywhere(z, sharding.split(mesh)), number)
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(both), strict=True)
        for expected, found in pairs:
            assert not found.is_fully_addressable
            found = np.asarray(found.addressable_data(0))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=kind)
        before, after = (np.asarray(jax.tree.leaves(tree)[-1]) for tree in (began, one))
        assert (before != after).any(), kind

    for kind in ("ema restart", "cvq probrandom", "residual of ema"):
        check(kind)
"""


@pytest.mark.slow
def test_two_processes_advance_as_one():
    outcomes = two_scripts(textwrap.dedent(_STEPS))
    assert [done.code for done in outcomes] == [0, 0], outcomes[0].err + outcomes[1].err
