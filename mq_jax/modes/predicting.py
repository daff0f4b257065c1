"""--mode=compare --dry_run: what would be run, and for how long."""

import functools
import json
import pathlib
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from mq_jax.devices.products import matmul_rate
from mq_jax.modes.lengths import declared_images, run_steps
from mq_jax.planning.plan import make_plan, use_virtual_devices
from mq_jax.runs.listing import read_recorded
from mq_jax.runs.stages import is_prior
from mq_jax.runs.workdir import flat
from mq_jax.suites.prediction import PRODUCT, Tracing, predictions, predictions_table, totals
from mq_jax.suites.results import Result, read_results
from mq_jax.suites.schedule import Scheduled, Shard, run_folder
from mq_jax.suites.suite import Suite
from mq_jax.suites.timing import timed, timing_of
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell

# Fields that say of how many images a run's epochs are; where they lie does not.
_OF_IMAGES = ("data.source", "data.train_split", "data.holdout", "tokens")


def predict(
    runs: Sequence[Scheduled],
    part: Shard,
    suite: Suite,
    folder: pathlib.Path,
    *,
    images: int,
    count_flops: bool,
) -> None:
    """Prints what would be run, and for how long; writes nothing.

    Args:
      runs: all of the suite.
      part: of which to tell.
      suite: any.
      folder: of the suite, which need not be there.
      images: of which epochs are; 0: as many as the data declares.
      count_flops: whether what was not measured follows from FLOPs, for which steps are traced.
    """
    try:
        measured = read_results(folder).runs
    except FileNotFoundError:
        measured = []
    lasting = [timed(one, suite, folder) or one for one in runs]
    lengths = _Lengths(images, measured, folder)
    found = predictions(
        *(lasting, measured, lengths.steps_of),
        shard=part,
        timings=_timings(part.of(runs), suite, folder) if suite.seconds else (),
        budget=suite.seconds,
        tracing=Tracing(_flops, _roof) if count_flops else None,
    )
    console.print_table(f"Would be run in {folder}", *predictions_table(found))
    spent, left, is_least = totals(found)
    hours = f"{'at least ' if is_least else ''}{left / 3600:,.2f} h" if left is not None else "–"
    tell(f"In all so far {spent / 3600:,.2f} h, left {hours}")
    if any(one.origin == PRODUCT for one in found):
        tell(
            f"{PRODUCT}: no step was measured here, so each is taken to be as fast as a matrix "
            f"product on {jax.device_count()} x {jax.devices()[0].device_kind}; it takes longer."
        )
    tell(*lengths.problems)


class _Lengths:
    """Steps of runs; each data set is looked at once, and what is wrong with it is told once."""

    def __init__(self, images: int, measured: Sequence[Result], folder: pathlib.Path):
        self._images, self._measured, self._folder = images, measured, folder
        self._known: dict[str, int] = {}
        self.problems: list[str] = []

    def steps_of(self, config: ConfigDict) -> int:
        """Of the whole run; 0 where they are not known."""
        if not (config.train.steps or self._images):
            images = self._images_of(config)
            return run_steps(config, images) if images else 0
        return run_steps(config, self._images)

    def _images_of(self, config):
        """As the data declares them, or as a run on the same data recorded them."""
        levels = "" if is_prior(config) else config.train.outer_data
        key = json.dumps([_of_images(flat(config.to_dict())), config.data.to_dict(), levels])
        if key not in self._known:
            try:
                self._known[key] = declared_images(config)
            except ValueError as error:
                self._known[key] = self._recorded(config, levels)
                if not self._known[key]:
                    self.problems.append(str(error))
        return self._known[key]

    def _recorded(self, config, levels):
        """Images that a run of the suite was trained on; 0 where there is none like it."""
        if levels == "held-out":
            # A level has only some of what is recorded.
            return 0
        wanted = _of_images(flat(config.to_dict()))
        for result in self._measured:
            if _of_images(result.run.config) == wanted:
                recorded = read_recorded(run_folder(self._folder, result.entry, result.seed))
                if recorded and "train" in recorded.splits:
                    return recorded.splits["train"]["images"]
        return 0


def _of_images(config):
    return [config.get(name) for name in _OF_IMAGES]


def _timings(runs, suite, folder):
    """A timing of each entry, under the name of its folder."""
    found: dict[str, Scheduled] = {}
    for one in runs:
        if one.entry not in found:
            timing = timing_of(one, suite, folder)
            found[one.entry] = timing._replace(entry=f"{timing.folder.parent.name}/{one.entry}")
    return list(found.values())


def _flops(config: ConfigDict) -> float:
    """Matrix FLOPs of a step; traced, not compiled."""
    use_virtual_devices(1)
    return make_plan(config, 1, compiled=False).matrix_flops


def _roof(config: ConfigDict) -> float:
    """FLOP/s of a matrix product on all devices of this machine, in the net's numbers."""
    net = config.prior if is_prior(config) else config.model
    return _product_rate(net.dtype) * 1e9 * jax.device_count()


# Timed once: on a busy machine it changes from second to second, and entries are to be compared.
_product_rate = functools.cache(matmul_rate)
