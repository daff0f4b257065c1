"""The pieces that a step is made of."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.bench.tables import print_comparison
from mq_jax.training.build import build
from mq_jax.training.first import init_state
from mq_jax.training.initial import made_once


class Piece(NamedTuple):
    """A compiled part of a step: a function that runs it, and its FLOPs as XLA counts them."""

    run: Callable[[], Any]
    flops: float


def bench_pieces(config: ConfigDict, rounds: int) -> None:
    """Times the pieces of a step: where the rate of the whole is lost.

    Args:
      config: validated.
      rounds: interleaved; medians count.
    """
    makers = {name: functools.partial(_piece, *piece) for name, piece in _pieces(config).items()}

    def row(name, programs, seconds):
        gflop, own = programs[name].flops / 1e9, seconds[name]
        return [name, f"{gflop:.2f}", f"{own * 1e3:.2f}", f"{gflop / own:.0f}"]

    title = f"Pieces of a step, batch {config.train.batch_size}"
    print_comparison(title, ["piece", "GFLOP", "ms", "GFLOP/s"], makers, row, rounds)


def _piece(function, arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    flops = (compiled.cost_analysis() or {}).get("flops", float("nan"))
    return Piece(lambda: compiled(*arguments), flops)


def _pieces(config) -> dict[str, tuple[Callable, tuple]]:
    """Functions and arguments of the parts of a step."""
    objective = (built := build(config, steps=1000)).objective
    quantizer, size = objective.quantizer, config.data.image_size

    def arguments():
        state = init_state(built, config)
        x = jax.random.normal(jax.random.key(1), (config.train.batch_size, size, size, 3))
        (theta, phi, _), statistics = state.params, state.batch_stats
        variables = {"params": theta, "batch_stats": statistics}
        z = objective.autoencoder.apply(variables, x, train=False, method="encode")
        folded = quantizer.fold(phi, state.quantizer)
        z_q = quantizer.decode(folded, quantizer.encode(folded, z))
        return theta, phi, state.quantizer, statistics, x, z, folded, z_q

    # In one program: one by one, each operation would be compiled alone.
    theta, phi, fixed, statistics, x, z, folded, z_q = made_once(arguments)

    def run(method, theta, argument):
        variables = {"params": theta, "batch_stats": statistics}
        return objective.autoencoder.apply(
            variables, argument, train=True, method=method, mutable=["batch_stats"]
        )[0]

    def gradient(method, arguments):
        loss = lambda theta, argument: jnp.sum(jnp.square(run(method, theta, argument)))  # noqa: E731
        return jax.grad(loss, argnums=arguments)

    return {
        "encoder": (lambda t, a: run("encode", t, a), (theta, x)),
        "encoder, with gradient": (gradient("encode", 0), (theta, x)),
        "decoder": (lambda t, a: run("decode", t, a), (theta, z_q)),
        "decoder, with gradient": (gradient("decode", (0, 1)), (theta, z_q)),
        "hyper-net": (quantizer.fold, (phi, fixed)),
        "lookup": (quantizer.encode, (folded, z)),
    }
