"""The program as a person meets it: what it leaves, what it says, and what it refuses."""

import json
import re
import shlex
import signal

import jax
import numpy as np
import pytest
import runs
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mq_jax import main
from mq_jax.runs.cost import read_cost
from mq_jax.runs.writers import read_metrics
from mq_jax.training.build import build
from mq_jax.training.first import init_state

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

EVALUATED = {"eval/mse", "eval/psnr", "eval/usage", "eval/perplexity"}
LOGGED = {
    "inner/loss",
    "inner/usage",
    "inner/perplexity",
    "outer/loss",
    "outer/direct_norm",
    "outer/indirect_norm",
    "outer/direct_indirect_cosine",
    "outer/code_flip_rate",
    "train/images_per_second",
    "train/input_wait",
}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_ends_well_and_says_nothing_on_stderr_but_its_progress():
    outcome, _ = runs.finished()
    assert outcome.code == 0, outcome.err
    told, *lines = outcome.err.splitlines()
    assert re.fullmatch(
        r"Images: train \d+ \(photos train\), evaluation 10 \(photos valid\w+\)", told
    )
    assert lines[0] == "Codes: 32 x 32 pixels -> 16 x 16 = 256 codes; each is one of 16 (4 bits)"
    assert lines[1].startswith("Compiling the train step (unrolled) for 1 device(s), which takes ")
    assert re.match(r"Parameters: autoencoder [\d,]+, codebook [\d,]+$", lines[2])
    held = r"State: [\d.]+ MiB, [\d.]+ on each of 1 device\(s\) \(data 1, fsdp 1\); 0 of \d+ split$"
    assert re.match(held, lines[3])
    # The first evaluation is made meanwhile.
    compiled = lines.pop(5)
    assert re.match(r"Compiled in [\d.]+ s: [\d.]+ GFLOP a step, 12 steps, 1 device", compiled)
    progress = [line for line in lines[4:] if "Few codes are in use" not in line]
    steps = [re.match(r"step (\d+)(/12)?  ", line) for line in progress]
    assert [int(match[1]) for match in steps] == [0, 1, 3, 4, 6, 8, 9, 12, 12]
    assert all(line.endswith(" left") for line in progress if "/12  " in line)


def test_a_run_leaves_its_configuration():
    _, folder = runs.finished()
    config = json.loads((folder / "config.json").read_text())
    assert config["train"]["steps"] == 12 and config["model"]["channels"] == [4]
    assert config.keys() == runs.configure().to_dict().keys()


def test_the_metrics_have_each_step_once_and_every_name():
    _, folder = runs.finished()
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 3, 4, 6, 8, 9, 12]
    by_step = {row.pop("step"): row for row in rows}
    for step in (0, 4, 8, 12):
        assert EVALUATED <= by_step[step].keys()
    for step in (3, 6, 9, 12):
        assert LOGGED <= by_step[step].keys()
    assert by_step[0].keys() == by_step[4].keys() == by_step[8].keys() == EVALUATED
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert by_step[3]["outer/indirect_norm"] > 0 and by_step[3]["outer/direct_norm"] > 0
    assert -1 <= by_step[3]["outer/direct_indirect_cosine"] <= 1
    assert by_step[12]["eval/mse"] < by_step[0]["eval/mse"]


def test_the_event_files_have_the_same_numbers_and_the_pictures():
    _, folder = runs.finished()
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    rows = read_metrics(folder / "metrics.jsonl")
    names = {name for row in rows for name in row} - {"step"}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        written = [(event.step, event.value) for event in events.Scalars(name)]
        assert written == [(r["step"], np.float32(r[name])) for r in rows if name in r]
    assert [event.step for event in events.Images("reconstructions")] == [0, 4, 8, 12]


def test_the_pictures_are_three_originals_over_their_reconstructions():
    _, folder = runs.finished()
    pictures = sorted((folder / "reconstructions").iterdir())
    assert [path.name for path in pictures] == [f"{s:08d}.png" for s in (0, 4, 8, 12)]
    first, *_, last = [np.asarray(Image.open(path)) for path in pictures]
    # Those of 32 pixels are drawn at 128.
    assert first.shape == last.shape == (2 * 128 + 2, 3 * 130 - 2, 3)
    np.testing.assert_array_equal(first[:128], last[:128])
    assert (first[130:] != last[130:]).any()


def test_the_checkpoints_are_the_last_two_and_the_best_in_folders_of_their_steps():
    _, folder = runs.finished()
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "eval/mse" in row]
    best = min(rows[1:], key=lambda row: row["eval/mse"])["step"]
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"10", "12", str(best)}


def test_the_cost_is_that_of_the_checkpoint_and_in_the_report():
    _, folder = runs.finished()
    cost, config = read_cost(folder), runs.configure(**runs.WHOLE)
    state = jax.eval_shape(lambda: init_state(build(config, config.train.steps), config))
    leaves = jax.tree.leaves(state.params.autoencoder), jax.tree.leaves(state.params.codebook)
    assert list(cost.parameters.values()) == [sum(leaf.size for leaf in part) for part in leaves]
    assert cost.devices == 1 and cost.flops > cost.inner_flops > 0
    assert cost.state_bytes == cost.state_bytes_per_device > 4 * sum(cost.parameters.values())
    shown = (folder / "report.html").read_text()
    assert f"{sum(cost.parameters.values()):,}" in shown


def test_nothing_else_is_left():
    _, folder = runs.finished()
    kinds = {name.split("/")[0] for name in files(folder)}
    expected = {
        "config.json",
        "data.json",
        "data-names.json.gz",
        "environment.json",
        "cost.json",
        "metrics.jsonl",
        "train.log",
        "snapshot.npz",
    }
    assert kinds == expected | {"tensorboard", "reconstructions", "checkpoints", "report.html"}


def test_the_log_file_has_every_line_of_the_terminal_with_its_time():
    outcome, folder = runs.finished()
    lines = (folder / "train.log").read_text().splitlines()
    stripped = [line[24:].split(" ", 1)[-1] for line in lines if re.match(r"\d{4}-\d\d-\d\d", line)]
    missing = [line for line in outcome.err.splitlines() if line not in stripped]
    assert missing == []
    assert "autoencoder/encoder/Conv_0/kernel" in (folder / "train.log").read_text()


def test_the_summary_has_the_table_the_picture_and_the_command_for_the_curves():
    outcome, folder = runs.finished()
    last = read_metrics(folder / "metrics.jsonl")[-1]
    assert outcome.out.splitlines()[0] == f"Training finished: {folder}"
    assert runs.table_row(outcome, "end") == [
        "end (step 12)",
        f"{last['eval/mse']:.4f}",
        f"{last['eval/psnr']:.2f}",
        f"{last['eval/usage']:.1%}",
        f"{last['eval/perplexity']:.1f}",
    ]
    assert "start (step 0)" in outcome.out and "best (step " in outcome.out
    picture, report, curves = outcome.out.splitlines()[-3:]
    assert picture.endswith(f": {folder}/reconstructions/00000012.png")
    assert report == f"Report: {folder}/report.html"
    assert f"-m tensorboard.main --logdir {folder}/tensorboard" in curves


def test_the_command_to_go_on_survives_a_shell(monkeypatch, tmp_path):
    given = [*runs.arguments(), f"--workdir={tmp_path}/my run"]
    with runs.signalled_after(2, signal.SIGINT):
        outcome = runs.cli(*given)
    assert outcome.code == 0
    said = outcome.err.splitlines()
    assert said[-2] == "SIGINT: saved. To go on:"
    assert shlex.split(said[-1])[1:] == ["-m", "mq_jax.main", *given]


PHOTOS = f"--config={runs.ROOT}/configs/photos_mqvae.py"
FOLDER = f"--config={runs.ROOT}/configs/folder_mqvae.py"
CIFAR = f"--config={runs.ROOT}/configs/cifar10_mqvae.py"
BATCH = ("--config.train.batch_size=8", "--config.eval.batch_size=8")

# Arguments beside --workdir, and parts of the one line that answers them.
REFUSED = {
    "an unknown field": (
        [PHOTOS, "--config.train.stepz=3"],
        ["--config.train.stepz", "no field config.train.stepz (did you mean config.train.steps?)"],
    ),
    "a field in an unknown section": (
        [PHOTOS, "--config.trian.steps=3"],
        [
            "no field config.trian (did you mean config.train?)",
            "codebook, data, deterministic, disc, discriminator, eval",
        ],
    ),
    "a field of a field": (
        [PHOTOS, "--config.train.steps.x=3"],
        ["--config.train.steps.x: config.train.steps is ", ", not a section"],
    ),
    "a whole section": (
        [PHOTOS, "--config.train=3"],
        ["--config.train: config.train is a section; set one of its fields"],
    ),
    "text for a whole number": (
        [PHOTOS, "--config.train.steps=many"],
        ["--config.train.steps=many"],
    ),
    "a fraction for a whole number": (
        [PHOTOS, "--config.train.steps=1.5"],
        ["--config.train.steps=1.5"],
    ),
    "text for True or False": (
        [PHOTOS, "--config.model.layer_norm=perhaps"],
        ["--config.model.layer_norm=perhaps"],
    ),
    "text for a tuple": ([PHOTOS, "--config.model.channels=wide"], ["config.model.channels"]),
    "a number out of range": (
        [PHOTOS, "--config.data.flip=1.5"],
        ["config.data.flip is 1.5; expected a number in [0, 1]"],
    ),
    "not among the choices": (
        [PHOTOS, "--config.train.hypergradient=unroled"],
        ["config.train.hypergradient is 'unroled'", "unrolled, unrolled-reverse"],
    ),
    "image size and down-sampling": (
        [PHOTOS, "--config.data.image_size=30"],
        ["config.data.image_size is 30; expected a multiple of 4"],
    ),
    "joint and inner updates": (
        [PHOTOS, "--config.train.hypergradient=joint", "--config.train.inner_updates=2"],
        ["config.train.inner_updates is 2", "config.train.hypergradient is 'joint'"],
    ),
    "joint and disjoint halves": (
        [PHOTOS, "--config.train.hypergradient=joint", "--config.train.outer_data=held-out"],
        ["config.train.outer_data is 'held-out'", "config.train.hypergradient is 'joint'"],
    ),
    "no config": ([], ["--config is missing", "configs/X.py"]),
    "a field without a config": (["--config.train.steps=3"], ["--config.train.steps", "--config="]),
    "a field before its config": (["--config.train.steps=3", PHOTOS], ["--config.train.steps=3"]),
    "an empty config": (["--config="], ["--config="]),
    "a config by nearly its name": (
        [f"--config={runs.ROOT}/configs/photo_mqvae.py"],
        ["there is no such file (did you mean", "configs/photos_mqvae.py?)"],
    ),
    "a config like no other": (
        [f"--config={runs.ROOT}/configs/xyz"],
        ["there is no such file", "cifar10_mqvae.py", "photos_mqvae.py"],
    ),
    "a config in no folder": (["--config=/nowhere/x.py"], ["there is no such file."]),
    "the base alone": ([f"--config={runs.ROOT}/configs/base.py"], ["config.data.source is ''"]),
    "a stray word": ([PHOTOS, "train"], ["'train' is no flag"]),
    "an unknown flag": (
        [PHOTOS, "--wrokdir=x"],
        ["--wrokdir is no flag (did you mean --workdir?)"],
    ),
    "a flag like no other": ([PHOTOS, "--qqq=x"], ["--qqq is no flag; --help lists them"]),
    "a field without its prefix": (
        [PHOTOS, "--data.dir=x"],
        ["--data.dir is no flag (did you mean --config.data.dir?)"],
    ),
    "a field without its section": (
        [PHOTOS, "--learning_rat", "3"],
        ["(did you mean --config.train.learning_rate?)"],
    ),
    "a field without its prefix or a config": (
        ["--data.dir=x"],
        ["--data.dir is no flag (did you mean --config.data.dir?)"],
    ),
    "an unknown mode": ([PHOTOS, "--mode=test"], ["--mode=test", "train|evaluate"]),
    "a mode by nearly its name": ([PHOTOS, "--mode=Trian"], ["(did you mean train?)"]),
    "a measure by nearly its name": (
        [PHOTOS, "--config.eval.metrics=('rfid',)"],
        ["config.eval.metrics is ('rfid',); expected a tuple", "(did you mean fid?)"],
    ),
    "a set that is not there": (
        [CIFAR, "--config.data.dir=/nowhere", *BATCH],
        ["cifar10", "/nowhere"],
    ),
    "a set that nobody has": (
        [CIFAR, "--config.data.source=tfds:no_such_set", "--config.data.dir=/nowhere", *BATCH],
        ["no_such_set", "/nowhere"],
    ),
    "no folder given": (
        [FOLDER, *BATCH],
        ["config.data.dir is empty; expected the folder of the images, --config.data.dir=IMAGES."],
    ),
    "no folder given, and a batch and a mesh that fit no device": (
        [FOLDER, "--config.train.batch_size=12", "--config.mesh.data=3"],
        ["config.data.dir is empty"],
    ),
    "no folder of a set given": (
        [CIFAR, "--config.data.source=tfds:no_such_set", *BATCH],
        ["'no_such_set' is not prepared", "TFDS's default, as config.data.dir is empty"],
    ),
    "a folder that is not there": (
        [FOLDER, "--config.data.dir=/nowhere/images", *BATCH],
        ["config.data.dir is '/nowhere/images'", "no directory"],
    ),
    "a split that is not there": (
        [PHOTOS, "--config.data.eval_split=test", *BATCH],
        ["split is 'test'", "'train', 'validation'"],
    ),
    "a training batch over 8 devices": (
        [PHOTOS, "--config.train.batch_size=12"],
        [
            "config.train.batch_size is 12; expected a multiple of the 8 devices",
            "give --config.train.batch_size=16, or take fewer devices by CUDA_VISIBLE_DEVICES",
        ],
    ),
    "a finite difference in bfloat16": (
        [f"--config={runs.ROOT}/configs/ffhq_mqgan.py:code"]
        + ["--config.train.hypergradient=finite-difference"],
        ["config.train.hypergradient is 'finite-difference'", "config.model.dtype 'float32'"],
    ),
    "less than one batch": (
        [PHOTOS, "--config.train.steps=0", "--config.train.epochs=1", *BATCH]
        + ["--config.data.train_split=validation[:4]"],
        ["config.train.epochs is 1 over 4 images", "one batch of 8"],
    ),
}


def refused(outcome, parts, workdir):
    assert outcome.code != 0 and outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert [part for part in parts if part not in line] == []
    assert not workdir.exists()


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_use_gets_one_line_and_leaves_nothing(case, tmp_path):
    arguments, parts = REFUSED[case]
    workdir = tmp_path / "runs" / "new"
    refused(runs.cli(f"--workdir={workdir}", *arguments), parts, workdir.parent)


def test_a_missing_workdir_gets_one_line():
    outcome = runs.cli(PHOTOS)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "error: --workdir is missing; give the folder of the run.\n"


def test_an_empty_folder_gets_one_line_that_says_what_was_looked_for(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "notes.txt").write_text("no image")
    outcome = runs.cli(FOLDER, f"--config.data.dir={images}", *BATCH, f"--workdir={tmp_path / 'w'}")
    refused(outcome, [f"no image in '{images}'", ".jpg", ".png", "notes.txt"], tmp_path / "w")


def test_a_workdir_that_is_a_file_gets_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    outcome = runs.cli(*runs.arguments(), f"--workdir={tmp_path / 'file'}")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 1
    assert "is a file; give another --workdir" in outcome.err
    assert (tmp_path / "file").read_text() == "mine"


EXPERIMENTS = {
    "raises": ("raise RuntimeError('not\\ntoday')", ["fails with RuntimeError: not today"]),
    "has a typing error": ("config.train.stepz = 3", ["fails with AttributeError", "stepz"]),
    "has a wrong type": ("config.train.steps = 'many'", ["fails with TypeError", "many"]),
    "does not parse": ("config.train.steps = = 3", ["fails with SyntaxError"]),
    "imports what is not there": ("import nonesuch", ["ModuleNotFoundError", "nonesuch"]),
}


@pytest.mark.parametrize("case", EXPERIMENTS)
def test_an_experiment_that_fails_gets_one_line_that_names_it(case, tmp_path):
    statement, parts = EXPERIMENTS[case]
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        f"    {statement}\n    return config\n"
    )
    workdir = tmp_path / "w"
    refused(runs.cli(f"--config={path}", f"--workdir={workdir}"), [str(path), *parts], workdir)


def test_an_experiment_without_get_config_gets_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("config = 3\n")
    outcome = runs.cli(f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'w'}")
    refused(outcome, ["mine.py", "get_config"], tmp_path / "w")


# The whole way, in processes of their own: no stray line from a library either. Those that are
# slow end between the two others, which load less and more.
REALLY_REFUSED = [
    "no config",
    pytest.param("an unknown field", marks=pytest.mark.slow),
    pytest.param("not among the choices", marks=pytest.mark.slow),
    "a folder that is not there",
]


@pytest.mark.parametrize("case", REALLY_REFUSED)
def test_wrong_use_of_the_program_itself_gets_one_line(case, tmp_path):
    arguments, parts = REFUSED[case]
    outcome = runs.program(f"--workdir={tmp_path / 'w'}", *arguments)
    refused(outcome, parts, tmp_path / "w")


def test_help_names_the_modes_and_flags():
    outcome = runs.cli("--help")
    assert outcome.code == 0 and outcome.err == ""
    for word in (*main.MODES, "--config", "--workdir", "--mode"):
        assert word in outcome.out
