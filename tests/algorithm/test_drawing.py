"""What a step draws: by its number, its level and its part of a batch, once for all derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import linen as nn

from mq_jax.algorithm import mq
from mq_jax.algorithm.state import Parts
from mq_jax.models.vqvae import AutoEncoder

pytestmark = pytest.mark.usefixtures("float64")


class Dropping(AutoEncoder):
    """An auto-encoder that drops half of z's numbers in training."""

    def setup(self):
        super().setup()
        self.dropout = nn.Dropout(0.5)

    def encode(self, images, *, train):
        return self.dropout(super().encode(images, train=train), deterministic=not train)


def make_problem(parts=1, learning_rate=0.0):
    objective = tiny.make_objective()._replace(
        autoencoder=Dropping((4,), 0, dim=4, layer_norm=True, init_std=0.02)
    )
    optimizers = Parts(tiny.make_sgd(learning_rate), optax.sgd(0.0))
    return mq.Problem(objective, optimizers, parts=parts)


def make_state(problem, step=0):
    return tiny.make_state(problem.objective, problem.optimizers).replace(step=jnp.int32(step))


@functools.cache
def make_step(kind, parts=1, learning_rate=0.0):
    problem = make_problem(parts, learning_rate)
    if kind == "joint":
        return tiny.jit(mq.make_joint_step(problem, straight_through="encoder"))
    return tiny.jit(mq.make_train_step(problem, hypergradient=kind, straight_through="encoder"))


def losses(kind, step, parts=1):
    """The loss of each level on the same images; without learning rates nothing else changes."""
    images = tiny.make_images(4, seed=0)
    _, metrics = make_step(kind, parts)(make_state(make_problem(), step), images, images)
    return [float(metrics[name]) for name in ("inner/loss", "outer/loss") if name in metrics]


@pytest.mark.parametrize("kind", ["unrolled", "joint"])
def test_a_step_draws_by_its_number_and_each_level_for_itself(kind):
    first, again, second = losses(kind, 0), losses(kind, 0), losses(kind, 1)
    assert first == again
    assert len({*first, *second}) == 2 * len(first)


def test_each_part_of_a_batch_draws_for_itself():
    image = jnp.tile(tiny.make_images(1, seed=0), (4, 1, 1, 1))
    problem = make_problem(parts=2)
    objective, seen = problem.objective, []

    class Recording(type(objective)):
        def __call__(self, *args, **settings):
            loss, outputs = super().__call__(*args, **settings)
            jax.debug.callback(lambda z: seen.append(np.asarray(z)), outputs.z)
            return loss, outputs

    recorded = problem._replace(objective=Recording(*objective))
    step = mq.make_joint_step(recorded, straight_through="encoder")
    jax.block_until_ready(tiny.jit(step)(make_state(problem), image, image))
    jax.effects_barrier()
    assert len(seen) == 2 and (seen[0] == 0).mean() > 0.3
    assert ((seen[0] == 0) != (seen[1] == 0)).any()


def test_both_exact_forms_see_one_draw():
    """The forms differ in how often they pass over a batch, so that another draw would show."""
    batches = tiny.make_images(4, seed=0), tiny.make_images(4, seed=1)
    found = [
        make_step(kind, learning_rate=0.1)(make_state(make_problem()), *batches)[1]
        for kind in ("unrolled", "unrolled-reverse")
    ]
    for name in ("outer/indirect_norm", "outer/direct_norm", "outer/direct_indirect_cosine"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-9)
    assert found[0]["outer/indirect_norm"] > 1e-6


def test_evaluation_draws_nothing():
    problem, images = make_problem(), tiny.make_images(4, seed=0)
    state = make_state(problem)
    theta, phi, _ = state.params
    _, outputs = problem.objective(
        theta, phi, state.batch_stats, images, straight_through="encoder", train=False
    )
    assert (outputs.z != 0).all()
