"""A project of one's own, made by the README's text, and the recipes in it, by real Meltano."""

from __future__ import annotations

import json
import os
import signal
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from conftest import requested

from tap_noojee.simulator import Failure, Simulator

if TYPE_CHECKING:
    from pathlib import Path

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
        own.environment |= {
            "TAP_NOOJEE_START_DATE": HOUR[0],
            "TAP_NOOJEE_END_DATE": HOUR[1],
            "TAP_NOOJEE_REQUEST_INTERVAL": "0",
            "TAP_NOOJEE__SYDNEY_API_URL": sydney.url,
            "TAP_NOOJEE__SYDNEY_API_KEY": "key-of-sydney",
            "TAP_NOOJEE__PERTH_API_URL": perth.url,
            "TAP_NOOJEE__PERTH_API_KEY": "key-of-perth",
        }
        for _ in range(2):
            own.meltano(*both)
            assert requested(sydney) == requested(perth) == [("2021-09-14", 15)]
    marks = []
    for name in ("sydney", "perth"):
        found = state(own, state_id(own).replace("tap-noojee", f"tap-noojee--{name}"))
        marks.append(found["singer_state"]["bookmarks"]["recordings"]["replication_key_value"])
    # The hour ends two hours later in Perth.
    assert marks == ["2021-09-14T06:00:00+00:00", "2021-09-14T08:00:00+00:00"]


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


@pytest.mark.parametrize("salted", [True, False])
def test_a_mapper_hashes_only_with_its_salt(own: Project, pbx: Simulator, *, salted: bool) -> None:
    """The page's mapper hashes numbers with the salt; without one nothing is written."""
    own.read(pbx, *HOUR)
    if salted:
        salt = json.dumps({"salt": "pepper"})
        own.environment["MELTANO_MAP_TRANSFORMER_STREAM_MAP_CONFIG"] = salt
    own.meltano("run", "tap-noojee", "hash-numbers", "target-jsonl", status=not salted)
    sources = {record["Source"] for record in own.records}
    assert sources == ({sha256(b"pepper500").hexdigest()} if salted else set())


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
    from projects import block, shell  # noqa: PLC0415 - after pytest has loaded it as a plugin

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
