"""A prior out of the folder of its run: which checkpoint, which parameters, what is refused."""

import jax
import numpy as np
import prior_runs
import pytest
import runs

from mq_jax.priors import facts
from mq_jax.runs import workdir
from mq_jax.samplers import restored_prior


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prior_runs.write_run(tmp_path_factory.mktemp("runs"), train__ema_decay=0.0)


def test_the_best_checkpoint_is_taken_or_the_one_asked_for(folder):
    for step, asked in ((4, None), (9, 9)):
        found = restored_prior(folder, asked)
        assert found.step == step and found.space == found.prior.space
        shapes = jax.eval_shape(found.prior.init, jax.random.key(0))
        jax.tree.map(np.testing.assert_array_equal, found.params, prior_runs.drawn(shapes, step))
    with pytest.raises(ValueError, match=r"no checkpoint of step 5; it has \[4, 9\]"):
        restored_prior(folder, 5)


def test_averages_are_taken_where_they_are_kept(tmp_path):
    found = restored_prior(prior_runs.write_run(tmp_path, steps=(4,), train__ema_decay=0.9))
    drawn = prior_runs.drawn(jax.eval_shape(found.prior.init, jax.random.key(0)), 4)
    jax.tree.map(
        lambda leaf, raw: np.testing.assert_array_equal(leaf, raw + np.float32(0.1)),
        *(found.params, drawn),
    )


def test_a_run_of_the_first_stage_is_refused(tmp_path):
    workdir.claim(tmp_path, runs.configure().to_dict())
    with pytest.raises(ValueError, match="is the run of a tokenizer; expected that of a prior"):
        restored_prior(tmp_path)
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        restored_prior(tmp_path / "none")


def test_what_a_run_does_not_know_of_its_tokens_its_training_command_writes(tmp_path):
    folder = prior_runs.write_run(tmp_path, steps=(4,))
    text = (folder / facts.FILE).read_text()
    for damaged in (
        text[:-9],
        text.replace('"c"', '"c", "d"'),
        text.replace('"size": 16', '"size": 1'),
    ):
        (folder / facts.FILE).write_text(damaged)
        with pytest.raises(
            ValueError, match=r"tokens.json is damaged \(.*\); the training command"
        ):
            restored_prior(folder)
    (folder / facts.FILE).unlink()
    with pytest.raises(FileNotFoundError, match="tokens.json does not exist, .* writes it"):
        restored_prior(folder)
