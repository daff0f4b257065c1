"""What the stages of a command took, and which of them decides."""

import clocks
import pytest

from mq_jax.tokenizers import stages
from mq_jax.tokenizers.stages import Stages


@pytest.fixture
def clock(monkeypatch):
    return clocks.stopped(monkeypatch, stages, "perf_counter")


def test_seconds_are_summed_over_threads_and_the_decision_is_by_what_each_took(clock):
    found = Stages(4)
    found.timed("reading", clock, threads=4)(12)
    found.timed("writing", clock)(1)
    assert found.told() == ""
    network = found.timed("network", clock)
    network(1.5)
    network(2.5)
    assert found.told() == (
        "Reading 12.0 s over 4 threads (0.0 s waited for), network 4.0 s, writing 1.0 s: network "
        "decides."
    )
    found.timed("writing", clock)(3.5)
    assert found.told().endswith("writing 4.5 s: writing decides.")


def test_the_wait_for_what_was_read_is_that_of_its_taker_alone(clock):
    def read():
        for seconds in (3, 4):
            clock(seconds)
            yield seconds
        clock(1)

    found = Stages(1)
    for _ in found.awaited(read()):
        clock(100)
    found.timed("network", clock)(1)
    assert "(8.0 s waited for)" in found.told()


def test_what_fails_counts_too(clock):
    def fail():
        clock(2)
        raise OSError

    found = Stages(1)
    with pytest.raises(OSError):
        found.timed("network", fail)()
    assert "network 2.0 s" in found.told()
