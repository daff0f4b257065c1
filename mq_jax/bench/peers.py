"""The MQVAE beside the same net in PyTorch, where that is installed: it is no dependency."""

import importlib.util
import json
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from mq_jax.bench.program import compiled_step
from mq_jax.bench.timing import interleaved
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.tokenizers.export import make_export
from mq_jax.tokenizers.tokenizer import Tokenizer
from mq_jax.training.build import build
from mq_jax.training.first import init_state

# By name, the fields of config.train that it differs by.
_STEPS = {
    "joint": {},
    "none": {},
    "pipelined": {},
    "pipelined, activations kept": {"keep_activations": True},
    "unrolled": {},
}
# What the restated net is: of other values it would be another program.
_RESTATED = {
    "model.kind": "vqvae",
    "model.layer_norm": False,
    "quantizer.kind": "vq",
    "codebook.kind": "mlp",
    "codebook.train_embedding": True,
}


def bench_peers(config: ConfigDict, rounds: int, cores: int) -> None:
    """Times train steps, encode and decode beside PyTorch's, and prints the seconds as JSON too.

    Args:
      config: validated; its nets, codebook and batch size are taken.
      rounds: interleaved; medians count.
      cores: threads that PyTorch may take.
    """
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: --part=peers compares with PyTorch, which is not installed here.")
    fields = config.to_dict()
    for name, wanted in _RESTATED.items():
        section, field = name.split(".")
        if fields[section][field] != wanted:
            sys.exit(
                f"error: config.{name} is {fields[section][field]!r}; expected {wanted!r} with "
                "--part=peers, whose net in PyTorch is that one."
            )
    # Only now: it takes seconds, and is rarely there.
    from mq_jax.bench.peer import peer_functions

    size = config.data.image_size
    pixels = np.random.default_rng(0).integers(
        0, 256, (config.train.batch_size, size, size, 3), np.uint8
    )
    functions = _own_functions(config, pixels) | peer_functions(config, pixels, cores)
    seconds = interleaved(functions, rounds)
    rows = []
    for (program, what), own in seconds.items():
        base = seconds["PyTorch", what if what in ("encode", "decode") else "joint"]
        rows.append([f"{what}, {program}", f"{own * 1e3:.1f}", f"{own / base:.2f}"])
    console.print_table(
        f"Beside PyTorch, batch {len(pixels)}, medians of {rounds}; a step over its joint one",
        ["", "ms", "/PyTorch"],
        rows,
    )
    tell(json.dumps({f"{what}, {program}": own for (program, what), own in seconds.items()}))


def _own_functions(config, pixels):
    """Ours, by (program, what it does)."""
    functions = {
        ("mq_jax", name): compiled_step(config, name.partition(",")[0], "encoder", **changes).run
        for name, changes in _STEPS.items()
    }
    built = build(config, steps=1)
    state = jax.jit(lambda: init_state(built, config))()
    tokenizer = Tokenizer(make_export(config, built.objective, state))
    indices = tokenizer.encode(pixels)
    return functions | {
        ("mq_jax", "encode"): lambda: tokenizer.encode(pixels),
        ("mq_jax", "decode"): lambda: tokenizer.decode(indices),
    }
