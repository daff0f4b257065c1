"""Where a step's time goes: groups of operations, their times, their work and their floors."""

import json

import jax
import jax.numpy as jnp
import pytest
import runs

from mq_jax.bench import operations, parts
from mq_jax.bench.operations import Rates, rows
from mq_jax.bench.program import Program
from mq_jax.bench.thunks import Event, median_step
from mq_jax.planning.work import GROUPS, NAMELESS, PRODUCTS, REST, Work

GIVEN = {"rounds": 1, "straight_through": "all", "cores": 1}


def event(name, micros, run="1", program="jit_step", **changes):
    """What the profiler writes of an operation."""
    told = {"hlo_op": name, "hlo_module": program, "run_id": run}
    return {"ph": "X", "name": name, "dur": micros, "ts": 0.0, "args": told} | changes


def test_of_several_steps_the_median_one_counts_and_of_other_programs_nothing():
    events = [
        *(event("a", 10), event("b", 1), event("a", 500, "2"), event("b", 1, "2")),
        *(event("a", 20, "3"), event("b", 2, "3"), event("a", 7, program="jit_other")),
        *(event("a", 7, ph="B"), {"ph": "X", "name": "wait", "dur": 9}, {"ph": "M"}),
    ]
    found = median_step(events, "jit_step", {})
    assert found == [Event("a", pytest.approx(20e-6)), Event("b", pytest.approx(2e-6))]
    with pytest.raises(ValueError, match="no operations of 'jit_absent'"):
        median_step(events, "jit_absent", {})


def test_a_loop_counts_by_its_body_or_by_itself_never_by_both():
    inside = {"while": frozenset({"body", "index"})}
    told = [event("body", 3), event("body", 4), event("index", 1), event("while", 9)]
    found = median_step([*told, event("after", 2)], "jit_step", inside)
    assert [each.name for each in found] == ["body", "body", "index", "after"]
    assert sum(each.seconds for each in found) == pytest.approx(10e-6)
    # One kernel of it all.
    assert median_step([event("while", 9)], "jit_step", inside)[0].name == "while"


def work(group, flops=0, size=0):
    return Work(group, flops, size, frozenset())


def test_each_column_is_what_it_is_called_and_the_groups_add_up():
    measured = [
        # 1 ms of arithmetic; 2 ms of bytes; 4 ms of bytes.
        (Event("dot", 3e-3), work(PRODUCTS, 1e6, 1)),
        (Event("slow", 2e-3), work(PRODUCTS, 1e6, 2 * 2**20)),
        (Event("add", 5e-3), work("optimizers", 1e3, 4 * 2**20)),
        (Event("made", 1e-3), work(NAMELESS)),
    ]
    table = rows(measured, Rates(1e9, 2**30 / 1.024))
    assert table == [
        [PRODUCTS, "2", "5.00", "45.5%", "0.002", "2.0", "3.00", "1.7"],
        ["optimizers", "1", "5.00", "45.5%", "0.000", "4.0", "4.00", "1.2"],
        [NAMELESS, "1", "1.00", "9.1%", "0.000", "0.0", "0.00", "none"],
        ["sum", "4", "11.00", "100.0%", "0.002", "6.0", "7.00", "1.6"],
    ]


def test_operations_of_a_program_are_those_that_ran_and_their_products_are_counted():
    """A loop of 3 products of 32 x 32, and what stems from two scopes."""

    def step(x):
        with jax.named_scope("optimizer"):
            x = jnp.sin(x)
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, None, length=3)
        with jax.named_scope("winograd"):
            return jnp.sort(x, axis=0)

    compiled = jax.jit(step).lower(jnp.ones((32, 32))).compile()
    run = lambda: compiled(jnp.ones((32, 32)))  # noqa: E731
    program = Program(run, 0.0, 0.0, 0.0, 0, 0.0, False, compiled.as_text)
    run()
    measured = operations._measured(program)
    of = lambda group: [(one, each) for one, each in measured if each.group == group]  # noqa: E731
    products = sum(each.flops for _, each in of(PRODUCTS))
    assert 3 * 2 * 32**3 <= products <= 3 * (2 * 32**3 + 32**2)
    assert of("optimizers") and of("Winograd's sums")
    assert not any(one.name.startswith("while") for one, _ in measured)
    assert all(one.seconds > 0 for one, _ in measured)


def test_the_groups_of_a_run_s_step_are_told_and_add_up(tmp_path, capsys):
    config = runs.configure(**{"model.channels": (32, 32), "model.blocks": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "matmul_rate", lambda dtype: 80.0)
        patch.setattr(operations, "copy_rate", lambda: 10.0)
        parts.run_part("operations", config, **GIVEN, kinds=["joint"], output=tmp_path / "o.json")
    assert "ms without the profiler, median of 1" in capsys.readouterr().out
    (table,) = json.loads((tmp_path / "o.json").read_text())["tables"]
    assert table["columns"] == list(operations._COLUMNS)
    *groups, whole = table["rows"]
    names = [row[0] for row in groups]
    assert set(names) >= set(GROUPS) - {NAMELESS, REST} and whole[0] == "sum"
    assert names == [group for group in GROUPS if group in names]
    for column in (1, 2, 4, 5, 6):
        added = sum(float(row[column]) for row in groups)
        assert added == pytest.approx(float(whole[column]), abs=0.05)


def test_the_steps_are_those_named_else_the_configuration_s_own():
    config = runs.configure()
    own = config.train.hypergradient, config.train.straight_through
    assert operations.chosen_steps(config, "all") == [own]
    named = operations.chosen_steps(config, "encoder-and-codewords", ["unrolled"])
    assert named == [("unrolled", "encoder-and-codewords")]
    assert parts.kinds_named("joint,cg", "operations", config) == ["joint", "cg"]
    with pytest.raises(ValueError, match="names 'sharp'; expected some of joint"):
        parts.kinds_named("sharp", "operations", config)
    config = runs.configure(quantizer__kind="fsq", train__hypergradient="joint")
    with pytest.raises(ValueError, match="names 'cg', which training does not take"):
        parts.kinds_named("cg", "operations", config)


def test_another_device_is_refused_before_anything_is_made_or_written(tmp_path, monkeypatch):
    monkeypatch.setattr(operations.jax, "default_backend", lambda: "gpu")
    output = tmp_path / "o.json"
    with pytest.raises(ValueError, match="JAX computes on 'gpu' here; use --part=step there"):
        parts.run_part("operations", None, **GIVEN, output=output)
    assert not output.exists()
