"""What one field of a configuration asks of another."""

from ml_collections import ConfigDict

from mq_jax.algorithm.bilevel import THROUGH_OPTIMIZER
from mq_jax.metrics.measures import SMALLEST_SIDE
from mq_jax.models import halves, lpips
from mq_jax.models.discriminator import smallest_side
from mq_jax.training.agreeing import check_quantizer


def validate_together(config: ConfigDict) -> None:
    """Checks fields against each other; each of them is right in itself.

    Args:
      config: as configs/base.py lays it out.

    Raises:
      ValueError: names the fields, their values and what to change.
    """
    _check_image_sizes(config)
    _check_model(config)
    _check_codebook(config)
    check_quantizer(config)
    _check_training(config)
    _check_discriminator(config)


def require_trainable(config: ConfigDict) -> None:
    """Refuses what would train by rounding alone; a run of it that is there can still be read.

    Args:
      config: validated.

    Raises:
      ValueError: names the fields, their values and what to change.
    """
    if config.train.hypergradient == "finite-difference" and config.model.dtype == "bfloat16":
        raise ValueError(
            "config.train.hypergradient is 'finite-difference' with config.model.dtype "
            "'bfloat16', whose rounding is larger than what its step of 0.01 changes; expected "
            "config.model.dtype 'float32', or another hypergradient, 'unrolled' say."
        )


def _check_model(config):
    """The fields of the auto-encoder that is asked for."""
    model = config.model
    if model.kind == "vqvae":
        return
    sides = [config.data.image_size >> level for level in range(len(model.multipliers))]
    if model.kind == "vqgan" and set(model.attention) - set(sides):
        raise ValueError(
            f"config.model.attention is {tuple(model.attention)}; expected sides among "
            f"{', '.join(map(str, sides))}, those of the levels at config.data.image_size."
        )
    if len(model.channels) != 1:
        raise ValueError(
            f"config.model.channels is {tuple(model.channels)}; expected one number, (128,) say, "
            f"under model.kind {model.kind!r}: config.model.multipliers makes the widths of it."
        )
    width = halves.undivided_width(model.channels[0], model.multipliers, model.groups)
    if width is not None:
        raise ValueError(
            f"config.model.groups is {model.groups}; expected a divisor of every width, and "
            f"channels {model.channels[0]} times {width // model.channels[0]} is {width}."
        )


def _check_image_sizes(config):
    """Every network halves an image a few times, and some need a least size."""
    halvings = {
        "vqvae": (len(config.model.channels), "config.model.channels"),
        **dict.fromkeys(
            ("vqgan", "maskgit"), (len(config.model.multipliers) - 1, "config.model.multipliers")
        ),
    }
    times, field = halvings[config.model.kind]
    for name in ("image_size", "eval_image_size"):
        if config.data[name] % 2**times:
            raise ValueError(
                f"config.data.{name} is {config.data[name]}; expected a multiple of {2**times}: "
                f"{field} halves an image {times} times."
            )
    net = config.perceptual.net
    least = 0 if net == "none" else lpips.architecture(net).minimum
    layers = config.discriminator.layers if config.discriminator.weight else 0
    evaluated = "eval_image_size" if config.data.eval_image_size else "image_size"
    needs = [
        ("image_size", least, f"config.perceptual.net {net!r}"),
        *((evaluated, SMALLEST_SIDE[name], f"{name!r}") for name in config.eval.metrics),
        ("image_size", layers and smallest_side(layers), f"config.discriminator.layers {layers}"),
    ]
    for name, side, reason in needs:
        if config.data[name] < side:
            raise ValueError(
                f"config.data.{name} is {config.data[name]}; expected at least {side} for {reason}."
            )


def _check_codebook(config):
    size, fsdp = config.codebook.size, config.mesh.fsdp
    if config.codebook.shard_lookup and size % fsdp:
        raise ValueError(
            f"config.codebook.size is {size}; expected a multiple of config.mesh.fsdp, {fsdp}, "
            "where config.codebook.shard_lookup splits the codewords over it."
        )


def _check_training(config):
    """The levels, their optimizers and their batches."""
    train = config.train
    through = train.hypergradient in (*THROUGH_OPTIMIZER, "pipelined")
    if through and config.inner.kind == "adam" and not config.inner.eps_root > 0:
        raise ValueError(
            f"config.inner.eps_root is {config.inner.eps_root}; expected a positive number, "
            "1e-16 say: Adam's derivative is infinite where a gradient is zero."
        )
    if train.batch_size % train.accumulate:
        raise ValueError(
            f"config.train.accumulate is {train.accumulate}; expected a divisor of "
            f"config.train.batch_size, {train.batch_size}."
        )
    if train.accumulate > 1 and train.reconstruction == "log-mse":
        raise ValueError(
            f"config.train.accumulate is {train.accumulate} with reconstruction 'log-mse', whose "
            "logarithm is of a whole batch; expected 1."
        )
    if config.eval.monitor not in ("mse", *config.eval.metrics):
        raise ValueError(
            f"config.eval.monitor is {config.eval.monitor!r}, which is not measured during "
            f"training; expected it in config.eval.metrics, {tuple(config.eval.metrics)}."
        )
    _check_unrolling(config)
    if train.hypergradient not in ("joint", "pipelined"):
        return
    # One batch a step: of joint for one level, of pipelined for both.
    joint = train.hypergradient == "joint"
    if train.keep_activations and not joint:
        _check_keeping(train)
    alone = {
        "straight_through": joint and train.straight_through == "encoder-and-codewords-inside",
        "inner_updates": train.inner_updates != 1,
        "roll_back": train.roll_back,
        "outer_data": train.outer_data != "other",
    }
    needs = "two levels" if joint else "an outer batch of its own"
    for name, given in alone.items():
        if given:
            raise ValueError(
                f"config.train.{name} is {train[name]!r}, which needs {needs}, while "
                f"config.train.hypergradient is {train.hypergradient!r}; change one of them."
            )


def _check_keeping(train):
    """Activations that a pipelined step leaves to the next."""
    needs = {"straight_through": "encoder", "accumulate": 1}
    reasons = {
        "straight_through": "others reach the decoder, whose activations are several times as many",
        "accumulate": "all parts of a batch would be in memory at once",
    }
    for name, wanted in needs.items():
        if train[name] != wanted:
            raise ValueError(
                f"config.train.{name} is {train[name]!r} with keep_activations; expected "
                f"{wanted!r} ({reasons[name]}), or keep_activations False."
            )


def _check_unrolling(config):
    """Several inner updates to one outer, and inner updates that are taken again."""
    train, quantizer = config.train, config.quantizer
    if train.unroll > train.inner_updates:
        raise ValueError(
            f"config.train.unroll is {train.unroll} and inner_updates {train.inner_updates}; "
            "expected at most as many: it says through how many of them the hyper-gradient passes."
        )
    if train.unroll > 1 and train.hypergradient != "unrolled":
        raise ValueError(
            f"config.train.unroll is {train.unroll} with hypergradient {train.hypergradient!r}, "
            "which knows the last inner update alone; expected 1, or 'unrolled'."
        )
    if train.unroll > 1 and train.steps % train.inner_updates:
        raise ValueError(
            f"config.train.steps is {train.steps}; expected a multiple of inner_updates, "
            f"{train.inner_updates}, where config.train.unroll, {train.unroll}, takes several of "
            "them as one."
        )
    overwrites = quantizer.kind == "cvq" or quantizer.restart_every
    several = {"train.unroll": train.unroll > 1, "train.roll_back": train.roll_back}
    for name, given in several.items():
        if given and overwrites:
            raise ValueError(
                f"config.{name} is {train[name.removeprefix('train.')]!r}, for which the codebook "
                "must stand still within a step, while quantizer.kind 'cvq' and "
                "quantizer.restart_every overwrite codewords with each inner update; change one "
                "of them."
            )


def _check_discriminator(config):
    """The adversarial phase."""
    fields = config.discriminator
    if not fields.weight:
        return
    if fields.train_from > fields.start:
        raise ValueError(
            f"config.discriminator.train_from is {fields.train_from} and start {fields.start}; "
            "expected train_from of at most start: before it learns, its verdict is noise."
        )
    if fields.start + fields.ramp > 1:
        raise ValueError(
            f"config.discriminator.start is {fields.start} and ramp {fields.ramp}; expected a sum "
            "of at most 1, or the term never has its whole weight."
        )
    if fields.r1 and fields.norm == "batch":
        raise ValueError(
            f"config.discriminator.r1 is {fields.r1} with norm 'batch', which ties the images of "
            "a batch together, so that no image has a gradient of its own; expected norm 'group' "
            "or 'none'."
        )
