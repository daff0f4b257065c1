"""Exports: every format gives back the same model, and says so where it is damaged."""

import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import exports
import jax
import numpy as np
import pytest
import safetensors.numpy
from exports import FACTS, same

from mq_jax import load_tokenizer
from mq_jax.devices.sharding import make_mesh, shardings
from mq_jax.tokenizers.export import fingerprint, make_export, named
from mq_jax.tokenizers.export_card import card_of, page_of
from mq_jax.tokenizers.export_reading import read_export
from mq_jax.tokenizers.export_writing import write_export


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders of exports by kind."""
    root = tmp_path_factory.mktemp("exports")
    return {
        kind: write_export(root / kind / "export", exports.export(kind), FACTS)
        for kind in ("vqvae", "vqgan")
    }


@pytest.mark.parametrize("kind", ["vqvae", "vqgan"])
@pytest.mark.parametrize("part", ["", "..", "tokenizer.safetensors", "orbax"])
def test_every_format_and_the_folders_give_the_same_model_back(written, kind, part):
    same(read_export(written[kind] / part), exports.export(kind))


def test_the_codebook_is_folded_and_only_what_codes_is_kept(written):
    config, objective, state = exports.model("vqvae")
    arrays = safetensors.numpy.load_file(written["vqvae"] / "tokenizer.safetensors")
    expected = jax.jit(objective.codewords)(state.raw)
    np.testing.assert_array_equal(arrays["codebook"], expected)
    assert {name.split("/")[0] for name in arrays} == {"theta", "batch_stats", "codebook"}


def test_averages_are_exported_where_they_are_kept():
    _, objective, state = exports.model("vqvae with averages")
    weights = exports.export("vqvae with averages").weights
    averages, raw = state.ema, state.raw
    for found, kept, left in (
        (weights.theta, averages.autoencoder, raw.autoencoder),
        (weights.batch_stats, averages.batch_stats, raw.batch_stats),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, kept)
        differ = jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), found, left))
        assert differ and all(differ)
    expected = jax.jit(objective.codewords)(averages)
    np.testing.assert_array_equal(weights.codebook, expected)


def test_a_state_on_eight_devices_exports_as_on_one():
    config, objective, state = exports.model("vqvae")
    mesh = make_mesh(2, 4)
    places = shardings(state, mesh, shard_from=64)
    spread = jax.tree.map(jax.device_put, state, places)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(spread.params))
    found, expected = make_export(config, objective, spread), exports.export("vqvae")
    assert named(found.weights).keys() == named(expected.weights).keys()
    for name, array in named(expected.weights).items():
        # The hyper-net's products are added in another order.
        tolerance = 1e-6 if name == "codebook" else 0
        np.testing.assert_allclose(named(found.weights)[name], array, atol=tolerance, rtol=0)


_ALONE = """
import sys
sys.modules["mq_jax"] = None  # Not importable.
import numpy as np, jax.export, pathlib
folder = pathlib.Path(sys.argv[1])
encode, decode = (
    jax.export.deserialize((folder / f"{name}.stablehlo").read_bytes()).call
    for name in ("encode", "decode")
)
given = np.load(sys.argv[2])
found = {}
for name, images in given.items():
    indices = encode(images)
    found[f"{name} indices"], found[f"{name} decoded"] = indices, decode(indices)
np.savez(sys.argv[3], **found)
"""


@pytest.mark.parametrize("kind", ["vqvae", "vqgan"])
def test_stablehlo_runs_where_the_package_is_not_importable(written, kind, tmp_path):
    tok = load_tokenizer(written[kind])
    given = {"one": exports.images(1), "five": exports.images(5, 16, 24)}
    np.savez(tmp_path / "given.npz", **given)
    paths = [str(written[kind]), str(tmp_path / "given.npz"), str(tmp_path / "found.npz")]
    command = [sys.executable, "-c", _ALONE, *paths]
    subprocess.run(command, check=True, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"}, cwd="/")
    with np.load(tmp_path / "found.npz") as found:
        for name, images in given.items():
            indices = tok.encode(images)
            np.testing.assert_array_equal(found[f"{name} indices"], indices)
            difference = found[f"{name} decoded"].astype(int) - tok.decode(indices)
            # Weights inside may be folded: the last bit may differ.
            assert np.abs(difference).max() <= 1


def test_the_card_tells_how_the_data_of_the_run_changed():
    change = "after step 4: train: 1 added ('a|b.png')"
    evaluated = copy.deepcopy(FACTS["evaluation"])
    evaluated["protocol"]["data"]["changes"] = ["since the training: evaluation: 1 added"]
    changed = {"training": {**FACTS["training"], "data_changes": [change]}}
    for facts in (FACTS, {**FACTS, **changed, "evaluation": evaluated}):
        page = page_of(card_of(exports.export("vqvae"), facts, {}))
        told = "| its data changed | after step 4: train: 1 added ('a\\|b.png') |\n| step | 7 |"
        assert (told in page) == (facts is not FACTS)
        told = "The data of the run changed since the training: evaluation: 1 added."
        assert (told in page) == (facts is not FACTS) and "changes" not in page


def test_the_card_tells_which_model_the_run_began_with():
    begun = {"fingerprint": "ab" * 32, "taken": ["encoder", "decoder"]}
    facts = {**FACTS, "training": {**FACTS["training"], "begun_with": begun}}
    told = f"| begun with | encoder, decoder of the tokenizer `{'ab' * 32}` |\n| step | 7 |"
    assert told in page_of(card_of(exports.export("vqvae"), facts, {}))


def test_the_card_tells_what_is_known_and_no_path(written):
    folder = written["vqvae"]
    card = json.loads((folder / "card.json").read_text())
    assert card["fingerprint"] == exports.export("vqvae").fingerprint
    tokenizer = card["tokenizer"]
    assert (tokenizer["codebook_size"], tokenizer["codeword_dim"]) == (16, 4)
    assert (tokenizer["downsampling"], tokenizer["bits_per_code"]) == (4, 4)
    assert card["training"]["step"] == 7 and card["training"]["config"]["data"]["dir"] == ""
    sizes = {name: (folder / name).stat().st_size for name in card["files"]}
    assert sizes == {name: file["bytes"] for name, file in card["files"].items()}
    page = (folder / "README.md").read_text()
    assert card["fingerprint"] in page and "| mse | 0.25 |" in page
    assert "| fid | not finite |" in page
    assert "someone" not in page + (folder / "card.json").read_text()


def test_the_code_of_the_card_runs_as_it_stands(written):
    blocks = re.findall(r"```python\n(.*?)```", (written["vqvae"] / "README.md").read_text(), re.S)
    assert len(blocks) == 4
    images, tok = exports.images(2), load_tokenizer(written["vqvae"])
    here = pathlib.Path.cwd()
    os.chdir(written["vqvae"])
    try:
        ran = []
        for block in blocks:
            names = {"images": images}
            exec(block, names)
            ran.append(names)
    finally:
        os.chdir(here)
    for names in ran[:2]:
        np.testing.assert_array_equal(names["indices"], tok.encode(images))
        assert np.abs(np.asarray(names["decoded"], int) - tok.reconstruct(images)).max() <= 1
    for names in ran[2:]:
        np.testing.assert_array_equal(names["codebook"], tok.weights.codebook)


def test_a_model_without_an_evaluation_says_how_to_have_one(tmp_path):
    facts = {**FACTS, "evaluation": None}
    write_export(tmp_path / "export", exports.export("vqvae"), facts)
    assert "Not evaluated: `python -m" in (tmp_path / "export" / "README.md").read_text()


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written["vqvae"], tmp_path / "export")


@pytest.mark.parametrize("size", [0, 4, 100, 5000, -1])
def test_a_truncated_safetensors_file_is_named(copied, size):
    path = copied / "tokenizer.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="tokenizer.safetensors is no whole .*export the model"):
        load_tokenizer(copied)


def test_one_changed_bit_is_found(copied):
    path = copied / "tokenizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="tokenizer.safetensors is damaged or was edited"):
        load_tokenizer(copied)


def test_weights_of_another_program_are_named(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="was not exported by mq_jax"):
        load_tokenizer(path)


@pytest.mark.parametrize("change", [{"version": 99}, {"version": None}])
def test_another_version_is_named(tmp_path, change):
    export = exports.export("vqvae")
    header = {**export.header, **change}
    if header["version"] is None:
        del header["version"]
    path = tmp_path / "t.safetensors"
    metadata = {"mq_jax": json.dumps(header)}
    safetensors.numpy.save_file(named(export.weights), path, metadata=metadata)
    with pytest.raises(ValueError, match="is of version (99|unknown); expected 1"):
        load_tokenizer(path)


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_header_that_is_no_mapping_is_named(tmp_path, text):
    path = tmp_path / "t.safetensors"
    arrays = named(exports.export("vqvae").weights)
    safetensors.numpy.save_file(arrays, path, metadata={"mq_jax": text})
    with pytest.raises(ValueError, match="t.safetensors is damaged or was edited: its header is"):
        load_tokenizer(path)


def test_an_edited_preparation_is_found(tmp_path):
    export = exports.export("vqvae")
    header = {**export.header, "preparation": {**export.preparation, "crop": 999}}
    path = tmp_path / "t.safetensors"
    metadata = {"mq_jax": json.dumps(header)}
    safetensors.numpy.save_file(named(export.weights), path, metadata=metadata)
    with pytest.raises(ValueError, match="t.safetensors is damaged or was edited: its preparation"):
        load_tokenizer(path)


def test_an_export_that_cannot_take_its_name_leaves_the_old_one(copied, monkeypatch):
    rename = pathlib.Path.rename

    def fail(path, target):
        if path.name.endswith(".tmp"):
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail)
    with pytest.raises(OSError, match="no space left"):
        write_export(copied, exports.export("vqgan"), FACTS, overwrite=True)
    same(read_export(copied), exports.export("vqvae"))
    assert [path.name for path in copied.parent.iterdir()] == ["export"]


def test_what_a_killed_export_left_is_no_obstacle(tmp_path):
    (tmp_path / f".export.{os.getpid()}.tmp").mkdir()
    write_export(tmp_path / "export", exports.export("vqvae"), FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_no_file_of_an_export_names_a_folder_of_the_machine(written):
    package = pathlib.Path(exports.__file__).parents[2]
    for folder in written.values():
        for path in folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                for place in (folder.parent, package, pathlib.Path(jax.__file__).parent):
                    assert str(place).encode() not in data, path


def test_the_files_of_an_export_have_the_permissions_of_other_files(written):
    folder = written["vqvae"]
    modes = {path.name: path.stat().st_mode for path in folder.iterdir() if path.is_file()}
    assert len({*modes.values()}) == 1, modes


@pytest.mark.parametrize("damage", ["files gone", "files cut", "header gone", "header edited"])
def test_a_damaged_orbax_folder_is_named(copied, damage):
    folder = copied / "orbax"
    (copied / "tokenizer.safetensors").unlink()
    files = [path for path in (folder / "weights").rglob("d/*") if path.is_file()]
    assert files
    if damage == "files gone":
        for path in files:
            path.unlink()
    elif damage == "files cut":
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "header gone":
        shutil.rmtree(folder / "header")
    else:
        path = folder / "header" / "metadata"
        text = path.read_text()
        edited = text.replace('"layer_norm": false', '"layer_norm": true')
        assert edited != text
        path.write_text(edited)
    with pytest.raises(ValueError, match="orbax (is no whole Orbax folder|is damaged or was ed)"):
        load_tokenizer(copied)


def test_the_command_that_exports_is_quoted(tmp_path):
    (tmp_path / "my run").mkdir()
    (tmp_path / "my run" / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="--workdir='.*/my run'"):
        load_tokenizer(tmp_path / "my run")


def test_a_pipe_among_the_files_of_an_orbax_folder_is_not_read(copied):
    (copied / "tokenizer.safetensors").unlink()
    os.mkfifo(copied / "orbax" / "weights" / "pipe")
    with pytest.raises(ValueError, match="orbax is no whole Orbax folder .*a FIFO"):
        load_tokenizer(copied)


def test_no_export_says_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; expected an exported tokenizer"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="has no exported tokenizer; it is no run either"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=f"--mode=export --workdir={tmp_path}"):
        load_tokenizer(tmp_path)


def test_the_same_model_is_written_again_and_another_only_when_told(copied):
    write_export(str(copied), exports.export("vqvae"), FACTS)
    other = exports.export("vqvae with averages")
    with pytest.raises(ValueError, match="holds another model, .*--overwrite"):
        write_export(copied, other, FACTS)
    same(read_export(copied), exports.export("vqvae"))
    write_export(copied, other, FACTS, overwrite=True)
    same(read_export(copied), other)
    assert [path.name for path in copied.parent.iterdir()] == ["export"]


def test_what_is_no_export_is_not_replaced(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="holds no whole export .*--overwrite"):
        write_export(tmp_path / "export", exports.export("vqvae"), FACTS)
    assert (tmp_path / "export" / "mine.txt").read_text() == "kept"


def test_a_failure_in_the_middle_leaves_the_old_export(copied, monkeypatch):
    monkeypatch.setattr("mq_jax.tokenizers.export_writing.card_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_export(copied, exports.export("vqvae with averages"), FACTS, overwrite=True)
    same(read_export(copied), exports.export("vqvae"))
    assert [path.name for path in copied.parent.iterdir()] == ["export"]


def test_the_fingerprint_is_of_names_shapes_types_values_and_architecture():
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    others = [
        ({"x": 1}, arrays),
        ({}, {"a": arrays["a"].T, "b": arrays["b"]}),
        ({}, {"a": arrays["a"].astype(np.int32), "b": arrays["b"]}),
        ({}, {"a": arrays["a"], "c": arrays["b"]}),
        ({}, {"a": arrays["a"], "b": 2 * arrays["b"]}),
    ]
    found = {fingerprint({}, arrays), *(fingerprint(*other) for other in others)}
    assert len(found) == 6
    assert fingerprint({}, dict(reversed(arrays.items()))) == fingerprint({}, arrays)
