"""The pieces that a step is made of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.bench.timing import interleaved
from mq_jax.terminal import console
from mq_jax.training.build import build, init_state


def bench_pieces(config: ConfigDict, rounds: int) -> None:
    """Times the pieces of a step: where the rate of the whole is lost.

    Args:
      config: validated.
      rounds: interleaved; medians count.
    """
    timings, flops = {}, {}
    for name, (function, arguments) in _pieces(config).items():
        compiled = jax.jit(function).lower(*arguments).compile()
        flops[name] = compiled.cost_analysis()["flops"]
        timings[name] = lambda c=compiled, a=arguments: jax.block_until_ready(c(*a))
    medians = interleaved(timings, rounds)
    rows = [
        [name, f"{flops[name] / 1e9:.2f}", f"{s * 1e3:.1f}", f"{flops[name] / s / 1e9:.0f}"]
        for name, s in medians.items()
    ]
    title = f"Pieces of a step, batch {config.train.batch_size}"
    console.print_table(title, ["piece", "GFLOP", "ms", "GFLOP/s"], rows)


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

    theta, phi, _ = state.params
    quantizer = objective.quantizer
    z, folded = run("encode", theta, x), quantizer.fold(phi, state.quantizer)
    z_q = quantizer.decode(folded, quantizer.encode(folded, z))
    return {
        "encoder": (lambda t, a: run("encode", t, a), (theta, x)),
        "encoder, with gradient": (gradient("encode", 0), (theta, x)),
        "decoder": (lambda t, a: run("decode", t, a), (theta, z_q)),
        "decoder, with gradient": (gradient("decode", (0, 1)), (theta, z_q)),
        "hyper-net": (quantizer.fold, (phi, state.quantizer)),
        "lookup": (quantizer.encode, (folded, z)),
    }
