"""A small class-conditional prior over tokens of CIFAR-10.

  python -m mq_jax.main --config=configs/cifar10_prior.py --workdir=runs/cifar10-prior \
      --config.tokens=runs/cifar10

Tokens are made first, by the tokenizer of the run in runs/cifar10 (configs/cifar10_mqvae.py), of
both mirror images. Ours: eight layers of 256 channels, a cosine, averages.
Cost and result of this size: not measured; of a smaller one on two tokenizers: docs/results.md.
"""

from configs import prior


def get_config():
    """An 8-layer decoder over 8 x 8 codes."""
    config = prior.get_config()
    config.space.height = config.space.width = 8
    config.space.levels = 1
    config.space.size = 1024
    config.space.classes = 10
    config.prior.layers = 8
    config.prior.heads = 8
    config.prior.width = 256
    config.prior.qk_norm = True
    config.train.epochs = 100
    config.train.batch_size = 128
    config.train.learning_rate = 3e-4
    config.train.schedule = "cosine"
    config.train.warmup = 0.05
    config.train.ema_decay = 0.999
    config.data.source = "tfds:cifar10"
    config.data.eval_split = "test"
    config.data.views = "center,flip"
    config.eval.batch_size = 256
    return config
