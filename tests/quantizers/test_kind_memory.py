"""What each kind holds at K = 65,536, as XLA plans it: never encodings times codewords."""

import jax
import jax.numpy as jnp
import pytest
from kinds import jit, table

from mq_jax.quantizers.anchors import Anchors
from mq_jax.quantizers.ema import EMA
from mq_jax.quantizers.entropy import Entropy
from mq_jax.quantizers.gumbel import Gumbel
from mq_jax.quantizers.ibq import IBQ
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.sqvae import SQVAE
from mq_jax.quantizers.usage_restart import UsageRestart
from mq_jax.quantizers.vq import VQ
from mq_jax.quantizers.wasserstein import Wasserstein

N, D, SIZE, CHUNK = 4096, 32, 65536, 512
PRODUCT = N * SIZE * 4


def lookup(z, codebook):
    return nearest_codeword(z, codebook, chunk=CHUNK)


def words():
    return table("embedding", SIZE, D)


KINDS = {
    "ema": lambda chunk: EMA(SIZE, D, lookup, restart_below=0.5),
    "cvq closest": lambda chunk: VQ(words(), lookup, restart=Anchors(chunk=chunk)),
    "cvq probrandom": lambda chunk: VQ(words(), lookup, restart=Anchors("probrandom", chunk=chunk)),
    "usage restart": lambda chunk: VQ(words(), lookup, restart=UsageRestart()),
    "wasserstein": lambda chunk: VQ(words(), lookup, terms=(Wasserstein(),)),
    "entropy": lambda chunk: VQ(words(), lookup, terms=(Entropy(chunk=chunk),)),
    "sqvae": lambda chunk: SQVAE(words(), "III", lookup, chunk=chunk),
    "gumbel": lambda chunk: Gumbel(words(), D, chunk=chunk),
    "ibq": lambda chunk: IBQ(words(), chunk=chunk),
}


def temporary(quantizer):
    """Bytes of temporaries of a step: values, gradients, and the state a step later."""

    def step(params, state, z, rng):
        def loss(params, z):
            q = quantizer(params, state, z, straight_through="encoder", train=True, rng=rng)
            return q.loss + jnp.sum(jnp.square(q.z_hat)), q

        gradients, q = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, z)
        parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
        return gradients, q.indices, quantizer.advance(params, state, parts, rng)[:2]

    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(quantizer.init, key)
    z = jax.ShapeDtypeStruct((N, quantizer.channels), jnp.float32)
    compiled = jit(step).lower(params, state, z, key).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_holds_a_chunk_of_the_product_and_a_few_codebooks(kind):
    """Of 1,024 MiB: arrays of a chunk of 8 MiB each, and as large codebooks."""
    assert temporary(KINDS[kind](CHUNK)) < PRODUCT / 8


def test_without_chunks_the_product_is_whole():
    assert temporary(KINDS["ibq"](0)) >= PRODUCT
