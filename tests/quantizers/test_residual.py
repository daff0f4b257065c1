"""Residual quantization: levels upon each other, one axis of codes, who gets which gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import brute_force, normal
from kinds import jit, table

from mq_jax.quantizers.fsq import FSQ
from mq_jax.quantizers.groups import Groups
from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.quantizer import Advanced
from mq_jax.quantizers.residual import Residual
from mq_jax.quantizers.vq import VQ

pytestmark = pytest.mark.usefixtures("float64")

LEVELS = 3


def double(seed, *shape):
    return normal(seed, *shape).astype(np.float64)


def tables(levels=LEVELS):
    """Codebooks of smaller and smaller words, as levels of residuals have."""
    return [0.5**level * double(10 + level, 16, 4) for level in range(levels)]


def in_turn(z, codebooks):
    """(indices, values, residuals before them) of each level, by brute force."""
    indices, values, residuals = [], [], []
    for codebook in codebooks:
        residuals.append(z)
        indices.append(brute_force(z, codebook))
        values.append(codebook[indices[-1]])
        z = z - values[-1]
    return indices, values, residuals


def made(shared=False, **fields):
    """(quantizer, params, state, codebooks of the levels)."""
    quantizer = Residual(VQ(table(), commitment=0.25), LEVELS, shared=shared, **fields)
    codebooks = tables()
    if shared:
        return quantizer, {"embedding": jnp.asarray(codebooks[0])}, (), codebooks[:1] * LEVELS
    params = tuple({"embedding": jnp.asarray(each)} for each in codebooks)
    return quantizer, params, ((),) * LEVELS, codebooks


def pulled(quantizer, params, state, z, cotangent, **options):
    """(Quantized, gradients of <cotangent, z_hat>, gradients of the loss) of z and params."""
    options = {"straight_through": "encoder", "train": True, **options}

    @jit
    def pull(z, params):
        def call(z, params):
            q = quantizer(params, state, z, **options)
            return (q.z_hat, q.loss), q

        _, pullback, q = jax.vjp(call, z, params, has_aux=True)
        nothing = 0 * q.z_hat
        return q, pullback((nothing + cotangent, 0 * q.loss)), pullback((nothing, 1 + 0 * q.loss))

    return pull(z, params)


@pytest.mark.parametrize("shared", [False, True])
def test_each_level_takes_what_is_left_over(shared):
    quantizer, params, state, codebooks = made(shared)
    z = double(0, 5, 3, 4)
    q, *_ = pulled(quantizer, params, state, z, 0.0)
    indices, values, residuals = in_turn(z, codebooks)
    assert quantizer.depth == LEVELS and quantizer.size == 16
    np.testing.assert_array_equal(q.indices, np.stack(indices, -1))
    np.testing.assert_allclose(q.z_q, sum(values), rtol=1e-12)
    np.testing.assert_allclose(q.z_hat, sum(values), rtol=1e-10, atol=1e-12)
    loss = sum(np.mean((r - q) ** 2) for r, q in zip(residuals, values, strict=True))
    np.testing.assert_allclose(q.loss, loss, rtol=1e-10)


def test_z_counts_once_however_many_levels():
    """The estimator is of the sum: g, not J g as a sum of estimators would give."""
    quantizer, params, state, _ = made()
    z, cotangent = double(0, 5, 4), double(2, 5, 4)
    _, (to_z, to_params), _ = pulled(quantizer, params, state, z, cotangent)
    np.testing.assert_array_equal(to_z, cotangent)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(to_params))


def test_each_level_pulls_z_and_its_own_codewords():
    """z gets the sum of a 2 (r_j - q_j) / ND; a row of level j b 2 (q_j - r_j) / ND alone."""
    quantizer, params, state, codebooks = made()
    z = double(0, 5, 4)
    _, _, (to_z, to_params) = pulled(quantizer, params, state, z, 0.0)
    indices, values, residuals = in_turn(z, codebooks)
    pulls = [2 * (r - q) / z.size for r, q in zip(residuals, values, strict=True)]
    np.testing.assert_allclose(to_z, 0.25 * sum(pulls), rtol=1e-9)
    for level in range(LEVELS):
        expected = np.zeros((16, 4))
        np.add.at(expected, indices[level], -pulls[level])
        np.testing.assert_allclose(to_params[level]["embedding"], expected, rtol=1e-9, atol=1e-15)


def test_across_levels_of_a_bilevel_problem_a_loss_sees_its_own_codewords_alone():
    """d2 / dz dC along a direction d of C: -2 / ND (d_1 + ... + d_J), rows of the codes chosen."""
    quantizer = Residual(VQ(table()), LEVELS)
    codebooks = tables()
    params = tuple({"embedding": jnp.asarray(each)} for each in codebooks)
    ahead = tuple({"embedding": double(20 + level, 16, 4)} for level in range(LEVELS))
    z = double(0, 5, 4)

    @jit
    def mixed(z, params):
        def slope(params):
            def loss(z):
                state = ((),) * LEVELS
                return quantizer(params, state, z, straight_through="encoder", train=True).loss

            return jax.grad(loss)(z)

        return jax.jvp(slope, (params,), (ahead,))[1]

    indices, _, _ = in_turn(z, codebooks)
    rows = sum(each["embedding"][chosen] for each, chosen in zip(ahead, indices, strict=True))
    np.testing.assert_allclose(mixed(z, params), -2 * rows / z.size, rtol=1e-9)


def test_rotation_turns_z_onto_the_sum_and_residuals_are_of_values():
    """Levels see the same residuals whatever the estimator, in training and out of it."""
    quantizer, params, state, codebooks = made()
    z = double(0, 5, 4)
    rotated, (to_z, _), _ = pulled(
        quantizer, params, state, z, double(2, 5, 4), straight_through="rotation"
    )
    indices, values, _ = in_turn(z, codebooks)
    np.testing.assert_array_equal(rotated.indices, np.stack(indices, -1))
    np.testing.assert_allclose(rotated.z_hat, sum(values), rtol=1e-9)
    lengths = np.linalg.norm(sum(values), axis=-1) / np.linalg.norm(z, axis=-1)
    ratio = np.linalg.norm(to_z, axis=-1) / np.linalg.norm(double(2, 5, 4), axis=-1)
    np.testing.assert_allclose(ratio, lengths, rtol=1e-9)


def test_dropped_levels_count_neither_in_the_value_nor_in_the_loss():
    """n is uniform in 1..J: over many keys every depth occurs, and no other."""
    quantizer, params, state, codebooks = made(dropout=1.0)
    z = double(0, 5, 4)

    @functools.partial(jit, static_argnames="train")
    def call(key, train=True):
        return quantizer(params, state, z, straight_through="encoder", train=train, rng=key)

    indices, values, residuals = in_turn(z, codebooks)
    sums = [sum(values[: n + 1]) for n in range(LEVELS)]
    pulls = [np.mean((r - q) ** 2) for r, q in zip(residuals, values, strict=True)]
    seen = []
    for seed in range(30):
        q = call(jax.random.key(seed))
        (n,) = (n for n in range(LEVELS) if np.allclose(q.z_q, sums[n], rtol=1e-9))
        np.testing.assert_allclose(q.z_hat, q.z_q, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(q.loss, sum(pulls[: n + 1]), rtol=1e-9)
        np.testing.assert_array_equal(q.indices, np.stack(indices, -1))
        seen.append(n)
    assert np.bincount(seen, minlength=LEVELS).min() >= 4
    np.testing.assert_allclose(call(jax.random.key(0), train=False).z_q, sums[-1], rtol=1e-9)


@dataclasses.dataclass(frozen=True)
class Counting(VQ):
    """A kind whose state counts codes, and whose codewords of a count above five are zeroed."""

    def init(self, rng):
        return super().init(rng)[0], jnp.zeros(self.size, jnp.int32)

    def __call__(self, params, state, z, **options):
        q = super().__call__(params, state, z, **options)
        return q._replace(statistics=code_counts(q.indices, self.size))

    def advance(self, params, state, statistics, rng):
        state = state + jnp.sum(statistics, axis=0)
        often = (state > 5)[:, None]
        replaced = {"embedding": jnp.broadcast_to(often, params["embedding"].shape)}
        return Advanced({"embedding": jnp.where(often, 0, params["embedding"])}, state, replaced)


@pytest.mark.parametrize("shared", [False, True])
def test_a_level_advances_by_its_own_codes_and_what_is_shared_by_those_of_all(shared):
    quantizer = Residual(Counting(table()), 2, shared=shared)
    params, state = quantizer.init(jax.random.key(0))
    z = double(0, 30, 4)
    q = quantizer(params, state, z, straight_through="encoder", train=True)
    parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
    advanced = quantizer.advance(params, state, parts, jax.random.key(1))
    counts = [np.bincount(q.indices[:, level], minlength=16) for level in range(2)]
    assert jax.tree.structure(advanced.replaced) == jax.tree.structure(params)
    if shared:
        np.testing.assert_array_equal(advanced.state, sum(counts))
        assert advanced.state.max() > 5
        np.testing.assert_array_equal(advanced.replaced["embedding"][:, 0], sum(counts) > 5)
    else:
        np.testing.assert_array_equal(advanced.state, counts)


def test_codes_of_residuals_of_groups_lie_level_by_level():
    """[level 1 group 1, level 1 group 2, level 2 group 1, level 2 group 2]."""
    inner = Groups(VQ(table(size=8, dim=2)), 2)
    quantizer = Residual(inner, 2)
    params, state = quantizer.init(jax.random.key(0))
    z = double(0, 5, 4)
    folded = quantizer.fold(params, state)
    codes = np.asarray(quantizer.encode(folded, z))
    assert quantizer.depth == 4 and codes.shape == (5, 4)
    first = inner.encode(folded[0], z)
    left = z - inner.decode(folded[0], first)
    np.testing.assert_array_equal(codes[:, :2], first)
    np.testing.assert_array_equal(codes[:, 2:], inner.encode(folded[1], left))
    sums = inner.decode(folded[0], codes[:, :2]) + inner.decode(folded[1], codes[:, 2:])
    np.testing.assert_array_equal(quantizer.decode(folded, codes), sums)


def test_a_wrong_number_of_codes_is_refused():
    quantizer, params, state, _ = made()
    folded = quantizer.fold(params, state)
    with pytest.raises(ValueError, match="A position has 2 codes; expected 3, on the last axis"):
        quantizer.decode(folded, np.zeros((5, 2), np.int32))


def test_no_levels_and_kinds_that_change_the_channels_are_refused():
    with pytest.raises(ValueError, match="Residual has 0 levels; expected at least 1"):
        Residual(VQ(table()), 0)

    @dataclasses.dataclass(frozen=True)
    class Widening(FSQ):
        dim = 8

    with pytest.raises(ValueError, match="Residual quantizes 2 channels to 8; expected equal"):
        Residual(Widening((3, 3)), 2)
