"""The SQL files and docs/analysis.md, run in Postgres and DuckDB and held to Python's figures."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pictures
import pytest
import yaml
from conftest import truth
from pages import ROOT, block
from postgres import serve
from targets import loader, pipe, query_duckdb, query_postgres
from uv import find_uv_bin

from tap_noojee.simulator import Leg, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from environments import Install
    from postgres import Postgres
    from projects import Project

    Row = dict[str, Any]

# Each database is filled once, by one worker.
pytestmark = pytest.mark.slow

pytest_plugins = ["environments", "projects"]

PAGE = "docs/analysis.md"
FILES = {f.stem: f.read_text("utf-8") for f in (ROOT / "docs" / "sql").glob("*.sql")}
HOUR, QUARTER, WEEK = timedelta(hours=1), timedelta(minutes=15), timedelta(days=7)
MELBOURNE = "Australia/Melbourne"
PERIOD = ("2021-01-25", "2021-04-12")
"""Summer time ends on its last Sunday but one."""
MONDAY = datetime(2021, 4, 4, 20, tzinfo=UTC)
ODD = [
    # Recording was restarted during the call, so its legs overlap.
    *(
        Leg(MONDAY + timedelta(minutes=n), MONDAY + timedelta(minutes=10), "a", n + 1, "1.1")
        for n in range(4)
    ),
    # The call was on hold, and not recorded, between its legs.
    Leg(MONDAY, MONDAY + timedelta(seconds=30), "b", 1, "1.2", "Outbound", "O'Brien", did=""),
    Leg(MONDAY + HOUR, MONDAY + timedelta(seconds=3660), "b", 2, "1.2", "Internal", tag="sales"),
    # A leg without a call.
    Leg(MONDAY, MONDAY + timedelta(seconds=5), "c", tag="sales"),
]
OUTAGES = {
    datetime(2021, 3, 22, 22, tzinfo=UTC): 4,  # from 09:00 on a Tuesday
    datetime(2021, 3, 9, 23, tzinfo=UTC): 4,  # from 10:00 on a Wednesday: hours that are not read
    datetime(2021, 3, 28, 2, tzinfo=UTC): 2,  # one hour in Asuncion, where it is repeated
}
HOURS_READ = [
    {"from": "2021-01-25T00:00", "to": "2021-03-10T10:00"},
    {"from": "2021-03-10T14:00", "to": "2021-04-12T00:00"},
]
END = "2021-04-11T14:00:00+00:00"
AROUND = (datetime(2021, 1, 20, tzinfo=UTC), datetime(2021, 4, 20, tzinfo=UTC))
TUESDAY = [f"2021-03-23T{hour:02}" for hour in range(9, 13)]
RUN_FILE = "psql -q -v ON_ERROR_STOP=1 -f docs/sql/postgres.sql"
# Of Meltano 4.4. A slow test runs Meltano itself.
MELTANO = """
CREATE TABLE state (state_id varchar(900) PRIMARY KEY, partial_state varchar,
    completed_state varchar, updated_at timestamp);
CREATE TABLE runs (id serial PRIMARY KEY, job_name varchar, state varchar, started_at timestamp,
    ended_at timestamp, payload varchar, payload_flags integer, run_id uuid, trigger varchar,
    last_heartbeat_at timestamp);
"""


class Call(NamedTuple):
    """A row of `calls`."""

    unique_id: str
    started_at: datetime
    ended_at: datetime
    legs: int
    recorded_seconds: int
    elapsed_seconds: int
    direction: str
    source: str
    did: str | None


CALL = ", ".join(Call._fields)
LEG = (
    "call_record_id, leg, unique_id, started_at, ended_at, seconds,"
    " direction, source, destination, did, tag, username"
)


@dataclasses.dataclass
class Database:
    """A database with the views, and how to save the tap's state for them."""

    name: str
    query: Callable[..., list[Row]]
    save: Callable[[Row], object]

    @contextmanager
    def changed(self, old: str, new: str) -> Iterator[None]:
        """Change a setting in the file and run it again, as a user would."""
        assert FILES[self.name].count(old) == 1
        self.query(FILES[self.name].replace(old, new), "SELECT 1")
        try:
            yield
        finally:
            self.query(FILES[self.name], "SELECT 1")

    def check(self, columns: str, view: str, expected: Iterable[tuple[Any, ...]]) -> None:
        rows = self.query(f"SELECT {columns} FROM {view}")
        assert sorted(plain(rows), key=repr) == sorted(expected, key=repr)


def plain(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """The values of rows; times become datetimes, those with an offset in UTC."""

    def value(found: Any) -> Any:
        if not isinstance(found, str) or not re.match(r"\d{4}-\d\d-\d\d", found):
            return found
        moment = datetime.fromisoformat(found)
        return moment.astimezone(UTC) if moment.tzinfo else moment

    return [tuple(map(value, row.values())) for row in rows]


def seconds(span: timedelta) -> int:
    return span // timedelta(seconds=1)


def wall(instant: datetime, zone: str = MELBOURNE) -> datetime:
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def wall_hour(instant: datetime, zone: str = MELBOURNE) -> datetime:
    return wall(instant, zone).replace(minute=0, second=0, microsecond=0)


def day(instant: datetime) -> datetime:
    return wall_hour(instant).replace(hour=0)


def quarters(start: datetime, end: datetime) -> list[datetime]:
    return [start + n * QUARTER for n in range((end - start) // QUARTER)]


def leg_row(leg: Leg) -> tuple[Any, ...]:
    return (
        *(leg.call_record_id, leg.leg, leg.unique_id or None, leg.start, leg.callend),
        *(seconds(leg.callend - leg.start), leg.direction, leg.source, leg.destination),
        *(leg.did or None, leg.tag or None, leg.username or None),
    )


@pytest.fixture(scope="module")
def legs() -> list[Leg]:
    spans = [(start, start + hours * HOUR) for start, hours in OUTAGES.items()]
    return [
        leg
        for leg in truth(Simulator(), *PERIOD) + ODD
        if not any(start <= leg.callend < end for start, end in spans)
    ]


@pytest.fixture(scope="module")
def calls(legs: list[Leg]) -> list[Call]:
    by_call = defaultdict(list)
    for leg in sorted(legs, key=lambda leg: leg.leg):
        by_call[leg.unique_id].append(leg)
    del by_call[""]
    found = []
    for name, (first, *rest) in by_call.items():
        parts = [first, *rest]
        start, end = min(leg.start for leg in parts), max(leg.callend for leg in parts)
        recorded = sum(seconds(leg.callend - leg.start) for leg in parts)
        times = (start, end, len(parts), recorded, seconds(end - start))
        found.append(Call(name, *times, first.direction, first.source, first.did or None))
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Run a server whose own zone is neither UTC nor the PBX's."""
    with serve("America/New_York") as postgres:
        yield postgres


def run(server: Postgres, command: str, cwd: Path = ROOT) -> None:
    """Run a command that uses psql."""
    environment = os.environ | server.environment
    subprocess.run(["bash", "-ec", command], check=True, cwd=cwd, env=environment)


def database(server: Postgres, name: str) -> Postgres:
    run(server, f"psql -q -c 'CREATE DATABASE {name}'")
    return dataclasses.replace(server, database=name)


def fill(schema: str, name: Callable[[str], str], rows: str) -> str:
    """Statements that create a table as a target leaves it, and fill it."""
    kinds = {"callend": "timestamp", "Start": "timestamp", "Leg": "bigint", "Duration": "bigint"}
    fields = ODD[0].record(ZoneInfo("UTC"))
    columns = ", ".join(f'"{name(field)}" {kinds.get(field, "varchar")}' for field in fields)
    return f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.recordings ({columns});
        INSERT INTO {schema}.recordings {rows};
    """


def fill_postgres(server: Postgres, legs: Iterable[Leg]) -> None:
    rows = json.dumps([leg.record(ZoneInfo("UTC"), "timestamp") for leg in legs])
    populate = f"json_populate_recordset(NULL::tap_noojee.recordings, $rows${rows}$rows$)"
    server.execute(fill("tap_noojee", str, f"SELECT * FROM {populate}"))


def state(bookmark: Row) -> str:
    """The state as Meltano keeps and prints it."""
    return json.dumps({"singer_state": {"bookmarks": {"recordings": bookmark}}})


@pytest.fixture(scope="module")
def postgres(server: Postgres, legs: list[Leg]) -> Database:
    """Postgres, with the state in Meltano's tables."""
    fill_postgres(server, legs)
    server.execute(MELTANO)
    for _ in range(2):
        run(server, RUN_FILE)

    def save(bookmark: Row) -> None:
        old = bookmark | {"hours_read": [], "timezone": "UTC"}
        server.execute(
            "DELETE FROM state; INSERT INTO state (state_id, completed_state, partial_state)"
            f" VALUES ('other', '{{}}', NULL), ('pbx', '{state(old)}', '{state(bookmark)}')"
        )

    return Database("postgres", partial(query_postgres, server), save)


@pytest.fixture(scope="module")
def duckdb(
    install: Install, legs: list[Leg], tmp_path_factory: pytest.TempPathFactory
) -> Database:
    """DuckDB, with the state saved as the page says."""
    env, folder = (
        install(*loader("target-duckdb")["pip_url"].split()),
        tmp_path_factory.mktemp("db"),
    )
    setup = ("SET TimeZone = 'America/New_York'", f"SET file_search_path = '{folder}'")
    query = partial(query_duckdb, env, folder / "calls.duckdb", *setup)
    rows = [leg.record(ZoneInfo("UTC"), "timestamp") for leg in legs]
    (folder / "rows.json").write_text(
        json.dumps([{name.lower(): text or None for name, text in row.items()} for row in rows])
    )
    rows_of_file = "BY NAME FROM read_json('rows.json')"
    query(fill("noojee", str.lower, rows_of_file), *[FILES["duckdb"]] * 2, "SELECT 1")

    def save(bookmark: Row) -> None:
        (folder / "state.json").write_text(state(bookmark) + "\n")
        query(block(PAGE, "read_text", "sql"), "SELECT 1")

    return Database("duckdb", query, save)


@pytest.fixture(params=["postgres", "duckdb"])
def db(request: pytest.FixtureRequest) -> Database:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_legs_have_instants_and_null_for_empty_strings(db: Database, legs: list[Leg]) -> None:
    db.check(LEG, "legs", map(leg_row, legs))


def test_calls_add_up_the_legs_of_a_unique_id(db: Database, calls: list[Call]) -> None:
    db.check(CALL, "calls", map(tuple, calls))
    spans = {call.unique_id: (call.recorded_seconds, call.elapsed_seconds) for call in calls}
    assert (spans["1.1"], spans["1.2"]) == ((2040, 600), (90, 3660))


@pytest.mark.parametrize(
    "zone", [MELBOURNE, "Australia/Lord_Howe", "Pacific/Chatham", "Europe/London"]
)
def test_hours_are_those_of_the_clock(db: Database, calls: list[Call], zone: str) -> None:
    def hour(instant: datetime) -> tuple[datetime, str]:
        return wall_hour(instant, zone), str(instant.astimezone(ZoneInfo(zone)).utcoffset())

    counts = Counter(hour(call.started_at) for call in calls)
    first, last = (edge(counts)[0].date() for edge in (min, max))
    hours = {hour(quarter) for quarter in quarters(*AROUND)}
    rows = [(*one, counts[one]) for one in hours if first <= one[0].date() <= last]
    with db.changed(MELBOURNE, zone):
        db.check("local_hour, utc_offset, calls", "calls_by_hour", rows)


def test_weekdays_add_up_hours(db: Database) -> None:
    calls, hours = Counter[Any](), Counter[Any]()
    for hour, count in plain(db.query("SELECT local_hour, calls FROM calls_by_hour")):
        calls[hour.isoweekday(), hour.hour] += count
        hours[hour.isoweekday(), hour.hour] += 1
    assert len(hours) == 168
    rows = [(*key, calls[key], hours[key]) for key in hours]
    db.check("weekday, hour, calls, hours", "calls_by_weekday", rows)


def test_users_are_counted_by_day(db: Database, legs: list[Leg]) -> None:
    users = defaultdict(list)
    for leg in legs:
        users[day(leg.start), leg.username or None].append(leg)
    rows = [
        (*key, len({leg.unique_id for leg in parts} - {""}), len(parts))
        + (sum(seconds(leg.callend - leg.start) for leg in parts),)
        for key, parts in users.items()
    ]
    db.check("local_day, username, calls, legs, recorded_seconds", "calls_by_user", rows)


@pytest.mark.parametrize("column", ["did", "direction"])
def test_lines_and_directions_are_counted_by_day(
    db: Database, calls: list[Call], column: str
) -> None:
    groups = defaultdict(list)
    for call in calls:
        groups[day(call.started_at), getattr(call, column)].append(call.elapsed_seconds)
    rows = [(*key, len(lengths), sum(lengths)) for key, lengths in groups.items()]
    view = {"did": "calls_by_line", "direction": "calls_by_direction"}[column]
    db.check(f"local_day, {column}, calls, elapsed_seconds", view, rows)


def test_lengths_are_counted_in_bands(db: Database, calls: list[Call]) -> None:
    lengths = [call.elapsed_seconds for call in calls]
    bands = plain(db.query("SELECT from_seconds, below_seconds FROM call_lengths"))
    rows = [
        (first, below, sum(first <= length < (below or 10**9) for length in lengths))
        for first, below in bands
    ]
    assert sum(count for _, _, count in rows) == len(calls)
    db.check("from_seconds, below_seconds, calls", "call_lengths", rows)
    db.check(CALL, "long_calls", [tuple(call) for call in calls if call.elapsed_seconds >= 1800])


def test_repeat_callers_have_several_inbound_calls(db: Database, calls: list[Call]) -> None:
    times = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.started_at):
        if call.direction == "Inbound":
            times[call.source].append(call.started_at)
    rows = []
    for source, starts in times.items():
        again = sum(b - a <= 24 * HOUR for a, b in pairwise(starts))
        if len(starts) > 1:
            rows.append((source, len(starts), again, starts[0], starts[-1]))
    columns = "source, calls, again_within_a_day, first_call, last_call"
    db.check(columns, "repeat_callers", rows)


def test_a_tag_finds_its_calls(db: Database, legs: list[Leg], calls: list[Call]) -> None:
    tags = {(leg.unique_id, leg.tag) for leg in legs if leg.tag}
    by_id = {call.unique_id: call for call in calls}
    rows = [(tag, *by_id[name]) for name, tag in tags if name]
    db.check(f"tag, {CALL}", "calls_by_tag", rows)


def test_recordings_near_deletion_reach_their_age_soon(db: Database, legs: list[Leg]) -> None:
    age = timedelta(days=(datetime.now(UTC) - MONDAY).days + 3)
    with db.changed("90 AS", f"{age.days} AS"):
        query = f"SELECT now(), deleted_at, {LEG} FROM recordings_near_deletion"
        found = sorted(plain(db.query(query)), key=repr)
    now = found[0][0]
    ends = [(leg.callend + age, leg) for leg in legs]
    rows = [(now, end, *leg_row(leg)) for end, leg in ends if now <= end <= now + WEEK]
    assert found == sorted(rows, key=repr)


def bookmark(until: str, zone: str = MELBOURNE, hours_read: Any = HOURS_READ) -> Row:
    return {
        **{"replication_key": "callend", "replication_key_value": until, "timezone": zone},
        **{"hours_read": hours_read, "pbx": "pbx.example.com"},
    }


@pytest.mark.parametrize(
    ("zone", "until", "listed", "never"),
    [
        # Never: two unread hours, a night, and a repeated hour with legs in one pass.
        (MELBOURNE, END, TUESDAY, ["2021-03-10T10", "2021-03-10T13", "2021-03-23T02"]),
        # The bookmark's value was set back, so the outage is not read.
        (MELBOURNE, "2021-03-20T13:00:00+00:00", [], TUESDAY),
        # Clocks skip an hour that is usually busy.
        ("America/New_York", END, [], ["2021-03-14T02"]),
        # Clocks repeat the hour of the outage. It is one hour.
        ("America/Asuncion", END, ["2021-03-27T23"], []),
    ],
)
def test_an_hour_without_calls_was_read_and_is_usually_busy(
    db: Database, legs: list[Leg], zone: str, until: str, listed: list[str], never: list[str]
) -> None:
    db.save(bookmark(until, zone))
    last = wall(datetime.fromisoformat(until), zone)
    read = {
        hour
        for hour in {wall_hour(quarter, zone) for quarter in quarters(*AROUND)}
        for part in HOURS_READ
        if part["from"] <= hour.isoformat() < part["to"] and hour + HOUR <= last
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
    assert hours >= set(listed)
    assert not hours & set(never)


@pytest.mark.parametrize("earlier", [0, 30])
def test_freshness_counts_the_hours_that_are_due_and_not_read(
    db: Database, legs: list[Leg], earlier: int
) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    until = now - 5 * HOUR
    first, gap, gap_end, last = (wall_hour(now - n * HOUR) for n in (240, 140, 130, 5))
    spans = [(first, gap), (gap_end, last)]
    read = [{"from": a.isoformat()[:16], "to": b.isoformat()[:16]} for a, b in spans]
    db.save(bookmark(until.isoformat(), hours_read=read))
    began = first - earlier * HOUR
    new = f"TIMESTAMP '{began}' AS history_from" if earlier else "NULL::timestamp AS history_from"
    columns = "now(), read_until, hours_missing, days_left, last_leg_ended_at"
    with db.changed("NULL::timestamp AS history_from", new):
        ((at, *found),) = plain(db.query(f"SELECT {columns} FROM freshness"))
    ends = {wall_hour(quarter): quarter + QUARTER for quarter in quarters(now - 300 * HOUR, at)}
    due = {hour for hour, end in ends.items() if end <= at - timedelta(minutes=5)}
    missing = len([h for h in due if h >= began and not any(a <= h < b for a, b in spans)])
    newest = max(leg.callend for leg in legs)
    assert found == [until, missing, pytest.approx(missing / 1440), newest]
    assert 10 + earlier < missing < 20 + earlier


def test_freshness_has_the_last_success_and_failure(postgres: Database, server: Postgres) -> None:
    postgres.save(bookmark(END))
    for run in ("SUCCESS 08", "SUCCESS 10", "FAIL 05", "DEAD 07", "STATE_EDIT 12", "RUNNING 13"):
        status, hour = run.split()
        values = f"'pbx', '{status}', '2021-04-12 {hour}:00'"
        server.execute(f"INSERT INTO runs (job_name, state, ended_at) VALUES ({values})")
    success, failure = (datetime(2021, 4, 12, hour, tzinfo=UTC) for hour in (10, 7))
    postgres.check("last_success, last_failure", "freshness", [(success, failure)])


def test_a_saved_state_serves_if_meltano_has_another_database(
    server: Postgres, tmp_path: Path
) -> None:
    elsewhere = database(server, "elsewhere")
    fill_postgres(elsewhere, ODD)
    (copy,) = re.findall(r"^psql .*saved_state.*$", block(PAGE, "saved_state", "sh"), re.MULTILINE)
    for until in ("2021-04-11T14:00:00+00:00", "2021-04-11T15:00:00+00:00"):
        run(elsewhere, RUN_FILE)
        (tmp_path / "state.json").write_text(state(bookmark(until)) + "\n")
        run(elsewhere, copy, cwd=tmp_path)
    assert elsewhere.query("SELECT extract(hour FROM read_until) FROM freshness") == [(11,)]
    # Once Meltano's tables are there, they are read instead.
    elsewhere.execute(MELTANO)
    run(elsewhere, RUN_FILE)
    assert elsewhere.query("SELECT * FROM freshness") == []


def test_both_files_end_in_the_same_views() -> None:
    first, second = (text.partition("-- From here on")[2] for text in FILES.values())
    assert first == second
    assert "VIEW freshness" in first


def test_the_page_explains_each_view_and_its_queries_have_rows(db: Database) -> None:
    db.save(bookmark(END))
    text = (ROOT / PAGE).read_text("utf-8")
    assert all(map(db.query, re.findall(r"```sql\n(SELECT.*?);\n```", text, re.DOTALL)))
    views = set(re.findall(r"VIEW (\w+)", FILES[db.name])) - {"states", "hour_ranges"}
    assert {view for view in views if f"`{view}`" not in text} == set()


@pytest.mark.parametrize("draw", [pictures.volume, pictures.weekdays, pictures.lengths])
def test_a_picture_shows_its_query(
    db: Database, tmp_path: Path, draw: Callable[[list[Row]], str]
) -> None:
    new, committed = (folder / f"{draw.__name__}.svg" for folder in (tmp_path, ROOT / "docs"))
    text = (ROOT / PAGE).read_text("utf-8")
    query = re.findall(r"```sql\n([^`]*);\n```\n\n!\[.*\]\((\w+\.svg)", text)
    ((sql, _),) = (found for found in query if found[1] == new.name)
    new.write_text(draw(db.query(sql)), "utf-8")
    assert committed.read_text("utf-8") == new.read_text("utf-8"), f"cp {new} {committed}"


@pytest.mark.parametrize("name", ["postgres", "duckdb"])
def test_legs_are_those_that_the_target_loads(
    install: Install, server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plugin = loader("target-duckdb")
    config = plugin["config"]
    if name == "postgres":
        plugins = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))["plugins"]["loaders"]
        (plugin,) = (one for one in plugins if one["name"] == "target-postgres")
        monkeypatch.setenv("PGTZ", plugin["env"]["PGTZ"])
        server = database(server, "loaded")
        config = dataclasses.asdict(server) | {"default_target_schema": "tap_noojee"}
    env = install(*plugin["pip_url"].split())
    dates = {"start_date": "2021-04-05", "end_date": "2021-04-06"}
    with Simulator(legs=ODD) as pbx:
        pipe(tmp_path, env.program(plugin["name"]), config, pbx, **dates)
    query: Callable[..., list[Row]] = partial(query_postgres, server)
    if name == "duckdb":
        query = partial(query_duckdb, env, tmp_path / config["path"])
    db = Database(name, query, print)
    query(FILES[name], "SELECT 1")
    db.check(LEG, "legs", map(leg_row, ODD))


def test_freshness_reads_the_tables_of_a_real_meltano(
    project: Project, server: Postgres, pbx: Simulator
) -> None:
    server = database(server, "meltano")
    pip = (find_uv_bin(), "pip", "install", "--python", str(project.bin / "python"))
    subprocess.run([*pip, "psycopg[binary]"], check=True)
    project.load_into(server, "tap_noojee")
    login = f"{server.user}:{server.password}@{server.host}:{server.port}/{server.database}"
    project.environment["MELTANO_DATABASE_URI"] = f"postgresql+psycopg://{login}"
    began = datetime.now(UTC)
    project.read(pbx, "2021-09-14", "2021-09-15")
    project.meltano("run", "tap-noojee", "target-postgres")
    project.read(pbx, "2021-09-14", "2021-09-16", TAP_NOOJEE_API_KEY="wrong")
    project.meltano("run", "tap-noojee", "target-postgres", status=1)
    state_id = "dev:tap-noojee-to-target-postgres"
    state_id += f":{project.environment['MELTANO_RUN_STATE_ID_SUFFIX']}"
    # The tap's own state has no `hours_read` yet.
    read = [{"from": "2021-09-14T00:00", "to": "2021-09-15T00:00"}]
    text = state(bookmark("2021-09-14T14:00:00+00:00", hours_read=read))
    project.meltano("state", "set", "--force", state_id, text)
    run(server, RUN_FILE)
    columns = "state_id, read_until, last_success, last_failure"
    ((found, until, success, failure),) = plain(
        query_postgres(server, f"SELECT {columns} FROM freshness")
    )
    assert (found, until) == (state_id, datetime(2021, 9, 14, 14, tzinfo=UTC))
    assert began < success < failure < datetime.now(UTC)
    assert server.query("SELECT count(*) FROM hours WHERE is_read") == [(24,)]
