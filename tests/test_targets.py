"""The tap piped into the targets of docs/targets.md, as that page sets them."""

from __future__ import annotations

import csv
import dataclasses
import socket
import subprocess
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import truth
from pages import ROOT
from postgres import serve
from targets import loader, pipe, query_duckdb, query_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from environments import Install
    from postgres import Postgres

    from tap_noojee.simulator import Leg, Simulator

# Each target is installed once, by one worker.
pytestmark = pytest.mark.slow

pytest_plugins = ["environments"]

START, MIDDLE, END = "2021-04-03T09:00", "2021-04-03T13:00", "2021-04-04T09:00"
"""A Saturday, and the night in which summer time ends."""

FIELDS = (
    *("callend", "CallRecordId", "DID", "Destination", "Direction", "Duration", "Leg"),
    *("Source", "Start", "Tag", "UniqueId", "Username"),
)

Row = tuple[Any, ...]


@dataclasses.dataclass
class Target:
    """A target that writes somewhere, and how to read what it wrote."""

    run: Callable[..., dict[str, Any]]
    """Runs `tap | target` with these settings; gives the state that the target emitted."""
    read: Callable[[], list[Row]]
    query: Callable[[str], list[dict[str, Any]]] | None
    """Rows of a query, where there is a database."""
    empty: str | None
    """What becomes of an empty string."""
    upserts: bool


def expected(legs: Iterable[Leg], empty: str | None = "") -> list[Row]:
    """The rows that legs should be, worked out without the tap."""
    return sorted(
        (
            *(leg.callend, leg.call_record_id),
            *(text or empty for text in (leg.did, leg.destination, leg.direction)),
            *(int((leg.callend - leg.start).total_seconds()), leg.leg, leg.source, leg.start),
            *(text or empty for text in (leg.tag, leg.unique_id, leg.username)),
        )
        for leg in legs
    )


def as_rows(found: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows as JSON has them, by the names of the fields in any case; times are in UTC."""
    rows = []
    for row in found:
        fields = {name.lower(): value for name, value in row.items()}
        for name in ("callend", "start"):
            moment = datetime.fromisoformat(fields[name])
            fields[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        rows.append(tuple(fields[name.lower()] for name in FIELDS))
    return sorted(rows)


READ_PARQUET = """
import boto3, io, json, os, pyarrow.parquet, sys
client, rows = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]), []
for file in client.list_objects_v2(Bucket=sys.argv[1], Prefix="noojee/").get("Contents", []):
    body = client.get_object(Bucket=sys.argv[1], Key=file["Key"])["Body"].read()
    rows += pyarrow.parquet.read_table(io.BytesIO(body)).to_pylist()
print(json.dumps(rows, default=str), flush=True)
os._exit(0)  # on a busy machine, the libraries' threads may abort an ordinary exit
"""

CREATE_BUCKET = """
import boto3, os, sys
client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
place = {"LocationConstraint": sys.argv[2]}
client.create_bucket(Bucket=sys.argv[1], CreateBucketConfiguration=place)
print("{}")
"""


@contextmanager
def duckdb(install: Install, tmp_path: Path, _: Postgres) -> Iterator[Target]:
    """target-duckdb, into a file."""
    definition = loader("target-duckdb")
    env = install(*packages(definition))
    query = partial(query_duckdb, env, tmp_path / definition["config"]["path"])
    yield Target(
        partial(pipe, tmp_path, env.program("target-duckdb"), definition["config"]),
        lambda: as_rows(query("SELECT * FROM noojee.recordings")),
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
        return as_rows(
            row | {name: int(row[name]) for name in ("Duration", "Leg")} for row in rows
        )

    yield Target(
        partial(pipe, tmp_path, env.program("target-csv"), definition["config"]),
        read,
        query=None,
        empty="",
        upserts=False,
    )


@contextmanager
def parquet(install: Install, tmp_path: Path, _: Postgres) -> Iterator[Target]:
    """target-s3, into Parquet files on an S3 server of our own."""
    definition = loader("Parquet, by target-s3")
    env = install(*packages(definition), "moto[server]==5.*")
    config = definition["config"]
    aws = config["cloud_provider"]["aws"]
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        pytest.MonkeyPatch.context() as patch,
    ):
        port = listener.getsockname()[1]
        aws["aws_endpoint_override"] = f"http://127.0.0.1:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": aws["aws_endpoint_override"],
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": aws["aws_region"],
        }.items():
            patch.setenv(name, value)
        listener.close()
        with subprocess.Popen(
            [env.program("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                while not is_up(port):
                    assert server.poll() is None
                    time.sleep(0.05)
                env.evaluate(CREATE_BUCKET, aws["aws_bucket"], aws["aws_region"])
                yield Target(
                    partial(pipe, tmp_path, env.program("target-s3"), config),
                    lambda: as_rows(env.evaluate(READ_PARQUET, aws["aws_bucket"])),
                    query=None,
                    empty="",
                    upserts=False,
                )
            finally:
                server.terminate()


def is_up(port: int) -> bool:
    """Whether a server listens on a loopback port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
        lambda: as_rows(query("SELECT * FROM noojee.recordings")),
        query,
        empty=None,
        upserts=True,
    )


def packages(definition: dict[str, Any]) -> list[str]:
    """What a definition says to install."""
    return str(definition["pip_url"]).split()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Run a server whose own zone is not UTC, as one in Melbourne would be."""
    with serve("Australia/Melbourne") as postgres:
        yield postgres


@pytest.fixture(params=[duckdb, csv_files, parquet, pipelinewise], ids=lambda f: f.__name__)
def target(
    request: pytest.FixtureRequest, install: Install, tmp_path: Path, server: Postgres
) -> Iterator[Target]:
    """Each of the targets, with nothing written so far."""
    with request.param(install, tmp_path, server) as made:
        yield made


def test_legs_arrive_as_they_were_over_two_runs(target: Target, pbx: Simulator) -> None:
    """Instants, integers and names beyond ASCII are right, and a second run adds the rest."""
    state = target.run(pbx, start_date=START, end_date=MIDDLE)
    half = expected(truth(pbx, START, MIDDLE), target.empty)
    assert target.read() == half
    # Files are named by the second.
    time.sleep(1)
    target.run(pbx, start_date=START, end_date=END, state=state)
    rows = expected(truth(pbx, START, END), target.empty)
    assert target.read() == rows
    assert len(half) < len(rows)
    assert any("李小龍" in row for row in rows)


def test_a_leg_that_comes_again_is_replaced_or_added(target: Target, pbx: Simulator) -> None:
    """A target that upserts keeps the last word on a leg; others keep both."""
    (leg, *_) = truth(pbx, "2021-09-14T15:00", "2021-09-14T16:00")
    changed = dataclasses.replace(leg, tag="Rückruf")
    hour = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}
    pbx.legs = [leg]
    state = target.run(pbx, **hour)
    pbx.legs = [changed]
    time.sleep(1)
    target.run(pbx, **hour, state=state, lookback_hours=1)
    kept = [changed] if target.upserts else [leg, changed]
    assert target.read() == expected(kept, target.empty)


@pytest.mark.parametrize("target", [duckdb, pipelinewise], indirect=True)
def test_integers_become_bigint(target: Target, pbx: Simulator) -> None:
    """The schema's bounds let a target choose columns of 64 bits."""
    target.run(pbx, start_date=START, end_date=MIDDLE)
    assert target.query
    types = target.query(
        "SELECT column_name AS name, data_type AS type FROM information_schema.columns"
        " WHERE table_schema = 'noojee' AND column_name IN ('leg', 'duration')"
    )
    assert {row["name"]: row["type"].lower() for row in types} == {
        "leg": "bigint",
        "duration": "bigint",
    }


def test_a_newer_duckdb_loses_the_first_leg(
    install: Install, tmp_path: Path, pbx: Simulator
) -> None:
    """The page's bound on duckdb is needed: 1.3.0 takes the first row for a header."""
    config = loader("target-duckdb")["config"]
    env = install("target-duckdb==0.8.0", "duckdb==1.3.0")
    pipe(tmp_path, env.program("target-duckdb"), config, pbx, start_date=START, end_date=MIDDLE)
    found = query_duckdb(env, tmp_path / config["path"], "SELECT * FROM noojee.recordings")
    assert as_rows(found) == expected(truth(pbx, START, MIDDLE), empty=None)[1:]


def test_one_csv_file_is_overwritten_by_a_run_with_nothing_to_read(
    install: Install, tmp_path: Path, pbx: Simulator
) -> None:
    """The page's name of a file for each run is needed."""
    env = install(*packages(loader("target-csv of MeltanoLabs")))
    run = partial(pipe, tmp_path, env.program("target-csv"), {}, pbx)
    state = run(start_date=START, end_date=MIDDLE)
    written = (tmp_path / "recordings.csv").read_text("utf-8").splitlines()
    assert len(written) == 1 + len(truth(pbx, START, MIDDLE))
    run(start_date=START, end_date=MIDDLE, state=state)
    assert (tmp_path / "recordings.csv").read_text("utf-8").splitlines() == written[:1]


def test_times_are_late_without_pgtz(
    install: Install,
    tmp_path: Path,
    pbx: Simulator,
    server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MeltanoLabs' target-postgres stores times in the connection's zone, which PGTZ sets."""
    plugins = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))["plugins"]
    (definition,) = (one for one in plugins["loaders"] if one["name"] == "target-postgres")
    config = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
        "default_target_schema": "late",
    }
    program = install(*packages(definition)).program("target-postgres")

    def load() -> list[Row]:
        server.execute("DROP SCHEMA IF EXISTS late CASCADE")
        pipe(tmp_path, program, config, pbx, start_date=START, end_date=MIDDLE)
        return as_rows(query_postgres(server, "SELECT * FROM late.recordings"))

    late = timedelta(hours=11)
    legs = truth(pbx, START, MIDDLE)
    monkeypatch.delenv("PGTZ", raising=False)
    assert load() == expected(
        dataclasses.replace(leg, start=leg.start + late, callend=leg.callend + late)
        for leg in legs
    )
    monkeypatch.setenv("PGTZ", "UTC")
    assert load() == expected(legs)
