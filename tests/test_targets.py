"""The tap piped into the targets of docs/targets.md, as that page defines them."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import expected_legs
from pages import ROOT
from targets import loader, packages, pipe, query_duckdb, query_postgres, start

from tap_noojee.simulator import Failure, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from environments import Install
    from postgres import Postgres

    from tap_noojee.simulator import Leg

pytestmark = pytest.mark.slow

pytest_plugins = ["environments", "postgres"]

START, MIDDLE, END = "2021-04-03T09:00", "2021-04-03T13:00", "2021-04-04T09:00"
"""A Saturday, and the night in which daylight saving ends."""

FIELDS = (
    *("callend", "CallRecordId", "DID", "Destination", "Direction", "Duration", "Leg"),
    *("Source", "Start", "Tag", "UniqueId", "Username"),
)

Row = tuple[Any, ...]


@dataclasses.dataclass
class Target:
    """A target that writes somewhere, and how to read what it wrote."""

    run: Callable[..., dict[str, Any]]
    """Run `tap | target` with these settings, and return the state that the target hands over."""
    read: Callable[[], list[Row]]
    query: Callable[[str], list[dict[str, Any]]] | None = None
    """The rows of a query, if there is a database."""
    empty: str | None = ""
    """What becomes of an empty string."""
    upserts: bool = False


def expected_rows(legs: Iterable[Leg], empty: str | None = "") -> list[Row]:
    """The legs as rows, worked out without the tap."""
    return sorted(
        (
            *(leg.callend, leg.call_record_id),
            *(text or empty for text in (leg.did, leg.destination, leg.direction)),
            *(int((leg.callend - leg.start).total_seconds()), leg.leg, leg.source, leg.start),
            *(text or empty for text in (leg.tag, leg.unique_id, leg.username)),
        )
        for leg in legs
    )


def in_order(found: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows from JSON, whatever the case of their names; times are in UTC."""
    rows = []
    for row in found:
        fields = {name.lower(): value for name, value in row.items()}
        for name in ("callend", "start"):
            moment = datetime.fromisoformat(fields[name])
            fields[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        rows.append(tuple(fields[name.lower()] for name in FIELDS))
    return sorted(rows)


@contextmanager
def duckdb(install: Install, tmp_path: Path, _: Postgres) -> Iterator[Target]:
    """target-duckdb, into a file."""
    definition = loader("target-duckdb")
    env = install(*packages(definition))
    query = partial(query_duckdb, env, tmp_path / definition["config"]["path"])
    yield Target(
        partial(pipe, tmp_path, env.program("target-duckdb"), definition["config"]),
        lambda: in_order(query("SELECT * FROM noojee.recordings")),
        query,
        empty=None,
        upserts=True,
    )


@contextmanager
def csv_files(install: Install, tmp_path: Path, _: Postgres) -> Iterator[Target]:
    """target-csv, into a file for each run."""
    definition = loader("target-csv of MeltanoLabs")
    env = install(*packages(definition))

    def read() -> list[Row]:
        rows: list[dict[str, Any]] = []
        for path in tmp_path.glob("recordings-*.csv"):
            with path.open(encoding="utf-8", newline="") as file:
                rows += csv.DictReader(file)
        return in_order(
            row | {name: int(row[name]) for name in ("Duration", "Leg")} for row in rows
        )

    yield Target(
        partial(pipe, tmp_path, env.program("target-csv"), definition["config"]),
        read,
    )


@contextmanager
def pipelinewise(install: Install, tmp_path: Path, server: Postgres) -> Iterator[Target]:
    """PipelineWise's target-postgres, into a server whose zone is not UTC."""
    definition = loader("target-postgres of PipelineWise")
    env = install(*packages(definition))
    config = definition["config"] | {"port": server.port, "password": server.password}
    server.execute("DROP SCHEMA IF EXISTS noojee CASCADE")
    query = partial(query_postgres, server)
    yield Target(
        partial(pipe, tmp_path, env.program("target-postgres"), config),
        lambda: in_order(query("SELECT * FROM noojee.recordings")),
        query,
        empty=None,
        upserts=True,
    )


@pytest.fixture(params=[duckdb, csv_files, pipelinewise], ids=lambda f: f.__name__)
def target(
    request: pytest.FixtureRequest, install: Install, tmp_path: Path, server: Postgres
) -> Iterator[Target]:
    """Each of the targets, with nothing written yet."""
    with request.param(install, tmp_path, server) as made:
        yield made


def test_legs_arrive_and_come_again_as_documented(target: Target, pbx: Simulator) -> None:
    """In two runs over a clock change, and a third one that reads changed legs again."""
    state = target.run(pbx, start_date=START, end_date=MIDDLE)
    half = expected_legs(pbx, START, MIDDLE)
    assert target.read() == expected_rows(half, target.empty)
    time.sleep(1)  # files are named by the second
    state = target.run(pbx, start_date=START, end_date=END, state=state)
    legs = expected_legs(pbx, START, END)
    assert target.read() == expected_rows(legs, target.empty)
    assert any("李小龍" in row for row in target.read())

    changed = [dataclasses.replace(leg, tag="Rückruf") for leg in half]
    pbx.legs = changed
    time.sleep(1)
    hours = {"start_date": START, "end_date": MIDDLE, "lookback_hours": 4}
    target.run(pbx, **hours, state=state)
    kept = changed + legs[len(half) :] if target.upserts else legs + changed
    assert target.read() == expected_rows(kept, target.empty)

    if target.query:
        types = target.query(
            "SELECT column_name AS name, data_type AS type FROM information_schema.columns"
            " WHERE table_schema = 'noojee' AND column_name IN ('leg', 'duration')"
        )
        assert sorted((row["name"], row["type"].lower()) for row in types) == [
            ("duration", "bigint"),
            ("leg", "bigint"),
        ]


# When targets save state


@pytest.mark.parametrize("target", [duckdb, pipelinewise], indirect=True)
def test_quiet_hours_are_not_read_again_and_again(target: Target) -> None:
    """These targets keep the first STATE of a run without records."""
    with Simulator(volume=0, timezone="Australia/Perth") as pbx:
        days = {"start_date": "2021-06-05", "end_date": "2021-06-07T12:00"}
        state = target.run(pbx, **days)
        assert len(pbx.requests) == 60
        pbx.requests.clear()
        target.run(pbx, **days, state=state)
        assert len(pbx.requests) <= 10
        pbx.requests.clear()
        state = target.run(pbx, **days, max_hours_per_run=50)
        target.run(pbx, **days, state=state)
        assert len(pbx.requests) == 60


def program(install: Install, name: str) -> str:
    """A target of this repository's meltano.yml."""
    plugins = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))["plugins"]
    (definition,) = (one for one in plugins["loaders"] if one["name"] == name)
    return install(*packages(definition)).program(name)


@pytest.mark.parametrize("name", ["target-jsonl", "target-postgres", "target-duckdb"])
def test_targets_hand_over_state_when_the_page_says(
    install: Install, tmp_path: Path, pbx: Simulator, server: Postgres, name: str
) -> None:
    """While the tap waits for an answer: after a batch, or not before the end."""
    if name == "target-jsonl":
        target = program(install, name)
        config = {"destination_path": str(tmp_path), "do_timestamp_file": False}
    else:
        heading = {"target-postgres": "target-postgres of PipelineWise"}.get(name, name)
        definition = loader(heading)
        target = install(*packages(definition)).program(name)
        config = definition["config"] | {"batch_size_rows": 5}
        if name == "target-postgres":
            config |= {"port": server.port, "password": server.password}
    pbx.failures.append(Failure("stall", ("2021-09-14", 12)))
    hours: dict[str, Any] = {"start_date": "2021-09-14T09:00", "end_date": "2021-09-14T13:00"}
    with start(tmp_path, [target], config, pbx, **hours) as (tap, process):
        assert process.stdout
        handed_over = ""
        if name == "target-jsonl":
            legs = expected_legs(pbx, "2021-09-14T09:00", "2021-09-14T12:00")
            path = tmp_path / "recordings.jsonl"
            while not path.exists() or path.read_text("utf-8").count("\n") < len(legs):
                assert process.poll() is None
                time.sleep(0.05)
            process.kill()
            handed_over = process.stdout.read()
        else:
            while "2021-09-14T09:00" not in handed_over:
                handed_over = process.stdout.readline()
                assert handed_over, (tmp_path / "log").read_text()
            process.kill()
        tap.kill()
    assert bool(handed_over) == (name != "target-jsonl")


def test_full_disk_leaves_half_a_line_and_no_state(
    install: Install, tmp_path: Path, pbx: Simulator
) -> None:
    """A limit on the size of files stands for the disk."""
    target = program(install, "target-jsonl")
    config = {"destination_path": str(tmp_path), "do_timestamp_file": False}
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
    words = [sys.executable, "-c", f"{limit} os.execv(sys.argv[1], sys.argv[1:])", target]
    day: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}
    with start(tmp_path, words, config, pbx, **day) as (tap, process):
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


def test_times_are_late_without_pgtz(
    install: Install,
    tmp_path: Path,
    pbx: Simulator,
    server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = program(install, "target-postgres")
    monkeypatch.delenv("PGTZ", raising=False)
    server.execute("DROP SCHEMA IF EXISTS late CASCADE")
    hours = {"start_date": START, "end_date": MIDDLE}
    names = ("host", "port", "user", "password", "database")
    config = {name: getattr(server, name) for name in names} | {"default_target_schema": "late"}
    pipe(tmp_path, target, config, pbx, **hours)
    late = timedelta(hours=11)
    assert in_order(query_postgres(server, "SELECT * FROM late.recordings")) == expected_rows(
        dataclasses.replace(leg, start=leg.start + late, callend=leg.callend + late)
        for leg in expected_legs(pbx, START, MIDDLE)
    )
