"""Lookup-free and binary spherical quantization against sums over all codes, in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from kinds import jit
from scipy.special import logsumexp

from mq_jax.quantizers.bits import batch_entropy, pack_bits, token_entropy, unpack_bits
from mq_jax.quantizers.bsq import BSQ
from mq_jax.quantizers.lfq import LFQ

pytestmark = pytest.mark.usefixtures("float64")

KINDS = {"lfq": LFQ, "bsq": BSQ}
every_kind = pytest.mark.parametrize("kind", KINDS)


def all_codes(bits):
    """±1 f[2^L, L], the first channel fastest."""
    rows = itertools.product((-1.0, 1.0), repeat=bits)
    return np.array(list(rows))[:, ::-1]


def placed(kind, z):
    """(what is compared with codes, the size of a code's channels)."""
    if kind == "lfq":
        return z, 1.0
    return z / np.linalg.norm(z, axis=-1, keepdims=True), z.shape[-1] ** -0.5


def entropies(z, codes, temperature):
    """(H_t, H_b) from the distribution over all codes, token by token."""
    logits = 2 * z @ codes.T / temperature
    log_p = logits - logsumexp(logits, axis=-1, keepdims=True)
    mean = np.exp(log_p).mean(0)
    return -np.mean(np.sum(np.exp(log_p) * log_p, -1)), -np.sum(mean * np.log(mean))


@functools.partial(jit, static_argnums=0)
def call(quantizer, z):
    return quantizer((), (), z, straight_through="encoder", train=True)


@functools.partial(jit, static_argnums=0)
def pulled_back(quantizer, z, cotangent):
    """Gradients of z: of <cotangent, z_hat>, and of the loss."""

    def both(z):
        q = quantizer((), (), z, straight_through="encoder", train=True)
        return q.z_hat, q.loss

    (z_hat, loss), pullback = jax.vjp(both, z)
    return pullback((cotangent.astype(z_hat.dtype), 0 * loss)), pullback((0 * z_hat, 1 + 0 * loss))


def encodings(bits, rows=7, seed=0):
    return normal(seed, rows, bits).astype(np.float64)


@every_kind
def test_values_indices_and_terms_are_sums_over_all_codes(kind):
    z = encodings(5)
    weights = {"commitment": 0.3, "token_entropy": 0.7, "batch_entropy": 0.2}
    quantizer = KINDS[kind](5, temperature=0.5, **weights)
    q = call(quantizer, z)
    u, scale = placed(kind, z)
    codes = scale * all_codes(5)
    index = np.argmax(u @ codes.T, axis=-1)
    token, batch = entropies(u, codes, 0.5)
    np.testing.assert_array_equal(q.indices, index)
    np.testing.assert_allclose(q.z_q, codes[index], rtol=1e-12)
    np.testing.assert_allclose(q.z_hat, codes[index], rtol=1e-12)
    expected = {
        "commitment": np.mean((u - codes[index]) ** 2),
        "token_entropy": token,
        "batch_entropy": batch,
    }
    assert q.terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(q.terms[name], value, rtol=1e-9)
    loss = 0.3 * expected["commitment"] + 0.7 * token - 0.2 * batch
    np.testing.assert_allclose(q.loss, loss, rtol=1e-9)


@every_kind
def test_the_decoder_reaches_z_by_the_row_of_the_table(kind):
    """LFQ: g. BSQ: J^T g / sqrt(L), J the slope of z / ||z||."""
    z, cotangent = encodings(5), encodings(5, seed=1)
    (found,), _ = pulled_back(KINDS[kind](5), z, cotangent)
    expected = cotangent
    if kind == "bsq":
        length = np.linalg.norm(z, axis=-1, keepdims=True)
        u = z / length
        along = u * np.sum(u * cotangent, axis=-1, keepdims=True)
        expected = (cotangent - along) / length / np.sqrt(5)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@every_kind
@pytest.mark.parametrize("group", [5, 2])
def test_the_gradients_of_the_loss_are_finite_differences(kind, group):
    z = encodings(5)
    quantizer = KINDS[kind](5, commitment=0.3, temperature=0.5, group=group)

    def loss(z):
        return call(quantizer, z).loss

    _, (found,) = pulled_back(quantizer, z, z)
    step = 1e-6
    for place in [(0, 0), (3, 2), (6, 4)]:
        moved = np.zeros_like(z)
        moved[place] = step
        difference = (loss(z + moved) - loss(z - moved)) / (2 * step)
        np.testing.assert_allclose(found[place], difference, rtol=1e-5, atol=1e-9)


@every_kind
def test_all_codes_round_trip_the_first_channel_the_lowest_bit(kind):
    quantizer = KINDS[kind](6)
    table = quantizer.codewords(())
    scale = placed(kind, np.ones((1, 6)))[1]
    np.testing.assert_allclose(table, scale * all_codes(6), rtol=1e-15)
    np.testing.assert_array_equal(quantizer.encode((), table), np.arange(64))
    assert quantizer.size == 64 and quantizer.dim == quantizer.channels == 6


@every_kind
def test_zeros_count_as_negative(kind):
    q = call(KINDS[kind](3), np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(q.indices, [2, 0])
    assert (np.asarray(q.z_q)[1] < 0).all()


def test_encodings_too_short_for_a_direction_have_one_code_wherever_it_is_taken():
    z = np.array([[1e-30, -1e-30, 1e-30]])
    quantizer = BSQ(3)
    np.testing.assert_array_equal(call(quantizer, z).indices, quantizer.encode((), z))


def test_the_codes_of_bsq_have_norm_one():
    np.testing.assert_allclose(np.linalg.norm(BSQ(7).codewords(()), axis=-1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("bits, group, sizes", [(6, 6, [6]), (5, 2, [2, 2, 1]), (7, 4, [4, 3])])
def test_batch_entropy_is_exact_in_a_group_and_the_sum_over_groups(bits, group, sizes):
    logits = encodings(bits)
    edges = np.cumsum([0, *sizes])
    expected = 0.0
    for start, stop in itertools.pairwise(edges):
        part = logits[:, start:stop]
        # Log-odds l of a bit are its logits at ±1 with 2 z / T = l / 2.
        expected += entropies(part / 4, all_codes(stop - start), 1.0)[1]
    np.testing.assert_allclose(batch_entropy(logits, group), expected, rtol=1e-10)
    exact = batch_entropy(logits, bits)
    assert exact <= expected + 1e-12


def test_entropies_at_their_ends():
    """Nothing decided: L ln 2 for both; decided alike: none; every code once: L ln 2 a batch."""
    nothing = np.zeros((4, 3))
    for entropy in (token_entropy(nothing), batch_entropy(nothing, 3)):
        np.testing.assert_allclose(entropy, 3 * np.log(2), rtol=1e-12)
    decided = np.full((4, 3), 1e4)
    assert token_entropy(decided) == batch_entropy(decided, 3) == 0.0
    every = 1e4 * all_codes(3)
    assert token_entropy(every) == 0.0
    np.testing.assert_allclose(batch_entropy(every, 3), 3 * np.log(2), rtol=1e-12)


def test_decided_tokens_have_finite_gradients_in_float32():
    """At temperature 0.01 probabilities are zero in float32, where p ln p has no slope."""
    z = jnp.asarray(100 * normal(0, 4, 5))
    _, (found,) = pulled_back(LFQ(5), z, z)
    assert found.dtype == jnp.float32 and np.isfinite(found).all()


def test_the_batch_entropy_of_many_codes_needs_no_array_of_tokens_by_codes():
    """256 tokens of 2^18 codes: 256 MiB as a matrix; here the table of means and little more."""

    def shapes(jaxpr):
        return [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]

    logits = jax.ShapeDtypeStruct((256, 18), np.float32)
    jaxpr = jax.make_jaxpr(lambda x: batch_entropy(x, 18))(logits)
    assert max(shapes(jaxpr.jaxpr)) == 2**18


def test_bits_write_numbers_and_numbers_bits():
    indices = np.array([0, 1, 2, 6, 2**30 - 1], np.int32)
    bits = unpack_bits(indices, 30)
    np.testing.assert_array_equal(bits[2, :3], [False, True, False])
    np.testing.assert_array_equal(pack_bits(bits), indices)
    assert pack_bits(bits).dtype == jnp.int32


def test_bfloat16_is_compared_in_float32():
    z = jnp.asarray(encodings(5), jnp.bfloat16)
    q = call(LFQ(5), z)
    assert q.loss.dtype == jnp.float32
    np.testing.assert_array_equal(q.indices, LFQ(5).encode((), z))


@every_kind
@pytest.mark.parametrize("fields", [{"bits": 0}, {"bits": 31}, {"bits": 8, "group": 0}])
def test_numbers_of_bits_that_do_not_fit_are_refused(kind, fields):
    with pytest.raises(ValueError, match=f"{kind.upper()} has .* bits; expected 1 to"):
        KINDS[kind](**fields)
