"""The tap piped into real targets, as docs/targets.md and meltano.yml define them."""

import csv
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import expected_legs
from environments import Install
from pages import ROOT
from postgres import Postgres
from processes import wait_until
from targets import loader, pipe, query_duckdb, query_postgres, start

from tap_noojee.simulator import Failure, Leg, Simulator

pytestmark = pytest.mark.slow

pytest_plugins = ["environments", "postgres"]

START, MIDDLE, END = "2021-04-03T09:00", "2021-04-03T13:00", "2021-04-04T09:00"
"""A Saturday and the following night, in which daylight saving ends."""

FIELDS = (
    "callend", "CallRecordId", "DID", "Destination", "Direction", "Duration", "Leg", "Source",
    "Start", "Tag", "UniqueId", "Username",
)  # fmt: skip

Row = tuple[Any, ...]


@dataclasses.dataclass
class Target:
    """A target, and access to the rows that it wrote."""

    folder: Path
    program: Path
    config: dict[str, Any]
    read: Callable[[], list[dict[str, Any]]]
    query: Callable[[str], list[dict[str, Any]]] | None = None
    """Runs a query and returns its rows. None if the target is not a database."""
    empty: str | None = ""
    """What the target stores for an empty string."""
    upserts: bool = False

    def run(self, pbx: Simulator, **settings: Any) -> dict[str, Any]:
        """Run `tap | target`, and return the last state that the target emits."""
        return pipe(self.folder, self.program, self.config, pbx, **settings)

    def rows(self) -> list[Row]:
        return sorted_rows(self.read())


def expected_rows(legs: Iterable[Leg], empty: str | None = "") -> list[Row]:
    """Return the rows of these legs, derived without the tap."""
    return sorted(
        (
            leg.callend, leg.call_record_id, leg.did or empty, leg.destination or empty,
            leg.direction or empty, int((leg.callend - leg.start).total_seconds()), leg.leg,
            leg.source or empty, leg.start, leg.tag or empty, leg.unique_id or empty,
            leg.username or empty,
        )
        for leg in legs
    )  # fmt: skip


def sorted_rows(found: Iterable[dict[str, Any]]) -> list[Row]:
    """Return sorted rows. Field names may be in any case; times without a zone are in UTC."""
    rows = []
    for row in found:
        fields = {name.lower(): value for name, value in row.items()}
        for name in ("callend", "start"):
            moment = datetime.fromisoformat(fields[name])
            fields[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        rows.append(tuple(fields[name.lower()] for name in FIELDS))
    return sorted(rows)


def duckdb(install: Install, folder: Path, _: Postgres) -> Target:
    """Return target-duckdb, which writes to a file."""
    definition = loader("target-duckdb")
    program, config = install(definition), definition["config"]
    query = partial(query_duckdb, program, folder / config["path"])
    read = partial(query, "SELECT * FROM noojee.recordings")
    return Target(folder, program, config, read, query, empty=None, upserts=True)


def csv_files(install: Install, folder: Path, _: Postgres) -> Target:
    """Return target-csv, which writes a new file in each run."""
    definition = loader("target-csv of MeltanoLabs")

    def read() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for path in folder.glob("recordings-*.csv"):
            with path.open(encoding="utf-8", newline="") as file:
                rows += csv.DictReader(file)
        return [row | {name: int(row[name]) for name in ("Duration", "Leg")} for row in rows]

    return Target(folder, install(definition), definition["config"], read)


def pipelinewise(install: Install, folder: Path, server: Postgres) -> Target:
    """Return PipelineWise's target-postgres, with a server whose zone is not UTC."""
    definition = loader("target-postgres of PipelineWise")
    config = definition["config"] | {"port": server.port, "password": server.password}
    server.execute("DROP SCHEMA IF EXISTS noojee CASCADE")
    query = partial(query_postgres, server)
    read = partial(query, "SELECT * FROM noojee.recordings")
    return Target(folder, install(definition), config, read, query, empty=None, upserts=True)


@pytest.fixture(params=[duckdb, csv_files, pipelinewise], ids=lambda f: f.__name__)
def target(
    request: pytest.FixtureRequest, install: Install, tmp_path: Path, server: Postgres
) -> Target:
    """Each of the targets, before its first run."""
    made: Target = request.param(install, tmp_path, server)
    return made


def test_targets_upsert_or_append_as_documented(target: Target, pbx: Simulator) -> None:
    """Two runs cover a clock change, and a third reads changed legs again."""
    state = target.run(pbx, start_date=START, end_date=MIDDLE)
    early = expected_legs(pbx, START, MIDDLE)
    assert target.rows() == expected_rows(early, target.empty)
    time.sleep(0 if target.upserts else 1)  # otherwise target-csv reuses the file
    state = target.run(pbx, start_date=START, end_date=END, state=state)
    legs = expected_legs(pbx, START, END)
    assert target.rows() == expected_rows(legs, target.empty)
    assert any("李小龍" in row for row in target.rows())

    changed = [dataclasses.replace(leg, tag="Rückruf") for leg in early]
    pbx.legs = changed
    time.sleep(0 if target.upserts else 1)
    hours = {"start_date": START, "end_date": MIDDLE, "lookback_hours": 4}
    target.run(pbx, **hours, state=state)
    stored = changed + legs[len(early) :] if target.upserts else legs + changed
    assert target.rows() == expected_rows(stored, target.empty)

    if target.query:
        types = target.query(
            "SELECT column_name AS name, data_type AS type FROM information_schema.columns"
            " WHERE table_schema = 'noojee' AND column_name IN ('leg', 'duration')"
        )
        assert sorted((row["name"], row["type"].lower()) for row in types) == [
            ("duration", "bigint"),
            ("leg", "bigint"),
        ]


# --- When targets save state ------------------------------------------------------------------


@pytest.mark.parametrize("target", [duckdb, pipelinewise], indirect=True)
def test_run_without_records_keeps_its_first_50_hours(target: Target) -> None:
    """These targets keep the first STATE of a run without records."""
    with Simulator(volume=0, timezone="Australia/Perth") as pbx:
        days = {"start_date": "2021-06-05", "end_date": "2021-06-07T12:00"}
        state = target.run(pbx, **days)
        assert len(pbx.requests) == 60
        target.run(pbx, **days, state=state)
        assert len(pbx.requests) <= 70
        state = target.run(pbx, **days, max_hours_per_run=50)
    (read,) = state["bookmarks"]["recordings"]["hours_read"]
    assert read == {"from": "2021-06-05T00:00", "to": "2021-06-07T02:00"}


MORNING: dict[str, Any] = {"start_date": "2021-09-14T09:00", "end_date": "2021-09-14T13:00"}


def jsonl_config(folder: Path) -> dict[str, Any]:
    """Return settings that make target-jsonl write to this folder."""
    return {"destination_path": str(folder), "do_timestamp_file": False}


def install_loader(install: Install, name: str) -> Path:
    """Install a target from this repository's meltano.yml, and return its program."""
    plugins = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))["plugins"]
    (definition,) = (plugin for plugin in plugins["loaders"] if plugin["name"] == name)
    return install(definition)


@pytest.mark.parametrize("target", [duckdb, pipelinewise], indirect=True)
def test_state_is_emitted_after_each_batch(target: Target, pbx: Simulator) -> None:
    """The last request stalls to keep the run from ending, because the end also emits state."""
    pbx.failures.append(Failure("stall", ("2021-09-14", 12)))
    config = target.config | {"batch_size_rows": 5}
    with start(target.folder, [target.program], config, pbx, **MORNING) as (tap, process):
        assert process.stdout
        while "2021-09-14T09:00" not in (state := process.stdout.readline()):
            assert state, (target.folder / "log").read_text()  # empty at the end of the output
        process.kill()
        tap.kill()


def test_jsonl_emits_state_only_at_the_end(
    install: Install, tmp_path: Path, pbx: Simulator
) -> None:
    pbx.failures.append(Failure("stall", ("2021-09-14", 12)))
    legs = expected_legs(pbx, MORNING["start_date"], "2021-09-14T12:00")
    path = tmp_path / "recordings.jsonl"
    target = [install_loader(install, "target-jsonl")]
    with start(tmp_path, target, jsonl_config(tmp_path), pbx, **MORNING) as (tap, process):
        assert process.stdout
        wait_until(lambda: path.exists() and path.read_text("utf-8").count("\n") == len(legs))
        process.kill()
        assert process.stdout.read() == ""
        tap.kill()


def test_full_disk_leaves_half_a_line_and_no_state(
    install: Install, tmp_path: Path, pbx: Simulator
) -> None:
    """A limit on the file's size simulates a full disk. The next run starts over."""
    target = install_loader(install, "target-jsonl")
    config = jsonl_config(tmp_path)
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
    argv = [sys.executable, "-c", f"{limit} os.execv(sys.argv[1], sys.argv[1:])", str(target)]
    day: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}
    with start(tmp_path, argv, config, pbx, **day) as (tap, process):
        states, _ = process.communicate()
    assert (tap.returncode, states) == (1, "")
    path = tmp_path / "recordings.jsonl"
    *lines, half = path.read_text("utf-8").split("\n")
    assert half
    assert not half.endswith("}")
    path.write_text("".join(f"{line}\n" for line in lines))
    pipe(tmp_path, target, config, pbx, **day)
    keys = {json.loads(line)["CallRecordId"] for line in path.read_text("utf-8").splitlines()}
    assert keys == {leg.call_record_id for leg in expected_legs(pbx, "2021-09-14", "2021-09-15")}


def test_times_are_late_by_the_utc_offset_without_pgtz(
    install: Install,
    tmp_path: Path,
    pbx: Simulator,
    server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = install_loader(install, "target-postgres")
    monkeypatch.delenv("PGTZ", raising=False)
    server.execute("DROP SCHEMA IF EXISTS late CASCADE")
    hours = {"start_date": START, "end_date": MIDDLE}
    names = ("host", "port", "user", "password", "database")
    config = {name: getattr(server, name) for name in names} | {"default_target_schema": "late"}
    pipe(tmp_path, target, config, pbx, **hours)
    offset = timedelta(hours=11)
    assert sorted_rows(query_postgres(server, "SELECT * FROM late.recordings")) == expected_rows(
        dataclasses.replace(leg, start=leg.start + offset, callend=leg.callend + offset)
        for leg in expected_legs(pbx, START, MIDDLE)
    )
