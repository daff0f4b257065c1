"""An unconditional prior over tokens of FFHQ at 256 x 256.

  python -m mq_jax.main --config=configs/ffhq_prior.py --workdir=runs/ffhq-prior \
      --config.tokens=runs/ffhq --config.data.dir=IMAGES

Tokens are made first, by the tokenizer of the run in runs/ffhq (configs/ffhq_mqgan.py, which says
what IMAGES is), of both mirror images. Ours: LlamaGen-B, in bfloat16, for 300 epochs.
Cost and result: not measured.
"""

from configs import prior


def get_config():
    """LlamaGen-B over 16 x 16 codes, K = 16,384."""
    config = prior.get_config()
    config.space.height = config.space.width = 16
    config.space.levels = 1
    config.space.size = 16384
    config.prior.size = "B"
    config.prior.conditional = False
    config.prior.dtype = "bfloat16"
    config.train.ema_decay = 0.9999
    config.data.source = "folder"
    config.data.train_split = "all[:60000]"
    config.data.eval_split = "all[60000:]"
    config.data.views = "center,flip"
    config.data.threads = 4
    return config
