"""Checkpoints: saved in the background, read back, damage survived, the last and the best kept."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from mq_jax.devices.agreement import together
from mq_jax.runs import orbax_noise
from mq_jax.runs.damaged import remove_unfinished, set_aside
from mq_jax.runs.preservation import LatestAndBest, monitored_values
from mq_jax.runs.restoring import Restored, read_step
from mq_jax.runs.standing import FIRST, step_of_best
from mq_jax.runs.trees import shapes
from mq_jax.runs.wholeness import committing, require_saved, seal, visible_damage
from mq_jax.storage.plain_path import plain_path


class Checkpoints:
    """The checkpoints in one directory: the last two and the best, of those saved with `monitor`.

    Every process of a run makes the same calls in the same order.

    Args:
      directory: holds the step folders; created unless `read_only`.
      monitor: name of the metric, lower is better, that decides which checkpoint is best.
      settled: the first step from which on a checkpoint goes before earlier ones as the best.
      read_only: for evaluation; nothing is created, renamed or deleted, and `save` raises.
    """

    def __init__(
        self,
        directory,
        *,
        monitor: str = "eval/mse",
        settled: int = FIRST,
        read_only: bool = False,
    ):
        orbax_noise.silence()
        self.directory = pathlib.Path(directory).absolute()
        self._monitor, self._settled = monitor, settled
        self._read_only = read_only
        self._saving: int | None = None
        self._values: dict[int, float] = {}
        # A first save that reads back whole tells that all goes well in this place.
        self._proven = False
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._opened = contextlib.ExitStack()
        self._place = self._opened.enter_context(plain_path(self.directory))
        self._manager = ocp.CheckpointManager(
            self._place,
            options=ocp.CheckpointManagerOptions(
                create=False,
                read_only=read_only,
                save_interval_steps=0 if read_only else 1,
                preservation_policy=LatestAndBest(self._values, settled),
                # Orbax would read the metadata of every step, and fail on a damaged one.
                lightweight_initialize=True,
                temporary_path_class=committing(self._check, self._place),
            ),
        )
        self._read_values()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """Steps that have a folder, increasing; one being saved is among them."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The last step that has a checkpoint."""
        return max(self.steps, default=None)

    @property
    def best_step(self) -> int | None:
        """The best step among those saved with metrics, as standing.rank has it."""
        values = {step: self._values.get(step) for step in self.steps}
        return step_of_best(values, self._settled)

    @property
    def best_value(self) -> float | None:
        """The metric of the best step."""
        return self._values.get(self.best_step)

    @property
    def unreadable_steps(self) -> list[int]:
        """Steps whose record is damaged, so that they never count as best."""
        return self._unreadable

    @property
    def last_good(self) -> str:
        """What a failure leaves, in words: the last checkpoint, or that there is none."""
        if self.latest_step is None:
            return "There is no good checkpoint"
        return f"The last good checkpoint is that of step {self.latest_step}"

    def save(self, step: int, tree, extra: dict[str, Any], metrics: dict[str, Any] | None) -> None:
        """Starts to save a checkpoint; the arrays may be donated as soon as this returns.

        A step that has a whole checkpoint already is left alone. What is written is read back
        before it counts: the first time before this returns, then in the background.

        Args:
          step: number of the step, the name of its folder.
          tree: any pytree of arrays.
          extra: anything JSON can hold.
          metrics: an evaluation at this step, `monitor` among them; None where there was none.
            A `monitor` that is not finite never counts as best.

        Raises:
          OSError: this save, or the one before it, could not be written or read back.
          TypeError: `extra` holds what JSON cannot.
          ValueError: `monitor` is not among the metrics, or the directory is open for reading.
        """
        if self._read_only:
            raise ValueError(f"{self.directory} is open with read_only=True; cannot save {step}.")
        if metrics is not None and self._monitor not in metrics:
            raise ValueError(
                f"The metrics are {sorted(metrics)}; expected {self._monitor!r} among them, "
                "or None where nothing was evaluated."
            )
        metrics = metrics and {name: float(value) for name, value in metrics.items()}
        record = {"extra": extra, "metrics": metrics, "sealed": True}
        json.dumps(record)  # What JSON cannot hold fails here, not later in the background.
        self.wait()
        if step in self.steps:
            damage = visible_damage(self._folder(step))
            if damage is None:
                return
            self._set_aside({step: damage})
        self._saving, self._expected = step, (shapes(tree), record)
        if metrics is not None and math.isfinite(metrics[self._monitor]):
            self._values[step] = metrics[self._monitor]
        items = {"tree": ocp.args.StandardSave(tree), "record": ocp.args.JsonSave(record)}
        with self._failure_explained():
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        if not self._proven:
            self.wait()
            self._proven = True

    def restore(
        self, abstract_tree, step: int | None = None, *, partly: bool = False
    ) -> Restored | None:
        """Reads the newest checkpoint that is whole, or the one of `step`.

        Damaged ones that are newer than it are renamed to `damaged-<step>`, never deleted.

        Args:
          abstract_tree: `jax.ShapeDtypeStruct` leaves with the shardings wanted; their dtypes
            win over the stored ones.
          step: this one and no other.
          partly: whether the checkpoint may hold more, which is then not read.

        Returns:
          What the checkpoint held; None if there is none.

        Raises:
          ValueError: the checkpoint is of another model; or every one that was tried is damaged;
            or there is none of `step`.
        """
        self.wait()
        if step is not None and step not in self.steps:
            raise ValueError(
                f"{self.directory} has no checkpoint of step {step}; it has {self.steps}."
            )
        restored, damages = None, {}
        for candidate in reversed(self.steps) if step is None else [step]:
            try:
                where = self._folder(candidate), self._place
                with together():
                    found = read_step(self._manager, *where, abstract_tree, partly=partly)
            except Exception as error:
                damages[candidate] = self._reason(error)
                continue
            if isinstance(found, str):
                raise ValueError(found)
            restored = found
            break
        if damages and restored is None:
            # They stay where they are: the next start must not take this run for a new one.
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damages.items())
            others = " or ".join(f"--step={s}" for s in self.steps if s not in damages)
            raise ValueError(
                f"{self.directory} has the checkpoints {self.steps}; damaged are {reasons}. "
                + (
                    f"Take another one: {others}."
                    if others
                    else "No other one is left: move the "
                    "folder away, or give another --workdir, to start from the beginning."
                )
            )
        if step is None:
            self._set_aside(damages)
        return restored

    def wait(self) -> None:
        """Blocks until the save in the background is on disk.

        Raises:
          OSError: it could not be written; says which step, why, and the last good one.
        """
        with self._failure_explained():
            self._manager.wait_until_finished()
        self._saving = None

    def check(self) -> None:
        """Looks, without waiting, whether the save in the background has failed.

        Of several processes each learns of it in the next save, where all wait anyway.

        Raises:
          OSError: it has; as wait.
        """
        ended = self._saving is not None and not self._manager.is_saving_in_progress()
        if ended and jax.process_count() == 1:
            self.wait()

    def close(self) -> None:
        """Waits, then ends the background threads.

        Raises:
          OSError: the last save could not be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
            self._opened.close()

    def _check(self, folder: pathlib.Path) -> None:
        """Looks at a save that is about to take its name, and seals it with checksums."""
        require_saved(folder, *self._expected, thorough=not self._proven)
        seal(folder)

    def _reason(self, error: Exception) -> str:
        """An error of Orbax in one line, with the folder under its own name."""
        return orbax_noise.one_line(error).replace(str(self._place), str(self.directory))

    def _set_aside(self, damages: dict[int, str]) -> None:
        """Renames what cannot be restored, so that its steps can be saved again."""
        aside = {self._folder(step): reason for step, reason in damages.items()}
        if self._read_only:
            for folder, reason in aside.items():
                logging.warning("Skipping the damaged checkpoint %s (%s)", folder, reason)
            return
        if jax.process_index() == 0:
            for folder, reason in aside.items():
                set_aside(folder, reason)
            remove_unfinished(self.directory)
        multihost_utils.sync_global_devices("mq_jax: damaged checkpoints set aside")
        self._reload()

    @contextlib.contextmanager
    def _failure_explained(self) -> Iterator[None]:
        """Turns whatever Orbax raises into one line: the step, the reason, what is left."""
        try:
            yield
        except Exception as error:
            failed, self._saving = self._saving, None
            # Orbax has forgotten the steps it was about to delete; they are still there.
            self._reload()
            raise OSError(
                f"Saving the checkpoint of step {failed} in {self.directory} failed: "
                f"{self._reason(error)}. {self.last_good}. Check the disk and its free space, "
                "then resume."
            ) from error

    def _reload(self) -> None:
        """Takes the steps and their metrics from the disk again."""
        self._manager.reload()
        self._read_values()

    def _read_values(self) -> None:
        """Takes the monitored metric of every step from the disk."""
        values, self._unreadable = monitored_values(self.directory, self.steps, self._monitor)
        # The policy of the manager holds this very dict.
        self._values.clear()
        self._values.update(values)

    def _folder(self, step: int) -> pathlib.Path:
        return self.directory / str(step)
