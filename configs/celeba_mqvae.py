"""MQVAE on CelebA, as in the paper: random crop 140, resize to 128, x8 down to 16 x 16 codes.

  python -m mq_jax.main --config=configs/celeba_mqvae.py --workdir=runs/celeba

Data: TFDS's celeb_a in ArrayRecord form, below config.data.dir.
Cost and result: not measured.
"""

from configs import base


def get_config():
    """The paper's CelebA experiment."""
    config = base.get_config()
    config.model.channels = (32, 64, 64)
    config.train.epochs = 90
    config.train.patience = 10
    config.data.source = "tfds:celeb_a"
    config.data.image_size = 128
    config.data.crop = 140
    config.data.threads = 4
    return config
