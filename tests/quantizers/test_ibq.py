"""Index backpropagation: the one-hot choice in value, the softmax in slope."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from arrays import normal
from kinds import jit, table

from mq_jax.quantizers.ibq import IBQ

pytestmark = pytest.mark.usefixtures("float64")

N, SIZE, DIM = 5, 7, 3


def make(**fields):
    """(quantizer, codewords, z), in float64."""
    quantizer = IBQ(table(size=SIZE, dim=DIM), **fields)
    return quantizer, normal(0, SIZE, DIM).astype(np.float64), normal(1, N, DIM).astype(np.float64)


def quantize(quantizer, codewords, z, train=True):
    params = {"embedding": codewords}
    return quantizer(params, (), z, straight_through="encoder", train=train)


def through_softmax(codewords, z, to_z_hat, scale=1.0):
    """What a gradient of z_hat gives to codewords and z: by the choice, and by the logits."""
    p = scipy.special.softmax(scale * z @ codewords.T, axis=1)
    to_p = to_z_hat @ codewords.T
    to_logits = scale * p * (to_p - np.sum(p * to_p, axis=1, keepdims=True))
    to_codewords = to_logits.T @ z
    np.add.at(to_codewords, np.argmax(z @ codewords.T, axis=1), to_z_hat)
    return to_codewords, to_logits @ codewords


def test_the_code_is_that_of_the_largest_product_not_of_the_nearest_codeword():
    quantizer, codewords, z = make()
    codewords[2] *= 50
    q = jit(functools.partial(quantize, quantizer))(codewords, z)
    expected = np.argmax(z @ codewords.T, axis=1)
    np.testing.assert_array_equal(q.indices, expected)
    assert 2 in expected and (np.sum((z - codewords[2]) ** 2, axis=1) > 100).all()
    np.testing.assert_array_equal(q.z_hat, codewords[expected])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_decoders_gradient_passes_through_the_logits_alone(scale):
    quantizer, codewords, z = make(scale=scale, chunk=3)
    g = normal(2, N, DIM).astype(np.float64)

    @jit
    def gradients(codewords, z):
        return jax.grad(lambda *a: jnp.sum(g * quantize(quantizer, *a).z_hat), argnums=(0, 1))(
            codewords, z
        )

    to_codewords, to_z = gradients(codewords, z)
    expected = through_softmax(codewords, z, g, scale)
    np.testing.assert_allclose(to_codewords, expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(to_z, expected[1], rtol=1e-9, atol=1e-12)
    # Every codeword learns, chosen or not.
    assert np.abs(to_codewords).sum(axis=1).min() > 0


@pytest.mark.parametrize(
    "double, commitment, codebook", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0.25)]
)
def test_the_pulls_move_z_and_codewords_as_their_weights_say(double, commitment, codebook):
    quantizer, codewords, z = make(
        double=double, commitment=commitment, codebook_weight=codebook, entropy_weight=0.0
    )

    @jit
    def gradients(codewords, z):
        loss = lambda *a: quantize(quantizer, *a).loss  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1))(codewords, z)

    chosen = np.argmax(z @ codewords.T, axis=1)
    pull = 2 * (codewords[chosen] - z) / z.size
    to_codewords, to_z = through_softmax(codewords, z, double * pull)
    np.add.at(to_codewords, chosen, codebook * pull)
    to_z -= (double + commitment) * pull
    loss, found = gradients(codewords, z)
    np.testing.assert_allclose(found[0], to_codewords, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], to_z, rtol=1e-9, atol=1e-12)
    square = np.mean((z - codewords[chosen]) ** 2)
    np.testing.assert_allclose(loss, (double + max(commitment, codebook)) * square)


def test_the_entropy_is_of_logits_over_its_temperature():
    quantizer, codewords, z = make(entropy_temperature=0.5, entropy_weight=0.05)
    without, *_ = make(entropy_weight=0.0)
    p = scipy.special.softmax(z @ codewords.T / 0.5, axis=1)
    alone = np.mean(scipy.special.entr(p).sum(axis=1))
    together = scipy.special.entr(p.mean(axis=0)).sum()
    q, plain = (jit(functools.partial(quantize, it))(codewords, z) for it in (quantizer, without))
    np.testing.assert_allclose(q.terms["entropy"], alone - together)
    np.testing.assert_allclose(q.loss - plain.loss, 0.05 * (alone - together))
    assert sorted(plain.terms) == ["hard", "soft"]


def test_a_softmax_that_saturates_starves_all_codes_but_the_chosen_and_the_scale_feeds_them():
    """D = 256 and normal codewords: products spread by 16."""
    codewords, z, g = (normal(seed, n, 256) for seed, n in enumerate((32, 8, 8)))
    chosen = np.unique(np.argmax(z @ codewords.T, axis=1))
    others = {}

    def decoded(codewords, scale):
        quantizer = IBQ(table(size=32, dim=256), scale=scale)
        return jnp.sum(g * quantize(quantizer, codewords, z).z_hat)

    gradient = jit(jax.grad(decoded))
    for scale in (1.0, 256**-0.5):
        to_codewords = np.asarray(gradient(codewords, scale))
        others[scale] = np.median(np.linalg.norm(np.delete(to_codewords, chosen, axis=0), axis=1))
    assert others[1.0] < others[256**-0.5] / 10
