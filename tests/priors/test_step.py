"""Steps of a prior: in parts, recomputed, in bfloat16 and on eight devices as plainly on one."""

import functools
import itertools

import jax
import numpy as np
import prior_runs
import pytest

from mq_jax.algorithm.optim import averaged, make_warmup_cosine
from mq_jax.devices import sharding
from mq_jax.generation.space import TokenSpace
from mq_jax.metrics.collections import scalars
from mq_jax.priors.build import build
from mq_jax.priors.program import first_state, lower_program
from mq_jax.training.program import compiled

# Slow enough that Adam makes no step of rounding.
SPACE, STEPS, RATE = TokenSpace(3, 4, 1, prior_runs.SIZE, 2), 3, 1e-3
# Nothing is drawn, so that no draw depends on the parts that a batch is cut into.
STILL = dict.fromkeys([f"prior__{part}_dropout" for part in ("token", "residual", "ffn")], 0.0)
STILL |= {"prior__class_dropout": 0.0, "train__learning_rate": RATE, "train__ema_decay": 0.5}
SHARED = {"mesh__data": 2, "mesh__fsdp": 4, "mesh__shard_from": 1}


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        tokens = rng.integers(0, SPACE.size, (8, SPACE.places, SPACE.levels), dtype=np.int32)
        yield tokens, rng.integers(0, 3, 8, dtype=np.int32)


@functools.cache
def trained(**changes):
    """(states before the first step and after each, metrics of each) of the compiled program."""
    config = prior_runs.configure(**{**STILL, "mesh__data": 1, **changes})
    sizes = config.mesh.data, config.mesh.fsdp
    mesh = sharding.make_mesh(*sizes, jax.devices()[: sizes[0] * sizes[1]])
    built = build(config, SPACE, STEPS)
    program = compiled(lambda: lower_program(config, built, mesh))
    step, window = program.steps().step, program.traced().new_window()
    state = first_state(config, built, mesh)
    states, empty, rows = [held(state)], jax.device_get(window), []
    for given in batches():
        window = jax.device_put(empty, sharding.replicated(mesh))
        state, window, _ = step(state, window, (), *sharding.shard_batch(mesh, given))
        states.append(held(state))
        rows.append(scalars(window))
    return states, rows


def held(state):
    """A copy, since the step donates the state."""
    return jax.tree.map(lambda leaf: leaf.copy(), state)


def assert_same(found, expected, *, rtol=1e-4, atol=1e-6):
    """Metrics, parameters, moments and averages; the rest is keys."""
    for row, other in zip(found[1], expected[1], strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=rtol, atol=atol, err_msg=name)
    for part in ("params", "ema", "opt_state"):
        trees = [jax.tree.leaves(getattr(one[0][-1], part)) for one in (found, expected)]
        for leaf, other in zip(*trees, strict=True):
            np.testing.assert_allclose(leaf, other, rtol=rtol, atol=atol, err_msg=part)


def test_parts_and_recomputed_layers_change_nothing():
    assert_same(trained(prior__remat=True, train__accumulate=2), trained())


@pytest.mark.slow
def test_eight_devices_that_share_the_state_out_change_nothing():
    everything = trained(prior__remat=True, train__accumulate=2, **SHARED)
    assert_same(everything, trained())
    kernel = everything[0][-1].params["trunk"]["layers"]["ffn"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"prior__remat": True}, SHARED, {"mesh__data": 8}], ids=["remat", "fsdp", "data"]
)
def test_a_masked_prior_is_the_same_recomputed_and_on_eight_devices(changes):
    kind = {"prior__kind": "masked"}
    assert_same(trained(**kind, **changes), trained(**kind))


@pytest.mark.slow
def test_each_part_of_a_masked_batch_draws_its_own_places():
    """So a batch in two parts is the mean of two batches, not what it is as a whole."""
    fields = {**STILL, "prior__kind": "masked", "train__accumulate": 2}
    states, rows = trained(**fields)
    prior = build(prior_runs.configure(**fields), SPACE, STEPS).prior
    state, given = states[0], next(batches())
    keys = jax.random.split(jax.random.fold_in(state.rng, state.step), 2)
    losses = [
        prior.loss(state.params, *(rows[part::2] for rows in given), key, train=True).objective
        for part, key in enumerate(keys)
    ]
    np.testing.assert_allclose(rows[0]["prior/loss"], np.mean(losses), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_bfloat16_is_float32_but_for_its_rounding(kind):
    (states, rows), (_, expected) = [
        trained(prior__kind=kind, prior__dtype=dtype) for dtype in ("bfloat16", "float32")
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves((states[-1].params, states[-1].ema))} == {
        np.float32
    }
    for row, other in zip(rows, expected, strict=True):
        assert row["prior/loss"] == pytest.approx(other["prior/loss"], rel=5e-3)
        assert row["prior/gradient_norm"] == pytest.approx(other["prior/gradient_norm"], rel=0.05)
    assert rows[-1]["prior/loss"] != expected[-1]["prior/loss"]


def test_evaluation_sees_the_averages_of_all_steps():
    states, _ = trained()
    alike = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(alike, states[0].ema, states[0].params)
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        assert after.evaluated is after.ema
        jax.tree.map(alike, after.ema, averaged(before.ema, after.params, 0.5, step))


def test_the_learning_rate_is_logged_as_it_was():
    _, rows = trained()
    schedule = make_warmup_cosine(RATE, steps=STEPS, warmup=round(0.1 * STEPS))
    expected = [schedule(step) for step in range(STEPS)]
    np.testing.assert_allclose([row["prior/learning_rate"] for row in rows], expected, rtol=1e-6)
