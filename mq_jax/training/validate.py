"""What a configuration may hold: checked before anything is compiled or written."""

from collections.abc import Iterator

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
from mq_jax.storage.schema import Rule
from mq_jax.training import quantizing
from mq_jax.training.consistency import validate_together
from mq_jax.training.rules import (
    BOOLEAN,
    MESH,
    NONNEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    SOURCE,
    SPLIT,
    TEXT,
    Texts,
    choice,
    integer,
    number,
    problems,
)


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
    local_path(config.init_from, "config.init_from")
    validate_together(config)


def field_problems(config: ConfigDict) -> Iterator[str]:
    """What is wrong with fields in themselves, whatever the others are.

    Args:
      config: any.

    Yields:
      As rules.problems.
    """
    return problems(config, RULES, "configs/base.py")


_WIDTHS: Rule = (
    "a tuple of positive whole numbers, (32, 64) say",
    lambda value: len(value) > 0 and all(type(width) is int and width > 0 for width in value),
)
_SIDES: Rule = (
    "a tuple of positive whole numbers, (16,) or () say",
    lambda value: all(type(side) is int and side > 0 for side in value),
)
_BOTH_FRECHET = {"fid", "frechet_vgg"}

_OPTIMIZER: dict[str, Rule] = {
    "kind": choice(*optim.KINDS),
    "b1": number(0, 1, open_high=True),
    "b2": number(0, 1, open_high=True),
    "eps": NONNEGATIVE,
    "eps_root": NONNEGATIVE,
    "weight_decay": NONNEGATIVE,
    "clip": NONNEGATIVE,
}

# As many as a histogram of them can have.
_MOST_CODES = 2**24

_BINARY: dict[str, Rule] = {
    "bits": ("a whole number from 1 to 24", lambda bits: type(bits) is int and 1 <= bits <= 24),
    "commitment": NONNEGATIVE,
    "token_entropy": NONNEGATIVE,
    "batch_entropy": NONNEGATIVE,
    "temperature": POSITIVE,
}

RULES: dict[str, Rule] = {
    "seed": SEED,
    "deterministic": BOOLEAN,
    "init_from": TEXT,
    "model.kind": choice("vqvae", "vqgan", "maskgit"),
    "model.channels": _WIDTHS,
    "model.multipliers": _WIDTHS,
    "model.blocks": integer(0),
    "model.attention": _SIDES,
    "model.middle_attention": BOOLEAN,
    "model.unit_pixels": BOOLEAN,
    "model.z_channels": integer(1),
    "model.groups": integer(1),
    "model.layer_norm": BOOLEAN,
    "model.init_std": NONNEGATIVE,
    "model.dtype": choice("float32", "bfloat16"),
    "model.remat": BOOLEAN,
    "codebook.kind": choice(*codebook.KINDS, Bridge.kind),
    "codebook.size": integer(1),
    "codebook.dim": integer(1),
    "codebook.embedding_dim": integer(1),
    "codebook.hidden": integer(1),
    "codebook.base": choice(*quantizing.BASES),
    "codebook.features": choice(*quantizing.FEATURES),
    "codebook.base_images": integer(1),
    "codebook.base_file": TEXT,
    "codebook.train_embedding": BOOLEAN,
    "codebook.lookup_chunk": integer(0),
    "codebook.shard_lookup": BOOLEAN,
    "quantizer.kind": choice(*quantizing.KINDS),
    "quantizer.groups": integer(1),
    "quantizer.depth": integer(1),
    "quantizer.shared": BOOLEAN,
    "quantizer.dropout": SHARE,
    "quantizer.commitment": NONNEGATIVE,
    "quantizer.codebook": NONNEGATIVE,
    "quantizer.noise": NONNEGATIVE,
    "quantizer.entropy": NONNEGATIVE,
    "quantizer.wasserstein": NONNEGATIVE,
    "quantizer.restart_every": integer(0),
    "quantizer.ema.commitment": NONNEGATIVE,
    "quantizer.ema.decay": number(0, 1, open_high=True),
    "quantizer.ema.restart_below": SHARE,
    "quantizer.cvq.by": choice("closest", "probrandom"),
    "quantizer.cvq.decay": number(0, 1, open_high=True),
    "quantizer.cvq.cosine": BOOLEAN,
    "quantizer.sqvae.variance": choice(*VARIANCES),
    "quantizer.sqvae.log_variance": number(-20, 20),
    "quantizer.sqvae.rate": NONNEGATIVE,
    "quantizer.gumbel.kl_weight": NONNEGATIVE,
    "quantizer.gumbel.temperature": POSITIVE,
    "quantizer.gumbel.last_temperature": POSITIVE,
    "quantizer.gumbel.anneal_steps": integer(1),
    "quantizer.ibq.double": NONNEGATIVE,
    "quantizer.ibq.commitment": NONNEGATIVE,
    "quantizer.ibq.codebook_weight": NONNEGATIVE,
    "quantizer.ibq.entropy_weight": NONNEGATIVE,
    "quantizer.ibq.entropy_temperature": POSITIVE,
    "quantizer.ibq.scale": POSITIVE,
    "quantizer.fsq.levels": (
        "a tuple of 1 to 24 whole numbers from 2 to 1000, (8, 5, 5, 5) say",
        lambda levels: (
            0 < len(levels) <= 24 and all(type(n) is int and 2 <= n <= 1000 for n in levels)
        ),
    ),
    **{f"quantizer.lfq.{name}": rule for name, rule in _BINARY.items()},
    **{f"quantizer.bsq.{name}": rule for name, rule in _BINARY.items()},
    "train.steps": integer(0),
    "train.epochs": integer(1),
    "train.batch_size": integer(1),
    "train.hypergradient": choice(*mq.HYPERGRADIENTS),
    "train.outer_data": choice("other", "same", "held-out"),
    "train.straight_through": choice(*mq.STRAIGHT_THROUGH),
    "train.learning_rate": POSITIVE,
    "train.warmup": SHARE,
    "train.reconstruction": choice(*RECONSTRUCTION_LOSSES),
    "train.quantization_weight": NONNEGATIVE,
    "train.ema_decay": number(0, 1, open_high=True),
    "train.accumulate": integer(1),
    "train.inner_updates": integer(1),
    "train.unroll": integer(1),
    "train.keep_activations": BOOLEAN,
    "train.roll_back": BOOLEAN,
    "train.implicit_terms": integer(1),
    "train.implicit_damping": NONNEGATIVE,
    "train.neumann_rate": POSITIVE,
    "train.log_every": integer(1),
    "train.eval_every": integer(1),
    "train.checkpoint_every": integer(1),
    "train.patience": integer(0),
    "perceptual.net": choice("none", *lpips.NETS),
    "perceptual.weight": NONNEGATIVE,
    "perceptual.dir": TEXT,
    "discriminator.weight": NONNEGATIVE,
    "discriminator.start": SHARE,
    "discriminator.ramp": SHARE,
    "discriminator.train_from": SHARE,
    "discriminator.loss": choice(*ADVERSARIAL_LOSSES),
    "discriminator.adaptive": BOOLEAN,
    "discriminator.cap": POSITIVE,
    "discriminator.r1": NONNEGATIVE,
    "discriminator.lecam": NONNEGATIVE,
    "discriminator.channels": integer(1),
    "discriminator.layers": integer(1),
    "discriminator.norm": choice(*discriminator.NORMS),
    **{f"inner.{name}": rule for name, rule in _OPTIMIZER.items()},
    "inner.pullback_eps": NONNEGATIVE,
    **{f"outer.{name}": rule for name, rule in _OPTIMIZER.items()},
    "outer.learning_rate_ratio": NONNEGATIVE,
    **{f"disc.{name}": rule for name, rule in _OPTIMIZER.items()},
    "disc.learning_rate_ratio": NONNEGATIVE,
    "disc.warmup": SHARE,
    **MESH,
    "data.source": SOURCE,
    "data.dir": TEXT,
    "data.image_column": TEXT,
    "data.label_column": TEXT,
    "data.train_split": SPLIT,
    "data.eval_split": SPLIT,
    "data.holdout": choice(*HOLDOUTS),
    "data.image_size": integer(1),
    "data.eval_image_size": integer(0),
    "data.crop": integer(0),
    "data.resize": BOOLEAN,
    "data.filter": choice(*FILTERS),
    "data.flip": SHARE,
    "data.max_bad_share": SHARE,
    "data.icc": BOOLEAN,
    "data.max_pixels": integer(1),
    "data.max_bytes": integer(0),
    "data.threads": integer(0),
    "data.workers": integer(0),
    "eval.batch_size": integer(1),
    "eval.metrics": (
        f"a tuple of {', '.join(measures.NAMES)}, with at most one of the last two",
        Texts(
            measures.NAMES,
            lambda names: set(names) <= set(measures.NAMES) and not _BOTH_FRECHET <= set(names),
        ),
    ),
    "eval.monitor": choice("mse", *measures.LOWER_IS_BETTER),
    "eval.pictures": integer(1),
}
