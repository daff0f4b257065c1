"""MQGAN on the embedded photographs: LPIPS and a discriminator under MQ, on a laptop.

  python -m mq_jax.main --config=configs/photos_mqgan.py --workdir=runs/photos_mqgan

The nets are those of the quick start, and LPIPS in training is AlexNet's: on a CPU, VGG's takes 20
times as long, and a VQGAN of 16 channels twice as long as all of this. The discriminator learns
from one sixth of the steps on and weighs from one third on. LPIPS in evaluation is VGG's.
Measured on two shared CPU cores: 21.5 minutes beside other work, about 17 alone; PSNR 23.15 dB and
LPIPS 0.370 on the held-out regions, against 23.07 dB and 0.444 of L1 alone (docs/results.md).
"""

from configs import photos_mqvae, quantizers


def get_config(preset: str = ""):
    """The quick start, with what makes it an MQGAN; minutes on two CPU cores."""
    config = photos_mqvae.get_config()
    # As measured; nothing was measured with those of the quick start.
    config.model.layer_norm = True  # (code)
    config.outer.learning_rate_ratio = 1.0  # (code)
    config.codebook.base, config.codebook.base_images = "normal", 2048
    config.train.steps = 1200
    config.train.reconstruction = "l1"  # (code)
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
    config.eval.metrics = ("lpips_vgg",)
    config.eval.monitor = "lpips_vgg"
    return quantizers.with_quantizer(config, preset)
