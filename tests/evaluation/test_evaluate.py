"""Evaluation: the numbers against NumPy's, what counts, and the mode of the program."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import runs
from PIL import Image

from mq_jax.data import inputs
from mq_jax.devices.sharding import make_mesh, replicated
from mq_jax.evaluation.evaluate import Evaluation, Evaluator
from mq_jax.evaluation.protocol import protocol_card, write_evaluation
from mq_jax.images.scale import comparison
from mq_jax.metrics.measures import Measures
from mq_jax.quantizers.lookup import make_lookup
from mq_jax.training.build import build
from mq_jax.training.first import init_state

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

COUNT, BAD = 13, 5
NOTHING = Measures((), None, {}, {})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 13 images of noise, one of which is damaged."""
    directory = runs.write_images(tmp_path_factory.mktemp("images"), COUNT)
    path = sorted(pathlib.Path(directory).glob("*/*.png"))[BAD]
    path.write_bytes(path.read_bytes()[:500])
    return directory


def configure(images, **changes):
    given = {"data__source": "folder", "data__dir": images, "data__eval_split": "all"}
    # Wide kernels and codewords from N(0, 1) use many codes without training.
    wide = {"codebook__kind": "embedding", "model__init_std": 0.5, "data__max_bad_share": 0.1}
    return runs.configure(**{**given, **wide, **changes})


@pytest.fixture(scope="module")
def model(images):
    """(objective, state), its running statistics unlike those of any batch."""
    config = configure(images)
    built = build(config, 1)
    with runs.programs_shared():
        state = jax.jit(lambda: init_state(built, config))()
    rng = np.random.default_rng(0)

    def shifted(leaf):
        return leaf + rng.uniform(0, 0.3, leaf.shape).astype(np.float32)

    return built.objective, state.replace(batch_stats=jax.tree.map(shifted, state.batch_stats))


def evaluate(config, model, devices=None):
    objective, state = model
    with runs.programs_shared():
        source, mesh = inputs.open_evaluation(config), make_mesh(devices=jax.devices()[:devices])
        lookup = make_lookup(mesh, chunk=0, sharded=False)
        quantizer = dataclasses.replace(objective.quantizer, lookup=lookup)
        objective = objective._replace(quantizer=quantizer)
        state = jax.device_put(state, replicated(mesh))
        return Evaluator(config, objective, source, mesh, NOTHING).run(state)


@pytest.fixture(scope="module")
def found(images, model):
    return evaluate(configure(images), model)


@pytest.fixture(scope="module")
def expected(images, model):
    """The readable images and their reconstructions, and the four numbers, by NumPy."""
    objective, state = model
    source = inputs.open_evaluation(configure(images))
    originals = np.stack([source[i].image for i in range(COUNT) if i != BAD])
    x = originals / 127.5 - 1
    variables = {"params": state.params.autoencoder, "batch_stats": state.batch_stats}

    def run(method, argument):
        module = objective.autoencoder
        f = jax.jit(lambda a: module.apply(variables, a, train=False, method=method))
        return np.asarray(f(argument.astype(np.float32)), np.float64)

    z = run("encode", x)
    codewords = np.asarray(objective.codewords(state.raw), np.float64)
    distances = np.square(z[..., None, :] - codewords).sum(-1)
    codes = distances.argmin(-1)
    x_hat = run("decode", codewords[codes])
    mse = np.square(x - x_hat).mean((1, 2, 3))
    clipped = np.square(x - x_hat.clip(-1, 1)).mean((1, 2, 3))
    share = np.bincount(codes.ravel(), minlength=len(codewords)) / codes.size
    values = {
        "eval/mse": mse.mean(),
        "eval/psnr": (20 * np.log10(2) - 10 * np.log10(clipped)).mean(),
        "eval/usage": (share > 0).mean(),
        "eval/perplexity": np.exp(-sum(p * np.log(p) for p in share if p)),
    }
    return originals, np.rint((x_hat.clip(-1, 1) + 1) * 127.5), values


def test_the_numbers_are_numpys_over_the_readable_images_alone(found, expected):
    _, _, values = expected
    assert found.scalars == pytest.approx(values, rel=1e-5)
    assert 0.5 < values["eval/usage"] and 4 < values["eval/perplexity"] < 16


def test_where_averages_are_kept_all_that_is_evaluated_is_theirs(images, model, found):
    objective, state = model
    lost = jax.tree.map(lambda leaf: leaf * np.float32(0.5), (state.params, state.batch_stats))
    averaged = state.replace(ema=state.raw, params=lost[0], batch_stats=lost[1])
    of_averages = evaluate(configure(images), (objective, averaged))
    assert of_averages.scalars == found.scalars
    np.testing.assert_array_equal(of_averages.codebook, found.codebook)
    np.testing.assert_array_equal(of_averages.reconstructions, found.reconstructions)


def test_the_picture_shows_images_spread_over_the_set_over_their_reconstructions(found, expected):
    originals, reconstructions, _ = expected
    shown = [0, 5, 11]  # Records 0, 6 and 12; record 5 is damaged.
    np.testing.assert_array_equal(found.originals, originals[shown])
    assert np.abs(found.reconstructions.astype(float) - reconstructions[shown]).max() <= 1
    picture = comparison(found.originals, found.reconstructions)
    # Each pixel is a square of 4 x 4.
    assert picture.shape == (258, 3 * 130 - 2, 3)
    for column in range(3):
        left = column * 130
        shown = slice(left, left + 128, 4)
        np.testing.assert_array_equal(picture[:128:4, shown], found.originals[column])
        np.testing.assert_array_equal(picture[130::4, shown], found.reconstructions[column])
    assert (picture[128:130] == 255).all() and (picture[:, 128:130] == 255).all()


@pytest.mark.parametrize(
    "changes", [{"eval__batch_size": 16}, {"eval__batch_size": 3}, {"data__threads": 0}]
)
def test_batches_and_threads_do_not_change_the_numbers(images, model, found, changes):
    other = evaluate(configure(images, **changes), model)
    assert other.scalars == pytest.approx(found.scalars, rel=1e-5)
    np.testing.assert_array_equal(other.originals, found.originals)
    np.testing.assert_array_equal(other.counts, found.counts)
    assert (other.images, other.pixels) == (found.images, found.pixels) == (12, found.pixels)


@pytest.mark.parametrize("devices, size", [(1, 5), (4, 2)])
def test_the_number_of_devices_does_not_change_the_numbers(images, model, found, devices, size):
    """Of 13 images: neither the devices nor the size of a batch divides them, nor one the other."""
    other = evaluate(configure(images, eval__batch_size=size), model, devices)
    assert other.scalars == pytest.approx(found.scalars, rel=1e-5)
    np.testing.assert_array_equal(other.originals, found.originals)
    np.testing.assert_array_equal(other.reconstructions, found.reconstructions)
    np.testing.assert_array_equal(other.counts, found.counts)
    assert (other.images, other.pixels) == (12, found.pixels)


def test_an_evaluation_repeats_bit_for_bit_and_leaves_the_state_alone(images, model):
    objective, state = model
    before = [np.asarray(leaf) for leaf in jax.tree.leaves((state.params, state.batch_stats))]
    config = configure(images)
    with runs.programs_shared():
        source = inputs.open_evaluation(config)
        evaluator = Evaluator(config, objective, source, make_mesh(), NOTHING)
        first, second = evaluator.run(state), evaluator.run(state)
    assert first.scalars == second.scalars
    np.testing.assert_array_equal(first.reconstructions, second.reconstructions)
    after = jax.tree.leaves((state.params, state.batch_stats))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_a_bad_image_is_named_and_too_many_are_refused(images, model, caplog):
    evaluate(configure(images), model)
    (message,) = [r.getMessage() for r in caplog.records if "Unreadable" in r.getMessage()]
    name = inputs.open_evaluation(configure(images)).name(BAD)
    assert message.startswith(f"Unreadable image 1 of at most 1, left out: {name}: ")
    with pytest.raises(ValueError, match="1 of 13 images cannot be read"):
        evaluate(configure(images, data__max_bad_share=0.0), model)


def test_no_more_than_one_batch_is_ahead_of_the_device(images, model, monkeypatch):
    config, (objective, state), events = configure(images), model, []
    with runs.programs_shared():
        source = inputs.open_evaluation(config)
        evaluator = Evaluator(config, objective, source, make_mesh(), NOTHING)
        step = evaluator._step

        def recorded(*arguments):
            metrics, reconstructions = step(*arguments)
            events.append(id(reconstructions))
            return metrics, reconstructions

        monkeypatch.setattr(evaluator, "_step", recorded)
        monkeypatch.setattr(jax, "block_until_ready", lambda array: events.append(array))
        evaluator.run(state)
    first, second, waited_for, last = events
    assert id(waited_for) == first != second == id(last)


# The mode of the program.


def evaluated(outcome):
    """The step and the numbers that an evaluation printed."""
    assert outcome.code == 0, outcome.err
    title, *rest = outcome.out.splitlines()
    step = re.match(r"step (\d+), ", title)[1]
    table = runs.Outcome(0, "\n".join(rest), "")
    return int(step), runs.table_row(table, f"step {step}")[1:]


def logged(folder, step):
    (row,) = [row for row in runs.metrics(folder) if row["step"] == step]
    shown = ("mse:.4f", "psnr:.2f", "usage:.1%", "perplexity:.1f")
    return [format(row[f"eval/{s.split(':')[0]}"], s.split(":")[1]) for s in shown]


def state_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_evaluate_mode_without_a_config_gives_what_training_logged():
    _, folder = runs.finished()
    (folder / "evaluation.png").unlink(missing_ok=True)
    before = state_of(folder)
    outcome = runs.program("--mode=evaluate", "--metrics=", f"--workdir={folder}")
    assert (outcome.code, outcome.err) == (0, runs.IMAGES)
    step, numbers = evaluated(outcome)
    assert numbers == logged(folder, step)
    rows = [row for row in runs.metrics(folder)[1:] if "eval/mse" in row]
    assert step == min(rows, key=lambda row: row["eval/mse"])["step"]
    assert f"step {step}, photos validation, 10 images" in outcome.out
    assert outcome.out.splitlines()[-1].endswith(f": {folder}/evaluation.png")
    picture = np.asarray(Image.open(folder / "evaluation.png"))
    trained = np.asarray(Image.open(folder / "reconstructions" / f"{step:08d}.png"))
    np.testing.assert_array_equal(picture, trained)
    for name in ("evaluation.png", "evaluation.json"):
        (folder / name).unlink()
    snapshot = folder / "snapshot.npz"
    assert state_of(folder) | {snapshot: 0} == before | {snapshot: 0}


@pytest.fixture
def finished(tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(runs.finished()[1], tmp_path / "run")


def test_evaluate_mode_takes_another_split_and_changes_no_other_file(finished):
    before = state_of(finished / "checkpoints"), (finished / "config.json").read_text()
    # A run of one device, on eight, which divide neither its set nor its batch.
    other = {"data__eval_split": "train[:24]", "data__flip": 0.0, "eval__batch_size": 3}
    given = runs.arguments(**runs.WHOLE, **other)
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={finished}", *given)
    assert outcome.code == 0, outcome.err
    assert "photos train[:24], 24 images" in outcome.out
    step, numbers = evaluated(outcome)
    assert numbers != logged(finished, step)
    assert before == (state_of(finished / "checkpoints"), (finished / "config.json").read_text())


def test_evaluate_mode_refuses_the_config_of_another_model(finished):
    given = runs.arguments(**{**runs.WHOLE, "codebook__size": 32})
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={finished}", *given)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 1
    assert "codebook.size: 16 in the workdir, 32 now" in outcome.err


def test_evaluate_mode_takes_the_best_checkpoint_not_the_last(tmp_path):
    config = runs.configure()
    with runs.signalled_after(10):
        assert runs.train_here(config, tmp_path) == "SIGTERM"
    assert runs.checkpoint_steps(tmp_path)[-1] == 10
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={tmp_path}")
    assert outcome.code == 0, outcome.err
    step, numbers = evaluated(outcome)
    assert step in (4, 8) and numbers == logged(tmp_path, step)


def test_evaluate_mode_takes_the_last_checkpoint_where_none_was_evaluated(tmp_path):
    with runs.signalled_after(2):
        runs.train_here(runs.configure(), tmp_path)
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={tmp_path}")
    assert outcome.code == 0 and "step 2, photos validation" in outcome.out


def test_evaluate_mode_does_not_ask_for_the_devices_of_the_training(finished):
    config = json.loads((finished / "config.json").read_text())
    config["train"]["batch_size"] = 3
    (finished / "config.json").write_text(json.dumps(config))
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={finished}")
    assert outcome.code == 0, outcome.err


def test_evaluate_mode_without_checkpoints_gets_one_line(finished):
    shutil.rmtree(finished / "checkpoints")
    before = state_of(finished)
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={finished}")
    assert (outcome.code, outcome.out) == (1, "")
    error = f"error: {finished}/checkpoints has no checkpoint; train first.\n"
    assert outcome.err == runs.IMAGES + error
    assert state_of(finished) == before


def test_evaluate_mode_without_a_run_gets_one_line_and_leaves_nothing(tmp_path):
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={tmp_path / 'w'}")
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and f"{tmp_path}/w/config.json does not exist" in line
    assert list(tmp_path.iterdir()) == []


def test_compare_tells_of_other_devices_and_refuses_nothing_for_them(tmp_path):
    measures = Measures((), None, {}, {})
    found = Evaluation({}, *[np.zeros(0)] * 4, images=10, pixels="ab12")
    for name in ("cpu", "gpu", "before"):
        protocol = protocol_card(runs.configure(), found, measures)
        if name == "gpu":
            protocol["computation"]["device"] |= {"platform": "gpu", "kind": "NVIDIA H100"}
        elif name == "before":
            del protocol["computation"]
        (tmp_path / name).mkdir()
        card = {"protocol": protocol, "metrics": {"mse": 0.5}, "run": {"step": 3, "packages": {}}}
        write_evaluation(tmp_path / name, card)
    paths = [str(tmp_path / name) for name in ("cpu", "gpu", "before")]
    outcome = runs.cli("--mode=evaluate", "--compare", *paths[:2])
    assert outcome.code == 0, outcome.err
    assert "last digits: computation.device.kind is 'cpu' in" in outcome.out
    outcome = runs.cli("--mode=evaluate", "--compare", paths[0], paths[2])
    assert outcome.code == 0 and f"'cpu' in {paths[0]}, None in {paths[2]}" in outcome.out
