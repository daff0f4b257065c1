"""The README as a newcomer follows it: every command, in its order, in a copy of the repository."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from configs import base
from configs.quantizers import PRESETS, with_quantizer
from mq_jax.training.quantizing import UNTRAINED

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

_TINY = (
    "--config.train.steps=4 --config.train.eval_every=2 --config.train.checkpoint_every=2 "
    "--config.train.batch_size=8 --config.train.log_every=2 --config.eval.batch_size=8"
)
_TINY_PRIOR = (
    f"{_TINY} --config.prior.layers=2 --config.prior.heads=2 --config.prior.width=16 "
    "--config.data.views=center"
)

# What a command of the README needs to end within a test; None: it is not run, for the reason
# beside it. The first pattern that is found in a command decides.
RULES = {
    r"launch/test\.sh": None,  # This file is a part of it.
    r"--samples=samples\.npz": None,  # Images of whoever has some; those of a prior are measured.
    r"--beam=": None,  # Beam's own test runs it.
    r"mode=plan": "--compile=False",
    r"mq_jax\.bench": "--help",  # It takes minutes, and its own tests run every part.
    r"sbatch ": None,  # The tests of the launch files stand in for a cluster.
    r"mode=import": None,  # It takes a file of others, which its own tests write.
    r"imagenet_mqgan": None,  # Days of work on the GPUs that it is for.
    r"--suite=\$S": _TINY,
    r"launch/(local|multi_gpu)\.sh": _TINY,
    r"launch/quickstart\.sh": "",
    r"--config=configs/photos_prior\.py": _TINY_PRIOR,
    r"--config=configs/folder_(mqvae|finetune)\.py": _TINY,
    r"": "",
}


def blocks(text=README):
    """The indented blocks, dedented."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, flags=re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") for block in found if block.strip()]


def commands(text=README):
    """The commands of a shell, whole lines."""
    starts = re.compile(r"^(P=|\$P |\.venv/bin/|bash |sbatch |kubectl |[A-Z_]+=\S* )")
    lines = [line for block in blocks(text) for line in re.sub(r" *\\\n *", " ", block).split("\n")]
    return [line for line in lines if starts.match(line)]


def programs(text=README):
    """The blocks of Python."""
    return [block for block in blocks(text) if re.match(r"(from|import) ", block)]


def rule(command):
    return next(added for pattern, added in RULES.items() if re.search(pattern, command))


def runnable(command):
    """A command as the test runs it: without its remark, shortened; None where it is not run."""
    added = rule(command)
    return None if added is None else f"{re.sub(r' +#.*', '', command)} {added}".strip()


def test_commands_are_found_whole_and_without_their_remarks():
    text = "Text:\n\n    P=.venv/bin/python\n    $P -m x --a \\\n        --b   # DIR/x\n\nMore.\n"
    assert commands(text) == ["P=.venv/bin/python", "$P -m x --a --b   # DIR/x"]
    assert runnable("$P -m x --a --b   # DIR/x") == "$P -m x --a --b"


def test_every_rule_is_of_a_command_and_most_commands_are_run():
    told = commands()
    for pattern in RULES:
        assert any(re.search(pattern, command) for command in told), pattern
    run = [command for command in told if runnable(command)]
    assert len(run) >= 0.7 * len(told)
    assert any("quickstart" in command for command in run)


def test_a_quantizer_alone_is_used_as_the_readme_says():
    (program,) = [program for program in programs() if "from mq_jax.quantizers" in program]
    assert len(program.splitlines()) <= 13
    names = {}
    exec(program, names)
    assert names["indices"].shape == (2, 16, 16) and names["z_q"].shape == (2, 16, 16, 4)
    assert names["z_hat"].shape == names["z"].shape


def test_the_table_of_quantizers_has_every_preset_with_its_kind_and_its_levels():
    section = README.partition("## Quantizers\n")[2].partition("\n## ")[0]
    rows = [
        line.strip("| ").split(" | ") for line in re.findall(r"^\| `.*$", section, re.MULTILINE)
    ]
    told = {}
    for presets, _, kinds, size, levels in rows:
        names, kinds = re.findall(r"`(\w+)`", presets), re.findall(r"`(\w+)`", kinds)
        for name, kind in zip(names, kinds * (len(names) // len(kinds)), strict=True):
            told[name] = kind, "codebook.size" in size, levels
    assert list(told) == sorted(told, key=list(PRESETS).index) and told.keys() == PRESETS.keys()
    for name, row in told.items():
        kind = with_quantizer(base.get_config(), name).quantizer.kind
        levels = "joint only" if kind in UNTRAINED else "MQ or joint"
        assert row == (kind, kind not in ("fsq", "lfq", "bsq"), levels), name


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of the repository, its environment, and a folder of splits in two classes."""
    folder = tmp_path_factory.mktemp("clone")
    for name in _tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    os.symlink(ROOT / ".venv", folder / ".venv")
    rng = np.random.default_rng(0)
    for number in range(48):
        split, animal = (
            ("train", "train", "val", "test")[number % 4],
            ("cats", "dogs")[number // 24],
        )
        path = folder / "IMAGES" / split / animal / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((160, 144)).save(path)
    return folder


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_their_order(clone):
    """In one shell, as they are typed; each must end with 0."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    variables = ""
    for command in commands():
        if re.fullmatch(r"[A-Z]+=\S*", command):
            variables += command + "; "
            continue
        if (short := runnable(command)) is None:
            continue
        done = subprocess.run(
            ["bash", "-c", variables + short],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, f"{short}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    left = {path.name for path in clone.iterdir()} - {name.split("/")[0] for name in _tracked()}
    made = {"runs", "TOKENS", "TOKEN_SET", "CROPS", "DECODED", "RECONSTRUCTED", "comparison.html"}
    assert left == made | {".venv", "IMAGES"}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(programs())))
def test_the_python_of_the_readme_runs(clone, number):
    """After the commands, with what they made and `images`."""
    images = "import numpy as np\nimages = np.zeros((2, 128, 128, 3), np.uint8)\n"
    program = images + programs()[number]
    if "torch" in program and subprocess.run([sys.executable, "-c", "import torch"]).returncode:
        pytest.skip("torch is not installed")
    subprocess.run([".venv/bin/python", "-c", program], cwd=clone, check=True)


def _tracked():
    """The names of the repository's files."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    return listed.strip("\0").split("\0")
