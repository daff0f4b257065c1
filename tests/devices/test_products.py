"""The rates of a matrix product and of a copy: what is done over seconds, whatever the device."""

import itertools
import types

from mq_jax.devices import products


def test_the_rate_is_of_the_median_product_within_a_second(monkeypatch):
    # A clock that moves a quarter of a second at each look.
    looks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: next(looks) / 4)
    monkeypatch.setattr(products, "time", clock)
    monkeypatch.setattr(products, "_SMALL", (8, 1))
    assert products.matmul_rate("bfloat16") == 2 * 8**3 / 0.25 / 1e9
    # Two around each of two products, one at the start, and one before and after the second.
    assert next(looks) == 7


def test_a_copy_is_counted_by_what_it_reads_and_writes(monkeypatch):
    looks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: next(looks) / 4)
    monkeypatch.setattr(products, "time", clock)
    monkeypatch.setattr(products, "_COPIED", 1000)
    assert products.copy_rate() == 2 * 4 * 1000 / 0.25 / 1e9
