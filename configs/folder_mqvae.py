"""MQVAE on a folder of images: any tree of image files.

  python -m mq_jax.main --config=configs/folder_mqvae.py --workdir=runs/mine \
      --config.data.dir=IMAGES

Sub-folders `train` and `validation` are the splits where they exist; otherwise a tenth of
the images, by a hash of each path, is held out. Augmentation as the paper has it for ImageNet:
the smaller side to 128, a random crop, a flip.
Cost and result: not measured; they are your images.
"""

from configs import mqvae


def get_config(preset: str = ""):
    """A tokenizer for one's own images at 128 pixels, 16 x 16 codes."""
    config = mqvae.get_config(source="folder", image_size=128, downsampling=8)
    config.data.flip = 0.5
    config.data.threads = 4
    return mqvae.with_preset(config, preset)
