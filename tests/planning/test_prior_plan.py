"""What the plan of a prior tells, with what its step may do beside the plain one."""

import functools

import jax
import prior_runs
import pytest

from mq_jax.planning.plan import make_plan
from mq_jax.priors.build import make_prior
from mq_jax.priors.spaces import declared_space

# What a prior is of, as its configuration says it before there are tokens.
DECLARED = {"space__height": 3, "space__width": 4, "space__size": 16, "space__classes": 2}


@functools.cache
def planned(devices=1, compiled=False, **changes):
    fields = {"space__levels": 1, "train__ema_decay": 0.9, **DECLARED, **changes}
    return make_plan(prior_runs.configure(**fields), devices, compiled=compiled)


def test_the_plan_of_a_prior_counts_its_parameters_and_their_averages():
    with_averages, without = planned(), planned(train__ema_decay=0.0)
    config = with_averages.config
    params = jax.eval_shape(make_prior(config, declared_space(config)).init, jax.random.key(0))
    assert with_averages.codes == (3, 4)
    assert sum(with_averages.parameters.values()) == sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )
    added = with_averages.state_by_fsdp[1] - without.state_by_fsdp[1]
    assert added == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


@pytest.mark.slow
def test_parts_of_a_priors_batch_and_its_dtype_change_no_flops():
    plain = planned().matrix_flops
    assert planned(train__accumulate=4).matrix_flops == plain
    assert planned(prior__dtype="bfloat16").matrix_flops == plain
    assert 1.1 < planned(prior__remat=True).matrix_flops / plain < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_devices_that_share_a_prior_out_hold_less_and_compute_as_much(kind):
    shared = {"mesh__data": 2, "mesh__fsdp": 4, "mesh__shard_from": 1, "prior__kind": kind}
    together, alone = planned(8, True, **shared), planned(1, True, prior__kind=kind)
    assert together.steps[0].compiled.traffic["all-gather"].bytes > 0
    assert together.state_by_fsdp[4] < alone.state_by_fsdp[1] / 3
    assert together.matrix_flops == pytest.approx(alone.matrix_flops, rel=0.2)
