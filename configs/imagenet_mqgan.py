"""MQGAN on ImageNet at 128 x 128, as in the paper: K = 65,536, 20 epochs.

  python -m mq_jax.main --config=configs/imagenet_mqgan.py --workdir=runs/imagenet

`--mode=plan --images=1281167` instead of a workdir tells what it takes. For the values of the
released code: --config=configs/imagenet_mqgan.py:code; configs/mqgan.py says what differs.

Data: TFDS's imagenet2012 in ArrayRecord form, below config.data.dir; or the images themselves, in a
folder with the sub-folders `train` and `val`, each with a folder for every class (n01440764, ...;
in `val` they may lack: classes change nothing here):

  python -m mq_jax.main --config=configs/imagenet_mqgan.py --workdir=runs/imagenet \
      --config.data.source=folder --config.data.dir=IMAGENET

Augmentation as in the paper: the smaller side to 128, a random crop, a flip.
Ours, the paper being silent: x8 down to 16 x 16 codes (VQ-f8's net), a batch of 256 images over
all devices, a whole state on each GPU, and the adversarial phase.
Moving averages of the weights, which the paper does not have: --config.train.ema_decay=0.999.
The paper's other columns are words behind the file, :vqvae, :fsq say: configs/quantizers.py.
Cost and result: not measured; docs/results.md has the plan.
"""

from configs import mqgan, quantizers


def get_config(preset: str = "paper"):
    """The paper's ImageNet experiment."""
    scale = {"image_size": 128, "codewords": 65536, "epochs": 20, "batch_size": 256}
    config = mqgan.get_config(preset, source="tfds:imagenet2012", **scale, adversarial_from=0.2)
    config.train.eval_every = 5000
    config.train.checkpoint_every = 1000
    config.data.flip = 0.5
    return quantizers.with_quantizer(config, preset, mqgan.PRESETS)
