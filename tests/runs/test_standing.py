"""The best evaluation of a run: one rule, whoever asks."""

import dataclasses
import itertools
import json
import math

import pytest

from mq_jax.runs import standing
from mq_jax.runs.standing import Standing, best_row, rank, read_settled, step_of_best

NAN = math.nan


def follow(values, *, settled=1, patience=0):
    """The standing after evaluations, and after which of them it was stopped."""
    found, stopped = Standing(), []
    for step, value in values.items():
        found.add(step, value, settled=settled, patience=patience)
        # As in a checkpoint, which a run may go on from at any time.
        found = Standing(**json.loads(json.dumps(dataclasses.asdict(found))))
        stopped += [step] * found.stopped_early
    return found, stopped


def lpips(settled=150, last=750):
    """Lowest at 80, up by a tenth while the term sets in, then down for good."""
    values = {0: 0.9}
    for step in range(5, last + 1, 5):
        before = 0.5 + abs(step - 80) * 1e-4
        values[step] = before if step < settled - 35 else 0.55 - (step - settled) * 1e-4
    return values


def test_an_adversarial_term_that_sets_in_costs_no_run_its_end():
    values = lpips()
    assert min(values.values()) < 0.5 and values[150] > 1.09 * values[80]
    found, stopped = follow(values, settled=150, patience=10)
    assert not stopped and (found.best_step, found.best) == (750, values[750])
    # Compared with the evaluations before, it would have lost patience.
    _, stopped = follow(values, patience=10)
    assert stopped


def test_patience_counts_settled_evaluations_alone():
    values = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0, 5: 5.0, 6: 5.5, 7: 1.0}
    found, stopped = follow(values, settled=4, patience=2)
    # Step 4 starts anew; 5 equals it, and 6 is worse.
    assert stopped == [6] and (found.best_step, found.best) == (7, 1.0)


TABLES = {
    "the lowest": ({1: 3.0, 2: 1.0, 3: 2.0}, 1, 2),
    "of equals the later": ({1: 1.0, 2: 1.0, 3: 2.0}, 1, 2),
    "step 0 has no checkpoint": ({0: 0.5, 1: 3.0, 2: 2.0}, 1, 2),
    "step 0 alone": ({0: 0.5}, 1, None),
    "a first NaN": ({0: NAN, 1: NAN, 2: 2.0, 3: 3.0}, 1, 2),
    "a later NaN": ({1: 2.0, 2: NAN, 3: 1.0}, 1, 3),
    "minus infinity": ({1: 2.0, 2: -math.inf, 3: 3.0}, 1, 1),
    "no number at all": ({1: NAN, 2: math.inf}, 1, None),
    "nothing": ({}, 1, None),
    "settled before lower": ({1: 1.0, 2: 5.0, 3: 4.0}, 2, 3),
    "none settled yet": ({0: 0.1, 1: 1.0, 2: 2.0}, 3, 1),
    "a NaN where it settles": ({1: 1.0, 2: NAN, 3: 4.0}, 2, 3),
    "nothing but NaN where it settled": ({1: 1.0, 2: NAN}, 2, 1),
}


@pytest.mark.parametrize("values, settled, best", TABLES.values(), ids=TABLES)
def test_whoever_asks_for_the_best_is_told_the_same(values, settled, best):
    assert step_of_best(values, settled) == best
    assert follow(values, settled=settled)[0].best_step == best
    rows = [{"step": s, "eval/x": v if math.isfinite(v) else None} for s, v in values.items()]
    rows += [{"step": 99, "inner/loss": 0.0}]
    found = best_row(rows, "eval/x", settled)
    assert (found and found["step"]) == best


def test_ranks_are_one_order_whatever_the_order_of_the_evaluations():
    values = {0: 0.0, 1: 1.0, 2: NAN, 3: 1.0, 4: 2.0, 5: 2.0}
    for order in itertools.permutations(values.items()):
        assert step_of_best(dict(order), 4) == 5
    assert rank(0, 0.0, 4) is rank(2, NAN, 4) is rank(3, None, 4) is None


def test_the_best_of_all_is_chosen_when_it_is_added_and_no_other():
    found = Standing()
    chosen = [
        found.add(step, value, settled=3, patience=0)
        for step, value in {0: 1.0, 1: 2.0, 2: 3.0, 3: NAN, 4: 9.0, 5: 9.5}.items()
    ]
    assert chosen == [False, True, False, False, True, False]


def test_the_settled_step_is_told_by_a_file_where_it_is_not_the_first(tmp_path):
    standing.write_settled(tmp_path, 1)
    assert not list(tmp_path.iterdir()) and read_settled(tmp_path) == 1
    standing.write_settled(tmp_path, 150_001)
    assert read_settled(tmp_path) == 150_001
    for damaged in ("", "{}", '{"settled": 0}', '{"settled": null}', "[" * 99):
        (tmp_path / standing.FILE).write_text(damaged)
        with pytest.raises(ValueError, match="settled.json is damaged .*writes it anew") as error:
            read_settled(tmp_path)
        assert "\n" not in str(error.value)


# Of runs of before: (their best, today's, whether evaluations count yet, whether patience is lost).
BEFORE = {
    "the same": (1.0, 1.0, True, True),
    "before the whole weight": (0.5, 1.0, True, False),
    "not a number": (NAN, 1.0, True, False),
    "no checkpoint of it": (0.5, None, True, False),
    "nothing counts yet": (1.0, 1.0, False, False),
}


@pytest.mark.parametrize("case", BEFORE)
def test_a_run_of_before_gets_back_the_patience_that_a_wrong_best_cost(case):
    before, best, counting, lost = BEFORE[case]
    found = Standing(best=before, stale=7, stopped_early=True)
    found.take_over(4, best, counting=counting)
    assert (found.best_step, found.best) == (4, best)
    assert (found.stale, found.stopped_early) == ((7, True) if lost else (0, False))
