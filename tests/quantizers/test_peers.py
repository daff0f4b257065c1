"""Codes, values and gradients of independent implementations; tests/fixtures/peers.py makes them.

Where a peer does something else than the paper or ours, the test says what, and by how much.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import peer
from kinds import jit, table

from mq_jax.quantizers.bsq import BSQ
from mq_jax.quantizers.fsq import FSQ
from mq_jax.quantizers.lfq import LFQ
from mq_jax.quantizers.residual import Residual
from mq_jax.quantizers.vq import VQ

close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6)


def ours(quantizer, params, z, straight_through="encoder"):
    """(Quantized, gradients of <cotangent, z_hat>, gradients of the loss) of (z, params)."""
    state = jax.tree.map(lambda _: (), params, is_leaf=lambda node: isinstance(node, dict))

    @jit
    def pull(z, params):
        def call(z, params):
            q = quantizer(params, state, z, straight_through=straight_through, train=True)
            return (q.z_hat, q.loss), q

        _, pullback, q = jax.vjp(call, z, params, has_aux=True)
        decoded = pullback((jnp.asarray(peer("all")["cotangent"]), 0 * q.loss))
        return q, decoded, pullback((0 * q.z_hat, 1 + 0 * q.loss))

    return pull(z, params)


VECTORS = {
    "vq": (VQ(table()), "encoder"),
    "rotation": (VQ(table()), "rotation"),
    "l2": (VQ(table(), unit=True), "encoder"),
    "diveq": (VQ(table(), commitment=0.0, codebook_weight=0.0), "diveq"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_codebooks_agree_in_codes_values_and_gradients(name):
    quantizer, straight_through = VECTORS[name]
    theirs = peer(name)
    codebook = theirs["weight_0"].reshape(16, 4)
    q, decoded, pulled = ours(quantizer, {"embedding": codebook}, theirs["z"], straight_through)
    np.testing.assert_array_equal(q.indices, theirs["codes"])
    close(q.z_hat, theirs["value"])
    close(q.loss, theirs["loss"])
    close(decoded[0], theirs["decoded_0"])
    close(pulled[0], theirs.get("pulled_0", np.zeros_like(q.z_q)))
    if name == "l2":
        # The peer moves its codewords on the sphere by running means alone.
        return
    # What does not reach the codewords is not in the file.
    nothing = np.zeros_like(codebook)
    close(decoded[1]["embedding"], theirs.get("decoded_1", nothing).reshape(codebook.shape))
    close(pulled[1]["embedding"], theirs.get("pulled_1", nothing).reshape(codebook.shape))


def test_simvq_agrees():
    theirs = peer("simvq")
    dense = {"kernel": theirs["weight_0"].T, "bias": theirs["weight_1"]}
    params = {"embedding": theirs["base"], "net_out": dense}
    quantizer = VQ(table("linear"), commitment=0.25)
    q, decoded, pulled = ours(quantizer, params, theirs["z"])
    np.testing.assert_array_equal(q.indices, theirs["codes"])
    close(q.z_hat, theirs["value"])
    # The peer adds a 1 and a 1/4 of the same value; ours is the larger of the two.
    close(q.loss * 1.25, theirs["loss"])
    close(decoded[0], theirs["decoded_0"])
    close(pulled[0], theirs["pulled_0"])
    close(pulled[1]["net_out"]["kernel"], theirs["pulled_1"].T)
    close(pulled[1]["net_out"]["bias"], theirs["pulled_2"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(decoded[1]))
    assert not {"decoded_1", "decoded_2"} & theirs.keys()


def test_residuals_agree_but_for_how_often_z_counts():
    theirs = peer("residual")
    levels = theirs["codes"].shape[-1]
    params = tuple({"embedding": theirs[f"weight_{i}"][0]} for i in range(levels))
    q, decoded, pulled = ours(Residual(VQ(table()), levels), params, theirs["z"])
    np.testing.assert_array_equal(q.indices, theirs["codes"])
    close(q.z_hat, theirs["value"])
    close(q.loss, theirs["loss"])
    # The peer adds up an estimator a level, so that z gets the decoder's gradient J times.
    close(levels * decoded[0], theirs["decoded_0"])
    close(pulled[0], theirs["pulled_0"])
    for level in range(levels):
        close(pulled[1][level]["embedding"], theirs[f"pulled_{level + 1}"][0])


BITS = {"lfq": LFQ(4, temperature=0.5), "bsq": BSQ(4, temperature=0.5, commitment=0.25)}


@pytest.mark.parametrize("name", BITS)
def test_signs_agree_but_for_the_order_of_bits_and_the_scale_on_the_sphere(name):
    theirs = peer(name)
    q, decoded, pulled = ours(BITS[name], (), theirs["z"])
    # The peer's first channel is the highest bit.
    mirrored = sum((q.indices >> bit & 1) << (3 - bit) for bit in range(4))
    np.testing.assert_array_equal(mirrored, theirs["codes"])
    close(q.z_hat, theirs["value"])
    # The peer takes no logarithm of less than 1e-5.
    close(q.loss, theirs["loss"], atol=1e-4)
    close(pulled[0], theirs["pulled_0"], rtol=1e-3, atol=1e-5)
    # The peer's estimator is of the scaled signs: without the paper's 1 / sqrt(L).
    scale = 4**0.5 if name == "bsq" else 1.0
    close(scale * decoded[0], theirs["decoded_0"])


@pytest.mark.parametrize("name, levels", [("fsq odd", (7, 5, 5, 3)), ("fsq even", (8, 6, 4, 8))])
def test_finite_scalars_agree_with_the_bound_that_the_peer_has(name, levels):
    theirs = peer(name)
    # Its bound goes past the outermost levels, where the original's stays within.
    q, decoded, _ = ours(FSQ(levels, margin=-1e-3), (), theirs["z"])
    np.testing.assert_array_equal(q.indices, theirs["codes"])
    close(q.z_hat, theirs["value"])
    # For even levels its shift is the inverse of tanh, where the original has a tangent.
    close(decoded[0], theirs["decoded_0"], rtol=2e-3 if "even" in name else 2e-4)
