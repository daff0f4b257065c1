"""What a compiled step does with its memory and its host, read from the program of any device."""

import functools
import re
import threading

import jax
import prior_runs
import pytest
import runs
from jax import monitoring
from programs import MQGAN

from mq_jax.algorithm import mq
from mq_jax.devices.sharding import make_mesh
from mq_jax.generation.space import TokenSpace
from mq_jax.metrics.collections import NEVER, computed
from mq_jax.planning import hlo
from mq_jax.priors import build as prior_build
from mq_jax.priors import program as prior_program
from mq_jax.runs.trees import all_finite, copied
from mq_jax.training.build import build
from mq_jax.training.first import drawn, first_state
from mq_jax.training.lowering import Lowered, checkpoint_target, lower_program
from mq_jax.training.program import compiled

# What hands data to the host, or asks it to compute.
HOST = ("infeed", "outfeed", "send", "recv", "host", "callback")
METRICS = {"loss": jax.ShapeDtypeStruct((), "float32")}
# The rest of the family has the passes of these.
QUICK = ("joint", "unrolled", "finite-difference", "pipelined")


def lowered(name="photos_mqvae", devices=1, **changes):
    config = runs.configure(name, **changes)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, jax.devices()[:devices])
    return lower_program(config, build(config, 2, mesh), mesh)


def require_in_place(program, inner=False):
    """Of lowered steps: their state is donated whole, nothing else is, and the host has no part."""
    assert (program.inner_step is not None) == inner
    count = len(jax.tree.leaves(program.target))
    for step in filter(None, (program.step, program.inner_step)):
        text = step.as_text()
        entry = next(line for line in text.splitlines() if "@main(" in line)
        outputs = re.findall(r"%arg(\d+): [^%]*?tf\.aliasing_output = (\d+)", entry)
        assert [(int(a), int(b)) for a, b in outputs] == [(i, i) for i in range(count)]
        called = set(re.findall(r"custom_call @(\w+)", text)) | set(
            re.findall(r"stablehlo\.(\w+)", text)
        )
        assert not [name for name in called if any(word in name for word in HOST)]


def require_compiled_in_place(program):
    """The same of a compiled step; returns the kinds of its instructions."""
    text = program.step.compile().as_text()
    head = text.partition("\n")[0]
    aliased = re.findall(r"\{(\d+)\}: \((\d+), \{\}, \S+-alias\)", head)
    count = len(jax.tree.leaves(program.target))
    assert sorted(int(i) for i, _ in aliased) == list(range(count))
    assert all(output == argument for output, argument in aliased)
    opcodes = {instruction.opcode for instruction, *_ in hlo.executed(hlo.parse(text))}
    assert not [name for name in opcodes if any(word in name for word in HOST)]
    return opcodes


@pytest.mark.parametrize("kind", QUICK)
def test_a_step_changes_the_whole_state_in_place_and_asks_nothing_of_the_host(kind):
    require_in_place(lowered(train__hypergradient=kind))


def test_so_do_those_of_which_one_in_four_has_both_levels():
    program = lowered(train__hypergradient="finite-difference", train__inner_updates=4)
    require_in_place(program, inner=True)


def test_so_does_one_that_leaves_its_activations_to_the_next():
    program = lowered(train__hypergradient="pipelined", train__keep_activations=True)
    require_in_place(program)
    # More than parameters: rows of the batch.
    residuals = program.target["state"].past.residuals
    assert any(leaf.shape[0] == runs.configure().train.batch_size for leaf in residuals)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in mq.HYPERGRADIENTS if kind not in QUICK])
def test_so_do_those_of_all_other_hyper_gradients(kind):
    require_in_place(lowered(train__hypergradient=kind))


@pytest.mark.parametrize("kind", ["decoder", "masked"])
def test_so_do_those_of_priors(kind):
    config = prior_runs.configure(prior__kind=kind)
    built = prior_build.build(config, TokenSpace(3, 4, 1, prior_runs.SIZE, 2), 2)
    require_in_place(prior_program.lower_program(config, built, make_mesh(1, 1, jax.devices()[:1])))


@pytest.mark.slow
def test_so_does_that_of_an_mqgan_in_parts_with_averages():
    changes = {"perceptual__net": "none", "train__accumulate": 2, "train__ema_decay": 0.9}
    program = lowered("photos_mqgan", **MQGAN, **changes, train__inner_updates=2)
    require_in_place(program, inner=True)


def test_what_is_lowered_so_is_compiled_so_on_devices_that_share_the_state_out():
    shared = {"mesh__fsdp": 2, "mesh__shard_from": 16, "train__hypergradient": "joint"}
    program = lowered(devices=4, **shared)
    opcodes = require_compiled_in_place(program)
    assert "all-gather" in opcodes and "custom-call" not in opcodes


def test_so_is_one_of_both_levels_on_one_device():
    require_compiled_in_place(lowered(train__hypergradient="unrolled"))


def test_a_step_is_traced_once_for_all_that_is_asked_of_it():
    """Tracing is most of a start whose programs are in the cache."""
    config = runs.configure(train__hypergradient="joint")
    mesh, traces = make_mesh(1, 1, jax.devices()[:1]), []
    built = build(config, 2, mesh)

    def counted(*arguments):
        traces.append(1)
        return built.train_step(*arguments)

    watched = built._replace(train_step=counted)
    lower_program(config, watched, mesh)
    checkpoint_target(config, watched, mesh)
    assert len(traces) == 1


class Uncompiled:
    """A lowered step that XLA compiles until it is told to end."""

    def __init__(self):
        self.end, self.done = threading.Event(), False

    def compile(self):
        assert self.end.wait(60)
        self.done = True
        return self

    def cost_analysis(self):
        return {"flops": 3.0}


@functools.cache
def model():
    """A configuration, what it builds, a mesh."""
    config, mesh = runs.configure(train__hypergradient="joint"), make_mesh(1, 1, jax.devices()[:1])
    return config, build(config, 2, mesh), mesh


@functools.cache
def carried():
    """What a checkpoint holds."""
    return checkpoint_target(*model())


def test_a_run_goes_on_while_its_steps_are_traced_and_compiled():
    step, inner_step, traced = Uncompiled(), Uncompiled(), threading.Event()

    def lower():
        assert traced.wait(60)
        return Lowered(carried(), (), step, inner_step, METRICS)

    program = compiled(lower)
    traced.set()
    target, names, new_window = program.traced()
    assert target is carried() and names == ("loss",)
    window = new_window()
    assert jax.tree.structure(window) == jax.tree.structure(target["window"])
    assert (window.first_nonfinite.steps == NEVER).all()
    assert not step.done and not inner_step.done
    step.end.set()
    inner_step.end.set()
    steps = program.steps()
    assert steps is program.steps() and step.done and inner_step.done
    assert steps[:3] == (step, inner_step, 3.0) and 0 < steps.compile_seconds < 60


def test_on_a_device_whose_kernels_are_timed_nothing_runs_beside_that(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    step = Uncompiled()
    step.end.set()
    compiled(lambda: Lowered(carried(), (), step, None, {}))
    assert step.done


def test_why_a_step_cannot_be_compiled_is_told_to_who_waits_for_it():
    class Broken:
        def compile(self):
            raise RuntimeError("no memory")

    program = compiled(lambda: Lowered(carried(), (), Broken(), None, {}))
    assert program.traced().names == ()
    with pytest.raises(RuntimeError, match="no memory"):
        program.steps()


def test_why_a_step_cannot_be_traced_is_told_to_who_asks_what_it_is():
    def lower():
        raise TypeError("no such layer")

    program = compiled(lower)
    for ask in program:
        with pytest.raises(TypeError, match="no such layer"):
            ask()


def test_nothing_that_a_loop_runs_between_steps_is_compiled_there():
    step, compiling = Uncompiled(), []
    step.end.set()
    with runs.quick_compilation():
        program = compiled(lambda: Lowered(carried(), (), step, None, METRICS))
        program.steps()
        state = first_state(*model(), drawn(*model()[:2]))
        monitoring.register_event_duration_secs_listener(
            listener := lambda name, *_, **__: compiling.append(name)
        )
        try:
            window = program.traced().new_window()
            computed(window)
            copy = copied({"state": state, "window": window})
            assert all_finite(copy["state"].learned)
        finally:
            monitoring.unregister_event_duration_listener(listener)
    assert not [name for name in compiling if "compile" in name]


def test_a_step_that_asks_the_host_would_be_found():
    def step(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), "float32"), x)

    text = jax.jit(step).lower(jax.ShapeDtypeStruct((), "float32")).as_text()
    assert any("callback" in name for name in re.findall(r"custom_call @(\w+)", text))
