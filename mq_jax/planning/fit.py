"""Whether a plan fits the memory of a device, and which fields would make it fit: an estimate."""

from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.planning.plan import Plan
from mq_jax.runs.stages import is_prior

GB = 10**9
# Of the devices that are looked at, in GB.
CAPACITIES = (16, 24, 40, 80)
# What JAX takes of a GPU's memory by itself, and about the most that it can be told to take.
USUAL_SHARE, LARGEST_SHARE = 0.75, 0.9


class Needs(NamedTuple):
    """Bytes of one device.

    Attributes:
      given: of the state, the frozen weights and the batches.
      copy: of the state, which a checkpoint copies beside the steps.
      gradients: of one gradient of all that is trained, about the least that is temporary.
      activations: of what is temporary beside it; 0 where nothing was compiled.
      known: whether the temporary memory is, which compiling tells.
    """

    given: int
    copy: int
    gradients: int
    activations: int
    known: bool

    @property
    def fixed(self) -> int:
        """All that does not shrink with the images."""
        return self.given + self.copy + self.gradients

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.activations


def needs_of(plan: Plan) -> Needs:
    """What a device of a plan must hold.

    Args:
      plan: from make_plan.

    Returns:
      Its Needs.
    """
    held = {holding.name: holding.per_device for holding in plan.holdings}
    gradients = sum(size for name, size in held.items() if name.startswith("params"))
    temporary = [step.compiled.temporary for step in plan.steps if step.compiled]
    known = bool(temporary)
    activations = max(max(temporary) - gradients, 0) if known else 0
    return Needs(sum(held.values()), _state(plan), gradients, activations, known)


def verdict(needs: Needs, capacity: int) -> str:
    """Whether a device suffices.

    Args:
      needs: from needs_of.
      capacity: of the device, GB.

    Returns:
      "no", or a phrase that begins with "yes" or "unknown".
    """
    if needs.total > LARGEST_SHARE * capacity * GB:
        return "no"
    if not needs.known:
        return "unknown without --compile"
    if needs.total > USUAL_SHARE * capacity * GB:
        return f"yes, with XLA_CLIENT_MEM_FRACTION={LARGEST_SHARE}"
    return "yes"


def remedies(plan: Plan, capacity: int) -> list[str]:
    """The fields that would make a plan fit that does not.

    Args:
      plan: from make_plan.
      capacity: of the device, GB.

    Returns:
      A phrase for each that is enough alone, else for two together, with what a device would then
      hold where that can be told; empty where these are not enough.
    """
    needs, limit = needs_of(plan), USUAL_SHARE * capacity * GB
    alone = (_of_batches, _of_layers, _of_sharing)
    found = [phrase for kind in alone for phrase in kind(plan, needs, limit)]
    return found or list(_of_both(plan, needs, limit))


def _of_batches(plan: Plan, needs: Needs, limit: float) -> Iterator[str]:
    """Fewer images at a time: activations shrink with them, nothing else does."""
    train = plan.config.train
    images = train.batch_size // (plan.mesh.size * train.accumulate)
    for parts in (part for part in range(2, images + 1) if images % part == 0):
        size = needs.fixed + needs.activations / parts
        if needs.activations and size <= limit:
            yield f"--config.train.accumulate={train.accumulate * parts} ({_about(size)})"
            yield f"--config.train.batch_size={train.batch_size // parts} ({_about(size)})"
            return


def _of_layers(plan: Plan, needs: Needs, limit: float) -> Iterator[str]:
    """What keeps less of the activations of transformers, nets of VQGAN's kind and LPIPS."""
    config, net = plan.config, plan.net
    name = "prior" if is_prior(config) else "model"
    large = name == "prior" or net.kind in ("vqgan", "maskgit") or config.perceptual.net != "none"
    if not large or not needs.activations or needs.fixed > limit:
        return
    if not net.remat:
        yield f"--config.{name}.remat=True (how much less, its own plan tells)"
    halved = needs.fixed + needs.activations / 2
    if net.dtype == "float32" and halved <= limit:
        yield f"--config.{name}.dtype=bfloat16 ({_about(halved)} at best)"


def _of_sharing(plan: Plan, needs: Needs, limit: float) -> Iterator[str]:
    """Devices that share the state out: the gradients stay, as each device computes with all."""
    for fsdp in sorted(plan.state_by_fsdp):
        size = _shared(plan, needs, fsdp).total
        if size < needs.total and size <= limit:
            unknown = "" if needs.known else " and the temporary memory"
            yield f"{_fsdp(plan, fsdp)} ({_about(size)}{unknown})"
            return


def _of_both(plan: Plan, needs: Needs, limit: float) -> Iterator[str]:
    """The state shared out as far as it goes, and as few images at a time as that asks for."""
    fsdp = max(plan.state_by_fsdp)
    for phrase in _of_batches(plan, _shared(plan, needs, fsdp), limit):
        yield f"{_fsdp(plan, fsdp)} {phrase}"


def _shared(plan: Plan, needs: Needs, fsdp: int) -> Needs:
    """What a device holds where so many share the state out."""
    shared = plan.state_by_fsdp[fsdp]
    return needs._replace(given=needs.given - _state(plan) + shared, copy=shared)


def _state(plan: Plan) -> int:
    """Bytes of the state that a device holds."""
    return plan.state_by_fsdp[plan.mesh.shape["fsdp"]]


def _fsdp(plan: Plan, fsdp: int) -> str:
    """The flags of so many devices to a state."""
    data = "--config.mesh.data=0 " if plan.config.mesh.data else ""
    return f"{data}--config.mesh.fsdp={fsdp}"


def _about(size: float) -> str:
    return f"about {size / GB:.1f} GB"
