"""Several processes: found by the environment, and as one in what they compute and leave."""

import re
import signal
import textwrap

import pytest
import runs
import token_sets
from processes import assert_close, free_port, two_programs, two_scripts

from mq_jax.devices.distributed import Cluster, find_cluster, initialize
from mq_jax.runs.base import read_base
from mq_jax.runs.origin import read_origin

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

EXPLICIT = {"MQ_JAX_COORDINATOR": "a:1", "MQ_JAX_PROCESSES": "4", "MQ_JAX_PROCESS": "2"}
TORCHRUN = {"MASTER_ADDR": "b", "MASTER_PORT": "29500", "WORLD_SIZE": "8", "RANK": "5"}
LOCAL = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NODELIST": "node[003-007,009]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
# What a batch script has, with two tasks asked for, before it says srun.
BATCH = {
    "SLURM_JOB_ID": "4097",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "node[1-2]",
}
BY_JOB = {k: v for k, v in EXPLICIT.items() if k != "MQ_JAX_PROCESS"}


@pytest.mark.parametrize(
    "environment, cluster",
    [
        ({}, None),
        (EXPLICIT, Cluster("a:1", 4, 2)),
        (EXPLICIT | {"MQ_JAX_COORDINATOR": "[::1]:80"}, Cluster("[::1]:80", 4, 2)),
        (EXPLICIT | {"MQ_JAX_PROCESSES": "1", "MQ_JAX_PROCESS": "0"}, None),
        (BY_JOB | {"JOB_COMPLETION_INDEX": "3"}, Cluster("a:1", 4, 3)),
        (EXPLICIT | {"JOB_COMPLETION_INDEX": "3"}, Cluster("a:1", 4, 2)),
        ({"JOB_COMPLETION_INDEX": "3"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        (TORCHRUN, Cluster("b:29500", 8, 5)),
        (TORCHRUN | EXPLICIT, Cluster("a:1", 4, 2)),
        (TORCHRUN | LOCAL, Cluster("b:29500", 8, 5, (1,))),
        (TORCHRUN | LOCAL | {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, Cluster("b:29500", 8, 5, (1,))),
        (TORCHRUN | LOCAL | {"CUDA_VISIBLE_DEVICES": "7"}, Cluster("b:29500", 8, 5)),
        (TORCHRUN | LOCAL | {"CUDA_VISIBLE_DEVICES": ""}, Cluster("b:29500", 8, 5)),
        (TORCHRUN | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, Cluster("b:29500", 8, 5)),
        (TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"}, Cluster("b:29501", 8, 5)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"MASTER_ADDR": "b", "MASTER_PORT": "1", "WORLD_SIZE": "8"}, None),
        (SRUN, Cluster("node003:61441", 3, 1)),
        (SRUN | {"WORLD_SIZE": "3", "MASTER_ADDR": "b"}, Cluster("node003:61441", 3, 1)),
        (SRUN | {"SLURM_STEP_ID": "2"}, Cluster("node003:61443", 3, 1)),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu7"}, Cluster("gpu7:61441", 3, 1)),
        (SRUN | {"SLURM_STEP_NODELIST": "a-1,b[2-3]"}, Cluster("a-1:61441", 3, 1)),
        (SRUN | {"SLURM_STEP_NODELIST": "r[01,03]n"}, Cluster("r01n:61441", 3, 1)),
        (SRUN | {"SLURM_STEP_NODELIST": "n[5]"}, Cluster("n5:61441", 3, 1)),
        (
            SRUN | {"SLURM_STEP_NUM_NODES": "1", "SLURM_LOCALID": "1"},
            Cluster("node003:61441", 3, 1, (1,)),
        ),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (SRUN | {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (BATCH, None),
    ],
)
def test_a_process_finds_its_place(environment, cluster):
    assert find_cluster(environment) == cluster


def without(environment, name):
    return {key: value for key, value in environment.items() if key != name}


@pytest.mark.parametrize(
    "environment, message",
    [
        (without(EXPLICIT, "MQ_JAX_COORDINATOR"), "but not MQ_JAX_COORDINATOR; set"),
        (BY_JOB, "but not MQ_JAX_PROCESS; set"),
        (EXPLICIT | {"MQ_JAX_COORDINATOR": "a"}, "'a'; expected host:port"),
        (EXPLICIT | {"MQ_JAX_COORDINATOR": "a:b"}, "'a:b'; expected host:port"),
        (EXPLICIT | {"MQ_JAX_PROCESSES": "two"}, "MQ_JAX_PROCESSES is 'two'; expected a number"),
        (EXPLICIT | {"MQ_JAX_PROCESS": "4"}, "MQ_JAX_PROCESS is 4 and MQ_JAX_PROCESSES is 4"),
        (EXPLICIT | {"MQ_JAX_PROCESS": "-1"}, "MQ_JAX_PROCESS is '-1'; expected a number"),
        (without(TORCHRUN, "WORLD_SIZE"), "has RANK but not WORLD_SIZE"),
        (without(TORCHRUN, "MASTER_PORT"), "has MASTER_ADDR but not MASTER_PORT"),
        (TORCHRUN | {"RANK": "8"}, "RANK is 8 and WORLD_SIZE is 8"),
        (TORCHRUN | {"LOCAL_RANK": "1"}, "has LOCAL_RANK but not LOCAL_WORLD_SIZE"),
        (
            TORCHRUN | {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4", "CUDA_VISIBLE_DEVICES": "0,1"},
            "process 2 of its machine, from 0, but CUDA_VISIBLE_DEVICES is '0,1'",
        ),
        (without(SRUN, "SLURM_PROCID"), "but not SLURM_PROCID"),
        (without(SRUN, "SLURM_STEP_NODELIST"), "SLURM_STEP_NODELIST is not set"),
        (SRUN | {"SLURM_STEP_NODELIST": "[1-2]"}, "expected a list of hosts"),
    ],
)
def test_variables_that_do_not_fit_together_are_named(environment, message):
    with pytest.raises(ValueError) as error:
        find_cluster(environment)
    assert message in str(error.value)


def test_a_coordinator_that_cannot_be_reached_is_named():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=f"Process 1 of 2 .* {address} within 0 s"):
        initialize(Cluster(address, 2, 1), timeout_seconds=0)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images, one of which is none."""
    folder = tmp_path_factory.mktemp("images")
    runs.write_images(folder)
    (folder / "a" / "004.png").write_bytes(b"no image")
    return {
        "data__dir": str(folder),
        "data__max_bad_share": 0.1,
        "train__steps": 9,
        # A multiple of no number of devices or processes.
        "eval__batch_size": 3,
        # Quick to compile, and yet of two levels.
        "train__hypergradient": "none",
    }


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """The folder of a run in one process, this one, with eight devices."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert runs.cli(*runs.arguments("folder_mqvae", **images), f"--workdir={folder}").code == 0
    return folder


def test_two_processes_are_stopped_by_one_signal_and_one_process_ends_their_run(
    images, whole, tmp_path
):
    folder = tmp_path / "run"
    command = [*runs.arguments("folder_mqvae", **images), f"--workdir={folder}"]
    first, second = two_programs(*command, at="step:5", number=signal.SIGUSR1)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    # The second process tells of its signal in the next step, and both save after that.
    assert runs.checkpoint_steps(folder)[-1] == 6
    assert "SIGUSR1: saved. To go on:" in first.err
    assert "4 device(s)" in first.err and first.err.count("Unreadable image") == 1
    assert second.err.splitlines() == [
        "",
        "SIGUSR1: finishing this step, then saving; press again to quit at once",
    ]
    names = {path.name for path in folder.iterdir()}
    written = {"config.json", "metrics.jsonl", "train.log", "tensorboard", "reconstructions"}
    written |= {"data.json", "data-names.json.gz", "cost.json"}
    assert names == {*written, "checkpoints", "environment.json", "snapshot.npz"}
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert runs.pictures(folder).keys() == {"00000000.png", "00000004.png"}
    assert_close(runs.metrics(folder), [r for r in runs.metrics(whole) if r["step"] <= 6])

    last = runs.cli(*command)
    assert last.code == 0, last.err
    assert "Going on from the checkpoint of step 6" in last.err
    assert_close(runs.metrics(folder), runs.metrics(whole))
    (arrays, record), (expected, expected_record) = runs.checkpoint(folder), runs.checkpoint(whole)
    assert record["extra"]["bad_images"] == expected_record["extra"]["bad_images"] != [[], []]
    assert arrays.keys() == expected.keys()


def test_what_one_process_finds_wrong_ends_both_and_is_said_by_that_one(tmp_path):
    folder, missing = tmp_path / "run", tmp_path / "missing"
    present = runs.write_images(tmp_path / "images", count=8)
    command = [*runs.arguments("folder_mqvae"), f"--workdir={folder}"]
    first, second = two_programs(
        *command, first=[f"--config.data.dir={present}"], second=[f"--config.data.dir={missing}"]
    )
    assert (first.code, second.code) == (1, 1), first.err + second.err
    (line,) = second.err.splitlines()
    assert line.startswith("process 1: error: ") and str(missing) in line
    assert first.err.splitlines()[1:] == [line.replace("process 1: error:", "error: process 1:")]
    assert not folder.exists()


@pytest.mark.slow
def test_two_processes_start_from_the_base_of_one(images, tmp_path):
    fields = {"codebook__base": "kmeans", "codebook__kind": "embedding", "train__steps": 3}
    command = runs.arguments("folder_mqvae", **{**images, **fields, "codebook__base_images": 40})
    first, second = two_programs(*command, f"--workdir={tmp_path / 'two'}")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    alone = runs.outcome(runs.launch(*command, f"--workdir={tmp_path / 'one'}", **quick))
    assert alone.code == 0, alone.err
    assert read_base(tmp_path / "two") == read_base(tmp_path / "one") is not None
    assert_close(runs.metrics(tmp_path / "two"), runs.metrics(tmp_path / "one"))


@pytest.mark.slow
def test_two_processes_begin_with_the_weights_of_one(images, tmp_path):
    fields = {**images, "train__steps": 3, "train__eval_every": 3, "mesh__fsdp": 2}
    fields |= {"mesh__shard_from": 0}
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [*runs.arguments("folder_mqvae", **fields), f"--workdir={tmp_path / 'source'}"]
    source = two_programs(*command)
    assert [done.code for done in source] == [0, 0], source[0].err
    given = f"--config.init_from={tmp_path / 'source'}"
    command = [*runs.arguments("folder_mqvae", **fields), given]
    first, second = two_programs(*command, f"--workdir={tmp_path / 'two'}")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    command = [*runs.arguments("folder_mqvae", **{**fields, "mesh__fsdp": 1}), given]
    alone = runs.outcome(runs.launch(*command, f"--workdir={tmp_path / 'one'}", **quick))
    assert alone.code == 0, alone.err
    assert read_origin(tmp_path / "two") == read_origin(tmp_path / "one") is not None
    last, (begun, *_) = runs.metrics(tmp_path / "source")[-1], runs.metrics(tmp_path / "two")
    assert begun["eval/mse"] == pytest.approx(last["eval/mse"], rel=1e-6)
    assert_close(runs.metrics(tmp_path / "two"), runs.metrics(tmp_path / "one"))


@pytest.mark.slow
def test_two_processes_are_as_good_as_one_in_every_mode(tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    # Slow enough that rounding stays what it is.
    command = [*runs.arguments(**runs.WHOLE, train__learning_rate=1e-4), f"--workdir={folder}"]
    # One process goes on from the checkpoint of another number of them, and two from that of one.
    first, second = two_programs(*command, at="step:3")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    middle = runs.outcome(runs.launch(*command, at="step:3", number=signal.SIGTERM))
    assert middle.code == 0 and runs.checkpoint_steps(folder)[-1] == 7, middle.err
    interrupted = two_programs(*command, "--interrupted_code=75", at="step:2")
    assert [done.code for done in interrupted] == [75, 75], interrupted[0].err
    last, silent = two_programs(*command)
    assert (last.code, silent.code) == (0, 0), last.err
    assert "Going on from the checkpoint of step 10" in last.err and silent.err == ""

    alone = runs.outcome(runs.launch(*command[:-1], f"--workdir={whole}", JAX_NUM_CPU_DEVICES="4"))
    assert alone.code == 0, alone.err
    # One code of the 512 of a batch may tip to the other side.
    assert_close(runs.metrics(folder), runs.metrics(whole), atol=5e-3)
    evaluation = ["--mode=evaluate", f"--workdir={folder}"]
    both = two_programs(*evaluation)
    assert [done.code for done in both] == [0, 0], both[0].err
    alone = runs.outcome(runs.launch(*evaluation))
    rows = [re.findall(r"^ *step \d+ .*", one.out, re.MULTILINE) for one in (both[0], alone)]
    assert len(rows[0]) == 1 and rows[0] == rows[1]
    assert "MSE" not in both[1].out


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other_and_both_go_on(tmp_path):
    folder = tmp_path / "run"
    command = [*runs.arguments(), f"--workdir={folder}"]
    first, second = two_programs(*command, at="step:7", number=signal.SIGKILL)
    assert second.code == -signal.SIGKILL and first.code != 0
    # Whichever notices first: this program, or the service of JAX.
    assert re.search("nother process .* is lost|nother process did|nother task died", first.err)
    again = two_programs(*command)
    assert [done.code for done in again] == [0, 0], again[0].err
    assert "Going on from the checkpoint of step" in again[0].err
    assert runs.metrics(folder)[-1]["step"] == 12


_TALK = """
    import os, sys
    import jax, numpy as np
    from mq_jax.devices.agreement import AgreedSignal, FailedElsewhere, gather, together
    from mq_jax.devices.distributed import find_cluster, initialize
    from mq_jax.metrics.feature_moments import gathered_moments
    from mq_jax.metrics.fingerprint import PixelDigest
    from mq_jax.metrics.frechet import Moments

    initialize(find_cluster(os.environ))
    own = jax.process_index()

    rows = gather(np.full((2 * own, 3), own, np.uint8))
    assert [r.shape for r in rows] == [(0, 3), (2, 3)] and (rows[1] == 1).all()
    assert [len(r) for r in gather(np.zeros(0, np.int32))] == [0, 0]
    assert [r.tolist() for r in gather(np.array([-own, 7]))] == [[0, 7], [-1, 7]]

    # In float64 to the last bit, though JAX has 32 of them.
    parts = [np.random.default_rng(i).normal(size=(5 + i, 3)).astype(np.float32) for i in (0, 1)]
    both, merged = [Moments.of(part) for part in parts], gathered_moments(Moments.of(parts[own]))
    for found, expected in zip(merged, both[0].merge(both[1]), strict=True):
        assert (np.asarray(found) == expected).all()
    digest, whole, images = PixelDigest(), PixelDigest(), np.arange(48, dtype=np.uint8)
    rows = {"index": np.arange(4), "image": images.reshape(4, 2, 2, 3), "mask": np.ones(4)}
    digest.add({name: values[own::2] for name, values in rows.items()})
    assert digest.of_all()[1] == 4
    if own:
        whole.add(rows)
    assert digest.of_all() == whole.of_all()

    signals = AgreedSignal()
    told = [signals.after_step(n if own else None) for n in (None, "SIGUSR1", None, "SIGHUP", None)]
    assert told == [None, None, "SIGUSR1", None, "SIGHUP"], told

    def failure(fails, message):
        try:
            with together():
                if fails:
                    raise ValueError(message)
        except (ValueError, FailedElsewhere) as error:
            return type(error).__name__, str(error)

    assert failure(False, "") is None
    mine, elsewhere = ("ValueError", "zero"), ("FailedElsewhere", "process 0: zero")
    assert failure(own == 0, "zero") == (elsewhere if own else mine)
    assert failure(True, "zero") == (elsewhere if own else mine)
    assert failure(True, f"in {own}") == ("ValueError", f"in {own}")
"""


def test_processes_hear_of_one_another():
    outcomes = two_scripts(textwrap.dedent(_TALK))
    assert [done.code for done in outcomes] == [0, 0], outcomes[0].err + outcomes[1].err


@pytest.mark.slow
def test_two_processes_write_the_token_set_of_one(images, whole, tmp_path):
    command = ["--mode=tokens", f"--workdir={whole}", "--shards=5"]
    lacking = two_programs(*command, f"--output={tmp_path / 'early'}")
    assert [done.code for done in lacking] == [1, 1]
    assert "has no export, which one process makes: --mode=export" in lacking[0].err
    alone = runs.outcome(runs.launch(*command, f"--output={tmp_path / 'alone'}"))
    assert alone.code == 0, alone.err
    first, second = two_programs(*command, f"--output={tmp_path / 'both'}")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "images by this process in" in first.out and "images" not in second.out
    files = token_sets.files(tmp_path / "both")
    assert files == token_sets.files(tmp_path / "alone") and len(files) == 6
