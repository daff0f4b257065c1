"""A plan as tables for a person."""

import jax

from mq_jax.data.inputs import reads_outer
from mq_jax.devices import sharding
from mq_jax.devices.peaks import PEAKS
from mq_jax.planning import fit, flops, rates
from mq_jax.planning.plan import Plan
from mq_jax.planning.scale_tables import print_scale
from mq_jax.runs.stages import is_prior
from mq_jax.terminal.console import print_table
from mq_jax.terminal.streams import tell_block

EFFICIENCIES = (0.2, 0.35, 0.5)


def print_plan(plan: Plan, steps: int, peak: float = 0.0, evaluated: int = 0) -> None:
    """Prints everything.

    Args:
      plan: from make_plan.
      steps: inner updates of the run.
      peak: TFLOP/s of one further kind of device; 0 for none.
      evaluated: images of an evaluation; 0: not known.
    """
    _print_model(plan)
    _print_flops(plan)
    _print_memory(plan)
    _print_fit(plan)
    _print_traffic(plan)
    _print_hours(plan, steps, peak)
    print_scale(plan, evaluated)


def _batches(config):
    """Batches that a step reads beside the inner level's, and these."""
    return 2 if not is_prior(config) and reads_outer(config) else 1


def _subject(plan):
    """What is trained, in a line."""
    config, codes = plan.config, " x ".join(map(str, plan.codes))
    dtype = f"{plan.net.dtype}{', rematerialised' if plan.net.remat else ''}"
    if is_prior(config):
        return f"Prior ({config.prior.kind}, {config.prior.size}) over {codes} tokens; {dtype}"
    side, codebook = config.data.image_size, config.codebook
    return (
        f"{side} x {side} pixels to {codes} codes ({config.quantizer.kind}), "
        f"K = {codebook.size:,}, D = {codebook.dim}; {dtype}"
    )


def _print_model(plan):
    train, mesh = plan.config.train, plan.mesh
    level = " for each level" if _batches(plan.config) > 1 else ""
    tell_block(
        f"{_subject(plan)}\n"
        f"{train.batch_size} images a step{level}, in {train.accumulate} part(s), on {mesh.size} "
        f"device(s): data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}\n"
    )
    rows = [[name, f"{count:,}"] for name, count in plan.parameters.items()]
    trained = sum(count for name, count in plan.parameters.items() if "frozen" not in name)
    print_table("Parameters", ("part", "numbers"), [*rows, ["all that is trained", f"{trained:,}"]])


def _print_flops(plan):
    parts, whole = plan.parts, plan.matrix_flops
    rows = []
    for part, found in parts.items():
        if found == flops.NOTHING:
            continue
        forward = plan.forward.get(part)
        passes = f"{found.matrix / forward:.2f}" if forward else ""
        rows.append(_flops_row(part, found, found.matrix / whole, passes))
    total = flops.NOTHING
    for found in parts.values():
        total = total.plus(found)
    rows.append(_flops_row("all", total, 1.0, ""))
    each = flops.NOTHING.plus(total, 1 / plan.mesh.size)
    rows.append(_flops_row("one device", each, 1 / plan.mesh.size, ""))
    columns = ("part", "GFLOP", "share", "forward passes", "elementwise GFLOP")
    print_table(f"A step of all devices{_average(plan)}", columns, rows)
    tell_block(_method(plan))


def _flops_row(name, found, share, passes):
    matrix, elementwise = _giga(found.matrix), _giga(found.elementwise)
    return [name, matrix, f"{share:.1%}", passes, elementwise]


def _giga(number):
    """In billions, to two places or to three digits."""
    return f"{number / 1e9:,.2f}" if number >= 1e9 or not number else f"{number / 1e9:.3g}"


def _average(plan):
    if plan.steps[0].share == 1:
        return ""
    return ", average of " + " and ".join(f"{s.share:.0%} {s.name}" for s in plan.steps)


def _method(plan):
    if plan.steps[0].compiled:
        source = (
            "counted in the compiled program of one device, times the devices (so what all of "
            "them\ncompute alike, as the codebook, counts for each)"
        )
    else:
        source = "counted in the traced program, less what is dead or computed twice"
    return (
        f"GFLOP and share: of convolutions and matrix products,\n{source};\n"
        "loops by their trips, parts by JAX's names, recomputation included. Forward passes: over\n"
        "those of one forward pass of a batch. Elementwise: one for an element of a result.\n"
        + _filtered(plan)
    )


_WINOGRAD = "a joint step of cifar10_mqvae: 14.1 instead of 9.2 GFLOP"
_UPSAMPLED = "a step of imagenet_mqgan: 317,457 instead of 297,056 GFLOP"


def _filtered(plan):
    """What a count on a CPU leaves out of what an accelerator does."""
    if is_prior(plan.config) or jax.default_backend() != "cpu":
        return ""
    which, example = "convolutions behind an upsampling", _UPSAMPLED
    if plan.config.model.kind == "vqvae":
        which, example = "most 3x3 convolutions", _WINOGRAD
    return (
        f"Of {which} a CPU's program, counted here, takes 4/9 of the products;\n"
        f"an accelerator's takes all ({example}).\n"
    )


def _print_memory(plan):
    rows = [holding.cells() for holding in plan.holdings]
    total = sharding.total(plan.holdings)
    rows.append(total._replace(name="given to a step").cells())
    compiled = [step.compiled for step in plan.steps if step.compiled]
    if compiled:
        temporary = max(found.temporary for found in compiled)
        for name, size in (("temporary", temporary), ("sum", temporary + total.per_device)):
            rows.append([name, "", "", "", f"{size / 2**20:,.2f}", ""])
    print_table("Memory", sharding.HOLDING_COLUMNS, rows)
    if compiled:
        tell_block(
            "Temporary: activations and gradients, as XLA's CPU backend lays them out; an\n"
            "estimate: a GPU's buffers differ, and a CPU may widen bfloat16 to float32.\n"
        )
    else:
        tell_block("Temporary memory and collectives are known once compiled (--compile).\n")


def _print_fit(plan):
    needs = fit.needs_of(plan)
    told = {capacity: fit.verdict(needs, capacity) for capacity in fit.CAPACITIES}
    rows = [[f"{capacity} GB", answer] for capacity, answer in told.items()]
    least = "" if needs.known else "more than "
    title = f"Does it fit a device? It needs {least}{needs.total / fit.GB:.1f} GB (of 10^9 bytes)"
    print_table(title, ("memory", "fits"), rows)
    for capacity in (capacity for capacity, answer in told.items() if answer == "no"):
        found = fit.remedies(plan, capacity) or ["none of the batch, remat, dtype and fsdp does"]
        tell_block(f"To fit {capacity} GB, one of:\n  " + "\n  ".join(found))
    uncounted = "" if needs.known else "Of temporary memory one gradient is counted: --compile.\n"
    tell_block(
        "An estimate, of training alone, from the numbers above and the copy of the state that a\n"
        "checkpoint makes: a GPU's compiler lays memory out otherwise.\n"
        f"By itself JAX takes {fit.USUAL_SHARE:.0%} of a GPU's memory.\n{uncounted}"
    )


def _print_traffic(plan):
    compiled = [(step.share, step.compiled) for step in plan.steps if step.compiled]
    if not compiled:
        return
    kinds = dict.fromkeys(kind for _, found in compiled for kind in found.traffic)
    rows = []
    for kind in kinds:
        found = [(share, c.traffic[kind]) for share, c in compiled if kind in c.traffic]
        count = sum(share * traffic.count for share, traffic in found)
        size = sum(share * traffic.bytes for share, traffic in found)
        rows.append([kind, f"{count:,.1f}", f"{size / 2**20:,.2f}"])
    rows = rows or [["none", "0", "0"]]
    print_table(
        f"Collectives of a step, for each device{_average(plan)}",
        ("kind", "times", "MiB"),
        rows,
    )
    seconds = " and ".join(f"{found.seconds:.0f} s" for _, found in compiled)
    tell_block(
        "MiB: of its arrays, results of all-gather and operands of the others. A GPU's compiler\n"
        "may combine or split them otherwise.\n"
        f"Compiled here in {seconds}.\n"
    )


def _print_hours(plan, steps, peak):
    kind = plan.net.dtype
    note = "" if kind == "bfloat16" else ", TF32"
    peaks = {f"{name}{note}": PEAKS[name].of(kind) for name in rates.DEVICES}
    peaks |= {"--peak_tflops": peak} if peak else {}
    levels = _batches(plan.config)
    each = plan.matrix_flops / plan.mesh.size
    rows = []
    for name, rate in peaks.items():
        for efficiency in EFFICIENCIES:
            seconds = each / (rate * 1e12 * efficiency)
            hours = steps * seconds / 3600
            images = levels * plan.config.train.batch_size / seconds
            rows.append(
                [
                    f"{name}, {rate:,.0f} TFLOP/s",
                    f"{efficiency:.0%}",
                    f"{seconds:.4g}",
                    f"{hours:,.1f}",
                    f"{hours * plan.mesh.size:,.1f}",
                    f"{images:,.0f}",
                ]
            )
    columns = ("device", "efficiency", "s a step", "hours", "device hours", "images/s to read")
    print_table(f"Hours of {steps:,} steps on {plan.mesh.size} device(s)", columns, rows)
    tell_block(
        f"Rates: dense {kind} of NVIDIA's data sheets. Efficiency: the share of it that the\n"
        "convolutions and products of the whole step reach; not measured."
    )
