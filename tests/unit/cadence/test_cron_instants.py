"""Which instants a cron has: fixed cases, derived by hand from each zone's published transitions.

A line is: name | expression | zone | after | the next instants, all UTC. Being consecutive, the instants also
say what does not fire.
"""

# ruff: noqa: E501 - one case, one line, so that the table can be read as one

from datetime import UTC, datetime, timedelta, timezone

import pytest

from agentex.cadence.cron import CronCadence

# Clock changes, UTC: Berlin 2026-03-29 01:00 (02->03), 2026-10-25 01:00 (03->02); London and Dublin at the
# same instants (01->02, 02->01); New York 2026-03-08 07:00 (02->03), 2026-11-01 06:00 (02->01).
GAPS = """
gap_fires_at_its_end | 30 2 * * * | Europe/Berlin | 2026-03-28 00:00 | 2026-03-28 01:30, 2026-03-29 01:00, 2026-03-30 00:30
gaps_first_minute_fires_at_its_end | 0 2 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:00
gaps_last_minute_fires_at_its_end | 59 2 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:59
minute_after_gap_is_itself | 0 3 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 01:00
minute_before_gap_is_itself | 59 1 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 00:59, 2026-03-29 23:59
two_times_in_a_gap_become_one | 0,30 2 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:00, 2026-03-30 00:30
gap_and_later_time_stay_two | 30 2,3 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-29 01:30, 2026-03-30 00:30, 2026-03-30 01:30
gap_and_its_end_become_one | 0 2,3 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:00, 2026-03-30 01:00
hour_range_over_gap | 30 1-3 * * * | Europe/Berlin | 2026-03-28 23:00 | 2026-03-29 00:30, 2026-03-29 01:00, 2026-03-29 01:30, 2026-03-29 23:30
minute_steps_in_the_gaps_hour_become_one | */15 2 * * * | Europe/Berlin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:00
hour_steps_lose_none_to_a_gap | 0 */2 * * * | Europe/Berlin | 2026-03-28 22:30 | 2026-03-28 23:00, 2026-03-29 01:00, 2026-03-29 02:00, 2026-03-29 04:00
every_hour_keeps_real_time_over_gap | 30 * * * * | Europe/Berlin | 2026-03-29 00:00 | 2026-03-29 00:30, 2026-03-29 01:30, 2026-03-29 02:30
asked_from_the_gaps_end | 30 2 * * * | Europe/Berlin | 2026-03-29 01:00 | 2026-03-30 00:30
gap_day_by_weekday | 30 2 * * SUN | Europe/Berlin | 2026-03-25 00:00 | 2026-03-29 01:00, 2026-04-05 00:30
day_after_gap_by_weekday | 30 2 * * MON | Europe/Berlin | 2026-03-28 00:00 | 2026-03-30 00:30, 2026-04-06 00:30
gap_day_by_date | 30 2 29 3 * | Europe/Berlin | 2026-01-01 00:00 | 2026-03-29 01:00, 2027-03-29 00:30
new_york_gap | 30 2 * * * | America/New_York | 2026-03-07 12:00 | 2026-03-08 07:00, 2026-03-09 06:30
new_york_gap_in_2099 | 30 2 * * * | America/New_York | 2099-03-07 12:00 | 2099-03-08 07:00, 2099-03-09 06:30
london_gap | 30 1 * * * | Europe/London | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:30
dublin_gap_with_negative_dst | 15 1 * * * | Europe/Dublin | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-30 00:15
sydney_gap_by_date | 30 2 4 10 * | Australia/Sydney | 2026-01-01 00:00 | 2026-10-03 16:00, 2027-10-03 15:30
chatham_gap_at_quarter_hours | 0 3 * * * | Pacific/Chatham | 2026-09-26 00:00 | 2026-09-26 14:00, 2026-09-27 13:15
troll_gap_of_two_hours_becomes_one | 30 1,2 * * * | Antarctica/Troll | 2026-03-28 12:00 | 2026-03-29 01:00, 2026-03-29 23:30, 2026-03-30 00:30
casablanca_gap_after_ramadan | 30 2 * * * | Africa/Casablanca | 2024-04-13 12:00 | 2024-04-14 02:00, 2024-04-15 01:30
sao_paulo_midnight_gap | 0 0 * * * | America/Sao_Paulo | 2018-11-03 12:00 | 2018-11-04 03:00, 2018-11-05 02:00
sao_paulo_midnight_gap_by_date | 30 0 4 11 * | America/Sao_Paulo | 2018-01-01 00:00 | 2018-11-04 03:00, 2019-11-04 03:30
beirut_midnight_gap | 0 0 * * * | Asia/Beirut | 2026-03-28 00:00 | 2026-03-28 22:00, 2026-03-29 21:00
beirut_midnight_gap_of_hour_steps | 0 */6 * * * | Asia/Beirut | 2026-03-28 17:00 | 2026-03-28 22:00, 2026-03-29 03:00
cairo_midnight_gap | 15 0 * * * | Africa/Cairo | 2024-04-25 00:00 | 2024-04-25 22:00, 2024-04-26 21:15
santiago_midnight_gap_by_weekday | 0 0 * * SUN | America/Santiago | 2026-09-01 00:00 | 2026-09-06 04:00, 2026-09-13 03:00
havana_midnight_gap | 30 0 * * * | America/Havana | 2026-03-07 12:00 | 2026-03-08 05:00, 2026-03-09 04:30
caracas_half_hour_forward_for_good | 45 2 1 5 * | America/Caracas | 2016-04-01 00:00 | 2016-05-01 07:00, 2017-05-01 06:45
pyongyang_gap_up_to_midnight | 45 23 * * * | Asia/Pyongyang | 2018-05-04 00:00 | 2018-05-04 15:00, 2018-05-05 14:45
pyongyang_midnight_after_gap | 0 0 5 5 * | Asia/Pyongyang | 2018-05-01 00:00 | 2018-05-04 15:00, 2019-05-04 15:00
lord_howe_half_hour_gap | 15 2 * * * | Australia/Lord_Howe | 2026-10-03 00:00 | 2026-10-03 15:30, 2026-10-04 15:15
lord_howe_minute_after_gap | 30 2 * * * | Australia/Lord_Howe | 2026-10-03 00:00 | 2026-10-03 15:30, 2026-10-04 15:30
lord_howe_gap_within_an_hours_list | 0,15,45 2 * * * | Australia/Lord_Howe | 2026-10-03 12:00 | 2026-10-03 15:30, 2026-10-03 15:45, 2026-10-04 15:00
lord_howe_every_hour_omits_the_gaps_minute | 15 * * * * | Australia/Lord_Howe | 2026-10-03 14:30 | 2026-10-03 14:45, 2026-10-03 16:15
lord_howe_hourly_omits_the_gaps_first_minute | 0 * * * * | Australia/Lord_Howe | 2026-10-03 14:00 | 2026-10-03 14:30, 2026-10-03 16:00
"""

FOLDS = """
fold_fires_in_the_first_pass | 30 2 * * * | Europe/Berlin | 2026-10-24 00:00 | 2026-10-24 00:30, 2026-10-25 00:30, 2026-10-26 01:30
folds_first_minute | 0 2 * * * | Europe/Berlin | 2026-10-24 12:00 | 2026-10-25 00:00, 2026-10-26 01:00
folds_last_minute | 59 2 * * * | Europe/Berlin | 2026-10-24 12:00 | 2026-10-25 00:59, 2026-10-26 01:59
minute_after_fold_fires_once | 0 3 * * * | Europe/Berlin | 2026-10-24 12:00 | 2026-10-25 02:00, 2026-10-26 02:00
hour_before_fold_fires_once | 30 1 * * * | Europe/Berlin | 2026-10-24 12:00 | 2026-10-24 23:30, 2026-10-26 00:30
asked_between_the_passes | 30 2 * * * | Europe/Berlin | 2026-10-25 00:45 | 2026-10-26 01:30
asked_within_the_second_pass | 45 2 * * * | Europe/Berlin | 2026-10-25 01:15 | 2026-10-26 01:45
minute_steps_in_the_folds_hour_fire_once | */15 2 * * * | Europe/Berlin | 2026-10-24 12:00 | 2026-10-25 00:00, 2026-10-25 00:15, 2026-10-25 00:30, 2026-10-25 00:45, 2026-10-26 01:00
hour_steps_fire_once_in_a_fold | 0 */2 * * * | Europe/Berlin | 2026-10-24 21:30 | 2026-10-24 22:00, 2026-10-25 00:00, 2026-10-25 03:00, 2026-10-25 05:00
every_hour_fires_in_both_passes | 30 * * * * | Europe/Berlin | 2026-10-25 00:00 | 2026-10-25 00:30, 2026-10-25 01:30, 2026-10-25 02:30
all_24_hours_spelled_out_fire_in_both_passes | 0 0-23 * * * | Europe/Berlin | 2026-10-24 23:30 | 2026-10-25 00:00, 2026-10-25 01:00, 2026-10-25 02:00
new_york_fold | 30 1 * * * | America/New_York | 2026-10-31 12:00 | 2026-11-01 05:30, 2026-11-02 06:30
new_york_folds_first_minute | 0 1 * * * | America/New_York | 2026-10-31 12:00 | 2026-11-01 05:00, 2026-11-02 06:00
london_fold | 30 1 * * * | Europe/London | 2026-10-24 12:00 | 2026-10-25 00:30, 2026-10-26 01:30
dublin_fold_with_negative_dst | 15 1 * * * | Europe/Dublin | 2026-10-24 12:00 | 2026-10-25 00:15, 2026-10-26 01:15
chatham_fold_at_quarter_hours | 0 3 * * * | Pacific/Chatham | 2026-04-04 00:00 | 2026-04-04 13:15, 2026-04-05 14:15
troll_fold_of_two_hours | 30 2 * * * | Antarctica/Troll | 2026-10-24 12:00 | 2026-10-25 00:30, 2026-10-26 02:30
troll_every_hour_over_fold | 30 * * * * | Antarctica/Troll | 2026-10-25 00:00 | 2026-10-25 00:30, 2026-10-25 01:30, 2026-10-25 02:30
casablanca_fold_before_ramadan | 30 2 * * * | Africa/Casablanca | 2024-03-09 12:00 | 2024-03-10 01:30, 2024-03-11 02:30
moscow_back_for_good | 30 1 * * * | Europe/Moscow | 2014-10-25 12:00 | 2014-10-25 21:30, 2014-10-26 22:30
sao_paulo_fold_before_midnight | 30 23 * * * | America/Sao_Paulo | 2018-02-17 12:00 | 2018-02-18 01:30, 2018-02-19 02:30
sao_paulo_midnight_after_fold | 0 0 * * * | America/Sao_Paulo | 2018-02-17 12:00 | 2018-02-18 03:00, 2018-02-19 03:00
sao_paulo_every_hour_of_the_folds_day | 30 * 17 2 * | America/Sao_Paulo | 2018-02-18 00:00 | 2018-02-18 00:30, 2018-02-18 01:30, 2018-02-18 02:30, 2019-02-17 03:30
beirut_fold_before_midnight | 30 23 * * * | Asia/Beirut | 2026-10-24 12:00 | 2026-10-24 20:30, 2026-10-25 21:30
cairo_fold_by_date | 0 23 31 10 * | Africa/Cairo | 2024-10-01 00:00 | 2024-10-31 20:00, 2025-10-31 21:00
havana_fold_after_midnight | 0 0 * * * | America/Havana | 2025-11-01 12:00 | 2025-11-02 04:00, 2025-11-03 05:00
havana_every_hour_of_the_folds_day | 0 * 2 11 * | America/Havana | 2025-11-02 03:30 | 2025-11-02 04:00, 2025-11-02 05:00, 2025-11-02 06:00
lord_howe_half_hour_fold | 45 1 * * * | Australia/Lord_Howe | 2026-04-04 00:00 | 2026-04-04 14:45, 2026-04-05 15:15
lord_howe_every_hour_over_fold | 45 * * * * | Australia/Lord_Howe | 2026-04-04 14:00 | 2026-04-04 14:45, 2026-04-04 15:15, 2026-04-04 16:15
lord_howe_half_hours_over_fold | */30 * * * * | Australia/Lord_Howe | 2026-04-04 14:20 | 2026-04-04 14:30, 2026-04-04 15:00, 2026-04-04 15:30
st_johns_fold_over_midnight_late_evening | 30 23 * * * | America/St_Johns | 2010-11-06 12:00 | 2010-11-07 02:00, 2010-11-08 03:00
st_johns_fold_over_midnight_midnight | 0 0 * * * | America/St_Johns | 2010-11-06 12:00 | 2010-11-07 02:30, 2010-11-08 03:30
st_johns_every_hour_of_the_repeated_day | 0,30 * 6 11 * | America/St_Johns | 2010-11-07 01:15 | 2010-11-07 01:30, 2010-11-07 02:00, 2010-11-07 03:00, 2011-11-06 02:30
st_johns_every_hour_shows_midnight_twice | 0 * * * * | America/St_Johns | 2010-11-07 02:00 | 2010-11-07 02:30, 2010-11-07 03:30, 2010-11-07 04:30
"""

# Apia left out 2011-12-30 (a Friday) at 10:00 UTC, Kwajalein 1993-08-21 at 12:00 UTC.
SKIPPED_DAYS = """
apia_daily_runs_at_the_skipped_days_end | 0 9 * * * | Pacific/Apia | 2011-12-29 00:00 | 2011-12-29 19:00, 2011-12-30 10:00, 2011-12-30 19:00
apia_monthly_on_the_skipped_date | 0 0 30 * * | Pacific/Apia | 2011-12-01 00:00 | 2011-12-30 10:00, 2012-01-29 10:00
apia_weekly_on_the_skipped_weekday | 0 9 * * FRI | Pacific/Apia | 2011-12-28 00:00 | 2011-12-30 10:00, 2012-01-05 19:00
apia_midnight_becomes_one_with_the_next_days | 0 0 * * * | Pacific/Apia | 2011-12-29 12:00 | 2011-12-30 10:00, 2011-12-31 10:00
apia_day_after_is_itself | 0 0 31 12 * | Pacific/Apia | 2011-12-01 00:00 | 2011-12-30 10:00, 2012-12-30 10:00
apia_hourly_keeps_real_time | 0 * * * * | Pacific/Apia | 2011-12-30 08:30 | 2011-12-30 09:00, 2011-12-30 10:00, 2011-12-30 11:00
apia_every_hour_of_the_skipped_date_never_shows | 0 * 30 12 * | Pacific/Apia | 2011-12-29 10:00 | 2012-12-29 10:00, 2012-12-29 11:00
kwajalein_daily | 0 12 * * * | Pacific/Kwajalein | 1993-08-20 00:00 | 1993-08-21 00:00, 1993-08-21 12:00, 1993-08-22 00:00
"""

OFFSETS = """
weekdays_nine_oclock_over_dst | 0 9 * * 1-5 | America/New_York | 2026-03-06 00:00 | 2026-03-06 14:00, 2026-03-09 13:00
kathmandu_midnight | 0 0 * * * | Asia/Kathmandu | 2026-01-01 00:00 | 2026-01-01 18:15, 2026-01-02 18:15
kolkata_is_utc_midnight | 30 5 * * * | Asia/Kolkata | 2026-01-01 00:00 | 2026-01-02 00:00
kiritimati_new_year | 0 0 1 1 * | Pacific/Kiritimati | 2025-06-01 00:00 | 2025-12-31 10:00, 2026-12-31 10:00
pago_pago_last_minute_of_the_year | 59 23 31 12 * | Pacific/Pago_Pago | 2025-06-01 00:00 | 2026-01-01 10:59, 2027-01-01 10:59
tokyo_new_year | 0 0 1 1 * | Asia/Tokyo | 2026-01-01 00:00 | 2026-12-31 15:00
tokyo_leap_day_begins_the_utc_day_before | 0 0 29 2 * | Asia/Tokyo | 2026-01-01 00:00 | 2028-02-28 15:00, 2032-02-28 15:00
"""

CALENDAR = """
leap_day | 0 0 29 2 * | UTC | 2024-02-29 00:00 | 2028-02-29 00:00, 2032-02-29 00:00
leap_day_over_2100 | 0 0 29 2 * | UTC | 2096-02-29 00:00 | 2104-02-29 00:00
leap_day_on_a_monday | 0 0 29 2 1 | UTC | 2026-01-01 00:00 | 2044-02-29 00:00, 2072-02-29 00:00, 2112-02-29 00:00
end_of_february | 0 0 28-31 2 * | UTC | 2026-01-01 00:00 | 2026-02-28 00:00, 2027-02-28 00:00, 2028-02-28 00:00, 2028-02-29 00:00
the_31st | 0 0 31 * * | UTC | 2026-01-31 00:00 | 2026-03-31 00:00, 2026-05-31 00:00, 2026-07-31 00:00, 2026-08-31 00:00, 2026-10-31 00:00
the_30th_leaves_february_out | 0 0 30 * * | UTC | 2026-01-30 00:00 | 2026-03-30 00:00, 2026-04-30 00:00
the_29th_of_a_common_year | 0 0 29 * * | UTC | 2026-01-29 00:00 | 2026-03-29 00:00
the_29th_of_a_leap_year | 0 0 29 * * | UTC | 2028-01-29 00:00 | 2028-02-29 00:00, 2028-03-29 00:00
some_months_lack_the_day | 0 0 31 4,5 * | UTC | 2026-01-01 00:00 | 2026-05-31 00:00, 2027-05-31 00:00
fridays_the_13th | 0 0 13 * 5 | UTC | 2026-01-01 00:00 | 2026-02-13 00:00, 2026-03-13 00:00, 2026-11-13 00:00, 2027-08-13 00:00
first_mondays | 0 9 1-7 * MON | UTC | 2026-01-01 00:00 | 2026-01-05 09:00, 2026-02-02 09:00, 2026-03-02 09:00
sundays_that_are_a_1st_or_15th | 0 0 1,15 * 0 | UTC | 2026-01-01 00:00 | 2026-02-01 00:00, 2026-02-15 00:00, 2026-03-01 00:00, 2026-03-15 00:00
seven_is_sunday | 0 0 * * 7 | UTC | 2026-01-01 00:00 | 2026-01-04 00:00, 2026-01-11 00:00
friday_to_sunday | 0 12 * * 5-7 | UTC | 2026-01-01 00:00 | 2026-01-02 12:00, 2026-01-03 12:00, 2026-01-04 12:00, 2026-01-09 12:00
weekday_from_a_step_runs_to_sunday | 0 0 * * 5/2 | UTC | 2026-01-01 00:00 | 2026-01-02 00:00, 2026-01-04 00:00, 2026-01-09 00:00
steps_start_anew_each_hour | */7 * * * * | UTC | 2026-01-01 00:50 | 2026-01-01 00:56, 2026-01-01 01:00, 2026-01-01 01:07
step_from_a_value_runs_to_the_end | 5/10 * * * * | UTC | 2026-01-01 00:40 | 2026-01-01 00:45, 2026-01-01 00:55, 2026-01-01 01:05
step_within_a_range | 1-10/3 0 * * * | UTC | 2026-01-01 00:00 | 2026-01-01 00:01, 2026-01-01 00:04, 2026-01-01 00:07, 2026-01-01 00:10, 2026-01-02 00:01
hours_over_midnight | 0 22-23,0-2 * * * | UTC | 2026-01-01 20:00 | 2026-01-01 22:00, 2026-01-01 23:00, 2026-01-02 00:00, 2026-01-02 01:00, 2026-01-02 02:00, 2026-01-02 22:00
months_by_name_and_step | 0 0 1 JAN-MAR/2 * | UTC | 2026-01-15 00:00 | 2026-03-01 00:00, 2027-01-01 00:00
strictly_after_itself | 0 0 1 1 * | UTC | 2026-01-01 00:00 | 2027-01-01 00:00
last_minute_of_the_year | 59 23 31 12 * | UTC | 2026-01-01 00:00 | 2026-12-31 23:59, 2027-12-31 23:59
weekly_macro | @weekly | UTC | 2026-01-01 00:00 | 2026-01-04 00:00, 2026-01-11 00:00
"""


def _cases() -> list[object]:
    lines = (GAPS + FOLDS + SKIPPED_DAYS + OFFSETS + CALENDAR).strip().splitlines()
    split = [[part.strip() for part in line.split("|")] for line in lines if line]
    return [pytest.param(*parts, id=name) for name, *parts in split]


def _utc(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


@pytest.mark.parametrize(("expression", "zone", "after", "expected"), _cases())
def test_next_instants(expression: str, zone: str, after: str, expected: str) -> None:
    cadence = CronCadence.parse(expression, zone)
    instants = [_utc(text.strip()) for text in expected.split(",")]
    walked: list[datetime | None] = []
    at: datetime | None = _utc(after)
    for _ in instants:
        at = cadence.next_after(at) if at else None
        walked.append(at)
    assert walked == instants
    start = _utc(after) + timedelta(microseconds=1)
    assert cadence.between(start, instants[-1], limit=len(instants) + 1) == instants
    assert [cadence.matches(instant) for instant in instants] == [True] * len(instants)


def test_instants_are_aware_utc_of_whole_minutes() -> None:
    cadence = CronCadence.parse("* * * * *", "Asia/Kolkata")
    found = cadence.next_after(datetime(2026, 1, 1, 12, 0, 30, 999_999, tzinfo=UTC))
    assert found == datetime(2026, 1, 1, 12, 1, tzinfo=UTC)
    assert found is not None
    assert found.tzinfo is UTC


def test_between_holds_both_ends() -> None:
    cadence = CronCadence.parse("0 * * * *", "UTC")
    start, end = _utc("2026-01-01 00:00"), _utc("2026-01-01 02:00")
    assert cadence.between(start, end, limit=9) == [start, _utc("2026-01-01 01:00"), end]


def test_between_keeps_the_oldest_of_too_many() -> None:
    cadence = CronCadence.parse("0 * * * *", "UTC")
    start = _utc("2026-01-01 00:30")
    assert cadence.between(start, _utc("2026-02-01 00:00"), limit=2) == [
        _utc("2026-01-01 01:00"),
        _utc("2026-01-01 02:00"),
    ]


def test_between_with_the_end_first_is_empty() -> None:
    cadence = CronCadence.parse("* * * * *", "UTC")
    assert cadence.between(_utc("2026-01-02 00:00"), _utc("2026-01-01 00:00"), limit=9) == []


@pytest.mark.parametrize(
    "instant",
    [
        datetime(2026, 3, 29, 0, 30, tzinfo=UTC),  # 01:30 in Berlin
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),  # the second 02:30
        datetime(2026, 6, 1, 0, 30, 1, tzinfo=UTC),
        datetime(2026, 6, 1, 0, 30, 0, 1, tzinfo=UTC),
    ],
)
def test_other_instants_do_not_match(instant: datetime) -> None:
    assert not CronCadence.parse("30 2 * * *", "Europe/Berlin").matches(instant)


def test_an_instant_matches_in_any_zone() -> None:
    cadence = CronCadence.parse("30 2 * * *", "Europe/Berlin")
    assert cadence.matches(datetime(2026, 6, 1, 9, 30, tzinfo=timezone(timedelta(hours=9))))


def test_instants_begin_in_1970() -> None:
    cadence = CronCadence.parse("* * * * *", "Asia/Tokyo")
    assert cadence.next_after(datetime.min.replace(tzinfo=UTC)) == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("after", ["9998-12-31 23:59", "9999-12-31 23:59"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_instants_end_with_9998(after: str, zone: str) -> None:
    assert CronCadence.parse("* * * * *", zone).next_after(_utc(after)) is None


def test_ten_thousand_instants_are_each_minute_once() -> None:
    start = _utc("2026-03-25 00:00")
    found = CronCadence.parse("* * * * *", "Europe/Berlin").between(
        start, _utc("2027-01-01 00:00"), limit=10_000
    )
    assert found == [start + timedelta(minutes=n) for n in range(10_000)]


@pytest.mark.parametrize("method", ["next_after", "matches"])
def test_naive_instants_are_refused(method: str) -> None:
    cadence = CronCadence.parse("* * * * *", "UTC")
    with pytest.raises(ValueError, match="is naive"):
        getattr(cadence, method)(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


def test_naive_bounds_are_refused() -> None:
    cadence = CronCadence.parse("* * * * *", "UTC")
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="is naive"):
        cadence.between(naive, _utc("2026-01-02 00:00"), limit=1)
    with pytest.raises(ValueError, match="is naive"):
        cadence.between(_utc("2026-01-01 00:00"), naive, limit=1)
