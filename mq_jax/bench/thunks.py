"""What JAX's profiler tells of a program on a CPU: when each of its operations ran."""

import collections
import gzip
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax


class Event(NamedTuple):
    """One run of an operation: its name in the compiled program, and what it took."""

    name: str
    seconds: float


def profiled(run: Callable[[], Any], steps: int) -> list[dict[str, Any]]:
    """The events of steps that run one after the other.

    Args:
      run: a step; what it returns is waited for.
      steps: how many.

    Returns:
      As the profiler's file for Chrome has them.
    """
    options = jax.profiler.ProfileOptions()
    # Those of Python's calls would make the steps slower still.
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, profiler_options=options)
        try:
            for _ in range(steps):
                jax.block_until_ready(run())
        finally:
            jax.profiler.stop_trace()
        (path,) = pathlib.Path(folder).glob("plugins/profile/*/*.trace.json.gz")
        with gzip.open(path) as file:
            return json.load(file)["traceEvents"]


def median_step(
    events: Sequence[Mapping[str, Any]], program: str, inside: Mapping[str, frozenset[str]]
) -> list[Event]:
    """The operations of the step that took the median time of all.

    Args:
      events: from profiled.
      program: name of the module whose steps they are.
      inside: names of the operations that each calls, by its own; a loop or a call whose
        operations have events of their own is left out, so that its time counts once.

    Returns:
      Events in the order in which they ended.

    Raises:
      ValueError: there is none of the program.
    """
    steps = collections.defaultdict(list)
    for event in events:
        told = event.get("args", {})
        if event.get("ph") == "X" and told.get("hlo_module") == program and "hlo_op" in told:
            steps[told.get("run_id")].append(Event(told["hlo_op"], event["dur"] / 1e6))
    if not steps:
        raise ValueError(
            f"The profile has no operations of {program!r}; expected those of a CPU's runtime. "
            "XLA_FLAGS may ask for another; unset it."
        )
    seen = {event.name for found in steps.values() for event in found}
    leaves = [
        [event for event in found if not seen & inside.get(event.name, frozenset())]
        for found in steps.values()
    ]
    seconds = [sum(event.seconds for event in found) for found in leaves]
    return leaves[seconds.index(statistics.median_low(seconds))]
