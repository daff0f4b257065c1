"""CIFAR-10 in 800 steps on two CPU cores: every hyper-gradient and every quantizer.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_quick.py \
      --workdir=DIR --config.data.dir=TFDS

Three seeds where the question is the step, and of what has measured best. Cost: `--dry_run
--count_flops` tells, once an entry was measured.
"""

from configs.quantizers import PRESETS
from configs.suites.budgets import NORMED, PLAIN, QUICK, THREE
from mq_jax.suites import Suite

_STEPS = ("joint", "none", "unrolled", "pipelined")
_LEADING = ("joint-rate10", "unrolled-rate10", "joint-recipe", "unrolled-recipe", "fsq")
_OTHERS = ("finite-difference", "identity", "neumann", "cg", "sama")


def get_suite() -> Suite:
    """MQ's steps, the codebook's rate, all presets, and longer runs of some."""
    entries = {
        **{kind: f"train.hypergradient={kind} {PLAIN}" for kind in _STEPS + _OTHERS},
        "joint-rate10": f"train.hypergradient=joint {PLAIN} outer.learning_rate_ratio=10",
        "unrolled-rate10": f"train.hypergradient=unrolled {PLAIN} outer.learning_rate_ratio=10",
        **{f"{kind}-recipe": f"train.hypergradient={kind}" for kind in ("joint", "unrolled")},
        "joint-wasserstein": "train.hypergradient=joint codebook.base=normal "
        "quantizer.wasserstein=0.5",
        **{f"ln-{kind}": f"train.hypergradient={kind} {NORMED}" for kind in _STEPS},
        "ln-finite-difference": f"train.hypergradient=finite-difference {NORMED}",
        "ln-joint-rate30": f"train.hypergradient=joint {NORMED} outer.learning_rate_ratio=30",
        **{preset: f":{preset}" for preset in PRESETS},
        "l2-unrolled": ":l2 train.hypergradient=unrolled quantizer.commitment=1",
        "simvq-unrolled": ":simvq train.hypergradient=unrolled quantizer.commitment=1",
    }
    longer = (*_STEPS, *_LEADING)
    entries |= {f"{name}-2400": f"{entries[name]} train.steps=2400" for name in longer}
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries=entries,
        seeds_of=dict.fromkeys(
            (*_STEPS, *_LEADING, *(f"ln-{kind}" for kind in _STEPS))
            + ("joint-2400", *(f"{name}-2400" for name in _LEADING)),
            THREE,
        ),
        reference="joint",
    )
