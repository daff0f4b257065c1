"""Steps through several inner updates: memory and time against their number."""

from ml_collections import ConfigDict

from mq_jax.bench.step import compiled_step
from mq_jax.bench.timing import interleaved
from mq_jax.terminal import console

# train.unroll, and once more the first with the step taken again.
UPDATES = (1, 2, 4, 8)


def bench_unroll(config: ConfigDict, rounds: int) -> None:
    """Times the exact step through more and more inner updates, and the one that is rolled back.

    Args:
      config: validated; its nets, codebook, batch size and estimator are taken.
      rounds: interleaved; medians count.
    """
    estimator = config.train.straight_through
    programs = {
        str(unroll): compiled_step(config, "unrolled", estimator, unroll=unroll)
        for unroll in UPDATES
    }
    programs["1, rolled back"] = compiled_step(config, "unrolled", estimator, roll_back=True)
    timings = interleaved({name: program.run for name, program in programs.items()}, rounds)
    rows = []
    for name, program in programs.items():
        updates = int(name.partition(",")[0])
        each = timings[name] / updates
        rows.append(
            [
                name,
                f"{program.temporary / 2**20:.0f}",
                *(f"{timings[name] * 1e3:.0f}", f"{each * 1e3:.0f}", f"{each / timings['1']:.2f}"),
                f"{program.compile_seconds:.0f}",
            ]
        )
    console.print_table(
        f"Inner updates to one outer, batch {config.train.batch_size}, medians of {rounds}",
        ["updates", "temporary MiB", "ms", "ms an update", "/one", "compile s"],
        rows,
    )
