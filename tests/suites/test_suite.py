"""Suites and their schedules: what they hold, their order, whose part is whose."""

import dataclasses
import pathlib

import pytest
import runs

from mq_jax.commandline import UsageError
from mq_jax.modes.suite import Asked, compare
from mq_jax.suites import Suite, read_suite
from mq_jax.suites.schedule import Shard, find_shard, schedule
from mq_jax.suites.timing import timing_of
from mq_jax.training.validate import validate

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

SUITES = sorted(
    path
    for path in (runs.ROOT / "configs" / "suites").glob("*.py")
    if "def get_suite" in path.read_text()
)
PHOTOS = f"{runs.ROOT}/configs/photos_mqvae.py"


def make(**changes):
    """Two entries on the photographs."""
    fields = {"entries": {"joint": "train.hypergradient=joint", "fsq": ":fsq"}, **changes}
    return Suite(experiment=PHOTOS, **fields)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_entry_of_every_suite_is_a_valid_experiment(path):
    suite = read_suite(str(path))
    scheduled = schedule(suite, pathlib.Path("DIR"))
    assert {run.entry for run in scheduled} == set(suite.entries)
    assert suite.compared_with in suite.entries
    header = path.read_text().partition('"""\n\n')[0]
    assert f"--suite=configs/suites/{path.name}" in header


def test_there_are_the_suites_of_the_paper_and_its_ablations():
    names = {path.stem for path in SUITES}
    paper = {f"{data}_paper" for data in ("cifar10", "celeba", "ffhq", "imagenet")}
    parts = ("hypergradient", "hypernet", "straight_through", "unroll", "outer_data")
    parts += ("layer_norm", "lambda_q", "size")
    assert names >= paper | {f"cifar10_{part}" for part in parts} | {"cifar10_quick"}


def test_first_seeds_come_before_second_ones_each_in_a_folder_of_its_own():
    suite = make(seeds=(4,), seeds_of={"fsq": (0, 2)}, overrides="train.steps=3")
    found = schedule(suite, pathlib.Path("DIR"), ["--config.train.steps=7"])
    assert [run.name for run in found] == ["joint seed 4", "fsq seed 0", "fsq seed 2"]
    assert str(found[2].folder) == "DIR/fsq/seed-2"
    assert [run.config.seed for run in found] == [4, 0, 2]
    # Fields of the command line come last; K and D are those that FSQ makes.
    assert {run.config.train.steps for run in found} == {7}
    assert found[1].config.codebook.size == 1000
    assert found[1].words == (
        f"--config={PHOTOS}:fsq",
        *("--config.train.steps=3", "--config.train.steps=7", "--config.seed=0"),
    )


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"entries": {}}, "has no entries"),
        ({"entries": {"a/b": ""}}, "cannot be the name of a folder"),
        ({"entries": {"timings": ""}}, "cannot be the name of a folder"),
        ({"reference": "jointly"}, "'jointly' is no entry"),
        ({"seeds_of": {"jointly": (1,)}}, "'jointly' is no entry"),
        ({"seeds": (1, 1)}, "expected one or more different whole numbers"),
        ({"seconds": -1.0}, "expected 0 or more"),
        ({"entries": ["joint"]}, "entries of a suite is .*; expected a dict"),
        ({"entries": {"joint": None}}, "entries of a suite is .*; expected a dict"),
        ({"seeds": 3}, "seeds of a suite is 3; expected a tuple"),
        ({"seeds_of": {"fsq": 3}}, "seeds_of of a suite is .*; expected a dict of tuples"),
        ({"seconds": "9"}, "seconds of a suite is '9'; expected a number"),
        ({"overrides": ["train.steps=3"]}, "overrides of a suite is .*; expected text"),
    ],
)
def test_a_suite_that_cannot_be_says_so(changes, told):
    with pytest.raises(ValueError, match=told):
        make(**changes)


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"entries": {"a": "train.stepz=3"}}, "entry 'a'.*has no field config.train.stepz"),
        ({"entries": {"a": "train.steps"}}, "entry 'a'.*'train.steps' is no override"),
        ({"entries": {"a": "data.dir='x"}}, "entry 'a'.*cannot be read: No closing quotation"),
        ({"entries": {"a": "seed=3"}}, "entry 'a'.*the seeds of a suite are its own"),
        ({"entries": {"a": ":fsk"}}, "entry 'a'.*the preset is 'fsk'"),
        ({"entries": {"a": "train.warmup=2"}}, "entry 'a'.*config.train.warmup is 2"),
        ({"entries": {"a": "", "b": ":"}}, "'a' and 'b' of the suite are one configuration"),
        # What the entry says would have no effect.
        ({"entries": {"a": "perceptual.weight=2"}}, "entry 'a'.*changes nothing"),
        ({"seconds": 9.0}, "config.train.steps is 800 in a suite of 9 seconds"),
    ],
)
def test_an_entry_that_cannot_be_trained_is_named(changes, told):
    with pytest.raises(ValueError, match=told):
        schedule(make(**changes), pathlib.Path("DIR"))


def test_a_file_that_is_no_suite_is_named(tmp_path):
    with pytest.raises(UsageError, match="there is no such file.*did you mean|cifar10_quick"):
        read_suite(str(SUITES[0].parent / "cifar10_quik.py"))
    path = tmp_path / "mine.py"
    path.write_text("def get_suite():\n    return 3\n")
    with pytest.raises(ValueError, match="returns a int; expected a mq_jax.suites.Suite"):
        read_suite(str(path))
    path.write_text("suite = 3\n")
    with pytest.raises(UsageError, match="has no function get_suite"):
        read_suite(str(path))
    path.write_text("def get_suite():\n    return 1 / 0\n")
    with pytest.raises(UsageError, match="fails with ZeroDivisionError"):
        read_suite(str(path))


def test_a_reference_that_is_no_entry_is_refused_before_any_run(tmp_path):
    asked = Asked(str(runs.ROOT / "configs" / "suites" / "photos.py"), reference="jointly")
    with pytest.raises(ValueError, match="--reference is 'jointly'; expected one of joint, none"):
        compare(tmp_path, asked)
    assert not list(tmp_path.iterdir())


def test_the_experiment_of_a_suite_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = read_suite(str(runs.ROOT / "configs" / "suites" / "cifar10_quick.py"))
    assert suite.experiment == str(runs.ROOT / "configs" / "cifar10_mqvae.py")
    assert dataclasses.replace(suite, reference="").compared_with == "joint"


def test_a_budget_of_seconds_makes_whole_outer_updates(tmp_path):
    entries = {"all": "train.inner_updates=8 train.unroll=8"}
    suite = make(entries=entries, overrides="train.steps=0", seconds=9.0)
    (scheduled,) = schedule(suite, tmp_path)
    timing = timing_of(scheduled, suite, tmp_path)
    assert timing.config.train.steps == 64 and "--config.train.steps=64" in timing.words
    assert [scheduled.lasting(n, tmp_path).config.train.steps for n in (3, 61, 800)] == [8, 64, 800]
    validate(timing.config)


def test_shards_are_the_whole_and_share_nothing():
    whole = schedule(make(seeds=(0, 1, 2)), pathlib.Path("DIR"))
    parts = [find_shard(f"{index}/4", {}).of(whole) for index in range(4)]
    assert sorted(run.name for part in parts for run in part) == sorted(r.name for r in whole)
    assert find_shard("", {}).of(whole) == whole


def array(task, tasks, *, step=1, **more):
    """The environment of a task of a SLURM array of these IDs."""
    told = {"ID": task, "COUNT": len(tasks), "MIN": min(tasks), "MAX": max(tasks), "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()} | more


@pytest.mark.parametrize(
    "environment, shard",
    [
        ({}, Shard(0, 1)),
        ({"JOB_COMPLETION_INDEX": "0"}, Shard(0, 1)),
        ({"MQ_JAX_SHARDS": "3", "JOB_COMPLETION_INDEX": "2"}, Shard(2, 3)),
        # A pod of a JobSet, each of whose Jobs has one pod, of index 0.
        ({"MQ_JAX_SHARDS": "3", "MQ_JAX_SHARD": "2", "JOB_COMPLETION_INDEX": "0"}, Shard(2, 3)),
        (array(2, range(4)), Shard(2, 4)),
        (array(1, range(1, 5)), Shard(0, 4)),
        (array(5, range(1, 8, 2), step=2), Shard(2, 4)),
        # What is submitted again has the part that it had.
        (array(2, [2], MQ_JAX_SHARDS="4"), Shard(2, 4)),
        (array(2, [0, 2], MQ_JAX_SHARDS="4"), Shard(2, 4)),
        (array(2, range(4), MQ_JAX_SHARDS="8", MQ_JAX_SHARD="7"), Shard(7, 8)),
    ],
)
def test_a_scheduler_says_which_shard(environment, shard):
    assert find_shard("", environment) == shard
    assert find_shard("1/2", environment) == Shard(1, 2)


@pytest.mark.parametrize("tasks", [[0, 2], [2], [0], [2, 3]])
def test_an_array_that_may_be_a_part_of_another_asks_for_the_number_of_shards(tasks):
    for task in tasks:
        with pytest.raises(ValueError, match="set MQ_JAX_SHARDS to their number, .*, or give --s"):
            find_shard("", array(task, tasks))


@pytest.mark.parametrize("given", ["4/4", "1", "-1/2", "a/2", "1/"])
def test_what_is_no_part_is_refused(given):
    with pytest.raises(ValueError, match="expected I/N with 0 <= I < N"):
        find_shard(given, {})


@pytest.mark.parametrize(
    "environment",
    [
        array(9, range(4)),
        array("x", range(4)),
        array(4, [4], MQ_JAX_SHARDS="4"),
        {"MQ_JAX_SHARDS": "2"},
        {"MQ_JAX_SHARD": "2"},
        {"MQ_JAX_SHARDS": "two", "MQ_JAX_SHARD": "1"},
    ],
)
def test_a_scheduler_that_says_nonsense_is_refused(environment):
    with pytest.raises(ValueError, match="expected|set"):
        find_shard("", environment)
