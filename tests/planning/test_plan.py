"""What a plan tells, against closed forms and against the compiled program."""

import functools
import math

import jax
import pytest
import runs

from mq_jax.planning import flops, plan
from mq_jax.training.build import build
from mq_jax.training.first import init_state
from mq_jax.training.validate import validate

# Two levels of widths 4 and 8 for images of 16 pixels, attention at 8 x 8.
TINY = {
    "model__kind": "vqgan",
    "model__channels": (4,),
    "model__multipliers": (1, 2),
    "model__blocks": 1,
    "model__attention": (8,),
    "model__z_channels": 6,
    "model__groups": 2,
    "codebook__size": 64,
    "codebook__dim": 5,
    "codebook__lookup_chunk": 32,
    "data__image_size": 16,
    "train__inner_updates": 1,
    "perceptual__net": "none",
    "discriminator__weight": 0.0,
    "train__batch_size": 8,
}
B = 8


@functools.cache
def made(devices=1, compiled=True, **changes):
    config = runs.configure("photos_mqgan", **{**TINY, **changes})
    validate(config)
    return plan.make_plan(config, devices, compiled=compiled)


def block_parameters(inputs, width):
    norms = 2 * inputs + 2 * width
    kernels = 9 * inputs * width + 9 * width * width + 2 * width
    return norms + kernels + (inputs * width + width if inputs != width else 0)


def attention_parameters(width):
    return 2 * width + 4 * (width * width + width)


def convolution(size, inputs, width):
    return size * size * inputs * width + width


def test_parameters_are_those_of_the_closed_form():
    middle = 2 * block_parameters(8, 8) + attention_parameters(8)
    encoder = (
        convolution(3, 3, 4)
        + block_parameters(4, 4)
        + convolution(3, 4, 4)
        + block_parameters(4, 8)
        + attention_parameters(8)
        + middle
        + 2 * 8
        + convolution(3, 8, 6)
        + convolution(1, 6, 5)
        + 2 * 5
    )
    decoder = (
        convolution(1, 5, 6)
        + convolution(3, 6, 8)
        + middle
        + 2 * (block_parameters(8, 8) + attention_parameters(8))
        + convolution(3, 8, 8)
        + block_parameters(8, 4)
        + block_parameters(4, 4)
        + 2 * 4
        + convolution(3, 4, 3)
    )
    codebook = 64 * 3 + 3 * 8 + 8 + 8 * 5 + 5
    parameters = made(compiled=False, **JOINT).parameters
    assert parameters == {"encoder": encoder, "decoder": decoder, "codebook": codebook}


def pixels(side):
    """Pixels and kernel positions of a 3 x 3 convolution that meet."""
    return (3 * side - 2) ** 2


def block_flops(side, inputs, width):
    shortcut = side**2 * inputs * width if inputs != width else 0
    return 2 * B * (pixels(side) * (inputs * width + width * width) + shortcut)


def attention_flops(side, width):
    positions = side * side
    return 2 * B * (4 * positions * width**2 + 2 * positions**2 * width)


def forward_flops():
    middle = 2 * block_flops(8, 8, 8) + attention_flops(8, 8)
    encoder = (
        2 * B * pixels(16) * 3 * 4
        + block_flops(16, 4, 4)
        # Stride 2 with a pixel of padding at the end: two whole taps and one short of a pixel.
        + 2 * B * (8 + 8 + 7) ** 2 * 4 * 4
        + block_flops(8, 4, 8)
        + attention_flops(8, 8)
        + middle
        + 2 * B * (pixels(8) * 8 * 6 + 64 * 6 * 5)
    )
    decoder = (
        2 * B * (64 * 5 * 6 + pixels(8) * 6 * 8)
        + middle
        + 2 * (block_flops(8, 8, 8) + attention_flops(8, 8))
        # Four phases of 2 x 2 taps, of which one row and one column falls off an edge.
        + 4 * 2 * B * (2 * 8 - 1) ** 2 * 8 * 8
        + block_flops(16, 8, 4)
        + block_flops(16, 4, 4)
        + 2 * B * pixels(16) * 4 * 3
    )
    lookup = 2 * (B * 64) * 64 * 5
    return {
        "encoder": encoder,
        "decoder": decoder,
        "lookup": lookup,
        "hyper-net": 2 * 64 * (3 * 8 + 8 * 5),
    }


def test_a_forward_pass_takes_the_flops_of_the_closed_form():
    assert made(compiled=False, **JOINT).forward == forward_flops()


JOINT = {"train__hypergradient": "joint"}


@pytest.mark.slow
def test_a_joint_step_takes_a_forward_and_two_backward_passes():
    planned = made(8, **JOINT)
    compiled, traced, forward = planned.parts, made(compiled=False, **JOINT).parts, forward_flops()
    # The images have no gradient.
    first = 2 * B * pixels(16) * 3 * 4
    expected = {
        "encoder": 3 * forward["encoder"] - first,
        "decoder": 3 * forward["decoder"],
        "lookup": forward["lookup"],
    }
    for part, value in expected.items():
        assert compiled[part].matrix == traced[part].matrix == value, part
    assert planned.matrix_flops == sum(found.matrix for found in compiled.values())
    assert compiled[flops.REST].matrix == 0 < compiled[flops.REST].elementwise


FULL = {"discriminator__weight": 0.8, "discriminator__layers": 1, "discriminator__channels": 4}


@pytest.mark.slow
def test_what_is_traced_is_what_is_compiled_part_by_part():
    compiled, traced = made(**FULL).parts, made(compiled=False, **FULL).parts
    assert compiled["discriminator"].matrix > 0
    for part in flops.PARTS:
        assert compiled[part].matrix == pytest.approx(traced[part].matrix, rel=0.01, abs=1e3), part


def test_the_parts_of_a_batch_change_no_flops():
    whole = made(compiled=False, **JOINT).parts
    parts = made(compiled=False, train__accumulate=4, **JOINT).parts
    for part in ("encoder", "decoder", "lookup"):
        assert parts[part].matrix == whole[part].matrix, part


@pytest.mark.slow
def test_rematerialisation_takes_more_flops_and_less_memory():
    plain, remat = made(), made(model__remat=True)
    assert 1.1 < remat.matrix_flops / plain.matrix_flops < 1.5
    (before,), (after,) = plain.steps, remat.steps
    assert after.compiled.temporary < before.compiled.temporary


def test_a_step_and_those_between_outer_updates_are_averaged():
    light = {"train__hypergradient": "none", "model__blocks": 0, "model__attention": ()}
    several = made(compiled=False, train__inner_updates=4, **light)
    full, alone = several.steps
    assert (full.share, alone.share) == (0.25, 0.75)
    for part in flops.PARTS:
        mean = 0.25 * full.parts[part].matrix + 0.75 * alone.parts[part].matrix
        assert several.parts[part].matrix == pytest.approx(mean)
    # The outer level looks up its own batch, and one image in eight again.
    assert full.parts["lookup"].matrix == 2.125 * alone.parts["lookup"].matrix


@pytest.mark.slow
def test_a_step_of_several_updates_is_counted_once_for_all_of_them():
    light = {"train__hypergradient": "unrolled", "model__blocks": 0, "model__attention": ()}
    one = made(compiled=False, **light)
    several = made(
        compiled=False, train__inner_updates=4, train__unroll=2, train__steps=12, **light
    )
    both, alone = several.steps
    assert (both.name, alone.name) == ("2 inner and outer", "inner alone")
    assert (both.share, alone.share) == (0.25, 0.5)
    # One more inner update and the derivative through it, with no outer one.
    added = both.parts["encoder"].matrix - one.steps[0].parts["encoder"].matrix
    assert added > alone.parts["encoder"].matrix


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_data_parallel_devices_reduce_the_gradient_and_little_else():
    planned = made(8, **JOINT)
    params = jax.eval_shape(lambda: init_state(build(planned.config, 1), planned.config)).params
    gradient = bytes_of(params)
    # Beside it how often each code occurs, and a mean for each metric.
    found = planned.steps[0].compiled.traffic["all-reduce"].bytes
    assert gradient <= found < 1.1 * gradient


SHARDED = {"mesh__data": 2, "mesh__fsdp": 4, "mesh__shard_from": 64}


@pytest.mark.slow
def test_devices_that_share_parameters_out_gather_them_and_hold_less():
    whole, shared = made(8, **JOINT), made(8, **JOINT, **SHARDED)
    assert "all-gather" not in whole.steps[0].compiled.traffic
    assert shared.steps[0].compiled.traffic["all-gather"].bytes > 0
    held = [
        {h.name: h.per_device for h in planned.holdings}["params/autoencoder"]
        for planned in (whole, shared)
    ]
    assert held[1] < held[0] / 2


@pytest.mark.parametrize("changes", [{}, SHARDED])
def test_the_bytes_listed_are_those_that_the_compiled_step_is_given(changes):
    planned = made(8, **JOINT, **changes)
    listed = sum(holding.per_device for holding in planned.holdings)
    assert planned.steps[0].compiled.arguments == listed
    # And what other numbers of devices that share the state out would leave of it.
    by_fsdp, rest = planned.state_by_fsdp, ("metrics", "batches")
    state = sum(holding.per_device for holding in planned.holdings if holding.name not in rest)
    assert by_fsdp[planned.config.mesh.fsdp] == state and list(by_fsdp) == [1, 2, 4, 8]
    assert list(by_fsdp.values()) == sorted(by_fsdp.values(), reverse=True)


def test_a_batch_that_the_devices_cannot_share_is_refused():
    config = runs.configure("photos_mqgan", **{**TINY, "train__batch_size": 12})
    with pytest.raises(ValueError, match="train.batch_size is 12; .* multiple of --devices, 8"):
        plan.make_plan(config, 8)


def given(**changes):
    return runs.arguments("photos_mqgan", **{**TINY, **changes})


def test_the_program_tells_everything_without_a_workdir():
    outcome = runs.program(
        *given(model__blocks=0, model__attention=(), train__steps=3600, **JOINT),
        *("--mode=plan", "--devices=2", "--peak_tflops=100"),
    )
    assert outcome.code == 0, outcome.err
    assert "16 x 16 pixels to 8 x 8 codes (vq), K = 64, D = 5; float32" in outcome.out
    assert "on 2 device(s): data 2 x fsdp 1" in outcome.out
    rows = [line.split() for line in outcome.out.splitlines()]
    parts = [row for row in rows if len(row) > 2 and row[2].endswith("%")]
    shares = {row[0]: float(row[2].rstrip("%")) for row in parts}
    names = ("encoder", "decoder", "lookup", "hyper-net")
    assert math.isclose(sum(shares[name] for name in names), 100, abs_tol=0.2)
    assert runs.table_row(outcome, "temporary")
    assert runs.table_row(outcome, "16 GB") == ["16 GB", "yes"]
    assert int(float(runs.table_row(outcome, "all-reduce")[1])) > 0
    (device,) = [row for row in rows if row[:2] == ["one", "device"]]
    seconds = float(device[2]) * 1e9 / (100e12 * 0.2)
    (row,) = [row for row in rows if row[:4] == ["--peak_tflops,", "100", "TFLOP/s", "20%"]]
    assert float(row[4]) == pytest.approx(seconds, rel=0.01)
    assert runs.table_row(outcome, "all that is trained")
    # What a VQGAN's plan on a CPU adds.
    assert "Of convolutions behind an upsampling a CPU's program" in outcome.out


def test_epochs_need_the_data_or_the_number_of_images(tmp_path):
    for place, told in (
        (tmp_path / "none", "config.data.dir is '"),
        ("", "config.data.dir is empty; expected the folder of the images, --config.data.dir="),
    ):
        epochs = given(data__source="folder", data__dir=place, train__steps=0)
        outcome = runs.cli(*epochs, "--mode=plan", "--compile=False")
        (line,) = outcome.err.splitlines()
        assert outcome.code == 1 and line.startswith(f"error: {told}")
        assert "Or give --images=N: config.train.epochs is" in line


# Kinds whose fields, channels and products differ most from those of vq.
OTHERS = {
    "fsq": ((8, 8), {}),
    "sqvae": (
        (8, 8),
        {
            "quantizer__sqvae__variance": "III",
            "model__layer_norm": False,
            "train__reconstruction": "log-mse",
            "train__quantization_weight": 1.0,
        },
    ),
    "l2": ((8, 8, 3), {"quantizer__depth": 3}),
    "vq": ((8, 8), {"codebook__kind": "transformer", "codebook__hidden": 8}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_plan_knows_every_kind_and_how_many_codes_a_position_has(kind):
    codes, changes = OTHERS[kind]
    found = made(compiled=False, quantizer__kind=kind, **changes, **JOINT)
    assert found.codes == codes
    passes, whole = found.forward, found.parts
    assert whole["decoder"].matrix > passes["decoder"] > 0
    # All products of the codes are the quantizer's, none the optimizers'.
    assert whole["optimizers, the rest"].matrix == 0
    assert (whole["quantizer"].matrix > 0) == (kind == "sqvae")
    assert (whole["hyper-net"].matrix > 0) == (kind in ("vq", "l2", "sqvae"))
