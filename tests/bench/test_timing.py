"""How functions are timed in turn."""

import itertools

from mq_jax.bench import timing


def test_functions_take_turns_after_one_warm_up_and_a_call_is_the_mean_of_several(monkeypatch):
    """Each look at the clock is a second after the last."""
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))
    called = []
    functions = {name: lambda name=name: called.append(name) for name in "ab"}
    assert timing.interleaved(functions, rounds=2, calls=4) == {"a": 0.25, "b": 0.25}
    assert called == [*"aaaabbbb"] * 3


def test_several_calls_wait_together_on_an_accelerator_alone(monkeypatch):
    assert timing.calls_between_waits() == 1
    monkeypatch.setattr(timing.jax, "default_backend", lambda: "gpu")
    assert timing.calls_between_waits() > 1
