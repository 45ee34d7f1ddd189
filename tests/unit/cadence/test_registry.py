"""Building a cadence from a schedule's fields and from what the clocks table stores."""

import json

import pytest

from agentex.cadence.base import JSON, Cadence
from agentex.cadence.cron import CronCadence
from agentex.cadence.interval import IntervalCadence
from agentex.cadence.registry import from_json, parse
from agentex.errors import InvalidInput


@pytest.mark.parametrize(
    ("cadence", "stored"),
    [
        (
            CronCadence.parse("*/30 9 * * MON-FRI", "Europe/Berlin"),
            {"kind": "cron", "expression": "0,30 9 * * 1-5", "timezone": "Europe/Berlin", "dst": "default"},
        ),
        (
            CronCadence.parse("@daily", "UTC"),
            {"kind": "cron", "expression": "0 0 * * *", "timezone": "UTC", "dst": "default"},
        ),
        (IntervalCadence.parse(90), {"kind": "interval", "seconds": 90}),
    ],
)
def test_json_round_trip(cadence: Cadence, stored: dict[str, JSON]) -> None:
    assert cadence.to_json() == stored
    assert from_json(json.loads(json.dumps(stored))) == cadence


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "cadence kind None is none of"),
        ({"kind": "moon"}, "cadence kind 'moon' is none of"),
        ({"kind": ["cron"]}, "is none of"),
        ({"kind": "cron", "expression": "0 9 * * *"}, "not a stored cron"),
        (
            {"kind": "cron", "expression": "0 9 * * *", "timezone": "UTC", "dst": "moon"},
            "'moon' is not a valid",
        ),
        ({"kind": "interval", "seconds": "5"}, "not a stored interval"),
    ],
)
def test_what_was_not_stored_here_is_refused(stored: dict[str, JSON], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(stored)


def test_parse_cron() -> None:
    cadence = parse(cron_expression="0 9 * * *", interval_seconds=None, timezone="Europe/Berlin")
    assert cadence == CronCadence.parse("0 9 * * *", "Europe/Berlin")
    assert (cadence.key, cadence.whole_minutes) == ("cron 0 9 * * * Europe/Berlin default", True)


def test_parse_interval_leaves_the_zone_out_of_the_key() -> None:
    cadence = parse(cron_expression=None, interval_seconds=10, timezone="Europe/Berlin")
    assert cadence == IntervalCadence.parse(10)
    assert (cadence.key, cadence.whole_minutes) == ("interval 10", False)


@pytest.mark.parametrize(
    ("cron_expression", "interval_seconds", "timezone", "field", "message"),
    [
        ("0 9 * * *", 5, "UTC", "cron_expression", "give cron_expression or interval_seconds, not both"),
        (None, None, "UTC", "cron_expression", "give one of cron_expression and interval_seconds"),
        (None, 0, "UTC", "interval_seconds", "0 is not a whole number from 1 to 31622400 (366 days)"),
        (None, 5, "utc", "timezone", "'utc' is not an IANA time zone; did you mean 'UTC'?"),
        ("0 9 * * *", None, "utc", "timezone", "'utc' is not an IANA time zone; did you mean 'UTC'?"),
    ],
)
def test_parse_names_the_field_at_fault(
    cron_expression: str | None, interval_seconds: int | None, timezone: str, field: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(cron_expression=cron_expression, interval_seconds=interval_seconds, timezone=timezone)
    assert (caught.value.field, caught.value.message) == (field, f"{field}: {message}")
