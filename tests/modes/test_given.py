"""The configuration that a command line asks for: an experiment's, or that of a run's folder."""

import json
import re
import shlex
import signal
import sys

import jax
import pytest
import runs
from PIL import Image

from mq_jax.commandline import UsageError
from mq_jax.data import inputs
from mq_jax.modes import given
from mq_jax.runs import stored
from mq_jax.training.validate import validate

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def begun(tmp_path):
    """The folder of a run that has written its configuration, and nothing else."""
    folder = tmp_path / "a run"
    folder.mkdir()
    config = json.dumps(runs.configure().to_dict())
    (folder / "config.json").write_text(config)
    return folder


@pytest.fixture
def started(monkeypatch):
    """What the modes are called with, in place of their work."""
    calls = []

    def record(*given, **asked):
        calls.append((given, asked))
        return "finished"

    for name in ("training.run_training", "evaluation.run_evaluation", "planning.plan"):
        monkeypatch.setattr(f"mq_jax.modes.{name}", record)
    return calls


def refused(outcome, *parts):
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and [part for part in parts if part not in line] == []


def test_a_workdir_alone_goes_on_from_its_own_configuration(begun, started):
    outcome = runs.cli(f"--workdir={begun}")
    assert outcome.code == 0, outcome.err
    (((config, folder, _), asked),) = started
    assert folder == begun and asked["typed"] == []
    assert config.to_dict() == runs.configure().to_dict()
    validate(config)


@pytest.mark.parametrize("mode", ["train", "plan"])
def test_fields_change_the_configuration_of_a_workdir_as_they_change_an_experiment(
    mode, begun, started
):
    given = ["--config.train.steps=20", "--config.model.channels=(8, 8)", "--config.data.icc=False"]
    outcome = runs.cli(*given, "--config.eval.metrics=ssim", f"--workdir={begun}", f"--mode={mode}")
    assert outcome.code == 0, outcome.err
    config = started[0][0][0]
    changed = {"train__steps": 20, "model__channels": (8, 8), "data__icc": False}
    expected = runs.configure(**changed, eval__metrics=("ssim",))
    assert config.to_dict() == expected.to_dict()


def test_evaluate_takes_fields_alone_on_the_devices_of_this_machine(begun, started):
    fields = json.loads((begun / "config.json").read_text())
    fields["mesh"]["data"] = 64
    (begun / "config.json").write_text(json.dumps(fields))
    given = ["--mode=evaluate", f"--workdir={begun}"]
    typed = "--config.data.eval_split=train"
    for more in ([], [typed], [typed, "--config.mesh.data=3"]):
        assert runs.cli(*given, *more).code == 0
    configs = [given[1] for given, _ in started]
    assert configs[0] is None and configs[1].data.eval_split == "train"
    assert [config.mesh.data for config in configs[1:]] == [0, 3]
    assert started[1][1]["typed"] == ["data.eval_split"]


@pytest.mark.parametrize("written", ["--config={}/config.json", "--config {}/config.json"])
def test_the_configuration_of_a_run_is_an_experiment(written, begun, started, tmp_path):
    words = [word.replace("{}", str(begun)) for word in written.split()]
    outcome = runs.cli(*words, "--config.train.steps=20", f"--workdir={tmp_path / 'new'}")
    assert outcome.code == 0, outcome.err
    config, folder, _ = started[0][0]
    assert folder == tmp_path / "new"
    assert config.to_dict() == runs.configure(train__steps=20).to_dict()


def test_a_run_of_before_goes_on_as_it_did(begun, started):
    fields = runs.configure().to_dict()
    for name in ("holdout", "icc", "max_pixels", "max_bytes"):
        del fields["data"][name]
    (begun / "config.json").write_text(json.dumps(fields))
    assert runs.cli(f"--workdir={begun}").code == 0
    config = started[0][0][0]
    assert (config.data.holdout, config.data.icc) == ("every-tenth", False)
    validate(config)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_by_its_workdir_alone_to_the_same_bits(tmp_path):
    given = [*runs.arguments(**runs.WHOLE), f"--workdir={tmp_path}"]
    assert runs.program(*given, at="step:6", number=signal.SIGTERM).code == 0
    assert runs.checkpoint_steps(tmp_path)[-1] < 12
    outcome = runs.program(f"--workdir={tmp_path}")
    assert outcome.code == 0, outcome.err
    runs.assert_same_run(tmp_path, runs.finished()[1])


@pytest.mark.parametrize("field", ["train.steps", "train.epochs"])
def test_a_longer_schedule_is_refused_with_the_way_to_it(field, begun):
    before = (begun / "config.json").read_bytes()
    outcome = runs.cli(f"--workdir={begun}", f"--config.{field}=900")
    line = outcome.err.splitlines()[-1]
    assert outcome.code == 1 and f"{field}: " in line and ", 900 now" in line
    assert "cannot be made longer. Train anew" in line and "another --workdir" in line
    assert f"--config='{begun}/config.json' is the configuration of this one" in line
    assert (begun / "config.json").read_bytes() == before
    assert [path.name for path in begun.iterdir()] == ["config.json"]


def test_another_field_of_a_workdir_is_refused_as_it_is_with_its_experiment(begun):
    for start in ([], runs.arguments()):
        outcome = runs.cli(*start, f"--workdir={begun}", "--config.codebook.size=32")
        refused(outcome, "codebook.size: 16 in the workdir, 32 now", "Give another --workdir")


def test_what_is_no_run_gets_one_line_and_leaves_nothing(tmp_path):
    place = tmp_path / "new"
    refused(
        runs.cli(f"--workdir={place}"),
        f"--config is missing, and {place} has no config.json to go on from; give",
    )
    refused(
        runs.cli(f"--workdir={place}", "--config.train.steps=3"),
        "--config.train.steps=3 changes a field; name its experiment too",
        "the --workdir of a run",
    )
    refused(runs.cli(f"--config={place}/config.json"), f"{place}/config.json does not exist")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json:code", "mine.json"])
def test_json_that_is_no_config_of_a_run_is_not_run_as_an_experiment(name, begun):
    (begun / "mine.json").write_text((begun / "config.json").read_text())
    outcome = runs.cli(f"--config={begun}/{name}", f"--workdir={begun}")
    refused(outcome, f"{begun}/{name}: expected an experiment, configs/X.py, or the config.json of")


def test_a_field_that_a_run_does_not_have_is_told_with_its_file(begun):
    outcome = runs.cli(f"--workdir={begun}", "--config.train.stepz=3")
    refused(outcome, f"{begun}/config.json has no field config.train.stepz (did you mean config.")


def test_a_field_of_before_is_told_with_the_one_that_took_its_place(begun):
    outcome = runs.cli(f"--workdir={begun}", "--config.data.disjoint=True")
    refused(outcome, "no field config.data.disjoint; config.train.outer_data has taken its place")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"data": 3}', '{"a.b": 1}', '{"__class__": 1}', '{"train": {"a.b": 1}}']
)
def test_a_damaged_configuration_gets_one_line(text, begun):
    (begun / "config.json").write_text(text)
    refused(runs.cli(f"--workdir={begun}"), f"{begun}/config.json")


def test_nothing_of_the_program_becomes_importable_by_its_short_name(begun, monkeypatch):
    """Its tokenize.py would take the place of Python's own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    runs.cli(f"--workdir={begun}", "--mode=export")
    assert not [path for path in sys.path if path.endswith("mq_jax") or path == str(begun)]
    assert stored.get_config(str(begun)).model.channels == (4,)


# A flag, and the modes that would not look at it.
FOREIGN = {
    "--step=0": ("train", "report", "plan"),
    "--name=x": ("train", "export", "report", "plan"),
    "--size=32": ("train", "export", "report", "plan"),
    "--images=5": ("train", "export", "report"),
    "--compare": ("train", "export", "report", "plan"),
    "--unlike": ("train", "export", "report", "plan"),
    "--output=x.html": ("train", "evaluate", "export", "plan"),
    "--formats=pytorch": ("train", "evaluate", "report", "plan"),
    "--overwrite": ("train", "evaluate", "report", "plan"),
    "--accept_changed_data": ("evaluate", "export", "report", "plan"),
    "--devices=2": ("train", "evaluate", "export", "report"),
    "--config.train.steps=3": ("export", "report"),
}


@pytest.mark.parametrize("flag", FOREIGN)
def test_a_flag_is_refused_by_the_modes_that_would_not_look_at_it(flag, begun):
    for mode in FOREIGN[flag]:
        outcome = runs.cli(f"--mode={mode}", f"--workdir={begun}", flag)
        refused(outcome, flag.partition("=")[0], mode)
    assert [path.name for path in begun.iterdir()] == ["config.json"]


@pytest.mark.parametrize("flag", ["--step=3", "--name=x", "--images=x", "--size=8"])
def test_a_comparison_refuses_what_only_an_evaluation_takes(flag):
    refused(runs.cli("--mode=evaluate", "--compare", "a", "b", flag), flag, "--compare takes none")


@pytest.mark.parametrize("mode", ["evaluate", "plan"])
def test_images_that_a_shell_left_empty_are_not_taken_for_none_given(mode, begun, started):
    refused(runs.cli(f"--mode={mode}", f"--workdir={begun}", "--images="), "--images is empty")
    assert started == []


@pytest.mark.parametrize("text", ["many", "1e6", "-1", "1,000", "runs/mine"])
def test_a_plan_takes_a_whole_number_of_images(text):
    outcome = runs.cli(*runs.arguments(), "--mode=plan", f"--images={text}")
    refused(outcome, f"--images={text} is no whole number")


def imagenet(folder, val=("n01440764", "n01443537")):
    """ImageNet's tree with an image for each class and split, of its names and endings."""
    for split, classes in (("train", ("n01440764", "n01443537")), ("val", val)):
        for number, name in enumerate(classes):
            path = folder / split / name / f"ILSVRC2012_{split}_{number:08d}.JPEG"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (160, 140), (number, 0, 0)).save(path, "jpeg")
    return folder


def header_command(name, start):
    """A command in the header of a configuration, its lines joined, as words."""
    text = (runs.ROOT / "configs" / f"{name}.py").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if re.match(rf" *{start}", line)][-1:]
    return shlex.split(line)


def test_imagenet_as_a_folder_is_trained_by_the_command_of_its_header(
    tmp_path, monkeypatch, started
):
    monkeypatch.chdir(runs.ROOT)
    words = header_command("imagenet_mqgan", "python -m mq_jax.main .*data.source=folder")
    place = imagenet(tmp_path / "ILSVRC")
    words = [word.replace("IMAGENET", str(place)) for word in words]
    assert words[:3] == ["python", "-m", "mq_jax.main"] and "runs/" in " ".join(words)
    outcome = runs.cli(*[word.replace("runs/", f"{tmp_path}/runs/") for word in words[3:]])
    assert outcome.code == 0, outcome.err
    config = started[0][0][0]
    validate(config)
    training, evaluation = inputs.open_split(config), inputs.open_evaluation(config)
    assert len(training) == len(evaluation) == 2
    assert training.class_names == evaluation.class_names == ("n01440764", "n01443537")
    assert [training[i].label for i in range(2)] == [evaluation[i].label for i in range(2)]
    assert training.contents().rule == "folder 'train'"
    assert evaluation.contents().rule == "folder 'val'"
    (batch,) = inputs.evaluation_pass(config, evaluation, jax.device_count())
    assert batch["image"].shape[1:] == (128, 128, 3)


def test_validation_images_without_folders_of_classes_do_too(tmp_path):
    place = imagenet(tmp_path, val=("",))
    config = runs.experiment("imagenet_mqgan")
    config.data.source, config.data.dir = "folder", str(place)
    training, evaluation = inputs.open_split(config), inputs.open_evaluation(config)
    assert training.class_names == evaluation.class_names == ("n01440764", "n01443537")
    assert (len(evaluation), evaluation[0].label) == (1, -1)


@pytest.mark.parametrize(
    "word", ["--noconfig.data.resize", "-config.data.resize=0", "--config.data.resize"]
)
def test_a_field_of_a_suite_in_a_form_that_its_runs_are_not_given_is_refused(word):
    argv = ["mq_jax.main", "--config.train.steps=3", "--suite=X.py"]
    assert given.words(argv) == ["--config.train.steps=3"]
    with pytest.raises(UsageError, match="^-.*: give fields of a suite as --config.data.resize=V"):
        given.words([*argv, word])
