"""Compiled steps that a later start finds without tracing them."""

import concurrent.futures
import contextlib
import functools
import logging
import os
import stat

import jax
import numpy as np
import prior_runs
import pytest
import runs
from jax.experimental.compilation_cache import compilation_cache

from mq_jax.devices import sharding, sources
from mq_jax.devices.sharding import make_mesh
from mq_jax.generation.space import TokenSpace
from mq_jax.priors import build as prior_build
from mq_jax.priors import program as prior_program
from mq_jax.runs import trees
from mq_jax.training import kept, lowering, program
from mq_jax.training.build import build
from mq_jax.training.program import compile_program, start

# Steps of two kinds, of which one in two is of both levels.
CONFIG = runs.configure(train__hypergradient="finite-difference", train__inner_updates=2)
STEPS = 2
KEEP, PRNG = kept.keep, jax.dtypes.prng_key


@functools.cache
def model():
    mesh = make_mesh(1, 1, jax.devices()[:1])
    return CONFIG, build(CONFIG, STEPS, mesh), mesh


@pytest.fixture(autouse=True)
def noted(monkeypatch):
    """The sources are those that the program began with, as a command notes them."""
    monkeypatch.setattr(kept, "noted_sources", lambda: "sources")


@contextlib.contextmanager
def jaxs_cache(folder):
    """JAX keeps compiled programs in a folder, and looks there."""
    changes = {
        "jax_compilation_cache_dir": str(folder),
        "jax_enable_compilation_cache": True,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        # JAX asks once whether, and where.
        compilation_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def keeping(begin, cache):
    """The steps of a start that keeps them, whose programs JAX's cache may have."""
    done = concurrent.futures.Future()
    with pytest.MonkeyPatch.context() as patch, runs.quick_compilation(), jaxs_cache(cache):
        patch.setattr(kept, "noted_sources", lambda: "sources")
        patch.setattr(kept, "keep", lambda *given: done.set_result(KEEP(*given)))
        steps = begin().steps()
        done.result(60)
    return steps


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder of JAX's."""
    return tmp_path_factory.mktemp("jax")


@pytest.fixture(scope="module")
def first(tmp_path_factory, cache):
    """Where a start has kept its steps, and these."""
    place = kept.Place(tmp_path_factory.mktemp("kept") / "steps", "start", "machine")
    return place, keeping(lambda: compile_program(*model(), place), cache)


def after_two_steps(steps):
    """The bytes of all that steps of both kinds leave."""
    config, _, mesh = model()
    size = config.data.image_size
    images = np.random.default_rng(0).integers(0, 256, (config.train.batch_size, size, size, 3))
    images = jax.device_put(images.astype(np.uint8), sharding.split(mesh))
    tree = start(*model())
    given = before = tree["state"], tree["window"]
    for step in (steps.inner_step, steps.step):
        *before, loss = step(*before, (), images, images)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    return bits((before, loss))


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in map(bare, jax.tree.leaves(tree))]


def bare(leaf):
    """The numbers of a random key, any other array as it is."""
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, PRNG) else leaf


def refuse(*_):
    raise AssertionError("traced")


def test_kept_steps_are_those_that_were_compiled_and_nothing_is_traced_for_them(first, monkeypatch):
    place, steps = first
    with monkeypatch.context() as patch:
        patch.setattr(program, "lower_program", refuse)
        patch.setattr(lowering, "lower_program", refuse)
        patch.setattr(lowering, "_step_metrics", refuse)
        again = compile_program(*model(), place)
        target, names, new_window = again.traced()
        found = again.steps()
    assert jax.tree.structure(new_window()) == jax.tree.structure(target["window"])
    assert "inner/loss" in names
    assert found[2:4] == steps[2:4] and steps.flops > 0
    assert after_two_steps(found) == after_two_steps(steps)


def test_so_are_those_of_priors(tmp_path, monkeypatch):
    config, mesh = prior_runs.configure(prior__kind="decoder"), model()[2]
    built = prior_build.build(config, TokenSpace(3, 4, 1, prior_runs.SIZE, 2), STEPS)
    given = config, built, mesh, kept.Place(tmp_path / "steps", "start", "machine")
    compiled = keeping(lambda: prior_program.compile_program(*given), tmp_path / "jax")
    state = prior_program.first_state(*given[:3])
    batch = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, leaf.dtype),
        prior_program.batch(config, built, sharding.split(mesh)),
    )
    with monkeypatch.context() as patch:
        patch.setattr(prior_program, "lower_program", refuse)
        patch.setattr(prior_program, "_step_metrics", refuse)
        again = prior_program.compile_program(*given)
        found, new_window = again.steps(), again.traced().new_window
    after = [
        steps.step(trees.copied(state), new_window(), (), *jax.device_put(batch))
        for steps in (compiled, found)
    ]
    assert bits(after[0]) == bits(after[1])


def test_only_their_owner_reads_and_writes_them(first):
    place, _ = first
    files = list(place.folder.iterdir())
    # A start and two programs.
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_starts_that_trace_the_same_share_a_program_though_it_came_out_of_jaxs_cache(first, cache):
    place, steps = first
    other = place._replace(start="other")
    keeping(lambda: compile_program(*model(), other), cache)
    assert kept.read(other) == kept.read(place)
    assert len(list(place.folder.iterdir())) == 4
    # Else nothing is kept: written once more, such a program has no machine code.
    elsewhere = place._replace(folder=place.folder.parent / "elsewhere")
    keeping(lambda: compile_program(*model(), elsewhere), cache)
    assert list(elsewhere.folder.iterdir()) == []


def copied(place, folder):
    """The same start and its programs in another folder, as their owner's."""
    folder.mkdir()
    for file in (place.folder / place.start, *(file for file, _ in kept.read(place)[1])):
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o600)
    return place._replace(folder=folder)


@pytest.mark.parametrize("spoil", ["group", "owner", "gone", "short", "text", "layout"])
def test_what_is_not_whole_or_not_of_this_user_alone_is_not_read(
    first, tmp_path, caplog, monkeypatch, spoil
):
    place = copied(first[0], tmp_path / "steps")
    assert kept.read(place) is not None
    file = place.folder / place.start
    if spoil == "group":
        file.chmod(0o660)
    elif spoil == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    elif spoil == "gone":
        kept.read(place)[1][1][0].unlink()
    elif spoil == "short":
        file.write_bytes(file.read_bytes()[:-10])
    elif spoil == "text":
        file.write_bytes(b"{}")
    else:
        monkeypatch.setattr(kept, "_LAYOUT", 0)
    with caplog.at_level(logging.INFO):
        assert kept.read(place) is None
    unreadable = [line for line in caplog.messages if "cannot be read" in line]
    assert len(unreadable) == (spoil in ("short", "text"))


def test_a_step_that_cannot_be_loaded_is_traced_and_its_file_goes(first, tmp_path, caplog):
    place, steps = copied(first[0], tmp_path / "steps"), first[1]
    for file, payload in kept.read(place)[1]:
        kept._write(file, payload[:-1000])
    with caplog.at_level(logging.INFO), runs.quick_compilation():
        found = compile_program(*model(), place).steps()
    assert sum("cannot be loaded" in line for line in caplog.messages) == 2
    assert after_two_steps(found) == after_two_steps(steps)
    assert [file.name for file in place.folder.iterdir()] == [place.start]


def test_that_nothing_can_be_written_is_told_and_no_more(tmp_path, caplog):
    (tmp_path / "steps").write_text("")
    with caplog.at_level(logging.INFO):
        kept.keep(kept.Place(tmp_path / "steps", "start", "machine"), {}, [])
    assert "not kept for the next start" in caplog.text


def test_what_was_traced_is_not_named_by_sources_that_were_edited_meanwhile(tmp_path, monkeypatch):
    place = kept.Place(tmp_path / "steps", "start", "machine")
    monkeypatch.setattr(kept, "noted_sources", lambda: "")
    kept.keep(place, {}, [])
    assert kept.read(place) is None
    monkeypatch.undo()
    monkeypatch.setattr(kept, "noted_sources", lambda: "sources")
    kept.keep(place, {}, [])
    assert kept.read(place) == ({}, [])


def test_what_was_not_used_for_longest_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "_MOST_BYTES", 250)
    for age, name in enumerate(["new", ".killed.1.tmp", "old"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    kept._make_room(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".killed.1.tmp", "new"]


@pytest.fixture
def cached(tmp_path):
    """JAX keeps compiled programs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_place_tells_all_that_decides_about_a_step(cached, monkeypatch):
    config, _, mesh = model()
    other = runs.configure(train__hypergradient="joint")
    first = kept.place_of(config, mesh, STEPS)
    assert first == kept.place_of(config, mesh, STEPS) and first.folder == cached / "steps"
    places = [first, kept.place_of(other, mesh, STEPS), kept.place_of(config, mesh, STEPS + 1)]
    # How these are compiled is decided by what is traced.
    assert {place.machine for place in places} == {first.machine}
    places = [*places, kept.place_of(config, make_mesh(2, 1, jax.devices()[:2]), STEPS)]
    with jax.default_matmul_precision("highest"):
        places.append(kept.place_of(config, mesh, STEPS))
    for name, value in {
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "LIBTPU_INIT_ARGS": "--other",
    }.items():
        monkeypatch.setenv(name, value)
        places.append(kept.place_of(config, mesh, STEPS))
    for name in ("_processor", "_installed", "noted_sources"):
        monkeypatch.setattr(kept, name, lambda: ["another"])
        places.append(kept.place_of(config, mesh, STEPS))
    assert len({place.start for place in places}) == len(places)
    # The last differs in the sources.
    assert len({place.machine for place in places}) == len(places) - 3


def test_nothing_is_kept_where_jax_keeps_nothing_or_it_is_not_known_what_runs(cached, monkeypatch):
    config, _, mesh = model()

    def place():
        return kept.place_of(config, mesh, STEPS)

    assert place() is not None
    for folder in ("gs://bucket/cache", None):
        jax.config.update("jax_compilation_cache_dir", folder)
        assert place() is None
    jax.config.update("jax_compilation_cache_dir", str(cached))
    for change in (
        lambda patch: patch.setenv("XLA_FLAGS", "flags.txt"),
        lambda patch: patch.setattr(jax, "process_count", lambda: 2),
        lambda patch: patch.setattr(kept, "noted_sources", lambda: ""),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            assert place() is None


def test_sources_are_noted_once_and_an_edit_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PACKAGE", tmp_path)
    sources.note_sources.cache_clear()
    try:
        (tmp_path / "mq.py").write_text("a = 1")
        (tmp_path / ".#mq.py").symlink_to("nobody@nowhere")
        assert sources.noted_sources() == ""
        noted = sources.note_sources()
        assert noted and sources.noted_sources() == noted
        (tmp_path / "mq.py").write_text("a = 2")
        assert sources.noted_sources() == "" and sources.note_sources() == noted
    finally:
        sources.note_sources.cache_clear()


def test_a_command_finds_the_steps_of_another_without_jaxs_cache(tmp_path):
    cache = tmp_path / "cache"
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)}

    def run(name):
        given = runs.arguments(train__hypergradient="joint", train__steps=2)
        done = runs.outcome(runs.launch(*given, f"--workdir={tmp_path / name}", **environment))
        assert done.code == 0, done.err
        return {file.name for file in (cache / "steps").iterdir()}

    first = run("first")
    # A start and a program.
    assert len(first) == 2
    for file in cache.glob("jit_step-*"):
        file.unlink()
    assert run("second") == first
    assert not list(cache.glob("jit_step-*"))
    runs.assert_same_run(tmp_path / "second", tmp_path / "first")
