"""Timings: train steps beside one another, the pieces they are made of, the input, the start.

python -m mq_jax.bench [--part=step|pieces|input|startup] [--config=configs/cifar10_mqvae.py]

On one core unless --cores says otherwise. Steps are interleaved in one process, so that a
machine whose speed drifts slows them all alike: read the ratios.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cv2
import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict, config_flags
from PIL import Image

from mq_jax import commandline, console, inputs
from mq_jax.build import build, init_state
from mq_jax.data.sources import open_source
from mq_jax.quantize import nearest_codeword
from mq_jax.validate import validate

DEFAULT_CONFIG = "configs/cifar10_mqvae.py"

_CONFIG = config_flags.DEFINE_config_file(
    "config", DEFAULT_CONFIG, "The experiment.", lock_config=True
)
_PART = flags.DEFINE_enum("part", "step", ("step", "pieces", "input", "startup"), "What to time.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Interleaved rounds; medians count.", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 1, "CPU cores to run on.", lower_bound=1)

JPEGS = 200
JPEG_SIZE = (500, 375)  # pixels, the median of ImageNet

_KINDS = (
    ("joint", "encoder"),
    ("joint", "encoder-and-codewords"),
    ("none", "encoder"),
    ("unrolled", "encoder"),
    ("unrolled-reverse", "encoder"),
    ("finite-difference", "encoder"),
    ("unrolled", "encoder-and-codewords"),
    ("unrolled-reverse", "encoder-and-codewords"),
    ("unrolled", "encoder-and-codewords-inside"),
)


def bench_step(config: ConfigDict) -> None:
    """Times every kind of train step over the joint one.

    Args:
      config: validated; its nets, codebook and batch size are taken.
    """
    programs = {kinds: _compiled_step(config, *kinds) for kinds in _KINDS}
    timings = _interleaved({kinds: run for kinds, (run, _) in programs.items()}, _ROUNDS.value)
    base, (_, base_flops) = timings[_KINDS[0]], programs[_KINDS[0]]
    peak = _matmul_rate()
    rows = []
    for kinds, (_, flops) in programs.items():
        seconds = timings[kinds]
        rate = flops / seconds / 1e9
        rows.append(
            [
                f"{kinds[0]}, {kinds[1]}",
                *(f"{flops / 1e9:.2f}", f"{flops / base_flops:.2f}"),
                *(f"{seconds * 1e3:.0f}", f"{seconds / base:.2f}"),
                *(f"{rate:.0f}", f"{rate / peak:.0%}"),
            ]
        )
    console.print_table(
        f"Train steps, batch {config.train.batch_size}, K {config.codebook.size}, medians of "
        f"{_ROUNDS.value}; a matrix product runs at {peak:.0f} GFLOP/s",
        ["step, straight-through", "GFLOP", "/joint", "ms", "/joint", "GFLOP/s", "of product"],
        rows,
    )


def bench_pieces(config: ConfigDict) -> None:
    """Times the pieces of a step: where the rate of the whole is lost.

    Args:
      config: validated.
    """
    timings, flops = {}, {}
    for name, (function, arguments) in _pieces(config).items():
        compiled = jax.jit(function).lower(*arguments).compile()
        flops[name] = compiled.cost_analysis()["flops"]
        timings[name] = lambda c=compiled, a=arguments: jax.block_until_ready(c(*a))
    medians = _interleaved(timings, _ROUNDS.value)
    rows = [
        [name, f"{flops[name] / 1e9:.2f}", f"{s * 1e3:.1f}", f"{flops[name] / s / 1e9:.0f}"]
        for name, s in medians.items()
    ]
    title = f"Pieces of a step, batch {config.train.batch_size}"
    console.print_table(title, ["piece", "GFLOP", "ms", "GFLOP/s"], rows)


def bench_input(config: ConfigDict) -> None:
    """Times the input pipeline, beside what the exact MQ step takes.

    Args:
      config: validated; its source is read if it is there.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _write_jpegs(pathlib.Path(folder))
        jpegs = ConfigDict(config.to_dict())
        jpegs.data.update(source="folder", dir=folder, train_split="all", image_size=128)
        jpegs.data.update(crop=0, resize=True, flip=0.5)
        jpegs.model.channels = (32, 64, 64)
        title = "{}x{} JPEG, ImageNet augmentation".format(*JPEG_SIZE)
        for name, each in ((config.data.source, config), (title, jpegs)):
            rate = _input_rate(each)
            run, _ = _compiled_step(each, "unrolled", "encoder")
            seconds = _interleaved({"step": run}, 3)["step"]
            appetite = 2 * each.train.batch_size / seconds
            rows.append([name, f"{rate:.0f}", f"{appetite:.0f}", f"{rate / appetite:.1f}"])
    console.print_table(
        f"Input, {_CORES.value} core(s), {config.data.threads} thread(s): images per second",
        ["source", "pipeline", "unrolled step takes", "ratio"],
        rows,
    )


def bench_startup(config: ConfigDict) -> None:
    """Times the command to its first step, with an empty compilation cache and a full one.

    Args:
      config: unused; the quick start's is run.
    """
    del config
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for name in ("cold", "cached", "cached again"):
            command = [sys.executable, "-m", "mq_jax.main", "--config=configs/photos_mqvae.py"]
            command += [f"--workdir={folder}/{name}", "--config.train.steps=1"]
            rows.append([name, f"{_seconds_to_line(command, environment, 'step 1/'):.1f}"])
    title = "From the command to the end of the first step (after an evaluation)"
    console.print_table(title, ["compilation cache", "seconds"], rows)


def _compiled_step(config, kind, straight_through) -> tuple[Callable[[], Any], float]:
    """A train step as a function of nothing, and its FLOPs."""
    config = ConfigDict(config.to_dict())
    config.train.update(hypergradient=kind, straight_through=straight_through)
    built = build(config, steps=1000)
    state = init_state(built, config)
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    images = jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)
    compiled = jax.jit(built.train_step).lower(state, images, images).compile()
    flops = compiled.cost_analysis()["flops"]
    return lambda: jax.block_until_ready(compiled(state, images, images)), flops


def _pieces(config) -> dict[str, tuple[Callable, tuple]]:
    """Functions and arguments of the parts of a step."""
    objective = (built := build(config, steps=1000)).objective
    state = init_state(built, config)
    size = config.data.image_size
    x = jax.random.normal(jax.random.key(1), (config.train.batch_size, size, size, 3))

    def run(method, theta, argument):
        variables = {"params": theta, "batch_stats": state.batch_stats}
        return objective.autoencoder.apply(
            variables, argument, train=True, method=method, mutable=["batch_stats"]
        )[0]

    def gradient(method, arguments):
        loss = lambda theta, argument: jnp.sum(jnp.square(run(method, theta, argument)))  # noqa: E731
        return jax.grad(loss, argnums=arguments)

    theta, phi = state.params
    z, codebook = run("encode", theta, x), objective.codewords(phi)
    return {
        "encoder": (lambda t, a: run("encode", t, a), (theta, x)),
        "encoder, with gradient": (gradient("encode", 0), (theta, x)),
        "decoder": (lambda t, a: run("decode", t, a), (theta, z)),
        "decoder, with gradient": (gradient("decode", (0, 1)), (theta, z)),
        "hyper-net": (objective.codewords, (phi,)),
        "lookup": (nearest_codeword, (z, codebook)),
    }


def _interleaved(functions: dict[Any, Callable], rounds: int) -> dict[Any, float]:
    """Median seconds of each function, run in turn after one warm-up."""
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _matmul_rate() -> float:
    """GFLOP/s of a large matrix product: the roof of everything here."""
    n = 2048
    a = jnp.ones((n, n))
    product = jax.jit(jnp.matmul)
    run = {"product": lambda: jax.block_until_ready(product(a, a))}
    return 2 * n**3 / _interleaved(run, 9)["product"] / 1e9


def _input_rate(config) -> float:
    """Images a second through the training pipeline."""
    source = inputs.open_training(config).autoencoder
    stream = inputs.stream(config, source, level=0, start=0)
    next(stream)
    batches, started = 0, time.perf_counter()
    while time.perf_counter() - started < 5:
        next(stream)
        batches += 1
    rate = batches * config.train.batch_size / (time.perf_counter() - started)
    stream.close()
    return rate


def _write_jpegs(folder: pathlib.Path) -> None:
    """Photographic JPEGs of ImageNet's median size."""
    photos = open_source("photos", directory="", split="train")
    for number in range(JPEGS):
        image = cv2.resize(photos[number % len(photos)].image, JPEG_SIZE)
        Image.fromarray(image).save(folder / f"{number:04d}.jpg", quality=90)


def _seconds_to_line(command, environment, start) -> float:
    """Seconds from a command to the line of its log that starts so."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, **pipes) as process:
        found = next((line for line in process.stderr if line.startswith(start)), None)
        seconds = time.perf_counter() - started
        process.stderr.read()
    if found is None:
        raise RuntimeError(f"{' '.join(command)} printed no line that starts with {start!r}.")
    return seconds


def run() -> None:
    """Parses the command line and runs one part."""
    commandline.answer_help(__doc__, (_PART, _CONFIG, _ROUNDS, _CORES))
    try:
        commandline.parse(sys.argv, DEFAULT_CONFIG)
        validate(_CONFIG.value)
    except (commandline.UsageError, ValueError) as error:
        sys.exit(f"error: {error}")
    # Before the backend starts: it takes as many threads as it is allowed cores.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _CORES.value])
    parts = {
        "step": bench_step,
        "pieces": bench_pieces,
        "input": bench_input,
        "startup": bench_startup,
    }
    parts[_PART.value](_CONFIG.value)


if __name__ == "__main__":
    run()
