"""Steps through several inner updates: memory and time against their number."""

import functools

from ml_collections import ConfigDict

from mq_jax.bench.program import compiled_step
from mq_jax.bench.tables import print_comparison

# train.unroll, and once more the first with the step taken again.
UPDATES = (1, 2, 4, 8)


def bench_unroll(config: ConfigDict, rounds: int) -> None:
    """Times the exact step through more and more inner updates, and the one that is rolled back.

    The columns: MiB that the program takes at once, its state and batches too; ms of a step; ms
    and the first row's, of each of its inner updates; seconds of compilation.

    Args:
      config: validated; its nets, codebook, batch size and estimator are taken.
      rounds: interleaved; medians count.
    """
    make = functools.partial(compiled_step, config, "unrolled", config.train.straight_through)
    makers = {
        str(unroll): functools.partial(make, unroll=unroll, inner_updates=unroll)
        for unroll in UPDATES
    }
    makers["1, rolled back"] = functools.partial(make, roll_back=True)

    def row(name, programs, seconds):
        program, own = programs[name], seconds[name]
        each = own / int(name.partition(",")[0])
        return [
            *(name, f"{program.memory / 2**20:.0f}"),
            *(f"{own * 1e3:.0f}", f"{each * 1e3:.1f}", f"{each / seconds['1']:.2f}"),
            f"{program.compile_seconds:.0f}{' cached' if program.cached else ''}",
        ]

    print_comparison(
        f"Inner updates to one outer, batch {config.train.batch_size}",
        ["updates", "MiB", "ms", "ms an update", "/one", "compile s"],
        makers,
        row,
        rounds,
    )
