"""Merged metrics against NumPy over a whole data set."""

import jax
import numpy as np
import pytest

from mq_jax.metrics.collections import (
    NEVER,
    empty_evaluation,
    empty_window,
    first_nonfinite,
    scalars,
    terms_of,
)

SIZE = 12


@jax.jit
def add(total, outputs):
    """As the loops do: merged inside jit."""
    return total.merge(type(total).single_from_model_output(**outputs))


def merge(total, batches):
    for outputs in batches:
        total = add(total, outputs)
    return total


def histograms(batches):
    """Skewed code histograms of 40 codes each, half of the codes never used."""
    p = [0.4, 0.3, 0.2, 0.06, 0.03, 0.01] + [0.0] * (SIZE - 6)
    return np.random.default_rng(0).multinomial(40, p, size=batches).astype(np.int32)


def usage_and_perplexity(counts):
    p = counts[counts > 0] / counts.sum()
    return np.mean(counts > 0), np.exp(-np.sum(p * np.log(p)))


def no_images():
    return empty_evaluation(SIZE, ["mse", "psnr"])


def test_evaluation_averages_over_unmasked_images_and_merges_histograms():
    """Batches with different numbers of real images, a padded row being an outlier or NaN."""
    rng = np.random.default_rng(1)
    masks = np.asarray([[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 0]], np.float32)
    mse, psnr = rng.uniform(size=(2, 3, 4)).astype(np.float32)
    counts = histograms(3)
    batches = [
        {
            "mse": np.where(mask, errors, 1e6),
            "psnr": np.where(mask, decibels, np.nan),
            "code_counts": codes,
            "mask": mask,
        }
        for mask, errors, decibels, codes in zip(masks, mse, psnr, counts, strict=True)
    ]
    got = scalars(merge(no_images(), batches))
    usage, perplexity = usage_and_perplexity(counts.sum(axis=0))
    expected = {
        "mse": mse[masks > 0].mean(),
        "psnr": psnr[masks > 0].mean(),
        "usage": usage,
        "perplexity": perplexity,
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)


def test_the_perplexity_of_a_set_is_not_the_mean_of_its_batches():
    counts = np.diag([40] * SIZE).astype(np.int32)
    ones = np.ones(1, np.float32)
    batches = [{"mse": ones, "psnr": ones, "code_counts": codes} for codes in counts]
    got = scalars(merge(no_images(), batches))
    np.testing.assert_allclose([got["usage"], got["perplexity"]], [1, SIZE], rtol=1e-5)


NAMES = ("inner/loss", "outer/loss", "outer/updates", "inner/code_counts")


def step_metrics(inner, outer=0.0, updates=1.0, counts=None, step=1):
    counts = np.zeros(SIZE, np.int32) if counts is None else counts
    values = (np.float32(inner), np.float32(outer), np.float32(updates), counts)
    return {**dict(zip(NAMES, values, strict=True)), "step": np.int32(step)}


def empty(names=NAMES):
    return empty_window(jax.eval_shape(lambda: {n: step_metrics(0.0)[n] for n in names}))


def test_a_window_averages_steps_and_outer_metrics_only_those_with_an_outer_update():
    rows = [(1.0, 0.0, 0.0), (2.0, 10.0, 1.0), (6.0, 0.0, 0.0), (7.0, 30.0, 1.0)]
    counts = histograms(len(rows))
    window = merge(empty(), [step_metrics(*row, c) for row, c in zip(rows, counts, strict=True)])
    got = scalars(window)
    usage, perplexity = usage_and_perplexity(counts.sum(axis=0))
    assert got.keys() == {"inner/loss", "outer/loss", "inner/usage", "inner/perplexity"}
    np.testing.assert_allclose(got["inner/loss"], 4.0)
    np.testing.assert_allclose(got["outer/loss"], 20.0)
    np.testing.assert_allclose(got["inner/usage"], usage)
    np.testing.assert_allclose(got["inner/perplexity"], perplexity, rtol=1e-5)


def test_outer_metrics_of_a_window_without_an_outer_update_are_not_a_number():
    got = scalars(merge(empty(), [step_metrics(1.0, updates=0.0)]))
    assert np.isnan(got["outer/loss"]) and got["inner/loss"] == 1.0


def test_a_joint_step_has_no_outer_metrics():
    names = ("inner/loss", "inner/code_counts")
    outputs = {name: step_metrics(3.0)[name] for name in names}
    got = scalars(merge(empty(names), [{**outputs, "step": np.int32(1)}]))
    assert got["inner/loss"] == 3.0
    assert got.keys() == {"inner/loss", "inner/usage", "inner/perplexity"}


def test_terms_are_the_scalars_without_the_bookkeeping():
    assert terms_of(reversed(NAMES)) == ["inner/loss", "outer/loss"]


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    "inner, outer, step, terms",
    [
        ([1, 2, 3], [1, 2, 3], NEVER, []),
        ([1, NAN, NAN], [1, 2, 3], 12, ["inner/loss"]),
        ([1, NAN, NAN], [1, 2, INF], 12, ["inner/loss"]),
        ([1, 2, NAN], [-INF, 2, 3], 11, ["outer/loss"]),
        ([1, 2, -INF], [1, 2, NAN], 13, ["inner/loss", "outer/loss"]),
    ],
)
def test_the_first_bad_step_is_reported_with_the_terms_that_were_bad_then(
    inner, outer, step, terms
):
    rows = zip(inner, outer, (11, 12, 13), strict=True)
    window = merge(empty(), [step_metrics(i, o, step=s) for i, o, s in rows])
    assert first_nonfinite(window, NAMES) == (step, terms)
