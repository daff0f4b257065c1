"""A tokenizer that was trained before, fine-tuned on a folder of images at a low rate.

  python -m mq_jax.main --config=configs/folder_finetune.py --workdir=runs/tuned \
      --config.data.dir=IMAGES --config.init_from=runs/mine

Begins with the weights of a run of configs/folder_mqvae.py (with the same word behind both) or of
an export, beside which it needs --config.codebook.kind=embedding. A fifth of the rate, since the
first steps of a full one undo what was learned; a short warm-up, since Adam's moments begin anew.
Of any other run: --config=runs/mine/config.json --config.init_from=runs/mine with these fields.
Cost and result: not measured; rate and epochs are a first guess.
"""

from configs import folder_mqvae


def get_config(preset: str = ""):
    """configs/folder_mqvae.py with the rate and the length of a fine-tuning."""
    config = folder_mqvae.get_config(preset)
    config.init_from = "runs/mine"
    config.train.learning_rate = 2e-5
    # A codebook that is in use has nowhere to go.
    config.outer.learning_rate_ratio = 1.0
    if not preset:
        # A base of data would make anew the codebook of a run that began with another.
        config.codebook.base = "normal"
    config.train.warmup = 0.02
    config.train.epochs = 10
    return config
