"""Whether a plan fits a device, and which fields would make it: from the plan's own numbers."""

import jax
import pytest
import runs

from mq_jax.devices.sharding import Holding, make_mesh
from mq_jax.planning import fit
from mq_jax.planning.plan import Compiled, Plan, StepPlan
from mq_jax.planning.tables import print_plan

GB = fit.GB


def planned(temporary=None, params=1.0, moments=2.0, devices=8, shared=None, **changes):
    """A plan of so many GB on each of several devices; None: not compiled."""
    config = runs.configure("photos_mqgan", **{"train__batch_size": 64, **changes})
    fsdp = config.mesh.fsdp
    mesh = make_mesh(0, fsdp, jax.devices()[:devices])
    sizes = {"params/autoencoder": params, "opt_state/autoencoder": moments, "LPIPS, frozen": 0.5}
    held = [Holding(name, 1, 0, (), 1, 1, round(size * GB)) for name, size in sizes.items()]
    # All of the state but a tenth is split.
    whole = (params + moments) * GB
    by_fsdp = {n: whole * (0.1 + 0.9 * fsdp / n) for n in (1, 2, 4, 8) if devices % n == 0}
    compiled = temporary and Compiled(0, round(temporary * GB), {}, 0.0)
    steps = [StepPlan("joint", 1.0, {}, compiled)]
    return Plan(config, mesh, held, shared or by_fsdp, (8, 8), {}, {}, steps)


def told(plan):
    return [fit.verdict(fit.needs_of(plan), capacity) for capacity in fit.CAPACITIES]


TIGHT = f"yes, with XLA_CLIENT_MEM_FRACTION={fit.LARGEST_SHARE}"


@pytest.mark.parametrize(
    ("temporary", "expected"),
    [
        (5.4, ["yes"] * 4),
        (5.6, [TIGHT, *["yes"] * 3]),
        (14.6, ["no", TIGHT, "yes", "yes"]),
        (50.0, ["no", "no", "no", "yes"]),
        (90.0, ["no"] * 4),
        (None, ["unknown without --compile"] * 4),
    ],
)
def test_it_fits_where_what_is_given_and_what_is_temporary_are_less_than_jax_takes(
    temporary, expected
):
    assert told(planned(temporary)) == expected


def test_without_compiling_only_what_is_too_large_already_is_no():
    # 5 + 9 of the state, as much of its copy, 0.5 of LPIPS, and one gradient.
    assert told(planned(None, params=5.0, moments=9.0)) == [
        "no",
        "no",
        "unknown without --compile",
        "unknown without --compile",
    ]


def sizes_of(phrases):
    """The flags, and GB that each leaves, None where it does not say."""
    found = {}
    for phrase in phrases:
        flags, _, size = phrase.partition(" (")
        words = size.split()
        found[flags] = float(words[1]) if words[0] == "about" else None
    return found


def test_activations_are_cut_by_the_batch_and_by_what_keeps_less_of_them():
    # 3.5 given, 3 copied, 1 of gradients, 19 of activations: 4.5 of them remain for 16 GB.
    plan = planned(20.0, model__kind="vqgan", model__dtype="float32", model__remat=False)
    assert sizes_of(fit.remedies(plan, 16)) == {
        "--config.train.accumulate=8": 9.9,
        "--config.train.batch_size=8": 9.9,
        "--config.model.remat=True": None,
    }
    found = sizes_of(fit.remedies(plan, 24))
    assert found["--config.train.accumulate=2"] == found["--config.model.dtype=bfloat16"] == 17.0


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"model__remat": True}, "model.remat"),
        ({"model__dtype": "bfloat16"}, "model.dtype"),
        ({"model__kind": "vqvae", "perceptual__net": "none"}, "model."),
        ({"train__accumulate": 8}, "train."),
        ({"train__batch_size": 8}, "train."),
    ],
)
def test_what_is_so_already_or_changes_nothing_is_not_proposed(changes, absent):
    given = {"model__kind": "vqgan", "model__dtype": "float32", **changes}
    phrases = fit.remedies(planned(20.0, **given), 24)
    assert not any(absent in phrase for phrase in phrases)


def test_a_state_that_is_too_large_is_shared_out_and_no_batch_is_blamed():
    # 18 of the state, twice, 0.5 of LPIPS, 6 of gradients, 1 of activations.
    state = {"params": 6.0, "moments": 12.0}
    assert sizes_of(fit.remedies(planned(7.0, **state), 24)) == {"--config.mesh.fsdp=8": 15.2}
    (phrase,) = fit.remedies(planned(None, **state), 24)
    assert phrase == "--config.mesh.fsdp=8 (about 14.2 GB and the temporary memory)"
    (phrase,) = fit.remedies(planned(7.0, mesh__data=8, **state), 24)
    assert phrase.startswith("--config.mesh.data=0 --config.mesh.fsdp=")
    assert fit.remedies(planned(7.0, devices=1, **state), 24) == []


def test_two_fields_are_proposed_together_where_none_alone_is_enough():
    vqvae = {"model__kind": "vqvae", "perceptual__net": "none"}
    plan = planned(36.0, params=6.0, moments=12.0, **vqvae)
    # 18.5 given, 18 copied, 6 of gradients; shared out 4.3, 3.8 and 6; of 18 the rest is for 30 of
    # activations.
    assert sizes_of(fit.remedies(plan, 24)) == {
        "--config.mesh.fsdp=8 --config.train.accumulate=8": 17.9,
        "--config.mesh.fsdp=8 --config.train.batch_size=8": 17.9,
    }
    assert fit.remedies(plan, 4) == []


@pytest.mark.parametrize(
    ("temporary", "lines"),
    [
        (20.0, ["It needs 26.5 GB", "To fit 24 GB, one of:", "train.accumulate=2", "An estimate"]),
        (400.0, ["To fit 80 GB, one of:", "train.accumulate", "An estimate"]),
        (None, ["It needs more than 7.5 GB", "unknown without --compile", "one gradient"]),
    ],
)
def test_the_plan_prints_whether_it_fits(temporary, lines, capsys, monkeypatch):
    for name in (
        "_print_model",
        "_print_flops",
        "_print_memory",
        "_print_traffic",
        "_print_hours",
        "print_scale",
    ):
        monkeypatch.setattr(f"mq_jax.planning.tables.{name}", lambda *arguments: None)
    print_plan(planned(temporary), 100)
    out = capsys.readouterr().out
    assert all(line in out for line in lines)
