"""The clock of a training: images a second, and the share of time that goes into waiting."""

import clocks
import pytest

from mq_jax.training import pace
from mq_jax.training.pace import INPUT_WAIT, SPEED, Pace


@pytest.fixture
def clock(monkeypatch):
    return clocks.stopped(monkeypatch, pace, "monotonic")


def test_what_is_done_counts_and_what_merely_began_does_not(clock):
    measured = Pace(batch=8)
    measured.start(20)
    clock(2.0)
    measured.reached(21)
    assert measured.images_per_second == 4.0
    clock(2.0)
    with measured.waiting():
        clock(1.0)
    measured.reached(25)
    with measured.waiting():
        clock(100.0)
    assert measured.read() == {SPEED: 8.0, INPUT_WAIT: 0.2}


def test_the_time_between_two_lines_is_in_one_of_them_and_that_of_an_evaluation_in_none(clock):
    measured = Pace(batch=1)
    measured.start(0)
    clock(1.0)
    measured.reached(1)
    measured.read()
    # A save that holds the loop up, say.
    clock(9.0)
    measured.reached(11)
    assert measured.read() == {SPEED: pytest.approx(10 / 9), INPUT_WAIT: 0.0}
    clock(1000.0)
    measured.start(11)
    clock(1.0)
    measured.reached(12)
    assert measured.images_per_second == 1.0
