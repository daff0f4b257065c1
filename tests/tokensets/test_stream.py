"""Batches of a token set: whole epochs, restored at any step, the same for any processes."""

import itertools
import pickle

import numpy as np
import pytest
import token_sets

from mq_jax.tokensets import open_tokens, token_batches, token_stream


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """Ten images of three views."""
    return open_tokens(token_sets.write_set(tmp_path_factory.mktemp("stream") / "set"))


def take(stream, count):
    batches = list(itertools.islice(stream, count))
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def numbers(tokens, codes):
    """(image, view) of codes, each unlike every other."""
    known = {
        view.tobytes(): (i, v) for i, t in enumerate(tokens) for v, view in enumerate(t.tokens)
    }
    assert len(known) == len(tokens) * len(tokens.views)
    return [known[view.tobytes()] for view in codes.reshape(-1, *tokens.shape)]


def test_an_epoch_shows_every_image_once_in_an_order_and_in_views_of_its_own(tokens):
    batches = take(token_stream(tokens, batch_size=5, seed=3), 12)
    shown = numbers(tokens, batches["tokens"])
    epochs = [shown[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(i for i, _ in epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(i for i, _ in epoch) for epoch in epochs}) == 6
    assert len({view for _, view in shown}) == 3
    assert [tokens[i].label for i, _ in shown] == batches["label"].ravel().tolist()


def test_a_stream_goes_on_from_any_batch_and_its_rows_are_those_of_the_processes(tokens):
    given = {"batch_size": 4, "seed": 0}
    whole = take(token_stream(tokens, **given), 9)
    rest = take(token_stream(tokens, **given, start=5, threads=2), 4)
    assert_same(rest, {name: array[5:] for name, array in whole.items()})
    parts = [
        take(token_stream(tokens, **given, process_index=i, process_count=2), 9) for i in range(2)
    ]
    joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in whole}
    assert_same(joined, whole)
    assert_same(take(token_stream(pickle.loads(pickle.dumps(tokens)), **given), 9), whole)
    other = take(token_stream(tokens, batch_size=4, seed=1), 9)
    assert (other["tokens"] != whole["tokens"]).any()


def test_a_named_view_is_the_only_one(tokens):
    batches = take(token_stream(tokens, batch_size=10, seed=0, view="flip"), 2)
    assert {view for _, view in numbers(tokens, batches["tokens"])} == {1}
    with pytest.raises(ValueError, match="has no view 'left'; expected one of center, flip, other"):
        token_stream(tokens, batch_size=10, seed=0, view="left")
    for wrong in ({"start": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected both to be at least 0"):
            token_stream(tokens, **{"batch_size": 1, "seed": 0, **wrong})


def test_a_pass_shows_all_images_in_order_and_pads_the_last_batch(tokens):
    found = take(token_batches(tokens, batch_size=4), 9)
    assert found["index"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]
    assert found["mask"].tolist() == [[1] * 4, [1] * 4, [1, 1, 0, 0]]
    np.testing.assert_array_equal(
        found["tokens"].reshape(12, *tokens.shape)[:10], [item.tokens[0] for item in tokens]
    )
    assert found["label"].ravel().tolist() == [item.label for item in tokens] + [-1, -1]
    assert not found["tokens"][2, 2:].any()
    parts = [
        take(token_batches(tokens, batch_size=4, process_index=i, process_count=2), 9)
        for i in range(2)
    ]
    assert_same({n: np.concatenate([p[n] for p in parts], axis=1) for n in found}, found)
