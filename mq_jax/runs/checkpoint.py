"""Checkpoints: saved in the background, damage survived, the last two and the best kept."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from mq_jax.devices.agreement import together
from mq_jax.runs import orbax_noise
from mq_jax.runs.trees import differences, shapes

# Orbax writes it last into a step folder: without it the folder is not a whole checkpoint.
_COMMIT_MARKER = "commit_success.txt"
_LATEST_KEPT = 2  # A damaged latest checkpoint leaves one before it.


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held: its step, the tree in the target's structure, the JSON extra."""

    step: int
    tree: Any
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints in one directory: the last two and the one with the lowest `monitor`.

    Every process of a run makes the same calls in the same order.

    Args:
      directory: holds the step folders; created unless `read_only`.
      monitor: name of the metric, lower is better, that decides which checkpoint is best.
      read_only: for evaluation; nothing is created, renamed or deleted, and `save` raises.
    """

    def __init__(self, directory, *, monitor: str = "eval/mse", read_only: bool = False):
        orbax_noise.silence()
        self.directory = pathlib.Path(directory).absolute()
        self._monitor = monitor
        self._read_only = read_only
        self._saving: int | None = None
        self._values: dict[int, float] = {}
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                create=not read_only,
                read_only=read_only,
                save_interval_steps=0 if read_only else 1,
                preservation_policy=_LatestAndBest(self._values),
                # Orbax would read the metadata of every step, and fail on a damaged one.
                lightweight_initialize=True,
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
        """The step with the lowest `monitor`, among those saved with metrics."""
        return _step_of_lowest(self._values, self.steps)

    def save(self, step: int, tree, extra: dict[str, Any], metrics: dict[str, Any] | None) -> None:
        """Starts to save a checkpoint; the arrays may be donated as soon as this returns.

        A step that has a whole checkpoint already is left alone.

        Args:
          step: number of the step, the name of its folder.
          tree: any pytree of arrays.
          extra: anything JSON can hold.
          metrics: an evaluation at this step, `monitor` among them; None where there was none.
            A `monitor` that is not finite never counts as best.

        Raises:
          OSError: this save, or the one before it, could not be written.
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
        record = {"extra": extra, "metrics": metrics}
        json.dumps(record)  # What JSON cannot hold fails here, not later in the background.
        self.wait()
        if step in self.steps:
            damage = self._visible_damage(step)
            if damage is None:
                return
            self._set_aside({step: damage})
        self._saving = step
        if metrics is not None and math.isfinite(metrics[self._monitor]):
            self._values[step] = metrics[self._monitor]
        items = {"tree": ocp.args.StandardSave(tree), "record": ocp.args.JsonSave(record)}
        with self._failure_explained():
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, abstract_tree, step: int | None = None) -> Restored | None:
        """Reads the newest checkpoint that is whole, or the one of `step`.

        Damaged ones that are newer than it are renamed to `damaged-<step>`, never deleted.

        Args:
          abstract_tree: `jax.ShapeDtypeStruct` leaves with the shardings wanted; their dtypes
            win over the stored ones.
          step: this one and no other.

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
                with together():
                    found = self._read(candidate, abstract_tree)
            except Exception as error:
                damages[candidate] = orbax_noise.one_line(error)
                continue
            if isinstance(found, str):
                raise ValueError(found)
            restored = found
            break
        if damages and restored is None:
            # They stay where they are: the next start must not take this run for a new one.
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damages.items())
            raise ValueError(
                f"{self.directory} has the checkpoints {self.steps}; damaged are {reasons}. "
                "Ask for another step, or move the folder away to start from the beginning."
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

    def close(self) -> None:
        """Waits, then ends the background threads.

        Raises:
          OSError: the last save could not be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()

    def _read(self, step: int, abstract_tree) -> Restored | str:
        """One checkpoint, or why it is of another model; raises if it is damaged."""
        damage = self._visible_damage(step)
        if damage is not None:
            raise FileNotFoundError(damage)
        stored = ocp.StandardCheckpointHandler().metadata(self._folder(step) / "tree").tree
        differing = differences(shapes(stored), shapes(abstract_tree))
        if differing:
            return (
                f"The checkpoint {self._folder(step)} is of another model: {differing}. "
                "Use the configuration it was trained with."
            )
        items = {"tree": ocp.args.StandardRestore(abstract_tree), "record": ocp.args.JsonRestore()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return Restored(step, restored.tree, restored.record["extra"])

    def _visible_damage(self, step: int) -> str | None:
        """What a look at the folder tells, without reading the arrays."""
        wanted = (_COMMIT_MARKER, "tree", "record")
        missing = [name for name in wanted if not (self._folder(step) / name).exists()]
        return f"no {', '.join(missing)}" if missing else None

    def _set_aside(self, damages: dict[int, str]) -> None:
        """Renames what cannot be restored, so that its steps can be saved again."""
        aside = {self._folder(step): reason for step, reason in damages.items()}
        if self._read_only:
            for folder, reason in aside.items():
                logging.warning("Skipping the damaged checkpoint %s (%s)", folder, reason)
            return
        for folder in self.directory.glob("[0-9]*.orbax-checkpoint-tmp*"):
            aside[folder] = "its save never finished"
        if jax.process_index() == 0:
            for folder, reason in aside.items():
                self._rename(folder, reason)
        multihost_utils.sync_global_devices("mq_jax: damaged checkpoints set aside")
        self._reload()

    def _rename(self, folder: pathlib.Path, reason: str) -> None:
        """Gives a folder a name that Orbax ignores."""
        target = self.directory / f"damaged-{folder.name.split('.')[0]}"
        while target.exists():
            target = target.with_name(f"{target.name}-again")
        message = "Skipping the damaged checkpoint %s (%s); it becomes %s"
        logging.warning(message, folder, reason, target.name)
        folder.rename(target)

    @contextmanager
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
                f"{orbax_noise.one_line(error)}. The last good checkpoint is that of step "
                f"{self.latest_step}. Check the free space, then resume."
            ) from error

    def _reload(self) -> None:
        """Takes the steps and their metrics from the disk again."""
        self._manager.reload()
        self._read_values()

    def _read_values(self) -> None:
        """Reads the monitored metric of every step; a damaged record has none."""
        self._values.clear()
        for step in self.steps:
            try:
                record = json.loads((self._folder(step) / "record" / "metadata").read_text())
                if math.isfinite(record["metrics"][self._monitor]):
                    self._values[step] = record["metrics"][self._monitor]
            except (OSError, ValueError, KeyError, TypeError):
                continue

    def _folder(self, step: int) -> pathlib.Path:
        return self.directory / str(step)


@dataclasses.dataclass
class _LatestAndBest:
    """Orbax's preservation policy for the last two steps and the best one.

    Orbax's BestN takes the metrics from Orbax, which opens no directory with a damaged one.
    """

    values: dict[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says for each checkpoint whether to keep it."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-_LATEST_KEPT:], _step_of_lowest(self.values, steps)}
        return [step in kept for step in steps]


def _step_of_lowest(values: dict[int, float], steps: Sequence[int]) -> int | None:
    """The step with the lowest value; of equals the later."""
    candidates = [step for step in steps if step in values]
    return min(candidates, key=lambda step: (values[step], -step), default=None)
