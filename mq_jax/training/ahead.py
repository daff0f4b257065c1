"""The steps that the devices are given before earlier ones are done, and what follows each."""

import collections
from collections.abc import Callable

import jax

from mq_jax.training.pace import Pace

# The step that runs, and the next: a host further ahead would fill the device's memory.
_AHEAD = 2


class Ahead:
    """What follows a step is done once it is, which the loop waits for anyway, and in its order.

    Args:
      step: that the first one begins from.
      pace: told of each step that is done.
    """

    def __init__(self, step: int, pace: Pace):
        self._given = self._done = step
        self._pace = pace
        # (step, its loss) of those that are not known to be done; (step, what follows it).
        self._running, self._due = collections.deque(), collections.deque()

    def make_room(self) -> None:
        """Waits until the devices may be given a further step: for the step before last."""
        if len(self._running) == _AHEAD:
            self._await_first()

    def give(self, step: int, loss: jax.Array) -> None:
        """Takes note of a step that the devices were given, then does what earlier ones left.

        Args:
          step: its number.
          loss: of it.
        """
        self._given = step
        self._running.append((step, loss))
        self._follow_up()

    def follow(self, function: Callable[..., None], *given) -> None:
        """Has something done once the step that was given last is done.

        Args:
          function: called with the number of the step and what is given.
          given: to the function.
        """
        self._due.append((self._given, function, given))

    def is_due(self, function: Callable[..., None]) -> bool:
        """Whether a function is still to be called."""
        return any(due == function for _, due, _ in self._due)

    def finish(self) -> None:
        """Waits for one step after the other, and does what follows them."""
        while self._running:
            self._await_first()
            self._follow_up()
        self._follow_up()

    def _await_first(self):
        """Waits for the first of the steps that run."""
        self._done, loss = self._running.popleft()
        jax.block_until_ready(loss)
        self._pace.reached(self._done)

    def _follow_up(self):
        """Does what follows the steps that are done."""
        while self._due and self._due[0][0] <= self._done:
            step, function, given = self._due.popleft()
            try:
                function(step, *given)
            except Exception:
                # What was due later may be as bad: a checkpoint behind a loss that is not finite.
                self._due.clear()
                raise
