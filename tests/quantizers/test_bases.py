"""What a codebook's base starts from, and that it can stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from arrays import normal
from kinds import bridge, table

from mq_jax.algorithm.optim import freeze
from mq_jax.quantizers.bases import given, is_base, scaled_normal, started_from
from mq_jax.quantizers.ema import EMA
from mq_jax.quantizers.groups import Groups
from mq_jax.quantizers.residual import Residual
from mq_jax.quantizers.vq import VQ


def test_the_scaled_base_has_rows_of_norm_one_in_the_mean():
    base = scaled_normal(jax.random.key(0), (4000, 16))
    np.testing.assert_allclose(np.mean(np.sum(np.square(base), axis=-1)), 1.0, rtol=0.03)
    np.testing.assert_allclose(np.mean(base), 0.0, atol=0.01)


@pytest.mark.parametrize("kind, shape", [("linear", (16, 3)), ("mlp", (16, 3)), ("basis", (4, 4))])
def test_a_codebook_starts_from_the_base_that_it_is_given(kind, shape):
    rows = normal(0, *shape)
    codebook = table(kind, base=given(rows))
    params = codebook.init(jax.random.key(0))["params"]
    np.testing.assert_array_equal(params["embedding"], rows)
    assert jax.tree.structure(params) == jax.tree.structure(
        table(kind).init(jax.random.key(0))["params"]
    )


def test_a_base_of_another_shape_is_refused():
    codebook = table("linear", base=given(normal(0, 16, 5)))
    with pytest.raises(ValueError, match=r"has shape \(16, 5\); expected \(16, 3\)"):
        codebook.init(jax.random.key(0))


QUANTIZERS = {
    "plain": VQ(table("linear")),
    "bridge": VQ(bridge()),
    "residual": Residual(VQ(table("linear")), 2),
    "groups of residuals": Groups(Residual(VQ(table("linear", dim=2)), 2), 2),
}


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_an_optimizer_leaves_every_base_and_moves_the_rest(kind):
    params, _ = jax.eval_shape(QUANTIZERS[kind].init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
    optimizer = freeze(optax.sgd(1.0), is_base)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    bases = [leaf for path, leaf in leaves if jax.tree_util.keystr(path).endswith("'embedding']")]
    assert len(bases) == {"residual": 2, "groups of residuals": 4}.get(kind, 1)
    assert not any(np.any(leaf) for leaf in bases)
    moved = [leaf for path, leaf in leaves if not is_base(path)]
    assert len(moved) == len(leaves) - len(bases) and all(np.all(leaf == -1) for leaf in moved)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_base_starts_from_its_table_in_the_order_of_groups_and_levels(name):
    params, state = jax.eval_shape(QUANTIZERS[name].init, jax.random.key(0))
    started = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), (params, state))
    count = {"residual": 2, "groups of residuals": 4}.get(name, 1)
    tables = [normal(seed, 16, 3) for seed in range(count)]
    leaves = jax.tree_util.tree_leaves_with_path(started_from(started, tables))
    bases = [leaf for path, leaf in leaves if is_base(path)]
    for base, table_of_it in zip(bases, tables, strict=True):
        np.testing.assert_array_equal(base, table_of_it)
    assert not any(np.any(leaf) for path, leaf in leaves if not is_base(path))
    with pytest.raises(ValueError, match=f"has {count} bases; got {count + 1} tables"):
        started_from(started, [*tables, tables[0]])


@pytest.mark.parametrize("levels", [1, 2])
def test_running_means_start_from_tables_as_their_codewords(levels):
    quantizer = Residual(EMA(16, 4), levels)
    tables = [normal(seed, 16, 4) for seed in range(levels)]
    params, state = started_from(quantizer.init(jax.random.key(0)), tables)
    for found, expected in zip(quantizer.fold(params, state), tables, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_table_of_another_width_is_refused():
    started = jax.eval_shape(VQ(table("linear")).init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"has shape \(16, 5\); expected \(16, 3\)"):
        started_from(started, [normal(0, 16, 5)])
