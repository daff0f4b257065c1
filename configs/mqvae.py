"""What the paper's MQVAE experiments share; not an experiment itself.

The word `code` behind an experiment takes the released code's values in place of the paper's and of
ours: LayerNorm over z, the mean absolute error, the finite difference, and the codebook by SGD with
momentum 0.9 at one rate for all, once in four inner updates. Its aliasing filter is not among them,
since numbers of unlike filters do not compare: --config.data.filter=bilinear. Another word names a
quantizer, configs/quantizers.py.
"""

from ml_collections import ConfigDict

from configs import base, quantizers

PRESETS = ("code",)

# Widths of the strided convolutions, by the pixels of a side that become one code.
CHANNELS = {4: (32, 64), 8: (32, 64, 64)}


def get_config(*, source: str, image_size: int, downsampling: int) -> ConfigDict:
    """SQ-VAE's net for at most 90 epochs, ended where the loss saturates.

    Args:
      source: as config.data.source.
      image_size: side of the images, pixels.
      downsampling: one of CHANNELS.

    Returns:
      A configuration.

    Raises:
      ValueError: on another downsampling.
    """
    if downsampling not in CHANNELS:
        raise ValueError(f"downsampling is {downsampling}; expected one of {list(CHANNELS)}")
    config = base.get_config()
    config.model.channels = CHANNELS[downsampling]
    config.train.epochs = 90
    config.train.patience = 10
    # On CIFAR-10 less error than at one rate for all on two seeds of three, 9% on the mean
    # (docs/results.md); (code): 1.
    config.outer.learning_rate_ratio = 10.0
    # At no more error 1.6 times as many codes in use, by three seeds; (code): normal.
    config.codebook.base = "kmeans"
    config.data.source = source
    config.data.image_size = image_size
    return config


def with_preset(config: ConfigDict, preset: str) -> ConfigDict:
    """An MQVAE experiment under a preset.

    Args:
      config: the experiment; changed.
      preset: one of PRESETS or of quantizers.PRESETS, or "" for the experiment as it is.

    Returns:
      The configuration.

    Raises:
      ValueError: on an unknown preset.
    """
    if preset == "code":
        config.model.layer_norm = True
        config.train.reconstruction = "l1"
        config.train.hypergradient = "finite-difference"
        config.train.inner_updates = 4
        config.outer.kind, config.outer.b1 = "sgd", 0.9
        config.outer.learning_rate_ratio = 1.0
        config.codebook.base = "normal"
    return quantizers.with_quantizer(config, preset, PRESETS)
