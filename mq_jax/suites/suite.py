"""A suite: one experiment under several settings, each with its seeds, on one budget."""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Mapping

from mq_jax import commandline

# Folders of a suite's own stand beside those of its entries.
RESERVED = ("timings",)
_NAME = re.compile(r"\w[\w.+,=@-]*")
_MOST_CHARACTERS = 100


@dataclasses.dataclass(frozen=True)
class Suite:
    """What is to be compared.

    Overrides are text as on the command line without its `--config.`: `train.steps=800`, several
    with spaces between. An entry may begin with a preset of its experiment, `:fsq`.

    Attributes:
      experiment: configs/X.py.
      entries: overrides by name, in the order of the tables; "" for the experiment as it is.
      overrides: of all entries, before their own.
      seeds: of each entry.
      seeds_of: by entry, in the place of `seeds`.
      reference: the entry that others are compared with; "": the first.
      seconds: of training, by which a run has as many steps as fit; 0: the configuration says how
        many. Steps are timed in a run of their own, so evaluations and compilation are no part.
      timing_steps: of that run.
    """

    experiment: str
    entries: Mapping[str, str]
    overrides: str = ""
    seeds: tuple[int, ...] = (0,)
    seeds_of: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    reference: str = ""
    seconds: float = 0.0
    timing_steps: int = 60

    def __post_init__(self):
        for problem in _problems(self):
            raise ValueError(problem)

    def seeds_for(self, entry: str) -> tuple[int, ...]:
        """The seeds of an entry."""
        return tuple(self.seeds_of.get(entry, self.seeds))

    @property
    def compared_with(self) -> str:
        """The reference entry."""
        return self.reference or next(iter(self.entries))


def read_suite(path: str) -> Suite:
    """Runs the `get_suite()` of a suite's file.

    Args:
      path: of the file, configs/suites/NAME.py.

    Returns:
      Its Suite; the experiment, a path from the repository, is found from anywhere.

    Raises:
      UsageError: there is no such file, or it fails.
      ValueError: it returns something else, or its experiment is nowhere.
    """
    suite = commandline.run_file(path, "suite", path, "get_suite", depth=2)
    if not isinstance(suite, Suite):
        raise ValueError(
            f"--suite={path}: get_suite() returns a {type(suite).__name__}; expected a "
            "mq_jax.suites.Suite."
        )
    file = pathlib.Path(suite.experiment)
    for folder in (pathlib.Path(), *pathlib.Path(path).resolve().parents):
        if (folder / file).is_file():
            return dataclasses.replace(suite, experiment=str(folder / file))
    raise ValueError(
        f"--suite={path}: its experiment, {suite.experiment}, is neither here nor in a folder "
        "above the suite; expected configs/X.py."
    )


def words_of(overrides: str) -> tuple[str, list[str]]:
    """The preset and the arguments that a text of overrides stands for.

    Args:
      overrides: as Suite's.

    Returns:
      The preset, "" for none, and `--config.NAME=VALUE` words.

    Raises:
      ValueError: a word is neither.
    """
    try:
        words, preset = shlex.split(overrides), ""
    except ValueError as error:
        raise ValueError(
            f"the overrides {overrides!r} cannot be read: {error}; expected words as a shell's."
        ) from error
    if words and words[0].startswith(":"):
        preset = words.pop(0)[1:]
    for word in words:
        if not re.fullmatch(r"[A-Za-z_][\w.]*=.*", word, re.DOTALL):
            raise ValueError(
                f"{word!r} is no override; expected NAME=VALUE, train.steps=800 say, or as the "
                "first word a :PRESET."
            )
    return preset, [f"--config.{word}" for word in words]


def _problems(suite: Suite):
    """What is wrong with a suite in itself."""
    yield from _of_other_kinds(suite)
    if not suite.entries:
        yield "A suite has no entries; expected at least one name with its overrides."
    for name in suite.entries:
        is_name = _NAME.fullmatch(name) and len(name) <= _MOST_CHARACTERS
        if not is_name or name in RESERVED:
            yield (
                f"The entry {name!r} cannot be the name of a folder of a suite; expected up to "
                f"{_MOST_CHARACTERS} letters, digits and any of _.+,=@- after the first, and none "
                f"of {', '.join(RESERVED)}."
            )
    for name in (*suite.seeds_of, *([suite.reference] if suite.reference else [])):
        if name not in suite.entries:
            yield f"{name!r} is no entry of the suite; expected one of {', '.join(suite.entries)}."
    for name in suite.entries:
        seeds = suite.seeds_for(name)
        whole = all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
        if not seeds or not whole or len(set(seeds)) < len(seeds):
            yield (
                f"The seeds of {name!r} are {seeds}; expected one or more different whole numbers "
                "in [0, 2^32)."
            )
    if not suite.seconds >= 0 or suite.timing_steps < 20:
        yield (
            f"seconds is {suite.seconds} and timing_steps {suite.timing_steps}; expected 0 or "
            "more, and at least 20, of which the first window is not counted."
        )


def _of_other_kinds(suite: Suite):
    """Fields that hold another kind of thing than they are for."""
    entries, of_entries = suite.entries, suite.seeds_of
    texts = isinstance(entries, Mapping) and all(
        isinstance(text, str) for pair in entries.items() for text in pair
    )
    told = {
        "entries": (texts, "a dict of overrides by name, both text"),
        "seeds": (isinstance(suite.seeds, tuple | list), "a tuple, (0, 1, 2) say"),
        "seeds_of": (
            isinstance(of_entries, Mapping)
            and all(isinstance(seeds, tuple | list) for seeds in of_entries.values()),
            "a dict of tuples by entry",
        ),
        **{
            name: (isinstance(getattr(suite, name), str), "text")
            for name in ("experiment", "overrides", "reference")
        },
        "seconds": (type(suite.seconds) in (int, float), "a number"),
        "timing_steps": (type(suite.timing_steps) is int, "a whole number"),
    }
    for name, (fits, expected) in told.items():
        if not fits:
            yield f"{name} of a suite is {getattr(suite, name)!r}; expected {expected}."
