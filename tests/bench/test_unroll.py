"""Steps through several inner updates beside one another."""

import re

import pytest
import runs

from mq_jax.bench import unroll
from mq_jax.bench.program import Program


def test_each_row_is_of_so_many_updates_and_of_one_each(capsys, monkeypatch):
    asked = []

    def compiled_step(config, kind, straight_through, **changes):
        asked.append(changes)
        return Program(lambda: None, 1.0, 1.0, 1.0, 2**20, 3.0, False, str)

    def interleaved(functions, rounds, calls):
        return {name: 0.1 * int(name[0]) for name in functions}

    monkeypatch.setattr(unroll, "compiled_step", compiled_step)
    monkeypatch.setattr("mq_jax.bench.tables.interleaved", interleaved)
    monkeypatch.setattr(unroll, "UPDATES", (1, 2))
    unroll.bench_unroll(runs.configure(), rounds=1)
    assert asked == [
        *({"unroll": n, "inner_updates": n} for n in (1, 2)),
        {"roll_back": True},
    ]
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert ["2", "1", "200", "100.0", "1.00", "3"] in lines


@pytest.mark.slow
def test_the_table_has_a_row_for_each_number_and_one_for_the_step_taken_again(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(unroll, "UPDATES", (1, 2))
    unroll.bench_unroll(runs.configure(), rounds=1)
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells for cells in lines if cells[0] in ("1", "2", "1, rolled back")}
    assert list(rows) == ["1", "2", "1, rolled back"]
    assert rows["1"][4] == "1.00" and {len(row) for row in rows.values()} == {6}
    # An update of two takes about half of the time of both.
    assert 0 < float(rows["2"][3]) <= int(rows["2"][2])
