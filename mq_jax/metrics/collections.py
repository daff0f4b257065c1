"""What is measured, as CLU metrics: mergeable sums that are merged inside jit."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

from mq_jax.quantizers import histogram

# Later than any step: no value was non-finite.
NEVER = np.iinfo(np.int32).max

_COUNTS = "inner/code_counts"


@flax.struct.dataclass
class CodeHistogram(clu_metrics.Metric):
    """The merged code histogram; usage and perplexity are functions of it, not averages.

    Attributes:
      counts: i32[K].
    """

    counts: jax.Array

    @classmethod
    def from_model_output(cls, values: jax.Array, **_) -> "CodeHistogram":
        """The histogram of one batch, i32[K]."""
        return cls(counts=values)

    def merge(self, other: "CodeHistogram") -> "CodeHistogram":
        """The sum of two histograms."""
        return type(self)(counts=self.counts + other.counts)


@flax.struct.dataclass
class Usage(CodeHistogram):
    """The share of codes that occur at all, in [0, 1]."""

    def compute(self) -> jax.Array:
        """f32[]."""
        return histogram.usage(self.counts)


@flax.struct.dataclass
class Perplexity(CodeHistogram):
    """exp of the entropy of the code distribution, in [1, K]."""

    def compute(self) -> jax.Array:
        """f32[]."""
        return histogram.perplexity(self.counts)


@flax.struct.dataclass
class FirstNonFinite(clu_metrics.Metric):
    """The first step at which each of several terms was infinite or not a number.

    Attributes:
      steps: i32[T], NEVER for a term that was always finite.
    """

    steps: jax.Array

    @classmethod
    def from_model_output(cls, values: jax.Array, step: jax.Array, **_) -> "FirstNonFinite":
        """From the terms' values f32[T] at a step i32[]."""
        return cls(steps=jnp.where(jnp.isfinite(values), NEVER, step).astype(jnp.int32))

    def merge(self, other: "FirstNonFinite") -> "FirstNonFinite":
        """The earlier step, term by term."""
        return type(self)(steps=jnp.minimum(self.steps, other.steps))

    def compute(self) -> jax.Array:
        """i32[T]."""
        return self.steps


def make_window(names: Sequence[str]) -> type[clu_metrics.Collection]:
    """The collection of a training window, the steps between two lines of the log.

    Args:
      names: names of a train step's metrics.

    Returns:
      A CLU collection: averages of the scalars (those of the outer level over the steps that
      had one), usage and perplexity of `inner/code_counts` where a step counts codes, and
      `first_nonfinite` by term.
    """
    terms = terms_of(names)

    def values_of_terms(step, **outputs):
        return {"values": jnp.stack([outputs[name] for name in terms]), "step": step}

    fields = {_identifier(name): _average(name, names) for name in terms}
    if _COUNTS in names:
        fields |= {
            "inner__usage": Usage.from_output(_COUNTS),
            "inner__perplexity": Perplexity.from_output(_COUNTS),
        }
    return clu_metrics.Collection.create(
        **fields, first_nonfinite=FirstNonFinite.from_fun(values_of_terms)
    )


def empty_window(outputs: Mapping[str, jax.ShapeDtypeStruct]) -> clu_metrics.Collection:
    """The window that no step has been merged into.

    Args:
      outputs: shapes and dtypes of a train step's metrics, by name.

    Returns:
      The neutral element of `merge`, of the class that make_window returns for these names.
    """
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in outputs.items()}
    window = make_window(list(outputs))
    return empty_like(window.single_from_model_output(step=jnp.zeros((), jnp.int32), **zeros))


def empty_like(window: clu_metrics.Collection) -> clu_metrics.Collection:
    """The neutral element of `merge` for a window.

    Args:
      window: any window; only its shapes are read.

    Returns:
      A window of the same class that no step has been merged into.
    """
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), window)
    never = jnp.full_like(empty.first_nonfinite.steps, NEVER)
    return empty.replace(first_nonfinite=empty.first_nonfinite.replace(steps=never))


def terms_of(names: Sequence[str]) -> list[str]:
    """The scalar terms among a train step's metrics, sorted.

    Args:
      names: names of a train step's metrics.

    Returns:
      The names, without the histogram and the bookkeeping.
    """
    return sorted(set(names) - {_COUNTS, "outer/updates"})


def first_nonfinite(window: clu_metrics.Collection, names: Sequence[str]) -> tuple[int, list[str]]:
    """The first bad step of a window and the terms that were non-finite then.

    Args:
      window: a collection of the class that make_window returned for `names`.
      names: names of a train step's metrics.

    Returns:
      (step, terms); (NEVER, []) when all was finite.
    """
    steps = np.asarray(window.first_nonfinite.steps)
    first = int(steps.min())
    bad = [term for term, step in zip(terms_of(names), steps, strict=True) if step == first]
    return first, bad if first != NEVER else []


def _unmasked_counts(code_counts, **_):
    """The histogram, which the mask of the images does not fit."""
    return {"values": code_counts, "mask": None}


def empty_evaluation(size: int, names: Sequence[str]) -> clu_metrics.Collection:
    """What an evaluation reports: means over images, and code use over the whole set.

    Args:
      size: K.
      names: of what is measured for each image, "mse" and "psnr", say.

    Returns:
      The neutral element of `merge`, a collection of the class that make_evaluation returns.
    """
    nothing = {name: jnp.zeros((0,)) for name in names}
    counts = jnp.zeros(size, jnp.int32)
    return make_evaluation(tuple(names)).single_from_model_output(code_counts=counts, **nothing)


@functools.cache
def make_evaluation(names: tuple[str, ...]) -> type[clu_metrics.Collection]:
    """The collection of an evaluation; the same class for the same names.

    Args:
      names: of what is measured for each image.

    Returns:
      A CLU collection: averages over the images that a mask keeps, usage and perplexity of
      `code_counts`, which no mask fits.
    """
    return clu_metrics.Collection.create(
        **{name: clu_metrics.Average.from_output(name) for name in names},
        usage=Usage.from_fun(_unmasked_counts),
        perplexity=Perplexity.from_fun(_unmasked_counts),
    )


def scalars(collection: clu_metrics.Collection) -> dict[str, float]:
    """The values of a collection, as Python numbers under their logged names.

    Args:
      collection: reduced metrics.

    Returns:
      name -> value; `first_nonfinite` is left out.
    """
    return named(fetched(computed(collection)))


def fetched(tree: Any) -> Any:
    """Sends arrays on their way to the host; nobody waits until their values are asked for.

    Args:
      tree: of arrays.

    Returns:
      The same.
    """
    for leaf in jax.tree.leaves(tree):
        leaf.copy_to_host_async()
    return tree


def named(values: Mapping[str, jax.Array]) -> dict[str, float]:
    """The values of a collection, once they are there.

    Args:
      values: from computed.

    Returns:
      As scalars.
    """
    return {
        _logged(name): float(value)
        for name, value in jax.device_get(values).items()
        if name != "first_nonfinite"
    }


# As one program: each operation by itself would be compiled by itself.
computed = jax.jit(lambda collection: collection.compute())


def _average(name, names):
    """An average over steps; over the steps with an outer update, for what they alone have."""
    if not (name.startswith("outer/") and "outer/updates" in names):
        return clu_metrics.Average.from_output(name)

    def masked(**outputs):
        return {"values": outputs[name][None], "mask": outputs["outer/updates"][None]}

    return clu_metrics.Average.from_fun(masked)


def _identifier(name):
    """`inner/loss` -> `inner__loss`: CLU's fields are Python identifiers."""
    return name.replace("/", "__")


def _logged(identifier):
    """`inner__loss` -> `inner/loss`."""
    return identifier.replace("__", "/")
