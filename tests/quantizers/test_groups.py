"""Product quantization: slices of channels that know nothing of each other."""

import jax
import numpy as np
import pytest
from arrays import brute_force, normal
from kinds import jit, table

from mq_jax.quantizers.fsq import FSQ
from mq_jax.quantizers.groups import Groups
from mq_jax.quantizers.lfq import LFQ
from mq_jax.quantizers.residual import Residual
from mq_jax.quantizers.vq import VQ

pytestmark = pytest.mark.usefixtures("float64")


def double(seed, *shape):
    return normal(seed, *shape).astype(np.float64)


def test_each_slice_has_its_own_codebook_and_the_loss_is_a_mean_over_all_channels():
    """z gets g and a 2 (z - q) / ND with all D channels; rows of a group its slice's alone."""
    quantizer = Groups(VQ(table(dim=2), commitment=0.25), 3)
    codebooks = [double(10 + group, 16, 2) for group in range(3)]
    params = tuple({"embedding": each} for each in codebooks)
    z, cotangent = double(0, 5, 6), double(1, 5, 6)

    @jit
    def pull(z, params):
        def call(z, params):
            q = quantizer(params, ((),) * 3, z, straight_through="encoder", train=True)
            return (q.z_hat, q.loss), q

        _, pullback, q = jax.vjp(call, z, params, has_aux=True)
        decoded, _ = pullback((cotangent, 0 * q.loss))
        return q, decoded, pullback((0 * q.z_hat, 1 + 0 * q.loss))

    q, decoded, (to_z, to_params) = pull(z, params)
    slices = np.split(z, 3, axis=-1)
    indices = [brute_force(*each) for each in zip(slices, codebooks, strict=True)]
    values = np.concatenate([c[i] for c, i in zip(codebooks, indices, strict=True)], -1)
    pull_on_z = 2 * (z - values) / z.size
    np.testing.assert_array_equal(q.indices, np.stack(indices, -1))
    np.testing.assert_array_equal(q.z_q, values)
    np.testing.assert_allclose(q.loss, np.mean((z - values) ** 2), rtol=1e-10)
    np.testing.assert_array_equal(decoded, cotangent)
    np.testing.assert_allclose(to_z, 0.25 * pull_on_z, rtol=1e-9)
    for group in range(3):
        expected = np.zeros((16, 2))
        np.add.at(expected, indices[group], -pull_on_z[:, 2 * group : 2 * group + 2])
        np.testing.assert_allclose(to_params[group]["embedding"], expected, rtol=1e-9, atol=1e-15)


def test_sizes_are_of_a_group_and_channels_of_all():
    quantizer = Groups(FSQ((5, 3)), 4)
    assert (quantizer.size, quantizer.depth) == (15, 4)
    assert (quantizer.channels, quantizer.dim) == (8, 8)


def test_terms_are_means_over_groups():
    quantizer, inner = Groups(LFQ(3), 2), LFQ(3)
    z = double(0, 7, 6)
    options = {"straight_through": "encoder", "train": True}
    q = quantizer(((),) * 2, ((),) * 2, z, **options)
    each = [inner((), (), part, **options) for part in np.split(z, 2, axis=-1)]
    for name in ("commitment", "token_entropy", "batch_entropy"):
        mean = np.mean([found.terms[name] for found in each])
        np.testing.assert_allclose(q.terms[name], mean, rtol=1e-12)
    np.testing.assert_allclose(q.loss, np.mean([found.loss for found in each]), rtol=1e-12)


def test_codes_of_groups_of_residuals_lie_group_by_group():
    """[group 1 level 1, group 1 level 2, group 2 level 1, group 2 level 2]."""
    inner = Residual(VQ(table(size=8, dim=2)), 2)
    quantizer = Groups(inner, 2)
    params, state = quantizer.init(jax.random.key(0))
    z = double(0, 5, 4)
    folded = quantizer.fold(params, state)
    codes = np.asarray(quantizer.encode(folded, z))
    assert quantizer.depth == 4 and codes.shape == (5, 4)
    np.testing.assert_array_equal(codes[:, :2], inner.encode(folded[0], z[:, :2]))
    np.testing.assert_array_equal(codes[:, 2:], inner.encode(folded[1], z[:, 2:]))
    first = inner.decode(folded[0], codes[:, :2])
    np.testing.assert_array_equal(quantizer.decode(folded, codes)[:, :2], first)


def test_groups_start_apart():
    params, _ = Groups(VQ(table(dim=2)), 2).init(jax.random.key(0))
    assert not np.allclose(params[0]["embedding"], params[1]["embedding"])


def test_channels_that_do_not_part_and_no_groups_are_refused():
    quantizer = Groups(LFQ(3), 2)
    with pytest.raises(ValueError, match="z has 5 channels; expected 6"):
        quantizer.encode(((),) * 2, double(0, 4, 5))
    with pytest.raises(ValueError, match="A position has 3 codes; expected 2"):
        quantizer.decode(((),) * 2, np.zeros((4, 3), np.int32))
    with pytest.raises(ValueError, match="Groups has 0 groups; expected at least 1"):
        Groups(LFQ(3), 0)
