"""The files of a prepared set run no code: what they name is checked before it is imported."""

import functools
import json
import os
import re

import pytest

from mq_jax.data.declared import require_known_features

CORE = "tensorflow_datasets.core.features"
IMAGE = {"pythonClassName": f"{CORE}.image_feature.Image", "image": {"shape": {}}}


def whole(image, name=f"{CORE}.features_dict.FeaturesDict"):
    return {"pythonClassName": name, "featuresDict": {"features": {"image": image}}}


def in_text(declared):
    return {"jsonFeature": {"json": json.dumps(declared)}, "pythonClassName": f"{CORE}.x.Y"}


HOSTILE = {
    "a feature": whole({**IMAGE, "pythonClassName": "pwned.Image"}),
    "by the other key": whole({"python_class_name": "pwned.Image"}),
    "at the top": whole(IMAGE, "pwned.FeaturesDict"),
    "like TFDS's": whole(IMAGE, f"{CORE}_pwned.FeaturesDict"),
    "up from TFDS's": whole(IMAGE, f"{CORE}..pwned.FeaturesDict"),
    "of TFDS, elsewhere": whole(IMAGE, "tensorflow_datasets.testing.Pwned"),
    "no text": whole(IMAGE, 3),
    "of before": {"type": "pwned.Image", "content": {}},
    "of before, inside": {"type": f"{CORE}.X", "content": {"a": {"type": "pwned", "content": 1}}},
    "JSON in a text": whole(in_text({"type": "pwned.Image", "content": {}})),
    "JSON in a text in a text": whole(in_text(in_text({"pythonClassName": "pwned.Image"}))),
}


def written(folder, declared, name="features.json"):
    (folder / name).write_text(json.dumps(declared))
    return folder


@pytest.mark.parametrize("declared", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_name_that_is_not_of_tfds_is_refused(tmp_path, declared, name):
    with pytest.raises(ValueError, match=rf"{name} names .*expected names in {re.escape(CORE)}"):
        require_known_features(written(tmp_path, declared, name))


HARMLESS = {
    "an image": whole(IMAGE),
    "features called as the keys": whole(
        {"pythonClassName": f"{CORE}.Y", "features": {"type": IMAGE, "content": IMAGE}}
    ),
    "types of a schema": {"schema": {"feature": [{"name": "label", "type": "INT"}]}},
    "a text in brackets": {"description": "[sic] {not JSON}"},
}


@pytest.mark.parametrize("declared", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_names_no_code_passes(tmp_path, declared):
    require_known_features(written(tmp_path, declared, "dataset_info.json"))


def no_json(path):
    path.write_bytes(b"\xff{")


def deep(path):
    path.write_text("[" * 10**5 + "]" * 10**5)


@pytest.mark.parametrize("make", [os.mkfifo, no_json, deep], ids=["FIFO", "no JSON", "deep"])
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, make):
    make(tmp_path / "features.json")
    with pytest.raises(
        ValueError, match=r"features.json cannot be read \(.*prepare it anew\.$"
    ) as caught:
        require_known_features(tmp_path)
    assert "\n" not in str(caught.value)


def test_depth_below_the_limit_of_the_reader_is_walked(tmp_path):
    declared = functools.reduce(lambda inner, _: [inner], range(500), HOSTILE["a feature"])
    with pytest.raises(ValueError, match="pwned"):
        require_known_features(written(tmp_path, declared))
