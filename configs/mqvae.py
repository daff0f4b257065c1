"""What the paper's MQVAE experiments share; not an experiment itself."""

from ml_collections import ConfigDict

from configs import base

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
    config.data.source = source
    config.data.image_size = image_size
    return config
