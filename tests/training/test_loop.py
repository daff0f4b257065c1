"""What the loop waits for: on a GPU each further wait would be a pause of its own."""

import threading

import pytest
import runs

from mq_jax.data import feed
from mq_jax.runs import checkpoint
from mq_jax.runs.saving import Saver
from mq_jax.runs.writers import Writers
from mq_jax.terminal.console import Progress
from mq_jax.training import loop, train

BATCH = "puts a batch"


class Loss:
    """The loss of a step: what waits for it is noted, and whatever else reads it fails."""

    def __init__(self, number, events):
        self._number, self._events = number, events

    def block_until_ready(self):
        self._events.append(("waits for", self._number))


class Finite:
    """Whether a state is finite: who asks the devices for it is noted."""

    def __init__(self, events):
        self._events = events

    def copy_to_host_async(self):
        pass

    def __bool__(self):
        self._events.append("asks whether it is finite")
        return True


def noting(events, event, function):
    """A function that says what it does; `event` may be made of its arguments."""

    def noted(*given):
        events.append(event(*given) if callable(event) else event)
        return function(*given)

    return noted


@pytest.fixture
def events(monkeypatch):
    """What the loop of a run does, in its order; it grows."""
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

    monkeypatch.setattr(train, "Stage", watched)
    put = noting(events, BATCH, feed.sharding.shard_batch)
    monkeypatch.setattr(feed.sharding, "shard_batch", put)
    monkeypatch.setattr(Progress, "is_early", False)
    for name in ("named", "first_nonfinite"):
        reads = noting(events, "reads a window", getattr(loop, name))
        monkeypatch.setattr(loop, name, reads)
    monkeypatch.setattr(loop, "all_finite", lambda _: Finite(events))
    for owner, name, word in ((Writers, "write_scalars", "line"), (Saver, "save", "saves")):
        told = noting(events, lambda _, step, *rest, word=word: (word, step), getattr(owner, name))
        monkeypatch.setattr(owner, name, told)
    return events


def configured(**every):
    periods = {f"train__{what}_every": 12 for what in ("log", "eval", "checkpoint")}
    return runs.configure(train__hypergradient="joint", **periods | every)


def test_the_loop_waits_for_the_step_before_last_alone_and_reads_one_batch_ahead(tmp_path, events):
    """So while a step runs, the next one and its batches are on the device already."""
    assert runs.train_here(configured(), tmp_path) == "finished"
    expected = [BATCH, ("starts", 1), BATCH, ("starts", 2)]
    for number in range(3, 13):
        expected += [("waits for", number - 2), BATCH, ("starts", number)]
    # Before and after come evaluations.
    first = events.index(("starts", 1)) - 1
    assert events[first : first + len(expected)] == expected


def test_lines_and_checkpoints_wait_for_no_further_step_however_slow_the_disk(
    tmp_path, events, monkeypatch
):
    """What they need is read when the loop waits for their step anyway."""
    last_step_runs, write = threading.Event(), checkpoint.seal

    def slow(folder):
        assert last_step_runs.wait(60), "the steps wait for the save"
        write(folder)

    def started(*given):
        if ("starts", 12) in events:
            last_step_runs.set()
        return advance(*given)

    advance = Progress.advance
    monkeypatch.setattr(checkpoint, "seal", slow)
    monkeypatch.setattr(Progress, "advance", started)
    every = {"train__log_every": 3, "train__checkpoint_every": 6}
    assert runs.train_here(configured(**every), tmp_path) == "finished"

    expected = [BATCH, ("starts", 1), BATCH, ("starts", 2)]
    for number in range(3, 13):
        done = number - 2
        expected += [("waits for", done), BATCH, ("starts", number)]
        if done % 3 == 0:
            expected += ["reads a window", "reads a window", ("line", done)]
        if done == 6:
            expected += ["reads a window", "asks whether it is finite", ("saves", 6)]
    expected += [("waits for", 11), ("waits for", 12), "reads a window", "reads a window"]
    first = events.index(("starts", 1)) - 1
    assert events[first : first + len(expected)] == expected
    # Behind the evaluation of step 12.
    last = ["reads a window", "asks whether it is finite", ("saves", 12)]
    assert events[-4:] == [("line", 12), *last]
    assert runs.checkpoint_steps(tmp_path) == [6, 12]


def test_a_checkpoint_that_was_due_outlives_a_failure_of_the_next_step(tmp_path, monkeypatch):
    def failing(self, step):
        for number, batch in enumerate(batches(self, step)):
            if number == 6:
                raise ValueError("no image left")
            yield batch

    batches = feed.Feed.batches
    monkeypatch.setattr(feed.Feed, "batches", failing)
    with pytest.raises(ValueError, match="no image left"):
        runs.train_here(configured(train__checkpoint_every=6), tmp_path)
    assert runs.checkpoint_steps(tmp_path) == [6]
    monkeypatch.undo()
    config = configured(train__checkpoint_every=6)
    assert runs.train_here(config, tmp_path) == "finished"
    assert runs.train_here(config, tmp_path / "whole") == "finished"
    runs.assert_same_run(tmp_path, tmp_path / "whole")
