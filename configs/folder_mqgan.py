"""MQGAN on a folder of images: any tree of image files, at 256 x 256.

  python -m mq_jax.main --config=configs/folder_mqgan.py --workdir=runs/mine \
      --config.data.dir=IMAGES

x16 down to 16 x 16 codes, K = 16,384. At 128 x 128 with as many codes, for a third of the cost:
--config.data.image_size=128 --config.model.multipliers=1,2,2,4. `--mode=plan` instead of a
workdir tells what it takes on your images; the batch of 32 is over all devices.

Sub-folders `train` and `validation` are the splits where they exist; otherwise a tenth of
the images, by a hash of each path, is held out. Augmentation: the smaller side to the image size,
a random crop, a flip.
Cost and result: not measured; they are your images.
"""

from configs import mqgan, quantizers


def get_config(preset: str = ""):
    """A tokenizer for one's own images."""
    scale = {"image_size": 256, "codewords": 16384, "epochs": 100, "batch_size": 32}
    config = mqgan.get_config("paper", source="folder", **scale, adversarial_from=0.1)
    config.train.eval_every = 2000
    config.train.checkpoint_every = 1000
    config.data.flip = 0.5
    config.eval.batch_size = 32
    return quantizers.with_quantizer(config, preset)
