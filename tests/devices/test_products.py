"""The rate of a matrix product: operations over seconds, whatever the device."""

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
