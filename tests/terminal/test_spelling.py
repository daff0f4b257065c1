"""Suggestions to a person who mistyped."""

from mq_jax.terminal.spelling import nearest, suggestion


def test_a_suggestion_is_made_only_where_one_is_near():
    assert suggestion("stepz", ["steps", "epochs"]) == " (did you mean steps?)"
    assert suggestion("x", ["steps", "epochs"]) == ""


def test_the_case_of_letters_does_not_matter_and_the_choice_keeps_its_own():
    assert nearest("rFID", ["ssim", "FID"]) == "FID" and nearest("", ["steps"]) == ""
