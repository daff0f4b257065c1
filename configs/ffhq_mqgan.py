"""MQGAN on FFHQ at 256 x 256, as in the paper: K = 16,384, 800 epochs.

  python -m mq_jax.main --config=configs/ffhq_mqgan.py --workdir=runs/ffhq \
      --config.data.dir=IMAGES

`--mode=plan --images=60000` instead of a workdir tells what it takes. For the values of the
released code: --config=configs/ffhq_mqgan.py:code; configs/mqgan.py says what differs.

Data: a folder with FFHQ's 70,000 images, of 256 pixels or larger, named so that their order is
that of the set (00000.png to 69999.png, in sub-folders or not): the first 60,000 train, the other
10,000 validate. FFHQ is not in TFDS; a set of that name that you prepared as ArrayRecord, with a
feature `image`, is read by --config.data.source=tfds:ffhq --config.data.train_split=train[:60000]
--config.data.eval_split=train[60000:] and data.dir as TFDS's data_dir.
Ours, the paper being silent: x16 down to 16 x 16 codes (VQ-f16's net), a batch of 64 images over
all devices, a whole state on each GPU, and the adversarial phase.
Moving averages of the weights, which the paper does not have: --config.train.ema_decay=0.999.
The paper's other columns are words behind the file, :vqvae, :vqgan_lc say: configs/quantizers.py.
Cost and result: not measured; docs/results.md has the plan.
"""

from configs import mqgan, quantizers


def get_config(preset: str = "paper"):
    """The paper's FFHQ experiment."""
    scale = {"image_size": 256, "codewords": 16384, "epochs": 800, "batch_size": 64}
    config = mqgan.get_config(preset, source="folder", **scale, adversarial_from=0.1)
    config.train.eval_every = 10_000
    config.train.checkpoint_every = 2000
    config.data.train_split = "all[:60000]"
    config.data.eval_split = "all[60000:]"
    return quantizers.with_quantizer(config, preset, mqgan.PRESETS)
