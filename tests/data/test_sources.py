"""Folders, embedded photos, subsets: what each split holds."""

import contextlib
import os
import pathlib
import pickle
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from mq_jax.data import photos
from mq_jax.data.contents import sentence
from mq_jax.data.sources import halves, open_source, subset
from mq_jax.images.decode import Reading

SPLITS = ("train", "validation")


@pytest.fixture
def tree(tmp_path):
    """Returns a function that writes one-colour images at relative paths; red is the position."""

    def write(*paths):
        for red, path in enumerate(paths):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            format = {"jpg": "JPEG", "jpeg": "JPEG"}.get(file.suffix[1:].lower(), file.suffix[1:])
            Image.new("RGB", (4, 4), (red, 0, 0)).save(file, format)
        return str(tmp_path)

    return write


def _names(source, directory):
    return [os.path.relpath(source.name(i), directory) for i in range(len(source))]


def _folder(directory, split):
    return open_source("folder", directory=directory, split=split)


def test_a_folder_is_read_in_sorted_order(tree):
    directory = tree("b.png", "a.PNG", "c.jpg", "d.JPEG", "e.webp")
    source = _folder(directory, "all")
    assert _names(source, directory) == ["a.PNG", "b.png", "c.jpg", "d.JPEG", "e.webp"]
    assert source[1].image[0, 0, 0] == 0 and source[1].image.shape == (4, 4, 3)
    assert source.class_names == () and source[0].label == -1


def test_hidden_and_other_files_are_ignored(tree):
    directory = tree("a.png", ".b.png", ".hidden/c.png", "d/.e.png")
    with open(os.path.join(directory, "notes.txt"), "w"):
        pass
    assert _names(_folder(directory, "all"), directory) == ["a.png"]


def test_first_level_folders_are_the_classes(tree):
    directory = tree("dog/1.png", "cat/deep/2.png", "cat/1.png", "stray.png")
    source = _folder(directory, "all")
    assert source.class_names == ("cat", "dog")
    assert [source[i].label for i in range(4)] == [0, 0, 1, -1]


def test_a_split_folder_is_found_and_is_no_class(tree):
    directory = tree("train/cat/1.png", "train/dog/1.png", "val/dog/2.png")
    train, validation = _folder(directory, "train"), _folder(directory, "validation")
    assert _names(train, directory) == ["train/cat/1.png", "train/dog/1.png"]
    assert _names(validation, directory) == ["val/dog/2.png"]
    # The label counts from the classes of the whole tree, though this split lacks one.
    assert train.class_names == validation.class_names == ("cat", "dog")
    assert validation[0].label == 1
    assert len(_folder(directory, "all")) == 3


def test_any_folder_is_a_split(tree):
    directory = tree("blue/a/1.png", "blue/b/1.png", "green/c/1.png")
    source = _folder(directory, "blue")
    assert len(source) == 2 and source.class_names == ("a", "b")


def test_every_tenth_image_validates_where_a_run_of_before_says_so(tree):
    directory = tree(*(f"{i:02}.png" for i in range(25)))
    train, validation = (
        open_source("folder", directory=directory, split=split, holdout="every-tenth")
        for split in ("train", "validation")
    )
    assert _names(validation, directory) == ["00.png", "10.png", "20.png"]
    both = _names(train, directory) + _names(validation, directory)
    assert sorted(both) == [f"{i:02}.png" for i in range(25)]


def test_train_and_what_is_held_out_are_disjoint_and_complete(tree):
    directory = tree(*(f"{i:02}.png" for i in range(25)))
    train, validation = (_names(_folder(directory, split), directory) for split in SPLITS)
    assert 0 < len(validation) < 10 and not set(train) & set(validation)
    assert sorted(train + validation) == [f"{i:02}.png" for i in range(25)]


@pytest.mark.parametrize(
    "bounds, expected",
    [
        ("[:3]", range(3)),
        ("[2:]", range(2, 10)),
        ("[50%:]", range(5, 10)),
        ("[:25%]", range(2)),
        ("[-2:]", range(8, 10)),
        ("[-30%:-1]", range(7, 9)),
        ("[:]", range(10)),
    ],
)
def test_a_split_can_be_sliced(tree, bounds, expected):
    directory = tree(*(f"{i}.png" for i in range(10)))
    source = _folder(directory, f"all{bounds}")
    assert _names(source, directory) == [f"{i}.png" for i in expected]


def test_the_slices_of_a_split_partition_it(tree):
    directory = tree(*(f"{i}.png" for i in range(7)))
    parts = [_folder(directory, f"all{bounds}") for bounds in ("[:33%]", "[33%:66%]", "[66%:]")]
    assert [name for part in parts for name in _names(part, directory)] == [
        f"{i}.png" for i in range(7)
    ]


@pytest.mark.parametrize(
    "split, message",
    [
        ("tests", "split 'tests' is not in .* sub-folders are train; expected one of them"),
        ("validation", "split 'validation' is not in"),
        ("train[1:1]", "is empty: records 1 to 1 of 1"),
        ("train[:5]", "reaches past its 1 records"),
        ("train[a:b]", "expected NAME or NAME"),
    ],
)
def test_a_split_that_cannot_be_is_refused(tree, split, message):
    with pytest.raises(ValueError, match=message):
        _folder(tree("train/1.png"), split)


@pytest.mark.parametrize("split, holdout", [("validation", "hash"), ("train", "every-tenth")])
def test_one_image_makes_one_split_and_the_other_is_refused_as_empty(tree, split, holdout):
    with pytest.raises(ValueError, match=f"split '{split}' of .* is empty"):
        open_source("folder", directory=tree("1.png"), split=split, holdout=holdout)


def test_a_missing_folder_is_refused(tmp_path):
    for directory, told in ((str(tmp_path / "absent"), "is no directory"), ("", " is empty; ")):
        with pytest.raises(FileNotFoundError, match=f"config.data.dir.*{told}"):
            _folder(directory, "all")


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "data.tar").touch()
    with pytest.raises(
        ValueError, match=r"looked for \.jpg, .*found 1 other files \(\.tar\)"
    ) as told:
        _folder(str(tmp_path), "all")
    assert str(told.value).endswith(" config.data.source='wds' reads .tar.")


def test_a_link_up_the_tree_ends(tree):
    directory = tree("a/1.png")
    os.symlink(directory, os.path.join(directory, "a", "up"))
    assert len(_folder(directory, "all")) == 1


def _make_irregular(path, kind):
    """Something that is no file, under a name of an image."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)
    else:
        path.symlink_to({"device": "/dev/zero", "dangling": "nowhere", "loop": path.name}[kind])


IRREGULAR = {
    "FIFO": "expected a regular file",
    "socket": "expected a regular file",
    "device": "a device; expected a regular file",
    "dangling": "No such file",
    "loop": "Too many levels of symbolic links",
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_is_left_aside_and_counted(tree, kind):
    directory = tree("a.png", "b/c.png")
    _make_irregular(pathlib.Path(directory) / "b" / "d.png", kind)
    os.symlink("a.png", os.path.join(directory, "link.png"))
    source = _folder(directory, "all")
    assert _names(source, directory) == ["a.png", "b/c.png", "link.png"]
    assert sentence({"all": source.contents()}).endswith("left aside: 1 no regular file")


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_becomes_no_file_after_the_listing_cannot_hang_a_read(tree, kind):
    directory = tree("a.png", "b.png")
    source = _folder(directory, "all")
    os.remove(source.name(0))
    _make_irregular(pathlib.Path(source.name(0)), kind)
    with pytest.raises(ValueError, match=f"cannot read the file .*{IRREGULAR[kind]}"):
        source[0]


def test_runs_of_before_list_what_they_listed(tree):
    directory = tree(*(f"{i:02}.png" for i in range(12)))
    os.symlink("nowhere", os.path.join(directory, "03.jpg"))
    (pathlib.Path(directory) / "04.bmp").touch()
    source = open_source("folder", directory=directory, split="validation", holdout="every-tenth")
    assert _names(source, directory) == ["00.png", "09.png"]


def test_of_two_links_to_a_folder_the_first_name_counts(tree):
    directory = tree("z/1.png")
    for name in ("y", "x"):
        os.symlink("z", os.path.join(directory, name))
    assert _names(_folder(directory, "all"), directory) == ["x/1.png"]


def test_one_line_says_what_each_split_holds_by_which_rule_and_what_was_left_aside(tree):
    directory = tree("Train/cat/1.png", "Train/dog/2.png", "VAL/dog/3.png")
    for name in ("a.TXT", "Train/b.txt", "VAL/c", "VAL/d.mp4"):
        (pathlib.Path(directory) / name).touch()
    told = sentence({split: _folder(directory, split).contents() for split in SPLITS})
    assert told == (
        "Images: train 2 (folder 'Train'), validation 1 (folder 'VAL'); "
        "left aside: 2 .txt, 1 without ending, 1 .mp4"
    )


def test_many_endings_and_hostile_ones_stay_one_line(tree):
    directory = tree("a.png")
    for name in ("x.\x1b[2J", "x.\nERROR", *(f"y.{i}" for i in range(20))):
        (pathlib.Path(directory) / name).touch()
    told = sentence({"all": _folder(directory, "all").contents()})
    assert told.isprintable() and told.endswith("14 of 14 other endings") and len(told) < 200


def test_contents_are_the_same_wherever_the_data_lies_and_follow_every_slice(tree, tmp_path):
    directory = tree(*(f"{i}.png" for i in range(6)))
    copy = shutil.copytree(directory, tmp_path / ".copy")
    digests = {
        split: [_folder(place, split).contents().digest for place in (directory, str(copy))]
        for split in ("all", "all[1:]", "all[:5]")
    }
    assert all(here == there for here, there in digests.values())
    assert len({here for here, _ in digests.values()}) == 3
    half = halves(_folder(directory, "all[2:]"))[1].contents()
    assert (half.images, half.names) == (2, ["3.png", "5.png"])
    photos_of = open_source("photos", directory="", split="train[:5]").contents()
    assert (photos_of.images, photos_of.names) == (5, ())


def test_an_unreadable_file_raises_value_error(tree):
    directory = tree("a.png", "b.png")
    source = _folder(directory, "all")
    with open(os.path.join(directory, "a.png"), "wb") as file:
        file.write(b"damaged")
    os.remove(os.path.join(directory, "b.png"))
    for index, reason in enumerate(("cannot decode", "No such file")):
        with pytest.raises(ValueError, match=reason):
            source[index]


@pytest.mark.parametrize("spec", ["tfds", "tfds:", "images", "photos:x"])
def test_an_unknown_spec_is_refused(spec):
    with pytest.raises(ValueError, match="expected one of tfds:NAME, folder, parquet, wds, photos"):
        open_source(spec, directory="", split="train")


def _overlap(a, b):
    return (
        min(a.x + a.width, b.x + b.width) > max(a.x, b.x)
        and min(a.y + a.height, b.y + b.height) > max(a.y, b.y)
    )  # fmt: skip


@pytest.mark.parametrize("name", photos.PHOTOS)
def test_no_training_pixel_of_a_photo_is_a_validation_pixel(name):
    photo = photos.PHOTOS[name]
    boxes = photos.training_boxes(photo)
    held = photo.held_out
    assert len(boxes) == 4 and held.width % photos.TILE == held.height % photos.TILE == 0
    for i, box in enumerate(boxes):
        assert min(box.width, box.height) >= photos.MIN_SIDE
        assert not any(_overlap(box, other) for other in [held, *boxes[:i]])
    for box in [held, *boxes]:
        assert box.x + box.width <= photo.width and box.y + box.height <= photo.height


def test_the_photos_have_the_sizes_of_the_table():
    for name, photo in photos.PHOTOS.items():
        whole = photos.Crop(name, photos.Box(0, 0, photo.width + 1, photo.height + 1))
        assert photos.read_crop(whole).shape == (photo.height, photo.width, 3)


def test_the_photo_splits_read_their_rectangles():
    validation = open_source("photos", directory="", split="validation")
    images = [validation[i].image for i in range(len(validation))]
    assert {image.shape for image in images} == {(128, 128, 3)} and len(images) == 10
    assert validation.class_names[validation[0].label] == "astronaut"
    assert validation.name(0) == "photos astronaut 128x128+166+64"
    train = open_source("photos", directory="", split="train")
    assert min(min(train[i].image.shape[:2]) for i in range(0, len(train), 10)) >= 64


def test_a_photo_epoch_covers_the_training_area_about_once():
    area = sum(
        box.width * box.height
        for photo in photos.PHOTOS.values()
        for box in photos.training_boxes(photo)
    )
    covered = len(photos.photo_crops("train")) * 64**2
    assert abs(covered / area - 1) < 0.01


def test_halves_are_disjoint_and_complete(tree):
    directory = tree(*(f"{i}.png" for i in range(5)))
    inner, outer = halves(_folder(directory, "all"))
    assert _names(inner, directory) == ["0.png", "2.png", "4.png"]
    assert _names(outer, directory) == ["1.png", "3.png"]
    with pytest.raises(ValueError, match="at least 2"):
        halves(subset(inner, [0]))


def _seen_pixels(source):
    """Of each photograph, which pixels the records of a source show."""
    seen = {}
    for index in range(len(source)):
        name, box = source.regions()[index]
        photo = photos.PHOTOS[name]
        mask = seen.setdefault(name, np.zeros((photo.height, photo.width), bool))
        place = mask[box.y : box.y + box.height, box.x : box.x + box.width]
        # The box is what a record shows, not only what it is called.
        assert source[index].image.shape[:2] == place.shape
        place[:] = True
    return seen


@pytest.mark.parametrize("split", ["train", "train[10%:70%]"])
def test_no_pixel_of_a_photo_is_in_both_halves(split):
    whole = open_source("photos", directory="", split=split)
    inner, outer = map(_seen_pixels, halves(whole))
    assert inner and outer
    for name, mask in _seen_pixels(whole).items():
        nothing = np.zeros_like(mask)
        one, other = inner.get(name, nothing), outer.get(name, nothing)
        assert not (one & other).any()
        np.testing.assert_array_equal(one | other, mask)


def test_the_halves_of_the_photos_are_about_equal_and_know_every_photo():
    inner, outer = halves(open_source("photos", directory="", split="train"))
    assert len(inner) + len(outer) == 315 and abs(len(inner) - len(outer)) < 16
    for half in (inner, outer):
        assert {photo for photo, _ in half.regions()} == set(photos.PHOTOS)
    with pytest.raises(ValueError, match="the source has 1 image; two halves need at least 2"):
        halves(open_source("photos", directory="", split="train[:2]"))


def test_a_link_is_in_the_half_of_its_file(tree):
    directory = pathlib.Path(tree(*(f"{i}.png" for i in range(4))))
    (directory / "1b.png").symlink_to("1.png")
    os.link(directory / "3.png", directory / "0b.png")
    inner, outer = halves(_folder(str(directory), "all"))
    assert _names(inner, directory) == ["0.png", "1.png", "1b.png"]
    assert _names(outer, directory) == ["0b.png", "2.png", "3.png"]


def test_a_slice_that_cuts_through_a_rectangle_is_warned_of(caplog):
    for split in ("train", "train[:21]", "validation[3:]"):
        open_source("photos", directory="", split=split)
    assert not caplog.records
    open_source("photos", directory="", split="train[:20]")
    (message,) = [record.getMessage() for record in caplog.records]
    assert "'train[:20]' cuts through photos astronaut 166x512+0+0" in message


def test_sources_survive_pickling():
    source = subset(open_source("photos", directory="", split="train"), range(3, 9))
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 20_000 and len(copy) == 6
    np.testing.assert_array_equal(copy[2].image, source[2].image)
    assert copy.name(2) == source.name(2)


def test_every_usual_ending_of_an_image_is_listed_in_any_case_and_read(tmp_path):
    formats = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG"}
    formats |= {"png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}
    formats |= {"tif": "TIFF", "tiff": "TIFF"}
    for number, (ending, format) in enumerate(formats.items()):
        ending = ending.upper() if number % 2 else ending
        Image.new("RGB", (4, 4), (90, 90, 90)).save(tmp_path / f"a.{ending}", format)
    source = _folder(tmp_path, "all")
    assert len(source) == len(formats)
    assert all(np.abs(source[i].image.astype(int) - 90).max() < 2 for i in range(len(source)))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_pixels": 15}, "it has 4 x 4 pixels; max_pixels is 15"),
        ({"max_bytes": 20}, "bytes; max_bytes is 20"),
    ],
)
def test_a_folders_images_over_a_limit_count_as_unreadable(tree, limits, reason):
    directory, reading = tree("a.png", "b.jpg"), Reading(**limits)
    source = open_source("folder", directory=directory, split="all", reading=reading)
    for index in range(2):
        with pytest.raises(ValueError, match=reason):
            source[index]


def test_photos_follow_their_profiles_where_asked():
    """One of the six has another than sRGB."""
    new, old = (
        open_source("photos", directory="", split="validation", reading=Reading(icc=icc))
        for icc in (True, False)
    )
    changed = {
        new.class_names[new[i].label]
        for i in range(len(new))
        if (new[i].image != old[i].image).any()
    }
    assert changed == {"rocket"}
