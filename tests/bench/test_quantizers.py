"""Quantizers beside one another: every kind is in the table, each at the K that it makes."""

import re

import pytest
import runs

from mq_jax.bench import quantizers
from mq_jax.training.quantizing import KINDS


@pytest.fixture
def config(monkeypatch):
    """Sixteen codes of four channels, for eight encodings."""
    monkeypatch.setattr(quantizers, "SIZES", {16: (5, 3)})
    monkeypatch.setattr(quantizers, "ENCODINGS", 8)
    return runs.configure()


def test_every_kind_is_timed_in_some_form_and_vq_comes_first():
    fields = quantizers.KINDS.values()
    assert {own["quantizer.kind"] for own in fields} == set(KINDS)
    assert next(iter(quantizers.KINDS)) == "vq"


@pytest.mark.parametrize("name", quantizers.KINDS)
def test_a_kind_has_the_k_that_it_makes_and_the_chunk_that_is_asked_for(config, name):
    """Without its program, which takes a second or two."""
    variant = quantizers._variant(config, name, 16)
    made = quantizers._made(variant)
    assert made.size == (15 if name == "fsq" else 16)
    assert made.size == variant.codebook.size and made.dim == variant.codebook.dim


@pytest.mark.slow
def test_the_table_has_a_row_for_each_with_its_time_over_vq(config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    quantizers.bench_quantizers(config, rounds=1)
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells for cells in lines if cells[0] in quantizers.KINDS}
    assert list(rows) == list(quantizers.KINDS)
    assert rows["vq"][4] == "1.00" and rows["fsq"][1] == "15" and rows["bsq"][1] == "16"
    assert {len(row) for row in rows.values()} == {6}
    assert all(float(row[3]) >= 0 and float(row[4]) > 0 for row in rows.values())


def test_a_program_runs_and_counts_what_loops_would_hide(config):
    whole, chunks = (
        quantizers._program(quantizers._variant(config, "vq", 16), chunk) for chunk in (0, 8)
    )
    assert whole.flops == chunks.flops > 2 * 8 * 16 * 4 and chunks.temporary > 0
    gradients, indices, _ = chunks.run()
    assert indices.shape == (8,) and gradients[1].shape == (8, 4)


def test_some_kinds_are_timed_beside_vq(config, monkeypatch):
    timed = []
    monkeypatch.setattr(quantizers, "print_comparison", lambda *given: timed.append(given[2]))
    quantizers.bench_quantizers(config, 1, ["fsq", "ema"])
    assert [list(makers) for makers in timed] == [["vq", "ema", "fsq"]]
