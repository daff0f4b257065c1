"""Runs of the whole program, small enough for a test: in this process, or in one of their own."""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl.testing import flagsaver
from PIL import Image

from mq_jax import main
from mq_jax.data import inputs
from mq_jax.evaluation import evaluate
from mq_jax.metrics.measures import load_measures
from mq_jax.metrics.perceptual import load_frozen
from mq_jax.modes.training import FREE_FIELDS
from mq_jax.runs import workdir
from mq_jax.runs.writers import read_metrics
from mq_jax.terminal.console import Progress
from mq_jax.training import train
from mq_jax.training.build import total_steps
from mq_jax.training.validate import validate

ROOT = pathlib.Path(__file__).parents[1]

# Nothing is a multiple of anything else, so that every kind of line and checkpoint occurs alone.
TINY = {
    "model.channels": (4,),
    "model.blocks": 0,
    "codebook.size": 16,
    "codebook.dim": 4,
    "codebook.embedding_dim": 3,
    "codebook.hidden": 8,
    "train.steps": 12,
    "train.batch_size": 8,
    "train.learning_rate": 1e-2,
    "train.log_every": 3,
    "train.eval_every": 4,
    "train.checkpoint_every": 5,
    "data.image_size": 32,
    "data.eval_image_size": 0,
    "eval.batch_size": 8,
    "eval.pictures": 3,
}

_TEMPORARY = tempfile.TemporaryDirectory(prefix="mq_jax-tests-")
TEMPORARY = pathlib.Path(_TEMPORARY.name)


def experiment(name):
    """The configuration of configs/<name>.py."""
    return importlib.import_module(f"configs.{name}").get_config()


def configure(name="photos_mqvae", **changes):
    """A tiny experiment; `train__steps=3` sets config.train.steps."""
    given = {field.replace("__", "."): value for field, value in changes.items()}
    return set_fields(experiment(name), {**TINY, **given})


def set_fields(config, values):
    """Sets fields by their dotted names."""
    for name, value in values.items():
        *sections, field = name.split(".")
        functools.reduce(getattr, sections, config)[field] = value
    return config


def arguments(name="photos_mqvae", **changes):
    """The command line of configure's experiment."""
    given = {field.replace("__", "."): value for field, value in changes.items()}
    overrides = [f"--config.{field}={value}" for field, value in {**TINY, **given}.items()]
    return [f"--config={ROOT}/configs/{name}.py", *overrides]


def write_images(directory, count=40, size=32, seed=0):
    """A tree of PNG files of noise, each unlike every other."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = pathlib.Path(directory) / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(path)
    return str(directory)


def train_here(config, folder):
    """Trains as the program does, without its command line; returns why it ended."""
    validate(config)
    inputs.require_divisible(config)
    sources, eval_source = inputs.open_training(config), inputs.open_evaluation(config)
    steps = total_steps(config, len(sources.autoencoder))
    frozen = load_frozen(config)
    measures = load_measures(config.eval.metrics, lpips_dir="", weights_dir="")
    workdir.claim(folder, config.to_dict(), FREE_FIELDS)
    with programs_shared():
        return train.train(
            config, steps, sources, eval_source, frozen, measures, pathlib.Path(folder)
        )


@dataclasses.dataclass
class Outcome:
    """What a person sees of a run."""

    code: int
    out: str
    err: str


def cli(*given):
    """Runs the program in this process, which saves its start."""
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, level, out, err = root.handlers[:], absl.level, io.StringIO(), io.StringIO()
    try:
        with (
            flagsaver.flagsaver(),
            programs_shared(),
            mock.patch.object(sys, "argv", ["mq_jax.main", *map(str, given)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main.run()
    except SystemExit as stop:
        # What Python itself does with a code that is a text.
        code = stop.code if isinstance(stop.code, int) else 1
        message = "" if isinstance(stop.code, int) else f"{stop.code}\n"
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers = handlers
        absl.setLevel(level)
    return Outcome(code, out.getvalue(), err.getvalue() + message)


# The process signals itself in the middle of what it is doing: alone by SIGKILL, otherwise with
# its worker processes, as a terminal does.
_SIGNALLED = """
import os, signal, sys
from mq_jax import main
from mq_jax.runs import writers
from mq_jax.terminal import console

moment, number = sys.argv.pop(1).split(":"), int(sys.argv.pop(1))

def send():
    os.kill(os.getpid(), number) if number == signal.SIGKILL else os.killpg(0, number)

def after(owner, name, step_of):
    function = getattr(owner, name)
    def wrapped(*args):
        result = function(*args)
        if step_of(*args) == int(moment[1]):
            send()
        return result
    setattr(owner, name, wrapped)

def rename(source, target):
    if str(source).endswith(f"/{moment[1]}.orbax-checkpoint-tmp"):
        send()
    return os_rename(source, target)

if moment[0] == "step":
    steps = []
    after(console.Progress, "advance", lambda self: steps.append(0) or len(steps))
elif moment[0] == "line":
    after(writers.Writers, "write_scalars", lambda self, step, scalars: step)
else:
    os_rename, os.rename = os.rename, rename
main.run()
"""


def program(*given, at=None, number=signal.SIGKILL):
    """Runs the program in a process of its own, until all its worker processes have ended too.

    Args:
      given: its arguments.
      at: when it signals itself: `line:N` after the line of step N in metrics.jsonl, `save:N`
        before the checkpoint of step N is committed, `step:N` after N steps; None for never.
      number: of the signal.
    """
    return outcome(launch(*given, at=at, number=number))


def launch(*given, at=None, number=signal.SIGKILL, **environment):
    """Starts the program as `program` does, with further variables in its environment."""
    start = ["-m", "mq_jax.main"] if at is None else ["-c", _SIGNALLED, at, str(int(number))]
    return subprocess.Popen(
        [sys.executable, *start, *map(str, given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env=os.environ | _ENVIRONMENT | environment,
    )


def outcome(launched):
    """Waits for a launched program."""
    try:
        out, err = launched.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        launched.kill()
        raise
    return Outcome(launched.returncode, out, err)


_ENVIRONMENT = {
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_COMPILATION_CACHE_DIR": str(TEMPORARY / "cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "COLUMNS": "200",
}


def table_row(outcome, name):
    """The cells of the row of a printed table whose first cell begins so, whatever divides them."""
    rows = [re.split(r"\s{2,}|[│|]", line.strip(" │|")) for line in outcome.out.splitlines()]
    (row,) = [[cell.strip() for cell in row] for row in rows if row[0].startswith(name)]
    return [cell for cell in row if cell]


@contextlib.contextmanager
def signalled_after(step, number=signal.SIGTERM):
    """This process signals itself after so many steps of a run."""
    advance, steps = Progress.advance, []

    def advance_and_signal(self):
        advance(self)
        steps.append(0)
        if len(steps) == step:
            os.kill(os.getpid(), number)

    with mock.patch.object(Progress, "advance", advance_and_signal):
        yield


def metrics(folder):
    """The lines of metrics.jsonl without the one number that no run repeats."""
    rows = read_metrics(pathlib.Path(folder) / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows]


def pictures(folder):
    """The files of the reconstructions, by name."""
    files = (pathlib.Path(folder) / "reconstructions").iterdir()
    return {path.name: path.read_bytes() for path in files}


def checkpoint_steps(folder):
    """The steps that have a checkpoint."""
    names = [path.name for path in (pathlib.Path(folder) / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def checkpoint(folder, step=None):
    """Arrays of a checkpoint (the last) by name, and its record; read without the program."""
    step = checkpoint_steps(folder)[-1] if step is None else step
    place = pathlib.Path(folder).absolute() / "checkpoints" / str(step)
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(place / "tree")
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        arrays[jax.tree_util.keystr(path, simple=True, separator="/")] = np.asarray(leaf)
    return arrays, json.loads((place / "record" / "metadata").read_text())


def assert_same_arrays(arrays, expected):
    """Bit for bit."""
    assert arrays.keys() == expected.keys()
    for name in expected:
        assert arrays[name].dtype == expected[name].dtype, name
        assert arrays[name].tobytes() == expected[name].tobytes(), name


def assert_same_run(folder, expected):
    """Every line of the metrics, every picture, and the last checkpoint with all that is in it."""
    assert metrics(folder) == metrics(expected)
    assert pictures(folder) == pictures(expected)
    assert checkpoint_steps(folder)[-1] == checkpoint_steps(expected)[-1]
    (arrays, record), (expected_arrays, expected_record) = checkpoint(folder), checkpoint(expected)
    assert_same_arrays(arrays, expected_arrays)
    assert record == expected_record


# What a program does is decided by these; the rest is about data, reports and durability.
_COMPILED_FROM = (
    *("perceptual", "discriminator", "disc"),
    "seed",
    "model",
    "codebook",
    "train",
    "inner",
    "outer",
    "mesh",
)
_COMPILE_PROGRAM, _START = train.compile_program, train.start
_PROGRAMS, _STARTS = {}, {}


@contextlib.contextmanager
def programs_shared():
    """Runs of one model share their compiled programs: most of a run's time is compilation."""
    with (
        quick_compilation(),
        mock.patch.object(train, "compile_program", compiled),
        mock.patch.object(train, "start", started),
        mock.patch.object(evaluate, "make_eval_step", _EVAL_STEP),
    ):
        yield


@contextlib.contextmanager
def quick_compilation():
    """XLA without its expensive passes."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


_EVAL_STEP = functools.cache(evaluate.make_eval_step)


def compiled(config, *rest):
    """compile_program, once for each model."""
    key = _key(config)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _COMPILE_PROGRAM(config, *rest)
    return _PROGRAMS[key]


def started(config, *rest):
    """start, once for each model."""
    key = _key(config)
    if key not in _STARTS:
        _STARTS[key] = _START(config, *rest)
    # The step donates what it gets.
    return jax.tree.map(lambda leaf: leaf.copy(), _STARTS[key])


def _key(config):
    values = {name: config.to_dict()[name] for name in _COMPILED_FROM}
    for name in ("log_every", "eval_every", "checkpoint_every", "patience"):
        del values["train"][name]
    # With epochs the schedule depends on the data.
    size = None if config.train.steps else object()
    return json.dumps(values, sort_keys=True), config.data.image_size, size


# Every kind of layer and of step.
WHOLE = {"model__blocks": 1, "train__inner_updates": 2, "data__threads": 2}


@functools.cache
def finished():
    """A run of WHOLE from beginning to end in a process of its own: (Outcome, its folder)."""
    folder = TEMPORARY / "finished"
    return program(*arguments(**WHOLE), f"--workdir={folder}"), folder
