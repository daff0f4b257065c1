"""The paper's step: exact gradients on two levels, and the steps around them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from mq_jax import bilevel, mq, quantize
from mq_jax.state import Parts

EXACT = ("unrolled", "unrolled-reverse")
INNER_OPTIMIZERS = {
    "sgd": tiny.make_sgd(0.1),
    "momentum": tiny.make_sgd(0.1, momentum=0.9),
    "adam": tiny.make_adam(0.01),
}


@pytest.fixture(autouse=True, scope="module")
def float64():
    with tiny.float64():
        yield


def leaves_equal(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, **tolerance)


def cosine(a, b):
    return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))


def forward(objective, theta, batch_stats, method, argument):
    """Encoder or decoder, in train mode."""
    variables = {"params": theta, "batch_stats": batch_stats}
    return objective.autoencoder.apply(
        variables, argument, train=True, method=method, mutable=["batch_stats"]
    )[0]


def freeze_stopped_values(objective, theta, phi, batch_stats, images, kind):
    """L as a plain function of (theta, phi), with no stopped gradient left to see.

    Codes keep their value at the given point, and so does what stands inside the estimator's
    stop_gradient: the rounding error z_q - z for `encoder`, z for `encoder-and-codewords`.
    """
    z = forward(objective, theta, batch_stats, "encode", images)
    indices = quantize.nearest_codeword(z, objective.codewords(phi))
    offset = objective.codewords(phi)[indices] - z if kind == "encoder" else -z

    def loss(theta, phi):
        z, z_q = forward(objective, theta, batch_stats, "encode", images), objective.codewords(phi)
        z_q = z_q[indices]
        z_hat = z + offset if kind == "encoder" else z_q + z + offset
        x_hat = forward(objective, theta, batch_stats, "decode", z_hat)
        quantization = jnp.mean((z - z_q) ** 2)
        return jnp.mean((images - x_hat) ** 2) + objective.quantization_weight * quantization

    return loss


def blend(shares):
    """All inner optimizers at once in given shares, so that one program serves the table."""
    optimizers = INNER_OPTIMIZERS.values()

    def update(gradient, states, params):
        results = [o.update(gradient, s, params) for o, s in zip(optimizers, states, strict=True)]
        updates = jax.tree.map(
            lambda *us: sum(share * u for share, u in zip(shares, us, strict=True)),
            *[updates for updates, _ in results],
        )
        return updates, tuple(state for _, state in results)

    return optax.GradientTransformation(lambda p: tuple(o.init(p) for o in optimizers), update)


@functools.cache
def make_slopes(codebook, straight_through, deep):
    """A program for d L_out(theta'(phi), phi) / d phi: by both exact kinds, and numerically."""
    objective = tiny.make_objective(codebook, deep=deep)

    @jax.jit
    def slopes(shares, parameters, batches, directions):
        theta, phi, batch_stats = parameters
        kinds = mq.STRAIGHT_THROUGH[straight_through]
        frozen_at = functools.partial(freeze_stopped_values, objective)
        inner = frozen_at(theta, phi, batch_stats, batches[0], kinds[0])
        inner_gradient = jax.grad(inner)

        optimizer = blend(shares)
        state = tiny.make_state(objective, Parts(optimizer, optax.sgd(1.0)))
        warm = state.opt_state.autoencoder
        for scale in (0.5, -1.5, 1.0):
            past = jax.tree.map(lambda g, s=scale: s * g, inner_gradient(theta, phi))
            _, warm = optimizer.update(past, warm, theta)
        state = state.replace(
            params=Parts(theta, phi),
            opt_state=state.opt_state._replace(autoencoder=warm),
            batch_stats=batch_stats,
        )

        def exact(kind):
            step = mq.make_train_step(
                objective,
                Parts(optimizer, optax.sgd(1.0)),
                hypergradient=kind,
                straight_through=straight_through,
            )
            new, metrics = step(state, *batches)
            # SGD at rate 1 moves the codebook by the gradient.
            return jax.tree.map(jnp.subtract, phi, new.params.codebook), new, metrics

        def theta_after(phi):
            updates, _ = optimizer.update(inner_gradient(theta, phi), warm, theta)
            return optax.apply_updates(theta, updates)

        outer = frozen_at(theta_after(phi), phi, batch_stats, batches[1], kinds[1])

        def numeric(direction):
            def value(h):
                moved = jax.tree.map(lambda p, d: p + h * d, phi, direction)
                return outer(theta_after(moved), moved)

            h = 1e-6
            plus, minus = jax.lax.map(value, jnp.asarray([h, -h]))
            return (plus - minus) / (2 * h)

        return [exact(kind) for kind in EXACT], jax.lax.map(numeric, directions)

    return slopes


TABLE = [("mlp", s, o, True) for s in mq.STRAIGHT_THROUGH for o in INNER_OPTIMIZERS] + [
    ("mlp-relu", "encoder-and-codewords-inside", "adam", False),
    ("linear", "encoder", "momentum", False),
    ("basis", "encoder-and-codewords", "adam", False),
    ("embedding", "encoder", "adam", False),
]


@functools.cache
def results(codebook, straight_through, optimizer, deep):
    parameters = tiny.make_parameters(tiny.make_objective(codebook, deep=deep), seed=1)
    rng = np.random.default_rng(0)
    directions = jax.tree.map(lambda p: rng.normal(size=(4, *p.shape)), parameters[1])
    shares = [float(name == optimizer) for name in INNER_OPTIMIZERS]
    batches = tiny.make_images(4, seed=1), tiny.make_images(4, seed=2)
    exact, numeric = make_slopes(codebook, straight_through, deep)(
        shares, parameters, batches, directions
    )
    return exact, numeric, directions


@pytest.mark.parametrize("codebook, straight_through, optimizer, deep", TABLE)
def test_reverse_over_forward_equals_reverse_over_reverse(
    codebook, straight_through, optimizer, deep
):
    (split, literal), _, _ = results(codebook, straight_through, optimizer, deep)
    leaves_equal(split, literal, rtol=1e-10, atol=1e-13)
    print([float(split[2][k]) for k in ("outer/direct_norm","outer/indirect_norm")], (split[2]["inner/code_counts"]>0).sum())
    assert split[2]["outer/indirect_norm"] > 0.01 * split[2]["outer/direct_norm"]


@pytest.mark.parametrize("codebook, straight_through, optimizer, deep", TABLE)
def test_exact_gradients_are_the_slope_of_the_outer_objective_with_stopped_values_frozen(
    codebook, straight_through, optimizer, deep
):
    """To autodiff a stopped value is a constant, at every order of differentiation.

    The inner gradient of `encoder` does change with the codewords through the value of z_hat,
    but its implemented derivative ignores that. So the function that is differentiated
    numerically takes its inner gradient from a loss whose stopped value is an array, captured
    at the phi where the slope is taken; the outer loss captures its own at theta'.
    """
    exact, numeric, directions = results(codebook, straight_through, optimizer, deep)
    for gradient, _, _ in exact:
        slopes = [
            optax.tree.vdot(gradient, jax.tree.map(lambda d, i=i: d[i], directions))
            for i in range(len(numeric))
        ]
        print(np.asarray(slopes)/numeric-1)
        np.testing.assert_allclose(slopes, numeric, rtol=1e-5)
