"""A prior's optimizer and its length."""

import jax
import jax.numpy as jnp
import numpy as np
import prior_runs
import pytest
import tiny

from mq_jax.generation.space import TokenSpace
from mq_jax.priors.build import build, init_state, make_net, steps_of

SPACE = TokenSpace(3, 4, 2, prior_runs.SIZE, 2)


def test_all_weights_decay_but_the_scales_of_normalisations():
    config = prior_runs.configure(train__schedule="constant", train__warmup=0.0)
    built = build(config, SPACE, 10)
    state = jax.eval_shape(lambda: init_state(built, config))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), state.params)

    def update(params):
        still = jax.tree.map(jnp.zeros_like, params)
        return built.optimizer.update(still, built.optimizer.init(params), params)[0]

    updates = tiny.jit(update)(ones)
    decayed = {}
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        # Whole: every number of an array alike.
        decayed[path[-1].key] = set(np.unique(update).tolist())
    expected = np.float32(-config.train.learning_rate * 0.05)
    assert decayed.pop("scale") == {0.0}
    assert set(decayed) == {"kernel", "tokens", "classes", "head", "orders"}
    for values in decayed.values():
        np.testing.assert_allclose(list(values), [expected], rtol=1e-6)


def test_fields_replace_those_of_the_named_size():
    net = make_net(prior_runs.configure(prior__dtype="bfloat16", prior__remat=True))
    assert (net.layers, net.heads, net.width, net.remat) == (2, 2, 16, True)
    assert net.dtype == "bfloat16" and net.multiple == 32


@pytest.mark.parametrize(
    ("steps", "epochs", "images", "expected"), [(7, 1, 5, 7), (0, 3, 20, 7), (0, 1, 8, 1)]
)
def test_a_run_is_as_long_as_its_steps_or_its_epochs(steps, epochs, images, expected):
    config = prior_runs.configure(train__steps=steps, train__epochs=epochs)
    assert steps_of(config, images) == expected


def test_epochs_of_less_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="config.train.epochs is 1 over 7 images"):
        steps_of(prior_runs.configure(train__steps=0, train__epochs=1), 7)
