"""What of a trained model a run begins with: whatever fits, and by name what does not."""

import functools
import re

import exports
import jax
import numpy as np
import pytest
import runs

from mq_jax.data import inputs
from mq_jax.devices.sharding import make_mesh
from mq_jax.images.scale import from_uint8
from mq_jax.modes import origins
from mq_jax.runs.origin import Origin, in_words, read_origin
from mq_jax.runs.trees import by_path, with_leaves
from mq_jax.tokenizers.architecture import config_of
from mq_jax.tokenizers.export import make_export
from mq_jax.training.build import build
from mq_jax.training.features import sampled_features
from mq_jax.training.first import drawn, first_state
from mq_jax.training.origin import Trained, fit
from mq_jax.training.restored import Restored
from mq_jax.training.taking import take_sizes
from mq_jax.training.validate import validate

JOINT = {**exports.VQVAE, "train__hypergradient": "joint"}
EMBEDDING = {**JOINT, "codebook__kind": "embedding"}
KMEANS = {**JOINT, "codebook__base": "kmeans", "codebook__embedding_dim": 4}
EMA = {**EMBEDDING, "quantizer__kind": "ema"}
GAN = {**JOINT, "discriminator__weight": 0.5, "discriminator__channels": 4}
GAN |= {"discriminator__layers": 1}
FSQ = {**JOINT, "quantizer__kind": "fsq"}


def configured(changes):
    config = runs.configure(**changes, init_from="SOURCE")
    take_sizes(config)
    validate(config)
    return config


@functools.cache
def _of_a_run(changes):
    config = configured(dict(changes))
    built, state = exports.drawn(config)
    return origins._trained(config, Restored(built, state, 7, True), make_mesh())


def of_a_run(changes):
    """A run's model at a generic point, as its checkpoint gives it."""
    return _of_a_run(tuple(changes.items()))


def of_an_export(changes):
    """The same model without what an export lacks."""
    found = of_a_run(changes)
    built, state = exports.drawn(found.config)
    export = make_export(found.config, built.objective, state)
    assert export.fingerprint == found.fingerprint
    return Trained(config_of(export.architecture), None, export.fingerprint, *export.weights)


def fitted(source, changes):
    config = configured(changes)
    return fit(config, build(config, 1), source)


NETS = ["encoder", "decoder"]
LAST = {"encoder/Conv_3/kernel", "encoder/Conv_3/bias", "decoder/Conv_0/kernel"}
# The source and what reads it; the run; its parts; what is made anew, and what is said of that.
FITS = {
    "the same": (of_a_run, GAN, GAN, [*NETS, "codebook", "discriminator"], {}),
    "no discriminator there": (
        of_a_run,
        JOINT,
        GAN,
        [*NETS, "codebook"],
        {"discriminator": "none"},
    ),
    "another discriminator": (
        *(of_a_run, GAN, {**GAN, "discriminator__norm": "group"}, [*NETS, "codebook"]),
        {"discriminator": "discriminator.norm is 'batch' there, 'group' here"},
    ),
    "another K": (
        *(of_a_run, JOINT, {**JOINT, "codebook__size": 32}, NETS),
        {"codebook": "codebook.size is 16 there, 32 here"},
    ),
    "another D": (
        *(of_a_run, JOINT, {**JOINT, "codebook__dim": 8}, NETS),
        {**dict.fromkeys(LAST, "there"), "codebook": "codebook.dim is 4 there, 8 here"},
    ),
    "LayerNorm": (
        *(of_a_run, JOINT, {**JOINT, "model__layer_norm": True}, [*NETS, "codebook"]),
        {f"encoder/LayerNorm_0/{name}": "absent there, [4] here" for name in ("scale", "bias")},
    ),
    "another net": (
        *(of_a_run, JOINT, {**JOINT, "codebook__kind": "mlp-relu"}, NETS),
        {"codebook": "codebook.kind is 'mlp' there, 'mlp-relu' here"},
    ),
    "a codebook made of data": (
        *(of_a_run, JOINT, {**EMBEDDING, "codebook__base": "kmeans"}, NETS),
        {"codebook": "codebook.base is 'kmeans'"},
    ),
    "a codebook made of data there too": (of_a_run, KMEANS, KMEANS, [*NETS, "codebook"], {}),
    "one of data there too, of another K": (
        *(of_a_run, KMEANS, {**KMEANS, "codebook__size": 32}, NETS),
        {"codebook": "codebook.size is 16 there, 32 here"},
    ),
    "the codewords of a net": (of_a_run, JOINT, EMBEDDING, [*NETS, "codebook"], {}),
    "restarts that were not": (
        *(of_a_run, EMBEDDING, {**EMBEDDING, "quantizer__restart_every": 5}),
        *([*NETS, "codebook"], {"counts of the quantizer": "otherwise"}),
    ),
    "running means": (of_a_run, EMA, EMA, [*NETS, "codebook"], {}),
    "codewords become running means": (
        *(of_a_run, EMBEDDING, EMA, [*NETS, "codebook"]),
        {"quantizer/counts": "the codewords alone are taken"},
    ),
    "codewords of the sphere are others": (
        *(of_a_run, EMBEDDING, {**EMBEDDING, "quantizer__kind": "l2"}, NETS),
        {"codebook": "quantizer.kind is 'vq' there, 'l2' here"},
    ),
    "an export with a net": (
        *(of_an_export, JOINT, JOINT, NETS),
        {"codebook": "codebook.kind=embedding takes them"},
    ),
    "an export": (of_an_export, JOINT, EMBEDDING, [*NETS, "codebook"], {}),
    "an export of another K": (
        *(of_an_export, JOINT, {**EMBEDDING, "codebook__size": 32}, NETS),
        {"codebook": "codebook.size is 16 there, 32 here"},
    ),
    "nothing to take": (of_a_run, FSQ, FSQ, NETS, {}),
}


@pytest.mark.parametrize("name", FITS)
def test_what_fits_is_taken_and_all_else_is_named(name):
    read, there, here, parts, fresh = FITS[name]
    found = fitted(read(there), here).origin
    assert found.taken == parts and found.fresh.keys() == fresh.keys()
    for part, said in fresh.items():
        assert said in found.fresh[part]


def test_levels_and_groups_take_the_codewords_of_each():
    changes = {**EMBEDDING, "quantizer__groups": 2, "quantizer__depth": 3}
    beginning = fitted(of_an_export(changes), changes)
    assert beginning.origin.taken == [*NETS, "codebook"]
    tables = [leaf for name, leaf in beginning._arrays.items() if "params/codebook" in name]
    for table, expected in zip(tables, jax.tree.leaves(of_a_run(changes).folded), strict=True):
        np.testing.assert_array_equal(table, expected)
    other = fitted(of_an_export(changes), {**changes, "quantizer__depth": 2})
    assert other.origin.fresh["codebook"] == "quantizer.depth is 3 there, 2 here"


MISFITS = {
    "channels": (
        {**JOINT, "model__channels": (4, 4)},
        "model.channels is (4, 8) there, (4, 4) here",
    ),
    "blocks": ({**JOINT, "model__blocks": 2}, "model.blocks is 1 there, 2 here"),
    "kind": ({**exports.VQGAN, "train__hypergradient": "joint"}, "model.kind is 'vqvae' there"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_encoder_that_does_not_fit_is_refused_with_the_field(name):
    changes, said = MISFITS[name]
    with pytest.raises(ValueError, match=f"init_from is 'SOURCE', whose.*{re.escape(said)}"):
        fitted(of_a_run(JOINT), changes)


def test_the_same_widths_under_other_groups_are_another_net():
    there = {**exports.VQGAN, "train__hypergradient": "joint"}
    with pytest.raises(ValueError, match="model.groups is 4 there, 2 here"):
        fitted(of_a_run(there), {**there, "model__groups": 2})


def test_a_run_begins_with_what_evaluation_takes_whatever_its_devices(tmp_path):
    changes = {**EMA, "train__ema_decay": 0.5}
    source = of_a_run(changes)
    averages = exports.drawn(source.config)[1].ema
    config = configured(changes)
    built, beginning = build(config, 1), fitted(source, changes)
    # Of eight devices each holds a share; the source has all of it.
    config.mesh.update(fsdp=8, shard_from=1)
    mesh = make_mesh(1, 8)
    with runs.quick_compilation():
        model = with_leaves(drawn(config, built), beginning.give(tmp_path))
        state = first_state(config, built, mesh, model)
    assert not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    for model in (state.raw, state.ema):
        runs.assert_same_arrays(*(jax.tree.map(np.asarray, by_path(m)) for m in (model, averages)))
    assert state.step == 0 and not any(map(np.any, jax.tree.leaves(state.opt_state)))
    assert read_origin(tmp_path) == beginning.origin
    # A run of days holds no second model.
    assert beginning._arrays is None


def test_k_means_is_of_encodings_of_the_encoder_that_was_taken():
    changes = {**EMBEDDING, "codebook__base": "kmeans", "codebook__base_images": 32}
    changes |= {"codebook__size": 256}
    config, trained = configured(changes), of_a_run(JOINT)
    built, source = build(config, 1), inputs.open_training(config).autoencoder
    beginning = fit(config, built, trained)
    with runs.quick_compilation():
        model = with_leaves(drawn(config, built), beginning._arrays)
        found = sampled_features(config, built, source, model)
        (images,) = inputs.first_images(config, source, count=32, batch_size=32)
        z, _ = built.objective.autoencoder.apply(
            {"params": trained.theta, "batch_stats": trained.batch_stats},
            from_uint8(images),
            train=True,
            method="encode",
            mutable=["batch_stats"],
        )
    shape = (32, -1, 4)
    found, z = (np.sort(np.reshape(rows, shape), axis=1) for rows in (found, z))
    np.testing.assert_allclose(found, z, atol=1e-5)


def test_a_beginning_is_told_in_one_line():
    origin = Origin("runs/a", 7, "ab" * 32, ["encoder"], {"codebook": "K"})
    told = "encoder from runs/a, step 7 (abababababababab...); made anew: codebook (K)"
    assert in_words(origin) == told
    assert (
        in_words(origin._replace(step=None, fresh={}))
        == "encoder from runs/a (abababababababab...)"
    )


@pytest.mark.parametrize("text", ["{}", '{"source": 3}', "["])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "origin.json").write_text(text)
    with pytest.raises(ValueError, match="origin.json cannot be read"):
        read_origin(tmp_path)
