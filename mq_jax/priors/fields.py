"""What a prior's configuration may hold: checked before anything is compiled or written."""

from ml_collections import ConfigDict

from mq_jax.data.splits import HOLDOUTS
from mq_jax.devices.places import local_path
from mq_jax.generation.sizes import SIZES
from mq_jax.priors.build import make_net
from mq_jax.storage.schema import Rule
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
    choice,
    integer,
    number,
    problems,
)

_BELOW_ONE = number(0, 1, open_high=True)

RULES: dict[str, Rule] = {
    "seed": SEED,
    "deterministic": BOOLEAN,
    "tokens": TEXT,
    "eval_tokens": TEXT,
    **{f"space.{name}": integer(0) for name in ("height", "width", "levels", "size", "classes")},
    "prior.kind": choice("autoregressive", "masked"),
    "prior.size": choice(*SIZES),
    **{f"prior.{name}": integer(0) for name in ("layers", "heads", "width")},
    "prior.conditional": BOOLEAN,
    "prior.class_dropout": SHARE,
    "prior.smoothing": _BELOW_ONE,
    "prior.qk_norm": BOOLEAN,
    **{f"prior.{part}_dropout": _BELOW_ONE for part in ("token", "residual", "ffn")},
    "prior.dtype": choice("float32", "bfloat16"),
    "prior.remat": BOOLEAN,
    "train.steps": integer(0),
    "train.epochs": integer(1),
    "train.batch_size": integer(1),
    "train.view": TEXT,
    "train.learning_rate": POSITIVE,
    "train.schedule": choice("constant", "cosine"),
    "train.warmup": SHARE,
    "train.ema_decay": _BELOW_ONE,
    "train.accumulate": integer(1),
    **{f"train.{what}_every": integer(1) for what in ("log", "eval", "checkpoint")},
    "train.patience": integer(0),
    "optimizer.b1": _BELOW_ONE,
    "optimizer.b2": _BELOW_ONE,
    **{f"optimizer.{name}": NONNEGATIVE for name in ("eps", "weight_decay", "clip")},
    **MESH,
    "data.source": SOURCE,
    "data.dir": TEXT,
    "data.image_column": TEXT,
    "data.label_column": TEXT,
    "data.train_split": SPLIT,
    "data.eval_split": SPLIT,
    "data.holdout": choice(*HOLDOUTS),
    "data.views": TEXT,
    "data.max_bad_share": SHARE,
    "data.max_pixels": integer(1),
    "data.max_bytes": integer(0),
    "data.threads": integer(0),
    "eval.batch_size": integer(1),
}


def validate(config: ConfigDict) -> None:
    """Checks every field, then what the fields ask of each other.

    Args:
      config: as configs/prior.py lays it out.

    Raises:
      ValueError: names the field, its value and the possible ones.
    """
    for problem in problems(config, RULES, "configs/prior.py"):
        raise ValueError(problem)
    for name in ("tokens", "eval_tokens"):
        local_path(config[name], f"config.{name}")
    local_path(config.data.dir, "config.data.dir")
    make_net(config)
