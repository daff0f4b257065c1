"""Runs that begin with a model: where it left off, and without it from the first step on."""

import functools
import json
import re
import shutil
import signal
from unittest import mock

import pytest
import runs

from mq_jax.modes.origins import beginning_of
from mq_jax.runs.base import read_base
from mq_jax.runs.origin import read_origin
from mq_jax.training import train

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FIELDS = {"train__hypergradient": "joint", "train__steps": 5, "train__eval_every": 2}
FIELDS |= {"train__checkpoint_every": 2}


@functools.cache
def source(**changes):
    """A run of which another one begins; its last evaluation is its best."""
    folder = runs.TEMPORARY / "-".join(["source", *map(str, changes.values())])
    done = runs.cli(*runs.arguments(**{**FIELDS, **changes}), f"--workdir={folder}")
    assert done.code == 0, done.err
    return folder


def tune(folder, given, **changes):
    """A run that begins with the model in a folder."""
    command = runs.arguments(**{**FIELDS, **changes, "init_from": given})
    return runs.cli(*command, f"--workdir={folder}")


def evaluated(folder, step):
    """What an evaluation of a run during training found."""
    (row,) = [row for row in runs.metrics(folder) if row["step"] == step]
    return {name: value for name, value in row.items() if name.startswith("eval/")}


def test_the_first_evaluation_is_the_source_s_best(tmp_path):
    done = tune(tmp_path / "run", source())
    assert done.code == 0, done.err
    origin = read_origin(tmp_path / "run")
    assert evaluated(tmp_path / "run", 0) == evaluated(source(), origin.step)
    assert evaluated(tmp_path / "run", 0) != evaluated(source(), 0)
    assert (origin.taken, origin.fresh) == (["encoder", "decoder", "codebook"], {})
    assert f"The run begins with encoder, decoder, codebook from {source()}, step" in done.err


@pytest.mark.slow
def test_nothing_asks_for_the_source_once_a_run_has_begun(tmp_path):
    place, folder = tmp_path / "source", tmp_path / "run"
    shutil.copytree(source(), place)
    assert tune(tmp_path / "whole", place).code == 0
    with runs.signalled_after(3, signal.SIGTERM):
        assert tune(folder, place).code == 0
    shutil.rmtree(place)
    with mock.patch.object(train, "start", None):
        last = tune(folder, tmp_path / "moved")
    assert last.code == 0 and "Going on from the checkpoint of step 3" in last.err
    assert f"init_from changes nothing any more: the run began with the weights of {place}" in (
        last.err
    )
    runs.assert_same_run(folder, tmp_path / "whole")
    assert read_origin(folder) == read_origin(tmp_path / "whole")


def test_an_encoder_that_does_not_fit_is_told_before_anything_is_written(tmp_path):
    done = tune(tmp_path / "run", source(), model__channels=(8,))
    assert done.code == 1 and "model.channels is (4,) there, (8,) here" in done.err
    assert not (tmp_path / "run").exists()


def damaged(folder):
    """A copy of the source, of which the best checkpoint has another byte."""
    shutil.copytree(source(), folder)
    best = folder / "checkpoints" / str(max(runs.checkpoint_steps(folder)))
    data = max((best / "tree").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def prior(folder):
    """What tells a prior's run, and a checkpoint of it."""
    (folder / "checkpoints" / "3").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"prior": {"kind": "masked"}}))


WRONG = {
    "nothing": (lambda folder: None, FileNotFoundError, "which does not exist"),
    "an empty folder": (lambda f: f.mkdir(), FileNotFoundError, "has no exported tokenizer"),
    "a file": (lambda f: f.write_text("x"), ValueError, "is no whole safetensors file"),
    "another byte": (damaged, ValueError, "whose best checkpoint cannot be read: .* damaged"),
    "a prior": (prior, ValueError, "a prior; expected the folder of a tokenizer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_holds_no_whole_model_is_refused_in_one_line(name, tmp_path):
    make, kind, said = WRONG[name]
    make(tmp_path / "source")
    config = runs.configure(**FIELDS, init_from=str(tmp_path / "source"))
    with pytest.raises(kind, match=said) as caught:
        beginning_of(config, tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / "source") in str(caught.value)


def test_a_run_that_has_begun_by_itself_takes_no_weights(tmp_path):
    config = runs.configure(**FIELDS, init_from=str(tmp_path / "another"))
    with pytest.raises(ValueError, match=re.escape(f"the run in {source()} has begun without it")):
        beginning_of(config, source())
    assert beginning_of(runs.configure(**FIELDS), tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["averages", "export", "adversary"])
def test_whatever_the_source_is_the_loss_begins_where_it_left_off(kind, tmp_path):
    gan = {"discriminator__weight": 0.5, "discriminator__channels": 4}
    gan |= {"discriminator__layers": 1, "model__kind": "vqgan", "model__channels": (8,)}
    gan |= {"model__multipliers": "1,2", "model__attention": "16,", "model__z_channels": 8}
    changes = {"averages": {"train__ema_decay": 0.5}, "adversary": gan | {"model__groups": 4}}
    changes = changes.get(kind, {})
    place, own = source(**changes), {}
    if kind == "export":
        assert runs.cli(f"--workdir={place}", "--mode=export").code == 0
        place, own = place / "export", {"codebook__kind": "embedding"}
    done = tune(tmp_path, place, **changes, **own)
    assert done.code == 0, done.err
    assert read_origin(tmp_path).fresh == {}
    best = read_origin(tmp_path).step or max(runs.checkpoint_steps(source()))
    assert evaluated(tmp_path, 0) == pytest.approx(evaluated(source(**changes), best), rel=1e-6)


@pytest.mark.slow
def test_a_codebook_of_another_size_is_made_of_the_encodings_of_the_source(tmp_path):
    changes = {"codebook__kind": "embedding", "codebook__size": 24, "codebook__base": "kmeans"}
    changes |= {"codebook__base_images": 64}
    assert tune(tmp_path / "tuned", source(), **changes).code == 0
    alone = runs.cli(*runs.arguments(**FIELDS, **changes), f"--workdir={tmp_path / 'alone'}")
    assert alone.code == 0, alone.err
    assert read_origin(tmp_path / "tuned").fresh == {"codebook": "codebook.base is 'kmeans'"}
    assert read_base(tmp_path / "tuned") != read_base(tmp_path / "alone")
