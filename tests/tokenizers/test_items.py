"""Items on their way: what is fetched, computed and used at the same time, and in which order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mq_jax.tokenizers.items import ahead_within, beside


def test_while_a_value_is_computed_the_next_is_fetched_and_the_last_used_and_no_further():
    fetched, used, found = [], threading.Event(), []
    third = threading.Event()

    def values():
        for number in range(6):
            fetched.append(number)
            if number == 2:
                third.set()
            yield number

    def compute(number):
        if number == 1:
            assert third.wait(60) and used.wait(60)
        return -number

    for value in beside(compute, values()):
        found.append(value)
        assert len(fetched) <= len(found) + 1
        used.set()
    assert found == [0, -1, -2, -3, -4, -5]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_was_fetched_is_not_lost_where_fetching_fails(error):
    def values():
        yield from range(3)
        raise error

    found = []
    with pytest.raises(error):
        found.extend(beside(lambda number: number, values()))
    assert found == [0, 1, 2]


def test_an_error_of_a_value_comes_after_those_before_it():
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(beside(lambda number: 6 // number, [3, 2, 0, 1]))
    assert found == [2, 3]


def test_as_many_values_as_threads_are_computed_at_once_and_come_in_their_order():
    """The first three wait for the fourth, which no three threads would come to."""
    fourth = threading.Event()

    def compute(number):
        if number == 3:
            fourth.set()
        assert fourth.wait(60)
        return number

    with ThreadPoolExecutor(4) as pool:
        found = list(ahead_within(pool, compute, range(20), 4, size=lambda _: 1, most=100))
    assert found == list(range(20))


def test_values_are_computed_ahead_while_their_results_have_room_and_no_further():
    """Two threads: the first value waits for what has room beside it, three results of size 1."""
    begun, full, taken = [], threading.Event(), []

    def compute(number):
        # What waits, and the two that were begun while there was room.
        begun.append(number)
        assert len(begun) <= len(taken) + 3 + 2
        if number == 3:
            full.set()
        assert number or full.wait(60)
        return number

    with ThreadPoolExecutor(2) as pool:
        for number in ahead_within(pool, compute, range(30), 30, size=lambda _: 1, most=3):
            taken.append(number)
    assert taken == list(range(30))


def test_a_value_that_fills_the_room_alone_passes_and_so_does_who_stops_taking():
    with ThreadPoolExecutor(2) as pool:
        assert list(ahead_within(pool, abs, range(9), 4, size=lambda _: 5, most=1)) == [*range(9)]
        values = ahead_within(pool, abs, range(9), 4, size=lambda _: 5, most=1)
        assert next(values) == 0
        # The pool's end would wait for a thread that nobody lets in.
        values.close()
