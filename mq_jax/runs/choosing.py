"""Which checkpoint of a run is used, where a person names one or none."""

from absl import logging

from mq_jax.runs.checkpoint import Checkpoints


def chosen_step(saved: Checkpoints, step: int | None) -> tuple[int, int]:
    """The step to restore.

    Args:
      saved: the checkpoints of a run.
      step: that was asked for; None: the best, or the latest where none was evaluated.

    Returns:
      (the step, the one that is taken unasked).

    Raises:
      ValueError: there is no checkpoint at all.
    """
    if saved.latest_step is None:
        raise ValueError(f"{saved.directory} has no checkpoint; train first.")
    best = saved.latest_step if saved.best_step is None else saved.best_step
    if step is not None:
        return step, best
    if saved.unreadable_steps and best not in saved.unreadable_steps:
        logging.warning(
            "%s: damaged are the records of steps %s, which may be better than %d; "
            "--step=N takes another",
            *(saved.directory, saved.unreadable_steps, best),
        )
    return best, best
