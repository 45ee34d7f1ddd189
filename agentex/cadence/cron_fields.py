"""Five cron fields: minute hour day-of-month month day-of-week, read, checked and spelled in one way.

Dialect, where crons differ:

- An instant must match all five fields. Day-of-month and day-of-week are ANDed, as Temporal does, not ORed as
  Vixie cron does: `0 9 13 * 5` is 09:00 on Fridays the 13th.
- `a/n` counts from a to the field's end (day-of-week: to 7), as Temporal reads it. A step may be as large
  as the field's cycle (`*/60` minutes is hourly, as it says); `*/90` would not be every 90: rejected.
- Ranges do not wrap around (`22-2`, `FRI-MON`): rejected as Temporal does, write `22-23,0-2`, `5-6,0-1`.
- 0 and 7 are Sunday, so `1-7` is the whole week (Temporal 1.32 leaves Sunday out of it). Names have three
  letters, in any case.
- No seconds, no years, none of Quartz's `?`, `L`, `W`, `#`, no TZ= prefix. Of the macros those that are five
  fields written shorter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache

from agentex.cadence.base import EPOCH, LAST_YEAR
from agentex.errors import InvalidInput

MAX_LENGTH = 200
"""The longest expression of use, every field a list, is shorter."""

_FIELD_NAMES = "minute hour day-of-month month day-of-week"
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTH_NAMES = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
_WEEKDAY_NAMES = "SUN MON TUE WED THU FRI SAT"
_LONGEST_MONTHS = {month: 30 if month in (4, 6, 9, 11) else 31 for month in range(1, 13)} | {2: 29}
_EPOCH_ORDINAL = EPOCH.date().toordinal()
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class _Field:
    """One of the five: `*` is low..high, a written value may also be `alias`, which means low (7, Sunday)."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict[str, int])
    alias: int | None = None

    @property
    def every(self) -> frozenset[int]:
        return frozenset(range(self.low, self.high + 1))

    @property
    def last(self) -> int:
        return self.high if self.alias is None else self.alias

    @property
    def right(self) -> str:
        """What a value would have to be, for messages."""
        names = f" or {'-'.join((*self.names,)[:: len(self.names) - 1])}" if self.names else ""
        return f"{self.low}-{self.last}{names}"


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY_OF_MONTH = _Field("day-of-month", 1, 31)
_MONTH = _Field("month", 1, 12, {name: n for n, name in enumerate(_MONTH_NAMES.split(), 1)})
_WEEKDAY = _Field("day-of-week", 0, 6, {name: n for n, name in enumerate(_WEEKDAY_NAMES.split())}, alias=7)
EVERY_HOUR = _HOUR.every
_FIELDS = (_MINUTE, _HOUR, _DAY_OF_MONTH, _MONTH, _WEEKDAY)


@dataclass(frozen=True)
class CronFields:
    """The values that each field allows; two expressions with the same values are the same fields."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def expression(self) -> str:
        """The one spelling of these values, e.g. `0,30 9 * * 1-5`; at most 240 characters."""
        sets = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return " ".join(
            "*" if values == of.every else _spell(values) for of, values in zip(_FIELDS, sets, strict=True)
        )

    def next_day(self, day: int) -> int | None:
        """The first matching day >= `day`, both as days since 1970-01-01; None past LAST_YEAR.

        The rarest, a 29 February on one weekday across 2100, is 40 years on: 0.5 ms.
        """
        at = date.fromordinal(_EPOCH_ORDINAL + day)
        while at.year <= LAST_YEAR:
            if at.month not in self.months:
                at = date(at.year + at.month // 12, at.month % 12 + 1, 1)
            elif at.day in self.days and at.isoweekday() % 7 in self.weekdays:
                return at.toordinal() - _EPOCH_ORDINAL
            else:
                at += _ONE_DAY
        return None


def parse_fields(expression: str) -> CronFields:
    """Read what a user wrote, five fields or a macro; InvalidInput("cron_expression") says what is wrong."""
    if len(expression) > MAX_LENGTH:
        raise _wrong(f"an expression of {len(expression)} characters; at most {MAX_LENGTH} are right")
    if not (expression.isascii() and expression.isprintable()):
        raise _wrong(f"{expression!r} holds other characters than ASCII letters, digits, spaces and * / , -")
    text = " ".join(expression.split())
    if text.upper().startswith(("TZ=", "CRON_TZ=")):
        raise _wrong(f"{expression!r} names a zone; give it as timezone and only the five fields here")
    return compile_fields(_expanded(text) if text.startswith("@") else text)


@lru_cache(maxsize=1024)
def compile_fields(text: str) -> CronFields:
    """Read five fields, also those of `CronFields.expression`; InvalidInput also for what never fires."""
    words = text.split()
    if len(words) != len(_FIELDS):
        raise _wrong(
            f"{text!r} has {len(words)} fields; five are right: {_FIELD_NAMES} (no seconds, no year)"
        )
    fields = CronFields(*(_parse_field(of, word) for of, word in zip(_FIELDS, words, strict=True)))
    if min(fields.days) > max(_LONGEST_MONTHS[month] for month in fields.months):
        raise _wrong(f"{text!r} never fires: none of its months has a day {min(fields.days)}")
    return fields


def _expanded(macro: str) -> str:
    fields = _MACROS.get(macro.lower())
    if fields is not None:
        return fields
    if macro.lower().startswith(("@every", "@reboot")):
        raise _wrong(
            f"{macro!r} is no calendar time; for every so many seconds give interval_seconds instead"
        )
    raise _wrong(f"{macro!r} is not one of {', '.join(_MACROS)}")


def _parse_field(of: _Field, word: str) -> frozenset[int]:
    values = frozenset(value for item in word.split(",") for value in _parse_item(of, item))
    return (
        values if of.alias is None else frozenset(of.low if value == of.alias else value for value in values)
    )


def _parse_item(of: _Field, item: str) -> range:
    """Read one of `*`, `a`, `a-b`, each with an optional `/step`."""
    base, slash, step_text = item.partition("/")
    step = _parse_step(of, item, step_text) if slash else 1
    if base == "*":
        return range(of.low, of.high + 1, step)
    low_text, dash, high_text = base.partition("-")
    low = _parse_value(of, item, low_text)
    if not dash:
        return range(low, of.last + 1 if slash else low + 1, step)
    high = _parse_value(of, item, high_text)
    if low > high:
        raise _wrong(f"{of.name} {item!r} runs backwards; write it {_split(of, low, high)}")
    return range(low, high + 1, step)


def _parse_step(of: _Field, item: str, text: str) -> int:
    cycle = of.high - of.low + 1
    if text.isdigit() and 1 <= int(text) <= cycle:
        return int(text)
    hint = "; for a longer step give interval_seconds" if of in (_MINUTE, _HOUR) else ""
    raise _wrong(f"{of.name} {item!r} has the step {text!r}; steps are 1-{cycle}{hint}")


def _parse_value(of: _Field, item: str, text: str) -> int:
    if text.upper() in of.names:
        return of.names[text.upper()]
    where = f"{text!r} in {item!r}" if text != item else repr(text)
    if not text.isdigit():
        quartz = any(mark in text.upper() for mark in "?LW#")
        hint = " (Quartz's ?, L, W and # are not supported; any value is *)" if quartz else ""
        raise _wrong(f"{of.name} {where} is not a value; right are *, {of.right}, with , - and /{hint}")
    if not of.low <= int(text) <= of.last:
        raise _wrong(f"{of.name} {where} is out of range; right is {of.right}")
    return int(text)


def _split(of: _Field, low: int, high: int) -> str:
    if of is _WEEKDAY and high == 0:
        return f"as {low}-7"
    return f"as {low}-{of.high},{of.low}-{high}"


def _spell(values: Iterable[int]) -> str:
    """Spell runs of three or more as ranges, the rest one by one: {1, 2, 3, 9} is `1-3,9`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and runs[-1][-1] == value - 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _wrong(message: str) -> InvalidInput:
    return InvalidInput("cron_expression", message)
