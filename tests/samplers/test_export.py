"""Exports of priors: programs that compute what the prior does, and files that are held to it."""

import contextlib
import functools
import json
import re
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import prior_runs
import pytest
import runs
import tiny
from file_kinds import exported, exported_prior

from mq_jax import load_prior, load_tokenizer
from mq_jax.generation import Sampling
from mq_jax.modes.exporting import require_export
from mq_jax.samplers import read_prior, read_programs, restored_prior
from mq_jax.samplers.export import restored_of
from mq_jax.samplers.restored import fingerprint_of
from mq_jax.tokenizers.programs import sign

KINDS = ("autoregressive", "masked")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs by kind over 4 x 4 places of two levels, with their exports."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for kind in KINDS:
        given = {"kind": "vq residual shared", "steps": (4, 9)[: 1 + (kind == KINDS[0])]}
        found[kind] = prior_runs.write_run(root / kind, prior__kind=kind, **given)
        rows = [{"step": step, "eval/bits_per_token": step + 0.25} for step in (0, 4)]
        (found[kind] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        outcome = runs.cli("--mode=export", f"--workdir={found[kind]}")
        assert outcome.code == 0, outcome.err
        assert f"Step 4: {found[kind]}/export" in outcome.out
    return found


def batch(size, space):
    """(tokens i32[B, n, J], labels i32[B], the first of no class, known bool[B, n])."""
    rng = np.random.default_rng(size)
    tokens = rng.integers(0, space.size, (size, space.places, space.levels), np.int32)
    labels = (space.null - np.arange(size, dtype=np.int32)) % (space.classes + 1)
    return tokens, labels, rng.random((size, space.places)) < 0.5


def whole(export, *given):
    """The model's own logits."""
    restored = restored_of(export)
    return tiny.jit(restored.prior.model.apply)({"params": restored.params}, *given)


@pytest.mark.parametrize("levels, size, front", [(2, 1, 0), (1, 3, 2)])
def test_the_first_places_and_then_code_by_code_give_the_logits_of_the_whole_pass(
    folders, levels, size, front
):
    folder = folders["autoregressive"] if levels == 2 else exported_prior("autoregressive", levels)
    export, programs = read_programs(folder)
    tokens, labels, _ = batch(size, restored_of(export).space)
    codes = tokens.reshape(size, -1)

    @tiny.jit
    def stepwise(weights, labels, front, codes, numbers):
        state, first = programs["prefill"].call(weights, labels, front)

        def step(state, here):
            return programs["step"].call(weights, state, *here)

        return first, jax.lax.scan(step, state, (codes, numbers))[1]

    numbers = np.arange(front * levels + 1, codes.shape[1])
    given = labels, tokens[:, :front], codes[:, numbers - 1].T, numbers
    first, rest = stepwise(export.weights, *given)
    found = np.concatenate([first[:, None], np.swapaxes(rest, 0, 1)], axis=1)
    expected = whole(export, tokens, labels).reshape(size, codes.shape[1], -1)
    # Of logits of up to four; sums in another order.
    np.testing.assert_allclose(found, expected[:, front * levels :], rtol=1e-5, atol=3e-5)


def test_the_logits_of_a_masked_prior_are_those_of_the_model(folders):
    export, programs = read_programs(folders["masked"] / "export")
    assert list(programs) == ["logits"]
    for size in (1, 3):
        tokens, labels, known = batch(size, restored_of(export).space)
        found = programs["logits"].call(export.weights, labels, tokens, known)
        expected = whole(export, tokens, labels, known)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_the_card_draw_as_the_prior_does(folders, kind):
    """The likeliest code each time, so that keys are nothing to it."""
    restored, text = restored_prior(folders[kind]), (folders[kind] / "export/README.md").read_text()
    (lines,) = [part for part in re.findall(r"```python\n(.*?)```", text, re.S) if "load(" in part]
    names = {}
    with (
        contextlib.chdir(folders[kind] / "export"),
        mock.patch.object(jax.random, "categorical", lambda key, logits: logits.argmax(-1)),
        mock.patch.object(jax, "jit", tiny.jit),
    ):
        exec(lines.replace("steps = 12", "steps = 5"), names)
    images, labels = jnp.arange(4), names["labels"]
    sampling = Sampling(top_k=1, steps=5, choice_noise=0.0)
    expected = tiny.jit(
        lambda params, key: restored.prior.sample(params, images, labels, key, sampling)
    )(restored.params, jax.random.key(0))
    np.testing.assert_array_equal(names["tokens"].reshape(expected.shape), expected)
    assert len(np.unique(expected)) > 3


def test_an_export_is_the_prior_of_its_run_and_names_its_tokenizer(folders):
    folder, restored = folders["autoregressive"], restored_prior(folders["autoregressive"])
    for place in (folder, folder / "export", folder / "export" / "prior.safetensors"):
        export = read_prior(place)
        assert export.fingerprint == fingerprint_of(restored) and export.step == 4
    tokenizer = load_tokenizer(restored.config.tokens)
    assert export.facts.tokenizer == tokenizer.fingerprint
    assert export.facts.space == restored.space
    assert export.facts.class_names == ("a", "b", "c")
    files = {path.name for path in (folder / "export").iterdir()}
    programs = {"prefill.stablehlo", "step.stablehlo"}
    assert files == {"README.md", "card.json", "prior.safetensors", *programs}
    card = (folder / "export" / "card.json").read_text()
    assert tokenizer.fingerprint in card and str(folder.parent) not in card
    assert "| eval/bits_per_token | 4.25 |" in (folder / "export" / "README.md").read_text()
    assert str(folder.parent).encode() not in (folder / "export" / "step.stablehlo").read_bytes()


def test_an_export_draws_what_its_run_draws_where_the_tokenizer_is_given(folders):
    folder = folders["masked"]
    export, tokenizer = folder / "export", restored_prior(folder).config.tokens
    found, expected = load_prior(export, tokenizer=tokenizer), load_prior(folder)
    assert repr(found) == repr(expected) and found.fingerprint == expected.fingerprint
    assert found.class_names == expected.class_names
    jax.tree.map(np.testing.assert_array_equal, found.restored.params, expected.restored.params)
    with pytest.raises(FileNotFoundError, match="does not say where its tokenizer lies. Of .*FOLD"):
        load_prior(export)
    with pytest.raises(ValueError, match="is the export of step 4; expected it, not 9"):
        load_prior(export, step=9, tokenizer=tokenizer)
    given = f"--workdir={export}", f"--tokenizer={tokenizer}"
    outcome = runs.cli("--mode=sample", "--count=2", *given)
    assert outcome.code == 1 and "--output is missing;" in outcome.err
    assert not (export / "samples").exists()


@pytest.mark.slow
def test_an_export_of_another_step_is_replaced_where_that_is_asked_for_alone(folders, tmp_path):
    folder = shutil.copytree(folders["autoregressive"], tmp_path / "run")
    before = read_prior(folder).fingerprint
    export = functools.partial(runs.cli, "--mode=export", f"--workdir={folder}", "--step=9")
    outcome = export()
    assert outcome.code == 1 and "holds another model" in outcome.err
    assert read_prior(folder).fingerprint == before
    assert export("--overwrite").code == 0
    assert read_prior(folder).step == 9


def test_a_prior_is_no_tokenizer_and_a_tokenizer_no_prior(folders, tmp_path):
    folder, tokenizer = folders["masked"], exported("vqvae")
    for place in (folder, folder / "export"):
        with pytest.raises(ValueError, match="is the export of a prior, the second stage"):
            load_tokenizer(place)
    with pytest.raises(ValueError, match="is of an exported prior; expected an exported tokenizer"):
        load_tokenizer(folder / "export" / "prior.safetensors")
    with pytest.raises(ValueError, match="is the export of a tokenizer; expected that of a prior"):
        read_prior(tokenizer)
    with pytest.raises(ValueError, match="is of an exported tokenizer; expected an exported prior"):
        read_prior(tokenizer / "tokenizer.safetensors")
    with pytest.raises(ValueError, match="is a StableHLO program, a part of an export; expected"):
        read_prior(folder / "export" / "logits.stablehlo")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("export"))
    with pytest.raises(FileNotFoundError, match="has no exported prior; make one: .*--mode=export"):
        read_prior(bare)
    with pytest.raises(ValueError, match="bare is the run of a prior, .*; expected a tokenizer"):
        require_export(bare)
    outcome = runs.cli("--mode=export", f"--workdir={bare}", "--formats=pytorch")
    assert outcome.code == 1 and "--formats is of tokenizers" in outcome.err
    assert not (bare / "export").exists()
    arguments = prior_runs.arguments(tokens=bare)
    outcome = runs.cli(*arguments, f"--workdir={tmp_path / 'w'}")
    assert outcome.code == 1 and "is the run of a prior, the second stage" in outcome.err
    assert not (tmp_path / "w").exists()


def test_a_program_of_another_prior_and_a_missing_one_are_told(folders, tmp_path):
    folder = shutil.copytree(folders["masked"] / "export", tmp_path / "export")
    path = folder / "logits.stablehlo"
    path.write_bytes(sign(path.read_bytes()[:-137], "ab" * 32))
    with pytest.raises(ValueError, match="logits.stablehlo is of the model abab"):
        read_programs(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="logits.stablehlo"):
        read_programs(folder)
