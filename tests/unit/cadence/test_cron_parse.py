"""What a cron expression and a time zone may be, what the errors say, and what makes two crons the same."""

import pytest

from agentex.cadence.cron import CronCadence
from agentex.errors import InvalidInput

FIVE = "five are right: minute hour day-of-month month day-of-week (no seconds, no year)"
QUARTZ = "(Quartz's ?, L, W and # are not supported; any value is *)"
NO_CALENDAR = "is no calendar time; for every so many seconds give interval_seconds instead"
ALPHABET = "holds other characters than ASCII letters, digits, spaces and * / , -"
SPELLING = "with , - and /"
WEEKDAYS = "right are *, 0-7 or SUN-SAT"
LONGER = "for a longer step give interval_seconds"
MACROS = "is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"
A_ZONE = "names a zone; give it as timezone and only the five fields here"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", f"'' has 0 fields; {FIVE}"),
        ("   ", f"'' has 0 fields; {FIVE}"),
        ("0 9 * *", f"'0 9 * *' has 4 fields; {FIVE}"),
        ("0 0 9 * * *", f"'0 0 9 * * *' has 6 fields; {FIVE}"),
        ("0 0 9 * * * 2026", f"'0 0 9 * * * 2026' has 7 fields; {FIVE}"),
        ("60 * * * *", "minute '60' is out of range; right is 0-59"),
        ("0 24 * * *", "hour '24' is out of range; right is 0-23"),
        ("0 0 0 * *", "day-of-month '0' is out of range; right is 1-31"),
        ("0 0 32 * *", "day-of-month '32' is out of range; right is 1-31"),
        ("0 0 * 13 *", "month '13' is out of range; right is 1-12 or JAN-DEC"),
        ("0 0 * * 8", "day-of-week '8' is out of range; right is 0-7 or SUN-SAT"),
        ("1,2,60 * * * *", "minute '60' is out of range; right is 0-59"),
        ("0 9-25 * * *", "hour '25' in '9-25' is out of range; right is 0-23"),
        ("*/0 * * * *", f"minute '*/0' has the step '0'; steps are 1-60; {LONGER}"),
        ("*/90 * * * *", f"minute '*/90' has the step '90'; steps are 1-60; {LONGER}"),
        ("0 */25 * * *", f"hour '*/25' has the step '25'; steps are 1-24; {LONGER}"),
        ("0 0 */32 * *", "day-of-month '*/32' has the step '32'; steps are 1-31"),
        ("*/ * * * *", f"minute '*/' has the step ''; steps are 1-60; {LONGER}"),
        ("*/5/2 * * * *", f"minute '*/5/2' has the step '5/2'; steps are 1-60; {LONGER}"),
        ("*/-5 * * * *", f"minute '*/-5' has the step '-5'; steps are 1-60; {LONGER}"),
        ("0 22-2 * * *", "hour '22-2' runs backwards; write it as 22-23,0-2"),
        ("0 0 * NOV-FEB *", "month 'NOV-FEB' runs backwards; write it as 11-12,1-2"),
        ("0 0 * * FRI-MON", "day-of-week 'FRI-MON' runs backwards; write it as 5-6,0-1"),
        ("0 0 * * FRI-SUN", "day-of-week 'FRI-SUN' runs backwards; write it as 5-7"),
        ("1,,2 * * * *", f"minute '' is not a value; right are *, 0-59, {SPELLING}"),
        ("1, * * * *", f"minute '' is not a value; right are *, 0-59, {SPELLING}"),
        ("-5 * * * *", f"minute '' in '-5' is not a value; right are *, 0-59, {SPELLING}"),
        ("1-5-7 * * * *", f"minute '5-7' in '1-5-7' is not a value; right are *, 0-59, {SPELLING}"),
        ("** * * * *", f"minute '**' is not a value; right are *, 0-59, {SPELLING}"),
        ("x * * * *", f"minute 'x' is not a value; right are *, 0-59, {SPELLING}"),
        ("1.5 * * * *", f"minute '1.5' is not a value; right are *, 0-59, {SPELLING}"),
        ("0 0 * * MONDAY", f"day-of-week 'MONDAY' is not a value; {WEEKDAYS}, {SPELLING}"),
        ("0 0 * MON *", f"month 'MON' is not a value; right are *, 1-12 or JAN-DEC, {SPELLING}"),
        ("0 0 ? * *", f"day-of-month '?' is not a value; right are *, 1-31, {SPELLING} {QUARTZ}"),
        ("0 0 L * *", f"day-of-month 'L' is not a value; right are *, 1-31, {SPELLING} {QUARTZ}"),
        ("0 0 15W * *", f"day-of-month '15W' is not a value; right are *, 1-31, {SPELLING} {QUARTZ}"),
        ("0 0 * * 1#2", f"day-of-week '1#2' is not a value; {WEEKDAYS}, {SPELLING} {QUARTZ}"),
        ("@reboot", f"'@reboot' {NO_CALENDAR}"),
        ("@every 5m", f"'@every 5m' {NO_CALENDAR}"),
        ("@noon", f"'@noon' {MACROS}"),
        ("@daily 5", f"'@daily 5' {MACROS}"),
        ("TZ=UTC 0 9 * * *", f"'TZ=UTC 0 9 * * *' {A_ZONE}"),
        ("CRON_TZ=UTC 0 9 * * *", f"'CRON_TZ=UTC 0 9 * * *' {A_ZONE}"),
        ("0\t9 * * *", f"'0\\t9 * * *' {ALPHABET}"),
        ("0 9 * * *\n", f"'0 9 * * *\\n' {ALPHABET}"),
        ("0 9 * * *\x00", f"'0 9 * * *\\x00' {ALPHABET}"),
        ("\u0665 9 * * *", f"'\u0665 9 * * *' {ALPHABET}"),
        ("\u00b2 9 * * *", f"'\u00b2 9 * * *' {ALPHABET}"),
        ("0" * 201, "an expression of 201 characters; at most 200 are right"),
        ("0 0 30 2 *", "'0 0 30 2 *' never fires: none of its months has a day 30"),
        ("0 0 31 4 *", "'0 0 31 4 *' never fires: none of its months has a day 31"),
        ("0 0 31 2,4,6,9,11 1", "'0 0 31 2,4,6,9,11 1' never fires: none of its months has a day 31"),
    ],
)
def test_wrong_expression(expression: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CronCadence.parse(expression, "UTC")
    assert (caught.value.field, caught.value.message) == ("cron_expression", f"cron_expression: {message}")


@pytest.mark.parametrize(
    ("timezone", "hint"),
    [
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("utc", "did you mean 'UTC'?"),
        *(
            (name, "give a name such as 'UTC', 'Europe/Berlin' or 'America/New_York'")
            for name in [
                "",
                "+02:00",
                "../x",
                "../../etc/passwd",
                "/etc/localtime",
                "localtime",
                "posixrules",
                "Factory",
                "zone.tab",
                "Europe",
                "Mars/Olympus",
                "\x00",
            ]
        ),
    ],
)
def test_wrong_timezone(timezone: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CronCadence.parse("0 9 * * *", timezone)
    assert (caught.value.field, caught.value.message) == (
        "timezone",
        f"timezone: {timezone!r} is not an IANA time zone; {hint}",
    )


def test_overlong_timezone_is_not_echoed() -> None:
    with pytest.raises(InvalidInput) as caught:
        CronCadence.parse("0 9 * * *", "x" * 5000)
    assert caught.value.message == (
        "timezone: a name of 5000 characters is not an IANA time zone; "
        "give a name such as 'UTC', 'Europe/Berlin' or 'America/New_York'"
    )


@pytest.mark.parametrize(
    ("expression", "normal"),
    [
        ("* * * * *", "* * * * *"),
        ("  0   9  *  *  * ", "0 9 * * *"),
        ("*/30 * * * *", "0,30 * * * *"),
        ("0,30 * * * *", "0,30 * * * *"),
        ("30,0,30 * * * *", "0,30 * * * *"),
        ("0/30 * * * *", "0,30 * * * *"),
        ("0-59/30 * * * *", "0,30 * * * *"),
        ("*/60 * * * *", "0 * * * *"),
        ("*/1 */1 */1 */1 */1", "* * * * *"),
        ("0-59 0-23 1-31 1-12 0-6", "* * * * *"),
        ("0 9 * * MON-FRI", "0 9 * * 1-5"),
        ("0 9 * * mon,Tue,wEd,THU,FRI", "0 9 * * 1-5"),
        ("0 9 * * 0", "0 9 * * 0"),
        ("0 9 * * 7", "0 9 * * 0"),
        ("0 9 * * SUN", "0 9 * * 0"),
        ("0 9 * * 5-7", "0 9 * * 0,5,6"),
        ("0 9 * * 0-7", "0 9 * * *"),
        ("0 9 * * 1-7", "0 9 * * *"),
        ("0 9 * * 5/2", "0 9 * * 0,5"),
        ("0 9 * * 7/2", "0 9 * * 0"),
        ("0 */24 * * *", "0 0 * * *"),
        ("0 */2 * * *", "0 0,2,4,6,8,10,12,14,16,18,20,22 * * *"),
        ("0 0 1 jan-DEC/6 *", "0 0 1 1,7 *"),
        ("00 09 01 * *", "0 9 1 * *"),
        ("50/5 9-11,10-12,20 * * *", "50,55 9-12,20 * * *"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @Annually ", "0 0 1 1 *"),
    ],
)
def test_equal_expressions_share_one_key(expression: str, normal: str) -> None:
    cadence = CronCadence.parse(expression, "Europe/Berlin")
    assert cadence.key == f"cron {normal} Europe/Berlin default"
    again = CronCadence.parse(normal, "Europe/Berlin")
    assert (cadence, hash(cadence)) == (again, hash(again))


def test_zones_have_keys_of_their_own() -> None:
    keys = {CronCadence.parse("0 9 * * *", zone).key for zone in ("UTC", "Europe/Berlin", "Europe/Paris")}
    assert len(keys) == 3


def test_longest_key_is_bounded_and_reads_back() -> None:
    """Two values of each three make the longest spelling, longer than a user may write."""
    thirds = "0/3,1/3 0/3,1/3 1/3,2/3 1/3,2/3 0/3,1/3"
    cadence = CronCadence.parse(thirds, "America/Argentina/ComodRivadavia")
    assert 200 < len(cadence.key) < 500
    assert CronCadence.from_json(cadence.to_json()) == cadence
