"""A prior over the tokens of the embedded photographs, for two CPU cores.

  python -m mq_jax.main --config=configs/photos_prior.py --workdir=runs/photos-prior \
      --config.tokens=runs/photos

Tokens are made first, by the tokenizer of the run in runs/photos (configs/photos_mqvae.py), of 32
random crops of each training image. About 2 M parameters.
Cost and result: not measured.
"""

from configs import prior


def get_config():
    """A small decoder, with a larger rate and averages, since steps are few."""
    config = prior.get_config()
    config.prior.qk_norm = True
    config.train.steps = 400
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.warmup = 0.1
    config.train.ema_decay = 0.99
    config.train.log_every = 20
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    config.data.source = "photos"
    config.data.views = "random:32"
    config.eval.batch_size = 10
    return config
