"""An exception in the log: where and what type, without the values in its text."""

from __future__ import annotations

import pytest

from agentex.telemetry.faults import MAX_CHAIN, MAX_FRAMES, describe

SECRET = "marked-prompt-7d1f"  # noqa: S105 - of nobody


class Refused(Exception):  # noqa: N818 - as a driver calls its own
    """As asyncpg's: with a state, and text that quotes a row."""

    sqlstate = "23505"
    constraint_name = "uq_tasks_name"


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (ValueError(SECRET), "ValueError"),
        (KeyError(SECRET), "KeyError"),
        (OSError(104, SECRET), "ConnectionResetError errno=104"),
        (Refused(f"DETAIL: Failing row contains ({SECRET})"), "sqlstate=23505 constraint=uq_tasks_name"),
        (TypeError("'int' object is not callable"), "TypeError: 'int' object is not callable"),
        (ExceptionGroup(SECRET, [ValueError(SECRET)]), "ExceptionGroup\nValueError"),
        (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET), "UnicodeDecodeError"),
    ],
)
def test_values_are_left_out_and_the_place_is_not(error: BaseException, last: str) -> None:
    written = describe(raised(error))

    assert written.endswith(last)
    assert SECRET not in written
    assert "test_faults.py:" in written
    assert not written.startswith("/")


def test_what_it_followed_from_comes_first() -> None:
    error = ValueError(SECRET)
    error.__cause__ = raised(KeyError(SECRET))

    written = describe(raised(error))

    assert written.index("KeyError") < written.index("and then") < written.index("ValueError")


def test_chains_and_stacks_without_end_are_cut() -> None:
    error = ValueError(SECRET)
    for _ in range(100):
        following = ValueError(SECRET)
        following.__cause__ = error
        error = following

    def deep(levels: int) -> None:
        if levels == 0:
            raise error
        deep(levels - 1)

    with pytest.raises(ValueError, match=SECRET) as caught:
        deep(200)
    written = describe(caught.value)
    assert written.count("and then") == MAX_CHAIN - 1
    assert written.count(" deep\n") <= MAX_FRAMES
