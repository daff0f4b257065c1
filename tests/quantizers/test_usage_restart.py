"""DiVeQ's restart: who counts as idle, when, and what it becomes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from arrays import normal
from kinds import jit

from mq_jax.quantizers.usage_restart import UsageRestart

SIZE, DIM = 6, 3


@functools.partial(jit, static_argnums=0)
def advance(restart, codewords, state, counts, seed=0):
    return restart.advance(codewords, state, counts, jax.random.key(seed))


def start(size=SIZE):
    return {"steps": jnp.asarray(0, jnp.int32), "used": jnp.zeros(size, jnp.int32)}


def after(restart, batches, codewords):
    """What each of several steps leaves: codewords, state, replaced."""
    state, found = start(), []
    for counts in batches:
        codewords, state, replaced = advance(restart, codewords, state, np.asarray(counts))
        found.append((np.asarray(codewords), state, np.asarray(replaced)))
    return found


def test_codes_used_in_too_few_steps_become_codes_in_use_when_it_is_time():
    """Code 1 is used in two of four steps, 0 and 2 in all, 3 in one, 4 and 5 never."""
    codewords = normal(0, SIZE, DIM)
    one = [[5, 1, 2, 0, 0, 0], [1, 1, 1, 0, 0, 0], [9, 0, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]]
    steps = after(UsageRestart(every=4, share=0.5), [[counts] for counts in one], codewords)
    for moved, state, replaced in steps[:3]:
        np.testing.assert_array_equal(moved, codewords)
        assert not replaced.any() and state["steps"] > 0
    moved, state, replaced = steps[3]
    np.testing.assert_array_equal(replaced, [False, False, False, True, True, True])
    np.testing.assert_array_equal(moved[:3], codewords[:3])
    distances = np.abs(moved[3:, None] - codewords[:3]).max(axis=-1).min(axis=1)
    assert (distances < 1e-7).all()
    assert state["steps"] == 0 and not state["used"].any()


def test_a_code_is_used_in_a_step_where_any_part_of_the_batch_used_it():
    parts = [[1, 0, 0, 0, 0, 0], [0, 7, 0, 0, 0, 0]]
    (_, state, _), *_ = after(UsageRestart(every=4), [parts], normal(0, SIZE, DIM))
    np.testing.assert_array_equal(state["used"], [1, 1, 0, 0, 0, 0])


def test_copies_are_drawn_in_proportion_to_use():
    size = 4000
    codewords = np.zeros((size, 1), np.float32)
    codewords[:3, 0] = 1, 2, 3
    state = start(size) | {"steps": 9, "used": jnp.zeros(size, jnp.int32).at[:3].set([1, 2, 5])}
    counts = np.zeros((1, size), np.int32)
    moved, _, replaced = advance(UsageRestart(every=10, share=0.1), codewords, state, counts)
    shares = np.bincount(np.round(moved[replaced, 0]).astype(int), minlength=4) / (size - 3)
    np.testing.assert_allclose(shares, [0, 1 / 8, 2 / 8, 5 / 8], atol=0.03)


def test_the_noise_parts_a_copy_from_its_original():
    codewords, counts = np.zeros((SIZE, 4000), np.float32), np.array([[3, 0, 0, 0, 0, 0]])
    moved, *_ = advance(UsageRestart(every=1, noise=0.1), codewords, start(), counts)
    assert not moved[0].any()
    np.testing.assert_allclose(np.std(moved[1:], axis=1), 0.1, rtol=0.05)


def test_where_no_code_was_used_nothing_is_replaced():
    codewords = normal(0, SIZE, DIM)
    moved, _, replaced = advance(
        UsageRestart(every=1), codewords, start(), np.zeros((1, SIZE), int)
    )
    np.testing.assert_array_equal(moved, codewords)
    assert not replaced.any()
