"""Every kind of file that is written or read, damaged at random: refused in one line, or harmless.

Four answers are told apart: refused (a documented error of one line), the same (the content as it
was), other (another content, which only files without a checksum may give) and wrong (anything
else: a traceback, or another content in spite of a checksum). Checkpoints are tested in tests/runs.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import pickle
import shutil
import tempfile
import types
import warnings
from collections.abc import Callable
from unittest import mock

import exports
import numpy as np
import pytest
import safetensors.numpy
from damage import BYTES, edited_arrays, edited_json, edited_lines
from ml_collections import ConfigDict
from PIL import Image
from report_folders import COST, make_evaluation, make_rows, make_run, make_snapshot

from configs import cifar10_mqvae
from mq_jax.data.decode import decode_image
from mq_jax.evaluation.protocol import read_evaluation
from mq_jax.metrics.frechet import Moments, load_reference, save_reference
from mq_jax.models import inception_weights, lpips_weights
from mq_jax.report import write_report
from mq_jax.report.runs import read_runs
from mq_jax.runs.claims import claimed, make_claim
from mq_jax.runs.cost import read_cost, write_cost
from mq_jax.runs.snapshot import read_snapshot, write_snapshot
from mq_jax.runs.workdir import read_config
from mq_jax.runs.writers import read_metrics
from mq_jax.tokenizers import tokens
from mq_jax.tokenizers.export import digest, fingerprint, named
from mq_jax.tokenizers.export_reading import read_export
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.tokenizers.programs import read_program
from mq_jax.tokenizers.sources import Sources
from mq_jax.training.validate import validate

_TEMPORARY = tempfile.TemporaryDirectory(prefix="mq_jax-damage-")

DOCUMENTED = (ValueError, OSError, pickle.UnpicklingError)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes:
      make: writes it, whole, into a folder, among others.
      files: of the folder, those that are damaged; a pattern.
      read: its content out of the folder, as a pickle compares it.
      edits: what a hostile hand does to it, beside what chance does.
      sealed: whether no other content may come of chance, for its checksums.
      trials: of the fast suite.
      most: of the slow one.
    """

    make: Callable
    files: str
    read: Callable
    edits: tuple = ()
    sealed: bool = False
    trials: int = 12
    most: int = 4000


def make_tokens(folder):
    """A folder of two shards."""
    tokenizer = types.SimpleNamespace(fingerprint="ab" * 32, size=16, downsampling=4)
    rng = np.random.default_rng(0)
    claim = make_claim("encode", folder, tokenizer, {"image_size": 32, "crop": 0})
    with claimed(folder / "tokens", claim, force=False) as manifest:
        manifest["bad"] = [{"name": "bad.png", "reason": "no image"}]
        writer = tokens.ShardWriter(folder / "tokens", manifest)
        for part in ("ab", "cd"):
            codes = rng.integers(0, 16, (2, 3, 5), np.uint8)
            writer.add(tokens.Tokens([f"{n}.png" for n in part], codes, np.int32([[9, 20]] * 2)))
            writer.flush()


def read_tokens(folder):
    """All that a command reads of the folder."""
    place = folder / "tokens"
    source, names = tokens.token_source(place), tokens.read_names(place)
    return source, names, [pickle.dumps(part) for part in tokens.read_tokens(place, 4)]


def read_shard(folder):
    """A shard without its manifest."""
    path = folder / "tokens" / "tokens-00000.npz"
    parts = list(tokens.read_tokens(path, 4))
    return tokens.token_source(path), tokens.read_names(path), pickle.dumps(parts)


def make_sources(folder):
    sources = Sources(folder, {name: [7, 10**18] for name in "abc"}, anew=True)
    for name in "abc":
        sources.note(name)
    sources.close()


def read_sources(folder):
    sources = Sources(folder, {"a": [7, 10**18], "b": [8, 0]}, anew=False)
    sources.close()
    return sources.changed({"a", "b"})


def make_reference(folder):
    features = np.random.default_rng(0).normal(size=(9, 4))
    save_reference(folder / "r.npz", Moments.of(features), "key")


def read_reference(folder):
    found = load_reference(folder / "r.npz", "key", 4)
    if found is None:
        raise ValueError("told, and computed again")
    return found


@functools.cache
def exported():
    """An export on the disk, written once."""
    place = pathlib.Path(_TEMPORARY.name) / "export"
    facts = {
        "training": {"source": "photos", "split": "train", "step": 1, "config": {}},
        "evaluation": None,
        "environment": {"python": "3", "packages": {}},
    }
    return write_export(place, exports.export("vqvae"), facts)


def make_export(part):
    def make(folder):
        source = exported() / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part)

    return make


def read_model(part):
    def read(folder):
        found = read_export(folder / part)
        return found.architecture, found.preparation, found.fingerprint, named(found.weights)

    return read


def edited_export(data, rng):
    """A file whose hashes are right: a field of its header is another, or one of its arrays."""
    arrays = safetensors.numpy.load(data)
    header = json.loads(json.dumps(exports.export("vqvae").header))
    name, other = rng.choice(list(arrays)), rng.choice(list(arrays))
    array, kind = arrays[name], rng.integers(8)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name], arrays[other] = arrays[other], array
    elif kind == 2:
        arrays[name] = [array[None], array[:1], array.astype(np.float16)][rng.integers(3)]
    else:
        try:
            header = json.loads(edited_json(json.dumps(header), rng))
        # What is nested so deeply cannot be signed.
        except RecursionError:
            del header[rng.choice(list(header))]
    if isinstance(header, dict) and "architecture" in header and "fingerprint" in header:
        header["fingerprint"] = fingerprint(header["architecture"], arrays)
    if isinstance(header, dict) and "preparation" in header:
        header["preparation_sha256"] = digest(header["preparation"])
    return safetensors.numpy.save(arrays, {"mq_jax": json.dumps(header)})


def read_exported_program(folder):
    return bytes(read_program(folder / "encode.stablehlo").mlir_module_serialized)


def make_image(kind, **options):
    def make(folder):
        Image.fromarray(exports.images(1)[0]).save(folder / f"image.{kind}", **options)

    return make


def read_image(folder):
    (path,) = folder.glob("image.*")
    return decode_image(path.read_bytes())


WEIGHTS = pickle.dumps({"a": list(range(100))})
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def make_weights(folder):
    for name in (inception_weights.FILE, "vgg16.ckpt"):
        (folder / name).write_bytes(WEIGHTS)


def read_weights(folder):
    """Both readers, up to where the hash is known to be right: unpickling comes after."""
    file = lpips_weights.FILES["vgg"]._replace(sha256=SHA256)
    with (
        mock.patch.object(inception_weights, "read_tensors", bytes),
        mock.patch.object(inception_weights, "fold", lambda found: found),
    ):
        found = inception_weights.load_weights(str(folder), sha256=SHA256)
    return found, lpips_weights._verified_bytes(file, str(folder))


def make_configuration(folder):
    text = json.dumps(cifar10_mqvae.get_config().to_dict())
    (folder / "config.json").write_text(text)


def read_configuration(folder):
    """As export and evaluation take it."""
    config = ConfigDict(read_config(folder))
    validate(config)
    return config.to_json()


def write_json(name, value):
    return lambda folder: (folder / name).write_text(json.dumps(value))


def make_metrics(folder):
    lines = [json.dumps(row) + "\n" for row in make_rows()]
    (folder / "metrics.jsonl").write_text("".join(lines))


def write_page(folder):
    """A page of a run, one of whose files is damaged; it names the piece, and is written."""
    write_report([folder], folder / "page.html")
    (run,) = read_runs([folder])
    return [notice.text for notice in run.notices]


_JSON = (edited_json,)
SUBJECTS = {
    "config.json": Subject(make_configuration, "config.json", read_configuration, _JSON),
    "cost.json": Subject(lambda f: write_cost(f, COST), "cost.json", read_cost, _JSON),
    "evaluation.json": Subject(
        write_json("evaluation.json", make_evaluation()), "evaluation.json", read_evaluation, _JSON
    ),
    "metrics.jsonl": Subject(
        make_metrics, "*.jsonl", lambda f: read_metrics(f / "metrics.jsonl"), (edited_lines,)
    ),
    "snapshot.npz": Subject(
        lambda f: write_snapshot(f, make_snapshot()),
        *("snapshot.npz", read_snapshot, (edited_arrays,)),
        sealed=True,
    ),
    "a run, for its report": Subject(
        make_run, "*", write_page, _JSON + (edited_arrays, edited_lines), trials=3, most=400
    ),
    "token shard": Subject(make_tokens, "tokens/*0.npz", read_shard, (edited_arrays,), sealed=True),
    "token shard of a manifest": Subject(
        make_tokens, "tokens/*.npz", read_tokens, (edited_arrays,), sealed=True
    ),
    "manifest.json": Subject(make_tokens, "tokens/manifest.json", read_tokens, _JSON),
    "sources.jsonl": Subject(make_sources, "*.jsonl", read_sources, (edited_lines,)),
    "Fréchet reference": Subject(
        make_reference, "r.npz", read_reference, (edited_arrays,), sealed=True
    ),
    "safetensors": Subject(
        make_export("tokenizer.safetensors"),
        *("*", read_model("tokenizer.safetensors"), (edited_export,)),
        sealed=True,
        trials=6,
        most=500,
    ),
    "Orbax folder": Subject(
        make_export("orbax"), "orbax/**/*", read_model("orbax"), sealed=True, trials=4, most=300
    ),
    "StableHLO program": Subject(
        make_export("encode.stablehlo"), "*", read_exported_program, sealed=True
    ),
    "PNG image": Subject(make_image("png"), "*", read_image),
    "JPEG image": Subject(make_image("jpg", quality=90), "*", read_image),
    "published weights": Subject(make_weights, "*", read_weights, sealed=True),
}


def outcome(subject, folder, expected, by_chance):
    """What reading gives: refused, same, other or wrong, and why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pickle.dumps(subject.read(folder))
    except DOCUMENTED as error:
        lines = str(error).splitlines()
        return ("refused", "") if len(lines) == 1 else ("wrong", f"{len(lines)} lines: {error!r}")
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    if found == expected:
        return "same", ""
    return ("wrong", "other content") if subject.sealed and by_chance else ("other", "")


def trials(name, folder, count, seed):
    """Damages a kind of file so often; outcomes by their names, and what was wrong."""
    subject, rng = SUBJECTS[name], np.random.default_rng(seed)
    subject.make(folder)
    expected = pickle.dumps(subject.read(folder))
    files = sorted(p for p in folder.glob(subject.files) if p.is_file() and p.stat().st_size)
    whole = {path: path.read_bytes() for path in files}
    counts, wrong = collections.Counter(), []
    for number in range(count):
        path = files[rng.integers(len(files))]
        ways = BYTES + tuple(edit for edit in subject.edits if _fits(edit, path))
        way = ways[number % len(ways)]
        path.write_bytes(way(whole[path], rng))
        kind, reason = outcome(subject, folder, expected, way in BYTES)
        counts[kind] += 1
        if kind == "wrong":
            wrong.append(f"trial {number} of seed {seed}, {way.__name__} of {path.name}: {reason}")
        path.write_bytes(whole[path])
    return counts, wrong


def _fits(edit, path):
    kinds = {".json": edited_json, ".jsonl": edited_lines, ".npz": edited_arrays}
    return edit is kinds.get(path.suffix, edited_export)


@pytest.fixture(autouse=True)
def quiet():
    """Damage is told in the log, a line each."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(level)


@pytest.mark.parametrize("name", SUBJECTS)
def test_damage_is_refused_in_one_line_or_harmless(name, tmp_path):
    counts, wrong = trials(name, tmp_path, SUBJECTS[name].trials, seed=0)
    assert not wrong, wrong
    assert counts.total() == SUBJECTS[name].trials


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_damage_is_refused_in_one_line_or_harmless_thousands_of_times(name, tmp_path, capsys):
    """DAMAGE_SEED draws others; the figures are those of docs/results.md."""
    seed = int(os.environ.get("DAMAGE_SEED", "1"))
    counts, wrong = trials(name, tmp_path, SUBJECTS[name].most, seed)
    with capsys.disabled():
        figures = (counts[kind] for kind in ("refused", "same", "other", "wrong"))
        print(f"| {name} | {counts.total()} | {' | '.join(map(str, figures))} |")
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
