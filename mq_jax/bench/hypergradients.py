"""How the kinds of hyper-gradient differ at a checkpoint of a run, and what of it is signal.

Independent batches have the same signal and noise of their own: the mean cosine between the
gradients of any two of them is near 1 where there is signal alone, near 0 where there is noise.
"""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mq_jax.algorithm.mq import HYPERGRADIENTS
from mq_jax.algorithm.outer import OuterGradient
from mq_jax.data import inputs
from mq_jax.data.feed import Feed
from mq_jax.devices.sharding import make_mesh
from mq_jax.images.scale import from_uint8
from mq_jax.runs.stages import is_prior
from mq_jax.terminal import console
from mq_jax.training.build import total_steps
from mq_jax.training.frozen import load_frozen
from mq_jax.training.quantizing import UNTRAINED
from mq_jax.training.restored import Restored, move_to_this_machine, restore
from mq_jax.training.steps import make_gradient
from mq_jax.training.validate import validate

# Those with an indirect part.
KINDS = tuple(kind for kind in HYPERGRADIENTS if kind not in ("none", "joint"))
# That which the others are compared with, and the same derivative in a costlier form.
EXACT, _AGAIN = "unrolled", "unrolled-reverse"

_COLUMNS = (
    *("kind", "direct", "indirect", "cosine", "to exact"),
    *("direct~", "indirect~", "whole~", "flips", "probe flips", "residual"),
)


class Subject(NamedTuple):
    """Where the kinds are compared.

    Attributes:
      folder: of a run.
      step: of its checkpoint; None: the best.
      batches: pairs of an inner and an outer batch, at least 2.
    """

    folder: pathlib.Path
    step: int | None = None
    batches: int = 4


def require_outer_level(config: ConfigDict) -> None:
    """Checks that a run has what an outer gradient is of.

    Args:
      config: of the run.

    Raises:
      ValueError: it is a prior's, or its quantizer has no parameters.
    """
    if is_prior(config):
        raise ValueError(
            "The run is that of a prior, which has one level; expected the run of a tokenizer."
        )
    if config.quantizer.kind in UNTRAINED:
        raise ValueError(
            f"The run's quantizer.kind is {config.quantizer.kind!r}, which no gradient trains, so "
            f"that it has no hyper-gradient; expected another kind than {', '.join(UNTRAINED)}."
        )


def bench_hypergradients(config: ConfigDict, subject: Subject, kinds: Sequence[str] = ()) -> None:
    """Prints norms, cosines and flips of the kinds, at one state and on the same batches.

    Args:
      config: of the run, validated; fields that are not of the model may be others.
      subject: the checkpoint.
      kinds: of KINDS; none for all but that which is another in form alone.

    Raises:
      ValueError: there is no such checkpoint or too little data, or a kind and the configuration
        do not go together.
      OSError: something cannot be read.
    """
    chosen = {kind: _of_kind(config, kind) for kind in kinds or KINDS if kinds or kind != _AGAIN}
    found, at = outer_gradients(config, subject, chosen)
    console.print_table(
        f"Outer gradients at step {at} of {subject.folder}, means over {subject.batches} pairs of "
        f"batches of {config.train.batch_size}: norms of the direct and the indirect part; "
        f"cosines of the two, of the indirect part to that of {EXACT}, and (~) between batches; "
        "shares of the codes that flip by the outer update and between the probes; residual of "
        "the linear system",
        _COLUMNS,
        [[kind, *_cells(gradients, found.get(EXACT))] for kind, gradients in found.items()],
    )


def outer_gradients(
    config: ConfigDict, subject: Subject, kinds: Mapping[str, ConfigDict]
) -> tuple[dict[str, list[OuterGradient]], str]:
    """The outer gradients of several kinds, on the batches that the run would see next.

    Args:
      config: of the run.
      subject: the checkpoint.
      kinds: configurations by kind.

    Returns:
      (OuterGradients on the host by kind, one for each pair of batches; the step, "N of M").

    Raises:
      ValueError: as bench_hypergradients.
      OSError: likewise.
    """
    config = ConfigDict(config.to_dict())
    move_to_this_machine(config)
    inputs.require_directory(config)
    inputs.require_divisible(config, jax.device_count())
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    sources = inputs.open_training(config)
    # The exact indirect part is proportional to the learning rate, which falls over these.
    steps = total_steps(config, len(sources.autoencoder))
    restored = restore(subject.folder, config, mesh, subject.step, steps=steps)
    feed = Feed(_of_kind(config, EXACT), sources, mesh)
    pairs = _first(feed.batches(restored.step), subject.batches)
    frozen = jax.device_put(load_frozen(config))
    found = {kind: _on(pairs, own, restored, frozen) for kind, own in kinds.items()}
    return found, f"{restored.step} of {steps}"


def _of_kind(config: ConfigDict, kind: str) -> ConfigDict:
    """The configuration with one kind of hyper-gradient, through one inner update."""
    own = ConfigDict(config.to_dict())
    own.train.update(hypergradient=kind, inner_updates=1, unroll=1, roll_back=False)
    # What is kept changes no gradient, and its pairs are given to each kind.
    own.train.update(keep_activations=False)
    if kind == "pipelined":
        own.train.outer_data = "other"
    validate(own)
    return own


def _first(batches: Any, count: int) -> list[tuple[jax.Array, jax.Array]]:
    """The first pairs of a generator, as a step takes them."""
    try:
        return [jax.tree.map(from_uint8, next(batches)) for _ in range(count)]
    finally:
        batches.close()


def _on(
    pairs: Iterable[tuple[jax.Array, jax.Array]], config: ConfigDict, restored: Restored, frozen
) -> list[OuterGradient]:
    """The outer gradients of one kind, on the host."""
    gradient = jax.jit(make_gradient(restored.built.problem, config, restored.built.pullback))
    return [jax.device_get(gradient(restored.state, *pair, frozen)) for pair in pairs]


def _cells(gradients: Sequence[OuterGradient], exact: Sequence[OuterGradient] | None) -> list[str]:
    """The row of a kind, after its name."""

    def mean(name, form):
        values = [each.metrics[name] for each in gradients if name in each.metrics]
        return format(np.mean(values), form) if values else "-"

    direct = [flat(each.direct) for each in gradients]
    indirect = [flat(each.indirect) for each in gradients]
    whole = [a + b for a, b in zip(direct, indirect, strict=True)]
    to_exact = "-"
    if exact is not None:
        pairs = zip(indirect, exact, strict=True)
        to_exact = f"{np.mean([cosine(a, flat(b.indirect)) for a, b in pairs]):+.3f}"
    return [
        *(mean("outer/direct_norm", ".2e"), mean("outer/indirect_norm", ".2e")),
        *(mean("outer/direct_indirect_cosine", "+.3f"), to_exact),
        *(f"{mean_cosine(vectors):+.3f}" for vectors in (direct, indirect, whole)),
        *(mean("outer/code_flip_rate", ".2%"), mean("outer/probe_flip_rate", ".1%")),
        mean("outer/solve_residual", ".3g"),
    ]


def flat(tree: Any) -> np.ndarray:
    """f64[n] of all leaves of a tree."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors; 0 where one vanishes."""
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def mean_cosine(vectors: Sequence[np.ndarray]) -> float:
    """Of any two of at least two vectors, the mean of their cosines."""
    return float(np.mean([cosine(a, b) for a, b in itertools.combinations(vectors, 2)]))
