"""The views in docs/sql return the rows that Python computes, in Postgres and in DuckDB."""

# ruff: noqa: S608 - the SQL contains no user input

import re
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import views
from environments import Install
from pages import ROOT, block
from postgres import Postgres
from targets import loader, pipe, query_duckdb
from times import wall_time
from views import (
    CALL,
    FILES,
    HOUR,
    LEG,
    MELBOURNE,
    ODD_LEGS,
    RUN_FILE,
    Call,
    Database,
    bookmark,
    leg_row,
    row_values,
)

from tap_noojee.simulator import Leg, Simulator

pytestmark = pytest.mark.slow

pytest_plugins = ["environments", "views"]

QUARTER, WEEK = timedelta(minutes=15), timedelta(days=7)
READ_UNTIL = "2021-04-11T14:00:00+00:00"
WIDE_PERIOD = (datetime(2021, 1, 20, tzinfo=UTC), datetime(2021, 4, 20, tzinfo=UTC))
"""A period that includes `views.PERIOD` in every time zone."""
OUTAGE = [f"2021-03-23T{hour:02}" for hour in range(9, 13)]
# The view must leave out an hour at night and two unread hours.
UNLISTED = ["2021-03-23T02", "2021-03-10T10", "2021-03-10T13"]


def wall_hour(instant: datetime, zone: str = MELBOURNE) -> datetime:
    return wall_time(instant, ZoneInfo(zone)).replace(minute=0, second=0, microsecond=0)


def wall_day(instant: datetime) -> datetime:
    return wall_hour(instant).replace(hour=0)


def quarters(start: datetime, end: datetime) -> list[datetime]:
    return [start + n * QUARTER for n in range((end - start) // QUARTER)]


def test_legs_view_has_utc_times_and_null_for_empty_strings(db: Database, legs: list[Leg]) -> None:
    db.check(LEG, "legs", map(leg_row, legs))


def test_calls_view_combines_legs_with_the_same_unique_id(db: Database, calls: list[Call]) -> None:
    db.check(CALL, "calls", map(tuple, calls))
    seconds = {call.unique_id: (call.recorded_seconds, call.elapsed_seconds) for call in calls}
    assert (seconds["1.1"], seconds["1.2"]) == ((2040, 600), (90, 3660))


@pytest.mark.parametrize("zone", [MELBOURNE, "Australia/Lord_Howe", "Europe/London"])
def test_calls_are_counted_by_wall_clock_hour(db: Database, calls: list[Call], zone: str) -> None:
    def hour_and_offset(instant: datetime) -> tuple[datetime, str]:
        offset = str(instant.astimezone(ZoneInfo(zone)).utcoffset())
        return wall_hour(instant, zone), offset.rjust(8, "0")

    counts = Counter(hour_and_offset(call.started_at) for call in calls)
    first, last = min(counts)[0].date(), max(counts)[0].date()
    keys = {hour_and_offset(quarter) for quarter in quarters(*WIDE_PERIOD)}
    rows = [(*key, counts[key]) for key in keys if first <= key[0].date() <= last]
    with db.changed(MELBOURNE, zone):
        db.check("local_hour, utc_offset, calls", "calls_by_hour", rows)


def test_calls_by_weekday_adds_up_calls_by_hour(db: Database) -> None:
    calls, hours = Counter[Any](), Counter[Any]()
    for local_hour, count in row_values(db.query("SELECT local_hour, calls FROM calls_by_hour")):
        calls[local_hour.isoweekday(), local_hour.hour] += count
        hours[local_hour.isoweekday(), local_hour.hour] += 1
    assert len(hours) == 168
    rows = [(*key, calls[key], hours[key]) for key in hours]
    db.check("weekday, hour, calls, hours", "calls_by_weekday", rows)


def test_calls_are_counted_by_user_for_each_day(db: Database, legs: list[Leg]) -> None:
    users = defaultdict(list)
    for leg in legs:
        users[wall_day(leg.start), leg.username or None].append(leg)
    rows = []
    for key, group in users.items():
        recorded = sum((leg.callend - leg.start).seconds for leg in group)
        rows.append((*key, len({leg.unique_id for leg in group} - {""}), len(group), recorded))
    db.check("local_day, username, calls, legs, recorded_seconds", "calls_by_user", rows)


@pytest.mark.parametrize("column", ["did", "direction"])
def test_calls_are_counted_by_did_or_direction_for_each_day(
    db: Database, calls: list[Call], column: str
) -> None:
    groups = defaultdict(list)
    for call in calls:
        groups[wall_day(call.started_at), getattr(call, column)].append(call.elapsed_seconds)
    rows = [(*key, len(lengths), sum(lengths)) for key, lengths in groups.items()]
    view = {"did": "calls_by_did", "direction": "calls_by_direction"}[column]
    db.check(f"local_day, {column}, calls, elapsed_seconds", view, rows)


def test_call_lengths_are_counted_and_long_calls_listed(db: Database, calls: list[Call]) -> None:
    lengths = [call.elapsed_seconds for call in calls]
    bands = row_values(db.query("SELECT from_seconds, below_seconds FROM call_lengths"))
    rows = [
        (first, below, sum(first <= length < (below or 10**9) for length in lengths))
        for first, below in bands
    ]
    assert sum(count for _, _, count in rows) == len(calls)
    db.check("from_seconds, below_seconds, calls", "call_lengths", rows)
    db.check(CALL, "long_calls", [tuple(call) for call in calls if call.elapsed_seconds >= 1800])


def test_repeat_callers_have_more_than_one_inbound_call(db: Database, calls: list[Call]) -> None:
    times = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.started_at):
        if call.direction == "Inbound":
            times[call.source].append(call.started_at)
    rows = []
    for source, starts in times.items():
        within_a_day = sum(b - a <= 24 * HOUR for a, b in pairwise(starts))
        if len(starts) > 1:
            rows.append((source, len(starts), within_a_day, starts[0], starts[-1]))
    columns = "source, calls, calls_within_a_day, first_call, last_call"
    db.check(columns, "repeat_callers", rows)


def test_calls_by_tag_has_a_row_for_each_tag_and_call(
    db: Database, legs: list[Leg], calls: list[Call]
) -> None:
    tags = {(leg.unique_id, leg.tag) for leg in legs if leg.tag}
    by_id = {call.unique_id: call for call in calls}
    rows = [(tag, *by_id[unique_id]) for unique_id, tag in tags if unique_id]
    db.check(f"tag, {CALL}", "calls_by_tag", rows)


def test_recordings_near_deletion_are_deleted_within_a_week(db: Database, legs: list[Leg]) -> None:
    # The legs of MONDAY are due for deletion in two to three days.
    retention = timedelta(days=(datetime.now(UTC) - views.MONDAY).days + 3)
    with db.changed("90 AS", f"{retention.days} AS"):
        query = f"SELECT now(), deletion_at, {LEG} FROM recordings_near_deletion"
        found = sorted(row_values(db.query(query)), key=repr)
    now = found[0][0]
    ends = [(leg.callend + retention, leg) for leg in legs]
    rows = [(now, end, *leg_row(leg)) for end, leg in ends if now <= end <= now + WEEK]
    assert found == sorted(rows, key=repr)


@pytest.mark.parametrize(
    ("zone", "until", "listed"),
    [
        (MELBOURNE, READ_UNTIL, dict.fromkeys(OUTAGE, True) | dict.fromkeys(UNLISTED, False)),
        # The bookmark's value was set back, so the hours of the outage count as unread.
        (MELBOURNE, "2021-03-20T13:00:00+00:00", dict.fromkeys(OUTAGE, False)),
        # Clocks skip this hour, which is usually busy.
        ("America/New_York", READ_UNTIL, {"2021-03-14T02": False}),
        # Clocks repeat the hour of the outage, which is listed as one hour.
        ("America/Asuncion", READ_UNTIL, {"2021-03-27T23": True}),
    ],
)
def test_hours_without_calls_were_read_and_are_usually_busy(
    db: Database, legs: list[Leg], zone: str, until: str, listed: dict[str, bool]
) -> None:
    db.save(bookmark(until, zone))
    read_until = wall_time(datetime.fromisoformat(until), ZoneInfo(zone))
    read = {
        hour
        for hour in {wall_hour(quarter, zone) for quarter in quarters(*WIDE_PERIOD)}
        for span in views.HOURS_READ
        if span["from"] <= hour.isoformat() < span["to"] and hour + HOUR <= read_until
    }
    counts = Counter(wall_hour(leg.callend, zone) for leg in legs)
    rows = []
    for hour in read:
        before = [counts[h] for h in (hour - n * WEEK for n in range(1, 9)) if h in read]
        busy = sum(count > 0 for count in before)
        if busy >= 5 and not counts[hour]:
            rows.append((hour, len(before), busy))
    db.check("local_hour, weeks_read, weeks_with_calls", "hours_without_calls", rows)
    hours = {hour.isoformat()[:13] for hour, _, _ in rows}
    assert {hour: hour in hours for hour in listed} == listed


@pytest.mark.parametrize("extra_hours", [0, 30])
def test_freshness_counts_the_hours_that_are_due_and_unread(
    db: Database, legs: list[Leg], extra_hours: int
) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    until = now - 5 * HOUR
    first, gap_start, gap_end, end = (wall_hour(now - n * HOUR) for n in (240, 140, 130, 5))
    spans = [(first, gap_start), (gap_end, end)]
    read = [{"from": a.isoformat()[:16], "to": b.isoformat()[:16]} for a, b in spans]
    db.save(bookmark(until.isoformat(), hours_read=read))
    missing_since = first - extra_hours * HOUR
    default = "NULL::timestamp AS missing_since"
    new = f"TIMESTAMP '{missing_since}' AS missing_since" if extra_hours else default
    columns = "now(), read_until, hours_missing, days_left, last_leg_ended_at"
    with db.changed(default, new):
        ((queried_at, *found),) = row_values(db.query(f"SELECT {columns} FROM freshness"))
    period = quarters(now - 300 * HOUR, queried_at + HOUR)
    ends = {wall_hour(quarter): quarter + QUARTER for quarter in period}
    due = {hour for hour, ended in ends.items() if ended <= queried_at - timedelta(minutes=5)}
    missing = len([h for h in due if h >= missing_since and not any(a <= h < b for a, b in spans)])
    newest = max(leg.callend for leg in legs)
    assert found == [until, missing, pytest.approx(missing / 1440), newest]
    # Ten hours are in the gap, and about five came after `until`.
    assert 10 + extra_hours < missing < 20 + extra_hours


def test_freshness_has_the_last_success_and_failure(
    postgres: Database, warehouse: Postgres
) -> None:
    postgres.save(bookmark(READ_UNTIL))
    for run in ("SUCCESS 08", "SUCCESS 10", "FAIL 05", "DEAD 07", "STATE_EDIT 12", "RUNNING 13"):
        status, hour = run.split()
        values = f"'pbx', '{status}', '2021-04-12 {hour}:00'"
        warehouse.execute(f"INSERT INTO runs (job_name, state, ended_at) VALUES ({values})")
    success, failure = (datetime(2021, 4, 12, hour, tzinfo=UTC) for hour in (10, 7))
    postgres.check("last_success, last_failure", "freshness", [(success, failure)])
    with postgres.changed("'%' AS state_id_pattern", "'other%' AS state_id_pattern"):
        postgres.check("*", "freshness", [])


def test_saved_state_is_used_if_meltano_has_another_database(
    warehouse: Postgres, tmp_path: Path
) -> None:
    elsewhere = views.create_database(warehouse, "elsewhere")
    views.fill_postgres(elsewhere, ODD_LEGS)
    commands = block(views.PAGE, "saved_state", "sh")
    (copy,) = re.findall(r"^psql .*saved_state.*$", commands, re.MULTILINE)
    for until in (READ_UNTIL, "2021-04-11T15:00:00+00:00"):
        views.run(elsewhere, RUN_FILE)
        (tmp_path / "state.json").write_text(views.state(bookmark(until)) + "\n")
        views.run(elsewhere, copy, cwd=tmp_path)
    assert elsewhere.query(
        "SELECT extract(hour FROM read_until AT TIME ZONE 'UTC') FROM freshness"
    ) == [(15,)]
    # If Meltano's tables exist, the views read those instead.
    elsewhere.execute(views.MELTANO_TABLES)
    views.run(elsewhere, RUN_FILE)
    assert elsewhere.query("SELECT * FROM freshness") == []


def test_both_sql_files_define_the_same_views() -> None:
    first, second = (text.partition("-- From here on")[2] for text in FILES.values())
    assert first == second
    assert "VIEW freshness" in first


def test_page_names_each_view_and_its_queries_return_rows(db: Database) -> None:
    db.save(bookmark(READ_UNTIL))
    text = (ROOT / views.PAGE).read_text("utf-8")
    assert all(map(db.query, re.findall(r"```sql\n(SELECT.*?);\n```", text, re.DOTALL)))
    names = set(re.findall(r"VIEW (\w+)", FILES[db.name])) - {"states", "hour_ranges"}
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("chart", ["volume", "weekdays", "lengths"])
def test_chart_shows_the_result_of_its_query(db: Database, chart: str) -> None:
    """Bar heights and square opacities scale with the query's last column."""
    text = (ROOT / views.PAGE).read_text("utf-8")
    (sql,) = re.findall(rf"```sql\n([^`]*);\n```\n\n!\[.*\]\({chart}.svg", text)
    svg = (ROOT / "docs" / f"{chart}.svg").read_text("utf-8")
    drawn = re.findall(r'<rect .*\b(?:height|fill-opacity)="([\d.]+)"', svg)
    values = [list(row.values())[-1] for row in db.query(sql)]

    def normalize(sizes: list[float]) -> list[float]:
        """Scale sizes linearly, from 0 for the smallest to 1 for the largest."""
        least, most = min(sizes), max(sizes)
        return [(size - least) / (most - least) for size in sizes]

    assert normalize([*map(float, drawn)]) == pytest.approx(normalize(values), abs=0.02)


def test_views_work_on_rows_from_target_duckdb(install: Install, tmp_path: Path) -> None:
    plugin = loader("target-duckdb")
    program, config = install(plugin), plugin["config"]
    with Simulator(legs=ODD_LEGS) as pbx:
        dates: dict[str, Any] = {"start_date": "2021-04-05", "end_date": "2021-04-06"}
        pipe(tmp_path, program, config, pbx, **dates)
    query = partial(query_duckdb, program, tmp_path / config["path"])
    db = Database("duckdb", query, lambda _: None)
    db.query(FILES["duckdb"], "SELECT 1")
    db.check(LEG, "legs", map(leg_row, ODD_LEGS))
