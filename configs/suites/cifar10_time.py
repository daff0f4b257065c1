"""CIFAR-10 at equal time: the steps of `cifar10_quick`, each as often as fits 300 seconds.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_time.py \
      --workdir=DIR --config.data.dir=TFDS

A step of each entry is timed first, on this machine and with nothing beside it, or it tells little;
learning rates fall to 0 with the budget. Cost: 27 runs of 300 seconds in steps; their compilation
and evaluations, and nine timings, come on top.
"""

from configs.suites.budgets import NORMED, PLAIN, QUICK_TIME, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """MQ's steps, with and without LayerNorm, and the recipes that measured best."""
    kinds = ("joint", "none", "unrolled", "pipelined", "finite-difference")
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK_TIME,
        entries={
            **{kind: f"train.hypergradient={kind} {PLAIN}" for kind in kinds},
            "pipelined-kept": f"train.hypergradient=pipelined train.keep_activations=True {PLAIN}",
            **{f"{kind}-recipe": f"train.hypergradient={kind}" for kind in ("joint", "unrolled")},
            "fsq": ":fsq",
            **{f"ln-{kind}": f"train.hypergradient={kind} {NORMED}" for kind in kinds[:4]},
        },
        seeds=THREE,
        reference="joint",
        seconds=300,
    )
