"""Codebooks: each kind is its formula, and starts as it should."""

import functools

import jax
import numpy as np
import pytest
import tiny

from mq_jax.quantizers.codebook import KINDS, Codebook

# K = 10, D = 4, D_e = 3, 6 hidden.
PARAMETERS = {
    "mlp": 10 * 3 + (3 + 1) * 6 + (6 + 1) * 4,
    "mlp-relu": 10 * 3 + (3 + 1) * 6 + (6 + 1) * 4,
    "linear": 10 * 3 + (3 + 1) * 4,
    "basis": 4 * 4 + (4 + 1) * 10,
    "embedding": 10 * 4,
}


@functools.cache
def make_codebook(kind, size=10, dim=4, embedding_dim=3, hidden=6):
    codebook = Codebook(kind, size, dim, embedding_dim, hidden)
    out, variables = tiny.jit(codebook.init_with_output)(jax.random.key(0))
    return out, variables["params"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_codebook_has_k_words_of_d_channels_and_its_number_of_parameters(kind):
    codebook, params = make_codebook(kind)
    assert codebook.shape == (10, 4)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_codebook_is_its_formula(kind):
    codebook, p = make_codebook(kind)
    e = np.asarray(p["embedding"])

    def dense(x, name):
        return x @ np.asarray(p[name]["kernel"]) + np.asarray(p[name]["bias"])

    expected = {
        "mlp": lambda: dense(np.tanh(dense(e, "net_in")), "net_out"),
        "mlp-relu": lambda: dense(np.maximum(dense(e, "net_in"), 0), "net_out"),
        "linear": lambda: dense(e, "net_out"),
        "basis": lambda: dense(e, "net_out").T,
        "embedding": lambda: e,
    }[kind]()
    np.testing.assert_allclose(codebook, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_start_standard_normal_and_dense_layers_within_their_bounds(kind):
    sizes = {"size": 2000, "dim": 64, "embedding_dim": 32, "hidden": 128}
    _, params = make_codebook(kind, **sizes)
    embedding = np.ravel(params["embedding"])
    standard_error = 1 / np.sqrt(embedding.size)
    np.testing.assert_allclose(embedding.mean(), 0.0, atol=4 * standard_error)
    np.testing.assert_allclose(embedding.var(), 1.0, atol=6 * standard_error)
    for layer in [params[name] for name in params if name != "embedding"]:
        bound = layer["kernel"].shape[0] ** -0.5
        for leaf in layer.values():
            assert np.abs(leaf).max() <= bound
            assert np.abs(leaf).max() > 0.9 * bound
        np.testing.assert_allclose(np.std(layer["kernel"]), bound / np.sqrt(3), rtol=0.05)


def test_an_unknown_codebook_is_refused():
    with pytest.raises(ValueError, match="codebook kind is 'lfq'; expected one of"):
        Codebook("lfq", 10, 4, 3, 6).init(jax.random.key(0))
