"""Several processes: who they are, read from the environment, and how they find one another."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

import jax
from absl import logging

_TIMEOUT_SECONDS = 300
# Process 0 hosts the service that all depend on: when it ends, JAX aborts the others.
_LAST_WORDS_SECONDS = 2.0


class Cluster(NamedTuple):
    """One process among several.

    Attributes:
      coordinator: `host:port` of process 0, the same in all processes.
      processes: their number, at least 2.
      index: of this process, from 0.
      local_devices: numbers of the GPUs that it takes; None for all of the machine.
    """

    coordinator: str
    processes: int
    index: int
    local_devices: tuple[int, ...] | None = None


def find_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Reads this process's place among several; the first of these that is there decides.

    1. `MQ_JAX_COORDINATOR`, `MQ_JAX_PROCESSES` and `MQ_JAX_PROCESS`, or in its place the
       `JOB_COMPLETION_INDEX` of a Kubernetes Job.
    2. `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, as torchrun sets them.
    3. SLURM, for what `srun` starts. In a batch script or a shell, SLURM's variables tell of
       tasks that nobody has started, so they count for nothing.

    Args:
      environment: as os.environ.

    Returns:
      The place, None where this process is the only one.

    Raises:
      ValueError: variables are missing, malformed or contradict each other.
    """
    if any(name in environment for name in ("MQ_JAX_COORDINATOR", "MQ_JAX_PROCESSES")):
        cluster = _explicit(environment)
    elif "RANK" in environment:
        cluster = _torchrun(environment)
    elif "SLURM_STEP_NUM_TASKS" in environment:
        cluster = _slurm(environment)
    else:
        return None
    return cluster if cluster.processes > 1 else None


def initialize(cluster: Cluster, timeout_seconds: int = _TIMEOUT_SECONDS) -> None:
    """Connects this process with the others; before JAX's first use of a device.

    Args:
      cluster: from find_cluster.
      timeout_seconds: how long to wait for the others.

    Raises:
      ConnectionError: process 0 cannot be reached.
    """
    if cluster.index == 0:
        # JAX aborts where the others do not come, so that this must be said before.
        message = "Waiting for %d other process(es) at %s, at most %d s"
        logging.info(message, cluster.processes - 1, cluster.coordinator, timeout_seconds)
    else:
        _require_reachable(cluster, timeout_seconds)
    # Its handler would swallow the SIGTERM that mq_jax.devices.interrupt waits for.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=cluster.coordinator,
        num_processes=cluster.processes,
        process_id=cluster.index,
        local_device_ids=cluster.local_devices,
        # JAX's own look at SLURM would give each process one GPU.
        cluster_detection_method="deactivate",
        initialization_timeout=timeout_seconds,
    )


def abandon(code: int) -> NoReturn:
    """Ends this process at once; an ordinary exit would wait for the others, which may hang.

    They end too: at once when process 0 does, else when they miss its heartbeats.

    Args:
      code: of the exit.
    """
    if jax.process_index() == 0:
        # Where all fail alike, each can say so first.
        time.sleep(_LAST_WORDS_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _explicit(environment: Mapping[str, str]) -> Cluster:
    """The place by the project's own variables."""
    index = "MQ_JAX_PROCESS"
    if index not in environment and "JOB_COMPLETION_INDEX" in environment:
        index = "JOB_COMPLETION_INDEX"
    _require(environment, ("MQ_JAX_COORDINATOR", "MQ_JAX_PROCESSES", index))
    coordinator = environment["MQ_JAX_COORDINATOR"]
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"MQ_JAX_COORDINATOR is {coordinator!r}; expected host:port.")
    return Cluster(coordinator, *_place(environment, "MQ_JAX_PROCESSES", index))


def _torchrun(environment: Mapping[str, str]) -> Cluster:
    """The place by the variables that torchrun sets."""
    _require(environment, ("WORLD_SIZE", "RANK"))
    processes, rank = _place(environment, "WORLD_SIZE", "RANK")
    if processes == 1:
        return Cluster("", processes, rank)
    _require(environment, ("MASTER_ADDR", "MASTER_PORT"))
    port = _number(environment, "MASTER_PORT")
    # torchrun's own agent listens on the port itself.
    port += environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    local_devices = None
    if "LOCAL_RANK" in environment or "LOCAL_WORLD_SIZE" in environment:
        _require(environment, ("LOCAL_WORLD_SIZE", "LOCAL_RANK"))
        here, local_rank = _place(environment, "LOCAL_WORLD_SIZE", "LOCAL_RANK")
        local_devices = _local_devices(environment, local_rank) if here > 1 else None
    return Cluster(f"{environment['MASTER_ADDR']}:{port}", processes, rank, local_devices)


def _slurm(environment: Mapping[str, str]) -> Cluster:
    """The place of a task that srun started."""
    _require(environment, ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
    tasks, index = _place(environment, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    if tasks == 1:
        return Cluster("", tasks, index)
    _require(environment, ("SLURM_JOB_ID", "SLURM_STEP_NUM_NODES", "SLURM_LOCALID"))
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    if not nodes:
        raise ValueError("SLURM_STEP_NODELIST is not set; srun sets it for each task.")
    # The same in all tasks of a step, and rarely the same in two steps that share a node.
    step = environment.get("SLURM_STEP_ID", "0")
    port = 61440 + (_number(environment, "SLURM_JOB_ID") + int(step)) % 4096
    local_devices = None
    if tasks > _number(environment, "SLURM_STEP_NUM_NODES"):
        local_devices = _local_devices(environment, _number(environment, "SLURM_LOCALID"))
    return Cluster(f"{_first_host(nodes)}:{port}", tasks, index, local_devices)


def _first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts, such as node[003-007,009],login1."""
    first = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if first is None:
        raise ValueError(f"SLURM_STEP_NODELIST is {nodes!r}; expected a list of hosts.")
    return "".join(part or "" for part in first.groups())


def _local_devices(environment: Mapping[str, str], local_rank: int) -> tuple[int, ...] | None:
    """The one GPU of a process that shares its machine, None where it sees no other."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return (local_rank,)
    count = len([name for name in visible.split(",") if name])
    # One GPU each: the launcher has bound them already. None at all: a run on CPUs.
    if count <= 1:
        return None
    if local_rank >= count:
        raise ValueError(
            f"This is process {local_rank} of its machine, from 0, but CUDA_VISIBLE_DEVICES is "
            f"{visible!r}; expected a GPU for each process, or one process for all of them."
        )
    return (local_rank,)


def _place(environment: Mapping[str, str], size: str, index: str) -> tuple[int, int]:
    """Number of processes and index among them, by the names of their variables."""
    processes, place = _number(environment, size), _number(environment, index)
    if not place < processes:
        raise ValueError(
            f"{index} is {place} and {size} is {processes}; expected {index} < {size}."
        )
    return processes, place


def _number(environment: Mapping[str, str], name: str) -> int:
    """A variable's value as a number, at least 0."""
    if not re.fullmatch(r"\d+", environment[name]):
        raise ValueError(f"{name} is {environment[name]!r}; expected a number.")
    return int(environment[name])


def _require(environment: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises if some of the variables that belong together are missing."""
    names = list(names)
    missing = [name for name in names if name not in environment]
    if missing:
        given = [name for name in names if name in environment]
        raise ValueError(
            f"The environment has {', '.join(given) or 'none of them'} but not "
            f"{', '.join(missing)}; set {', '.join(names)}, or none for a single process."
        )


def _require_reachable(cluster: Cluster, timeout_seconds: float) -> None:
    """Raises where JAX would abort: nobody listens at the coordinator's address."""
    host, _, port = cluster.coordinator.rpartition(":")
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"Process {cluster.index} of {cluster.processes} cannot reach process 0 at "
                    f"{cluster.coordinator} within {timeout_seconds} s ({error}). Check that it "
                    "runs, that the address is right and that no firewall closes the port."
                ) from error
        time.sleep(0.2)
