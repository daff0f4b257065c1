"""The account of unreadable records."""

import json

import numpy as np
import pytest

from mq_jax.data.ledger import LEFT_OUT, SEEN_TWICE, BadImages


class _Broken:
    """A source of 100 records, none readable."""

    class_names = ()

    def __len__(self):
        return 100

    def __getitem__(self, index):
        raise ValueError(f"reason {index}")

    def name(self, index):
        return f"file{index}"


@pytest.mark.parametrize(
    ("instead", "told"),
    [(SEEN_TWICE, "the next one seen twice instead"), (LEFT_OUT, "left out")],
)
def test_each_bad_record_is_logged_once_with_what_becomes_of_it(caplog, instead, told):
    ledger = BadImages(_Broken(), 0.5, instead)
    ledger.record(np.array([[7, -1], [3, 7]]))
    ledger.record(np.array([7, 3, -1]))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"Unreadable image 1 of at most 50, {told}: file3: reason 3",
        f"Unreadable image 2 of at most 50, {told}: file7: reason 7",
    ]


def test_the_indices_are_sorted_and_fit_json():
    ledger = BadImages(_Broken(), 0.5, LEFT_OUT)
    ledger.record(np.array([9, 2, -1]))
    assert json.loads(json.dumps(ledger.indices)) == [2, 9]


def test_a_restored_account_resumes_silently(caplog):
    ledger = BadImages(_Broken(), 0.5, LEFT_OUT)
    ledger.restore([2, 9])
    ledger.record(np.array([9, 2]))
    assert ledger.indices == [2, 9] and not caplog.records


def test_more_than_the_tolerated_share_is_refused():
    ledger = BadImages(_Broken(), 0.03, LEFT_OUT)
    ledger.record(np.arange(3))
    with pytest.raises(
        ValueError, match=r"4 of 100 .*\(4.00%\).*3.00%.*file0, file1.*raise data.max_bad_share"
    ):
        ledger.record(np.array([3]))


def test_a_share_of_zero_tolerates_none():
    ledger = BadImages(_Broken(), 0.0, LEFT_OUT)
    ledger.record(np.array([-1, -1]))
    with pytest.raises(ValueError, match="1 of 100"):
        ledger.record(np.array([0]))


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match="data.max_bad_share is 2"):
        BadImages(_Broken(), 2, LEFT_OUT)
