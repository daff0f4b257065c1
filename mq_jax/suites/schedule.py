"""The runs of a suite in their order, each with its folder and whole configuration."""

import copy
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from mq_jax import commandline
from mq_jax.priors.checks import require_trainable, unused_fields, validate
from mq_jax.runs.stages import is_prior
from mq_jax.suites.suite import Suite, words_of
from mq_jax.training.taking import take_sizes

_FEWEST_TASKS = 2


class Scheduled(NamedTuple):
    """A run that is to be.

    Attributes:
      entry: its name in the suite.
      seed: of everything random.
      folder: of the run.
      words: of the command line that trains it, without the folder.
      config: what they give.
    """

    entry: str
    seed: int
    folder: pathlib.Path
    words: tuple[str, ...]
    config: ConfigDict

    @property
    def name(self) -> str:
        """What people read."""
        return f"{self.entry} seed {self.seed}"

    def lasting(self, steps: int, folder: pathlib.Path, **fields: int) -> "Scheduled":
        """The same with other numbers of steps, in another folder.

        Args:
          steps: of the run, or the nearest number of them that its outer updates divide where
            one takes several inner updates as one.
          folder: of it.
          fields: further ones of the section train.

        Returns:
          A Scheduled.
        """
        train = self.config.train
        if not is_prior(self.config) and train.unroll > 1:
            steps = max(round(steps / train.inner_updates), 1) * train.inner_updates
        changes = {"steps": steps, **fields}
        config = copy.deepcopy(self.config)
        config.update_from_flattened_dict({f"train.{name}": v for name, v in changes.items()})
        words = tuple(f"--config.train.{name}={value}" for name, value in changes.items())
        return self._replace(config=config, words=self.words + words, folder=folder)


def schedule(suite: Suite, folder: pathlib.Path, given: Sequence[str] = ()) -> list[Scheduled]:
    """All runs of a suite, the first seed of every entry before the second of any.

    Args:
      suite: any.
      folder: of the suite.
      given: further `--config.NAME=VALUE` words, after those of the entries.

    Returns:
      Runs with valid configurations.

    Raises:
      ValueError: names the entry and what is wrong with it.
    """
    runs, seen = {}, {}
    for entry, overrides in suite.entries.items():
        try:
            words, config = _configured(suite, overrides, given)
        except (ValueError, commandline.UsageError) as error:
            raise ValueError(f"The entry {entry!r} of the suite: {error}") from error
        for other, known in seen.items():
            if known == config:
                raise ValueError(
                    f"The entries {other!r} and {entry!r} of the suite are one configuration; "
                    "expected different ones."
                )
        seen[entry] = config
        runs[entry] = [
            _with_seed(entry, seed, folder, words, config) for seed in suite.seeds_for(entry)
        ]
    rounds = range(max(map(len, runs.values())))
    return [own[turn] for turn in rounds for own in runs.values() if turn < len(own)]


def _configured(suite: Suite, overrides: str, given: Sequence[str]):
    """The words and the configuration of an entry."""
    _, common = words_of(suite.overrides)
    preset, own = words_of(overrides)
    experiment = f"{suite.experiment}:{preset}" if preset else suite.experiment
    words = (f"--config={experiment}", *common, *own, *given)
    if "seed" in commandline.overridden(["suite", *words]):
        raise ValueError(
            "config.seed is given, and the seeds of a suite are its own; change `seeds` or "
            "`seeds_of` in its file."
        )
    config = commandline.configured(["suite", *words])
    for sentence in unused_fields(config, commandline.overridden(["suite", *own])):
        raise ValueError(sentence)
    if suite.seconds and config.train.steps:
        raise ValueError(
            f"config.train.steps is {config.train.steps} in a suite of {suite.seconds:g} seconds; "
            "expected 0: the seconds make the steps."
        )
    take_sizes(config)
    validate(config)
    require_trainable(config)
    return words, config


def _with_seed(entry, seed, folder, words, config) -> Scheduled:
    own = copy.deepcopy(config)
    own.seed = seed
    place = run_folder(folder, entry, seed)
    return Scheduled(entry, seed, place, (*words, f"--config.seed={seed}"), own)


def run_folder(folder: pathlib.Path, entry: str, seed: int) -> pathlib.Path:
    """Where a run of a suite lies."""
    return folder / entry / f"seed-{seed}"


class Shard(NamedTuple):
    """A part of a suite's runs: those whose number leaves `index` when divided by `count`."""

    index: int = 0
    count: int = 1

    def of(self, runs: Sequence[Scheduled]) -> list[Scheduled]:
        """The runs of this shard, in their order."""
        return list(runs[self.index :: self.count])


WHOLE = Shard()


def find_shard(given: str, environment: Mapping[str, str]) -> Shard:
    """Which part of a suite is this process's.

    Args:
      given: I/N with I from 0; "": as the environment says. N is MQ_JAX_SHARDS, and I the first of
        MQ_JAX_SHARD, SLURM_ARRAY_TASK_ID and JOB_COMPLETION_INDEX (of an Indexed Job of Kubernetes)
        that is there; without N, a SLURM array that is whole is shared out to its tasks.
      environment: as os.environ.

    Returns:
      The whole where nothing says otherwise.

    Raises:
      ValueError: it is no part of a whole, or of which whole is not known.
    """
    if given:
        index, _, count = given.partition("/")
        return _shard(index, count, f"--shard is {given!r}")
    count = environment.get("MQ_JAX_SHARDS", "")
    if not count:
        if environment.get("MQ_JAX_SHARD"):
            raise ValueError(
                f"MQ_JAX_SHARD is {environment['MQ_JAX_SHARD']!r} and MQ_JAX_SHARDS is not set; "
                "set it to the number of shards."
            )
        return _of_array(environment) if "SLURM_ARRAY_TASK_ID" in environment else WHOLE
    for name in ("MQ_JAX_SHARD", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        if index := environment.get(name):
            return _shard(index, count, f"{name} is {index!r} and MQ_JAX_SHARDS {count!r}")
    raise ValueError(
        f"MQ_JAX_SHARDS is {count!r}, and nothing says which of them this is; set MQ_JAX_SHARD to "
        "a number from 0, or unset it for the whole."
    )


def _of_array(environment: Mapping[str, str]) -> Shard:
    """The task's part of a SLURM array; one with holes would leave out what it does not name."""
    told = {
        name: environment.get(f"SLURM_ARRAY_TASK_{name}", default)
        for name, default in (("ID", ""), ("COUNT", "1"), ("MIN", "0"), ("MAX", ""), ("STEP", "1"))
    }
    if not all(value.isdecimal() for value in told.values()) or told["STEP"] == "0":
        raise ValueError(f"SLURM_ARRAY_TASK_* are {told}; expected whole numbers.")
    task, count, least, most, step = map(int, told.values())
    # Of one task, or from 2 on, it is what is left of another array.
    if count < _FEWEST_TASKS or least > 1 or (most - least) // step + 1 != count:
        raise ValueError(
            f"SLURM_ARRAY_TASK_* are {told}, which does not say how many shards there are; set "
            "MQ_JAX_SHARDS to their number, of which each task takes that of its ID, from 0, as "
            "launch/suite.sbatch does, or give --shard=I/N."
        )
    return _shard(str((task - least) // step), str(count), f"SLURM_ARRAY_TASK_* are {told}")


def _shard(index: str, count: str, told: str) -> Shard:
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Shard(int(index), int(count))
    raise ValueError(f"{told}; expected I/N with 0 <= I < N, 0/4 to 3/4 for four shards.")
