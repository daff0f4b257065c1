"""Which mode looks at which flags: what it would not look at is refused, not passed over."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence

from absl import flags

from mq_jax.commandline import UsageError, overridden
from mq_jax.generation.sampling import Sampling
from mq_jax.runs.stages import is_prior

# Flags that are fields of Sampling.
FIELDS = tuple(field.name for field in dataclasses.fields(Sampling))

# Of --mode=evaluate with --samples, which takes other flags than that of a run.
_SAMPLES = "evaluate --samples"

# Flags that only some modes look at; the others refuse them.
_FLAGS_OF_MODES = {
    "step": ("evaluate", "export", "sample"),
    **dict.fromkeys(("name", "size", "compare", "unlike"), ("evaluate",)),
    "samples": (_SAMPLES,),
    "images": ("evaluate", "plan", "compare", "tokens"),
    "devices": ("plan",),
    "overwrite": ("export", "tokens"),
    "output": ("report", "tokens", "sample", "prepare", _SAMPLES),
    "from": ("import", "prepare"),
    "partition": ("prepare",),
    "split": ("tokens", _SAMPLES),
    "formats": ("export",),
    **dict.fromkeys(("views", "shards", "beam"), ("tokens",)),
    "format": ("import",),
    "accept_changed_data": ("train",),
    **dict.fromkeys(("suite", "dry_run", "count_flops", "shard"), ("compare",)),
    "reference": ("compare", _SAMPLES),
    **dict.fromkeys(("count", "classes", "seed", "batch_size", "tokenizer", *FIELDS), ("sample",)),
}

# Of a prior, the second stage.
_OF_PRIORS = ("train", "plan", "report", "export", "sample")


def require_taken(given: flags.FlagValues, folders: Sequence[str]) -> None:
    """Raises for what was given and the mode would not look at.

    Args:
      given: the flags of mq_jax.main.
      folders: arguments that are no flags.

    Raises:
      UsageError: names the first of it, and who would take it.
    """
    comparing = given.mode == "evaluate" and given.compare
    mode = _SAMPLES if given.mode == "evaluate" and given["samples"].present else given.mode
    taker = "--compare" if comparing else mode
    for name, modes in _FLAGS_OF_MODES.items():
        flag = given[name]
        refused = mode not in modes or (comparing and name not in ("compare", "unlike"))
        if refused and flag.present and flag.value is not False:
            takers = _listed(f"--mode={each}" for each in modes)
            raise UsageError(f"--{name}={flag.value} is of {takers}; {taker} takes none.")
    for name in ("images", "samples"):
        # A shell's variable that is not set; the run's own images would stand for it.
        if given[name].present and not given[name].value:
            raise UsageError(f"--{name} is empty; give a value, or leave it out.")
    typed = overridden(sys.argv)
    if typed and (comparing or mode in ("export", "report", "sample", "prepare")):
        raise UsageError(
            f"--config.{typed[0]} changes nothing here: {taker} takes what is there as it is; "
            "leave it out."
        )
    if mode not in _OF_PRIORS and given.config is not None and is_prior(given.config):
        raise UsageError(
            f"The configuration is that of a prior, which --mode={mode} does not take; a prior "
            f"has {_listed(_OF_PRIORS)}."
        )
    if folders and not (comparing or mode == "report"):
        raise UsageError(f"{folders[0]!r} is no flag; all arguments are flags.")


def _listed(words: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
