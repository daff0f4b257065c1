"""An evaluation and a checkpoint on more devices, against closed forms."""

import jax
import jax.numpy as jnp
import prior_runs
import pytest
import runs

from mq_jax.data import inputs
from mq_jax.devices.peaks import Peak
from mq_jax.metrics.measures import describe_measures, load_measures
from mq_jax.models import lpips
from mq_jax.planning import passes, plan, rates, saving, scale_tables
from mq_jax.planning.hlo import Traffic
from mq_jax.planning.rates import Load, Records
from mq_jax.planning.subjects import flops_by_part
from mq_jax.training.validate import validate

PEAK = Peak(1 / rates.EFFICIENCY, 1, link=100, network=10, full=0.1 / rates.EFFICIENCY)
# Images of a millisecond and a step's 2 ms; threads read 100 to 200 images a second.
OWN = passes.Evaluating(10_000, 0, 64, 2, Records("images", 100, 200), Load(1e9, 0), Load(0, 2e8))


def passed(devices, batch=64, threads=2):
    own = OWN._replace(threads=threads)
    return passes.pass_on(devices, own, batch, PEAK, "bfloat16")


def test_an_evaluation_takes_the_steps_of_its_batch_filled_up_to_the_devices():
    found = [passed(devices) for devices in (8, 24, 64, 512)]
    # 64 images make three on each of 24 devices, and one on each of 512.
    assert [(one.each, one.steps) for one in found] == [(8, 157), (3, 139), (1, 157), (1, 20)]
    assert found[0].compute == pytest.approx(157 * (8 + 2) * 1e-3)
    assert found[2].compute == pytest.approx(157 * (1 + 2) * 1e-3)
    assert passed(64, 2048).compute == pytest.approx(5 * (32 + 2) * 1e-3)


def test_the_threads_of_each_machine_read_while_the_devices_compute():
    assert passed(8).read == (25, 50) and passed(8, threads=16).read == (3.125, 6.25)
    assert passed(64).read == (3.125, 6.25)
    assert passed(8).seconds == (25, 50)
    computing = passed(8, threads=800)
    assert computing.seconds == (computing.compute, computing.compute)


def test_a_measure_counts_the_products_of_both_images_on_an_accelerator():
    config = runs.configure(eval__metrics=("lpips_alex",), data__image_size=64)
    validate(config)
    alone = passes.measured(config)
    weights, image = lpips.weight_shapes("alex"), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def features(weights, image):
        return lpips.feature_map(weights, image, net="alex", stage="relu5")

    one = sum(flops_by_part(features, weights, image, platform="cuda").values())
    assert alone == 2 * one > 0
    config.eval.metrics = ()
    assert passes.measured(config) == 0


def test_measures_are_described_as_their_files_are():
    names = ("lpips_alex", "ssim")
    described, loaded = describe_measures(names), load_measures(names, lpips_dir="", weights_dir="")
    assert described[:2] == loaded[:2] and described.card == loaded.card
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), loaded.weights)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), described.weights) == shapes


def test_a_frechet_distance_counts_the_reconstruction_alone():
    config = runs.configure(eval__metrics=("lpips_vgg",), data__image_size=32)
    two = passes.measured(config)
    config.eval.metrics = ("lpips_vgg", "frechet_vgg")
    assert passes.measured(config) == pytest.approx(1.5 * two, rel=0.01)


def test_fid_takes_the_network_that_it_is_known_by_without_its_file():
    config = runs.configure(eval__metrics=("fid",), data__image_size=32)
    assert passes.measured(config) == pytest.approx(11.0e9, rel=0.05)


def compiled(made):
    """A plan with what its compilation would tell."""
    told = plan.Compiled(0, 0, {"all-reduce": Traffic(2, 10**6)}, 1.0)
    return made._replace(steps=[step._replace(compiled=told) for step in made.steps])


def made():
    config = runs.configure(eval__metrics=("ssim",), data__image_size=32, data__threads=3)
    validate(config)
    return compiled(plan.make_plan(config, 1, compiled=False))


def test_a_plan_tells_what_its_evaluation_takes():
    found, config = made(), runs.configure(eval__metrics=("ssim",))
    told = passes.evaluating_of(found, 0)
    assert (told.images, told.batch, told.threads) == (50_000, 8, 3)
    assert told.between == config.train.eval_every * config.train.batch_size
    found.config.data.workers = 4
    assert passes.evaluating_of(found, 0).threads == inputs.evaluation_threads(found.config) == 12
    one = {part: count / config.train.batch_size for part, count in found.forward.items()}
    assert told.image.net == pytest.approx(one["encoder"] + one["decoder"])
    assert told.image.full == pytest.approx(one["lookup"] + passes.measured(config))
    assert told.fixed == Load(0, found.forward["hyper-net"])
    found.config.data.eval_image_size = 64
    assert passes.evaluating_of(found, 7).image.net == pytest.approx(4 * told.image.net)


def test_all_arrays_are_saved_and_all_machines_read_them():
    found = saving.saving_on(64, saving.Checkpoint(100, 10**9, 10**8))
    assert found.copied == pytest.approx(0.1 / 20 + 100 * saving.ARRAY_COPIED)
    assert found.written == pytest.approx(1e9 / saving.WRITTEN + 100 * saving.ARRAY_WRITTEN)
    assert found.read == 8 * 10**9
    own = 1e9 / saving.READ + 100 * saving.ARRAY_READ
    assert found.restored == pytest.approx((own, 8))
    assert saving.saving_on(8, saving.Checkpoint(100, 10**9, 10**8)).restored[1] == own


def test_the_tables_say_what_was_assumed_and_what_is_not_known(capsys):
    found = made()
    scale_tables.print_scale(found, 0)
    told = capsys.readouterr().out
    assert "Assumed: 35% of the peak" in told and "the configuration has 3." in told
    assert "measures (ssim) in full float32" in told and "Of 50,000 images (ImageNet" in told
    state = saving.checkpoint_of(found)
    assert f"for each of {state.arrays} arrays" in told and state.bytes == state.held
    scale_tables.print_scale(found, 1234)
    assert "Of 1,234 images.\n" in capsys.readouterr().out


def test_a_plan_that_was_not_compiled_says_nothing_of_more_devices(capsys):
    steps = [step._replace(compiled=None) for step in made().steps]
    scale_tables.print_scale(made()._replace(steps=steps))
    assert not capsys.readouterr().out


def test_a_prior_reads_tokens_and_measures_nothing(capsys):
    fields = {"space__height": 3, "space__width": 4, "space__size": 16, "space__classes": 2}
    config = prior_runs.configure(space__levels=1, **fields)
    found = compiled(plan.make_plan(config, 1, compiled=False))
    told = passes.evaluating_of(found, 0)
    assert told.records == rates.TOKENS and told.image.full == 0 < told.image.net
    scale_tables.print_scale(found, 0)
    out = capsys.readouterr().out
    assert "hyper-net shared out" not in out and "To compute: the nets.\n" in out
