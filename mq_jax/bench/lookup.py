"""Lookups in codebooks of every size, whole and in chunks."""

import functools

import jax
from ml_collections import ConfigDict

from mq_jax.bench.tables import print_by_row
from mq_jax.bench.timing import calls_between_waits, interleaved
from mq_jax.quantizers.nearest import nearest_codeword

ENCODINGS = 16 * 256  # N: 16 images of 16 x 16 codes
SIZES = (1024, 16384, 65536, 262144)
LARGEST = 2 * 2**30  # bytes of an N x K matrix that is still made


def bench_lookup(config: ConfigDict, rounds: int) -> None:
    """Times the lookup, and asks XLA for its temporary memory, at several K.

    Args:
      config: validated; D and the chunk are taken.
      rounds: interleaved; medians count.
    """
    dim = config.codebook.dim
    # Where the configuration compares all at once, by the chunk of configs/base.py.
    chunk = config.codebook.lookup_chunk or 256
    print_by_row(
        f"Lookup, N {ENCODINGS}, D {dim}, chunks of {chunk}, medians of {rounds}; a matrix of more "
        f"than {LARGEST / 2**30:.0f} GiB is planned but not run",
        ["K", "whole, ms", "MiB", "in chunks, ms", "MiB"],
        _rows(dim, chunk, rounds),
    )


def _rows(dim, chunk, rounds):
    """A row for each K, the smallest first."""
    z = jax.random.normal(jax.random.key(0), (ENCODINGS, dim))
    for size in SIZES:
        codebook = jax.random.normal(jax.random.key(1), (size, dim))
        forms = {"whole": _compiled(z, codebook, 0), "chunks": _compiled(z, codebook, chunk)}
        fits = ENCODINGS * size * 4 <= LARGEST
        runs = {
            name: functools.partial(form, z, codebook)
            for name, form in forms.items()
            if fits or name == "chunks"
        }
        seconds = interleaved(runs, rounds, calls_between_waits())
        yield [f"{size:,}", *_cells(seconds, forms, "whole"), *_cells(seconds, forms, "chunks")]


def _compiled(z, codebook, chunk):
    """The lookup for these shapes."""
    jitted = jax.jit(functools.partial(nearest_codeword, chunk=chunk))
    return jitted.lower(z, codebook).compile()


def _cells(seconds, forms, name):
    """Milliseconds, and MiB of XLA's temporaries."""
    temporary = forms[name].memory_analysis().temp_size_in_bytes
    time = f"{seconds[name] * 1e3:.2f}" if name in seconds else "not run"
    return [time, f"{temporary / 2**20:,.0f}"]
