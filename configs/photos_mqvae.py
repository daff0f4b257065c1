"""MQVAE on the embedded photographs: the quick start, with nothing to download.

  bash launch/quickstart.sh
  python -m mq_jax.main --config=configs/photos_mqvae.py --workdir=runs/photos

Trains on random 64 x 64 crops and evaluates on held-out regions of 128 x 128.
Measured on the held-out regions, seeds 0, 1 and 2: MSE 0.0234, 0.0238 and 0.0237, PSNR 23.70, 23.61
and 23.54 dB, 68%, 64% and 70% of the codes in use, which come and go until the learning rate falls.
4.1 to 4.7 minutes from the command to its report, on one of two busy CPU cores.
"""

from configs import base, quantizers


def get_config(preset: str = ""):
    """Minutes on two CPU cores: a third of the residual blocks, a larger learning rate."""
    config = base.get_config()
    config.model.blocks = 2
    config.train.steps = 800
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3
    config.train.log_every = 20
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    # At one rate for all a quarter of the codes come into use, at the same error.
    config.outer.learning_rate_ratio = 20.0
    # As good a picture as from normal numbers, with more codes in use. More images bring no more,
    # and the first step waits for them.
    config.codebook.base = "kmeans"
    config.codebook.base_images = 64
    config.data.source = "photos"
    config.data.image_size = 64
    config.data.eval_image_size = 128
    config.data.resize = False
    config.data.icc = False  # the figures of docs/results.md are of the files' own colours
    config.data.flip = 0.5
    config.eval.batch_size = 2
    config.eval.pictures = 10
    return quantizers.with_quantizer(config, preset)
