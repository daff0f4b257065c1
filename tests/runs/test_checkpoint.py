"""Checkpoints: what comes back, what is kept, and what damage does."""

import json
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from mq_jax.algorithm.state import Model, Parts, TrainState
from mq_jax.runs import checkpoint, checksums
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.wholeness import require_saved

# Of several reads that fail at once Orbax abandons all but one, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: tuple
    rng: jax.Array


def make_state(step: int, width: int = 4) -> State:
    params = {"dense": {"kernel": jnp.full((8, width), float(step)), "bias": jnp.zeros(width)}}
    opt_state = optax.adam(1e-3).init(params)
    return State(jnp.int32(step), params, opt_state, jax.random.key(step))


def abstract(tree, sharding=None):
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


TARGET = abstract(make_state(0))


def save_all(directory, steps, mse=None, **rule):
    with Checkpoints(directory, **rule) as checkpoints:
        for step in steps:
            metrics = {"eval/mse": mse[step]} if mse and step in mse else None
            checkpoints.save(step, make_state(step), {"position": step}, metrics)


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == other.dtype
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, other = jax.random.key_data(leaf), jax.random.key_data(other)
        np.testing.assert_array_equal(leaf, other)


def test_a_state_comes_back_whole_with_its_extra(tmp_path):
    extra = {"data": {"next_index": 7}, "best": 0.25, "stale": [1, 2]}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(3, make_state(3), extra, None)
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored = checkpoints.restore(TARGET)
    assert restored.step == 3 and restored.extra == extra
    assert_same(restored.tree, make_state(3))


def test_a_directory_without_checkpoints_restores_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET) is None
        assert checkpoints.steps == []
        assert checkpoints.latest_step is checkpoints.best_step is None


def test_arrays_sharded_over_8_devices_restore_onto_1_and_back(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    tree = {"w": jax.device_put(jnp.arange(16.0), sharded)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, {}, None)
        for target in (SingleDeviceSharding(jax.devices()[0]), sharded):
            restored = checkpoints.restore(abstract(tree, target)).tree["w"]
            assert restored.sharding.is_equivalent_to(target, 1)
            np.testing.assert_array_equal(restored, np.arange(16.0))


def test_the_last_two_and_the_best_are_kept_across_a_restart(tmp_path):
    save_all(tmp_path, [1, 2, 3, 4], mse={1: 0.9, 2: 0.1, 3: 0.5})
    save_all(tmp_path, [5, 6], mse={5: 0.3})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 5, 6]
        assert (checkpoints.best_step, checkpoints.latest_step) == (2, 6)
    save_all(tmp_path, [7, 8], mse={7: 0.05})
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.steps, checkpoints.best_step) == ([7, 8], 7)


def test_a_metric_that_is_not_finite_is_never_best(tmp_path):
    save_all(tmp_path, [1, 2], mse={1: float("nan"), 2: 0.5})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step == 2


def test_the_first_settled_checkpoint_goes_before_all_lower_ones_of_before(tmp_path):
    """By the rule of today also in a folder that was written without it."""
    mse = {1: 0.1, 2: 0.2, 3: 0.9, 4: 0.7, 5: 0.8, 6: 0.8}
    save_all(tmp_path / "of before", [1, 2, 3, 4], mse)
    for folder, steps in ((tmp_path / "of before", [5, 6]), (tmp_path / "anew", range(1, 7))):
        save_all(folder, steps, mse, settled=3)
        with Checkpoints(folder, settled=3, read_only=True) as checkpoints:
            assert checkpoints.steps == [4, 5, 6]
            assert (checkpoints.best_step, checkpoints.best_value) == (4, 0.7)


def test_until_one_is_settled_the_best_of_before_is_kept(tmp_path):
    mse = {1: 0.1, 2: 0.2, 3: 0.3, 4: float("nan")}
    save_all(tmp_path, [1, 2, 3, 4], mse, settled=4)
    with Checkpoints(tmp_path, settled=4, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best_step) == ([1, 3, 4], 1)


def test_metrics_without_the_monitored_one_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="eval/mse"):
        checkpoints.save(1, make_state(1), {}, {"eval/psnr": 20.0})


def test_a_whole_step_is_left_alone(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {"position": 1}, None)
        checkpoints.save(1, make_state(9), {"position": 9}, None)
        assert checkpoints.restore(TARGET).extra == {"position": 1}


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def truncate_arrays(folder):
    for path in folder.glob("tree/**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_json(folder):
    for path in (folder / "_CHECKPOINT_METADATA", folder / "record" / "metadata"):
        path.write_text(path.read_text()[:-4])


DAMAGES = {
    "empty folder": empty_folder,
    "no commit marker": lambda folder: (folder / "commit_success.txt").unlink(),
    "truncated arrays": truncate_arrays,
    "truncated JSON": truncate_json,
    "empty JSON": lambda folder: (folder / "record" / "metadata").write_text(""),
    "no array data": lambda folder: [shutil.rmtree(d) for d in folder.glob("tree/**/d")],
    "flipped bit": lambda folder: flip_bit(next(folder.glob("tree/ocdbt.process_0/d/*")), 77),
    "no checksums": lambda folder: (folder / checksums.FILE).unlink(),
    "no array metadata": lambda folder: (folder / "tree" / "_METADATA").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_is_skipped_set_aside_and_saved_again(tmp_path, damage, caplog):
    save_all(tmp_path, [1, 2], mse={1: 0.5, 2: 0.4})
    DAMAGES[damage](tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET).step == 1
        assert (checkpoints.steps, checkpoints.best_step) == ([1], 1)
        warnings = [record.getMessage() for record in caplog.records]
        assert len(warnings) == 1 and "\n" not in warnings[0]
        assert f"{tmp_path / '2'} (" in warnings[0] and "damaged-2" in warnings[0]
        assert (tmp_path / "damaged-2").is_dir()
        checkpoints.save(2, make_state(2), {"position": 2}, {"eval/mse": 0.3})
        checkpoints.wait()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET).step == checkpoints.best_step == 2
        assert (tmp_path / "damaged-2").is_dir()


def test_a_folder_without_commit_marker_is_no_obstacle_to_saving_its_step(tmp_path):
    save_all(tmp_path, [1, 2])
    empty_folder(tmp_path / "2")
    save_all(tmp_path, [2])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET).step == 2


def test_damage_to_one_step_twice_keeps_both_folders(tmp_path):
    for _ in range(2):
        save_all(tmp_path, [1, 2])
        empty_folder(tmp_path / "2")
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.restore(TARGET).step == 1
    assert {path.name for path in tmp_path.iterdir()} == {"1", "damaged-2", "damaged-2-again"}


def test_an_unfinished_save_is_removed_and_its_step_saved_again(tmp_path, caplog):
    save_all(tmp_path, [1, 2])
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET).step == 1
        assert "2.orbax-checkpoint-tmp: its save never finished" in caplog.text
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        checkpoints.save(2, make_state(2), {}, None)
        assert checkpoints.restore(TARGET).step == 2


def test_a_run_killed_in_its_first_save_starts_from_the_beginning(tmp_path):
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET) is None


def test_a_run_whose_checkpoints_are_all_damaged_never_starts_from_scratch(tmp_path):
    save_all(tmp_path, [1, 2])
    empty_folder(tmp_path / "1")
    truncate_arrays(tmp_path / "2")
    for _ in range(2):
        with Checkpoints(tmp_path) as checkpoints:
            with pytest.raises(ValueError, match=r"damaged are 2: .*; 1: .* no commit"):
                checkpoints.restore(TARGET)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


@pytest.mark.parametrize(
    "target, message",
    [
        (abstract(make_state(0, width=5)), r"kernel is \[8, 4\] in the checkpoint, \[8, 5\]"),
        (abstract({"other": jnp.zeros(3)}), "other is absent in the checkpoint"),
    ],
)
def test_another_model_is_not_damage(tmp_path, target, message):
    save_all(tmp_path, [1, 2])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=message):
            checkpoints.restore(target)
        assert checkpoints.steps == [1, 2]


def test_a_step_asked_for_is_restored_or_refused_with_those_there_are(tmp_path):
    save_all(tmp_path, [1, 2])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(TARGET, step=1).step == 1
        with pytest.raises(ValueError, match=r"no checkpoint of step 5; it has \[1, 2\]"):
            checkpoints.restore(TARGET, step=5)
        empty_folder(tmp_path / "1")
        with pytest.raises(ValueError, match=r"\[1, 2\]; damaged are 1: .*no commit"):
            checkpoints.restore(TARGET, step=1)
        assert (tmp_path / "1").is_dir()


def test_a_part_is_restored_without_reading_the_rest(tmp_path):
    save_all(tmp_path, [1])
    whole = make_state(1)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore(abstract({"params": whole.params}), partly=True)
        assert_same(restored.tree, {"params": whole.params})
        with pytest.raises(ValueError, match="other is absent in the checkpoint"):
            checkpoints.restore(abstract({"other": jnp.zeros(3)}), partly=True)
        with pytest.raises(ValueError, match="in the checkpoint, absent in the model"):
            checkpoints.restore(abstract({"params": whole.params}))


def test_opening_for_reading_leaves_the_directory_as_it_is(tmp_path):
    with Checkpoints(tmp_path / "absent", read_only=True) as checkpoints:
        assert checkpoints.restore(TARGET) is None
    assert not (tmp_path / "absent").exists()
    save_all(tmp_path, [1, 2], mse={1: 0.5})
    empty_folder(tmp_path / "2")
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step == 1
        assert checkpoints.restore(TARGET).step == 1
        with pytest.raises(ValueError, match="read_only"):
            checkpoints.save(9, make_state(9), {}, None)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_an_older_checkpoint_without_checksums_restores(tmp_path):
    save_all(tmp_path, [1])
    record = tmp_path / "1" / "record" / "metadata"
    (tmp_path / "1" / checksums.FILE).unlink()
    old = {k: v for k, v in json.loads(record.read_text()).items() if k != "sealed"}
    record.write_text(json.dumps(old))
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(TARGET).tree, make_state(1))


@pytest.mark.parametrize("batch_stats", [{"norm": {"mean": jnp.arange(3.0)}}, {}])
def test_averages_of_before_begin_with_the_raw_statistics(tmp_path, batch_stats):
    parts = Parts({"kernel": jnp.ones((2, 3))}, {"embedding": jnp.zeros(4)})
    state = TrainState(
        jnp.int32(5), parts, Parts((), ()), batch_stats, jax.random.key(0), (), jnp.zeros(2)
    )
    averages = jax.tree.map(lambda leaf: leaf + 1, parts)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, {"state": state.replace(ema=averages)}, {}, None)
        # As a program of today keeps them.
        kept = state.replace(ema=Model(*averages[:2], batch_stats))
        restored = checkpoints.restore(abstract({"state": kept})).tree
        assert_same(restored, {"state": kept})
        # Each is donated on its own.
        mean = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(restored["state"].batch_stats)}
        averaged = jax.tree.leaves(restored["state"].ema.batch_stats)
        assert not mean & {x.unsafe_buffer_pointer() for x in averaged}
        # What a run without averages lacks is another model all the same.
        checkpoints.save(6, {"state": state}, {}, None)
        with pytest.raises(ValueError, match="ema/autoencoder/kernel is absent in the checkpoint"):
            checkpoints.restore(abstract({"state": kept}))


def test_a_damaged_record_makes_no_checkpoint_the_best(tmp_path):
    save_all(tmp_path, [1, 2], mse={1: 0.25, 2: 0.5})
    record = tmp_path / "2" / "record" / "metadata"
    record.write_text(record.read_text().replace("0.5", "0.1"))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step == 1 and checkpoints.unreadable_steps == [2]


def test_a_damaged_step_that_was_asked_for_names_those_that_may_be(tmp_path):
    save_all(tmp_path, [1, 2, 3], mse={1: 0.5})
    flip_bit(next((tmp_path / "3").glob("tree/**/d/*")), 5)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(ValueError, match=r"damaged are 3: .*one: --step=1 or --step=2\.$"):
            checkpoints.restore(TARGET, step=3)


@pytest.mark.parametrize("damage", ["manifest.ocdbt", "ocdbt.process_0"])
def test_a_save_that_does_not_read_back_is_an_error_at_once(tmp_path, monkeypatch, damage):
    def damaging(folder, *rest, **how):
        place = folder / "tree" / damage
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        require_saved(folder, *rest, **how)

    tree = {"w": jax.random.normal(jax.random.key(0), (3000,))}
    monkeypatch.setattr(checkpoint, "require_saved", damaging)
    with Checkpoints(tmp_path / "[c]") as checkpoints:
        with pytest.raises(OSError, match="Saving the checkpoint of step 1 ") as error:
            checkpoints.save(1, tree, {}, None)
        assert "There is no good checkpoint." in str(error.value)
        assert str(tmp_path / "[c]") in str(error.value) and "/proc" not in str(error.value)
        assert "None" not in str(error.value) and checkpoints.steps == []
        monkeypatch.undo()
        checkpoints.save(1, tree, {}, None)
        monkeypatch.setattr(checkpoint, "require_saved", damaging)
        if damage == "manifest.ocdbt":
            # In the background by now, where each array must still be listed.
            checkpoints.save(2, tree, {}, None)
            with pytest.raises(OSError, match="arrays .* do not read back.*is that of step 1"):
                for _ in range(500):
                    checkpoints.check()
                    time.sleep(0.01)
            checkpoints.check()
        assert checkpoints.restore(abstract(tree)).step == 1


def test_after_the_first_save_steps_go_on_while_one_is_written(tmp_path, monkeypatch):
    """However slow the disk: what the loop waits for is the copy of the arrays."""
    released = threading.Event()
    released.set()

    def slow(folder):
        assert released.wait(60)
        seal(folder)

    seal = checkpoint.seal
    monkeypatch.setattr(checkpoint, "seal", slow)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {}, None)
        released.clear()
        state = make_state(2)
        checkpoints.save(2, state, {}, None)
        # As the next step does, which is given the state for its own.
        jax.tree.map(lambda leaf: leaf.delete(), state)
        checkpoints.check()
        assert not (tmp_path / "2").exists()
        released.set()
        checkpoints.wait()
        assert_same(checkpoints.restore(TARGET).tree, make_state(2))


@pytest.mark.parametrize("name", ["a[1]", "[b", "c]\\d", "**", "?", "n\nl", "%20#:$", "\udcff é"])
def test_a_folder_of_any_legal_name_keeps_its_checkpoints(tmp_path, name):
    directory = tmp_path / name / "checkpoints"
    save_all(directory, [1, 2], mse={1: 0.5})
    with Checkpoints(directory) as checkpoints:
        assert_same(checkpoints.restore(TARGET).tree, make_state(2))
    with Checkpoints(directory, read_only=True) as checkpoints:
        assert_same(checkpoints.restore(TARGET, checkpoints.best_step).tree, make_state(1))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2"]


def flip_bit(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("flips", [1, pytest.param(100, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_file_is_damage_and_the_one_before_is_used(tmp_path, flips, caplog):
    save_all(tmp_path, [1, 2])
    rng = np.random.default_rng(0)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    sealed = json.loads((tmp_path / "2" / checksums.FILE).read_text())
    assert len(sealed) == len(files) - 3
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for path in files * flips:
            before = path.read_bytes()
            flip_bit(path, rng.integers(8 * len(before)))
            restored = checkpoints.restore(TARGET)
            path.write_bytes(before)
            # Two files of Orbax's own change after all others and say nothing of the arrays.
            harmless = path.parent == tmp_path / "2" and path.name != checksums.FILE
            assert restored.step == 1 or harmless, path
            assert_same(restored.tree, make_state(restored.step))
        assert checkpoints.restore(TARGET).step == 2


FULL_DISK = """
    import json, resource, signal, sys
    import jax, jax.numpy as jnp
    from absl import logging
    from mq_jax.runs.checkpoint import Checkpoints

    logging.set_verbosity(logging.INFO)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    key = jax.random.key(0)
    trees = [{"w": jax.random.normal(k, (100_000,))} for k in jax.random.split(key, 3)]
    checkpoints = Checkpoints(sys.argv[1])
    for step in (1, 2):
        checkpoints.save(step, trees[step - 1], {"position": step}, {"eval/mse": 0.1 * step})
    checkpoints.wait()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    messages = []
    try:
        checkpoints.save(3, trees[2], {}, {"eval/mse": 0.05})
        checkpoints.wait()
    except OSError as error:
        messages.append(str(error))
    after = [checkpoints.steps, checkpoints.best_step]
    restored = checkpoints.restore({"w": jax.ShapeDtypeStruct((100_000,), jnp.float32)})
    same = bool((restored.tree["w"] == trees[1]["w"]).all())
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    checkpoints.save(3, trees[2], {}, {"eval/mse": 0.05})
    checkpoints.close()
    print(json.dumps([messages, after, restored.step, same, checkpoints.steps]))
"""


def test_a_full_disk_is_told_in_one_line_and_loses_no_older_checkpoint(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path / "c")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    (message,), after, restored, same, finally_kept = json.loads(run.stdout)
    assert message.startswith("Saving the checkpoint of step 3 ") and "\n" not in message
    assert "The last good checkpoint is that of step 2." in message
    assert after == [[1, 2], 1] and restored == 2 and same
    assert finally_kept == [2, 3]
    assert "Traceback" not in run.stderr
    assert "orbax" not in run.stderr.replace("3.orbax-checkpoint-tmp", "")
