"""A run on more devices, against closed forms."""

import math

import pytest

from mq_jax.devices.peaks import Peak
from mq_jax.planning import scale, tables

# A device that computes 1 TFLOP/s and sends 100 and 10 GB/s.
PEAK = Peak(1 / scale.EFFICIENCY, 1 / scale.EFFICIENCY, link=100, network=10)
# 8 devices, 16 images on each; half a second of computing.
WORK = scale.Work(8, 128, 2, 5e11, 4e9, 0, 10**9, 10**9, 1e9)


def test_within_a_machine_all_bytes_but_each_device_s_own_share_go_round_twice():
    assert scale.exchange_seconds(4e9, 0, 1, PEAK) == 0
    assert scale.exchange_seconds(4e9, 0, 8, PEAK) == pytest.approx(2 * 7 / 8 * 4 / 100)


def test_between_machines_each_device_exchanges_its_share():
    inside = scale.exchange_seconds(4e9, 0, 8, PEAK)
    found = scale.exchange_seconds(4e9, 0, 64, PEAK)
    assert found == pytest.approx(inside + 2 * 7 / 8 * (4 / 8) / 10)


def test_each_collective_takes_the_hops_of_a_tree_there_and_back():
    assert scale.exchange_seconds(0, 3, 64, PEAK) == pytest.approx(3 * 2 * 6 * scale.HOP)


def test_a_run_scales_with_its_images_or_keeps_its_batch_where_that_is_divided():
    rows = list(scale.scaled(WORK, PEAK, "bfloat16"))
    found = [(row.devices, row.images) for row in rows]
    assert found == [(8, 128), (64, 1024), (64, 128), (512, 8192)]
    own, weak, strong, _ = rows
    assert own.compute == weak.compute == pytest.approx(0.5)
    assert strong.compute == pytest.approx(0.5 / 8) and strong.exchange == weak.exchange
    # Eight devices of a machine read 16 images each, for both levels.
    assert own.read == pytest.approx(2 * 128 / (0.5 + own.exchange))
    assert weak.read == pytest.approx(2 * 128 / (0.5 + weak.exchange))
    assert weak.evaluate == pytest.approx(math.ceil(10_000 / 64) * 1e-3)


def test_the_table_says_what_was_assumed(capsys):
    tables.print_scale(WORK, "bfloat16")
    told = capsys.readouterr().out
    assert told.count("images each") == 8 and "Assumed: 35% of the peak" in told
    assert "A checkpoint: 1.00 GB" in told
