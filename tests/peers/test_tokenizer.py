"""Files of peers: known by their names, and refused where an array is not what it should be."""

import pathlib

import numpy as np
import pytest
import safetensors.numpy
from peer_files import write_peer
from peer_tokenizers import FILE, peer

from mq_jax.peers.opening import opened
from mq_jax.peers.recognition import recognised
from mq_jax.peers.tokenizer import read_peer
from mq_jax.tensorfiles.torch_file import open_torch


@pytest.mark.parametrize("name", ["taming", "llamagen", "janus", "diffusers"])
def test_a_format_is_known_by_the_names_and_a_net_by_the_shapes(name):
    found = recognised(peer(name).shapes)
    assert found.format == name
    assert found.net == (32, (1, 2), 1, (1,), True, 8, 4)
    assert found.size == 16


def test_of_a_folder_its_own_words_count_and_the_rest_is_as_published(tmp_path):
    found = read_peer(write_peer(tmp_path, "amused"))
    assert (found.format, found.groups, found.net.attention) == ("diffusers", 8, ())
    assert found.usage.unit_pixels and not found.net.middle_attention
    assert list(found.files) == ["diffusion_pytorch_model.safetensors"]


def test_of_a_file_in_its_folder_the_folders_words_count_too(tmp_path):
    file = write_peer(tmp_path, "amused") / "diffusion_pytorch_model.safetensors"
    assert read_peer(file).groups == 8
    (tmp_path / "config.json").unlink()
    found = read_peer(file)
    # The arrays themselves tell that it is aMUSEd's.
    assert found.usage.unit_pixels and found.groups == 32


def test_parts_of_pickles_are_no_model(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has none of diffusion_pytorch_model.safetensors"):
        read_peer(tmp_path)


def test_networks_beside_the_tokenizer_are_counted_and_left(tmp_path):
    assert read_peer(write_peer(tmp_path, "janus")).left == 1


def test_moving_averages_are_what_is_taken(tmp_path):
    found = read_peer(write_peer(tmp_path, "ibq"), "ibq")
    own = peer("ibq").tensors
    np.testing.assert_array_equal(found.arrays["codebook"], own["quantize.embedding.weight"])
    # The trained ones, the averages' two counts, and two of the loss.
    assert found.left == len(own) + 4


def test_taming_and_ibq_of_as_many_blocks_are_told_apart_by_the_one_who_knows():
    shapes = peer("taming").shapes
    block = {n.replace("block.0", f"block.{i}"): s for n, s in shapes.items() for i in range(4)}
    with pytest.raises(ValueError, match="say --format=ibq"):
        recognised(block)
    assert recognised(block, "ibq").format == "ibq"


def test_an_export_of_ours_is_told_what_takes_it():
    with pytest.raises(ValueError, match="an export of ours: config.init_from takes its folder"):
        recognised({"codebook": (16, 4), "theta/decoder/Conv_0/bias": (8,)})


def without(name):
    return lambda tensors: {own: array for own, array in tensors.items() if own != name}


def swapped(tensors):
    name = "decoder.conv_in.weight"
    return tensors | {name: tensors[name].swapaxes(0, 1)}


MID = "encoder.mid.block_1.conv1.weight"
REFUSED = {
    "an array is missing": (without(MID), f"it lacks {MID}"),
    "an array is unknown": (
        lambda tensors: tensors | {"encoder.extra.weight": np.zeros(3, np.float32)},
        "no place for encoder.extra.weight",
    ),
    "axes are swapped": (
        swapped,
        r"decoder.conv_in.weight is \(8, 64, 3, 3\); its net asks for \(64, 8, 3, 3\)",
    ),
    "a number is infinite": (
        lambda tensors: tensors | {MID: np.full_like(tensors[MID], np.inf)},
        f"{MID} is not finite",
    ),
    "there is no codebook": (without("quantize.embedding.weight"), "it has no array quantize.emb"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_where(case, tmp_path):
    change, message = REFUSED[case]
    path = write_peer(tmp_path, "taming", change)
    with pytest.raises(ValueError, match=f"vqgan.ckpt cannot be imported: .*({message})"):
        read_peer(path)


def test_a_file_of_another_format_than_was_said_is_refused(tmp_path):
    path = write_peer(tmp_path, "llamagen")
    with pytest.raises(ValueError, match="those of llamagen, not of taming"):
        read_peer(path, "taming")


def test_a_truncated_file_is_refused(tmp_path):
    for name in ("taming", "diffusers"):
        path = write_peer(tmp_path, name)
        file = path if path.is_file() else path / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(ValueError, match="cannot be imported: no whole"):
            read_peer(path)


def test_a_net_that_says_it_is_another_is_refused(tmp_path):
    path = write_peer(tmp_path, "diffusers")
    config = (path / "config.json").read_text().replace('"group"', '"spatial"')
    (path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="norm_type in its config.json is 'spatial'"):
        read_peer(path)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file, or the folder of a model"):
        read_peer(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_peer(tmp_path / "absent.ckpt")


def test_parts_of_a_model_are_read_through_their_index(tmp_path):
    path = write_peer(tmp_path, "diffusers")
    whole = path / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.numpy.load_file(whole)
    whole.unlink()
    parts = {"first": list(tensors)[::2], "second": list(tensors)[1::2]}
    weight_map = {}
    for number, names in enumerate(parts.values(), start=1):
        part = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        safetensors.numpy.save_file({name: tensors[name] for name in names}, path / part)
        weight_map |= dict.fromkeys(names, part)
    text = str({"weight_map": weight_map}).replace("'", '"')
    (path / f"{whole.name}.index.json").write_text(text)
    assert len(read_peer(path).files) == 2
    (path / f"{whole.name}.index.json").write_text('{"weight_map": {"a": "../b.safetensors"}}')
    with pytest.raises(ValueError, match="its index names '../b.safetensors'"):
        read_peer(path)


def test_a_genuine_checkpoint_is_read_past_the_classes_of_its_training():
    """torch.save wrote it, with objects of a package that is not here."""
    path = pathlib.Path(FILE).with_name("lightning.ckpt")
    with opened(path) as arrays:
        assert arrays.shapes == {"a.weight": (3, 2), "a.half": (2,)}
        found = arrays.read(["a.weight", "a.half"])
    np.testing.assert_array_equal(found["a.weight"], np.arange(6.0).reshape(2, 3).T)
    assert found["a.half"].tolist() == [1.5, -2] and found["a.half"].dtype.name == "bfloat16"
    with open(path, "rb") as file, open_torch(file, lambda held: held["callbacks"]) as arrays:
        assert not arrays.shapes
