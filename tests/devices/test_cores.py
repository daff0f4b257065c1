"""The cores that a process may use."""

import os

from mq_jax.devices.cores import usable_cores


def test_they_are_those_of_the_affinity_or_where_none_is_known_of_the_machine(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 8
