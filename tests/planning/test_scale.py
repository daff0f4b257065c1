"""A step on more devices, and how far it scales, against closed forms."""

import pytest

from mq_jax.devices.peaks import Peak
from mq_jax.planning import limits, rates, scale
from mq_jax.planning.hlo import Traffic
from mq_jax.planning.rates import HOP, Load

# A device that computes 1 TFLOP/s, 0.1 in full float32, and sends 100 and 10 GB/s.
PEAK = Peak(1 / rates.EFFICIENCY, 1, link=100, network=10, full=0.1 / rates.EFFICIENCY)
SUMS = {"all-reduce": Traffic(0, 4e9)}
# 8 devices, 16 images on each; half a second of computing, and a hundredth whatever the images.
WORK = scale.Work(8, 1, 128, 2, Load(4e11, 1e10), Load(0, 1e9), SUMS)


def exchanged(traffic, devices, fsdp=1):
    return rates.exchange_seconds(traffic, devices, fsdp, PEAK)


def test_what_is_added_up_goes_round_twice_and_what_is_gathered_once():
    assert exchanged(SUMS, 1) == 0
    assert exchanged(SUMS, 8) == pytest.approx(2 * 7 / 8 * 4 / 100)
    for kind in ("all-gather", "reduce-scatter", "all-to-all"):
        assert exchanged({kind: Traffic(0, 4e9)}, 8) == pytest.approx(7 / 8 * 4 / 100)


def test_between_machines_each_device_sends_its_share_but_all_of_what_is_for_each():
    found = exchanged(SUMS, 64) - exchanged(SUMS, 8)
    assert found == pytest.approx(2 * 7 / 8 * (4 / 8) / 10)
    each = {"all-to-all": Traffic(0, 4e9)}
    assert exchanged(each, 64) - exchanged(each, 8) == pytest.approx(7 / 8 * 4 / 10)


def test_devices_that_share_a_state_out_gather_it_among_themselves():
    both = SUMS | {"all-gather": Traffic(0, 4e9)}
    added = exchanged(both, 64, fsdp=8) - exchanged(SUMS, 64)
    assert added == pytest.approx(7 / 8 * 4 / 100)


def test_a_collective_takes_the_hops_of_a_tree_and_a_sum_those_back_as_well():
    assert exchanged({"all-gather": Traffic(3, 0)}, 64) == pytest.approx(3 * 6 * HOP)
    assert exchanged({"all-reduce": Traffic(3, 0)}, 64) == pytest.approx(3 * 2 * 6 * HOP)


def test_processes_agree_once_a_step_where_there_are_several():
    assert rates.agreement_seconds(8) == 0
    assert rates.agreement_seconds(64) == pytest.approx(2 * 3 * HOP)


def test_products_of_full_float32_are_slower_or_of_a_rate_that_nobody_told():
    load = Load(1e12, 1e12)
    assert rates.compute_seconds(load, PEAK, "bfloat16") == pytest.approx(1 + 10)
    other = PEAK._replace(full=0)
    assert rates.compute_seconds(load, other, "bfloat16") == pytest.approx(1 + 1 / rates.EFFICIENCY)


def test_a_hyper_net_is_what_more_devices_do_not_shorten():
    found = scale.loads({"encoder": 3, "lookup": 5, "hyper-net": 7})
    assert found == {"batch": Load(3, 5), "fixed": Load(0, 7)}


def test_a_run_scales_with_its_images_or_keeps_its_batch_where_that_is_divided():
    rows = list(scale.scaled(WORK, PEAK, "bfloat16"))
    found = [(row.devices, row.images) for row in rows]
    assert found == [(8, 128), (64, 1024), (64, 128), (512, 8192)]
    own, weak, strong, _ = rows
    assert own.compute == weak.compute == pytest.approx(0.51)
    assert strong.compute == pytest.approx(0.5 / 8 + 0.01) and strong.exchange == weak.exchange
    assert weak.exchange == exchanged(SUMS, 64) + rates.agreement_seconds(64)
    # Eight devices of a machine read 16 images each, for both levels.
    assert own.read == pytest.approx(2 * 128 / own.seconds)
    assert weak.read == pytest.approx(2 * 128 / weak.seconds)


def test_an_exchange_is_hidden_by_the_computing_that_it_runs_beside():
    own = scale.step_on(8, 128, WORK, PEAK, "bfloat16")
    assert scale.step_on(8, 128, WORK, PEAK, "bfloat16", beside=1).exchange == 0
    part = scale.step_on(8, 128, WORK, PEAK, "bfloat16", beside=0.1)
    assert part.exchange == pytest.approx(own.exchange - 0.051)


# What a step takes does not shrink below 0.1 of the second that it takes on the plan's devices.
FLAT = scale.Work(8, 1, 128, 1, Load(9e11, 0), Load(0, 1e10), {})


def test_devices_are_worth_it_while_each_does_most_of_what_it_did():
    # On twice as many devices 0.45 + 0.1 seconds, 91% of the pace; on four times 0.325, 77%.
    found = limits.limit(FLAT, PEAK, "bfloat16")
    assert found.devices == 16 and found.compute == pytest.approx(0.55)


def test_each_change_moves_the_limit_and_the_batch_is_the_last_one():
    def most(work, **fields):
        return limits.limit(work, PEAK, "bfloat16", limits.Change("", "", **fields)).devices

    # 0.9 + 0.1 m / shared seconds of a device, on m times as many, are at most 1.25.
    assert most(FLAT, shared=2) == 32 and most(FLAT, shared=4) == 64
    assert most(FLAT, shared=1000) == 128
    assert most(FLAT, images=8) == 8 * 16
    # 64 devices send 4e9 bytes in 0.16 seconds; beside computing they may, or in half the bytes.
    sent = FLAT._replace(batch=Load(1e12, 0), fixed=Load(0, 0), traffic=SUMS)
    assert (most(sent), most(sent, bytes=0.5), most(sent, beside=1)) == (16, 32, 64)
    many = sent._replace(traffic={"all-reduce": Traffic(1000, 0)})
    assert (most(many), most(many, joined=True)) == (32, 128)


def test_changes_are_those_that_a_plan_can_have():
    assert [change.name for change in limits.changes(WORK)][4:6] == [
        "a hyper-net shared out",
        "these 4",
    ]
    for other in (WORK._replace(fsdp=8), WORK._replace(fixed=Load(0, 0))):
        assert "these 3" in [change.name for change in limits.changes(other)]
    assert list(limits.changes(WORK))[-1].today == "train.batch_size=1024"
