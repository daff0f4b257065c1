"""MQGAN: the paper's step with LPIPS-like and adversarial terms, exact in both levels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import tiny_gan

from mq_jax.algorithm import mq
from mq_jax.algorithm.losses import ADAPTIVE_FLOOR
from mq_jax.algorithm.objective import Opponent
from mq_jax.algorithm.pipelined import make_pipelined_step
from mq_jax.algorithm.state import Parts, Past

EXACT = ("unrolled", "unrolled-reverse")
OPTIMIZERS = Parts(tiny.make_adam(1e-2), tiny.make_sgd(0.1, momentum=0.9), tiny.make_adam(1e-2))
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


pytestmark = pytest.mark.usefixtures("float64")


def batches_of(step, size=4):
    return tiny.make_images(size, seed=2 * step), tiny.make_images(size, seed=2 * step + 1)


def trees_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, **(tolerance or CLOSE))


def make_step(problem, kind="unrolled", straight_through="encoder"):
    if kind == "joint":
        return mq.make_joint_step(problem, straight_through=straight_through)
    if kind == "pipelined":
        return make_pipelined_step(problem, straight_through=straight_through)
    if kind == "inner":
        return mq.make_inner_step(problem)
    return mq.make_train_step(problem, hypergradient=kind, straight_through=straight_through)


def apply(objective, theta, batch_stats, method, argument):
    variables = {"params": theta, "batch_stats": batch_stats}
    return objective.autoencoder.apply(
        variables, argument, train=True, method=method, mutable=["batch_stats"]
    )[0]


def evaluate(problem, state, images, *, theta=None, kind="encoder", **changes):
    """(L, Outputs) at a state, or at another theta."""
    here, phi, psi = state.params
    return problem.objective._replace(**changes)(
        here if theta is None else theta,
        phi,
        state.batch_stats,
        images,
        straight_through=kind,
        frozen=tiny_gan.FROZEN,
        opponent=Opponent(psi, problem.adversary.weight(state.step)),
    )


def freeze_constants(problem, state, theta, phi, images, kind):
    """L as a plain function of theta and phi: what autodiff takes for constant is an array here.

    The codes, the rounding error inside the estimator, and the adaptive weight, each at the
    given point.
    """
    objective, opponent = problem.objective, problem.adversary.opponent(state)
    _, outputs = evaluate(problem, state, images, theta=theta, kind=kind)
    codebook = objective.quantizer.fold(phi, ())
    offset = codebook[outputs.indices] - outputs.z if kind == "encoder" else -outputs.z
    a = outputs.terms["adaptive_weight"]

    def loss(theta, phi):
        z = apply(objective, theta, state.batch_stats, "encode", images)
        z_q = objective.quantizer.fold(phi, ())[outputs.indices]
        z_hat = z + offset if kind == "encoder" else z_q + z + offset
        x_hat = apply(objective, theta, state.batch_stats, "decode", z_hat)
        logits = objective.adversarial.discriminator.apply({"params": opponent.psi}, x_hat)
        return (
            jnp.mean((images - x_hat) ** 2)
            + 0.7 * jnp.mean(tiny_gan.distance(tiny_gan.FROZEN, images, x_hat))
            + 0.5 * jnp.mean((z - z_q) ** 2)
            + opponent.weight * a * jnp.mean(jax.nn.softplus(-logits))
        )

    return loss


@functools.cache
def slopes(straight_through, vqgan):
    """d L_out(theta'(phi), phi) / d phi by both exact kinds, and numerically, after a warm-up."""
    adam = tiny.make_adam(0.01)
    problem = tiny_gan.make_problem(
        Parts(adam, optax.sgd(1.0), optax.sgd(0.0)), loss="non-saturating", vqgan=vqgan
    )
    kinds = mq.STRAIGHT_THROUGH[straight_through]
    state, batches = tiny_gan.make_state(problem, seed=3), batches_of(0)
    rng = np.random.default_rng(0)
    past, directions = (
        jax.tree.map(lambda p, n=n: rng.normal(scale=0.1, size=(n, *p.shape)), tree)
        for n, tree in ((3, state.params.autoencoder), (4, state.params.codebook))
    )

    @tiny.jit
    def run(state, past, directions):
        theta, phi, _ = state.params
        warm = jax.lax.scan(
            lambda opt_state, gradient: (adam.update(gradient, opt_state, theta)[1], None),
            state.opt_state.autoencoder,
            past,
        )[0]
        state = state.replace(opt_state=state.opt_state._replace(autoencoder=warm))

        def exact(kind):
            new, metrics = make_step(problem, kind, straight_through)(
                state, *batches, tiny_gan.FROZEN
            )
            # SGD at rate 1 moves the codebook by the gradient.
            return jax.tree.map(jnp.subtract, phi, new.params.codebook), new, metrics

        inner = freeze_constants(problem, state, theta, phi, batches[0], kinds[0])

        def theta_after(phi):
            updates, _ = adam.update(jax.grad(inner)(theta, phi), warm, theta)
            return optax.apply_updates(theta, updates)

        outer = freeze_constants(problem, state, theta_after(phi), phi, batches[1], kinds[1])

        def numeric(direction):
            def value(h):
                moved = jax.tree.map(lambda p, d: p + h * d, phi, direction)
                return outer(theta_after(moved), moved)

            plus, minus = jax.lax.map(value, jnp.asarray([1e-6, -1e-6]))
            return (plus - minus) / 2e-6

        return [exact(kind) for kind in EXACT], jax.lax.map(numeric, directions)

    return *run(state, past, directions), directions


@pytest.mark.parametrize(
    "straight_through, vqgan",
    [
        ("encoder-and-codewords-inside", False),
        *(pytest.param(kind, True, marks=pytest.mark.slow) for kind in mq.STRAIGHT_THROUGH),
    ],
)
def test_the_hypergradient_of_mqgan_is_exact(straight_through, vqgan):
    """Both forms agree, and are the slope of the outer objective along four directions."""
    (split, literal), numeric, directions = slopes(straight_through, vqgan)
    trees_close(split, literal)
    gradient, _, metrics = split
    along = [
        optax.tree.vdot(gradient, jax.tree.map(lambda d, i=i: d[i], directions)) for i in range(4)
    ]
    np.testing.assert_allclose(along, numeric, rtol=1e-6)
    assert metrics["outer/indirect_norm"] > 0.001 * metrics["outer/direct_norm"]
    assert metrics["inner/adversarial"] > 0 and metrics["inner/perceptual"] > 0


@pytest.mark.slow
def test_adversarial_and_perceptual_terms_reach_the_indirect_part():
    """Not through the inner gradient's own dependence on the codebook alone: through v."""
    optimizers = Parts(tiny.make_sgd(0.1), optax.sgd(1.0), optax.sgd(0.0))
    norms = []
    for weight in (0.0, 50.0):
        problem = tiny_gan.make_problem(
            optimizers, adaptive=False, weight=lambda step, w=weight: jnp.asarray(w)
        )
        state = tiny_gan.make_state(problem)
        _, metrics = tiny.jit(make_step(problem))(state, *batches_of(0), tiny_gan.FROZEN)
        norms.append(metrics["outer/indirect_norm"])
    assert norms[1] > 2 * norms[0] > 0


def test_the_adaptive_weight_is_the_ratio_of_whole_gradients_at_the_last_kernel():
    """Taken by differentiating all of theta, where the program goes through one layer."""
    problem, images = tiny_gan.make_problem(OPTIMIZERS), tiny.make_images(4, seed=1)
    state = tiny_gan.make_state(problem)

    @tiny.jit
    def norms(state):
        def task(theta):
            loss, outputs = evaluate(problem, state, images, theta=theta, adversarial=None)
            return loss - 0.5 * outputs.terms["quantization"]

        def adversarial(theta):
            return evaluate(problem, state, images, theta=theta)[1].terms["adversarial"]

        theta = state.params.autoencoder
        gradients = [jax.grad(loss)(theta) for loss in (task, adversarial)]
        return [jnp.linalg.norm(g["decoder"]["head"]["kernel"].ravel()) for g in gradients]

    task, adversarial = norms(state)
    loss, outputs = evaluate(problem, state, images)
    terms = outputs.terms
    a = task / (adversarial + ADAPTIVE_FLOOR)
    np.testing.assert_allclose(terms["adaptive_weight"], a, rtol=1e-9)
    assert terms["adaptive_clipped"] == 0
    want = terms["reconstruction"] + 0.7 * terms["perceptual"] + 0.5 * terms["quantization"]
    np.testing.assert_allclose(loss, want + 0.8 * a * terms["adversarial"], rtol=1e-9)


def test_the_adaptive_weight_stops_at_its_cap_and_says_so():
    problem, images = tiny_gan.make_problem(OPTIMIZERS, cap=1e-3), tiny.make_images(4, seed=1)
    _, outputs = evaluate(problem, tiny_gan.make_state(problem), images)
    assert outputs.terms["adaptive_weight"] == 1e-3
    assert outputs.terms["adaptive_clipped"] == 1


def test_the_adaptive_weight_is_a_constant_to_the_gradient():
    problem, images = tiny_gan.make_problem(OPTIMIZERS), tiny.make_images(4, seed=1)
    state = tiny_gan.make_state(problem)
    a = evaluate(problem, state, images)[1].terms["adaptive_weight"]

    def gradient(objective, weight):
        def loss(theta):
            _, phi, psi = state.params
            return objective(
                *(theta, phi, state.batch_stats, images),
                straight_through="encoder",
                frozen=tiny_gan.FROZEN,
                opponent=Opponent(psi, weight),
            )[0]

        return tiny.jit(jax.grad(loss))(state.params.autoencoder)

    fixed = problem.objective._replace(
        adversarial=problem.objective.adversarial._replace(adaptive=False)
    )
    trees_close(gradient(problem.objective, 0.8), gradient(fixed, 0.8 * a))


def test_the_discriminator_learns_from_the_inner_pass_alone():
    """A double Optax update by hand, on the inner batch and its reconstructions before the step."""
    problem = tiny_gan.make_problem(OPTIMIZERS)
    state, (images, other) = tiny_gan.make_state(problem), batches_of(0)
    x_hat = evaluate(problem, state, images)[1].images
    discriminator = problem.adversary.discriminator

    def loss(psi):
        real, fake = (discriminator.apply({"params": psi}, x) for x in (images, x_hat))
        relu = lambda x: jnp.maximum(x, 0)  # noqa: E731
        return (jnp.mean(relu(1 - real)) + jnp.mean(relu(1 + fake))) / 2, (real, fake)

    psi = state.params.discriminator
    (value, (real, fake)), gradient = tiny.jit(jax.value_and_grad(loss, has_aux=True))(psi)
    updates, _ = OPTIMIZERS.discriminator.update(gradient, state.opt_state.discriminator, psi)
    want = optax.apply_updates(psi, updates)
    for kind in ("unrolled", "inner", "joint"):
        new, metrics = tiny.jit(make_step(problem, kind))(state, images, other, tiny_gan.FROZEN)
        trees_close(new.params.discriminator, want)
        np.testing.assert_allclose(metrics["disc/loss"], value, rtol=1e-9)
        np.testing.assert_allclose(metrics["disc/accuracy_real"], np.mean(real > 0))
        np.testing.assert_allclose(metrics["disc/accuracy_fake"], np.mean(fake < 0))
        np.testing.assert_allclose(
            new.anchors, 0.99 * state.anchors + 0.01 * np.array([real.mean(), fake.mean()])
        )


def test_the_adversary_enters_in_two_stages_inside_one_program():
    """It learns from step 2 on, weighs from step 4 on, in full from step 6 on."""
    problem = tiny_gan.make_problem(OPTIMIZERS, weight=tiny_gan.ramp(4, 3), train_from=2)
    step = tiny.jit(make_step(problem))
    state, history, states = tiny_gan.make_state(problem), [], []
    for i in range(8):
        states.append(state)
        state, metrics = step(state, *batches_of(i), tiny_gan.FROZEN)
        history.append(metrics)
    assert step._cache_size() == 1
    column = lambda name: [float(metrics[name]) for metrics in history]  # noqa: E731
    assert column("disc/trains") == [0, 0, 1, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(
        column("disc/weight"), 0.8 * np.array([0, 0, 0, 0, 1, 2, 3, 3]) / 3, rtol=1e-6
    )
    psis = [s.params.discriminator for s in states]
    trees_close(psis[2], psis[0], rtol=0)
    # Its optimizer has stood still with it: its schedule is its own.
    trees_close(states[2].opt_state.discriminator, states[0].opt_state.discriminator, rtol=0)
    trees_close(states[2].anchors, states[0].anchors, rtol=0)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, psis[3], psis[2])) > 0
    silent = tiny_gan.make_problem(OPTIMIZERS, weight=lambda step: jnp.zeros(()), train_from=2)
    without = tiny.jit(make_step(silent))
    for i, heard in ((3, False), (4, True)):
        moved, _ = without(states[i], *batches_of(i), tiny_gan.FROZEN)
        difference = jax.tree.map(
            jnp.subtract, moved.params.autoencoder, states[i + 1].params.autoencoder
        )
        assert (optax.tree.norm(difference) > 1e-8) == heard


@pytest.mark.parametrize("adversary", [{"r1": 3.0}, {"lecam": 2.0}], ids=["r1", "lecam"])
def test_regularisers_of_the_discriminator_have_their_closed_form(adversary):
    plain = tiny_gan.make_problem(OPTIMIZERS, loss="non-saturating")
    problem = tiny_gan.make_problem(OPTIMIZERS, loss="non-saturating", **adversary)
    state, (images, other) = tiny_gan.make_state(problem), batches_of(0)
    _, want = tiny.jit(make_step(plain, "inner"))(state, images, other, tiny_gan.FROZEN)
    _, got = tiny.jit(make_step(problem, "inner"))(state, images, other, tiny_gan.FROZEN)
    judge = lambda x: plain.adversary.discriminator.apply(  # noqa: E731
        {"params": state.params.discriminator}, x
    )
    if "r1" in adversary:
        rng, h = np.random.default_rng(0), 1e-5
        jacobian = jax.vmap(jax.grad(lambda x: judge(x[None]).sum()))(images)
        direction = rng.normal(size=images.shape)
        slope = (judge(images + h * direction) - judge(images - h * direction)).sum() / (2 * h)
        np.testing.assert_allclose(np.sum(jacobian * direction), slope, rtol=1e-6)
        extra = 3.0 / 2 * np.mean(np.sum(np.square(jacobian), axis=(1, 2, 3)))
    else:
        x_hat = evaluate(problem, state, images)[1].images
        real, fake = state.anchors
        extra = 2.0 * (np.mean((judge(images) - fake) ** 2) + np.mean((judge(x_hat) - real) ** 2))
    np.testing.assert_allclose(got["disc/loss"] - want["disc/loss"], extra, rtol=1e-8)


def test_moving_averages_follow_all_that_evaluation_takes_statistics_included():
    problem = tiny_gan.make_problem(OPTIMIZERS, ema_decay=0.3)
    step, state = tiny.jit(make_step(problem)), tiny_gan.make_state(problem)
    model_of = lambda state: (*state.params[:2], state.batch_stats)  # noqa: E731
    want = [np.array(leaf) for leaf in jax.tree.leaves(model_of(state))]
    for i in range(5):
        state, _ = step(state, *batches_of(i), tiny_gan.FROZEN)
        decay = min(0.3, (1 + i) / (10 + i))
        new = [np.array(leaf) for leaf in jax.tree.leaves(model_of(state))]
        want = [decay * e + (1 - decay) * p for e, p in zip(want, new, strict=True)]
    # The share of a step, of 32-bit integers, is a float32.
    trees_close(jax.tree.leaves(state.ema), want, rtol=1e-6)
    assert state.evaluated is state.ema
    statistics = zip(*map(jax.tree.leaves, (state.ema.batch_stats, state.batch_stats)), strict=True)
    assert all(np.abs(averaged - raw).max() > 1e-6 for averaged, raw in statistics)
    assert jax.tree.leaves(state.batch_stats)
    without = tiny_gan.make_state(tiny_gan.make_problem(OPTIMIZERS))
    trees_close(without.evaluated, model_of(without), rtol=0)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind, twins",
    [
        ("unrolled", True),
        *(pytest.param(kind, False, marks=SLOW) for kind in (*mq.HYPERGRADIENTS, "inner")),
    ],
)
def test_a_batch_in_parts_trains_as_the_whole_one(kind, twins):
    """Whose parts are alike, or without what ties rows together: L is a mean over its parts."""
    optimizers = Parts(tiny.make_adam(1e-2), tiny.make_sgd(0.1), tiny.make_sgd(0.1))
    batches = batches_of(1, 8)
    if twins:
        # Part p has rows p, p + 2, ... of the batch.
        batches = [jnp.repeat(images[:4], 2, axis=0) for images in batches]
    results = []
    for parts in (1, 2):
        problem = tiny_gan.make_problem(optimizers, vqgan=not twins, adaptive=twins, parts=parts)
        state = tiny_gan.make_state(problem, seed=1)
        if kind == "pipelined":
            past = Past(
                *(state.params, state.opt_state.autoencoder, state.quantizer),
                *(jax.tree.map(jnp.ones_like, state.params.autoencoder), batches[1]),
            )
            # A step that has one before it.
            state = state.replace(step=state.step + 1, past=past)
        results.append(tiny.jit(make_step(problem, kind))(state, *batches, tiny_gan.FROZEN))
    (whole, metrics), (parted, parted_metrics) = results
    trees_close(parted, whole, rtol=1e-8, atol=1e-11)
    # The flip rate looks at other rows.
    for name in metrics.keys() - {"outer/code_flip_rate"}:
        np.testing.assert_allclose(
            parted_metrics[name], metrics[name], rtol=1e-8, atol=1e-12, err_msg=name
        )
