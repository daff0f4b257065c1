"""A tokenizer of others, brought by --mode=import: what it is evaluated on, and trained on further.

  python -m mq_jax.main --config=configs/imported.py --mode=import --from=FILE \
      --workdir=runs/imported

`--mode=import` takes this file where no other is named; then
`--mode=evaluate --workdir=runs/imported --images=IMAGES`, say.

The net, K, D, the quantizer and the preparation of images are the file's, whatever stands here;
--config.data.image_size, .filter and others that are given win. Evaluation without --images is of
the embedded photographs, held-out regions.
Training goes on from the weights with fresh optimizers: `--workdir=runs/imported` alone; ours, no
published recipe: L1, LPIPS and the plain loss of VQ-VAE, beta 0.25, at a low rate.
Cost and result: not measured.
"""

from configs import base


def get_config():
    """Fine-tuning, on one level."""
    config = base.get_config()
    config.model.kind = "vqgan"
    config.model.channels = (128,)
    config.model.blocks = 2
    config.codebook.kind = "embedding"
    config.codebook.base = "scaled"
    config.codebook.lookup_chunk = 4096
    config.quantizer.commitment = 0.25
    config.train.hypergradient = "joint"
    config.train.steps = 1000
    config.train.batch_size = 8
    config.train.learning_rate = 1e-5
    config.train.quantization_weight = 1.0
    config.train.reconstruction = "l1"
    config.perceptual.net = "vgg"
    config.inner.b1, config.inner.b2 = 0.5, 0.9
    config.outer.b1, config.outer.b2 = 0.5, 0.9
    # A discriminator that the file has goes on at once; without one there is none.
    config.disc.b1, config.disc.b2 = 0.5, 0.9
    config.eval.batch_size = 8
    config.data.source = "photos"
    config.data.image_size = 256
    return config
