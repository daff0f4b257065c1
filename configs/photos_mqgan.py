"""MQGAN on the embedded photographs: LPIPS and a discriminator, on a laptop.

  python -m mq_jax.main --config=configs/photos_mqgan.py --workdir=runs/photos_mqgan

Cost and result: not measured.
"""

from configs import base


def get_config():
    """Minutes on two CPU cores: a narrow VQGAN at x4 down, one outer update to four inner ones."""
    config = base.get_config()
    config.model.blocks = 2
    config.train.steps = 1200
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3
    config.train.reconstruction = "l1"
    config.train.log_every = 20
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    config.perceptual.net = "alex"
    config.discriminator.weight = 0.3
    config.discriminator.start = 1 / 3
    config.discriminator.train_from = 1 / 6
    config.discriminator.ramp = 0.1
    config.discriminator.channels = 32
    config.discriminator.layers = 2
    config.discriminator.norm = "group"
    config.disc.b1 = 0.5
    config.disc.b2 = 0.9
    config.data.source = "photos"
    config.data.image_size = 64
    config.data.eval_image_size = 128
    config.data.resize = False
    config.data.flip = 0.5
    config.eval.batch_size = 2
    config.eval.lpips = "vgg"
    config.eval.monitor = "lpips"
    config.eval.pictures = 10
    return config
