"""A suite by the program itself: interrupted, gone on with, and compared."""

import csv
import signal
import time

import pytest
import runs

from mq_jax.suites.outcome import read_ending

SUITE = f"""
from mq_jax.suites import Suite


def get_suite():
    return Suite(
        experiment="{runs.ROOT}/configs/photos_mqvae.py",
        overrides="train.steps=400 train.hypergradient=joint",
        entries={{
            "lost": "data.source=folder data.dir=/nowhere",
            "found": "",
            "second": "train.learning_rate=3e-3",
        }},
    )
"""


@pytest.mark.slow
def test_an_interrupted_suite_goes_on_to_the_same_bits(tmp_path):
    (tmp_path / "suite.py").write_text(SUITE)
    tiny = {**runs.TINY, "train.log_every": 50, "train.eval_every": 200}
    kept = {name: v for name, v in tiny.items() if name != "train.steps"}
    words = [f"--config.{name}={value}".replace(" ", "") for name, value in kept.items()]
    # Only what is given behind the suite must come last.
    words = [w for w in words if "learning_rate" not in w and "checkpoint_every" not in w]
    words.append("--config.train.checkpoint_every=400")
    folder = tmp_path / "suite"
    given = ["--mode=compare", f"--suite={tmp_path / 'suite.py'}", f"--workdir={folder}", *words]
    launched = runs.launch(*given, "--interrupted_code=9")
    rows = folder / "found" / "seed-0" / "metrics.jsonl"
    while not rows.exists() or '"step": 50' not in rows.read_text():
        assert launched.poll() is None
        time.sleep(0.02)
    launched.send_signal(signal.SIGINT)
    first = runs.outcome(launched)
    assert first.code == 9 and "To go on:" in first.err
    assert "found seed 0: unfinished (step " in first.err and "second" not in first.err
    assert "lost seed 0: failed (" in first.err and "/nowhere" in first.err
    again = runs.program(*given)
    assert again.code == 1 and "lost seed 0: failed" in again.err
    assert read_ending(folder / "found" / "seed-0")[:3] == (0, 400, 2)
    table = list(csv.DictReader((folder / "compare.csv").open()))
    assert [(row["entry"], row["state"]) for row in table] == [
        *(("found", "finished"), ("second", "finished")),
    ]
    alone = ["--config.train.steps=400", "--config.train.hypergradient=joint", *words]
    config = f"--config={runs.ROOT}/configs/photos_mqvae.py"
    assert runs.program(config, *alone, f"--workdir={tmp_path / 'alone'}").code == 0
    runs.assert_same_run(folder / "found" / "seed-0", tmp_path / "alone")
