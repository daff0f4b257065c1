"""What suites share; not a suite itself."""

from mq_jax.suites import Suite

# Of CIFAR-10: 800 steps in minutes, evaluated on 2,000 test images.
QUICK = (
    "train.steps=800 train.learning_rate=3e-4 train.eval_every=200 train.checkpoint_every=400 "
    "data.eval_split=test[:2000]"
)

# The same without steps, for a budget of seconds.
QUICK_TIME = QUICK.replace("train.steps=800 ", "")

# z as the encoder gives it. Entries whose name begins with `ln-` are with LayerNorm. One rate for
# all and a codebook from random numbers, unless an entry goes on to say otherwise.
_FIRST = "outer.learning_rate_ratio=1 codebook.base=normal"
PLAIN = f"model.layer_norm=False {_FIRST}"
NORMED = f"model.layer_norm=True {_FIRST}"

THREE = (0, 1, 2)


def mqvae_paper(experiment: str) -> Suite:
    """MQ on a VQ-VAE beside its parts and the paper's other columns, three seeds each."""
    kinds = ("unrolled", "pipelined", "none", "joint", "finite-difference")
    presets = ("vqvae", "ema", "sqvae", "cvq", "gumbel", "simvq", "wasserstein", "rotation", "fsq")
    return Suite(
        experiment=experiment,
        entries=_entries(kinds, ":code", presets)
        | {f"{kind}-recipe": f"train.hypergradient={kind}" for kind in ("unrolled", "joint")},
        seeds=THREE,
        reference="joint",
    )


def mqgan_paper(experiment: str) -> Suite:
    """MQ on a VQGAN beside its parts and other quantizers."""
    kinds = ("unrolled", "pipelined", "none", "joint")
    presets = ("vqvae", "ema", "cvq", "vqgan_lc", "simvq", "ibq", "fsq", "lfq", "bsq")
    released = ":code train.hypergradient=finite-difference model.dtype=float32"
    return Suite(
        experiment=experiment, entries=_entries(kinds, released, presets), reference="joint"
    )


def _entries(kinds, released, presets):
    """Hyper-gradients by their kind, the released code's values, presets by their word."""
    return {
        **{kind: f"train.hypergradient={kind} {_FIRST}" for kind in kinds},
        "code": released,
        **{preset: f":{preset}" for preset in presets},
    }
