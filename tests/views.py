"""Postgres and DuckDB, with the views of docs/sql and eleven weeks of legs."""

# ruff: noqa: S608 - the tests' own SQL

import dataclasses
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import environments
import pytest
from conftest import expected_legs
from environments import Install
from pages import ROOT, block
from postgres import Postgres, serve
from targets import loader, query_duckdb, query_postgres

from tap_noojee.simulator import Leg, Simulator

Row = dict[str, Any]

PAGE = "docs/analysis.md"
FILES = {f.stem: f.read_text("utf-8") for f in (ROOT / "docs" / "sql").glob("*.sql")}
RUN_FILE = "psql -q -v ON_ERROR_STOP=1 -f docs/sql/postgres.sql"
MELBOURNE = "Australia/Melbourne"
HOUR = timedelta(hours=1)
PERIOD = ("2021-01-25", "2021-04-12")
"""Eleven weeks. Daylight saving ends on the second-to-last Sunday."""
MONDAY = datetime(2021, 4, 4, 20, tzinfo=UTC)  # 06:00 in Melbourne
ODD_LEGS = [
    # Recording was restarted during the call, so its legs overlap.
    *(
        Leg(MONDAY + timedelta(minutes=n), MONDAY + timedelta(minutes=10), "a", n + 1, "1.1")
        for n in range(4)
    ),
    # The call was on hold between its legs, and was not recorded then.
    Leg(MONDAY, MONDAY + timedelta(seconds=30), "b", 1, "1.2", "Outbound", "O'Brien", did=""),
    Leg(MONDAY + HOUR, MONDAY + timedelta(seconds=3660), "b", 2, "1.2", "Internal", tag="sales"),
    # This leg has no UniqueId, so it belongs to no call.
    Leg(MONDAY, MONDAY + timedelta(seconds=5), "c", tag="sales"),
]
OUTAGES = {
    datetime(2021, 3, 22, 22, tzinfo=UTC): 4,  # from 09:00 on a Tuesday
    datetime(2021, 3, 9, 23, tzinfo=UTC): 4,  # from 10:00 on a Wednesday, and not in HOURS_READ
    datetime(2021, 3, 28, 2, tzinfo=UTC): 2,  # the repeated hour in Asuncion
}
"""The start of each period without legs, and its length in hours."""
HOURS_READ = [
    {"from": "2021-01-25T00:00", "to": "2021-03-10T10:00"},
    {"from": "2021-03-10T14:00", "to": "2021-04-12T00:00"},
]
# The tables of Meltano 4.4. `test_views_work_on_rows_from_meltano` uses a real Meltano.
MELTANO_TABLES = """
CREATE TABLE state (state_id varchar(900) PRIMARY KEY, partial_state varchar,
    completed_state varchar, updated_at timestamp);
CREATE TABLE runs (id serial PRIMARY KEY, job_name varchar, state varchar, started_at timestamp,
    ended_at timestamp, payload varchar, payload_flags integer, run_id uuid, trigger varchar,
    last_heartbeat_at timestamp);
"""


class Call(NamedTuple):
    """A row of the view `calls`."""

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
    """A database with the views, and a function that saves a bookmark where they read it."""

    name: str
    query: Callable[..., list[Row]]
    save: Callable[[Row], object]

    @contextmanager
    def changed(self, old: str, new: str) -> Iterator[None]:
        """Run the SQL file with a setting changed, and restore the setting at the end."""
        assert FILES[self.name].count(old) == 1
        self.query(FILES[self.name].replace(old, new), "SELECT 1")
        try:
            yield
        finally:
            self.query(FILES[self.name], "SELECT 1")

    def check(self, columns: str, view: str, expected: Iterable[tuple[Any, ...]]) -> None:
        rows = self.query(f"SELECT {columns} FROM {view}")
        assert sorted(row_values(rows), key=repr) == sorted(expected, key=repr)


def row_values(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """Return each row's values, with times as datetimes, in UTC if they have an offset."""

    def value(found: Any) -> Any:
        if not isinstance(found, str) or not re.match(r"\d{4}-\d\d-\d\d", found):
            return found
        moment = datetime.fromisoformat(found)
        return moment.astimezone(UTC) if moment.tzinfo else moment

    return [tuple(map(value, row.values())) for row in rows]


@pytest.fixture(scope="session")
def legs() -> list[Leg]:
    spans = [(start, start + hours * HOUR) for start, hours in OUTAGES.items()]
    return [
        leg
        for leg in expected_legs(Simulator(), *PERIOD) + ODD_LEGS
        if not any(start <= leg.callend < end for start, end in spans)
    ]


def leg_row(leg: Leg) -> tuple[Any, ...]:
    return (
        leg.call_record_id, leg.leg, leg.unique_id or None, leg.start, leg.callend,
        (leg.callend - leg.start).seconds, leg.direction, leg.source, leg.destination,
        leg.did or None, leg.tag or None, leg.username or None,
    )  # fmt: skip


@pytest.fixture(scope="session")
def calls(legs: list[Leg]) -> list[Call]:
    by_call = defaultdict(list)
    for leg in sorted(legs, key=lambda leg: leg.leg):
        by_call[leg.unique_id].append(leg)
    del by_call[""]
    found = []
    for unique_id, parts in by_call.items():
        start, end = min(leg.start for leg in parts), max(leg.callend for leg in parts)
        recorded = sum((leg.callend - leg.start).seconds for leg in parts)
        measures = (start, end, len(parts), recorded, (end - start).seconds)
        first = parts[0]
        found.append(Call(unique_id, *measures, first.direction, first.source, first.did or None))
    return found


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Postgres]:
    """A server whose time zone is neither UTC nor the PBX's."""
    with serve("America/New_York") as postgres:
        yield postgres


def run(server: Postgres, command: str, cwd: Path = ROOT) -> None:
    """Run a command that uses psql."""
    environments.run("bash", "-ec", command, cwd=cwd, env=os.environ | server.environment)


def create_database(server: Postgres, name: str) -> Postgres:
    run(server, f"psql -q -c 'CREATE DATABASE {name}'")
    return dataclasses.replace(server, database=name)


def create_and_fill_sql(schema: str, column_name: Callable[[str], str], source: str) -> str:
    """Return SQL that creates the table as a target would, and fills it from `source`."""
    types = {"callend": "timestamp", "Start": "timestamp", "Leg": "bigint", "Duration": "bigint"}
    fields = ODD_LEGS[0].record(ZoneInfo("UTC"))
    columns = ", ".join(
        f'"{column_name(field)}" {types.get(field, "varchar")}' for field in fields
    )
    return f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.recordings ({columns});
        INSERT INTO {schema}.recordings {source};
    """


def fill_postgres(server: Postgres, legs: Iterable[Leg]) -> None:
    rows = json.dumps([leg.record(ZoneInfo("UTC"), "timestamp") for leg in legs])
    populate = f"json_populate_recordset(NULL::tap_noojee.recordings, $rows${rows}$rows$)"
    server.execute(create_and_fill_sql("tap_noojee", str, f"SELECT * FROM {populate}"))


def bookmark(until: str, zone: str = MELBOURNE, hours_read: Any = HOURS_READ) -> Row:
    value = {"replication_key": "callend", "replication_key_value": until}
    return value | {"timezone": zone, "hours_read": hours_read, "pbx": "pbx.example.com"}


def state(bookmark: Row) -> str:
    """Return the state as Meltano stores and prints it."""
    return json.dumps({"singer_state": {"bookmarks": {"recordings": bookmark}}})


@pytest.fixture(scope="session")
def postgres(warehouse: Postgres, legs: list[Leg]) -> Database:
    """Postgres, with the state in Meltano's tables."""
    fill_postgres(warehouse, legs)
    warehouse.execute(MELTANO_TABLES)
    for _ in range(2):  # running the file again must succeed
        run(warehouse, RUN_FILE)

    def save(bookmark: Row) -> None:
        overridden = bookmark | {"hours_read": [], "timezone": "UTC"}
        warehouse.execute(
            "DELETE FROM state; INSERT INTO state (state_id, completed_state, partial_state)"
            f" VALUES ('other', '{{}}', NULL), ('pbx', '{state(overridden)}', '{state(bookmark)}')"
        )

    return Database("postgres", partial(query_postgres, warehouse), save)


@pytest.fixture(scope="session")
def duckdb(
    install: Install, legs: list[Leg], tmp_path_factory: pytest.TempPathFactory
) -> Database:
    """DuckDB, with the state in a file, as docs/analysis.md describes."""
    folder = tmp_path_factory.mktemp("db")
    target = install(loader("target-duckdb"))
    session = "SET TimeZone = 'America/New_York'; SET enable_progress_bar = false"
    setup = (session, f"SET file_search_path = '{folder}'")
    query = partial(query_duckdb, target, folder / "calls.duckdb", *setup)
    rows = [leg.record(ZoneInfo("UTC"), "timestamp") for leg in legs]
    (folder / "rows.json").write_text(
        json.dumps([{name.lower(): text or None for name, text in row.items()} for row in rows])
    )
    populate = create_and_fill_sql("noojee", str.lower, "BY NAME FROM read_json('rows.json')")
    # Running the file again must succeed.
    query(populate, FILES["duckdb"], FILES["duckdb"], "SELECT 1")

    def save(bookmark: Row) -> None:
        (folder / "state.json").write_text(state(bookmark) + "\n")
        query(block(PAGE, "read_text", "sql"), "SELECT 1")

    return Database("duckdb", query, save)


@pytest.fixture(params=["postgres", "duckdb"])
def db(request: pytest.FixtureRequest) -> Database:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]
