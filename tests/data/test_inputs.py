"""Which images the levels and the evaluation see."""

import itertools
from contextlib import closing

import jax.numpy as jnp
import numpy as np
import pytest
import runs

from mq_jax.data import inputs
from mq_jax.metrics.measures import Measures
from mq_jax.training.build import build
from mq_jax.training.train import train

COUNT = 40


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 40 images of noise, of the size that training asks for."""
    return runs.write_images(tmp_path_factory.mktemp("images"), COUNT)


def configure(images, **changes):
    # Nothing is cropped, scaled or flipped: a row of a batch is a record of the source.
    given = {"data__source": "folder", "data__dir": images, "data__train_split": "all"}
    return runs.configure(**{**given, "data__flip": 0.0, **changes})


def record_numbers(images, batch):
    """Which of all images the rows of a batch are."""
    source = inputs.open_training(configure(images)).autoencoder
    number_of = {source[i].image.tobytes(): i for i in range(len(source))}
    return [number_of[np.asarray(row).tobytes()] for row in batch]


def first_batches(config, level, count, start=0):
    source = inputs.open_training(config)[level]
    with closing(inputs.stream(config, source, level=level, start=start)) as stream:
        return [batch["image"] for batch in itertools.islice(stream, count)]


def order(config, images, level, count=COUNT // 8):
    batches = first_batches(config, level, count)
    return [number for batch in batches for number in record_numbers(images, batch)]


def test_both_levels_see_every_image_once_an_epoch_in_orders_of_their_own(images):
    inner, outer = (order(configure(images), images, level) for level in (0, 1))
    assert sorted(inner) == sorted(outer) == list(range(COUNT))
    assert inner != outer and inner != sorted(inner)


def test_disjoint_levels_share_no_image_and_together_see_all(images):
    config = configure(images, train__outer_data="held-out")
    sources = inputs.open_training(config)
    assert len(sources.autoencoder) == len(sources.codebook) == COUNT // 2
    # Five batches of 8 are two epochs of 20.
    inner, outer = (order(config, images, level) for level in (0, 1))
    assert not set(inner) & set(outer) and set(inner) | set(outer) == set(range(COUNT))


def test_every_seed_and_level_has_an_order_of_its_own_and_repeats_it(images):
    orders = [
        order(configure(images, seed=seed), images, level)
        for seed, level in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)]
    ]
    assert orders[0] == orders[-1]
    assert all(a != b for a, b in itertools.combinations(orders[:-1], 2))


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("changes", [{}, {"data__threads": 3}, {"data__threads": 0}])
def test_a_stream_goes_on_where_it_was_with_any_threads(images, level, changes):
    # Crops and flips, whose random numbers must be the same too.
    augmented = {"data__flip": 0.5, "data__image_size": 16}
    whole = first_batches(configure(images, **augmented), level, 7)
    rest = first_batches(configure(images, **augmented, **changes), level, 4, start=3)
    assert len({batch.tobytes() for batch in whole}) == 7
    np.testing.assert_array_equal(rest, whole[3:])


def trained_on(monkeypatch, tmp_path, images, **changes):
    """The records of the inner and the outer batch that each step of a run got."""
    seen = []

    def recorder(name):
        def step(state, window, frozen, *batches):
            inner = batches[0] if isinstance(batches[0], tuple) else batches[:1]
            seen.append((name, *[tuple(record_numbers(images, b)) for b in (*inner, *batches[1:])]))
            return state, window, jnp.zeros(())

        return step

    def compile_program(config, built, mesh, place):
        # The steps compute nothing, so any program with arrays of the right shapes will do.
        joint = {"train__hypergradient": "joint"}
        simple = configure(images, **joint if config.train.hypergradient == "joint" else {})
        program = runs.compiled(simple, build(simple, simple.train.steps), mesh)
        inner_step = built.inner_step and recorder("inner_step")
        steps = program.steps()._replace(step=recorder("step"), inner_step=inner_step)
        return program._replace(steps=lambda: steps)

    config = configure(images, **changes)
    sources, eval_source = inputs.open_training(config), inputs.open_evaluation(config)
    with runs.programs_shared():
        monkeypatch.setattr("mq_jax.training.train.compile_program", compile_program)
        measures = Measures((), None, {}, {})
        train(config, config.train.steps, sources, eval_source, (), measures, tmp_path)
    levels = [
        [tuple(record_numbers(images, batch)) for batch in first_batches(config, level, 12)]
        for level in (0, 1)
    ]
    return seen, levels


def test_each_step_gets_the_next_batch_of_both_levels(monkeypatch, tmp_path, images):
    seen, (inner, outer) = trained_on(monkeypatch, tmp_path, images)
    assert seen == [("step", inner[k], outer[k]) for k in range(12)]


def test_disjoint_levels_stay_so_in_training(monkeypatch, tmp_path, images):
    seen, _ = trained_on(monkeypatch, tmp_path, images, train__outer_data="held-out")
    inner, outer = ({n for step in seen for n in step[level]} for level in (1, 2))
    assert len(inner) == len(outer) == COUNT // 2 and not inner & outer


@pytest.mark.parametrize(
    "changes",
    [
        {"train__outer_data": "same"},
        {"train__hypergradient": "joint"},
        {"train__hypergradient": "pipelined"},
    ],
)
def test_levels_that_share_a_batch_read_it_once(monkeypatch, tmp_path, images, changes):
    opened, stream = [], inputs.stream
    monkeypatch.setattr(
        inputs,
        "stream",
        lambda *a, level, **k: opened.append(level) or stream(*a, level=level, **k),
    )
    seen, (inner, _) = trained_on(monkeypatch, tmp_path, images, **changes)
    assert seen == [("step", inner[k], inner[k]) for k in range(12)]
    # The last two by this test itself.
    assert opened == [0, 0, 1]


def test_the_outer_batches_wait_for_their_updates(monkeypatch, tmp_path, images):
    seen, (inner, outer) = trained_on(monkeypatch, tmp_path, images, train__inner_updates=2)
    assert [step[1] for step in seen] == inner
    due = [(1, 0), (3, 1), (5, 2), (7, 3), (9, 4), (11, 5)]
    assert [k for k, step in enumerate(seen) if step[0] == "step"] == [k for k, _ in due]
    assert [seen[k][2] for k, _ in due] == [outer[n] for _, n in due]


def test_a_step_of_several_updates_gets_the_next_batches_of_them_all(monkeypatch, tmp_path, images):
    """Of three updates to an outer one the last two are one step; none is left out or repeated."""
    changes = {"train__inner_updates": 3, "train__unroll": 2}
    seen, (inner, outer) = trained_on(monkeypatch, tmp_path, images, **changes)
    assert [step[0] for step in seen] == ["inner_step", "step"] * 4
    assert seen[1::2] == [("step", inner[3 * k + 1], inner[3 * k + 2], outer[k]) for k in range(4)]
    assert [step[1] for step in seen[::2]] == inner[::3]


@pytest.mark.parametrize("split, count", [("train", 37), ("validation", 3), ("all[:50%]", 20)])
@pytest.mark.parametrize("devices, size", [(1, 8), (3, 9), (8, 8), (16, 16)])
def test_the_evaluation_sees_its_split_once_in_order_on_any_devices(
    images, split, count, devices, size
):
    config = configure(images, data__eval_split=split)
    source = inputs.open_evaluation(config)
    batches = list(inputs.evaluation_pass(config, source, devices))
    assert {len(batch["mask"]) for batch in batches} == {size}
    numbers = np.concatenate([batch["index"] for batch in batches])
    assert len(source) == count and numbers[:count].tolist() == list(range(count))
    assert (numbers[count:] == -1).all() and len(batches) == -(-count // size)


@pytest.mark.parametrize("threads, workers, expected", [(3, 0, 3), (2, 8, 16), (0, 4, 0)])
def test_the_evaluation_has_as_many_threads_as_the_training_in_all_its_processes(
    images, monkeypatch, threads, workers, expected
):
    given = {}
    monkeypatch.setattr(inputs, "eval_batches", lambda *_, **options: given.update(options))
    config = configure(images, data__threads=threads, data__workers=workers)
    inputs.evaluation_pass(config, inputs.open_evaluation(config), devices=1)
    assert given["threads"] == expected


def test_the_evaluation_has_a_size_of_its_own(images):
    config = configure(images, data__eval_image_size=16)
    (batch, *_) = inputs.evaluation_pass(config, inputs.open_evaluation(config), devices=1)
    assert batch["image"].shape == (8, 16, 16, 3)


def test_a_training_batch_that_the_devices_cannot_share_is_refused_with_one_that_they_can():
    config = runs.configure(train__batch_size=12, eval__batch_size=5)
    inputs.require_divisible(config, 4)
    with pytest.raises(ValueError, match="is 12; .* the 8 devices; give .*batch_size=16, "):
        inputs.require_divisible(config, 8)
    config.train.accumulate = 3
    inputs.require_divisible(config, 4)
    with pytest.raises(ValueError, match="the 8 devices times config.train.accumulate, 3; .*=24,"):
        inputs.require_divisible(config, 8)


EXPERIMENTS = sorted({path.stem for path in (runs.ROOT / "configs").glob("*_mq*.py")})


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains_on_these_devices_as_it_stands(name, devices):
    inputs.require_divisible(runs.experiment(name), devices)
