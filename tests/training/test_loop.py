"""What the loop waits for: on a GPU each further wait would be a pause of its own."""

import runs

from mq_jax.data import feed
from mq_jax.terminal.console import Progress
from mq_jax.training import train


class Loss:
    """The loss of a step: what waits for it is noted, and whatever else reads it fails."""

    def __init__(self, number, events):
        self._number, self._events = number, events

    def block_until_ready(self):
        self._events.append(("waits for", self._number))


def test_the_loop_waits_for_the_step_before_last_alone_and_reads_one_batch_ahead(
    tmp_path, monkeypatch
):
    """So while a step runs, the next one and its batches are on the device already."""
    events, make_stage = [], train.Stage

    def watched(**given):
        def step_at(number):
            step, taken = given["step_at"](number)

            def noted(*arguments):
                events.append(("starts", number + 1))
                state, window, _ = step(*arguments)
                return state, window, Loss(number + 1, events)

            return noted, taken

        return make_stage(**given | {"step_at": step_at})

    def put(mesh, batch):
        events.append("puts a batch")
        return shard_batch(mesh, batch)

    shard_batch = feed.sharding.shard_batch
    monkeypatch.setattr(train, "Stage", watched)
    monkeypatch.setattr(feed.sharding, "shard_batch", put)
    monkeypatch.setattr(Progress, "is_early", False)
    once = {f"train__{what}_every": 12 for what in ("log", "eval", "checkpoint")}
    config = runs.configure(train__hypergradient="joint", **once)
    assert runs.train_here(config, tmp_path) == "finished"

    expected = ["puts a batch", ("starts", 1), "puts a batch", ("starts", 2)]
    for number in range(3, 13):
        expected += [("waits for", number - 2), "puts a batch", ("starts", number)]
    # Before and after come evaluations.
    first = events.index(("starts", 1)) - 1
    assert events[first : first + len(expected)] == expected
