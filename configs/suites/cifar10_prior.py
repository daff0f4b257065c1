"""Priors over tokens of CIFAR-10: both kinds, and what each is without one of its parts.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_prior.py --workdir=DIR \
      --config.tokens=TRAIN --config.eval_tokens=TEST

TRAIN and TEST are token sets of both splits (--mode=tokens), which all runs then share. Nats of a
masked prior are a bound. Cost: `--dry_run --count_flops` tells, once an entry was measured.
"""

from configs.suites.budgets import THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """A decoder and a masked transformer of one size, 2,000 steps each."""
    still = " ".join(f"prior.{part}_dropout=0.0" for part in ("token", "residual", "ffn"))
    return Suite(
        experiment="configs/cifar10_prior.py",
        overrides="train.steps=2000 train.eval_every=500 train.checkpoint_every=500",
        entries={
            "decoder": "",
            "decoder-still": still,
            "decoder-classless": "prior.conditional=False",
            "decoder-unaveraged": "train.ema_decay=0.0",
            "masked": "prior.kind=masked",
            "masked-still": f"prior.kind=masked {still}",
            "masked-unsmoothed": "prior.kind=masked prior.smoothing=0.0",
        },
        seeds_of=dict.fromkeys(("decoder", "masked"), THREE),
        reference="decoder",
    )
