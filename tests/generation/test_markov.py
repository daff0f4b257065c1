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
from mq_jax.generation.masked_prior import MaskedPrior
from mq_jax.generation.space import TokenSpace

SPACE, SMALL = TokenSpace(3, 3, 1, 4), TokenSpace(2, 2, 1, 4)
RNG = jax.random.key(0)
# Each code is followed by one of two, seven times of ten by the same one.
TRANSITIONS = np.array([[0, 0.7, 0.3, 0], [0, 0, 0.7, 0.3], [0.3, 0, 0, 0.7], [0.7, 0.3, 0, 0]])


def entropy(space):
    """Of its chains, in nats a token."""
    step = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    return (np.log(4) + (space.places - 1) * step) / space.places


def source(rng, batch, space):
    """Chains i32[batch, n, 1], row by row; all codes are equally frequent."""
    first, *later = jax.random.split(rng, space.places)
    tokens = [jax.random.randint(first, (batch,), 0, space.size)]
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
        tokens = source(chain_rng, batch, prior.space)
        slope = jax.grad(lambda p: prior.loss(p, tokens, None, loss_rng, train=True).objective)(
            params
        )
        updates, moments = optimizer.update(slope, moments)
        return (optax.apply_updates(params, updates), moments), None

    def measure(params, number):
        chain_rng, rng = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        return params, prior.likelihood(params, source(chain_rng, 1024, prior.space), None, rng)

    @jit
    def run(params):
        carry = params, optimizer.init(params)
        params = jax.lax.scan(step, carry, jnp.arange(steps))[0][0]
        return jax.lax.scan(measure, params, jnp.arange(draws))[1]

    found = run(params)
    return float(found.nats.sum() / found.tokens.sum())


def make(kind, space=SPACE, **changes):
    quiet = dict.fromkeys(["token_dropout", "residual_dropout", "ffn_dropout"], 0.0)
    prior = make_prior(kind, space=space, **{**quiet, "layers": 1, **changes})
    return prior if kind == "decoder" else type(prior)(prior.model, smoothing=0.0)


class Source:
    """What a masked transformer would be that has learned all: p(t_p | known) of the chain."""

    space = SPACE

    def apply(self, variables, tokens, labels, known):
        """ln p f32[B, n, 1, K], from both neighbours by the chain's transitions."""
        seen = jnp.where(known[..., None], jax.nn.one_hot(tokens[..., 0], 4), 1.0)
        steps = jnp.asarray(TRANSITIONS, jnp.float32)
        before, after = [jnp.full((len(tokens), 4), 0.25)], [jnp.ones((len(tokens), 4))]
        for place in range(1, self.space.places):
            before.append((before[-1] * seen[:, place - 1]) @ steps)
            after.append((after[-1] * seen[:, -place]) @ steps.T)
        both = jnp.stack(before, 1) * jnp.stack(after[::-1], 1)
        return jnp.log(both / both.sum(-1, keepdims=True))[:, :, None]


def test_the_bound_is_the_entropy_where_all_conditionals_are_right():
    """So nothing but what a masked prior has not learned lies between both."""
    prior, number = MaskedPrior(Source()), 8192

    @tiny.jit
    def bounds(rng):
        tokens = source(rng, number, SPACE).reshape(8, -1, SPACE.places, 1)
        keys = jax.random.split(jax.random.fold_in(rng, 1), 8)
        return jax.vmap(lambda t, key: prior.likelihood({}, t, None, key).objective)(tokens, keys)

    found = np.asarray(bounds(RNG))
    deviation = found.std(ddof=1) / np.sqrt(len(found))
    assert deviation < 0.01 * entropy(SPACE)
    np.testing.assert_allclose(found.mean(), entropy(SPACE), atol=4 * deviation)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_short_training_learns_that_codes_follow_one_another(kind):
    """Below ln 4, which is the entropy of codes without their order."""
    prior = make(kind, SMALL)
    params = draw(prior)
    params["levels"]["head"] *= 0
    nats = reached(prior, params, 60, 32, 2e-2, tiny.jit, draws=4)
    assert entropy(SMALL) < nats < 0.9 * np.log(4)


@pytest.mark.slow
def test_a_decoder_reaches_the_entropy_of_its_source():
    prior = make("decoder", layers=2, width=32)
    params = jax.jit(prior.init)(RNG)
    nats = reached(prior, params, 800, 64, 4e-3, jax.jit, draws=40)
    assert 0.995 * entropy(SPACE) < nats < 1.01 * entropy(SPACE)


@pytest.mark.slow
def test_a_masked_prior_reaches_the_entropy_of_its_source():
    """On four places, from large batches: which places are masked is noise of the gradient.

    A decoder has the code that it follows at its own position; here attention must find the
    neighbours, whichever are known. 800 steps of the decoder's batch, 64, leave 5% on four places
    and 7% on nine, of which none where nothing is known and 6% with one place masked, which a
    cosine hardly shows (1.5% from uniform counts); of 256, they leave 0.8% on four.
    """
    prior = make("masked", SMALL, layers=2, width=32)
    params = jax.jit(prior.init)(RNG)
    nats = reached(prior, params, 1200, 256, 4e-3, jax.jit, draws=160)
    assert 0.995 * entropy(SMALL) < nats < 1.01 * entropy(SMALL)


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
