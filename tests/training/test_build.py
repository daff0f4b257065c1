"""From a configuration to steps: how many, and who moves how far."""

import functools

import jax
import numpy as np
import pytest
import runs
from ml_collections import ConfigDict

from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.runs import standing
from mq_jax.training.build import build, settled_step, total_steps
from mq_jax.training.first import init_state
from mq_jax.training.quantizing import make_quantizer


@pytest.mark.parametrize(
    "steps, epochs, batch_size, images, expected",
    [
        (12, 90, 64, 50_000, 12),
        (0, 90, 64, 50_000, 90 * 50_000 // 64),
        (0, 1, 8, 8, 1),
        (0, 3, 8, 10, 3),
        (0, 1, 8, 15, 1),
    ],
)
def test_steps_are_as_given_or_whole_batches_of_all_epochs(
    steps, epochs, batch_size, images, expected
):
    config = runs.configure(train__steps=steps, train__epochs=epochs, train__batch_size=batch_size)
    assert total_steps(config, images) == expected


@pytest.mark.parametrize("images, expected", [(8 * 11, 8), (8 * 12, 12), (8, 4)])
def test_epochs_end_with_a_whole_step_where_one_is_several_updates(images, expected):
    changes = {"train__inner_updates": 4, "train__unroll": 2, "train__steps": 0}
    config = runs.configure(**changes, train__epochs=1, train__batch_size=8)
    assert total_steps(config, images) == expected
    config.train.unroll = 1
    assert total_steps(config, images) == images // 8


def test_epochs_without_one_whole_batch_are_refused():
    config = runs.configure(train__steps=0, train__epochs=1, train__batch_size=8)
    with pytest.raises(ValueError, match="config.train.epochs is 1 over 7 images, .* batch of 8"):
        total_steps(config, 7)


# The single-level step compiles fastest; what is frozen or scaled is the same in all.
JOINT = {
    "train__hypergradient": "joint",
    "train__warmup": 0.0,
    "outer__kind": "sgd",
    "outer__b1": 0.0,
}


@functools.cache
def before_and_after(**changes):
    """Parameters before and after the first step, as (theta, phi) of arrays by name."""
    config = runs.configure(**JOINT, **changes)
    built = build(config, 100)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)

    def both():
        state = init_state(built, config)
        return state.params, built.train_step(state, images, images)[0].params

    with runs.programs_shared():
        return [[named(part) for part in params] for params in jax.jit(both)()]


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): np.asarray(v) for k, v in leaves}


def test_a_frozen_embedding_keeps_every_bit_while_the_net_moves():
    (_, phi, _), (_, moved, _) = before_and_after(
        codebook__kind="linear", codebook__train_embedding=False
    )
    assert moved["embedding"].tobytes() == phi["embedding"].tobytes()
    nets = set(phi) - {"embedding"}
    assert nets and all((moved[name] != phi[name]).any() for name in nets)


def test_a_trained_embedding_moves_with_the_net():
    (_, phi, _), (_, moved, _) = before_and_after(codebook__kind="linear")
    assert all((moved[name] != phi[name]).any() for name in phi)


def test_the_ratio_scales_the_step_of_the_codebook_alone():
    (_, phi, _), (theta_1, phi_1, _) = before_and_after(codebook__kind="linear")
    _, (theta_3, phi_3, _) = before_and_after(
        codebook__kind="linear", outer__learning_rate_ratio=3.0
    )
    for name in theta_1:
        np.testing.assert_array_equal(theta_1[name], theta_3[name])
    for name in phi:
        single, triple = phi_1[name] - phi[name], phi_3[name] - phi[name]
        assert np.abs(single).max() > 1e-5
        np.testing.assert_allclose(triple, 3 * single, rtol=1e-2, atol=1e-6)


def test_the_seed_decides_the_start():
    def start(seed):
        config = runs.configure(**JOINT, seed=seed)
        return init_state(build(config, 1), config).params

    with runs.quick_compilation():
        first, other = (named(params) for params in jax.jit(lambda: (start(0), start(1)))())
    drawn = [name for name in first if name.endswith(("kernel", "embedding"))]
    assert len(drawn) > 3 and all((first[name] != other[name]).any() for name in drawn)


@pytest.mark.parametrize("start", [0.0, 0.2, 0.55, 1.0])
@pytest.mark.parametrize("ramp", [0.0, 0.05, 0.3])
def test_the_settled_step_is_the_first_after_an_update_under_the_whole_weight(start, ramp):
    for steps in (10, 33):
        fields = {"weight": 0.8, "start": start, "ramp": ramp}
        given = {f"discriminator__{name}": value for name, value in fields.items()}
        config = runs.configure(**given, model__channels=(4,))
        weight = build(config, steps).problem.adversary.weight
        # The update from step s - 1 on has made the state of step s.
        whole = np.isclose([weight(step - 1) for step in range(1, 2 * steps)], 0.8)
        assert settled_step(config, steps) == 1 + np.argmax(whole)


def test_without_an_adversarial_term_every_trained_state_is_settled():
    config = runs.configure(discriminator__start=0.5, discriminator__ramp=0.5)
    assert settled_step(config, 100) == standing.FIRST


# Codes of one image, and trained numbers of the auto-encoder in millions.
LARGE = {
    "imagenet_mqgan": ((16, 16), 70.0),
    "ffhq_mqgan": ((16, 16), 71.8),
    "folder_mqgan": ((16, 16), 71.8),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_experiment_has_a_state_and_codes_of_the_right_shapes(name):
    config = runs.experiment(name)
    built = build(config, 100)
    state = jax.eval_shape(lambda: init_state(built, config))
    codes, millions = LARGE[name]
    theta = state.params.autoencoder
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == pytest.approx(millions * 1e6, 0.01)
    side = config.data.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    encode = functools.partial(built.objective.autoencoder.apply, train=True, method="encode")
    z = jax.eval_shape(lambda theta, x: encode({"params": theta}, x), theta, images)
    assert z.shape == (1, *codes, config.codebook.dim) and z.dtype == np.float32
    codewords = jax.eval_shape(built.objective.codewords, state.evaluated)
    assert codewords.shape == (config.codebook.size, config.codebook.dim)


@pytest.mark.parametrize("kind", ["ema", "fsq", "lfq", "bsq"])
def test_a_quantizer_without_parameters_has_an_optimizer_of_nothing(kind):
    config = runs.configure(quantizer__kind=kind, train__hypergradient="joint")
    built = build(config, 100)
    state = jax.eval_shape(lambda: init_state(built, config))
    assert state.params.codebook == ()
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    after, _ = jax.eval_shape(built.train_step, state, images, images)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_levels_of_a_stored_configuration_make_the_same_quantizer():
    """A list, as JSON has it, which could not be hashed."""
    made = []
    for levels in ((8, 5, 5), [8, 5, 5]):
        config = runs.configure(quantizer__kind="fsq")
        config.quantizer.fsq = ConfigDict({"levels": levels})
        made.append(make_quantizer(config, nearest_codeword))
    assert hash(made[0]) == hash(made[1])
