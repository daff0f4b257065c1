"""The quick start's photographs: MQ's step beside alternating and single-level training.

  python -m mq_jax.main --mode=compare --suite=configs/suites/photos.py --workdir=DIR

Nothing to download; nine runs of the quick start's length.
"""

from configs.suites.budgets import THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """One setting of all else, the experiment's."""
    return Suite(
        experiment="configs/photos_mqvae.py",
        entries={kind: f"train.hypergradient={kind}" for kind in ("joint", "none", "unrolled")},
        seeds=THREE,
        reference="joint",
    )
