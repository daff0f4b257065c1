"""What more devices would do, as tables for a person."""

import math

from mq_jax.devices.peaks import PEAKS
from mq_jax.planning import limits, passes, rates, saving, scale
from mq_jax.planning.plan import Plan
from mq_jax.runs.stages import is_prior
from mq_jax.terminal.console import print_table
from mq_jax.terminal.streams import tell_block

GB = 10**9


def print_scale(plan: Plan, evaluated: int = 0) -> None:
    """Prints a step, an evaluation and a checkpoint on more devices, and how far a run scales.

    Args:
      plan: from make_plan; one that was not compiled does not tell.
      evaluated: images of an evaluation; 0: not known.
    """
    work = scale.work_of(plan)
    if work is None:
        return
    evaluating = passes.evaluating_of(plan, evaluated)
    _print_steps(work, evaluating, plan.net.dtype)
    _print_passes(work, evaluating, plan, evaluated)
    _print_savings(work, saving.checkpoint_of(plan))
    _print_limits(work, plan.net.dtype)


def _print_steps(work, evaluating, dtype):
    """A step, and the reading of its images."""
    rows = []
    for name in rates.DEVICES:
        for found in scale.scaled(work, PEAKS[name], dtype):
            threads = _threads(found.read, evaluating.records)
            rows.append(
                [
                    *(f"{found.devices} {name}", f"{found.images:,}"),
                    *(str(found.images // found.devices), f"{found.seconds:.3g}"),
                    *(f"{found.exchange:.2g}", f"{found.exchange / found.seconds:.1%}"),
                    *(f"{found.read:,.0f}", threads),
                ]
            )
    columns = ("devices", "images", "each", "s", "s to exchange", "share", "read/s", "threads")
    print_table("A step on more devices, on paper", columns, rows)
    links = ", ".join(
        f"{name} {PEAKS[name].link:.0f} and {PEAKS[name].network:.0f} GB/s"
        for name in rates.DEVICES
    )
    full = ", ".join(f"{name} {PEAKS[name].full:g}" for name in rates.DEVICES)
    read = evaluating.records
    tell_block(
        f"Assumed: {rates.EFFICIENCY:.0%} of the peak at any number of images, which few images do "
        "not reach;\nlookup and hyper-net, unlike in the hours above, in full float32: "
        f"{full} TFLOP/s;\n"
        f"machines of {rates.MACHINE}, links inside and between them of {links};\n"
        f"{rates.HOP * 1e6:.0f} us a hop; nothing exchanged while computing.\n"
        "read/s: images that a machine reads. threads: that do, each on a core of its own, at\n"
        f"{_range(read.least, read.most)} a second (measured, {read.name}); the configuration has "
        f"{evaluating.threads}.\n"
    )


def _pass_rows(work, evaluating, dtype):
    """An evaluation as the configuration makes it, and as one that the devices share."""
    each = work.images // work.devices
    for name in rates.DEVICES:
        for devices in scale.counts(work.devices):
            step = scale.step_on(devices, each * devices, work, PEAKS[name], dtype)
            between = evaluating.between / step.images * step.seconds
            for batch in dict.fromkeys((evaluating.batch, each * devices)):
                found = passes.pass_on(devices, evaluating, batch, PEAKS[name], dtype)
                shares = [100 * seconds / (seconds + between) for seconds in found.seconds]
                yield [
                    *(f"{devices} {name}", f"{batch:,}", f"{found.each}", f"{found.steps:,}"),
                    *(f"{found.compute:.3g}", _range(*found.read)),
                    f"{_range(*shares)}%",
                ]


def _print_passes(work, evaluating, plan, evaluated):
    """An evaluation."""
    rows = list(_pass_rows(work, evaluating, plan.net.dtype))
    fields = "eval.batch_size", "each", "steps", "s to compute", "s to read"
    print_table("An evaluation on more devices, on paper", ("devices", *fields, "share"), rows)
    names = "" if is_prior(plan.config) else ", ".join(plan.config.eval.metrics)
    measures = f", and measures ({names}) in full float32" if names else ""
    known = "" if evaluated else " (ImageNet's validation; how many this set has is not known)"
    tell_block(
        f"Of {evaluating.images:,} images{known}.\n"
        f"To compute: the nets{measures}.\n"
        "eval.batch_size is of all devices, filled up where they are more; it changes no result.\n"
        f"To read: by {evaluating.threads} threads of each machine, at the rates above.\n"
        f"share: of the time, with an evaluation every {evaluating.between:,} images of training\n"
        f"({plan.config.train.eval_every:,} steps of {work.images:,}).\n"
        "Second rows: as many images on each device as in training.\n"
    )


def _print_savings(work, checkpoint):
    """A checkpoint."""
    rows = []
    for devices in scale.counts(work.devices):
        found = saving.saving_on(devices, checkpoint)
        rows.append(
            [
                *(str(devices), f"{checkpoint.bytes / GB:.2f}", f"{found.copied:.2g}"),
                *(f"{found.written:.2g}", f"{found.read / GB:,.1f}", _range(*found.restored)),
            ]
        )
    columns = ("devices", "GB", "s to the host", "s to write", "GB read to go on", "s")
    print_table("A checkpoint, on paper", columns, rows)
    tell_block(
        f"To the host at {saving.TO_HOST / GB:.0f} GB/s (assumed) and "
        f"{saving.ARRAY_COPIED * 1e3:.1g} ms for each of {checkpoint.arrays:,} arrays;\nthen, "
        f"beside the steps, written and read back at {saving.WRITTEN / GB:.2g} GB/s and "
        f"{saving.ARRAY_WRITTEN * 1e3:.1f} ms an array,\nwere one host to write it all (measured "
        "on two CPU cores, in the page cache).\nTo go on, each machine reads all of it: at "
        f"{saving.READ / GB:.1f} GB/s and {saving.ARRAY_READ * 1e3:.1f} ms an array (likewise),\n"
        f"and where all read from one disk, {saving.SHARED / GB:.0f} GB/s together (assumed).\n"
    )


def _print_limits(work, dtype):
    """How many devices the plan's batch is worth."""
    rows = []
    for change in limits.changes(work):
        row = [change.name, change.today]
        for name in rates.DEVICES:
            found = limits.limit(work, PEAKS[name], dtype, change)
            row += [f"{found.devices:,}", f"{found.seconds:.2g}"]
        rows.append(row)
    kinds = [column for name in rates.DEVICES for column in (name, "s a step")]
    print_table(
        f"Devices that {work.images:,} images a step are worth, and what would change that",
        ("change", "today", *kinds),
        rows,
    )
    tell_block(
        f"Worth it: each does {limits.WORTH:.0%} of what each of {work.devices} does; the plan's "
        "number is doubled.\nAt best, none of it tried. XLA's flags, of XLA_FLAGS:\n"
        "--xla_gpu_all_reduce_combine_threshold_bytes=N (one collective)\n"
        "--xla_gpu_enable_latency_hiding_scheduler=true (beside backward passes)\n"
        "What mesh.fsdp gathers is not counted here: its own plan tells.\n"
    )


def _threads(read, records):
    """The threads that read so many a second, at the most and the least of the records' rates."""
    return _range(math.ceil(read / records.most), math.ceil(read / records.least))


def _range(least, most):
    """Two numbers, or one where they look alike."""
    texts = [f"{number:,.0f}" if number >= 100 else f"{number:.2g}" for number in (least, most)]
    return " to ".join(dict.fromkeys(texts))
