"""This repository's project, in which a real Meltano runs the tap and real targets."""

import json
import os
import re
import secrets
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import views
import yaml
from conftest import as_rows, expected_legs, requested_hours
from environments import run
from pages import block
from postgres import Postgres
from processes import wait_until
from projects import Project
from targets import query_postgres
from uv import find_uv_bin

from tap_noojee.simulator import Failure, Leg, Simulator

pytestmark = pytest.mark.slow

pytest_plugins = ["projects"]

DAY = ("2021-09-14", "2021-09-15")
INTO_FILE = ("run", "tap-noojee", "target-jsonl")
INTO_POSTGRES = ("run", "tap-noojee", "target-postgres")
NOON = ("2021-09-14", 12)


def file_rows(project: Project) -> list[tuple[str, int, str, str]]:
    return [(r["CallRecordId"], r["Leg"], r["callend"], r["Start"]) for r in project.records]


def database_rows(server: Postgres) -> list[tuple[str, int, str, str]]:
    """Return each row's key, end and start, sorted. The columns hold UTC without an offset."""
    found = server.query(
        'SELECT "CallRecordId", "Leg", callend, "Start" FROM tap_noojee.recordings'
    )
    return sorted(
        (key, leg, callend.replace(tzinfo=UTC).isoformat(), start.replace(tzinfo=UTC).isoformat())
        for key, leg, callend, start in found
    )


def files_with(text: str, root: Path) -> set[str]:
    """Return the relative paths of files that contain a text, except in virtual environments."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file()
        and not {"venv", ".venv"} & set(path.parts)
        and text.encode() in path.read_bytes()
    }


def test_readme_commands_load_and_chart_a_day(project: Project, pbx: Simulator) -> None:
    first = block("README.md", "uv && .uv/bin/uv run --extra", "sh")
    again, another_day, first_day_again = block("README.md", "--day", "sh").splitlines()[1:]
    command = again.partition("  ")[0]  # without the comment
    assert first.strip().endswith(f"--group meltano {command}")
    first_day, second_day = (
        expected_legs(pbx, *DAY),
        expected_legs(pbx, "2021-09-15", "2021-09-16"),
    )

    # Turn off the simulator's rate limit, so that the test does not wait.
    project.shell(again.replace(" -- ", " --interval 0 -- "))
    assert file_rows(project) == as_rows(first_day)
    chart = project.shell(block("README.md", "duckdb", "sh"))
    noon = len(expected_legs(pbx, "2021-09-14T12:00", "2021-09-14T13:00"))
    (line,) = (line for line in chart.splitlines() if line.startswith("│    12 │"))
    assert line.split()[3] == str(noon)
    assert "█" in line

    assert "Nothing left to read" in project.shell(again)
    project.shell(another_day.replace("--day", "--interval 0 --day"))
    assert file_rows(project) == as_rows(first_day + second_day)
    project.shell(first_day_again)
    assert file_rows(project) == as_rows(first_day + second_day + first_day)


def test_bad_hour_does_not_affect_others(
    project: Project, pbx: Simulator, server: Postgres
) -> None:
    """One hour has a NUL, one is unreadable, and one is in Latin-1."""

    def body(name: str, charset: str, leg: Leg) -> bytes:
        record = leg.record(ZoneInfo(pbx.timezone)) | {"Username": name}
        return json.dumps([record], ensure_ascii=False).encode(charset)

    def first_leg(hour: int) -> Leg:
        return expected_legs(pbx, f"2021-09-14T{hour}:00", f"2021-09-14T{hour + 1}:00")[0]

    bodies = {
        13: body("A\0B", "utf-8", first_leg(13)),
        14: b'[{"Leg": "1"}]',
        15: body("Zoë", "latin-1", first_leg(15)),
    }
    for hour, content in bodies.items():
        pbx.failures.append(Failure("body", ("2021-09-14", hour), body=content))
    project.configure_tap(pbx, "2021-09-14T13:00:00", "2021-09-14T16:00:00")
    project.use_postgres(server)
    printed = project.meltano(*INTO_POSTGRES, status=1)
    assert "1 hour failed" in printed
    assert "2021-09-14 14:00: record 1: " in printed
    assert "Traceback" not in printed
    names = server.query('SELECT "Username" FROM tap_noojee.recordings ORDER BY callend')
    assert names == [("A\ufffdB",), ("Zoë",)]
    assert project.hours_read() == [
        ("2021-09-14T13:00", "2021-09-14T14:00"),
        ("2021-09-14T15:00", "2021-09-14T16:00"),
    ]
    pbx.requests.clear()
    project.meltano(*INTO_POSTGRES)
    assert requested_hours(pbx) == [("2021-09-14", 14)]
    middle = expected_legs(pbx, "2021-09-14T14:00", "2021-09-14T15:00")
    assert database_rows(server) == sorted(as_rows([first_leg(13), *middle, first_leg(15)]))


def test_killed_run_loses_no_leg(project: Project, pbx: Simulator, server: Postgres) -> None:
    project.configure_tap(pbx, *DAY)
    project.use_postgres(server)
    pbx.failures.append(Failure("stall", NOON))
    with project.start(*INTO_POSTGRES) as process:
        wait_until(lambda: NOON in requested_hours(pbx) or process.poll() is not None, seconds=60)
        assert process.poll() is None
        printed = project.meltano(*INTO_POSTGRES, status=1)
        assert f"Another '{project.state_id}' pipeline is already running" in printed
        os.killpg(process.pid, signal.SIGKILL)
    # A killed Meltano leaves the tap's settings, with the key, in its run folder.
    remaining = files_with(pbx.api_key, project.root / ".meltano")
    assert remaining
    assert all(name.startswith("run/tap-noojee/") for name in remaining)
    project.meltano(*INTO_POSTGRES, "--force")
    assert database_rows(server) == sorted(as_rows(expected_legs(pbx, *DAY)))


def test_meltano_neither_prints_nor_stores_secrets(project: Project, pbx: Simulator) -> None:
    pbx.api_key, salt = secrets.token_hex(), secrets.token_hex()
    pbx.failures.append(Failure("status", NOON, status=401))
    project.configure_tap(pbx, "2021-09-14T11:00:00", "2021-09-15")
    project.environment["TAP_NOOJEE_STREAM_MAP_CONFIG"] = json.dumps({"salt": salt})
    printed = [
        project.meltano("config", "print", "tap-noojee"),
        project.meltano("config", "list", "tap-noojee"),
        project.meltano("compile"),
        project.meltano("--log-level=debug", *INTO_FILE, status=1),
    ]
    assert "Global API key" in printed[-1]
    assert len(pbx.requests) == 2
    for secret in (pbx.api_key, salt):
        assert not [text for text in printed if secret in text]
        assert not files_with(secret, project.root)


def test_privacy_page_settings_remove_and_mask_fields(project: Project, pbx: Simulator) -> None:
    project.configure_tap(pbx, "2021-09-14T15:00:00", "2021-09-14T16:00:00")
    select = yaml.safe_load(block("docs/privacy.md", "select:", "yaml"))["select"]
    select.remove("!recordings.Username")  # the stream map removes this field
    project.environment["TAP_NOOJEE__SELECT"] = json.dumps(select)
    config: Any = yaml.safe_load(block("docs/privacy.md", "__NULL__", "yaml"))["config"]
    project.environment["TAP_NOOJEE_STREAM_MAPS"] = json.dumps(config["stream_maps"])
    project.meltano(*INTO_FILE)
    assert len(project.records) == 4
    for record in project.records:
        assert not {"Username", "Tag"} & record.keys()
        assert record["Destination"] == "xxxx"


def test_meltano_rewrites_dates_as_documented(project: Project, pbx: Simulator) -> None:
    (relative,) = re.findall("start_date '(.*)'", block("docs/privacy.md", "start_date", "sh"))

    def dates(start: str, end: str) -> tuple[datetime, datetime]:
        project.configure_tap(pbx, start, end)
        printed = project.meltano("config", "print", "tap-noojee")
        config = json.loads(printed[printed.index("{") :])
        return tuple(datetime.fromisoformat(config[f"{name}_date"]) for name in ("start", "end"))  # type: ignore[return-value]

    days = {f"{datetime.now(UTC):%d}"}
    start, end = dates("01/07/2024", "2024-07")
    days.add(f"{datetime.now(UTC):%d}")
    # Meltano reads 01/07 as January 7, and adds today's day of the month to 2024-07.
    assert start.isoformat() == "2024-01-07T00:00:00"
    assert end.isoformat() in {f"2024-07-{day}T00:00:00" for day in days}
    # Meltano writes a relative date in UTC, without an offset.
    start, _ = dates(relative, "2024-07-01")
    age = datetime.now(UTC).replace(tzinfo=None) - start
    assert 729 <= age.days <= 731


def test_views_work_on_rows_from_meltano(project: Project, server: Postgres) -> None:
    server = views.create_database(server, "reports")
    run(find_uv_bin(), "pip", "install", "--python", project.bin / "python", "psycopg[binary]")
    project.use_postgres(server)
    login = f"{server.user}:{server.password}@{server.host}:{server.port}/{server.database}"
    project.environment["MELTANO_DATABASE_URI"] = f"postgresql+psycopg://{login}"
    began = datetime.now(UTC)
    with Simulator(legs=views.ODD_LEGS) as pbx:
        project.configure_tap(pbx, "2021-04-05", "2021-04-06")
        project.meltano(*INTO_POSTGRES)
        project.configure_tap(pbx, "2021-04-05", "2021-04-07", TAP_NOOJEE_API_KEY="wrong")
        project.meltano(*INTO_POSTGRES, status=1)
    views.run(server, views.RUN_FILE)
    db = views.Database("postgres", partial(query_postgres, server), print)
    db.check(views.LEG, "legs", map(views.leg_row, views.ODD_LEGS))
    fresh = db.query("SELECT state_id, read_until, last_success, last_failure FROM freshness")
    ((found, until, success, failure),) = views.row_values(fresh)
    assert found.startswith("dev:tap-noojee-to-target-postgres")
    assert until == datetime(2021, 4, 5, 14, tzinfo=UTC)
    assert began < success < failure < datetime.now(UTC)
    assert server.query("SELECT count(*) FROM hours WHERE is_read") == [(24,)]
