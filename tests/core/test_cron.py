"""When a schedule is due: zones, clocks put forward and back, what is missed and what is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import cron
from reconciler.core.cron import LATE_SECONDS, Look

BERLIN = "CRON_TZ=Europe/Berlin "


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def ticks(expression: str, start: float, end: float) -> list[str]:
    """What somebody who looks when told to gets to see, in UTC."""
    schedule = cron.schedule(expression, key="a")
    assert schedule is not None
    found = []
    now = start
    while True:
        look = schedule.look(since=start, now=now)
        if look.tick is not None and not look.is_missed:
            found.append(datetime.fromtimestamp(look.tick, UTC).strftime("%d %H:%M"))
            start = look.tick
        if look.again_at > end:
            return found
        now = look.again_at


def test_no_expression_is_no_schedule():
    assert cron.schedule("  ", key="a") is None


def test_without_a_zone_times_are_utc():
    start = at("2026-03-01T00:00")
    assert ticks("0 6,18 * * *", start, start + 86400) == ["01 06:00", "01 18:00"]


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        pytest.param("0 6 * * *", "2026-03-28T12:00", ["29 04:00"], id="the summer time is kept"),
        pytest.param(
            "30 2 * * *",
            "2026-03-28T12:00",
            ["29 01:00"],
            id="what falls into the hour that is left out is due at its end",
        ),
        pytest.param(
            "30 2 * * *",
            "2026-10-24T12:00",
            ["25 00:30"],
            id="the hour that comes twice counts once",
        ),
        pytest.param(
            "*/30 2 * * *",
            "2026-10-24T12:00",
            ["25 00:00", "25 00:30", "25 01:00", "25 01:30"],
            id="what runs all the time runs in both",
        ),
    ],
)
def test_clocks_are_put_forward_and_back(expression: str, start: str, expected: list[str]):
    begin = at(start, "Europe/Berlin")
    assert ticks(BERLIN + expression, begin, begin + 86400) == expected


def test_a_tick_is_seen_from_its_second_on_and_once():
    schedule = cron.schedule("0 * * * *", key="a")
    noon = at("2026-03-01T12:00")
    assert schedule is not None
    assert schedule.look(since=noon - 9, now=noon - 0.001) == Look(None, False, noon)
    assert schedule.look(since=noon - 9, now=noon) == Look(noon, False, noon + 3600)
    assert schedule.look(since=noon, now=noon + 1) == Look(None, False, noon + 3600)


def test_what_is_too_late_is_missed_and_a_deadline_reaches_back():
    noon = at("2026-03-01T12:00")
    plain = cron.schedule("0 * * * *", key="a")
    patient = cron.schedule("0 * * * *", key="a", starting_deadline=1800)
    assert plain is not None
    assert patient is not None
    for schedule, late, is_missed in (
        (plain, LATE_SECONDS, False),
        (plain, LATE_SECONDS + 1, True),
        (patient, 1800, False),
        (patient, 1801, True),
    ):
        look = schedule.look(since=noon - 7000, now=noon + late)
        assert (look.tick, look.is_missed) == (noon, is_missed)


def test_a_clock_that_is_put_back_brings_no_tick_again():
    schedule = cron.schedule("0 * * * *", key="a")
    noon = at("2026-03-01T12:00")
    assert schedule is not None
    assert schedule.look(since=noon, now=noon - 1800) == Look(None, False, noon + 3600)


def test_jitter_is_always_the_same_for_one_and_spreads_many():
    delays = {
        it.delay
        for number in range(200)
        if (it := cron.schedule("0 * * * *", key=str(number), jitter=60))
    }
    assert len(delays) == 200
    assert min(delays) < 6
    assert 54 < max(delays) < 60
    schedule = cron.schedule("0 * * * *", key="a", jitter=60)
    again = cron.schedule("0 * * * *", key="a", jitter=60)
    noon = at("2026-03-01T12:00")
    assert schedule == again
    assert schedule is not None
    assert schedule.look(since=noon - 9, now=noon) == Look(None, False, noon + schedule.delay)
    assert schedule.look(since=noon - 9, now=noon + schedule.delay).tick == noon


@given(
    expression=st.sampled_from(
        ["* * * * *", "*/7 * * * *", "0 3 * * *", "15 10 1 * *", "0 0 29 2 *", "5 4 * * 1-5"]
    ),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - hypothesis wants them so
    waited=st.floats(0, 90_000),
)
def test_no_tick_is_before_what_was_decided_and_none_after_now(
    expression: str, zone: str, start: datetime, waited: float
):
    schedule = cron.schedule(f"CRON_TZ={zone} {expression}", key="a", starting_deadline=100_000)
    since = start.replace(tzinfo=UTC).timestamp()
    now = since + waited
    assert schedule is not None
    look = schedule.look(since=since, now=now)
    assert look.tick is None or since < look.tick <= now
    assert look.again_at > now
    if look.tick is not None:
        # Nothing lies between: it is the newest.
        assert schedule.look(since=look.tick, now=now).tick is None
        assert schedule.look(since=look.tick, now=now).again_at == look.again_at


def test_a_tick_that_comes_once_in_years_is_found():
    schedule = cron.schedule("0 0 29 2 *", key="a")
    assert schedule is not None
    now = at("2024-03-01T00:00")
    assert schedule.look(since=now, now=now).again_at == at("2028-02-29T00:00")
    assert timedelta(seconds=schedule.look(since=now, now=now).again_at - now).days > 1400
