"""What a run tells of itself: at its start what it does and takes, then how it goes."""

import math
from collections.abc import Mapping

import jax
from absl import logging
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm.state import TrainState
from mq_jax.data.inputs import evaluation_side
from mq_jax.devices import sharding
from mq_jax.evaluation.code_use import codebook_of, codes_in_words, usage_in_words
from mq_jax.runs.cost import Cost
from mq_jax.runs.trees import by_path
from mq_jax.runs.workdir import flat
from mq_jax.terminal import console
from mq_jax.terminal.escaping import Block
from mq_jax.training.program import Steps


def log_beginning(config: ConfigDict, downsampling: int) -> None:
    """Logs what becomes of an image, and what is compiled now.

    Args:
      config: of the run.
      downsampling: pixels to a code, along one side.
    """
    trained, evaluated = config.data.image_size, evaluation_side(config)
    told = _codes_in_words(trained, downsampling)
    if evaluated != trained:
        told += f" (evaluation: {_codes_in_words(evaluated, downsampling)})"
    codebook = codebook_of(flat(config.to_dict()))
    logging.info("Codes: %s; each is one of %s", told, codes_in_words(codebook))
    log_compiling(config.train.hypergradient)


def log_compiling(kind: str) -> None:
    """Logs that the train step is compiled now.

    Args:
      kind: of step, a word.
    """
    cache = jax.config.jax_compilation_cache_dir
    logging.info(
        "Compiling the train step (%s) for %d device(s), which takes seconds for small nets and "
        "minutes for large ones%s",
        *(kind, jax.device_count()),
        f"; the next start may find it in {cache}" if cache else "",
    )


def log_sizes(state: TrainState, mesh: Mesh) -> None:
    """Logs the size of each part, and of what a device holds; whole tables only in the log file.

    Args:
      state: of the run, on its devices.
      mesh: over which it lies.
    """
    # By path: of a tuple, as groups and levels have it, the overview would ask the shape.
    params = by_path(state.parts)
    # Without means and deviations: what other processes hold cannot be fetched here.
    table = parameter_overview.get_parameter_overview(params, include_stats="sharding")
    logging.debug("%s", Block(table))
    sizes = _parameters(state)
    logging.info("Parameters: %s", ", ".join(f"{n} {size:,}" for n, size in sizes.items()))
    parts = sharding.holdings(state)
    whole = sharding.total(parts)
    rows = [part.cells() for part in (*parts, whole)]
    title = f"State on {dict(mesh.shape)}"
    # On one device the line below says it all.
    console.log_table(title, sharding.HOLDING_COLUMNS, rows, terminal=mesh.size > 1)
    logging.info(
        "State: %.1f MiB, %.1f on each of %d device(s) (data %d, fsdp %d); %d of %d split",
        *(whole.size / 2**20, whole.per_device / 2**20, mesh.size),
        *(*mesh.shape.values(), whole.sharded, whole.arrays),
    )


def window_in_words(row: Mapping[str, float], loss: str = "inner/loss") -> list[str]:
    """Phrases on the steps since the last report.

    Args:
      row: metrics by logged name; the use of codes may be absent.
      loss: logged name of the loss.

    Returns:
      Speed, loss and, where it is known, usage.
    """
    phrases = [f"{row['train/images_per_second']:.0f} images/s", f"loss {row[loss]:.4f}"]
    if "prior/bits_per_token" in row:
        phrases.append(f"{row['prior/bits_per_token']:.3f} bits/token")
    if "inner/usage" in row:
        phrases.append(f"usage {usage_in_words(row['inner/usage'])}")
    return phrases


def evaluation_in_words(scalars: Mapping[str, float]) -> str:
    """An evaluation during training, on one line.

    Args:
      scalars: by logged name, which begins with "eval/".

    Returns:
      Names without that, and values.
    """
    shown = {name: f"{value:.4g}" for name, value in scalars.items()}
    if "eval/usage" in scalars:
        shown["eval/usage"] = usage_in_words(scalars["eval/usage"])
    return "  ".join(f"{name.removeprefix('eval/')} {text}" for name, text in shown.items())


def cost_of(state: TrainState, mesh: Mesh, steps: Steps) -> Cost:
    """The cost of a run's step.

    Args:
      state: of the run, on its devices.
      mesh: over which it lies.
      steps: compiled.

    Returns:
      A Cost.
    """
    whole = sharding.total(sharding.holdings(state))
    return Cost(
        _parameters(state),
        steps.flops if math.isfinite(steps.flops) else None,
        round(steps.compile_seconds, 1),
        *(int(whole.size), int(whole.per_device), mesh.size),
        steps.inner_flops if math.isfinite(steps.inner_flops) else None,
    )


def _codes_in_words(side, downsampling):
    """What an image of so many pixels becomes."""
    codes = side // downsampling
    return f"{side} x {side} pixels -> {codes} x {codes} = {codes**2:,} codes"


def _parameters(state):
    """Numbers that are trained, by part."""
    leaves = {name: jax.tree.leaves(part) for name, part in state.parts.items()}
    return {name: sum(leaf.size for leaf in own) for name, own in leaves.items() if own}
