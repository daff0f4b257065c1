"""Schedules and optimizers against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mq_jax.algorithm.optim import freeze, make_optimizer, make_warmup_cosine, restarted

RATE = 0.1


def constant(count):
    return RATE


def make(kind, schedule=constant, **changes):
    settings = {"b1": 0.0, "b2": 0.99, "eps": 1e-8, "eps_root": 0.0, "weight_decay": 0.0, "clip": 0}
    return make_optimizer(kind, schedule, **{**settings, **changes})


def run(optimizer, params, gradients):
    """The parameters after each gradient."""
    state, path = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


@pytest.mark.parametrize(
    "steps, warmup, count, expected",
    [
        (100, 10, 0, 0.1),
        (100, 10, 4, 0.5),
        (100, 10, 9, 1.0),
        (100, 10, 10, 1.0),
        (100, 10, 55, 0.5),
        (100, 10, 99, 0.5 * (1 + np.cos(np.pi * 89 / 90))),
        (100, 10, 100, 0.0),
        (100, 10, 1000, 0.0),
        (100, 0, 0, 1.0),
        (100, 0, 25, 0.5 * (1 + np.sqrt(0.5))),
        (5, 5, 0, 0.2),
        (5, 5, 4, 1.0),
        (1, 0, 0, 1.0),
        (1, 1, 0, 1.0),
    ],
)
def test_the_schedule_warms_up_from_above_zero_and_falls_by_half_a_cosine(
    steps, warmup, count, expected
):
    schedule = make_warmup_cosine(3e-4, steps=steps, warmup=warmup)
    for number in (count, jnp.int32(count)):
        np.testing.assert_allclose(schedule(number), 3e-4 * expected, rtol=1e-4, atol=1e-11)


def test_no_update_of_a_run_has_a_zero_rate_and_the_peak_is_the_rate():
    rates = make_warmup_cosine(3e-4, steps=50, warmup=5)(jnp.arange(50))
    assert (rates > 0).all()
    np.testing.assert_allclose(jnp.max(rates), 3e-4, rtol=1e-6)
    assert (np.diff(rates[:5]) > 0).all() and (np.diff(rates[5:]) < 0).all()


def test_the_schedule_counts_updates():
    path = run(make("sgd", lambda count: 1.0 + count), jnp.float32(0), [jnp.float32(1)] * 3)
    np.testing.assert_allclose(path, [-1, -3, -6])


def test_adam_follows_its_equations():
    b1, b2, eps, eps_root = 0.8, 0.9, 1e-2, 1e-3
    adam = make("adam", b1=b1, b2=b2, eps=eps, eps_root=eps_root)
    gradients = [np.array([1.0, -0.1]), np.array([-2.0, 0.0]), np.array([0.5, 3.0])]
    m = v = p = np.zeros(2)
    expected = []
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        p = p - RATE * m_hat / (np.sqrt(v_hat + eps_root) + eps)
        expected.append(p)
    got = run(adam, jnp.zeros(2), [jnp.asarray(g, jnp.float32) for g in gradients])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("momentum, expected", [(0.0, [-1, -2, -3]), (0.5, [-1, -2.5, -4.25])])
def test_b1_is_the_momentum_of_sgd(momentum, expected):
    path = run(make("sgd", b1=momentum), jnp.float32(0), [jnp.float32(1)] * 3)
    np.testing.assert_allclose(path, RATE * np.asarray(expected), rtol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_weight_decay_is_decoupled(kind):
    """A zero gradient moves nothing but by the decay, which Adam does not rescale."""
    (p,) = run(make(kind, weight_decay=0.2), jnp.asarray([2.0, -4.0]), [jnp.zeros(2)])
    np.testing.assert_allclose(p, (1 - RATE * 0.2) * np.asarray([2.0, -4.0]), rtol=1e-6)


@pytest.mark.parametrize(
    "clip, expected", [(0, [30, 40]), (5.0, [3, 4]), (1.0, [0.6, 0.8]), (60.0, [30, 40])]
)
def test_gradients_are_clipped_to_a_global_norm_and_zero_stands_for_no_clipping(clip, expected):
    gradient = {"a": jnp.asarray([30.0]), "b": jnp.asarray([40.0])}
    (p,) = run(make("sgd", clip=clip), {"a": jnp.zeros(1), "b": jnp.zeros(1)}, [gradient])
    np.testing.assert_allclose([p["a"][0], p["b"][0]], -RATE * np.asarray(expected), rtol=1e-6)


def test_clipping_comes_before_the_moments():
    """Adam forgets the scale of its gradients, so clipping them all alike changes nothing."""
    gradients = [jnp.asarray([3.0, -4.0])] * 2
    clipped = run(make("adam", b1=0.9, clip=0.5), jnp.zeros(2), gradients)
    plain = run(make("adam", b1=0.9), jnp.zeros(2), gradients)
    np.testing.assert_allclose(clipped, plain, rtol=1e-5)


def test_frozen_leaves_stay_and_count_in_no_norm():
    params = {"embedding": jnp.ones(2), "net": {"kernel": jnp.ones(2)}}
    gradient = {"embedding": jnp.full(2, 1e6), "net": {"kernel": jnp.asarray([3.0, 4.0])}}
    optimizer = freeze(
        make("sgd", b1=0.9, weight_decay=0.5, clip=1.0), lambda path: path[0].key == "embedding"
    )
    (new,) = run(optimizer, params, [gradient])
    np.testing.assert_array_equal(new["embedding"], params["embedding"])
    expected = 1 - RATE * (np.asarray([0.6, 0.8]) + 0.5)
    np.testing.assert_allclose(new["net"]["kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_was_overwritten_has_no_moments_and_all_else_keeps_them(kind, frozen):
    """Rows of one leaf, beside a leaf that nothing overwrites; steps are counted on."""
    params = {"embedding": jnp.ones((3, 2)), "scale": jnp.ones(2)}
    optimizer = make(kind, b1=0.9, weight_decay=0.1, clip=1.0)
    if frozen:
        optimizer = freeze(optimizer, lambda path: path[0].key == "scale")
    first = optimizer.init(params)
    _, state = optimizer.update(params, first, params)
    rows = jnp.asarray([[True], [False], [True]]) & jnp.ones(2, bool)
    replaced = {"embedding": rows, "scale": jnp.zeros(2, bool)}
    found = restarted(optimizer, state, params, replaced)
    leaves = [jax.tree.leaves(tree) for tree in (found, state, first)]
    assert jax.tree.structure(found) == jax.tree.structure(state) and len(leaves[0]) >= 2
    for now, before, beginning in zip(*leaves, strict=True):
        expected = jnp.where(rows, beginning, before) if now.shape == (3, 2) else before
        np.testing.assert_array_equal(now, expected)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="optimizer kind is 'lion'; expected one of"):
        make("lion")
