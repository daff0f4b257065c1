"""CVQ-VAE's anchors: which encodings they are, and how far a codeword moves to them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from arrays import brute_force, normal
from kinds import jit, table

from mq_jax.quantizers.anchors import Anchors
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.sphere import cosine_lookup
from mq_jax.quantizers.vq import VQ

pytestmark = pytest.mark.usefixtures("float64")

SIZE, DIM, N = 7, 3, 12
KEY = jax.random.key(3)


def arrays():
    """Codewords and encodings of any norm; the encodings choose the first two codes alone."""
    codewords = 10 + normal(0, SIZE, DIM).astype(np.float64)
    codewords[:2] = [[1.0, 0, 0], [0, 2.0, 0]]
    z = codewords[np.arange(N) % 2] + 0.2 * normal(1, N, DIM)
    assert set(brute_force(z, codewords)) == {0, 1}
    return codewords, z


def _observe(restart, codewords, z, key=KEY):
    return restart.observe(z, codewords, nearest_codeword(z, codewords), key)


observe = jit(_observe, static_argnums=0)


@functools.partial(jit, static_argnums=0)
def advance(restart, codewords, share, parts):
    """Codewords, p and who was replaced, after a step on parts of a batch, f[parts, n, D]."""
    keys = jax.random.split(KEY, len(parts))
    found = jax.vmap(lambda *part: _observe(restart, codewords, *part))(parts, keys)
    return restart.advance(codewords, share, found, KEY)


@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 100])
def test_the_closest_anchor_of_a_code_is_its_nearest_encoding(chunk):
    codewords, z = arrays()
    found = observe(Anchors(chunk=chunk), codewords, z)
    np.testing.assert_array_equal(found["anchors"], z[brute_force(codewords, z)])
    np.testing.assert_array_equal(found["counts"], [6, 6, 0, 0, 0, 0, 0])


def test_by_the_cosine_angles_are_compared_and_the_anchor_keeps_its_norm():
    codewords, z = arrays()
    z[3] *= 9
    found = observe(Anchors(cosine=True, chunk=3), codewords, z)
    cosines = codewords @ z.T / np.linalg.norm(z, axis=1)
    np.testing.assert_array_equal(found["anchors"], z[np.argmax(cosines, axis=1)])
    assert (np.argmax(cosines, axis=1) != brute_force(codewords, z)).any()


@pytest.mark.parametrize("cosine, temperature", [(False, 0.5), (True, 2.0)])
def test_probrandom_draws_from_the_softmax_over_encodings_of_a_batch_in_parts(cosine, temperature):
    codeword, z = normal(0, 1, DIM).astype(np.float64), normal(1, 6, DIM).astype(np.float64)
    restart = Anchors("probrandom", cosine=cosine, temperature=temperature, chunk=500)
    many = np.tile(codeword, (4000, 1))
    # p of a code that is idle; the one code in use stays out.
    drawn, _, replaced = advance(restart, many, np.zeros(len(many)), z.reshape(2, 3, DIM))
    which = brute_force(np.asarray(drawn)[np.asarray(replaced)], z)
    logits = -np.sum((codeword - z) ** 2, axis=1) / temperature
    if cosine:
        logits = codeword @ z.T / np.linalg.norm(z, axis=1) / np.linalg.norm(codeword)
    expected = scipy.special.softmax(logits.ravel())
    np.testing.assert_allclose(np.bincount(which, minlength=6) / len(which), expected, atol=0.03)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_blend_is_the_formula_and_takes_anchors_from_the_whole_batch(parts):
    codewords, z = arrays()
    before = np.array([0.4, 1e-4, 1e-5, 1e-6, 0, 0, 0.1])
    n = np.bincount(brute_force(z, codewords), minlength=SIZE)
    share = 0.9 * before + 0.1 * n / N
    a = np.exp(-share * SIZE * 10 / (1 - 0.9) - 1e-3)[:, None]
    expected = (1 - a) * codewords + a * z[brute_force(codewords, z)]
    found = advance(Anchors(decay=0.9), codewords, before, z.reshape(parts, -1, DIM))
    np.testing.assert_allclose(found[0], expected)
    np.testing.assert_allclose(found[1], share)
    np.testing.assert_array_equal(found[2], a[:, 0] > 0.5)


def test_idle_codes_are_replaced_at_once_and_codes_in_use_do_not_move():
    codewords, z = arrays()
    moved, _, replaced = advance(Anchors(), codewords, np.zeros(SIZE), z[None])
    np.testing.assert_array_equal(replaced, np.arange(SIZE) >= 2)
    np.testing.assert_allclose(moved[:2], codewords[:2], atol=1e-12)
    np.testing.assert_allclose(moved[2:], z[brute_force(codewords[2:], z)], atol=0.02)


def test_gradients_are_those_of_vq_and_the_overwriting_comes_after_the_loss():
    """Of the table: z gets g and beta 2 (z - q) / ND; chosen rows 2 (q - z) / ND."""
    codewords, z = arrays()
    quantizer = VQ(table(size=SIZE, dim=DIM), commitment=0.25, restart=Anchors())
    state, g = (np.zeros(SIZE),), normal(2, N, DIM).astype(np.float64)

    def quantize(params, z):
        return quantizer(params, state, z, straight_through="encoder", train=True, rng=KEY)

    @jit
    def step(params, z):
        def values(params, z):
            q = quantize(params, z)
            return jnp.sum(g * q.z_hat), q.loss

        parts = jax.tree.map(lambda leaf: leaf[None], quantize(params, z).statistics)
        advanced = quantizer.advance(params, state, parts, KEY)
        return jax.jacrev(values, argnums=(0, 1))(params, z), advanced

    (decoded, pulled), advanced = step({"embedding": codewords}, z)
    indices = brute_force(z, codewords)
    pull = 2 * (z - codewords[indices]) / z.size
    to_codewords = np.zeros_like(codewords)
    np.add.at(to_codewords, indices, -pull)
    np.testing.assert_array_equal(decoded[1], g)
    assert not np.any(decoded[0]["embedding"])
    np.testing.assert_allclose(pulled[1], 0.25 * pull)
    np.testing.assert_allclose(pulled[0]["embedding"], to_codewords)
    moved, _, replaced = advance(Anchors(), codewords, state[0], z[None])
    np.testing.assert_allclose(advanced.params["embedding"], moved)
    assert advanced.replaced["embedding"].shape == (SIZE, DIM)
    np.testing.assert_array_equal(advanced.replaced["embedding"].all(axis=1), replaced)


def test_a_lookup_by_angle_finds_the_largest_cosine_and_decodes_the_codeword_as_it_is():
    codewords, z = normal(0, SIZE, DIM).astype(np.float64), normal(1, N, DIM).astype(np.float64)
    codewords *= np.arange(1, SIZE + 1)[:, None]
    cosines = z @ codewords.T / np.linalg.norm(codewords, axis=1)
    quantizer = VQ(table(size=SIZE, dim=DIM), cosine_lookup(nearest_codeword))
    found = jit(quantizer.encode)(codewords, z)
    np.testing.assert_array_equal(found, np.argmax(cosines, axis=1))
    assert cosine_lookup(nearest_codeword) is cosine_lookup(nearest_codeword)


def test_anchors_by_another_name_are_refused():
    with pytest.raises(ValueError, match="anchors are by 'random'; expected one of"):
        Anchors("random")


def test_a_restart_of_codewords_that_a_net_computes_is_refused():
    with pytest.raises(ValueError, match="kind 'mlp' computes; expected kind 'embedding'"):
        VQ(table("mlp"), restart=Anchors())
