"""The program of a step: that it is the run's, and what is counted of it."""

import types

import jax
import pytest
import runs

from mq_jax.bench import program
from mq_jax.devices import sharding
from mq_jax.models import winograd
from mq_jax.training.build import build
from mq_jax.training.lowering import lower_program

WIDE = {"model.channels": (32, 32), "model.blocks": 1}
RECOMPUTED = {
    **{"model.kind": "vqgan", "model.channels": (8,), "model.multipliers": (1, 2)},
    **{"model.groups": 4, "model.attention": (), "model.blocks": 1, "model.remat": True},
}


def executed(config):
    """FLOPs of convolutions and products of the run's program here."""
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    return program._matrix(lower_program(config, build(config, 1000, mesh), mesh).step)


def asked_for(config):
    return program.model_flops(config, sharding.make_mesh(1, 1, jax.devices()[:1]))


@pytest.mark.parametrize("kind", ["joint", "unrolled"])
def test_model_flops_are_those_of_plain_convolutions(kind, monkeypatch):
    config = program.variant(runs.configure(**WIDE), kind, "encoder")
    model = asked_for(config)
    assert executed(config) < model
    # The same program with XLA's own convolutions on this CPU.
    jax.clear_caches()
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1000)
    assert executed(config) == model


def test_model_flops_leave_recomputation_out():
    config = program.variant(runs.configure(**RECOMPUTED), "joint", "encoder")
    model = asked_for(config)
    assert executed(config) > model
    recomputed = executed(config)
    config.model.remat = False
    assert asked_for(config) == model
    # Without it this CPU executes less, and less than a GPU, whose upsampling has more to do.
    assert executed(config) < min(recomputed, model)


def test_memory_is_arguments_results_and_all_between_less_what_is_taken_over():
    told = types.SimpleNamespace(
        argument_size_in_bytes=100,
        output_size_in_bytes=90,
        temp_size_in_bytes=7,
        alias_size_in_bytes=80,
    )
    assert program._memory(types.SimpleNamespace(memory_analysis=lambda: told)) == 117


def test_each_call_takes_the_next_step_and_a_pipelined_state_counts_as_memory():
    # From the first step on at its whole rate, so that the next has another loss.
    config = runs.configure(train__warmup=0.0)
    joint = program.compiled_step(config, "joint", "encoder")
    losses = [float(joint.run()) for _ in range(3)]
    assert len(set(losses)) == 3 and joint.flops > 0 and not joint.cached
    pipelined = program.compiled_step(config, "pipelined", "encoder", keep_activations=True)
    # The batch of the step before, in float32.
    assert pipelined.memory > joint.memory + 4 * 8 * 32 * 32 * 3
