"""Priors on a source of known entropy; on eight devices as on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from tiny_prior import PRIORS, draw, make_batch, make_prior

from mq_jax.devices import sharding
from mq_jax.generation.losses import Prediction
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


def trained(prior, steps, batch, rate, jit):
    """Parameters after Adam's steps on fresh chains, in one loop."""
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

    @jit
    def run():
        params = prior.init(RNG)
        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, jnp.arange(steps))[0][0]

    return run()


def nats(prior, params, draws, jit):
    """Nats a token of fresh chains."""

    def one(_, number):
        chain_rng, rng = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        return None, prior.likelihood(params, source(chain_rng, 1024), None, rng)

    found = jit(lambda: jax.lax.scan(one, None, jnp.arange(draws))[1])()
    return float(found.nats.sum() / found.tokens.sum())


def make(kind, **changes):
    quiet = dict.fromkeys(["token_dropout", "residual_dropout", "ffn_dropout"], 0.0)
    prior = make_prior(kind, space=SPACE, **{**quiet, "layers": 1, **changes})
    return prior if kind == "decoder" else type(prior)(prior.model, smoothing=0.0)


@pytest.mark.parametrize("kind, steps", [("decoder", 60), ("masked", 400)])
def test_a_short_training_learns_that_codes_follow_one_another(kind, steps):
    """Below ln 4, which is the entropy of codes without their order."""
    prior = make(kind)
    params = trained(prior, steps, batch=32, rate=2e-2, jit=tiny.jit)
    assert ENTROPY < nats(prior, params, 1, tiny.jit) < 0.9 * np.log(4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PRIORS)
def test_a_prior_reaches_the_entropy_of_its_source(kind):
    prior = make(kind, layers=2, width=32)
    steps = 800 if kind == "decoder" else 4000
    params = trained(prior, steps, batch=64, rate=4e-3, jit=jax.jit)
    reached = nats(prior, params, 40, jax.jit)
    assert 0.995 * ENTROPY < reached < 1.01 * ENTROPY


def test_parameters_split_over_devices_have_the_same_loss_and_gradient():
    prior = make_prior("masked", layers=1)
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space, batch=8)

    def slopes(params, tokens, labels) -> tuple[Prediction, dict]:
        def loss(params):
            found = prior.loss(params, tokens, labels, RNG, train=True)
            return found.objective, found

        gradient, found = jax.grad(loss, has_aux=True)(params)
        return found, gradient

    mesh = sharding.make_mesh(data=2, fsdp=4)
    split = jax.device_put(params, sharding.shardings(params, mesh, shard_from=64))
    assert len(split["embedding"]["tokens"].addressable_shards[0].data.shape) == 3
    batch = jax.device_put((tokens, labels), sharding.split(mesh))
    alone, together = tiny.jit(slopes)(params, tokens, labels), tiny.jit(slopes)(split, *batch)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(compare, alone, together)
