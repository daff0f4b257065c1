"""A class-conditional prior over tokens of ImageNet: LlamaGen-B (Sun et al., 2024).

  python -m mq_jax.main --config=configs/imagenet_prior.py --workdir=runs/imagenet-prior \
      --config.tokens=runs/imagenet

`--mode=plan --images=1281167` instead of a workdir tells what it takes; --config.prior.size=L or XL
are the larger ones. Tokens are made first, by the tokenizer of the run in runs/imagenet
(configs/imagenet_mqgan.py), of ten crops at each of two scales. At this size better beforehand, by
--mode=tokens on as many machines as there are; config.tokens and config.eval_tokens then name them.
As published: batch 256, rate 1e-4, 300 epochs, bfloat16. Ours: averages.
Cost and result: not measured.
"""

from configs import prior


def get_config():
    """LlamaGen-B over 16 x 16 codes, K = 65,536."""
    config = prior.get_config()
    config.space.height = config.space.width = 16
    config.space.levels = 1
    config.space.size = 65536
    config.space.classes = 1000
    config.prior.size = "B"
    config.prior.dtype = "bfloat16"
    config.train.ema_decay = 0.9999
    config.train.eval_every = 5000
    config.data.source = "tfds:imagenet2012"
    config.data.views = "ten-crop"
    config.data.threads = 8
    return config
