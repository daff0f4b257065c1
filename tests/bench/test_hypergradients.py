"""Kinds of hyper-gradient compared at a checkpoint: their numbers, their table, what is refused."""

import json

import numpy as np
import pytest
import runs

from mq_jax.bench import hypergradients, parts
from mq_jax.bench.hypergradients import Subject, cosine, mean_cosine, require_outer_level
from mq_jax.runs.workdir import claim

STEP = 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that wrote a line for each of its steps, and its configuration."""
    folder = tmp_path_factory.mktemp("run")
    config = runs.configure(train__log_every=1, train__hypergradient="unrolled")
    runs.train_here(config, folder)
    return config, folder


def test_cosines_between_batches_tell_signal_from_noise():
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=4000), rng.normal(size=(6, 4000))
    assert mean_cosine([signal, 2 * signal, 3 * signal]) == pytest.approx(1)
    assert mean_cosine(noise) == pytest.approx(0, abs=0.02)
    # As much of each.
    assert mean_cosine(signal + noise) == pytest.approx(0.5, abs=0.02)
    # Of (1, 0), (0, 1) and (-1, 0): 0, -1 and 0.
    assert mean_cosine(np.array([[1.0, 0], [0, 1], [-1, 0]])) == pytest.approx(-1 / 3)
    assert cosine(np.zeros(2), np.ones(2)) == 0


def test_a_gradient_is_that_of_the_step_which_the_run_took_next(trained):
    """On its next batches, at its learning rate then."""
    config, folder = trained
    found, at = hypergradients.outer_gradients(
        config, Subject(folder, STEP, 2), {"unrolled": config}
    )
    (next_step,) = [row for row in runs.metrics(folder) if row["step"] == STEP + 1]
    first, second = found["unrolled"]
    names = [name for name in first.metrics if name.startswith("outer/") and name in next_step]
    assert {"outer/direct_norm", "outer/indirect_norm", "outer/code_flip_rate"} <= set(names)
    for name in names:
        np.testing.assert_allclose(first.metrics[name], next_step[name], rtol=1e-3, atol=1e-6)
    assert first.metrics["outer/loss"] != second.metrics["outer/loss"]
    assert at == f"{STEP} of {config.train.steps}"


def test_the_table_has_a_row_for_each_kind_and_is_kept_as_json(trained, tmp_path, capsys):
    config, folder = trained
    kinds = ["unrolled", "pipelined", "cg", "finite-difference"]
    given = {"rounds": 1, "straight_through": "all", "cores": 1, "kinds": kinds}
    subject, output = Subject(folder, STEP, 2), tmp_path / "found.json"
    parts.run_part("hypergradients", config, **given, subject=subject, output=output)
    assert "2 pairs of batches of 8" in capsys.readouterr().out
    (table,) = json.loads(output.read_text())["tables"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [row["kind"] for row in rows] == kinds
    assert rows[0]["to exact"] == "+1.000"
    assert [row["kind"] for row in rows if row["residual"] != "-"] == ["cg"]
    assert [row["kind"] for row in rows if row["probe flips"] != "-"] == ["finite-difference"]
    assert all(float(row["indirect"]) > 0 for row in rows)
    # At the same theta' and phi the kinds share all but the indirect part.
    assert len({row["direct"] for row in rows if row["kind"] != "pipelined"}) == 1
    assert len({row["indirect~"] for row in rows}) == 4


def test_every_kind_with_an_indirect_part_is_compared_but_the_one_that_is_another_in_form():
    kinds = {"unrolled", "pipelined", "sama", "identity", "neumann", "cg", "finite-difference"}
    assert set(hypergradients.KINDS) == kinds | {"unrolled-reverse"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"quantizer__kind": "fsq"}, "quantizer.kind is 'fsq', which no gradient trains"),
        ({"name": "photos_prior"}, "The run is that of a prior, which has one level"),
    ],
)
def test_a_run_without_an_outer_level_is_refused(changes, message):
    name = changes.pop("name", None)
    config = runs.experiment(name) if name else runs.configure(**changes)
    with pytest.raises(ValueError, match=message):
        require_outer_level(config)


def test_a_kind_that_does_not_go_with_the_run_is_refused(trained):
    config, folder = trained
    strange = runs.configure(inner__eps_root=0.0)
    with pytest.raises(ValueError, match="config.inner.eps_root is 0.0"):
        hypergradients.bench_hypergradients(strange, Subject(folder), ["sama"])


def test_a_checkpoint_that_is_not_there_is_told_of(trained):
    config, folder = trained
    with pytest.raises(ValueError, match="has no checkpoint of step 7"):
        hypergradients.bench_hypergradients(config, Subject(folder, 7), ["unrolled"])


def told(*given):
    """What the command says in one line as it refuses."""
    done = runs.outcome(runs.start(["-m", "mq_jax.bench", *given]))
    assert done.code == 1 and done.out == "" and len(done.err.splitlines()) == 1, done.err
    return done.err


def test_a_wrong_command_for_a_run_is_told_in_one_line(tmp_path):
    config = runs.configure(quantizer__kind="fsq", train__hypergradient="joint")
    claim(tmp_path, config.to_dict())
    of_a_run = "--part=hypergradients", f"--workdir={tmp_path}"
    assert "quantizer.kind is 'fsq', which no gradient trains" in told(*of_a_run)
    assert "--config is not of --part=hypergradients" in told(*of_a_run, "--config=configs/base.py")
    assert "--workdir is of --part=hypergradients" in told(f"--workdir={tmp_path}")
    assert "give its --workdir" in told("--part=hypergradients")
    assert "config.json does not exist" in told(of_a_run[0], f"--workdir={tmp_path}/none")
