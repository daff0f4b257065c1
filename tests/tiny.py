"""An MQVAE small enough to be differentiated twice within a test, and a batch for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mq_jax.algorithm.losses import mean_squared_error
from mq_jax.algorithm.objective import Objective
from mq_jax.algorithm.optim import make_optimizer
from mq_jax.algorithm.state import Parts, TrainState
from mq_jax.models.vqvae import AutoEncoder
from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.nearest import nearest_codeword

# For programs that run a few times only: compiled in a quarter of the time.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)


def make_objective(kind: str = "mlp", *, deep: bool = False, chunk: int = 0) -> Objective:
    """L with 16 codes of 4 channels, for images of 8x8 pixels; a deep one has every layer."""
    channels, blocks = ((4, 8), 1) if deep else ((4,), 0)
    return Objective(
        AutoEncoder(channels, blocks, dim=4, layer_norm=True, init_std=0.02),
        Codebook(kind, size=16, dim=4, embedding_dim=3, hidden=6),
        mean_squared_error,
        quantization_weight=0.5,
        lookup=functools.partial(nearest_codeword, chunk=chunk),
    )


def make_images(batch: int, seed: int) -> jax.Array:
    """f[B, 8, 8, 3] in [-1, 1], of the default float type."""
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (batch, 8, 8, 3)))


def make_parameters(objective: Objective, seed: int = 0) -> tuple:
    """(theta, phi, batch_stats) at a generic point, of the default float type.

    Drawn by NumPy, since compiling the initialisers would take longer than most tests.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        center = 1.0 if path[-1].key in ("scale", "var") else 0.0
        spread = 2.0 if path[-1].key == "embedding" else 0.5
        return jnp.asarray(center + rng.uniform(-spread, spread, leaf.shape))

    key, images = jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: objective.autoencoder.init(key, images, train=True))
    phi = jax.eval_shape(lambda: objective.codebook.init(key))["params"]
    trees = (shapes["params"], phi, shapes.get("batch_stats", {}))
    return jax.tree_util.tree_map_with_path(draw, trees)


def make_state(objective: Objective, optimizers: Parts, seed: int = 0) -> TrainState:
    """A state at step 0."""
    theta, phi, batch_stats = make_parameters(objective, seed)
    params = Parts(theta, phi)
    opt_state = Parts(*[o.init(p) for o, p in zip(optimizers[:2], params[:2], strict=True)])
    rng, anchors = jax.random.key(0), jnp.zeros(2)
    return TrainState(jnp.int32(0), params, opt_state, batch_stats, rng, (), anchors)


def make_adam(learning_rate: float, **changes) -> optax.GradientTransformation:
    """Adam with moments short enough to forget within a test."""
    settings = {"eps": 1e-8, "eps_root": 1e-16, "weight_decay": 0.0, "clip": 0.0, **changes}
    return make_optimizer("adam", lambda count: learning_rate, b1=0.8, b2=0.9, **settings)


def make_sgd(learning_rate: float, momentum: float = 0.0) -> optax.GradientTransformation:
    """SGD."""
    unused = {"b2": 0.0, "eps": 0.0, "eps_root": 0.0, "weight_decay": 0.0, "clip": 0.0}
    return make_optimizer("sgd", lambda count: learning_rate, b1=momentum, **unused)
