"""A project of one's own, made by the README's text, and the recipes in it, by real Meltano."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from conftest import requested
from environments import Environment
from pages import block, shell
from targets import loader, query_duckdb

from tap_noojee.simulator import Failure, Leg, Simulator

if TYPE_CHECKING:
    from pathlib import Path

    from postgres import Postgres
    from projects import FirstSteps, Project

pytestmark = pytest.mark.slow

pytest_plugins = ["projects"]

HOUR = ("2021-09-14T15:00:00", "2021-09-14T16:00:00")
RUN = ("run", "tap-noojee", "target-jsonl")
STATE_ID = "dev:tap-noojee-to-target-jsonl"


def state_id(project: Project) -> str:
    """The name of the state of this test's runs."""
    return f"{STATE_ID}:{project.environment['MELTANO_RUN_STATE_ID_SUFFIX']}"


def state(project: Project, name: str) -> dict[str, Any]:
    """A state as Meltano prints it."""
    found: dict[str, Any] = json.loads(project.meltano("state", "get", name).splitlines()[-1])
    return found


def named(plugins: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The one plugin of a name."""
    (found,) = (plugin for plugin in plugins if plugin["name"] == name)
    return found


def read_both(project: Project, sydney: Simulator, perth: Simulator, *hour: str) -> None:
    """Set what to read of the PBXs of the recipe."""
    project.environment |= {
        "TAP_NOOJEE_START_DATE": hour[0],
        "TAP_NOOJEE_END_DATE": hour[1],
        "TAP_NOOJEE_REQUEST_INTERVAL": "0",
        "TAP_NOOJEE__SYDNEY_API_URL": sydney.url,
        "TAP_NOOJEE__SYDNEY_API_KEY": sydney.api_key,
        "TAP_NOOJEE__PERTH_API_URL": perth.url,
        "TAP_NOOJEE__PERTH_API_KEY": perth.api_key,
    }


def files_with(text: str, root: Path) -> set[str]:
    """The files of a project, but for installed packages, that contain a text."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and "venv" not in path.parts and text.encode() in path.read_bytes()
    }


def test_the_readmes_steps_end_in_one_answered_request(first_steps: FirstSteps) -> None:
    """The README's own text adds the tap to an empty project; `--test` makes one request.

    The simulator answers 401 to any key but the one that the text puts into `.env`.
    """
    assert first_steps.statuses == [200], first_steps.printed


def test_the_own_project_reads_an_hour(own: Project, pbx: Simulator) -> None:
    """What the README's steps made runs into a target."""
    own.read(pbx, *HOUR)
    own.meltano(*RUN)
    assert requested(pbx) == [("2021-09-14", 15)]
    assert {record["Source"] for record in own.records} == {"500"}


def test_each_pbx_has_settings_and_a_state_of_its_own(own: Project) -> None:
    """By the recipe, each PBX gets its own key and requests, and neither reads an hour twice."""
    both = ("run", "tap-noojee--sydney", "target-jsonl", "tap-noojee--perth", "target-jsonl")
    with (
        Simulator(timezone="Australia/Sydney", api_key="key-of-sydney") as sydney,
        Simulator(timezone="Australia/Perth", api_key="key-of-perth") as perth,
    ):
        read_both(own, sydney, perth, *HOUR)
        for _ in range(2):
            own.meltano(*both)
            assert requested(sydney) == requested(perth) == [("2021-09-14", 15)]
    marks = []
    for name in ("sydney", "perth"):
        found = state(own, state_id(own).replace("tap-noojee", f"tap-noojee--{name}"))
        marks.append(found["singer_state"]["bookmarks"]["recordings"]["replication_key_value"])
    # The hour ends two hours later in Perth.
    assert marks == ["2021-09-14T06:00:00+00:00", "2021-09-14T08:00:00+00:00"]


SHARED = "__key_properties__"
"""What is in the part of the recipe that lets PBXs share a table."""
BOTH = ("run", "tap-noojee--sydney", "target-postgres", "tap-noojee--perth", "target-postgres")
END = datetime(2021, 9, 14, 5, 30, tzinfo=UTC)


def share(project: Project) -> None:
    """Add to both PBXs what the recipe adds to the first."""
    content = project.content
    for name in ("sydney", "perth"):
        plugin = named(content["plugins"]["extractors"], f"tap-noojee--{name}")
        shared = yaml.safe_load(block("docs/recipes.md", SHARED, "yaml").replace("sydney", name))
        plugin["config"] |= shared.pop("config")
        plugin |= shared
    project.content = content


def two_legs(source: str) -> list[Leg]:
    """Legs that have the same ids on each PBX, and another source."""
    return [Leg(END, END, "1", leg, source=source) for leg in (1, 2)]


def shared_rows(server: Postgres) -> list[tuple[Any, ...]]:
    """PBX, ids and source of each leg, in order, of the recipe's table."""
    return server.query(
        'SELECT pbx, "CallRecordId", "Leg", "Source" FROM noojee.recordings ORDER BY 1, 2, 3'
    )


def as_shared_rows(name: str, source: str) -> list[tuple[str, str, int, str]]:
    """The rows that the two legs of a PBX should be."""
    return [(name, "1", leg, source) for leg in (1, 2)]


def test_two_pbxs_share_a_table_and_no_row(own: Project, server: Postgres) -> None:
    """By the recipe, legs of the same ids are rows of their own, each replaced by its own PBX."""
    share(own)
    own.load_into(server, "noojee")
    with (
        Simulator(timezone="Australia/Sydney", legs=two_legs("200")) as sydney,
        Simulator(timezone="Australia/Perth", legs=two_legs("800")) as perth,
    ):
        read_both(own, sydney, perth, "2021-09-14T05:00:00Z", "2021-09-14T06:00:00Z")
        own.meltano(*BOTH)
        of_perth = as_shared_rows("perth", "800")
        assert shared_rows(server) == of_perth + as_shared_rows("sydney", "200")
        sydney.legs = two_legs("201")
        own.environment["TAP_NOOJEE_LOOKBACK_HOURS"] = "1"
        own.meltano(*BOTH)
        assert len(sydney.requests) == len(perth.requests) == 2
        assert shared_rows(server) == of_perth + as_shared_rows("sydney", "201")


def test_a_table_of_one_pbx_becomes_one_of_both(own: Project, server: Postgres) -> None:
    """By the recipe's SQL, what the first PBX has loaded stays, and the second's comes to it."""
    own.load_into(server, "noojee")
    with (
        Simulator(timezone="Australia/Sydney", legs=two_legs("200")) as sydney,
        Simulator(timezone="Australia/Perth", legs=two_legs("800")) as perth,
    ):
        read_both(own, sydney, perth, "2021-09-14T05:00:00Z", "2021-09-14T06:00:00Z")
        own.environment["TAP_NOOJEE__SYDNEY__LOAD_SCHEMA"] = "noojee"
        own.meltano(*BOTH[:3])
        server.execute(block("docs/recipes.md", "ALTER TABLE", "sql"))
        share(own)
        sydney.legs = two_legs("201")
        own.environment["TAP_NOOJEE_LOOKBACK_HOURS"] = "1"
        own.meltano(*BOTH)
    expected = as_shared_rows("perth", "800") + as_shared_rows("sydney", "201")
    assert shared_rows(server) == expected


def test_a_setting_of_the_first_pbx_does_not_reach_the_others(own: Project) -> None:
    """The address and zone in the recipe go before the first extractor's in the environment."""
    own.environment |= {"TAP_NOOJEE_API_URL": "https://a.b", "TAP_NOOJEE_TIMEZONE": "Asia/Tokyo"}
    printed = own.meltano("config", "print", "tap-noojee--perth", "--format=json")
    config = json.loads(printed[printed.index("{") :])
    assert config["api_url"] == "https://perth.example.com"
    assert config["timezone"] == "Australia/Perth"


def test_a_schedule_runs_a_job(own: Project, pbx: Simulator) -> None:
    """A job that is scheduled at ten past each hour reads what the tap reads without it."""
    own.read(pbx, *HOUR)
    own.meltano("job", "add", "calls", "--tasks", "[tap-noojee target-jsonl]")
    own.meltano("schedule", "add", "hourly", "--job", "calls", "--interval", "10 * * * *")
    own.meltano("schedule", "run", "hourly")
    assert requested(pbx) == [("2021-09-14", 15)]
    assert len(own.records) == 4


def crontab(project: Project, containing: str) -> tuple[list[str], str]:
    """The five fields and the command of a line of the page, for this project."""
    (line,) = (
        line
        for line in block("docs/recipes.md", containing, "crontab").splitlines()
        if containing in line
    )
    *fields, command = line.split(maxsplit=5)
    assert "/srv/calls" in command
    return fields, command.replace("/srv/calls", str(project.root))


def test_cron_reads_an_hour_by_the_line_of_the_page(
    own: Project, pbx: Simulator, server: Postgres
) -> None:
    """The page's line is for minute 10 of each hour; with its PATH, its command loads the legs."""
    own.read(pbx, *HOUR)
    own.load_into(server, "tap_noojee")
    fields, command = crontab(own, "&& meltano run")
    assert fields == ["10", "*", "*", "*", "*"]
    (path,) = re.findall(
        "^PATH=(.*)$", block("docs/recipes.md", "&& meltano run", "crontab"), re.MULTILINE
    )
    path = path.replace("/srv/calls/.venv/bin", str(own.bin))
    subprocess.run(
        ["sh", "-c", command], cwd="/", env=own.environment | {"PATH": path}, check=True
    )
    assert server.query("SELECT count(*) FROM tap_noojee.recordings") == [(4,)]


def test_a_lock_keeps_a_second_run_from_beginning(own: Project, server: Postgres) -> None:
    """While the page's line runs, the same line does nothing and exits with 1."""
    fields, command = crontab(own, "flock")
    assert fields == ["10", "*", "*", "*", "*"]
    own.load_into(server, "tap_noojee")
    with Simulator(latency=5) as pbx:
        own.read(pbx, *HOUR)
        path = f"{own.bin}{os.pathsep}{own.environment['PATH']}"
        start = partial(
            subprocess.Popen,
            ["sh", "-c", command],
            env=own.environment | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with start() as first:
            while not pbx.requests:
                assert first.poll() is None
                time.sleep(0.05)
            with start() as second:
                printed, _ = second.communicate()
            assert (second.returncode, printed) == (1, "")
            printed, _ = first.communicate()
        assert first.returncode == 0, printed
        assert len(pbx.requests) == 1
    assert server.query("SELECT count(*) FROM tap_noojee.recordings") == [(4,)]


def test_a_job_brings_one_pbx_into_two_targets(own: Project, server: Postgres) -> None:
    """By the page's commands, each target gets the hour, and one request is rejected at most."""
    own.load_into(server, "tap_noojee")
    with Simulator(interval=15) as pbx:
        own.read(pbx, *HOUR, TAP_NOOJEE_REQUEST_INTERVAL="15")
        shell(block("docs/recipes.md", "meltano job add", "sh"), own.root, own.environment)
        assert set(requested(pbx)) == {("2021-09-14", 15)}
        statuses = [request.status for request in pbx.requests]
    # On a slow machine the second run may begin so late that nothing is rejected.
    assert statuses in ([200, 429, 200], [200, 200])
    rows = server.query('SELECT "CallRecordId", "Leg" FROM tap_noojee.recordings')
    assert sorted(rows) == sorted((r["CallRecordId"], r["Leg"]) for r in own.records)
    assert len(rows) == 4


def test_a_relative_date_of_meltano_yml_is_in_utc(own: Project) -> None:
    """`5 hours ago` stays as it is in meltano.yml, and means that on a PBX far from UTC."""
    own.meltano("config", "set", "tap-noojee", "start_date", "5 hours ago")
    extractor = named(own.content["plugins"]["extractors"], "tap-noojee")
    assert extractor["config"]["start_date"] == "5 hours ago"
    with Simulator(timezone="Pacific/Kiritimati") as pbx:
        own.read(pbx, "", "", TAP_NOOJEE_TIMEZONE=pbx.timezone)
        del own.environment["TAP_NOOJEE_START_DATE"]
        own.meltano(*RUN)
    now = datetime.now(ZoneInfo(pbx.timezone))
    day, hour = requested(pbx)[0]
    first = datetime.fromisoformat(f"{day}T{hour:02}:00").replace(tzinfo=now.tzinfo)
    # The whole hour in which it was five hours before the run, which took some minutes at most.
    assert timedelta(hours=5) <= now - first < timedelta(hours=6, minutes=5)


def test_the_state_of_a_run_tells_that_hours_are_read(
    own: Project, pbx: Simulator, server: Postgres
) -> None:
    """By the steps of the page on analysis, what Meltano prints of a run says `reading`."""
    start = datetime.now(UTC) - timedelta(hours=3)
    own.read(pbx, start.isoformat(timespec="seconds"), "")
    own.load_into(server, "tap_noojee")
    own.meltano("run", "tap-noojee", "target-postgres")
    page = "docs/analysis.md"
    get, name = block(page, "meltano state get", "sh"), "prod:tap-noojee-to-target-postgres"
    assert name in get
    ours = state_id(own).replace("target-jsonl", "target-postgres")
    shell(get.replace(name, ours), own.root, own.environment)
    server.execute("DROP TABLE IF EXISTS tap_state")
    for text in ("FROM tap_noojee.recordings", "TABLE IF NOT EXISTS tap_state"):
        server.execute(block(page, text, "sql"))
    shell(block(page, "psql", "sh"), own.root, own.environment | server.environment)
    ((read_until, pipeline, gaps, _),) = server.query(block(page, "AS pipeline", "sql"))
    assert (pipeline, gaps) == ("reading", 0)
    assert read_until.minute == 0
    assert timedelta() <= datetime.now(UTC) - read_until < timedelta(hours=2)


@pytest.mark.parametrize("heading", ["target-duckdb", "target-csv of MeltanoLabs"])
def test_a_target_of_the_page_runs_in_meltano(own: Project, pbx: Simulator, heading: str) -> None:
    """As the page on targets defines it, Meltano installs a loader, and it gets the legs."""
    content, definition = own.content, loader(heading)
    content["plugins"]["loaders"].append(definition)
    own.content = content
    name = definition["name"]
    own.read(pbx, *HOUR)
    own.meltano("install", "loader", name)
    own.meltano("run", "tap-noojee", name)
    if name == "target-csv":
        (path,) = own.root.glob("recordings-*.csv")
        with path.open(encoding="utf-8", newline="") as file:
            sources = [row["Source"] for row in csv.DictReader(file)]
    else:
        env = Environment(own.root / ".meltano" / "loaders" / name / "venv")
        path = own.root / definition["config"]["path"]
        rows = query_duckdb(env, path, "SELECT source FROM noojee.recordings")
        sources = [row["source"] for row in rows]
    path.unlink()
    assert sources == ["500"] * 4


@pytest.mark.parametrize(
    ("heading", "masked"),
    [
        ("Parquet, by target-s3", {}),
        ("target-postgres of PipelineWise", {"password": "*****"}),
    ],
)
def test_meltano_gives_a_target_what_the_page_sets(
    own: Project, heading: str, masked: dict[str, str]
) -> None:
    """Settings that the page nests stay nested; the password comes from the environment."""
    content, definition = own.content, loader(heading)
    content["plugins"]["loaders"] = [definition]
    own.content = content
    own.environment["TARGET_POSTGRES_PASSWORD"] = "not-to-be-seen"  # noqa: S105 - of nobody
    printed = own.meltano("config", "print", definition["name"], "--format=json")
    assert json.loads(printed[printed.index("{") :]) == definition["config"] | masked


@pytest.mark.parametrize("salt", ["sixteen are many", "fifteen are few", "", None])
def test_a_mapper_hashes_only_with_its_salt(
    own: Project, pbx: Simulator, salt: str | None
) -> None:
    """The page's mapper hashes numbers with a salt that protects; else nothing is written."""
    own.read(pbx, *HOUR)
    if salt is not None:
        config = json.dumps({"salt": salt})
        own.environment["MELTANO_MAP_TRANSFORMER_STREAM_MAP_CONFIG"] = config
    good = salt == "sixteen are many"
    own.meltano("run", "tap-noojee", "hash-numbers", "target-jsonl", status=not good)
    sources = {record["Source"] for record in own.records}
    assert sources == ({sha256(f"{salt}500".encode()).hexdigest()} if good else set())


def test_a_state_that_is_copied_counts(own: Project, pbx: Simulator) -> None:
    """After `meltano state copy`, a run under the other name reads no hour again."""
    own.read(pbx, *HOUR)
    own.meltano(*RUN)
    copy = f"{state_id(own)}-copy"
    own.meltano("state", "copy", "--force", state_id(own), copy)
    pbx.requests.clear()
    own.environment["MELTANO_RUN_STATE_ID_SUFFIX"] += "-copy"
    own.meltano(*RUN)
    assert not pbx.requests


def test_a_stretch_is_read_again_as_the_recipe_says(own: Project, pbx: Simulator) -> None:
    """The page's commands print and set the state; what is added to `owed` is read and paid."""
    own.read(pbx, "2021-09-14T12:00:00", "2021-09-14T16:00:00")
    own.meltano(*RUN)
    text = block("docs/recipes.md", "--input-file", "sh")
    name = "dev:tap-noojee-to-target-postgres"
    assert text.count(name) == 2
    get, put = text.replace(name, state_id(own)).splitlines()
    shell(get, own.root, own.environment)
    path = own.root / "state.json"
    content = json.loads(path.read_text("utf-8"))
    owed = [{"start": "2021-09-14T03:00:00+00:00", "end": "2021-09-14T04:00:00+00:00"}]
    content["singer_state"]["bookmarks"]["recordings"]["owed"] = owed
    path.write_text(json.dumps(content), "utf-8")
    shell(put, own.root, own.environment, answer="y\n")
    pbx.requests.clear()
    own.meltano(*RUN)
    assert requested(pbx) == [("2021-09-14", 13)]
    assert state(own, state_id(own))["singer_state"]["bookmarks"]["recordings"]["owed"] == []


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_what_meltano_keeps_of_a_run_that_is_stopped(own: Project, stop: signal.Signals) -> None:
    """It keeps no state; a file with the key is left behind by SIGKILL alone."""
    key = f"key-of-a-run-stopped-by-{stop.name}"
    with Simulator(api_key=key, failures=[Failure("stall", ("2021-09-14", 14))]) as pbx:
        own.read(pbx, "2021-09-14T12:00:00", "2021-09-14T16:00:00")
        with own.start(*RUN) as process:
            while ("2021-09-14", 14) not in requested(pbx):
                assert process.poll() is None
                time.sleep(0.05)
            # A second run of the same extractor and loader is refused meanwhile.
            printed = own.meltano(*RUN, status=1)
            assert f"Another '{state_id(own)}' pipeline is already running" in printed
            if stop is signal.SIGTERM:
                os.kill(process.pid, stop)
            else:
                os.killpg(process.pid, stop)
    assert state(own, state_id(own)) == {}
    left = files_with(key, own.root)
    assert bool(left) == (stop is signal.SIGKILL)
    for name in left:
        assert name.startswith(".meltano/run/tap-noojee/")
        (own.root / name).unlink()


def test_the_key_is_in_nothing_that_meltano_prints_or_keeps(own: Project) -> None:
    """After a run at debug level, and one that failed, it is in no output and no file."""
    key = "key-that-is-not-to-be-seen"
    with Simulator(api_key=key) as pbx:
        own.read(pbx, *HOUR)
        printed = [
            own.meltano("config", "print", "tap-noojee"),
            own.meltano("config", "list", "tap-noojee"),
            own.meltano("compile"),
            own.meltano("--log-level=debug", *RUN),
            own.meltano("--log-level=debug", "invoke", "tap-noojee", "--test"),
        ]
        assert len(pbx.requests) == 2
        pbx.failures.append(Failure("status", ("2021-09-14", 15), status=401))
        printed.append(own.meltano("--log-level=debug", *RUN, "--full-refresh", status=1))
    assert not [text for text in printed if key in text]
    assert not files_with(key, own.root)
