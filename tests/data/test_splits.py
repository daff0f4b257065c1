"""Which images belong to a split: folders by their synonyms, and what is held out."""

import random

import pytest

from mq_jax.data.splits import class_of, held_out, select_split

EXPECTED = [
    "0/00014.jpg",
    "1/00022.jpg",
    "3/00003.jpg",
    "3/00024.jpg",
    "4/00039.jpg",
    "5/00033.jpg",
]


def paths(count):
    return [f"{i % 7}/{i:05d}.jpg" for i in range(count)]


def test_about_a_tenth_is_held_out():
    assert 900 < len(held_out(paths(10_000))) < 1100


def test_growth_and_shrinkage_move_no_image_across():
    everything = paths(1000)
    whole, some = held_out(everything), random.Random(0).sample(everything, 600)
    assert held_out(some) == whole & set(some)


def test_the_hash_is_of_the_path_alone_and_the_same_everywhere():
    # Values of before: another platform, version or order must give them again.
    assert sorted(held_out(paths(60))) == EXPECTED
    assert sorted(held_out(paths(60)[::-1])) == EXPECTED
    composed, apart = (
        [f"{i} \u00e9.png" for i in range(99)],
        [f"{i} e\u0301.png" for i in range(99)],
    )
    assert [composed.index(p) for p in sorted(held_out(composed))] == [
        apart.index(p) for p in sorted(held_out(apart))
    ]
    assert held_out([f"{i}\udcff.png" for i in range(50)])


@pytest.mark.parametrize("count", range(2, 12))
def test_small_folders_have_something_on_either_side(count):
    for number in range(40):
        some = [f"{number}-{i}.png" for i in range(count)]
        assert 0 < len(held_out(some)) < count


@pytest.mark.parametrize(
    "name, tops, expected",
    [
        ("train", ["Train", "Test"], "Train"),
        ("validation", ["Train", "Test"], "Test"),
        ("train", ["training", "testing"], "training"),
        ("validation", ["training", "testing"], "testing"),
        ("validation", ["TRAIN", "Val", "test"], "Val"),
        ("validation", ["train", "valid"], "valid"),
        ("test", ["train", "valid", "TESTING"], "TESTING"),
        ("val", ["train", "Validation"], "Validation"),
        ("train", ["train", "Training"], "train"),
        ("Training", ["train", "val"], "train"),
        ("blue", ["blue", "green"], "blue"),
    ],
)
def test_a_folder_is_the_split_of_its_name_or_of_a_synonym_in_any_case(name, tops, expected):
    split = select_split([f"{top}/dog/1.png" for top in tops], name, "hash")
    assert split.paths == [f"{expected}/dog/1.png"] and split.rule == f"folder {expected!r}"
    assert class_of(split.paths[0], split.folders) == "dog"


@pytest.mark.parametrize(
    "name, tops, message",
    [
        ("train", ["Train", "TRAINING"], "TRAINING and Train could all be it; name the one"),
        ("validation", ["val", "Valid"], "Valid and val could all be it"),
        ("train", ["Testing"], "its sub-folders are Testing; expected one of them"),
        ("Blue", ["blue"], "its sub-folders are blue"),
    ],
)
def test_a_split_that_no_folder_or_several_could_be_is_refused(name, tops, message):
    with pytest.raises(ValueError, match=message):
        select_split([f"{top}/1.png" for top in tops], name, "hash")


@pytest.mark.parametrize("holdout, count", [("hash", 1), ("every-tenth", 2)])
def test_runs_of_before_keep_the_folders_that_they_knew(holdout, count):
    # `Training` was a class, and every tenth image of all was held out.
    images = ["Training/1.png", "dog/1.png", "dog/2.png"]
    assert len(select_split(images, "train", holdout).paths) == count


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="holdout is 'random'; expected one of hash, every-tenth"):
        select_split(["1.png"], "train", "random")
