"""Small models at a generic point, as a run leaves them, and their exports."""

import functools

import jax
import numpy as np
import runs

from mq_jax.tokenizers.export import make_export
from mq_jax.training.build import build, init_state

VQGAN = {
    "model__kind": "vqgan",
    "model__channels": (8,),
    "model__multipliers": (1, 2),
    "model__blocks": 0,
    "model__attention": (),
    "model__z_channels": 8,
    "model__groups": 4,
    "model__init_std": 0.0,
}
VQVAE = {"model__channels": (4, 8), "model__blocks": 1}
KINDS = {
    "vqvae": VQVAE,
    "vqvae with averages": {**VQVAE, "train__ema_decay": 0.5},
    "vqvae in chunks": {**VQVAE, "codebook__size": 80, "codebook__lookup_chunk": 32},
    "vqgan": VQGAN,
    "vqgan in bfloat16": {**VQGAN, "model__dtype": "bfloat16", "model__remat": True},
}


@functools.cache
def model(kind):
    """(config, objective, state): every leaf drawn, the codewords near the encodings."""
    config = runs.configure(**KINDS[kind])
    built = build(config, 1)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, np.int32)
        name = str(path[-1])
        center = 1.0 if "scale" in name or "var" in name else 0.0
        spread = 0.3 if leaf.ndim < 2 else (3 / np.prod(leaf.shape[:-1])) ** 0.5
        return (center + rng.uniform(-spread, spread, leaf.shape)).astype(np.float32)

    shapes = jax.eval_shape(lambda: init_state(built, config))
    shapes = shapes.replace(rng=jax.ShapeDtypeStruct((), np.int32))
    state = jax.tree_util.tree_map_with_path(draw, shapes)
    return config, built.objective, state


@functools.cache
def export(kind):
    """The model on its own."""
    return make_export(*model(kind))


def images(count, height=32, width=32, seed=1):
    """u8[B, H, W, 3]: noise of several scales, so that many codes occur."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, height // 8 + 1, width // 8 + 1, 3))
    large = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return np.clip(large + rng.normal(0, 20, large.shape), 0, 255).astype(np.uint8)
