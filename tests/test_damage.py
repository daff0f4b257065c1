"""Every kind of file that is written or read, damaged at random: refused in one line, or harmless.

Four answers are told apart: refused (a documented error of one line), the same (the content as it
was), other (another content, which only files without a checksum may give) and wrong (anything
else: a traceback, or another content in spite of a checksum). Checkpoints are tested in tests/runs.
"""

import collections
import logging
import os
import pickle
import warnings

import numpy as np
import pytest
from damage import BYTES, edited_arrays, edited_json, edited_lines
from file_kinds import SUBJECTS

DOCUMENTED = (ValueError, OSError, pickle.UnpicklingError)


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
    if path.suffix in kinds:
        return edit is kinds[path.suffix]
    return edit not in kinds.values()


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
