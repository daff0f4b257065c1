"""What the large MQGAN experiments share; not an experiment itself.

A preset says whose values hold where the paper and the released code differ:

  paper  the paper's; where it is silent, the code's, but for the adversarial phase, which is ours:
         the discriminator learns before its verdict counts, and the weight of that rises over a
         ramp.
  code   the released code's: the codebook by SGD with momentum 0.9, once in four inner updates;
         an aliasing filter; a discriminator that starts to learn, at learning rate 0, in the very
         step in which its loss enters at full weight. Its Adam's eps (1e-7), lambda_q (0.1),
         LayerNorm over z and kernels from N(0, 0.02^2) are also `paper`'s. Its hyper-gradient, a
         finite difference at a step too small for bfloat16, is not followed:
         --config.train.hypergradient=finite-difference --config.model.dtype=float32.

Another word names a quantizer, configs/quantizers.py, over the values of `paper`.
"""

from ml_collections import ConfigDict

from configs import base

PRESETS = ("paper", "code")

# Multipliers of VQGAN's published nets, by the pixels of a side that become one code.
MULTIPLIERS = {8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}


def get_config(
    preset: str,
    *,
    source: str,
    image_size: int,
    codewords: int,
    epochs: int,
    batch_size: int,
    adversarial_from: float,
) -> ConfigDict:
    """MQGAN in bfloat16, for eight GPUs; 16 x 16 codes an image.

    Args:
      preset: `code` for the released code's values; any other for the paper's.
      source: as config.data.source.
      image_size: side of the images, pixels: 16 times one of MULTIPLIERS.
      codewords: K.
      epochs: of the whole run.
      batch_size: images of all devices.
      adversarial_from: share of the steps after which the adversarial term sets in.

    Returns:
      A configuration.

    Raises:
      ValueError: on a size without a net.
    """
    nets = {16 * downsampling: multipliers for downsampling, multipliers in MULTIPLIERS.items()}
    if image_size not in nets:
        raise ValueError(f"image_size is {image_size}; expected one of {', '.join(map(str, nets))}")
    config = base.get_config()
    config.model.kind = "vqgan"
    config.model.channels = (128,)
    config.model.multipliers = nets[image_size]
    config.model.blocks = 2
    config.model.layer_norm = True  # (code); what is better without it is MQVAE, no MQGAN was tried
    config.model.dtype = "bfloat16"
    config.model.remat = True
    config.codebook.size = codewords
    config.codebook.lookup_chunk = 4096
    config.train.epochs = epochs
    config.train.batch_size = batch_size
    config.train.learning_rate = 1e-4
    config.train.reconstruction = "l1"
    config.train.patience = 10
    config.perceptual.net = "vgg"
    config.discriminator.weight = 0.8
    config.discriminator.start = adversarial_from
    for optimizer in (config.inner, config.outer, config.disc):
        optimizer.b1, optimizer.b2 = 0.5, 0.9
    config.eval.metrics = ("lpips_vgg",)
    config.eval.monitor = "lpips_vgg"
    config.data.source = source
    config.data.image_size = image_size
    config.data.threads = 2
    config.data.workers = 8
    if preset != "code":
        config.discriminator.train_from = adversarial_from - 0.05
        config.discriminator.ramp = 0.05
    else:
        config.discriminator.train_from = adversarial_from
        config.discriminator.ramp = 0.0
        config.disc.warmup = 0.1
        config.outer.kind, config.outer.b1 = "sgd", 0.9
        config.train.inner_updates = 4
        config.data.filter = "bilinear"
    return config
