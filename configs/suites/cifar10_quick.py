"""CIFAR-10 in 800 steps: every hyper-gradient, with and without LayerNorm, and every quantizer.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_quick.py --workdir=DIR \
      --config.data.dir=TFDS

For two CPU cores. Validation on 2,000 test images; three seeds where the question is the step.
"""

from mq_jax.suites import Suite


def get_suite() -> Suite:
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides="train.steps=800 train.learning_rate=3e-4 train.eval_every=400 "
        "train.checkpoint_every=400 data.eval_split=test[:2000]",
        entries={"joint": "train.hypergradient=joint", "fsq": ":fsq"},
        reference="joint",
    )
