"""An unconditional prior over tokens of CelebA.

  python -m mq_jax.main --config=configs/celeba_prior.py --workdir=runs/celeba-prior \
      --config.tokens=runs/celeba

Tokens are made first, by the tokenizer of the run in runs/celeba (configs/celeba_mqvae.py), of both
mirror images. Ours: LlamaGen-B, in bfloat16, for 100 epochs.
Cost and result: not measured.
"""

from configs import prior


def get_config():
    """LlamaGen-B over 16 x 16 codes."""
    config = prior.get_config()
    config.space.height = config.space.width = 16
    config.space.levels = 1
    config.space.size = 1024
    config.prior.size = "B"
    config.prior.conditional = False
    config.prior.dtype = "bfloat16"
    config.train.epochs = 100
    config.train.ema_decay = 0.9999
    config.data.source = "tfds:celeb_a"
    config.data.views = "center,flip"
    config.data.threads = 4
    return config
