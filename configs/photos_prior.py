"""A prior over the tokens of the embedded photographs, for two CPU cores.

  bash launch/quickstart.sh --with-prior
  python -m mq_jax.main --config=configs/photos_prior.py --workdir=runs/photos-prior \
      --config.tokens=runs/photos

Tokens are made first, by the tokenizer of the run in runs/photos (configs/photos_mqvae.py), of 8
random crops of each of the 315 training records; the photograph is the class. 1.3 M parameters.
Measured: 15 minutes on one core beside other programs. Six photographs are soon known by heart: on
held-out regions the best step is the 300th, with 7.46 bits a token; on its crops it ends with 1.7.
Draw from the last step to see what it knows: --mode=sample --step=1000 --top_p=0.9.
"""

from configs import prior


def get_config():
    """A small decoder, with a larger rate and averages, since steps are few; nothing is dropped."""
    config = prior.get_config()
    config.prior.layers = 4
    config.prior.qk_norm = True
    config.prior.token_dropout = config.prior.residual_dropout = config.prior.ffn_dropout = 0.0
    config.train.steps = 1000
    config.train.batch_size = 8
    config.train.learning_rate = 2e-3
    config.train.schedule = "cosine"
    config.train.warmup = 0.1
    config.train.ema_decay = 0.99
    config.train.log_every = 20
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    config.data.source = "photos"
    config.data.views = "random:8"
    config.eval.batch_size = 10
    return config
