"""Protocol cards: what they say, where they are kept, and which numbers they let compare."""

import copy
import json

import jax
import numpy as np
import pytest
import runs

from mq_jax.evaluation.evaluate import Evaluation
from mq_jax.evaluation.protocol import (
    computed_unlike,
    config_hash,
    protocol_card,
    read_evaluation,
    unlike,
    write_evaluation,
)
from mq_jax.metrics.measures import Measures

LPIPS = {"lpips_vgg": {"weights": "abc"}}
FID = {"fid": {"weights": "def", "features": "pool3"}}


def evaluation(**changes):
    nothing = np.zeros(0)
    found = Evaluation({}, nothing, nothing, nothing, nothing, images=10, pixels="ab12")
    return found._replace(**changes)


def card(measures=LPIPS, step=3, found=None, **changes):
    config = runs.configure(**changes)
    protocol = protocol_card(config, found or evaluation(), Measures((), None, {}, measures))
    run = {"step": step, "packages": {"jax": "1"}}
    return {"protocol": protocol, "metrics": {"mse": 0.5}, "run": run}


def test_a_card_says_what_was_measured_on_and_how():
    protocol = card({**LPIPS, **FID}, data__eval_split="train[:24]")["protocol"]
    assert protocol["data"] == {
        "source": "photos",
        "split": "train[:24]",
        "images": 10,
        "pixels": "ab12",
        "image_size": 32,
        "crop": 0,
        "resize": "none",
        "crop_position": "centre",
        "icc": "to sRGB",
    }
    assert protocol["measures"]["lpips_vgg"] == {"weights": "abc"}
    assert protocol["measures"]["fid"]["reference"].startswith("the originals of this evaluation")
    assert "not clipped" in protocol["measures"]["mse"]


def test_a_card_says_how_the_data_changed_and_is_unlike_one_where_it_did_not():
    cards = {"a": card(), "b": card()}
    assert unlike(cards) == [] and "changes" not in cards["a"]["protocol"]["data"]
    config, measures = runs.configure(), Measures((), None, {}, LPIPS)
    changed = protocol_card(config, evaluation(), measures, ["after step 4: train: 1 added"])
    cards["b"]["protocol"] = json.loads(json.dumps(changed))
    assert unlike(cards) == ["data.changes is None in a, ['after step 4: train: 1 added'] in b"]


def test_a_card_says_in_which_precision_and_on_which_devices_it_was_computed():
    computation = card(model__dtype="bfloat16", model__kind="vqgan")["protocol"]["computation"]
    assert computation["device"] == {"platform": "cpu", "kind": "cpu", "count": 8}
    precision = computation["precision"]
    assert (precision["model"], precision["products"]) == ("bfloat16", "JAX's default")
    # The other kind of model reads no such field.
    precision = card(model__dtype="bfloat16", deterministic=True)["protocol"]["computation"]
    assert precision["precision"]["model"] == "float32" and precision["precision"]["deterministic"]
    with jax.default_matmul_precision("highest"):
        assert card()["protocol"]["computation"]["precision"]["products"] == "highest"


def test_cards_of_other_devices_and_of_before_compare_and_the_difference_is_told(tmp_path):
    cards = {"a": card(), "b": card(), "c": card()}
    cards["b"]["protocol"]["computation"]["device"]["kind"] = "NVIDIA H100"
    assert unlike(cards) == []
    told = "computation.device.kind is 'cpu' in a, 'NVIDIA H100' in b, 'cpu' in c"
    assert computed_unlike(cards) == [told]
    del cards["b"]["protocol"]["computation"]
    assert unlike(cards) == [] and len(computed_unlike(cards)) == 7
    # What replaces a file is of the same protocol and step, wherever it was computed.
    for each in cards.values():
        write_evaluation(tmp_path, each)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_card_without_colour_profiles_is_that_of_before_the_field():
    assert "icc" not in card(data__icc=False)["protocol"]["data"]


def test_a_card_has_no_path():
    protocol = card(data__source="folder", data__dir="/home/someone/images")["protocol"]
    assert "someone" not in json.dumps(protocol)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (card(data__eval_split="train"), "data.split is 'validation' in A, 'train' in B"),
        (card(found=evaluation(images=9)), "data.images is 10 in A, 9 in B"),
        (card(found=evaluation(pixels="cd")), "data.pixels is 'ab12' in A, 'cd' in B"),
        (card(data__eval_image_size=64), "data.image_size is 32 in A, 64 in B"),
        (card(data__resize=True, data__filter="bilinear"), "data.resize is 'none' in A, 'bilinear"),
        (card(data__icc=False), "data.icc is 'to sRGB' in A, None in B"),
        (card({"lpips_vgg": {"weights": "xyz"}}), "measures.lpips_vgg.weights is 'abc' in A"),
    ],
)
def test_cards_that_differ_are_unlike(other, named):
    (phrase,) = unlike({"A": card(), "B": other})
    assert named in phrase


def test_another_step_config_or_a_measure_of_one_alone_is_no_difference():
    other = card({**LPIPS, **FID}, step=9, codebook__size=32)
    assert unlike({"A": card(), "B": other, "C": card({})}) == []


def test_a_third_card_is_compared_too():
    assert unlike({"A": card(), "B": card(), "C": card(data__crop=9)})


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    written = card()
    assert write_evaluation(tmp_path, written) == tmp_path / "evaluation.json"
    assert read_evaluation(tmp_path) == read_evaluation(tmp_path / "evaluation.json") == written


def test_a_number_that_is_not_finite_is_null(tmp_path):
    write_evaluation(tmp_path, {**card(), "metrics": {"mse": float("nan")}})
    assert read_evaluation(tmp_path)["metrics"] == {"mse": None}


def test_an_evaluation_under_another_protocol_does_not_replace_the_one_before(tmp_path):
    for each in (card(), card(), card(data__eval_split="train")):
        write_evaluation(tmp_path, each)
    (kept,) = tmp_path.glob("evaluation-*.json")
    assert read_evaluation(kept) == card()
    assert read_evaluation(tmp_path)["protocol"]["data"]["split"] == "train"


def test_a_damaged_evaluation_is_moved_aside(tmp_path):
    (tmp_path / "evaluation.json").write_text("{")
    write_evaluation(tmp_path, card())
    assert read_evaluation(tmp_path) == card()
    assert (tmp_path / "evaluation-damaged.json").read_text() == "{"


def test_no_evaluation_says_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"--mode=evaluate --workdir={tmp_path}$"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"protocol": {}}', '{"protocol": 1, "run": {}}'])
def test_a_damaged_evaluation_is_named(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match="evaluation.json is no evaluation .* evaluate again"):
        read_evaluation(tmp_path)


def test_nobody_is_told_to_remove_a_file_of_another_name(tmp_path):
    (tmp_path / "train.log").write_text("2026-01-01 step 1")
    with pytest.raises(ValueError, match=r"no evaluation .* expected a run's folder or") as refused:
        read_evaluation(tmp_path / "train.log")
    assert "remove it" not in str(refused.value)


def test_the_hash_of_a_configuration_is_that_of_its_fields():
    config = runs.configure().to_dict()
    backwards = dict(reversed(config.items()))
    assert config_hash(config) == config_hash(backwards) == config_hash(copy.deepcopy(config))
    backwards["seed"] = 1
    assert config_hash(config) != config_hash(backwards)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("protocol", {"data": 3}, r"protocol\.data is 3; expected an object"),
        ("protocol", {"data": {"source": "s"}}, r"protocol\.data lacks split"),
        ("protocol", {"measures": []}, r"protocol\.measures is a list of 0"),
        ("metrics", {"mse": "low"}, r"metrics\['mse'\] is 'low'; expected a finite number"),
        ("run", {"step": -1}, r"run\.step is -1"),
        ("run", {"step": 2.5}, r"run\.step is 2\.5"),
    ],
)
def test_an_evaluation_of_other_values_is_named_by_its_field(tmp_path, section, change, message):
    found = card()
    found[section] |= change
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"evaluation.json is no evaluation .{message}"):
        read_evaluation(str(tmp_path))
