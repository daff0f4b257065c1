"""Sets of images: archives, folders and data sets, in order, and what each refuses."""

import numpy as np
import pytest
import runs
import toy_space
from PIL import Image

from mq_jax.evaluation.image_sets import DataImages, open_image_set

IMAGES = toy_space.draw(7, 0)


def write_folder(folder, images=IMAGES):
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


def write_archive(path, images=IMAGES, save=np.savez, **others):
    save(path, arr_0=images, **others)
    return path


def all_of(images, rows=3):
    blocks = list(images.blocks(rows))
    assert max(len(block.images) for block in blocks) <= rows
    places = np.concatenate([block.places for block in blocks])
    return places, np.concatenate([block.images for block in blocks])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_in_its_order(tmp_path, save):
    images = open_image_set(write_archive(tmp_path / "s.npz", save=save, arr_1=np.arange(7)))
    assert (images.count, images.side, images.names) == (7, toy_space.SIDE, ("arr_0", "arr_1"))
    for rows in (3, 7, 100):
        places, found = all_of(images, rows)
        np.testing.assert_array_equal(places, np.arange(7))
        np.testing.assert_array_equal(found, IMAGES)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    images = open_image_set(write_folder(tmp_path / "s"))
    (tmp_path / "s" / "samples.json").write_text("{}")
    assert (images.count, images.side) == (7, toy_space.SIDE)
    places, found = all_of(images)
    np.testing.assert_array_equal(places, np.arange(7))
    np.testing.assert_array_equal(found, IMAGES)


def test_a_data_set_is_made_as_an_evaluation_makes_it_and_leaves_bad_images_out(tmp_path):
    folder = write_folder(tmp_path / "data")
    (folder / "003.png").write_bytes(b"no image")
    config = runs.configure(
        data__source="folder",
        data__dir=str(folder),
        data__eval_split="all",
        data__eval_image_size=4,
        data__max_bad_share=0.5,
        data__crop=0,
    )
    images = DataImages(config)
    places, found = all_of(images)
    np.testing.assert_array_equal(places, [0, 1, 2, 4, 5, 6])
    np.testing.assert_array_equal(found, np.delete(IMAGES, 3, 0)[:, 2:6, 2:6])
    card = images.card(6, "ab")
    assert card["images"] == 6 and card["image_size"] == 4 and str(tmp_path) not in str(card)


def test_what_changes_a_set_changes_its_identity(tmp_path):
    folder = write_folder(tmp_path / "s")
    before = open_image_set(folder).identity()
    assert open_image_set(folder).identity() == before
    Image.fromarray(IMAGES[0]).save(folder / "000.png", compress_level=0)
    changed = open_image_set(folder).identity()
    (folder / "000.png").rename(folder / "999.png")
    renamed = open_image_set(folder).identity()
    archives = [write_archive(tmp_path / f"{n}.npz", IMAGES[:n]) for n in (4, 5)]
    found = [open_image_set(path).identity() for path in archives]
    assert len({str(each) for each in (before, changed, renamed, *found)}) == 5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, :4], r"arr_0 u8\[7, 4, 8, 3\]; expected u8\[N, S, S, 3\]"),
        (IMAGES[..., :1], r"u8\[7, 8, 8, 1\]"),
        (IMAGES[:0], r"u8\[0, 8, 8, 3\]"),
        (IMAGES.astype(np.float32), "arr_0 is float32"),
        (np.asfortranarray(IMAGES), "save it in C order"),
    ],
)
def test_an_archive_of_other_arrays_is_refused(tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        open_image_set(write_archive(tmp_path / "s.npz", images))


def test_an_archive_of_wider_numbers_is_refused(tmp_path):
    images = open_image_set(write_archive(tmp_path / "s.npz", IMAGES.astype(np.uint16)))
    with pytest.raises(ValueError, match="s.npz cannot be read .arr_0 is uint16"):
        all_of(images)


def test_no_archive_no_array_and_no_place_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", images=IMAGES)
    with pytest.raises(ValueError, match="text.npz holds no images .it is no whole .npz file"):
        open_image_set(tmp_path / "text.npz")
    with pytest.raises(ValueError, match="it has no array 'arr_0'"):
        open_image_set(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="expected an .npz file with arr_0, or a folder"):
        open_image_set(tmp_path / "nowhere")


def test_an_archive_that_is_damaged_is_told(tmp_path):
    path = write_archive(tmp_path / "s.npz")
    data = bytearray(path.read_bytes())
    at = data.index(IMAGES[5].tobytes()) + 9
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="s.npz .*it is no whole .npz file: Bad CRC"):
        all_of(open_image_set(path))


def test_images_of_a_folder_that_differ_or_cannot_be_read_are_named(tmp_path):
    folder = write_folder(tmp_path / "s")
    Image.fromarray(IMAGES[0, :4]).save(folder / "005.png")
    with pytest.raises(ValueError, match="005.png has 4 x 8 pixels; expected 8 x 8"):
        all_of(open_image_set(folder))
    (folder / "005.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="005.png: cannot decode"):
        all_of(open_image_set(folder))
