"""Suggestions to a person who mistyped."""

from mq_jax.terminal.spelling import suggestion


def test_a_suggestion_is_made_only_where_one_is_near():
    assert suggestion("stepz", ["steps", "epochs"]) == " (did you mean steps?)"
    assert suggestion("x", ["steps", "epochs"]) == ""
