"""--mode=train of a prior: what a person gives and sees; training, resumption, devices."""

import math
import pathlib
import signal

import numpy as np
import prior_runs
import pytest
import runs
import token_sets
from processes import assert_close, two_programs

from mq_jax.report.runs import read_runs

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two token sets, as fields."""
    return prior_runs.write_sets(tmp_path_factory.mktemp("sets"))


def train(folder, *more, **changes):
    return runs.cli(*prior_runs.arguments(**changes), f"--workdir={folder}", *more)


def test_tokens_that_lack_or_do_not_fit_are_told_before_anything_is_written(sets, tmp_path):
    alone = {"tokens": sets["tokens"]}
    for given, message in (
        ({}, "config.tokens is empty; give the folder of a token set"),
        ({"tokens": tmp_path / "none"}, "which does not exist"),
        (alone, "config.eval_tokens is empty and config.tokens is a token set"),
        ({**sets, "space__size": 17}, "config.space.size is 17, and the tokens have 16"),
        ({**sets, "train__view": "center "}, "has no view 'center '"),
        ({**sets, "train__batch_size": 9}, "expected a multiple of the 8 devices"),
    ):
        outcome = train(tmp_path / "run", **given)
        assert outcome.code == 1 and message in outcome.err, outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["evaluate", "tokens"])
def test_a_mode_that_is_not_of_priors_says_so(mode, tmp_path):
    config = f"--config={runs.ROOT}/configs/photos_prior.py"
    outcome = runs.cli(config, f"--mode={mode}", f"--workdir={tmp_path}")
    assert outcome.code == 1 and "The configuration is that of a prior" in outcome.err


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """A run with averages and a batch in two parts, from beginning to end, on one device."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = runs.program(*prior_runs.arguments(**sets, train__accumulate=2), f"--workdir={folder}")
    assert done.code == 0, done.err
    return folder, done


@pytest.mark.slow
def test_a_run_says_its_losses_in_nats_and_in_bits(whole):
    folder, done = whole
    rows = runs.metrics(folder)
    assert [row["step"] for row in rows] == [0, 3, 4, 6, 8, 9, 12]
    # The head is zero at first: every token is a guess.
    assert rows[0]["eval/nats_per_token"] == pytest.approx(math.log(prior_runs.SIZE), rel=1e-6)
    assert rows[0]["eval/bits_per_token"] == pytest.approx(4, rel=1e-6)
    # Four pixels of a side are a token.
    assert rows[0]["eval/bits_per_pixel"] == pytest.approx(4 / 16, rel=1e-6)
    last = rows[-1]
    assert last["prior/bits_per_token"] == pytest.approx(
        last["prior/nats_per_token"] / math.log(2), rel=1e-6
    )
    assert last["eval/nats_per_token"] < rows[0]["eval/nats_per_token"]
    assert "Bits per token" in done.out and (folder / "report.html").is_file()
    (read,) = read_runs([folder])
    assert read.best["step"] in (4, 8, 12) and not read.notices


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_for_bit(whole, sets, tmp_path):
    given = [*prior_runs.arguments(**sets, train__accumulate=2), f"--workdir={tmp_path}"]
    stopped = runs.program(*given, at="step:7", number=signal.SIGTERM)
    assert stopped.code == 0 and runs.checkpoint_steps(tmp_path)[-1] == 7, stopped.err
    # From its folder alone.
    done = runs.program(f"--workdir={tmp_path}")
    assert done.code == 0 and "Going on from the checkpoint of step 7" in done.err
    assert runs.metrics(tmp_path) == runs.metrics(whole[0])
    (arrays, record), (expected, of_whole) = map(runs.checkpoint, (tmp_path, whole[0]))
    runs.assert_same_arrays(arrays, expected)
    assert record == of_whole


@pytest.mark.slow
def test_eight_devices_that_share_the_state_out_compute_what_one_does(whole, sets, tmp_path):
    changes = {"mesh__fsdp": 4, "mesh__shard_from": 1, "train__accumulate": 1}
    # Without dropout nothing depends on the parts that a batch is cut into.
    still = dict.fromkeys(("token", "residual", "ffn"), 0.0)
    changes |= {f"prior__{part}_dropout": rate for part, rate in still.items()}
    changes |= {"prior__class_dropout": 0.0, **sets}
    many = train(tmp_path / "many", **changes)
    assert many.code == 0, many.err
    one = {**changes, "mesh__fsdp": 1, "train__accumulate": 2}
    done = runs.program(*prior_runs.arguments(**one), f"--workdir={tmp_path / 'one'}")
    assert done.code == 0, done.err
    for here, there in zip(*map(runs.metrics, (tmp_path / "many", tmp_path / "one")), strict=True):
        assert here.keys() == there.keys()
        for name in here:
            assert here[name] == pytest.approx(there[name], rel=1e-4), name
    assert "split" in many.err + (tmp_path / "many" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_two_processes_train_as_one(kind, sets, tmp_path):
    # Each has two of the devices over which the state is shared out.
    changes = {"prior__kind": kind, "mesh__fsdp": 4, "mesh__shard_from": 1, "train__steps": 4}
    command = prior_runs.arguments(**sets, **changes)
    first, second = two_programs(*command, f"--workdir={tmp_path / 'two'}")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "4"}
    alone = runs.outcome(runs.launch(*command, f"--workdir={tmp_path / 'one'}", **quick))
    assert alone.code == 0, alone.err
    assert "Bits per token" in first.out and "Bits per token" not in second.out
    assert_close(runs.metrics(tmp_path / "two"), runs.metrics(tmp_path / "one"))


@pytest.mark.slow
def test_a_masked_prior_trains_and_another_token_set_is_refused(sets, tmp_path):
    done = train(tmp_path / "run", prior__kind="masked", **sets)
    assert done.code == 0, done.err
    rows = runs.metrics(tmp_path / "run")
    assert np.isfinite(
        [row["eval/bits_per_token"] for row in rows if "eval/bits_per_token" in row]
    ).all()
    others = prior_runs.write_sets(tmp_path / "others", views=("center",))
    changed = train(tmp_path / "run", prior__kind="masked", **others)
    assert changed.code == 1 and "The data is not what this run was trained on" in changed.err


@pytest.mark.slow
def test_the_tokens_of_a_tokenizer_are_made_below_the_workdir_and_found_again(tmp_path):
    spec = token_sets.spec(tmp_path / "given")
    data = {"data__source": "folder", "data__dir": spec.directory, "data__train_split": "all[:8]"}
    data |= {"data__eval_split": "all[8:]", "data__views": "center,flip", "tokens": spec.tokenizer}
    with token_sets.encoders_shared():
        done = train(tmp_path / "run", **data)
        assert done.code == 0, done.err
        again = train(tmp_path / "run", **data)
    assert again.code == 0 and "Going on from the checkpoint of step 12" in again.err
    made = {path.name for path in (tmp_path / "run" / "tokens").iterdir()}
    assert made == {"train", "validation"}
    assert "Tokens: 8 x 8 of an image, each one of 16; 2 classes" in done.err
    drawn = runs.cli("--mode=sample", f"--workdir={tmp_path / 'run'}", "--count=5", "--guidance=2")
    assert drawn.code == 0, drawn.err
    with np.load(tmp_path / "run" / "samples" / "samples.npz") as archive:
        assert archive["arr_0"].shape == (5, 32, 32, 3)
        np.testing.assert_array_equal(archive["arr_1"], [0, 1, 0, 1, 0])
    assert pathlib.Path(tmp_path / "run" / "metrics.jsonl").is_file()
