"""Vector quantization, plain and on the unit sphere: its values, and who moves where."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import brute_force, normal
from kinds import jit, table

from mq_jax.quantizers.bases import is_base, scaled_normal
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.straight_through import STRAIGHT_THROUGH
from mq_jax.quantizers.vq import VQ, unit_vectors

pytestmark = pytest.mark.usefixtures("float64")


def double(seed, *shape):
    return normal(seed, *shape).astype(np.float64)


def pulled(quantizer, params, z, cotangent, straight_through="encoder"):
    """(Quantized, gradients of <cotangent, z_hat>, gradients of the loss) of z and params."""

    def call(z, params):
        q = quantizer(params, (), z, straight_through=straight_through, train=True)
        return (q.z_hat, q.loss), q

    @jit
    def pull(z, params):
        _, pullback, q = jax.vjp(call, z, params, has_aux=True)
        nothing = jnp.zeros_like(q.z_hat)
        return q, pullback((nothing + cotangent, 0.0 * q.loss)), pullback((nothing, 1 + 0 * q.loss))

    return pull(z, params)


@pytest.mark.parametrize("kind", STRAIGHT_THROUGH)
def test_the_decoder_gets_the_estimator_that_is_asked_for(kind):
    z, codebook, cotangent = double(0, 4, 4), double(1, 16, 4), double(2, 4, 4)
    q, (to_z, to_params), _ = pulled(VQ(table()), {"embedding": codebook}, z, cotangent, kind)
    indices = brute_force(z, codebook)
    np.testing.assert_allclose(q.z_hat, codebook[indices], rtol=1e-10)
    np.testing.assert_array_equal(to_z == cotangent, "encoder" in kind)
    reached = kind in ("encoder-and-codewords", "diveq")
    used = np.asarray(to_params["embedding"])[indices]
    assert (np.abs(used).sum(-1) > 0).all() == reached


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 1.0)])
def test_the_loss_moves_encodings_and_codewords_towards_each_other(weights):
    """a 2 (z - q) / ND to z, and to a row b 2 (q - z) / ND summed over its uses; to others 0."""
    z, codebook = double(0, 5, 3, 4), double(1, 16, 4)
    lookup = functools.partial(nearest_codeword, chunk=4)
    quantizer = VQ(table(), lookup, commitment=weights[0], codebook_weight=weights[1])
    q, _, (to_z, to_params) = pulled(quantizer, {"embedding": codebook}, z, 0.0)
    indices = brute_force(z, codebook)
    pull = 2 * (z - codebook[indices]) / z.size
    to_codebook = np.zeros_like(codebook)
    np.add.at(to_codebook, indices, -weights[1] * pull)
    np.testing.assert_array_equal(q.indices, indices)
    np.testing.assert_array_equal(q.z_q, codebook[indices])
    np.testing.assert_allclose(to_z, weights[0] * pull, rtol=1e-10)
    np.testing.assert_allclose(to_params["embedding"], to_codebook, rtol=1e-10, atol=1e-15)


def slope_of_unit(vector):
    """J of v / ||v||: (I - u u^T) / ||v||."""
    length = np.linalg.norm(vector)
    unit = vector / length
    return (np.eye(len(vector)) - np.outer(unit, unit)) / length


def test_on_the_unit_sphere_every_gradient_passes_the_normalisation():
    """z gets J^T g and J^T of its pull; a chosen row its pull through its own J."""
    z, codebook, cotangent = double(0, 6, 4), double(1, 16, 4), double(2, 6, 4)
    quantizer = VQ(table(), commitment=0.25, unit=True)
    q, decoded, loss = pulled(quantizer, {"embedding": codebook}, z, cotangent)
    unit_z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    unit_codebook = codebook / np.linalg.norm(codebook, axis=-1, keepdims=True)
    indices = np.argmax(unit_z @ unit_codebook.T, axis=-1)
    pull = 2 * (unit_z - unit_codebook[indices]) / z.size
    to_codebook = np.zeros_like(codebook)
    for row, index in enumerate(indices):
        to_codebook[index] -= slope_of_unit(codebook[index]) @ pull[row]
    slopes = np.stack([slope_of_unit(row) for row in z])
    np.testing.assert_array_equal(q.indices, indices)
    np.testing.assert_allclose(q.z_q, unit_codebook[indices], rtol=1e-12)
    np.testing.assert_allclose(decoded[0], np.einsum("nij,nj->ni", slopes, cotangent), rtol=1e-9)
    np.testing.assert_array_equal(decoded[1]["embedding"], 0.0)
    np.testing.assert_allclose(loss[0], np.einsum("nij,nj->ni", slopes, 0.25 * pull), rtol=1e-9)
    np.testing.assert_allclose(loss[1]["embedding"], to_codebook, rtol=1e-9, atol=1e-15)


def test_a_map_moves_every_codeword_though_its_base_stays():
    """SimVQ: W gets E_k^T (2 (q - z) / ND), summed over uses, and the bias the same without E."""
    quantizer = VQ(table("linear", base=scaled_normal), commitment=0.25)
    params, _ = quantizer.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    z = double(0, 3, 4)
    q, decoded, (to_z, to_params) = pulled(quantizer, params, z, double(2, 3, 4))
    pull = 2 * (q.z_q - z) / z.size
    chosen = params["embedding"][q.indices]
    np.testing.assert_allclose(to_z, -0.25 * pull, rtol=1e-9)
    np.testing.assert_allclose(to_params["net_out"]["kernel"], chosen.T @ pull, rtol=1e-9)
    np.testing.assert_allclose(to_params["net_out"]["bias"], pull.sum(0), rtol=1e-9)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(decoded[1]))
    moved = jax.tree_util.tree_map_with_path(
        lambda path, leaf, slope: leaf if is_base(path) else leaf - slope, params, to_params
    )
    change = quantizer.fold(moved, ()) - quantizer.fold(params, ())
    assert (np.abs(change).max(-1) > 0).all()
    np.testing.assert_array_equal(moved["embedding"], params["embedding"])


def test_unit_vectors_have_norm_one_and_zeros_stay_zero_with_a_gradient_of_zero():
    vectors = jnp.asarray(double(0, 5, 3)).at[2].set(0.0)
    norms = np.linalg.norm(unit_vectors(vectors), axis=-1)
    np.testing.assert_allclose(norms, [1, 1, 0, 1, 1], rtol=1e-12)
    slope = jax.grad(lambda v: jnp.sum(unit_vectors(v)))(vectors)
    np.testing.assert_array_equal(slope[2], 0.0)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="straight_through is 'none'; expected one of"):
        pulled(VQ(table()), {"embedding": double(1, 16, 4)}, double(0, 2, 4), 0.0, "none")
