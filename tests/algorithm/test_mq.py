"""The paper's step: exact gradients on two levels, and the steps around them."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from mq_jax.algorithm import bilevel, mq
from mq_jax.algorithm.implicit import Implicit
from mq_jax.algorithm.problem import cut, level_keys, make_loss
from mq_jax.algorithm.state import Parts
from mq_jax.quantizers.codebook import KINDS
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.straight_through import apply_straight_through

EXACT = ("unrolled", "unrolled-reverse")
# The estimator of the inner and of the outer level, by the name of the pair.
STRAIGHT_THROUGH = {
    "encoder": ("encoder", "encoder"),
    "encoder-and-codewords": ("encoder-and-codewords", "encoder-and-codewords"),
    "encoder-and-codewords-inside": ("encoder-and-codewords", "encoder"),
    "rotation": ("rotation", "rotation"),
    "diveq": ("diveq", "diveq"),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-13}
INNER_OPTIMIZERS = {
    "sgd": tiny.make_sgd(0.1),
    "momentum": tiny.make_sgd(0.1, momentum=0.9),
    "adam": tiny.make_adam(0.01),
}


pytestmark = pytest.mark.usefixtures("float64")


def leaves_equal(a, b, **tolerance):
    """Asserts two trees of the same structure to be close; random keys are passed over."""

    def check(x, y):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, **tolerance)

    jax.tree.map(check, a, b)


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
    stop_gradient: the rounding error z_q - z for `encoder`, z for `encoder-and-codewords`, the
    turn and the scale for `rotation`, the direction from z to z_q for `diveq`.
    """
    z = forward(objective, theta, batch_stats, "encode", images)
    indices = nearest_codeword(z, objective.quantizer.fold(phi, ()))
    offset = objective.quantizer.fold(phi, ())[indices] - z
    direction = offset / jnp.linalg.norm(offset, axis=-1, keepdims=True)
    # Linear in z, so that its slope is the whole of it.
    here, there = z, z + offset
    turned, turn = jax.linearize(lambda z: apply_straight_through(z, there, kind="rotation"), here)
    estimators = {
        "encoder": lambda z, z_q: z + offset,
        "encoder-and-codewords": lambda z, z_q: z_q + z - here,
        "rotation": lambda z, z_q: turned + turn(z - here),
        "diveq": lambda z, z_q: z + jnp.linalg.norm(z_q - z, axis=-1, keepdims=True) * direction,
    }

    def loss(theta, phi):
        z = forward(objective, theta, batch_stats, "encode", images)
        z_q = objective.quantizer.fold(phi, ())[indices]
        x_hat = forward(objective, theta, batch_stats, "decode", estimators[kind](z, z_q))
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

    def init(params):
        return tuple(o.init(params) for o in optimizers)

    return optax.flatten(optax.GradientTransformation(init, update))


@functools.cache
def make_slopes(codebook, straight_through, deep):
    """A program for d L_out(theta'(phi), phi) / d phi: by both exact kinds, and numerically."""
    objective = tiny.make_objective(codebook, deep=deep)

    @tiny.jit
    def slopes(shares, parameters, past_gradients, batches, directions):
        theta, phi, batch_stats = parameters
        kinds = STRAIGHT_THROUGH[straight_through]
        frozen_at = functools.partial(freeze_stopped_values, objective)
        inner = frozen_at(theta, phi, batch_stats, batches[0], kinds[0])
        inner_gradient = jax.grad(inner)

        optimizer = blend(shares)
        state = tiny.make_state(objective, Parts(optimizer, optax.sgd(1.0)))
        warm, _ = jax.lax.scan(
            lambda opt_state, past: (optimizer.update(past, opt_state, theta)[1], None),
            state.opt_state.autoencoder,
            past_gradients,
        )
        state = state.replace(
            params=Parts(theta, phi),
            opt_state=state.opt_state._replace(autoencoder=warm),
            batch_stats=batch_stats,
        )

        def exact(kind):
            step = mq.make_train_step(
                mq.Problem(objective, Parts(optimizer, optax.sgd(1.0))),
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


# Each kind of codebook, each pair of estimators, under each optimizer: one program a row.
ROWS = [
    ("mlp", "encoder", True),
    ("mlp-relu", "encoder-and-codewords-inside", False),
    ("linear", "encoder-and-codewords", False),
    ("basis", "encoder-and-codewords-inside", False),
    ("embedding", "encoder", False),
    ("mlp", "rotation", False),
    ("linear", "diveq", False),
]
CASES = pytest.mark.parametrize(
    "codebook, straight_through, deep, optimizer",
    [(*row, optimizer) for row in ROWS for optimizer in INNER_OPTIMIZERS],
)


@functools.cache
def slopes_of(codebook, straight_through, deep, optimizer):
    parameters = tiny.make_parameters(tiny.make_objective(codebook, deep=deep), seed=1)
    rng = np.random.default_rng(0)
    directions = jax.tree.map(lambda p: rng.normal(size=(4, *p.shape)), parameters[1])
    past_gradients = jax.tree.map(
        lambda p: rng.normal(scale=0.1, size=(3, *p.shape)), parameters[0]
    )
    shares = [float(name == optimizer) for name in INNER_OPTIMIZERS]
    batches = tiny.make_images(4, seed=1), tiny.make_images(4, seed=2)
    exact, numeric = make_slopes(codebook, straight_through, deep)(
        shares, parameters, past_gradients, batches, directions
    )
    return exact, numeric, directions


def test_every_kind_of_codebook_and_pair_of_estimators_is_in_the_tables():
    # The others hold a map or a direction constant; tests/quantizers has their closed forms.
    others = {kind: (kind, kind) for kind in ("rotation", "diveq")}
    assert STRAIGHT_THROUGH | others == mq.STRAIGHT_THROUGH
    assert {pair for _, pair, _ in ROWS} == STRAIGHT_THROUGH.keys()
    assert {codebook for codebook, _, _ in ROWS} == set(KINDS)


@CASES
def test_reverse_over_forward_equals_reverse_over_reverse(
    codebook, straight_through, deep, optimizer
):
    (split, literal), _, _ = slopes_of(codebook, straight_through, deep, optimizer)
    leaves_equal(split, literal, **CLOSE)
    _, _, metrics = split
    assert metrics["outer/indirect_norm"] > 0.01 * metrics["outer/direct_norm"]


@CASES
def test_exact_gradients_are_slopes_of_the_outer_objective_with_stopped_values_frozen(
    codebook, straight_through, deep, optimizer
):
    """To autodiff a stopped value is a constant, at every order of differentiation.

    The inner gradient of `encoder` does change with the codewords through the value of z_hat,
    but its implemented derivative ignores that. So the function that is differentiated
    numerically takes its inner gradient from a loss whose stopped value is an array, captured
    at the phi where the slope is taken; the outer loss captures its own at theta'.
    """
    exact, numeric, directions = slopes_of(codebook, straight_through, deep, optimizer)
    for gradient, _, _ in exact:
        slopes = [
            optax.tree.vdot(gradient, jax.tree.map(lambda d, i=i: d[i], directions))
            for i in range(len(numeric))
        ]
        np.testing.assert_allclose(slopes, numeric, rtol=1e-6)


@pytest.mark.parametrize("stopped", [False, True])
def test_stop_gradient_between_levels_would_zero_the_indirect_part(stopped):
    """With the usual commitment and codebook terms, nothing in grad_theta L depends on phi."""
    objective, stop = tiny.make_objective(), jax.lax.stop_gradient

    def loss(parameters, theta, phi, images):
        loss, outputs = objective(theta, phi, parameters[2], images, straight_through="encoder")
        if stopped:
            z = forward(objective, theta, parameters[2], "encode", images)
            z_q = objective.quantizer.fold(phi, ())[outputs.indices]
            terms = jnp.mean((z - stop(z_q)) ** 2) + jnp.mean((stop(z) - z_q) ** 2)
            loss = outputs.terms["reconstruction"] + objective.quantization_weight * terms
        return loss, outputs

    @tiny.jit
    def parts(parameters, *batches):
        theta, phi, _ = parameters
        on_images = functools.partial(loss, parameters)
        batches = tuple(images[None] for images in batches)
        adam = INNER_OPTIMIZERS["adam"]
        results = [
            bilevel.hypergradient(
                on_images, on_images, adam, theta, adam.init(theta), phi, batches, kind=kind
            )
            for kind in EXACT
        ]
        return [(result.direct, result.indirect) for result in results]

    batches = tiny.make_images(4, seed=1), tiny.make_images(4, seed=2)
    for direct, indirect in parts(tiny.make_parameters(objective), *batches):
        assert optax.tree.norm(direct) > 1e-3
        if stopped:
            assert all((leaf == 0).all() for leaf in jax.tree.leaves(indirect))
        else:
            assert optax.tree.norm(indirect) > 1e-6


def make_indirect(**changes):
    """A program for the indirect part, exact and by finite difference, with inner SGD."""
    objective = tiny.make_objective()
    quantizer = dataclasses.replace(objective.quantizer, **changes)
    objective = objective._replace(quantizer=quantizer)

    def indirect(learning_rate, params, *batches):
        optimizers = Parts(optax.sgd(learning_rate), optax.sgd(1.0))
        state = tiny.make_state(objective, optimizers).replace(params=params)
        moved, metrics = {}, {}
        for kind in ("none", "unrolled", "finite-difference"):
            step = mq.make_train_step(
                mq.Problem(objective, optimizers), hypergradient=kind, straight_through="encoder"
            )
            new, metrics[kind] = step(state, *batches)
            moved[kind] = new.params.codebook
        # SGD at rate 1: what the direct part alone leaves out.
        exact, difference = [
            jax.tree.map(jnp.subtract, moved["none"], moved[kind])
            for kind in ("unrolled", "finite-difference")
        ]
        return exact, difference, metrics["finite-difference"]["outer/probe_flip_rate"]

    return tiny.jit(indirect)


def test_codes_held_fixed_the_finite_difference_is_the_exact_part_over_the_learning_rate(
    monkeypatch,
):
    fixed = jnp.asarray(np.random.default_rng(0).integers(0, 16, (8, 4, 4)))
    monkeypatch.setattr(bilevel, "PROBE", 1e-4)
    params = tiny.make_state(tiny.make_objective(), OPTIMIZERS).params
    batches = tiny.make_images(8, seed=1), tiny.make_images(8, seed=2)
    indirect = make_indirect(lookup=lambda z, codebook: fixed[: len(z)])
    for learning_rate in (1e-2, 1e-4, 1e-6):
        exact, difference, flips = indirect(learning_rate, params, *batches)
        assert flips == 0
        assert cosine(exact, difference) > 0.999
        ratio = optax.tree.norm(exact) / optax.tree.norm(difference)
        np.testing.assert_allclose(ratio, learning_rate, rtol=1e-3)


def test_codes_left_free_flip_between_the_probes_and_turn_the_finite_difference_away():
    """At the authors' eps, in a network at its initialisation."""
    objective = tiny.make_objective()
    batches = tiny.make_images(8, seed=1), tiny.make_images(8, seed=2)

    @tiny.jit
    def initialise(key):
        theta = objective.autoencoder.init(key, batches[0], train=True)["params"]
        params = Parts(theta, objective.quantizer.init(key)[0])
        return jax.tree.map(lambda p: p.astype(jnp.float64), params)

    exact, difference, flips = make_indirect()(1e-4, initialise(jax.random.key(1)), *batches)
    assert flips > 0.1
    assert cosine(exact, difference) < 0.8


# Programs that the tests below share; their state is donated.
OPTIMIZERS = Parts(tiny.make_adam(1e-2), tiny.make_sgd(0.1, momentum=0.9))
PULLBACK = tiny.make_adam(1e-2, eps=1e-2)
TWO_LEVELS = (*bilevel.KINDS, "pullback")
STEPS = (*TWO_LEVELS, "inner", "joint")
# Kinds that differ from others in their hyper-gradient alone, which the engine's tests hold.
FAMILY = ("sama", "identity", "neumann", "cg")
every_step = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind in FAMILY else ()) for kind in STEPS],
)


@functools.cache
def make_step(kind):
    problem = mq.Problem(tiny.make_objective(), OPTIMIZERS)
    if kind in TWO_LEVELS:
        options = {"hypergradient": kind}
        if kind == "pullback":
            options = {"hypergradient": "unrolled", "pullback_optimizer": PULLBACK}
        step = mq.make_train_step(problem, straight_through="encoder", **options)
    elif kind == "inner":
        step = mq.make_inner_step(problem)
    else:
        step = mq.make_joint_step(problem, straight_through="encoder")
    return tiny.jit(step, donate_argnums=0)


def start():
    return tiny.make_state(tiny.make_objective(), OPTIMIZERS)


@functools.partial(tiny.jit, static_argnames="train")
def evaluate(state, images, train=True):
    """(L, Outputs) at a state."""
    objective, (theta, phi, _) = tiny.make_objective(), state.params
    return objective(theta, phi, state.batch_stats, images, straight_through="encoder", train=train)


def batches_of(step):
    return tiny.make_images(4, seed=2 * step), tiny.make_images(4, seed=2 * step + 1)


@every_step
def test_thirty_steps_compile_once_and_leave_no_old_state_behind(kind):
    step, state = make_step(kind), start()
    for i in range(30):
        old = jax.tree.leaves(state)
        state, metrics = step(state, *batches_of(i % 3))
        assert all(leaf.is_deleted() for leaf in old)
    assert step._cache_size() == 1
    assert state.step == 30
    assert all(np.isfinite(value).all() for value in jax.tree.leaves((state.params, metrics)))


@every_step
def test_running_statistics_advance_once_a_step_by_the_inner_pass(kind):
    images, other = batches_of(0)
    _, outputs = evaluate(start(), images)
    new, _ = make_step(kind)(start(), images, other)
    leaves_equal(new.batch_stats, outputs.batch_stats, rtol=1e-12)


def test_the_codebook_moves_by_the_sum_of_both_parts():
    """Momentum SGD at rate 0.1, at its first step: |direct + indirect| by the law of cosines."""
    for kind in ("unrolled", "finite-difference", "none"):
        before = start().params.codebook
        new, metrics = make_step(kind)(start(), *batches_of(0))
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, new.params.codebook, before)) / 0.1
        direct, indirect = metrics["outer/direct_norm"], metrics["outer/indirect_norm"]
        product = direct * indirect * metrics["outer/direct_indirect_cosine"]
        np.testing.assert_allclose(moved**2, direct**2 + indirect**2 + 2 * product, rtol=1e-9)
        assert (indirect == 0) == (kind == "none")


def test_both_exact_kinds_take_the_same_step():
    split, literal = [make_step(kind)(start(), *batches_of(0)) for kind in EXACT]
    leaves_equal(split, literal, **CLOSE)


@pytest.mark.parametrize("kind", ["none", "finite-difference", "pullback"])
def test_kinds_differ_in_what_they_tell_the_codebook_and_in_nothing_else(kind):
    exact, exact_metrics = make_step("unrolled")(start(), *batches_of(0))
    other, other_metrics = make_step(kind)(start(), *batches_of(0))
    same = ("inner/loss", "inner/gradient_norm", "outer/loss", "outer/direct_norm")
    leaves_equal(*[[m[name] for name in same] for m in (exact_metrics, other_metrics)], rtol=1e-12)
    leaves_equal(exact.params.autoencoder, other.params.autoencoder, rtol=1e-12)
    leaves_equal(exact.batch_stats, other.batch_stats, rtol=1e-12)
    gap = jax.tree.map(jnp.subtract, exact.params.codebook, other.params.codebook)
    assert optax.tree.norm(gap) > 1e-7


@pytest.mark.slow
def test_conjugate_gradients_solve_the_dense_system_of_the_real_loss():
    """All of H, column by column at fixed codes."""
    problem = mq.Problem(tiny.make_objective(), Parts(tiny.make_sgd(0.1), OPTIMIZERS.codebook))
    state = tiny.make_state(problem.objective, problem.optimizers)
    theta, phi, _ = state.params
    loss = make_loss(problem, state, (), "encoder-and-codewords")
    keys = level_keys(state)
    batches = [cut(x, key, 1) for x, key in zip(batches_of(0), keys, strict=True)]

    @tiny.jit
    def dense():
        _, gradient = bilevel.value_and_gradient(loss, theta, phi, batches[0])
        after, _ = bilevel.take_step(
            problem.optimizers.autoencoder, gradient, state.opt_state.autoencoder, theta
        )
        _, v = bilevel.value_and_gradient(loss, after, phi, batches[1])
        flat, unravel = jax.flatten_util.ravel_pytree(after)
        part = jax.tree.map(lambda leaf: leaf[0], batches[0])
        slope = jax.grad(lambda t: loss(unravel(t), phi, part)[0])
        columns = jax.lax.map(lambda e: jax.jvp(slope, (flat,), (e,))[1], jnp.eye(flat.size))
        return columns, jax.flatten_util.ravel_pytree(v)[0], after

    hessian, v, after = dense()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-10)
    # It has eigenvalues of either sign: damped by more than its norm it is positive.
    damping = float(jnp.linalg.norm(hessian, 2)) * 1.5
    u = jnp.linalg.solve(hessian + damping * jnp.eye(v.size), v)
    unravel = jax.flatten_util.ravel_pytree(after)[1]
    mixed = tiny.jit(lambda u: bilevel.mixed_derivative(loss, after, phi, batches[0], u))
    want, unsolved = mixed(unravel(-u)), mixed(unravel(-v / damping))
    result = tiny.jit(
        lambda: bilevel.hypergradient(
            *(loss, loss, problem.optimizers.autoencoder, theta, state.opt_state.autoencoder),
            *(phi, batches),
            kind="cg",
            implicit=Implicit(terms=8, damping=damping),
        )
    )()
    gaps = [
        float(optax.tree.norm(jax.tree.map(jnp.subtract, found, want)) / optax.tree.norm(want))
        for found in (result.indirect, unsolved)
    ]
    assert gaps[0] < 5e-3 and gaps[0] < gaps[1] / 10, gaps
    assert result.residual < 5e-3


def test_each_level_reads_its_own_batch_and_the_outer_one_the_new_theta():
    batches = batches_of(0)
    new, metrics = make_step("unrolled")(start(), *batches)
    before = start()
    after = before.replace(params=before.params._replace(autoencoder=new.params.autoencoder))
    for level, state, images in zip(("inner", "outer"), (before, after), batches, strict=True):
        loss, outputs = evaluate(state, images)
        want = {
            f"{level}/loss": loss,
            f"{level}/reconstruction": outputs.terms["reconstruction"],
            f"{level}/quantization": outputs.terms["quantization"],
        }
        leaves_equal({name: metrics[name] for name in want}, want, rtol=1e-12)


def test_the_objective_is_reconstruction_plus_weighted_quantization():
    objective, state, (images, _) = tiny.make_objective(), start(), batches_of(0)
    loss, outputs = evaluate(state, images)
    codewords = objective.quantizer.fold(state.params.codebook, ())
    z_q = codewords[outputs.indices]
    np.testing.assert_allclose(
        outputs.terms["reconstruction"], np.mean((images - outputs.images) ** 2)
    )
    np.testing.assert_allclose(outputs.terms["quantization"], np.mean((outputs.z - z_q) ** 2))
    np.testing.assert_allclose(
        loss, outputs.terms["reconstruction"] + 0.5 * outputs.terms["quantization"]
    )


def test_one_pass_advances_the_running_statistics_of_both_halves():
    objective, state, (images, _) = tiny.make_objective(), start(), batches_of(0)
    _, outputs = evaluate(state, images)

    @functools.partial(tiny.jit, static_argnums=0)
    def advance(method, argument):
        variables = {"params": state.params.autoencoder, "batch_stats": state.batch_stats}
        return objective.autoencoder.apply(
            variables, argument, train=True, method=method, mutable=["batch_stats"]
        )[1]["batch_stats"]

    z_q = objective.quantizer.fold(state.params.codebook, ())[outputs.indices]
    for half, method, argument in (("encoder", "encode", images), ("decoder", "decode", z_q)):
        alone = advance(method, argument)
        leaves_equal(outputs.batch_stats[half], alone[half], **CLOSE)
        moved = jax.tree.map(jnp.subtract, outputs.batch_stats[half], state.batch_stats[half])
        assert all((leaf != 0).all() for leaf in jax.tree.leaves(moved))


def test_code_counts_are_those_of_the_inner_batch():
    images, other = batches_of(0)
    _, outputs = evaluate(start(), images)
    want = np.bincount(np.ravel(outputs.indices), minlength=16)
    for kind in [kind for kind in STEPS if kind not in FAMILY]:
        _, metrics = make_step(kind)(start(), images, other)
        np.testing.assert_array_equal(metrics["inner/code_counts"], want)


def test_the_code_flip_rate_counts_what_the_new_codebook_reassigns():
    """On the first image of every eight of the outer batch."""
    objective = tiny.make_objective()
    optimizers = Parts(optax.set_to_zero(), tiny.make_sgd(3.0))
    step = mq.make_train_step(
        mq.Problem(objective, optimizers), hypergradient="none", straight_through="encoder"
    )
    state, images = tiny.make_state(objective, optimizers), tiny.make_images(9, seed=0)
    new, metrics = tiny.jit(step)(state, images, images)
    z = evaluate(state, images)[1].z[::8]
    before, after = [
        nearest_codeword(z, objective.quantizer.fold(s.params.codebook, ())) for s in (state, new)
    ]
    assert 0 < np.mean(before != after) < 1
    np.testing.assert_allclose(metrics["outer/code_flip_rate"], np.mean(before != after))


def test_of_two_inner_steps_and_one_on_both_levels_only_the_last_moves_the_codebook():
    """Each takes the inner step that a step on both levels would take, and reports it."""
    state = start()
    for i, kind in enumerate(("inner", "inner", "unrolled")):
        batch, outer_batch = batches_of(i)
        both, want = make_step("unrolled")(jax.tree.map(jnp.copy, state), batch, outer_batch)
        before = jax.tree.map(np.asarray, (state.params.codebook, state.opt_state.codebook))
        read = kind == "unrolled"
        unread = jnp.full_like(outer_batch, jnp.nan)
        state, metrics = make_step(kind)(state, batch, outer_batch if read else unread)

        assert state.step == i + 1
        for name in ("params", "opt_state"):
            leaves_equal(getattr(state, name).autoencoder, getattr(both, name).autoencoder, **CLOSE)
        leaves_equal(state.batch_stats, both.batch_stats, **CLOSE)
        inner = {name: value for name, value in want.items() if name.startswith("inner/")}
        leaves_equal(metrics, want if read else inner, **CLOSE)
        assert metrics.get("outer/updates", 0) == read
        moved = jax.tree.map(np.subtract, (state.params.codebook, state.opt_state.codebook), before)
        assert (optax.tree.norm(moved) > 1e-6) == read


def test_the_joint_step_is_a_double_optax_update():
    objective = tiny.make_objective()

    @tiny.jit
    def by_hand(params, opt_state, batch_stats, images):
        gradients, outputs = jax.grad(objective, argnums=(0, 1), has_aux=True)(
            *params[:2], batch_stats, images, straight_through="encoder"
        )
        updates, theta_state = OPTIMIZERS[0].update(gradients[0], opt_state[0], params[0])
        theta = optax.apply_updates(params[0], updates)
        updates, phi_state = OPTIMIZERS[1].update(gradients[1], opt_state[1], params[1])
        phi = optax.apply_updates(params[1], updates)
        norms = [optax.tree.norm(gradient) for gradient in gradients]
        return Parts(theta, phi), Parts(theta_state, phi_state), outputs.batch_stats, norms

    state = start()
    *want, norms = state.params, state.opt_state, state.batch_stats, None
    want = jax.tree.map(jnp.copy, want)
    for i in range(3):
        images, unread = batches_of(i)
        *want, norms = by_hand(*want, images)
        state, metrics = make_step("joint")(state, images, jnp.full_like(unread, jnp.nan))
    leaves_equal([state.params, state.opt_state, state.batch_stats], want, **CLOSE)
    names = ("inner/gradient_norm", "inner/codebook_gradient_norm")
    np.testing.assert_allclose([metrics[name] for name in names], norms, rtol=1e-9)


def test_evaluation_uses_the_running_statistics_and_leaves_them_alone():
    state, images = start(), tiny.make_images(4, seed=0)
    _, together = evaluate(state, images, train=False)
    _, alone = evaluate(state, images[:1], train=False)
    np.testing.assert_allclose(together.images[:1], alone.images, rtol=1e-10)
    leaves_equal(together.batch_stats, state.batch_stats, rtol=0)
