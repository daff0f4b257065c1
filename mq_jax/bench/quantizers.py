"""Every kind of quantizer alone: what a step spends on codes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.bench.tables import print_comparison
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.quantizer import Quantizer
from mq_jax.training.quantizing import make_quantizer
from mq_jax.training.taking import take_sizes

ENCODINGS = 16 * 256  # N: 16 images of 16 x 16 codes
# K, and the levels by which FSQ comes near to it.
SIZES = {1024: (8, 5, 5, 5), 16384: (8, 8, 8, 6, 5)}

# Of a program that is only counted: the same operations, compiled in half of the time.
_UNRUN = {"xla_backend_optimization_level": 0}

_PLAIN = {"quantizer.kind": "vq", "codebook.kind": "embedding"}


def _plain(**changes: Any) -> dict[str, Any]:
    return _PLAIN | {name.replace("__", "."): value for name, value in changes.items()}


# Fields by name in the table, `vq` first: the others' times are over its.
KINDS: dict[str, dict[str, Any]] = {
    "vq": _PLAIN,
    "vq, mlp": _plain(codebook__kind="mlp"),
    "vq, linear": _plain(codebook__kind="linear"),
    "vq, transformer": _plain(codebook__kind="transformer"),
    "vq, rotation": _plain(train__straight_through="rotation"),
    "vq, diveq": _plain(train__straight_through="diveq", quantizer__restart_every=100),
    "vq, wasserstein": _plain(quantizer__wasserstein=0.5),
    "vq, entropy": _plain(quantizer__entropy=0.1),
    "l2": _plain(quantizer__kind="l2"),
    "cvq": _plain(quantizer__kind="cvq"),
    "ema": _plain(quantizer__kind="ema"),
    "ema, restart": _plain(quantizer__kind="ema", quantizer__ema__restart_below=0.5),
    "sqvae": _plain(quantizer__kind="sqvae"),
    "gumbel": _plain(quantizer__kind="gumbel"),
    "ibq": _plain(quantizer__kind="ibq"),
    "fsq": _plain(quantizer__kind="fsq"),
    "lfq": _plain(quantizer__kind="lfq"),
    "bsq": _plain(quantizer__kind="bsq"),
    "vq, 4 levels": _plain(quantizer__depth=4),
    "vq, 4 groups": _plain(quantizer__groups=4),
}


class Program(NamedTuple):
    """A compiled step of a quantizer.

    Attributes:
      run: a function that begins it; what it returns is there at its end.
      flops: of the program that compares all codewords at once, in which no loop hides any.
      temporary: bytes beside arguments and results.
      size: K.
    """

    run: Callable[[], Any]
    flops: float
    temporary: int
    size: int


def bench_quantizers(config: ConfigDict, rounds: int, kinds: Sequence[str] = ()) -> None:
    """Times values, gradients and the next state of every kind, at several K, in chunks.

    Args:
      config: validated; D, the hyper-net's widths and the chunk are taken.
      rounds: interleaved; medians count.
      kinds: of KINDS beside `vq`; none for all.
    """
    names = [name for name in KINDS if not kinds or name in ("vq", *kinds)]

    def row(name, programs, seconds):
        program, own = programs[name], seconds[name]
        return [
            *(name, f"{program.size:,}", f"{program.flops / 1e9:.3f}"),
            *(f"{own * 1e3:.2f}", f"{own / seconds['vq']:.2f}"),
            f"{program.temporary / 2**20:,.1f}",
        ]

    # Where the configuration compares all at once, by the chunk of configs/base.py.
    chunk = config.codebook.lookup_chunk or 256
    for size in SIZES:
        print_comparison(
            f"K about {size:,}, N {ENCODINGS}, D {config.codebook.dim}",
            ["kind", "K", "GFLOP", "ms", "/vq", "MiB"],
            {
                name: functools.partial(_program, _variant(config, name, size), chunk)
                for name in names
            },
            row,
            rounds,
        )


def _variant(config: ConfigDict, name: str, size: int) -> ConfigDict:
    """The configuration of one kind at one K."""
    variant = ConfigDict(config.to_dict())
    bits = size.bit_length() - 1
    variant.codebook.size = size
    variant.quantizer.fsq.levels = SIZES[size]
    variant.quantizer.lfq.bits = variant.quantizer.bsq.bits = bits
    variant.update_from_flattened_dict(KINDS[name])
    take_sizes(variant)
    return variant


def _program(config: ConfigDict, chunk: int) -> Program:
    """A kind's step, compiled in chunks; its FLOPs are counted without."""
    config.codebook.lookup_chunk = 0
    flops = _compiled(config, _made(config), _UNRUN).cost_analysis()["flops"]
    config.codebook.lookup_chunk = chunk
    quantizer = _made(config)
    compiled = _compiled(config, quantizer)
    params, state = jax.jit(quantizer.init)(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (ENCODINGS, quantizer.channels))
    arguments = params, state, z, jax.random.key(2)
    return Program(
        lambda: compiled(*arguments),
        flops,
        compiled.memory_analysis().temp_size_in_bytes,
        quantizer.size,
    )


def _made(config: ConfigDict) -> Quantizer:
    chunk = config.codebook.lookup_chunk
    return make_quantizer(config, functools.partial(nearest_codeword, chunk=chunk))


def _compiled(
    config: ConfigDict, quantizer: Quantizer, options: dict[str, Any] | None = None
) -> jax.stages.Compiled:
    """Values, gradients in the parameters and in z, and the state a step later."""

    def step(params, state, z, rng):
        def loss(params, z):
            kind = config.train.straight_through
            q = quantizer(params, state, z, straight_through=kind, train=True, rng=rng)
            # In the place of a decoder's loss.
            return q.loss + jnp.sum(jnp.square(q.z_hat)), q

        gradients, q = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, z)
        parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
        return gradients, q.indices, quantizer.advance(params, state, parts, rng)[:2]

    rng = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(quantizer.init, rng)
    z = jax.ShapeDtypeStruct((ENCODINGS, quantizer.channels), jnp.float32)
    return jax.jit(step).lower(params, state, z, rng).compile(options)
