"""What the export of a prior holds: what it is, what its tokens are, its weights by name."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from mq_jax.priors.build import make_prior
from mq_jax.priors.facts import TokenFacts
from mq_jax.runs.trees import by_path
from mq_jax.samplers.restored import RestoredPrior, architecture_of
from mq_jax.tokenizers.export import digest, fingerprint

VERSION = 1


class PriorExport(NamedTuple):
    """A prior on its own.

    Attributes:
      fields: section prior of its configuration.
      facts: what tokens it is of, the fingerprint of their tokenizer among them.
      step: of the checkpoint.
      weights: NumPy arrays by name, `trunk/norm/scale`; averages where they were kept.
      fingerprint: sha256 of what it is, its space and its weights.
    """

    fields: dict[str, Any]
    facts: TokenFacts
    step: int
    weights: dict[str, np.ndarray]
    fingerprint: str

    @property
    def header(self) -> dict[str, Any]:
        """All but the weights, fit for JSON."""
        return {
            "version": VERSION,
            "prior": self.fields,
            "tokens": self.facts.told,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "origin_sha256": digest([self.facts.told, self.step]),
        }


def make_prior_export(restored: RestoredPrior, facts: TokenFacts) -> PriorExport:
    """The export of a run's prior.

    Args:
      restored: from its run.
      facts: of the same run.

    Returns:
      A PriorExport, on the host.
    """
    weights = {name: np.asarray(leaf) for name, leaf in by_path(restored.params).items()}
    found = fingerprint(architecture_of(restored.config, restored.space), weights)
    return PriorExport(restored.config.prior.to_dict(), facts, restored.step, weights, found)


def restored_of(export: PriorExport) -> RestoredPrior:
    """The prior of an export, as if out of its run.

    Args:
      export: of any origin, checked.

    Returns:
      A RestoredPrior, on the host, whose configuration has the section prior alone.
    """
    config, space = ConfigDict({"prior": export.fields}), export.facts.space
    params = traverse_util.unflatten_dict(dict(export.weights), sep="/")
    return RestoredPrior(config, make_prior(config, space), params, space, export.step)
