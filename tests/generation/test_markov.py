"""Priors on a source of known entropy; on eight devices as on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from tiny_prior import draw, make_batch, make_prior

from mq_jax.devices import sharding
from mq_jax.generation.space import TokenSpace

SPACE = TokenSpace(3, 3, 1, 4)
RNG = jax.random.key(0)
# Each code is followed by one of two, seven times of ten by the same one.
TRANSITIONS = np.array([[0, 0.7, 0.3, 0], [0, 0, 0.7, 0.3], [0.3, 0, 0, 0.7], [0.7, 0.3, 0, 0]])
ENTROPY = (np.log(4) + 8 * -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))) / 9  # nats a token


def source(rng, batch):
    """Chains i32[batch, 9, 1], row by row; all codes are equally frequent."""
    first, *later = jax.random.split(rng, SPACE.places)
    tokens = [jax.random.randint(first, (batch,), 0, SPACE.size)]
    # In logarithms, -inf where no transition is.
    log_p = jnp.log(jnp.asarray(TRANSITIONS))
    for key in later:
        tokens.append(jax.random.categorical(key, log_p[tokens[-1]]))
    return jnp.stack(tokens, axis=-1)[..., None]


def reached(prior, params, steps, batch, rate, jit, draws=1):
    """Nats a token of fresh chains after Adam's steps on others, in one program."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps), b2=0.98)

    def step(carry, number):
        params, moments = carry
        chain_rng, loss_rng = jax.random.split(jax.random.fold_in(RNG, number))
        tokens = source(chain_rng, batch)
        slope = jax.grad(lambda p: prior.loss(p, tokens, None, loss_rng, train=True).objective)(
            params
        )
        updates, moments = optimizer.update(slope, moments)
        return (optax.apply_updates(params, updates), moments), None

    def measure(params, number):
        chain_rng, rng = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        return params, prior.likelihood(params, source(chain_rng, 1024), None, rng)

    @jit
    def run(params):
        carry = params, optimizer.init(params)
        params = jax.lax.scan(step, carry, jnp.arange(steps))[0][0]
        return jax.lax.scan(measure, params, jnp.arange(draws))[1]

    found = run(params)
    return float(found.nats.sum() / found.tokens.sum())


def make(kind, **changes):
    quiet = dict.fromkeys(["token_dropout", "residual_dropout", "ffn_dropout"], 0.0)
    prior = make_prior(kind, space=SPACE, **{**quiet, "layers": 1, **changes})
    return prior if kind == "decoder" else type(prior)(prior.model, smoothing=0.0)


def test_a_short_training_learns_that_codes_follow_one_another():
    """Below ln 4, which is the entropy of codes without their order."""
    prior = make("decoder")
    params = draw(prior)
    params["levels"]["head"] *= 0
    assert ENTROPY < reached(prior, params, 60, 32, 2e-2, tiny.jit) < 0.9 * np.log(4)


@pytest.mark.slow
def test_a_decoder_reaches_the_entropy_of_its_source():
    prior = make("decoder", layers=2, width=32)
    params = jax.jit(prior.init)(RNG)
    nats = reached(prior, params, 800, 64, 4e-3, jax.jit, draws=40)
    assert 0.995 * ENTROPY < nats < 1.01 * ENTROPY


@pytest.mark.slow
def test_parameters_split_over_devices_have_the_same_loss_and_gradient():
    prior = make_prior("masked", layers=1)
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space, batch=8)

    def loss(params, tokens, labels):
        return prior.loss(params, tokens, labels, RNG, train=True).objective

    run = tiny.jit(jax.value_and_grad(loss))
    mesh = sharding.make_mesh(data=2, fsdp=4)
    split = jax.device_put(params, sharding.shardings(params, mesh, shard_from=64))
    kernel = split["trunk"]["layers"]["ffn"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    batch = jax.device_put((tokens, labels), sharding.split(mesh))
    alone, together = run(params, tokens, labels), run(split, *batch)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(compare, alone, together)
