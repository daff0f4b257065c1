"""Whole runs of a tiny MQGAN: every term, real LPIPS, one compilation, resume, several devices."""

import functools

import jax
import numpy as np
import pytest
import runs

from mq_jax.devices import sharding
from mq_jax.training.build import build
from mq_jax.training.first import init_state
from mq_jax.training.frozen import frozen_shapes, load_frozen
from mq_jax.training.validate import validate

MQGAN = {
    "perceptual__net": "alex",
    "discriminator__weight": 0.5,
    "discriminator__start": 0.5,
    "discriminator__train_from": 0.25,
    "discriminator__channels": 4,
    "discriminator__layers": 2,
    "train__ema_decay": 0.9,
    "eval__metrics": ("lpips_alex",),
    "eval__monitor": "lpips_alex",
}
VQGAN = {
    "model__kind": "vqgan",
    "model__channels": (4,),
    "model__multipliers": (1, 2),
    "model__blocks": 1,
    "model__attention": (16,),
    "model__z_channels": 4,
    "model__groups": 2,
}
# Compiles in half the time, and carries all that a step of two levels does.
JOINT = {"train__hypergradient": "joint"}
SLOW = pytest.mark.slow


@SLOW
@pytest.mark.parametrize("nets", [JOINT, {}, VQGAN], ids=["joint", "vqvae", "vqgan"])
def test_a_run_interrupted_in_its_adversarial_phase_equals_an_uninterrupted_one(tmp_path, nets):
    """Twelve steps: it learns from the fourth on, and weighs from the seventh on."""
    config = runs.configure(**MQGAN, **nets)
    assert runs.train_here(config, tmp_path / "whole") == "finished"
    with runs.signalled_after(7):
        assert runs.train_here(config, tmp_path / "parted") == "SIGTERM"
    assert runs.train_here(config, tmp_path / "parted") == "finished"
    runs.assert_same_run(tmp_path / "parted", tmp_path / "whole")

    rows = {row["step"]: row for row in runs.metrics(tmp_path / "whole")}
    assert [rows[step]["disc/trains"] for step in (3, 6, 9, 12)] == [0, 1, 1, 1]
    np.testing.assert_allclose([rows[s]["disc/weight"] for s in (3, 6, 9, 12)], [0, 0, 0.5, 0.5])
    terms = "inner/perceptual", "inner/adversarial", "inner/adaptive_weight"
    for name in (*terms, "eval/lpips_alex"):
        assert all(np.isfinite(row[name]) for row in rows.values() if name in row)
    arrays, record = runs.checkpoint(tmp_path / "whole")
    averaged = {name.split("/")[2] for name in arrays if name.startswith("state/ema/")}
    assert averaged == {"autoencoder", "codebook", "batch_stats"}
    settled = {step: row["eval/lpips_alex"] for step, row in rows.items() if step in (8, 12)}
    assert record["extra"]["best_step"] == min(settled, key=settled.get)
    assert record["extra"]["best"] == min(settled.values())


@functools.cache
def trained(data, fsdp, vqgan):
    """State and metrics after three steps of a whole MQGAN, BatchNorm in the discriminator."""
    changes = {"discriminator__start": 0.0, "discriminator__train_from": 0.0}
    nets = VQGAN if vqgan else {"model__channels": (8,), **JOINT}
    config = runs.configure(**MQGAN | changes | nets, codebook__shard_lookup=fsdp > 1)
    mesh = sharding.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    built, frozen = build(config, 12, mesh), load_frozen(config)
    with runs.quick_compilation():
        state = jax.jit(lambda: init_state(built, config))()
        where = sharding.shardings(state, mesh, 16)
        step = jax.jit(built.train_step, out_shardings=(where, sharding.replicated(mesh)))
        state, history = jax.device_put(state, where), []
        for i in range(3):
            rng = np.random.default_rng(i)
            batches = rng.uniform(-1, 1, (2, 8, 32, 32, 3)).astype(np.float32)
            state, metrics = step(state, *sharding.shard_batch(mesh, tuple(batches)), frozen)
            history.append(jax.device_get(metrics))
    return state, history


@pytest.mark.parametrize(
    "mesh, vqgan", [((4, 2), False), *(pytest.param(m, True, marks=SLOW) for m in [(4, 2), (1, 8)])]
)
def test_several_devices_train_mqgan_as_one_does(mesh, vqgan):
    """In float32, where sums in another order differ by some units of the last place."""
    (_, want), (state, got) = trained(1, 1, vqgan), trained(*mesh, vqgan)
    for name in want[0].keys() - {"outer/direct_indirect_cosine", "outer/code_flip_rate"}:
        np.testing.assert_allclose(got[0][name], want[0][name], rtol=2e-3, atol=1e-5, err_msg=name)
    for name in ("inner/loss", "disc/loss", "inner/perceptual", "inner/reconstruction"):
        np.testing.assert_allclose(got[2][name], want[2][name], rtol=2e-2, err_msg=name)
    parts = {part.name: part for part in sharding.holdings(state)}
    for name in (
        "params/autoencoder",
        "params/discriminator",
        "ema/autoencoder",
        "opt_state/codebook",
    ):
        part = parts[name]
        assert part.sharded and part.per_device < 0.8 * part.size, name


@SLOW
def test_bfloat16_changes_the_loss_little_and_the_types_of_the_state_not_at_all():
    results = []
    for dtype in ("float32", "bfloat16"):
        config = runs.configure(**MQGAN, **VQGAN, model__dtype=dtype)
        validate(config)
        built, frozen = build(config, 12), load_frozen(config)
        images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 32, 32, 3)).astype(np.float32)

        def both(frozen, built=built, config=config, images=images):
            state = init_state(built, config)
            return state, built.train_step(state, *images, frozen)

        with runs.quick_compilation():
            before, (after, metrics) = jax.jit(both)(frozen)
        assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [
            leaf.dtype for leaf in jax.tree.leaves(before)
        ]
        results.append(metrics)
    single, half = results
    for name in ("inner/loss", "outer/loss", "inner/perceptual", "disc/loss"):
        assert 0 < abs(half[name] - single[name]) < 0.05 * abs(single[name]), name
        assert half[name].dtype == np.float32


@SLOW
@pytest.mark.parametrize("kind", ["joint", "unrolled"])
def test_the_adaptive_weight_costs_no_second_backward_pass_of_the_task(kind):
    """XLA merges it with the one that is there: what is left is the discriminator's."""
    flops = []
    for adaptive in (False, True):
        changes = {"discriminator__adaptive": adaptive, "train__hypergradient": kind}
        config = runs.configure(**MQGAN, **changes)
        built = build(config, 12)
        state = jax.eval_shape(lambda built=built, config=config: init_state(built, config))
        images = jax.ShapeDtypeStruct((8, 32, 32, 3), np.float32)
        step = jax.jit(built.train_step).lower(state, images, images, frozen_shapes(config))
        flops.append(step.compile().cost_analysis()["flops"])
    assert 1 < flops[1] / flops[0] < 1.05
