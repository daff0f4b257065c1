"""Steps through several inner updates beside one another."""

import re

import pytest
import runs

from mq_jax.bench import unroll


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
