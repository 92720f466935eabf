"""The SQL of docs/analysis.md, run from the page's own text on what real targets have loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from conftest import truth
from pages import ROOT
from postgres import serve
from targets import loader, pipe, query_duckdb, query_postgres
from volume_picture import draw

from tap_noojee.simulator import Leg, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from environments import Install
    from postgres import Postgres

    Query = Callable[..., list[dict[str, Any]]]

# Loaded once, by one worker.
pytestmark = pytest.mark.slow

pytest_plugins = ["environments"]

PAGE = (ROOT / "docs" / "analysis.md").read_text("utf-8")
MELBOURNE = ZoneInfo("Australia/Melbourne")
WEEK = ("2021-03-29", "2021-04-05")
"""Summer time ends on its Sunday, so it has 169 hours."""
AFTER = datetime(2021, 4, 4, 20, tzinfo=UTC)
ODD = [
    # Recording was started anew during the call: its legs overlap.
    *(
        Leg(AFTER + timedelta(minutes=n), AFTER + timedelta(minutes=10), "odd1", n + 1, "1.1")
        for n in range(4)
    ),
    # The call was on hold, and not recorded, between its legs.
    Leg(AFTER, AFTER + timedelta(seconds=30), "odd2", 1, "1.2", "Outbound"),
    Leg(AFTER + timedelta(hours=1), AFTER + timedelta(seconds=3660), "odd2", 2, "1.2", "Internal"),
    # It belongs to no call that is known.
    Leg(AFTER, AFTER + timedelta(seconds=5), "odd3"),
]
"""Calls of the Monday after, as the simulator does not invent them."""


def sql(containing: str) -> str:
    """The one block of SQL of the page that contains a text."""
    (found,) = (b for b in re.findall(r"```sql\n(.*?);\n```", PAGE, re.DOTALL) if containing in b)
    return str(found)


@pytest.fixture(scope="module")
def legs() -> list[Leg]:
    """What the PBX knows."""
    return truth(Simulator(), *WEEK) + ODD


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Run a server whose own zone is neither UTC nor the PBX's."""
    with serve("America/New_York") as postgres:
        yield postgres


def load(
    install: Install, folder: Path, legs: list[Leg], plugin: dict[str, Any], **config: Any
) -> None:
    """Load the legs by a target."""
    program = install(*plugin["pip_url"].split()).program(plugin["name"])
    with Simulator(legs=legs) as pbx:
        pipe(folder, program, config, pbx, start_date=WEEK[0], end_date="2021-04-06")


@pytest.fixture(scope="module")
def postgres(
    install: Install, legs: list[Leg], server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Query:
    """Queries of Postgres, loaded as meltano.yml does, with the page's views."""
    plugins = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))["plugins"]
    (plugin,) = (one for one in plugins["loaders"] if one["name"] == "target-postgres")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in plugin["env"].items():
            patch.setenv(name, value)
        load(
            *(install, tmp_path_factory.mktemp("postgres"), legs, plugin),
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            default_target_schema="tap_noojee",
        )
    server.execute(sql("FROM tap_noojee.recordings"))
    server.execute(sql("VIEW calls"))
    return partial(query_postgres, server)


@pytest.fixture(scope="module")
def duckdb(install: Install, legs: list[Leg], tmp_path_factory: pytest.TempPathFactory) -> Query:
    """Queries of DuckDB, loaded as the page on targets says, with the page's views."""
    plugin, folder = loader("target-duckdb"), tmp_path_factory.mktemp("duckdb")
    load(install, folder, legs, plugin, **plugin["config"])
    env = install(*plugin["pip_url"].split())
    setup = ("SET TimeZone = 'America/New_York'", f"SET file_search_path = '{folder}'")
    query = partial(query_duckdb, env, folder / plugin["config"]["path"], *setup)
    query(sql("FROM noojee.recordings"), sql("VIEW calls"), "SELECT 1")
    return query


@pytest.fixture(params=["postgres", "duckdb"])
def query(request: pytest.FixtureRequest) -> Query:
    """Queries of each of the two."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def instant(text: str) -> datetime:
    """A time of either database, which has an offset."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo
    return moment.astimezone(UTC)


def test_the_view_has_each_leg_in_snake_case(query: Query, legs: list[Leg]) -> None:
    """Each leg is a row; instants are right in any zone of the session; empty strings are null."""
    rows = [
        row | {name: instant(row[name]) for name in ("started_at", "ended_at")}
        for row in query("SELECT * FROM legs")
    ]
    expected = [
        {
            "call_record_id": leg.call_record_id,
            "leg": leg.leg,
            "unique_id": leg.unique_id or None,
            "started_at": leg.start,
            "ended_at": leg.callend,
            "seconds": round((leg.callend - leg.start).total_seconds()),
            "direction": leg.direction,
            "source": leg.source,
            "destination": leg.destination,
            "did": leg.did or None,
            "tag": leg.tag or None,
            "username": leg.username or None,
        }
        for leg in legs
    ]

    def key(row: dict[str, Any]) -> tuple[str, int]:
        return row["call_record_id"], row["leg"]

    assert sorted(rows, key=key) == sorted(expected, key=key)


def test_recorded_seconds_and_elapsed_span_are_apart(query: Query, legs: list[Leg]) -> None:
    """A call is the legs of one UniqueId: the sum of its legs is one thing, its span another."""
    by_call = defaultdict(list)
    for leg in legs:
        by_call[leg.unique_id].append(leg)
    del by_call[""]
    expected = {}
    for name, parts in by_call.items():
        start, end = min(leg.start for leg in parts), max(leg.callend for leg in parts)
        recorded = sum((leg.callend - leg.start for leg in parts), timedelta())
        expected[name] = {
            "unique_id": name,
            "started_at": start,
            "ended_at": end,
            "legs": len(parts),
            "recorded_seconds": recorded.total_seconds(),
            "elapsed_seconds": (end - start).total_seconds(),
            "direction": min(parts, key=lambda leg: leg.leg).direction,
        }
    found = {
        row["unique_id"]: row | {name: instant(row[name]) for name in ("started_at", "ended_at")}
        for row in query("SELECT * FROM calls")
    }
    assert found == expected
    spans = [(found[n]["recorded_seconds"], found[n]["elapsed_seconds"]) for n in ("1.1", "1.2")]
    assert spans == [(2040, 600), (90, 3660)]


def volume(query: Query) -> list[dict[str, Any]]:
    """The rows of the page's query of a week."""
    return query(sql("utc_offset"))


def test_volume_is_right_in_the_week_when_clocks_change(query: Query, legs: list[Leg]) -> None:
    """Each hour of the clock has a row, one that comes twice has two, and calls are in theirs."""
    starts: dict[str, datetime] = {}
    for leg in legs:
        if leg.unique_id:
            starts[leg.unique_id] = min(leg.start, starts.get(leg.unique_id, leg.start))
    counts = Counter(start.replace(minute=0, second=0) for start in starts.values())
    first = datetime(2021, 3, 29, tzinfo=MELBOURNE).astimezone(UTC)
    expected = []
    for hours in range(169):
        hour = first + timedelta(hours=hours)
        local = hour.astimezone(MELBOURNE)
        expected.append((local.replace(tzinfo=None, fold=0), str(local.utcoffset()), counts[hour]))
    found = [
        (datetime.fromisoformat(row["local_hour"]), row["utc_offset"], row["calls"])
        for row in volume(query)
    ]
    assert found == expected
    twice = [calls for hour, _, calls in found if hour == datetime(2021, 4, 4, 2)]  # noqa: DTZ001 - a wall clock's
    assert len(twice) == 2
    assert all(twice)


@pytest.mark.parametrize(
    ("zone", "first_day", "expected"),
    [
        # The hour from 02:00 is skipped.
        ("Australia/Melbourne", "2021-10-03", 23),
        # From 01:30 to 02:00 comes twice: the hour from 01:00 with each of two offsets.
        ("Australia/Lord_Howe", "2021-04-04", 25),
        ("Australia/Adelaide", "2021-06-01", 24),
    ],
)
def test_hours_are_those_of_the_clock_in_any_zone(
    query: Query, zone: str, first_day: str, expected: int
) -> None:
    """The page's query gives the hours of each zone as its clocks show them."""
    text = sql("utc_offset").replace("Australia/Melbourne", zone).replace(WEEK[0], first_day)
    after = datetime.fromisoformat(first_day) + timedelta(days=1)
    rows = query(text.replace(WEEK[1], f"{after:%Y-%m-%d}"))
    keys = {(row["local_hour"], row["utc_offset"]) for row in rows}
    assert len(keys) == len(rows) == expected


def test_the_picture_is_of_the_query(duckdb: Query, tmp_path: Path) -> None:
    """The page's picture is what the query gives today; a new one is where the failure says."""
    new = tmp_path / "volume.svg"
    new.write_text(draw(volume(duckdb)), "utf-8")
    assert (ROOT / "docs" / "volume.svg").read_text("utf-8") == new.read_text("utf-8"), new


def saved_state(folder: Path, *, ago: timedelta, owed: int) -> None:
    """Save STATE as Meltano prints it, read until so long ago."""
    moment = (datetime.now(UTC) - ago).isoformat(timespec="seconds")
    gap = {"start": "2021-01-01T00:00:00+00:00", "end": "2021-01-02T00:00:00+00:00"}
    bookmark = {
        "replication_key": "callend",
        "replication_key_value": moment,
        "since": "2021-01-01T00:00:00+00:00",
        "owed": [gap] * owed,
    }
    state = {"singer_state": {"bookmarks": {"recordings": bookmark}}}
    (folder / "state.json").write_text(json.dumps(state, separators=(",", ":")) + "\n")


State = tuple[timedelta, int, str]

STATES: list[State] = [(timedelta(hours=1), 0, "reading"), (timedelta(hours=9), 2, "late")]


@pytest.mark.parametrize("state", STATES)
def test_state_tells_a_quiet_night_from_a_dead_pipeline_in_postgres(
    postgres: Query, server: Postgres, tmp_path: Path, state: State
) -> None:
    """By the page's table and its psql command, the newest STATE says whether hours are read."""
    ago, owed, pipeline = state
    saved_state(tmp_path, ago=ago, owed=owed)
    server.execute(sql("TABLE IF NOT EXISTS tap_state"))
    (words,) = re.findall(r"```sh\n(psql .*?)```", PAGE, re.DOTALL)
    env = os.environ | server.environment
    subprocess.run(["bash", "-c", words], check=True, cwd=tmp_path, env=env)
    check_freshness(postgres(sql("AS pipeline")), owed, pipeline)


@pytest.mark.parametrize("state", STATES)
def test_state_tells_a_quiet_night_from_a_dead_pipeline_in_duckdb(
    duckdb: Query, tmp_path: Path, state: State
) -> None:
    """By the page's view of the file, STATE says whether hours are read."""
    ago, owed, pipeline = state
    saved_state(tmp_path, ago=ago, owed=owed)
    here = f"SET file_search_path = '{tmp_path}'"
    check_freshness(duckdb(here, sql("read_text"), sql("AS pipeline")), owed, pipeline)


def check_freshness(rows: list[dict[str, Any]], owed: int, pipeline: str) -> None:
    """The verdict is STATE's, whatever the age of the last leg."""
    (row,) = rows
    state = (row["pipeline"], row["gaps"], instant(row["last_leg_ended_at"]))
    assert state == (pipeline, owed, max(leg.callend for leg in ODD))
