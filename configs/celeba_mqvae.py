"""MQVAE on CelebA, as in the paper: random crop 140, resize to 128, x8 down to 16 x 16 codes.

  python -m mq_jax.main --config=configs/celeba_mqvae.py --workdir=runs/celeba

Data: TFDS's celeb_a in ArrayRecord form, below config.data.dir.
The paper's other columns are words behind the file, :vqvae, :sqvae say: configs/quantizers.py.
Cost and result: not measured.
"""

from configs import mqvae


def get_config(preset: str = ""):
    """The paper's CelebA experiment."""
    config = mqvae.get_config(source="tfds:celeb_a", image_size=128, downsampling=8)
    config.data.crop = 140
    config.data.threads = 4
    return mqvae.with_preset(config, preset)
