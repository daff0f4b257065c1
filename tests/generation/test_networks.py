"""The transformers: NumPy's value, what a place sees, sizes, precision, what each field does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numpy_transformer import decoder, masked
from tiny_prior import dot_products, draw, make_batch, make_prior

from mq_jax.generation.autoregressive import Autoregressive
from mq_jax.generation.decoder import Decoder
from mq_jax.generation.sizes import SIZES, net_of
from mq_jax.generation.space import TokenSpace


def logits_of(prior, params, tokens, labels, known, train=False, **rngs):
    more = (known,) if prior.model.causal is False else ()
    settings = {"train": train, "rngs": rngs}
    return prior.model.apply({"params": params}, tokens, labels, *more, **settings)


@pytest.mark.parametrize(
    "kind, levels, qk_norm",
    [
        ("decoder", 3, True),
        ("masked", 1, False),
        pytest.param("decoder", 1, False, marks=pytest.mark.slow),
        pytest.param("masked", 3, True, marks=pytest.mark.slow),
    ],
)
def test_a_transformer_is_its_formula(kind, levels, qk_norm):
    prior = make_prior(kind, levels=levels, qk_norm=qk_norm, layers=1, depth_layers=1)
    space, net, params = prior.space, prior.model.net, draw(prior)
    tokens, labels, known = make_batch(space)
    out = tiny.jit(lambda *args: logits_of(prior, *args))(params, tokens, labels, known)
    if kind == "decoder":
        expected = decoder(tokens, labels, params, space, net)
    else:
        expected = masked(tokens, labels, known, params, space, net)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_a_token_reaches_later_places_and_later_levels_alone():
    prior = make_prior("decoder", levels=3)
    params = draw(prior)
    tokens, labels, _ = make_batch(prior.space, batch=1)
    other = tokens.copy()
    other[0, 5, 1] = (tokens[0, 5, 1] + 1) % prior.space.size
    run = tiny.jit(lambda tokens: logits_of(prior, params, tokens, labels, None))
    moved = np.abs(run(tokens) - run(other)).max(-1)[0] > 0
    assert moved[5].tolist() == [False, False, True]
    assert not moved[:5].any() and moved[6:].all()


@pytest.mark.slow
def test_a_masked_place_reaches_no_place_but_its_own_later_levels():
    prior = make_prior("masked", levels=3)
    params = draw(prior)
    tokens, labels, _ = make_batch(prior.space, batch=1)
    known = np.arange(prior.space.places)[None] != 5
    run = tiny.jit(lambda tokens: logits_of(prior, params, tokens, labels, known))

    def moved(place):
        other = tokens.copy()
        other[0, place, 1] = (tokens[0, place, 1] + 1) % prior.space.size
        return np.abs(run(tokens) - run(other)).max(-1)[0] > 0

    assert moved(5)[5].tolist() == [False, False, True] and moved(5).sum() == 1
    assert moved(7).all(axis=-1)[[0, 5, 11]].all()


@pytest.mark.slow
def test_fresh_parameters_take_all_codes_for_equally_likely():
    prior = make_prior("decoder")
    tokens, labels, known = make_batch(prior.space)

    @tiny.jit
    def run():
        params = prior.init(jax.random.key(0))
        return params, logits_of(prior, params, tokens, labels, known)

    params, logits = run()
    assert not logits.any()
    spread = np.std(params["trunk"]["layers"]["ffn"]["up"]["kernel"])
    assert not np.any(params["levels"]["head"]) and 0.015 < spread < 0.025


@pytest.mark.parametrize("name, millions", [("tiny", 1.8), ("B", 111), ("L", 343), ("XL", 775)])
def test_a_size_has_as_many_parameters_as_published(name, millions):
    codes, classes = (1024, 0) if name == "tiny" else (16384, 1000)
    prior = Autoregressive(Decoder(TokenSpace(16, 16, 1, codes, classes), net_of(name)))
    shapes = jax.tree.leaves(jax.eval_shape(prior.init, jax.random.key(0)))
    assert sum(leaf.size for leaf in shapes) / 1e6 == pytest.approx(millions, rel=6e-3)
    assert {leaf.dtype for leaf in shapes} == {jnp.dtype("float32")}


@pytest.mark.parametrize("kind", ["decoder", pytest.param("masked", marks=pytest.mark.slow)])
def test_bfloat16_has_float32_products_for_gradients_of_logits_alone(kind):
    prior = make_prior(kind, levels=2, dtype=jnp.bfloat16)
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space)

    def objective(params):
        return prior.loss(params, tokens, labels, jax.random.key(0), train=True).objective

    def wide(function):
        products = list(dot_products(jax.make_jaxpr(function)(params).jaxpr))
        assert len(products) > 10
        return [where for factors, where in products if factors != {"bfloat16"}]

    assert not wide(objective)
    found = wide(jax.grad(objective))
    assert found and all("BTNH,BSNH->BNTS" in at or "levels._logits" in at for at in found)


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient_and_no_parameter():
    plain, remat = [make_prior("decoder", remat=remat) for remat in (False, True)]
    params, (tokens, labels, _) = draw(plain), make_batch(plain.space)
    rng = jax.random.key(0)
    assert jax.eval_shape(plain.init, rng) == jax.eval_shape(remat.init, rng)

    def loss(prior, params):
        return prior.loss(params, tokens, labels, rng, train=True).objective

    slopes = [tiny.jit(jax.grad(lambda p, x=x: loss(x, p)))(params) for x in (plain, remat)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *slopes)
    assert "remat" in str(jax.make_jaxpr(lambda p: loss(remat, p))(params))


@pytest.mark.parametrize("field", ["token_dropout", "residual_dropout", "ffn_dropout"])
def test_each_dropout_acts_in_training_alone(field):
    rates = dict.fromkeys(["token_dropout", "residual_dropout", "ffn_dropout"], 0.0)
    prior = make_prior("decoder", **rates | {field: 0.5})
    params, batch, rng = draw(prior), make_batch(prior.space), jax.random.key(1)

    def draws(train):
        run = functools.partial(logits_of, prior, train=train, dropout=rng)
        return str(jax.make_jaxpr(run)(params, *batch)).count("random_bits")

    assert draws(train=True) == 1 and draws(train=False) == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 18}, "multiple of 4 heads"),
        ({"layers": 0}, "Net.layers is 0; expected at least 1"),
        ({"ffn_dropout": 1.0}, r"expected one in \[0, 1\)"),
    ],
)
def test_a_net_refuses_what_it_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        net_of("tiny", **changes)


def test_a_size_that_is_none_is_told_with_those_that_are():
    with pytest.raises(ValueError, match="'huge'; expected one of .*tiny"):
        net_of("huge")
    assert all(net_of(name).hidden % 32 == 0 for name in SIZES)
