"""What a run says of itself before it computes."""

import logging

import exports
import jax
import pytest
import runs

from mq_jax.devices.sharding import make_mesh, replicated
from mq_jax.training.account import log_beginning, log_sizes, window_in_words
from mq_jax.training.build import make_autoencoder
from mq_jax.training.taking import take_sizes


@pytest.fixture
def cache(tmp_path):
    """Where compiled programs are kept, for one test; None to begin with."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda place: jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_compilation_cache_dir", before)


def said(caplog, name, **changes):
    config = runs.experiment(name)
    runs.set_fields(config, {field.replace("__", "."): v for field, v in changes.items()})
    take_sizes(config)
    with caplog.at_level(logging.INFO):
        log_beginning(config, make_autoencoder(config).downsampling)
    return [record.getMessage() for record in caplog.records]


def test_the_quick_start_says_what_becomes_of_its_images_and_what_it_compiles(caplog, cache):
    cache("/somewhere/kept")
    assert said(caplog, "photos_mqvae") == [
        "Codes: 64 x 64 pixels -> 16 x 16 = 256 codes (evaluation: 128 x 128 pixels -> 32 x 32 = "
        "1,024 codes); each is one of 1,024 (10 bits)",
        f"Compiling the train step (unrolled) for {jax.device_count()} device(s), which takes "
        "seconds for small nets and minutes for large ones; the next start may find it in "
        "/somewhere/kept",
    ]


@pytest.mark.parametrize(
    "name, told",
    [
        ("cifar10_mqvae", "32 x 32 pixels -> 8 x 8 = 64 codes; each is one of 1,024 (10 bits)"),
        ("ffhq_mqgan", "256 x 256 pixels -> 16 x 16 = 256 codes; each is one of 16,384 (14 bits)"),
    ],
)
def test_every_net_says_its_codes_and_no_cache_where_there_is_none(caplog, cache, name, told):
    cache(None)
    codes, compiling = said(caplog, name, train__hypergradient="joint")
    assert codes == f"Codes: {told}"
    assert compiling.startswith("Compiling the train step (joint) for ")
    assert compiling.endswith(" for large ones")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"quantizer__kind": "fsq"}, "1,000 (9.966 bits)"),
        ({"quantizer__kind": "lfq", "quantizer__lfq__bits": 18}, "262,144 (18 bits)"),
        ({"quantizer__depth": 4}, "1,024 (10 bits), 4 at each position"),
        ({"quantizer__depth": 3, "quantizer__groups": 2}, "1,024 (10 bits), 6 at each position"),
    ],
)
def test_a_code_is_one_of_its_own_k_however_many_a_position_has(caplog, cache, fields, told):
    cache(None)
    codes, _ = said(caplog, "cifar10_mqvae", train__hypergradient="joint", **fields)
    assert codes == f"Codes: 32 x 32 pixels -> 8 x 8 = 64 codes; each is one of {told}"


def test_an_early_report_has_no_use_of_codes_to_tell():
    assert window_in_words({"train/images_per_second": 9.4, "inner/loss": 1 / 3}) == [
        "9 images/s",
        "loss 0.3333",
    ]


@pytest.mark.parametrize(
    ("kind", "told", "named"),
    [
        ("vq groups of residuals", "autoencoder 735, codebook 588", "codebook/1/2/embedding"),
        ("bsq groups", "autoencoder 753", "autoencoder/encoder/Conv_2/kernel"),
    ],
)
def test_parameters_in_tuples_are_named_and_counted_and_nothing_is_no_part(
    caplog, monkeypatch, kind, told, named
):
    mesh = make_mesh()
    state = jax.device_put(exports.model(kind)[2], replicated(mesh))
    # Of what is shared out over processes, none has all.
    monkeypatch.delattr(jax, "device_get")
    with caplog.at_level(logging.DEBUG):
        log_sizes(state, mesh)
    assert f"Parameters: {told}" in [record.getMessage() for record in caplog.records]
    assert named in caplog.text
