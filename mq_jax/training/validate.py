"""What a configuration may hold: checked before anything is compiled or written."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from mq_jax.algorithm import mq, optim
from mq_jax.algorithm.losses import ADVERSARIAL_LOSSES, RECONSTRUCTION_LOSSES
from mq_jax.data.splits import HOLDOUTS
from mq_jax.devices.places import local_path
from mq_jax.images.transforms import FILTERS
from mq_jax.metrics import measures
from mq_jax.models import discriminator, lpips
from mq_jax.quantizers import codebook
from mq_jax.quantizers.bridge import Bridge
from mq_jax.quantizers.sqvae import VARIANCES
from mq_jax.runs.workdir import flat
from mq_jax.storage.schema import Rule, fits
from mq_jax.terminal.spelling import suggestion
from mq_jax.training import quantizing
from mq_jax.training.consistency import validate_together


def validate(config: ConfigDict) -> None:
    """Checks every field, then what the fields ask of each other.

    Args:
      config: as configs/base.py lays it out.

    Raises:
      ValueError: names the field, its value and the possible ones.
    """
    for problem in field_problems(config):
        raise ValueError(problem)
    for section, field in (("data", "dir"), ("perceptual", "dir"), ("codebook", "base_file")):
        local_path(config[section][field], f"config.{section}.{field}")
    validate_together(config)


def field_problems(config: ConfigDict) -> Iterator[str]:
    """What is wrong with fields in themselves, whatever the others are.

    Args:
      config: any.

    Yields:
      A line for each; of fields that are missing or unknown before any that has a wrong value.
    """
    values = {name: value for name, value in flat(config.to_dict()).items() if value != {}}
    for name in sorted(set(values) ^ set(RULES)):
        problem, near = ("is missing", values) if name in RULES else ("is unknown", RULES)
        yield (
            f"config.{name} {problem}{suggestion(name, near, 'config.')}. "
            "A configuration has exactly the fields of configs/base.py."
        )
    for name, (expected, accepts) in RULES.items():
        if name in values and not fits((expected, accepts), values[name]):
            near = _meant(values[name], accepts)
            yield f"config.{name} is {values[name]!r}; expected {expected}{near}."


@dataclasses.dataclass(frozen=True)
class _Texts:
    """Accepts what a test accepts, and knows the texts that a mistyped one may be near to."""

    choices: tuple[str, ...]
    test: Callable[[Any], bool]

    def __call__(self, value: Any) -> bool:
        return self.test(value)


def _meant(value: Any, accepts: Callable) -> str:
    """A phrase with what the first wrong text may have been meant to be."""
    choices = getattr(accepts, "choices", ())
    texts = value if isinstance(value, tuple | list) else (value,)
    wrong = [text for text in texts if isinstance(text, str) and text not in choices]
    return suggestion(wrong[0], choices) if wrong else ""


def _choice(*choices: str) -> Rule:
    return f"one of {', '.join(choices)}", _Texts(choices, lambda value: value in choices)


def _integer(least: int) -> Rule:
    expected = f"a whole number of at least {least}"
    return expected, lambda value: type(value) is int and value >= least


def _number(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Rule:
    expected = f"a number in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"

    def accepts(value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > low if open_low else value >= low
        return above and (value < high if open_high else value <= high)

    return expected, accepts


_INFINITY = float("inf")
_NONNEGATIVE = _number(0, _INFINITY, open_high=True)
_POSITIVE = _number(0, _INFINITY, open_low=True, open_high=True)
_SHARE = _number(0, 1)
_BOOLEAN: Rule = ("True or False", lambda value: isinstance(value, bool))
_TEXT: Rule = ("text", lambda value: isinstance(value, str))
_SOURCE: Rule = (
    "tfds:NAME, folder or photos",
    _Texts(
        ("folder", "photos"),
        lambda value: (
            value in ("folder", "photos") or (value.startswith("tfds:") and len(value) > 5)
        ),
    ),
)
_WIDTHS: Rule = (
    "a tuple of positive whole numbers, (32, 64) say",
    lambda value: len(value) > 0 and all(type(width) is int and width > 0 for width in value),
)
_SIDES: Rule = (
    "a tuple of positive whole numbers, (16,) or () say",
    lambda value: all(type(side) is int and side > 0 for side in value),
)
_BOTH_FRECHET = {"fid", "frechet_vgg"}
_SPLIT: Rule = ("the name of a split", lambda value: isinstance(value, str) and bool(value))

_OPTIMIZER: dict[str, Rule] = {
    "kind": _choice(*optim.KINDS),
    "b1": _number(0, 1, open_high=True),
    "b2": _number(0, 1, open_high=True),
    "eps": _NONNEGATIVE,
    "eps_root": _NONNEGATIVE,
    "weight_decay": _NONNEGATIVE,
    "clip": _NONNEGATIVE,
}

# As many as a histogram of them can have.
_MOST_CODES = 2**24

_BINARY: dict[str, Rule] = {
    "bits": ("a whole number from 1 to 24", lambda bits: type(bits) is int and 1 <= bits <= 24),
    "commitment": _NONNEGATIVE,
    "token_entropy": _NONNEGATIVE,
    "batch_entropy": _NONNEGATIVE,
    "temperature": _POSITIVE,
}

RULES: dict[str, Rule] = {
    "seed": ("a whole number in [0, 2^32)", lambda v: type(v) is int and 0 <= v < 2**32),
    "deterministic": _BOOLEAN,
    "model.kind": _choice("vqvae", "vqgan"),
    "model.channels": _WIDTHS,
    "model.multipliers": _WIDTHS,
    "model.blocks": _integer(0),
    "model.attention": _SIDES,
    "model.z_channels": _integer(1),
    "model.groups": _integer(1),
    "model.layer_norm": _BOOLEAN,
    "model.init_std": _NONNEGATIVE,
    "model.dtype": _choice("float32", "bfloat16"),
    "model.remat": _BOOLEAN,
    "codebook.kind": _choice(*codebook.KINDS, Bridge.kind),
    "codebook.size": _integer(1),
    "codebook.dim": _integer(1),
    "codebook.embedding_dim": _integer(1),
    "codebook.hidden": _integer(1),
    "codebook.base": _choice(*quantizing.BASES),
    "codebook.features": _choice(*quantizing.FEATURES),
    "codebook.base_images": _integer(1),
    "codebook.base_file": _TEXT,
    "codebook.train_embedding": _BOOLEAN,
    "codebook.lookup_chunk": _integer(0),
    "codebook.shard_lookup": _BOOLEAN,
    "quantizer.kind": _choice(*quantizing.KINDS),
    "quantizer.groups": _integer(1),
    "quantizer.depth": _integer(1),
    "quantizer.shared": _BOOLEAN,
    "quantizer.dropout": _SHARE,
    "quantizer.commitment": _NONNEGATIVE,
    "quantizer.codebook": _NONNEGATIVE,
    "quantizer.noise": _NONNEGATIVE,
    "quantizer.entropy": _NONNEGATIVE,
    "quantizer.wasserstein": _NONNEGATIVE,
    "quantizer.restart_every": _integer(0),
    "quantizer.ema.commitment": _NONNEGATIVE,
    "quantizer.ema.decay": _number(0, 1, open_high=True),
    "quantizer.ema.restart_below": _SHARE,
    "quantizer.cvq.by": _choice("closest", "probrandom"),
    "quantizer.cvq.decay": _number(0, 1, open_high=True),
    "quantizer.cvq.cosine": _BOOLEAN,
    "quantizer.sqvae.variance": _choice(*VARIANCES),
    "quantizer.sqvae.log_variance": _number(-20, 20),
    "quantizer.sqvae.rate": _NONNEGATIVE,
    "quantizer.gumbel.kl_weight": _NONNEGATIVE,
    "quantizer.gumbel.temperature": _POSITIVE,
    "quantizer.gumbel.last_temperature": _POSITIVE,
    "quantizer.gumbel.anneal_steps": _integer(1),
    "quantizer.ibq.double": _NONNEGATIVE,
    "quantizer.ibq.commitment": _NONNEGATIVE,
    "quantizer.ibq.codebook_weight": _NONNEGATIVE,
    "quantizer.ibq.entropy_weight": _NONNEGATIVE,
    "quantizer.ibq.entropy_temperature": _POSITIVE,
    "quantizer.ibq.scale": _POSITIVE,
    "quantizer.fsq.levels": (
        "a tuple of 1 to 24 whole numbers from 2 to 1000, (8, 5, 5, 5) say",
        lambda levels: (
            0 < len(levels) <= 24 and all(type(n) is int and 2 <= n <= 1000 for n in levels)
        ),
    ),
    **{f"quantizer.lfq.{name}": rule for name, rule in _BINARY.items()},
    **{f"quantizer.bsq.{name}": rule for name, rule in _BINARY.items()},
    "train.steps": _integer(0),
    "train.epochs": _integer(1),
    "train.batch_size": _integer(1),
    "train.hypergradient": _choice(*mq.HYPERGRADIENTS),
    "train.outer_data": _choice("other", "same", "held-out"),
    "train.straight_through": _choice(*mq.STRAIGHT_THROUGH),
    "train.learning_rate": _POSITIVE,
    "train.warmup": _SHARE,
    "train.reconstruction": _choice(*RECONSTRUCTION_LOSSES),
    "train.quantization_weight": _NONNEGATIVE,
    "train.ema_decay": _number(0, 1, open_high=True),
    "train.accumulate": _integer(1),
    "train.inner_updates": _integer(1),
    "train.unroll": _integer(1),
    "train.roll_back": _BOOLEAN,
    "train.implicit_terms": _integer(1),
    "train.implicit_damping": _NONNEGATIVE,
    "train.neumann_rate": _POSITIVE,
    "train.log_every": _integer(1),
    "train.eval_every": _integer(1),
    "train.checkpoint_every": _integer(1),
    "train.patience": _integer(0),
    "perceptual.net": _choice("none", *lpips.NETS),
    "perceptual.weight": _NONNEGATIVE,
    "perceptual.dir": _TEXT,
    "discriminator.weight": _NONNEGATIVE,
    "discriminator.start": _SHARE,
    "discriminator.ramp": _SHARE,
    "discriminator.train_from": _SHARE,
    "discriminator.loss": _choice(*ADVERSARIAL_LOSSES),
    "discriminator.adaptive": _BOOLEAN,
    "discriminator.cap": _POSITIVE,
    "discriminator.r1": _NONNEGATIVE,
    "discriminator.lecam": _NONNEGATIVE,
    "discriminator.channels": _integer(1),
    "discriminator.layers": _integer(1),
    "discriminator.norm": _choice(*discriminator.NORMS),
    **{f"inner.{name}": rule for name, rule in _OPTIMIZER.items()},
    "inner.pullback_eps": _NONNEGATIVE,
    **{f"outer.{name}": rule for name, rule in _OPTIMIZER.items()},
    "outer.learning_rate_ratio": _NONNEGATIVE,
    **{f"disc.{name}": rule for name, rule in _OPTIMIZER.items()},
    "disc.learning_rate_ratio": _NONNEGATIVE,
    "disc.warmup": _SHARE,
    "mesh.data": _integer(0),
    "mesh.fsdp": _integer(1),
    "mesh.shard_from": _integer(0),
    "data.source": _SOURCE,
    "data.dir": _TEXT,
    "data.train_split": _SPLIT,
    "data.eval_split": _SPLIT,
    "data.holdout": _choice(*HOLDOUTS),
    "data.image_size": _integer(1),
    "data.eval_image_size": _integer(0),
    "data.crop": _integer(0),
    "data.resize": _BOOLEAN,
    "data.filter": _choice(*FILTERS),
    "data.flip": _SHARE,
    "data.max_bad_share": _SHARE,
    "data.icc": _BOOLEAN,
    "data.max_pixels": _integer(1),
    "data.max_bytes": _integer(0),
    "data.threads": _integer(0),
    "data.workers": _integer(0),
    "eval.batch_size": _integer(1),
    "eval.metrics": (
        f"a tuple of {', '.join(measures.NAMES)}, with at most one of the last two",
        _Texts(
            measures.NAMES,
            lambda names: set(names) <= set(measures.NAMES) and not _BOTH_FRECHET <= set(names),
        ),
    ),
    "eval.monitor": _choice("mse", *measures.LOWER_IS_BETTER),
    "eval.pictures": _integer(1),
}
