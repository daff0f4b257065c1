"""An MQGAN as small as the MQVAE of tiny.py: its nets, a perceptual term, a discriminator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

from mq_jax.algorithm import mq
from mq_jax.algorithm.adversary import Adversary, make_adversarial_weight
from mq_jax.algorithm.losses import ADVERSARIAL_LOSSES
from mq_jax.algorithm.objective import Adversarial, Perceptual
from mq_jax.algorithm.state import Parts, TrainState
from mq_jax.models.discriminator import Discriminator
from mq_jax.models.vqgan import AutoEncoder

# At 8 x 8 pixels: the weights of a perceptual distance, f[3, 3, 3, 4].
FROZEN = np.random.default_rng(7).normal(size=(3, 3, 3, 4)) / 3


def distance(weights, images, reconstructions):
    """A perceptual distance with second derivatives: between smooth features of the images."""

    def features(x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jnp.tanh(
            jax.lax.conv_general_dilated(x, weights, (1, 1), "SAME", None, None, dimensions)
        )

    return jnp.mean((features(images) - features(reconstructions)) ** 2, axis=(1, 2, 3))


def make_discriminator(norm: str = "none") -> Discriminator:
    """Patches of 10 x 10 pixels; 2 x 2 logits."""
    return Discriminator(channels=4, layers=1, norm=norm, dtype=jnp.float64)


def make_problem(
    optimizers: Parts,
    *,
    loss: str = "hinge",
    norm: str = "none",
    adaptive: bool = True,
    cap: float = 1e4,
    vqgan: bool = False,
    weight=lambda step: 0.8 * jnp.ones(()),
    ema_decay: float = 0.0,
    parts: int = 1,
    **adversary,
) -> mq.Problem:
    """L with every term, for images of 8 x 8 pixels."""
    discriminator = make_discriminator(norm)
    generator_loss, discriminator_loss = ADVERSARIAL_LOSSES[loss]
    objective = tiny.make_objective()._replace(
        perceptual=Perceptual(distance, weight=0.7),
        adversarial=Adversarial(discriminator, generator_loss, adaptive, cap),
    )
    if vqgan:
        objective = objective._replace(autoencoder=make_vqgan())
    adversary = {"train_from": 0, **adversary}
    return mq.Problem(
        objective,
        optimizers,
        Adversary(discriminator, discriminator_loss, weight, **adversary),
        ema_decay,
        parts,
    )


def make_vqgan() -> AutoEncoder:
    """Two levels, one block each, attention at the lower."""
    return AutoEncoder(
        channels=4,
        multipliers=(1, 1),
        blocks=1,
        attention=(1,),
        dim=4,
        z_channels=4,
        groups=2,
        layer_norm=True,
        init_std=0.0,
        dtype=jnp.float64,
        remat=False,
    )


def make_state(problem: mq.Problem, seed: int = 0) -> TrainState:
    """A state at step 0, of the default float type."""
    objective, optimizers = problem.objective, problem.optimizers
    theta, phi, batch_stats = tiny.make_parameters(objective, seed)
    discriminator, images = problem.adversary.discriminator, jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: discriminator.init(jax.random.key(0), images))["params"]
    rng = np.random.default_rng(seed + 1)
    psi = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(-0.5, 0.5, leaf.shape)), shapes)
    params = Parts(theta, phi, psi)
    opt_state = Parts(*[o.init(p) for o, p in zip(optimizers, params, strict=True)])
    ema = jax.tree.map(jnp.copy, Parts(theta, phi)) if problem.ema_decay else ()
    anchors = jnp.asarray([0.3, -0.2])
    return TrainState(
        jnp.asarray(0, jnp.int32), params, opt_state, batch_stats, jax.random.key(0), ema, anchors
    )


def ramp(start: int, length: int, weight: float = 0.8):
    """The weight that sets in at a step and rises."""
    return make_adversarial_weight(weight, start=start, ramp=length)


def sgd_parts(*rates: float) -> Parts:
    """SGD for each part."""
    return Parts(*[optax.sgd(rate) for rate in rates])
