"""For how long Postgres has been answering, as the sweep sees it."""

from __future__ import annotations

from agentex.sweep.answering import Answering


def round_of(answering: Answering, began: float, ended: float | None = None) -> None:
    answering.begin(began)
    answering.end(began if ended is None else ended)


def test_it_counts_from_the_beginning_of_the_first_round_that_was_answered() -> None:
    answering = Answering(gap_seconds=9)
    answering.begin(100)
    during = answering.seconds(100)
    answering.end(101)
    assert (during, answering.seconds(106)) == (None, 6)
    round_of(answering, 106)
    assert answering.seconds(111) == 11


def test_an_outage_starts_it_anew() -> None:
    answering = Answering(gap_seconds=9)
    round_of(answering, 100)
    answering.begin(105)
    answering.fail()
    answering.end(106)
    down = answering.seconds(106)
    answering.begin(110)
    back = answering.seconds(110)
    answering.end(111)
    assert (down, back, answering.seconds(115)) == (None, None, 5)


def test_a_round_that_comes_much_too_late_starts_it_anew() -> None:
    answering = Answering(gap_seconds=9)
    round_of(answering, 100)
    assert answering.seconds(109) == 9
    assert answering.seconds(110) is None
    round_of(answering, 200)
    assert answering.seconds(205) == 5


def test_a_long_round_is_no_break() -> None:
    answering = Answering(gap_seconds=9)
    round_of(answering, 100)
    round_of(answering, 105, 165)
    assert answering.seconds(170) == 70


def test_a_clock_that_is_set_back_only_makes_it_wait() -> None:
    answering = Answering(gap_seconds=9)
    round_of(answering, 100)
    back = answering.seconds(50)
    assert back is not None
    assert back < 0
