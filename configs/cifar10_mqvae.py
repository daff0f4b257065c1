"""MQVAE on CIFAR-10, as in the paper: x4 down to 8 x 8 codes, K = 1024, at most 90 epochs.

  python -m mq_jax.main --config=configs/cifar10_mqvae.py --workdir=runs/cifar10

Data: TFDS's cifar10 in ArrayRecord form, below config.data.dir. No augmentation.
The batch size and lambda_q are not in the paper's text; 64 is ours.
The paper's other columns are words behind the file, :vqvae, :sqvae say: configs/quantizers.py.
Cost and result of the full 90 epochs: not measured. 2,400 steps at 3e-4: MSE 0.0155 on 2,000 test
images, 92.7% of the codes in use, one seed, 25 minutes of one busy core (docs/results.md).
"""

from configs import mqvae


def get_config(preset: str = ""):
    """The paper's CIFAR-10 experiment."""
    config = mqvae.get_config(source="tfds:cifar10", image_size=32, downsampling=4)
    config.data.eval_split = "test"
    return mqvae.with_preset(config, preset)
