"""The training loop: every kind of step, every kind of end."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import resource
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from mq_jax.algorithm import mq
from mq_jax.data import inputs
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation import code_use
from mq_jax.evaluation.evaluate import Evaluator
from mq_jax.metrics.measures import Measures
from mq_jax.quantizers import codebook
from mq_jax.report.runs import read_runs
from mq_jax.runs import checksums
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.cost import read_cost
from mq_jax.runs.workdir import flat
from mq_jax.training import train
from mq_jax.training.restored import restore

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

# Each step kind, straight-through setting and codebook kind at least once, in few compilations.
COMBINATIONS = [
    ("unrolled", "encoder", "mlp"),
    ("unrolled-reverse", "encoder-and-codewords-inside", "basis"),
    ("finite-difference", "diveq", "mlp-relu"),
    ("pipelined", "encoder", "mlp"),
    ("none", "rotation", "linear"),
    ("joint", "encoder-and-codewords", "embedding"),
]
# Other hyper-gradients of the same passes: exact in the engine's tests, here once each.
FAMILY = [
    ("sama", "encoder", "mlp"),
    ("identity", "rotation", "mlp"),
    ("neumann", "encoder-and-codewords", "embedding"),
    ("cg", "encoder", "linear"),
]
EVERY_COMBINATION = [
    *FAMILY,
    *(
        combination
        for combination in itertools.product(
            [kind for kind, *_ in COMBINATIONS], mq.STRAIGHT_THROUGH, codebook.KINDS
        )
        if combination[:2] != ("joint", "encoder-and-codewords-inside")
    ),
]


def test_the_combinations_leave_none_out():
    for position, kinds in enumerate((mq.HYPERGRADIENTS, mq.STRAIGHT_THROUGH, codebook.KINDS)):
        assert {combination[position] for combination in COMBINATIONS + FAMILY} == set(kinds)


def kinds(hypergradient, straight_through, codebook):
    fields = ("train__hypergradient", "train__straight_through", "codebook__kind")
    return dict(zip(fields, (hypergradient, straight_through, codebook), strict=True))


def require_a_run(folder, hypergradient, *others, **changes):
    given = kinds(hypergradient, *others)
    config = runs.configure(**given, train__log_every=1, train__eval_every=12, **changes)
    assert runs.train_here(config, folder) == "finished"
    rows = runs.metrics(folder)
    assert [row["step"] for row in rows] == list(range(13))
    assert all(np.isfinite(value) for row in rows for value in row.values())
    losses = [row["inner/loss"] for row in rows[1:]]
    assert len(set(losses)) == 12
    two_levels = hypergradient != "joint"
    assert ("outer/loss" in rows[1]) == ("outer/direct_norm" in rows[1]) == two_levels
    if two_levels:
        assert (rows[2]["outer/indirect_norm"] > 0) == (hypergradient != "none")
        # Before the first step there is none that its batch could judge.
        first = hypergradient not in ("none", "pipelined")
        assert (rows[1]["outer/indirect_norm"] > 0) == first
    assert ("outer/probe_flip_rate" in rows[1]) == (hypergradient == "finite-difference")


# The codebook of a full disk's test, which so need not compile its own program.
LARGE = {"codebook__size": 4096}


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_kind_of_step_trains(tmp_path, combination):
    require_a_run(tmp_path, *combination, **LARGE if combination[0] == "joint" else {})


@pytest.mark.slow
@pytest.mark.parametrize("combination", [c for c in EVERY_COMBINATION if c not in COMBINATIONS])
def test_every_combination_of_kinds_trains(tmp_path, combination):
    require_a_run(tmp_path, *combination)


@pytest.mark.slow
def test_several_inner_updates_are_one_step_that_is_taken_again(tmp_path):
    """Of twelve updates the last two of each three; lines stand where a step has ended."""
    config = runs.configure(
        **{"train__inner_updates": 3, "train__unroll": 2, "train__roll_back": True},
        **{"train__log_every": 2, "train__eval_every": 12, "train__steps": 12},
    )
    assert runs.train_here(config, tmp_path) == "finished"
    rows = runs.metrics(tmp_path)
    # Steps end at 1, 3, 4, 6, 7, 9, 10, 12, of which these have passed an even number.
    assert [row["step"] for row in rows] == [0, 3, 4, 6, 9, 10, 12]
    # A line after an inner step alone has nothing of the outer level.
    told = [value for row in rows for value in row.values() if value is not None]
    assert np.isfinite(told).all()
    assert all(row["outer/indirect_norm"] > 0 for row in rows[1:] if row["step"] % 3 == 0)
    # Two updates, taken twice, cost more than the one between, of which the cost is told beside.
    cost = read_cost(tmp_path)
    assert cost.flops > 2 * cost.inner_flops > 0


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 40 images of noise."""
    return runs.write_images(tmp_path_factory.mktemp("images"))


def test_a_folder_trains_over_epochs(tmp_path, images):
    changes = {"data__dir": images, "train__hypergradient": "joint"}
    given = runs.arguments("folder_mqvae", **changes, train__steps=0, train__epochs=1)
    outcome = runs.cli(*given, f"--workdir={tmp_path / 'w'}")
    assert outcome.code == 0, outcome.err
    # Every tenth of the 40 images is held out; four whole batches of 8 are left.
    assert "Training finished" in outcome.out and "end (step 4)" in outcome.out


def test_cifar10_trains(tmp_path):
    default = runs.ROOT.parent / "shared" / "data" / "tfds"
    directory = pathlib.Path(os.environ.get("MQ_JAX_TEST_DATA") or default)
    if not (directory / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10; set MQ_JAX_TEST_DATA to a TFDS data_dir that has it")
    given = runs.arguments("cifar10_mqvae", data__dir=directory, data__eval_split="test[:20]")
    outcome = runs.cli(*given, f"--workdir={tmp_path / 'w'}")
    assert outcome.code == 0, outcome.err
    assert "cifar10" in (tmp_path / "w" / "config.json").read_text()
    assert runs.metrics(tmp_path / "w")[-1]["step"] == 12


def test_a_line_of_the_log_is_the_mean_of_the_steps_since_the_last(tmp_path):
    for every, name in ((1, "single"), (3, "mean")):
        config = runs.configure(train__log_every=every, train__eval_every=100)
        runs.train_here(config, tmp_path / name)
    single, mean = (runs.metrics(tmp_path / name)[1:] for name in ("single", "mean"))
    assert [row["step"] for row in mean] == [3, 6, 9, 12]
    averaged = set(single[0]) - {"step", "inner/usage", "inner/perplexity"}
    for number, row in enumerate(mean):
        steps = single[3 * number : 3 * number + 3]
        for name in averaged - {name for name in averaged if name.startswith("eval/")}:
            assert row[name] == pytest.approx(np.mean([s[name] for s in steps]), rel=1e-5), name
        # Codes that occur in any of the steps count once.
        assert max(s["inner/usage"] for s in steps) <= row["inner/usage"]


class _Watched(train.Watch):
    """A watch that keeps what it is told."""

    seen = []

    def begun(self, *window):
        self.seen.append((self._codebook, self._warm, *window))
        return super().begun(*window)


def test_every_window_is_watched_with_all_its_codes_and_what_ails_is_said_once(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(train, "Watch", _Watched)
    monkeypatch.setattr(code_use, "FEW", 1.1)
    config = runs.configure(train__log_every=5, train__eval_every=100)
    runs.train_here(config, tmp_path)
    codebooks, warms, steps, _, drawn = zip(*_Watched.seen, strict=True)
    assert set(codebooks) == {code_use.codebook_of(flat(config.to_dict()))} and set(warms) == {1}
    # Eight images of 16 x 16 codes a step.
    assert (steps, drawn) == ((5, 10, 12), (5 * 8 * 256, 5 * 8 * 256, 2 * 8 * 256))
    (said,) = [r for r in caplog.records if "Few codes are in use: " in r.getMessage()]
    assert said.levelname == "WARNING" and said.getMessage().startswith("step 10  Few codes")


# Early stopping.


@contextlib.contextmanager
def scripted_evaluations(values):
    """Evaluations whose eval/mse at a step is as given."""
    run = Evaluator.run

    def scripted(self, state):
        evaluation = run(self, state)
        return evaluation._replace(
            scalars=evaluation.scalars | {"eval/mse": values[int(state.step)]}
        )

    with mock.patch.object(Evaluator, "run", scripted):
        yield


PATIENT = {"train__patience": 2, "train__eval_every": 2, "train__checkpoint_every": 3}
VALUES = {0: 5.0, 2: 4.0, 4: 4.5, 6: 3.0, 8: 3.2, 10: 3.1, 12: 1.0}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that loses patience at step 10."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with scripted_evaluations(VALUES):
        assert runs.train_here(runs.configure(**PATIENT), folder) == "stopped early"
    return folder


def test_a_run_stops_when_its_patience_ends(stopped):
    assert runs.metrics(stopped)[-1]["step"] == 10
    assert runs.checkpoint_steps(stopped) == [6, 9, 10]


def test_a_run_that_stopped_early_stays_stopped(stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    with scripted_evaluations(VALUES):
        assert runs.train_here(runs.configure(**PATIENT), folder) == "stopped early"
    runs.assert_same_run(folder, stopped)


@pytest.mark.parametrize("step", [1, 7])
def test_patience_survives_an_interruption(stopped, tmp_path, step):
    with scripted_evaluations(VALUES):
        with runs.signalled_after(step):
            assert runs.train_here(runs.configure(**PATIENT), tmp_path) == "SIGTERM"
        assert runs.train_here(runs.configure(**PATIENT), tmp_path) == "stopped early"
    assert runs.metrics(tmp_path) == runs.metrics(stopped)
    assert runs.checkpoint(tmp_path)[1] == runs.checkpoint(stopped)[1]


# The best evaluation of a run whose adversarial term has its whole weight from step 6 on.

ADVERSARIAL = {**PATIENT, "train__patience": 3}
RISING = {0: 0.1, 2: 1.0, 4: 0.9, 6: 1.2, 8: 1.1, 10: float("nan"), 12: 1.15}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Folder of such a run, after a signal in step 5."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with settled_from_step_6(), scripted_evaluations(RISING), runs.signalled_after(5):
        assert runs.train_here(runs.configure(**ADVERSARIAL), folder) == "SIGTERM"
    return folder


def settled_from_step_6():
    return mock.patch.object(train, "settled_step", lambda *_: 6)


def best_of(folder):
    """The step that evaluation, export, report and snapshot each take for the best."""
    config = runs.configure(**ADVERSARIAL)
    (found,) = read_runs([folder])
    step = restore(folder, config, make_mesh(1, 1, jax.devices()[:1])).step
    return {step, found.best["step"], found.snapshot.step}


def test_the_best_is_that_under_the_whole_weight_as_soon_as_there_is_one(interrupted, tmp_path):
    assert best_of(interrupted) == {4}
    folder = shutil.copytree(interrupted, tmp_path / "run")
    with settled_from_step_6(), scripted_evaluations(RISING):
        # Measured against step 0 or 4, patience would end it at step 10.
        assert runs.train_here(runs.configure(**ADVERSARIAL), folder) == "finished"
        assert runs.train_here(runs.configure(**ADVERSARIAL), tmp_path / "whole") == "finished"
    assert best_of(folder) == {8} and runs.checkpoint_steps(folder) == [8, 10, 12]
    runs.assert_same_run(folder, tmp_path / "whole")


@pytest.mark.parametrize("best", [0.1, 0.9, float("nan"), None])
def test_a_run_of_before_goes_on_from_the_best_that_today_s_rule_finds(interrupted, tmp_path, best):
    folder = shutil.copytree(interrupted, tmp_path / "run")
    place = folder / "checkpoints" / "5"
    record = json.loads((place / "record" / "metadata").read_text())
    del record["sealed"], record["extra"]["best_step"]
    record["extra"] |= {"best": best, "stale": 3, "stopped_early": True}
    (place / "record" / "metadata").write_text(json.dumps(record))
    (place / checksums.FILE).unlink()
    with settled_from_step_6(), scripted_evaluations(RISING), runs.signalled_after(1):
        assert runs.train_here(runs.configure(**ADVERSARIAL), folder) == "SIGTERM"
    extra = runs.checkpoint(folder, 6)[1]["extra"]
    assert (extra["best"], extra["best_step"], extra["stale"]) == (1.2, 6, 0)


def test_without_patience_a_run_goes_to_its_end(tmp_path):
    with scripted_evaluations({step: 1.0 + step for step in range(13)}):
        assert runs.train_here(runs.configure(train__patience=0), tmp_path) == "finished"
    assert runs.metrics(tmp_path)[-1]["step"] == 12


# Numbers that are none.


@contextlib.contextmanager
def parameters_lost_at(step):
    """A run whose parameters are NaN after a step."""

    def compile_program(config, *rest):
        program = runs.compiled(config, *rest)

        def losing(state, window, *batches):
            state, window, loss = program.steps().step(state, window, *batches)
            if int(state.step) == step:
                theta = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params.autoencoder)
                state = state.replace(params=state.params._replace(autoencoder=theta))
            return state, window, loss

        return program._replace(steps=lambda: program.steps()._replace(step=losing))

    with (
        runs.quick_compilation(),
        mock.patch.object(train, "compile_program", compile_program),
        mock.patch.object(train, "drawn", runs.drawn),
    ):
        yield


def run_here(config, folder):
    sources, eval_source = inputs.open_training(config), inputs.open_evaluation(config)
    return train.train(
        config, config.train.steps, sources, eval_source, (), Measures((), None, {}, {}), folder
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An ordinary run."""
    folder = tmp_path_factory.mktemp("whole")
    runs.train_here(runs.configure(), folder)
    return folder


# The step at which parameters are lost, and the step and the term that are named.
@pytest.mark.parametrize("lost, step, term", [(6, 7, "inner/loss"), (8, 8, "parameters")])
def test_a_run_that_loses_its_numbers_says_when_and_saves_nothing_bad(
    tmp_path, whole, lost, step, term
):
    with parameters_lost_at(lost), pytest.raises(FloatingPointError) as caught:
        run_here(runs.configure(), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"At step {step} not finite: ") and term in message
    assert f"The last good checkpoint is that of step 5 in {tmp_path}/checkpoints" in message
    assert "\n" not in message
    assert runs.checkpoint_steps(tmp_path) == [4, 5]
    # What is left is good: from there the run ends as one that never lost anything.
    assert runs.train_here(runs.configure(), tmp_path) == "finished"
    runs.assert_same_run(tmp_path, whole)


def test_a_learning_rate_that_explodes_gets_one_line(tmp_path):
    given = runs.arguments(train__learning_rate=1e30, train__checkpoint_every=1)
    outcome = runs.cli(*given, f"--workdir={tmp_path / 'w'}")
    assert (outcome.code, outcome.out) == (1, "")
    line = outcome.err.splitlines()[-1]
    assert line.startswith("error: At step ") and "config.train.learning_rate" in line
    assert "Traceback" not in outcome.err
    bad = int(line.split()[3])
    assert all(step < bad for step in runs.checkpoint_steps(tmp_path / "w"))


# Images that cannot be read.


@pytest.fixture
def damaged_images(tmp_path):
    """A folder of 40 images of which three for training are damaged, and the three."""
    directory = runs.write_images(tmp_path / "images")
    paths = sorted(pathlib.Path(directory).glob("*/*.png"))
    bad = [paths[number] for number in (3, 14, 25)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:800])
    return directory, bad


def folder_of(directory, **changes):
    # The two levels see all 36 images in twelve steps many times over.
    given = {"data__dir": directory, "data__max_bad_share": 0.1, "data__threads": 1}
    given["data__holdout"] = "every-tenth"
    return runs.arguments("folder_mqvae", **{**given, **changes})


def named_in_log(folder):
    lines = (folder / "train.log").read_text().splitlines()
    return [line.split("Unreadable ")[1] for line in lines if "Unreadable " in line]


def test_bad_images_are_skipped_named_once_and_counted_over_an_interruption(
    tmp_path, damaged_images
):
    directory, bad = damaged_images
    given = [*folder_of(directory), f"--workdir={tmp_path / 'w'}"]
    with runs.signalled_after(1):
        assert runs.cli(*given).code == 0
    before = runs.checkpoint(tmp_path / "w")[1]["extra"]["bad_images"][0]
    assert 0 < len(before) < 3
    outcome = runs.cli(*given)
    assert outcome.code == 0, outcome.err
    after = runs.checkpoint(tmp_path / "w")[1]["extra"]["bad_images"][0]
    assert set(before) < set(after) and len(after) == 3
    named = named_in_log(tmp_path / "w")
    told = "of at most 3, the next one seen twice instead"
    assert [line.split(": ")[0] for line in named] == [f"image {k} {told}" for k in (1, 2, 3)]
    assert sorted(line.split(": ")[1] for line in named) == [str(path) for path in bad]
    whole = runs.cli(*folder_of(directory), f"--workdir={tmp_path / 'whole'}")
    assert whole.code == 0
    assert runs.metrics(tmp_path / "w") == runs.metrics(tmp_path / "whole")


def test_too_many_bad_images_end_the_run_with_one_line(tmp_path, damaged_images):
    directory, bad = damaged_images
    given = folder_of(directory, data__max_bad_share=0.06)
    outcome = runs.cli(*given, f"--workdir={tmp_path / 'w'}")
    assert (outcome.code, outcome.out) == (1, "")
    line = outcome.err.splitlines()[-1]
    assert line.startswith("error: 3 of 36 images cannot be read (8.33%); at most 6.00%")
    assert all(str(path) in line for path in bad) and "raise data.max_bad_share" in line
    assert "Traceback" not in outcome.err


def test_bad_images_are_counted_by_level_where_the_levels_share_none(tmp_path, damaged_images):
    directory, bad = damaged_images
    given = folder_of(directory, train__outer_data="held-out", data__max_bad_share=0.2)
    assert runs.cli(*given, f"--workdir={tmp_path / 'w'}").code == 0
    inner, outer = runs.checkpoint(tmp_path / "w")[1]["extra"]["bad_images"]
    data = {"data__dir": directory, "train__outer_data": "held-out", "data__holdout": "every-tenth"}
    config = runs.configure("folder_mqvae", **data)
    sources = inputs.open_training(config)
    found = [sources.autoencoder.name(i) for i in inner] + [sources.codebook.name(i) for i in outer]
    assert sorted(found) == [str(path) for path in bad]


# A full disk.


@contextlib.contextmanager
def no_large_file_from(step):
    """From a checkpoint on, no file of this process may have more than 20 kB."""
    save, limits = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(self, number, *rest):
        if number == step:
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        return save(self, number, *rest)

    try:
        with mock.patch.object(Checkpoints, "save", save_on_a_full_disk):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# No traceback of a write that was given up either, which Python itself would print.
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_ends_the_run_with_one_line_and_the_older_checkpoint_is_good(tmp_path):
    # A codebook of 64 kB, since the rest would fit.
    given = functools.partial(runs.cli, *runs.arguments(**kinds(*COMBINATIONS[-1]), **LARGE))
    with no_large_file_from(8):
        outcome = given(f"--workdir={tmp_path / 'w'}")
    assert (outcome.code, outcome.out) == (1, "")
    line = outcome.err.splitlines()[-1]
    assert line.startswith("error: Saving the checkpoint of step 8 in ")
    assert "The last good checkpoint is that of step 5. Check the disk and its free space" in line
    assert "Traceback" not in outcome.err
    assert runs.checkpoint_steps(tmp_path / "w") == [4, 5]
    assert given(f"--workdir={tmp_path / 'w'}").code == 0
    assert given(f"--workdir={tmp_path / 'whole'}").code == 0
    runs.assert_same_run(tmp_path / "w", tmp_path / "whole")
