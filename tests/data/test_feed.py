"""The batches of the levels, and the account of unreadable images across checkpoints."""

import numpy as np
import pytest
import runs

from mq_jax.data import inputs
from mq_jax.data.feed import Feed
from mq_jax.devices.sharding import make_mesh


def feed(images, **changes):
    config = runs.configure(data__source="folder", data__dir=images, **changes)
    return Feed(config, inputs.open_training(config), make_mesh())


def test_record_numbers_are_taken_over_only_into_the_listing_they_belong_to(tmp_path):
    images = runs.write_images(tmp_path / "images", 12)
    before = feed(images)
    for listing, expected in [(before.listing, [3]), ("", [3]), ("0" * 64, [])]:
        other = feed(images)
        other.restore([[3], [3]], listing)
        assert other.bad_images == (expected, expected)


def test_a_run_whose_inner_level_has_other_images_now_is_told_so(tmp_path, caplog):
    """Its halves, say, which records that share pixels made others."""
    whole = feed(runs.write_images(tmp_path / "images", 12))
    for listing in (whole.listing, ""):
        whole.restore([[], []], listing)
    assert "other images" not in caplog.text
    whole.restore([[], []], "0" * 64)
    assert caplog.text.count("other images than it did at the checkpoint") == 1


def test_few_images_are_told_of_once_for_both_levels(tmp_path, caplog):
    caplog.set_level("INFO")
    for count, times in ((60, 0), (4, 1)):
        images = runs.write_images(tmp_path / str(count), count)
        feed(images, data__train_split="all")
        told = [r for r in caplog.records if "images are few" in r.getMessage()]
        assert len(told) == times


def test_halves_of_a_listing_have_one_of_their_own(tmp_path):
    images = runs.write_images(tmp_path / "images", 12)
    assert feed(images).listing == feed(images).listing
    assert feed(images).listing != feed(images, train__outer_data="held-out").listing


@pytest.mark.parametrize(
    "changes",
    [
        {"train__outer_data": "same"},
        {"train__hypergradient": "joint"},
        {"train__hypergradient": "pipelined"},
    ],
)
def test_levels_that_share_a_batch_read_it_once(monkeypatch, tmp_path, changes):
    opened, stream = [], inputs.stream

    def counted(*arguments, level, start):
        opened.append(level)
        return stream(*arguments, level=level, start=start)

    monkeypatch.setattr(inputs, "stream", counted)
    images = runs.write_images(tmp_path / "images", 12)
    batches = feed(images, **changes).batches(0)
    pairs = [next(batches) for _ in range(3)]
    batches.close()
    assert opened == [0] and all(outer is inner for inner, outer in pairs)
    assert len({np.asarray(inner).tobytes() for inner, _ in pairs}) == 3
