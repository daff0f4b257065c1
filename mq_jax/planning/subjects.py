"""What a plan is of: the traced steps of either stage, its codes, parameters and forward passes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices.places import local_path
from mq_jax.generation.space import TokenSpace
from mq_jax.planning import flops, hlo
from mq_jax.priors import program as prior_program
from mq_jax.priors.build import build as build_prior
from mq_jax.priors.spaces import declared_space, space_of
from mq_jax.runs.stages import is_prior
from mq_jax.tokensets.manifest import is_token_set
from mq_jax.tokensets.reading import open_tokens
from mq_jax.training.build import Built, build
from mq_jax.training.lowering import Lowered, lower_program

# No FLOP and no byte depends on the number of steps, which only the schedules know.
_STEPS = 1000


class Subject(NamedTuple):
    """What is planned.

    Attributes:
      lowered: traced.
      steps: by name, the share of all inner updates and the traced step.
      batches: descriptions of all that a step reads, rows first.
      codes: as Plan has it.
      parameters: likewise.
      forward: likewise.
    """

    lowered: Lowered
    steps: dict[str, tuple[float, jax.stages.Lowered]]
    batches: Any
    codes: tuple[int, ...]
    parameters: dict[str, int]
    forward: dict[str, float]


def make_subject(config: ConfigDict, mesh: Mesh) -> Subject:
    """Traces the steps of a run; nothing runs.

    Args:
      config: validated, of either stage.
      mesh: over which they are traced.

    Returns:
      A Subject.

    Raises:
      ValueError: a prior's tokens are not known.
    """
    logging.info("tracing the step for %d device(s) ...", mesh.size)
    begin = time.monotonic()
    subject = _prior(config, mesh) if is_prior(config) else _autoencoder(config, mesh)
    logging.info("... %.0f s", time.monotonic() - begin)
    return subject


def planned_space(config: ConfigDict) -> TokenSpace:
    """The tokens of a prior, those of its set where that is there.

    Args:
      config: validated.

    Returns:
      A TokenSpace.

    Raises:
      ValueError: the configuration does not say it either, or the set is damaged.
    """
    if config.tokens:
        place = local_path(config.tokens, "config.tokens")
        if is_token_set(place):
            tokens = open_tokens(place)
            return space_of(config, tokens, tokens)
    return declared_space(config)


def _autoencoder(config: ConfigDict, mesh: Mesh) -> Subject:
    """The first stage."""
    built = build(config, _STEPS, mesh)
    lowered = lower_program(config, built, mesh)
    updates, every, size = config.train.unroll, config.train.inner_updates, config.data.image_size
    both = f"{updates} inner and outer" if updates > 1 else "inner and outer"
    if config.train.hypergradient == "joint":
        both = "joint"
    steps = {both: (1 / every, lowered.step)}
    if lowered.inner_step:
        steps["inner alone"] = 1 - updates / every, lowered.inner_step
    image = jax.ShapeDtypeStruct((config.train.batch_size, size, size, 3), jnp.uint8)
    told = _forward(config, built, lowered)
    return Subject(lowered, steps, [image] * (1 + updates), told[0], _parameters(lowered), told[1])


def _prior(config: ConfigDict, mesh: Mesh) -> Subject:
    """The second stage."""
    space = planned_space(config)
    built = build_prior(config, space, _STEPS)
    lowered = prior_program.lower_program(config, built, mesh)
    batch = prior_program.batch(config, built, None)
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lowered.target["state"].params
    )
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()
    }

    def whole(params, tokens, labels):
        labels = labels if space.classes else None
        return built.prior.loss(params, tokens, labels, jax.random.key(0), train=False).nats

    forward = flops_by_part(whole, params, *batch)
    levels = (space.levels,) if space.levels > 1 else ()
    codes = space.height, space.width, *levels
    return Subject(lowered, {"prior": (1.0, lowered.step)}, list(batch), codes, sizes, forward)


def _parameters(lowered: Lowered) -> dict[str, int]:
    """Numbers that are trained or frozen, by part."""
    theta, phi, psi = lowered.target["state"].params
    trees = {
        "encoder": theta["encoder"],
        "decoder": theta["decoder"],
        "codebook": phi,
        "discriminator": psi,
        "LPIPS, frozen": lowered.frozen,
    }
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in trees.items()}
    return {name: size for name, size in sizes.items() if size}


def _forward(config: ConfigDict, built: Built, lowered: Lowered) -> tuple:
    """(codes of an image, matrix FLOPs of one forward pass of each part over a batch)."""
    size, objective = config.data.image_size, built.objective
    shape = (config.train.batch_size, size, size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    (theta, phi, psi), frozen = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        (tuple(lowered.target["state"].params), lowered.frozen),
    )

    def encode(theta, images):
        variables = {"params": theta}
        return objective.autoencoder.apply(
            variables, images, train=True, method="encode", mutable=["batch_stats"]
        )[0]

    def decode(theta, z):
        return objective.autoencoder.apply(
            {"params": theta}, z, train=True, method="decode", mutable=["batch_stats"]
        )[0]

    z = jax.eval_shape(encode, theta, images)
    fixed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lowered.target["state"].quantizer
    )
    quantizer = objective.quantizer
    depth = (quantizer.depth,) if quantizer.depth else ()
    z_q = jax.ShapeDtypeStruct((*z.shape[:-1], quantizer.dim), z.dtype)
    folded = jax.eval_shape(quantizer.fold, phi, fixed)
    passes = {
        "encoder": _matrix_flops(encode, theta, images),
        "decoder": _matrix_flops(decode, theta, z_q),
        "hyper-net": _matrix_flops(quantizer.fold, phi, fixed),
        "lookup": _matrix_flops(quantizer.encode, folded, z),
    }
    if objective.adversarial:
        judge = objective.adversarial.discriminator
        passes["discriminator"] = _matrix_flops(
            lambda psi, images: judge.apply({"params": psi}, images), psi, images
        )
    if objective.perceptual:
        both = _matrix_flops(objective.perceptual.distance, frozen, images, images)
        passes["LPIPS"] = both / 2
    return (*z.shape[1:3], *depth), passes


def flops_by_part(
    function: Callable, *shapes: Any, platform: str | None = None
) -> dict[str, float]:
    """Matrix FLOPs of a function by part, with nothing merged.

    Args:
      function: traceable.
      shapes: of its arguments.
      platform: as JAX calls it, "cuda" say, which need not be here; None: that of JAX's devices.

    Returns:
      By part, those that have any.
    """
    platforms = None if platform is None else (platform,)
    lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=platforms)
    text = lowered.as_text("hlo", debug_info=True)
    found = flops.by_part(hlo.executed(hlo.parse(text)))
    return {name: part.matrix for name, part in found.items() if part.matrix}


def _matrix_flops(function: Callable, *shapes: Any) -> float:
    """Of a function's convolutions and products."""
    return sum(flops_by_part(function, *shapes).values())
