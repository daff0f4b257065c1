"""What a run takes, told without data and without an accelerator: its step on virtual devices."""

import time
from typing import Any, NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.planning import flops, hlo
from mq_jax.planning.flops import Flops
from mq_jax.planning.subjects import Subject, make_subject
from mq_jax.runs.stages import is_prior
from mq_jax.training.lowering import Lowered

# XLA's CPU backend drops rematerialisation's barriers before it schedules, and then merges what
# they kept apart; and machine code, which level 0 makes sooner, changes nothing that is told here.
_COMPILER_OPTIONS = {
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_backend_optimization_level": 0,
}


class Compiled(NamedTuple):
    """What the compiled program of one device tells.

    Attributes:
      arguments: bytes of the state, the frozen weights and the batches.
      temporary: bytes of all else at once: activations and gradients.
      traffic: by kind of collective, of one step.
      seconds: that compilation took here.
    """

    arguments: int
    temporary: int
    traffic: dict[str, hlo.Traffic]
    seconds: float


class StepPlan(NamedTuple):
    """One kind of step.

    Attributes:
      name: `inner and outer`, or `inner alone`.
      share: of all inner updates, a step of several counted once.
      parts: Flops by part, of all devices together.
      compiled: None where the program was only traced.
    """

    name: str
    share: float
    parts: dict[str, Flops]
    compiled: Compiled | None


class Plan(NamedTuple):
    """A run.

    Attributes:
      config: of the run.
      mesh: virtual.
      holdings: of all that a step is given, as sharding.holdings tells them.
      state_by_fsdp: bytes of the state that a device holds, by each `fsdp` that the devices allow.
      codes: (h, w) of an image; (h, w, J) where a position has J codes.
      parameters: by part.
      forward: matrix FLOPs of one forward pass of a whole batch, by part; of LPIPS for the
        reconstructions alone.
      steps: the kinds of step that alternate.
    """

    config: ConfigDict
    mesh: Mesh
    holdings: list[sharding.Holding]
    state_by_fsdp: dict[int, int]
    codes: tuple[int, ...]
    parameters: dict[str, int]
    forward: dict[str, float]
    steps: list[StepPlan]

    @property
    def net(self) -> ConfigDict:
        """The section of what is trained, with its dtype."""
        return self.config["prior" if is_prior(self.config) else "model"]

    @property
    def parts(self) -> dict[str, Flops]:
        """Flops of the average step by part, of all devices together."""
        average = dict.fromkeys(flops.PARTS, flops.NOTHING)
        for step in self.steps:
            for part, found in step.parts.items():
                average[part] = average[part].plus(found, step.share)
        return average

    @property
    def matrix_flops(self) -> float:
        """Of the average step, all devices together."""
        return sum(found.matrix for found in self.parts.values())


def use_virtual_devices(count: int) -> None:
    """Makes JAX's devices so many virtual ones of the CPU.

    Args:
      count: at least 1.

    Raises:
      ValueError: JAX has started with fewer.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        logging.debug("JAX runs already, on %d devices", jax.device_count())
    if jax.device_count() < count:
        raise ValueError(
            f"--devices is {count}, but JAX has started with {jax.device_count()} already; unset "
            "JAX_NUM_CPU_DEVICES and XLA_FLAGS."
        )


def make_plan(config: ConfigDict, devices: int, *, compiled: bool = True) -> Plan:
    """Traces the train step of a run and, if asked to, compiles it; nothing runs.

    Args:
      config: validated.
      devices: to plan for; as many virtual ones at least are there.
      compiled: whether to compile, on which memory and collectives depend. Without, FLOPs are
        those of the traced program less what XLA is sure to merge or drop.

    Returns:
      A Plan.

    Raises:
      ValueError: the mesh or the batch does not fit the devices.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, jax.devices()[:devices])
    batch, parts = config.train.batch_size, config.train.accumulate
    if batch % (devices * parts):
        parted = f", times config.train.accumulate, {parts}" if parts > 1 else ""
        raise ValueError(
            f"config.train.batch_size is {batch}; expected a multiple of --devices, "
            f"{devices}{parted}."
        )
    # On one device a traced program has every array whole, those inside shard_map too.
    traced = mesh if compiled else sharding.make_mesh(1, 1, jax.devices()[:1])
    subject = make_subject(config, traced)
    steps = [
        StepPlan(name, share, *_read(name, lowered, mesh if compiled else None))
        for name, (share, lowered) in subject.steps.items()
    ]
    given = _given(config, subject, mesh)
    held = _holdings(given), _state_by_fsdp(config, subject.lowered, mesh)
    told = subject.codes, subject.parameters, subject.forward
    return Plan(config, mesh, *held, *told, steps)


def _read(name: str, lowered: jax.stages.Lowered, mesh: Mesh | None) -> tuple:
    """(Flops by part, Compiled) of one program; without a mesh it is not compiled."""
    if mesh is None:
        return flops.of_traced(lowered), None
    logging.info(
        "compiling the step %r for %d device(s): minutes for a large net, whatever XLA says ...",
        *(name, mesh.size),
    )
    begin = time.monotonic()
    compiled = lowered.compile(compiler_options=_COMPILER_OPTIONS)
    seconds = time.monotonic() - begin
    logging.info("... %.0f s", seconds)
    module = hlo.parse(compiled.as_text())
    found = flops.by_part(hlo.executed(module))
    parts = {part: flops.NOTHING.plus(value, mesh.size) for part, value in found.items()}
    memory = compiled.memory_analysis()
    sizes = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    return parts, Compiled(*sizes, hlo.traffic(module), seconds)


def _given(config: ConfigDict, subject: Subject, mesh: Mesh) -> dict[str, Any]:
    """All that a step is given, with its shardings on the mesh."""
    carried = sharding.placed(subject.lowered.target, mesh, config.mesh.shard_from)
    frozen = sharding.whole(subject.lowered.frozen, mesh)
    batches = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.split(mesh)),
        subject.batches,
    )
    parts = {"metrics": carried["window"], "LPIPS, frozen": frozen, "batches": batches}
    return {"state": carried["state"]} | {
        name: part for name, part in parts.items() if jax.tree.leaves(part)
    }


def _holdings(given: dict[str, Any]) -> list[sharding.Holding]:
    """What each of them takes, the state by its fields."""
    rest = [(name, [tree]) for name, tree in given.items() if name != "state"]
    return sharding.holdings(given["state"]) + [
        sharding.total(sharding.holdings(tree))._replace(name=name) for name, tree in rest
    ]


def _state_by_fsdp(config: ConfigDict, lowered: Lowered, mesh: Mesh) -> dict[int, int]:
    """Bytes of the state for a device, by the number of devices that share it out."""
    devices = list(mesh.devices.flat)
    sizes = {}
    for fsdp in (count for count in range(1, mesh.size + 1) if mesh.size % count == 0):
        other = sharding.make_mesh(0, fsdp, devices)
        state = sharding.placed(lowered.target["state"], other, config.mesh.shard_from)
        sizes[fsdp] = sharding.total(sharding.holdings(state)).per_device
    return sizes
