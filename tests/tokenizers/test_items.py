"""Items on their way: what is fetched, computed and used at the same time, and in which order."""

import threading

import pytest

from mq_jax.tokenizers.items import beside


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
