"""The tap in a real Meltano, as the project's own meltano.yml has it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from datetime import datetime, timedelta
from hashlib import md5
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from conftest import as_records, requested, truth

from tap_noojee.simulator import Failure
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from projects import Project

    from tap_noojee.simulator import Simulator

pytestmark = pytest.mark.slow

pytest_plugins = ["projects"]

ROOT = Path(__file__).parent.parent
DAY = ("2021-09-14", "2021-09-15")
RUN = ("run", "tap-noojee", "target-jsonl")
NOON = ("2021-09-14", 12)


def written(project: Project) -> list[tuple[str, int, str, str]]:
    """Give the legs by key, end and start as they were written."""
    return [(r["CallRecordId"], r["Leg"], r["callend"], r["Start"]) for r in project.records]


# Running


def test_a_run_writes_the_legs_of_the_day(project: Project, pbx: Simulator) -> None:
    """Each leg that ended in the requested time is a line, with the right key and instants."""
    project.read(pbx, *DAY)
    project.meltano(*RUN)
    assert written(project) == as_records(truth(pbx, *DAY))


def test_a_second_run_does_nothing_more(project: Project, pbx: Simulator) -> None:
    """What has been read is neither requested nor written again."""
    project.read(pbx, *DAY)
    project.meltano(*RUN)
    before = project.output.read_bytes()
    pbx.requests.clear()
    project.meltano(*RUN)
    assert project.output.read_bytes() == before
    assert not pbx.requests


def test_a_failed_run_is_taken_up_where_it_failed(project: Project, pbx: Simulator) -> None:
    """Meltano reports the failure and its reason, and nothing is lost or read twice."""
    project.read(pbx, *DAY)
    pbx.failures.append(Failure("status", NOON, status=401))
    printed = project.meltano(*RUN, status=1)
    assert "2021-09-14 12:00: the PBX refuses access: check `api_key`" in printed
    assert "Extractor failed" in printed
    assert "Traceback" not in printed
    assert requested(pbx)[-1] == NOON
    pbx.requests.clear()
    project.meltano(*RUN)
    assert requested(pbx)[0] == NOON
    assert written(project) == as_records(truth(pbx, *DAY))


def test_a_killed_run_loses_nothing(project: Project, pbx: Simulator) -> None:
    """Killed with all its parts amid the day, a run leaves whole lines; the next adds the rest."""
    project.read(pbx, *DAY)
    pbx.failures.append(Failure("stall", NOON))
    with project.start(*RUN) as process:
        while NOON not in requested(pbx) or not project.output.exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    whole = as_records(truth(pbx, *DAY))
    assert 0 < len(written(project)) < len(whole)
    # For five minutes Meltano takes a killed run for one that still goes on.
    project.meltano(*RUN, "--force")
    assert set(written(project)) == set(whole)


def test_the_newest_hours_can_come_first(project: Project, pbx: Simulator) -> None:
    """Read backwards in two runs, the day is as whole as forwards."""
    project.read(
        *(pbx, *DAY), TAP_NOOJEE_BACKFILL_ORDER="newest_first", TAP_NOOJEE_MAX_HOURS_PER_RUN="12"
    )
    project.meltano(*RUN)
    assert requested(pbx) == [("2021-09-14", hour) for hour in range(23, 11, -1)]
    project.meltano(*RUN)
    assert sorted(written(project)) == sorted(as_records(truth(pbx, *DAY)))
    assert len(pbx.requests) == 24


def test_a_field_can_be_left_out(project: Project, pbx: Simulator) -> None:
    """A field that is not selected is not written; keys and `callend` always are."""
    project.read(pbx, "2021-09-14T15:00:00", "2021-09-14T16:00:00")
    project.environment["TAP_NOOJEE__SELECT"] = json.dumps(["recordings.Duration"])
    project.meltano(*RUN)
    assert {tuple(sorted(record)) for record in project.records} == {
        ("CallRecordId", "Duration", "Leg", "callend")
    }


def test_a_stream_map_of_the_environment_applies(project: Project, pbx: Simulator) -> None:
    """Stream maps are declared, so Meltano hands them on: no number is written in the clear."""
    project.read(pbx, "2021-09-14T15:00:00", "2021-09-14T16:00:00")
    project.environment["TAP_NOOJEE_STREAM_MAPS"] = json.dumps(
        {"recordings": {"Source": "md5(Source)"}}
    )
    project.meltano(*RUN)
    assert {record["Source"] for record in project.records} == {
        md5(b"500", usedforsecurity=False).hexdigest()
    }


def bookmark(project: Project) -> dict[str, Any]:
    """The bookmark that Meltano has of the last run."""
    suffix = project.environment["MELTANO_RUN_STATE_ID_SUFFIX"]
    state = json.loads(
        project.meltano("state", "get", f"dev:tap-noojee-to-target-jsonl:{suffix}").splitlines()[
            -1
        ]
    )
    found: dict[str, Any] = state["singer_state"]["bookmarks"]["recordings"]
    return found


@pytest.mark.parametrize("option", ["--state-strategy=merge", "--full-refresh"])
def test_what_is_owed_is_paid_in_a_merged_state(
    project: Project, pbx: Simulator, option: str
) -> None:
    """Where Meltano merges two states, what was owed and has been read is owed no longer."""
    project.read(
        *(pbx, *DAY), TAP_NOOJEE_BACKFILL_ORDER="newest_first", TAP_NOOJEE_MAX_HOURS_PER_RUN="12"
    )
    project.meltano(*RUN)
    assert len(bookmark(project)["owed"]) == 1
    del project.environment["TAP_NOOJEE_MAX_HOURS_PER_RUN"]
    project.meltano(*RUN, option)
    assert bookmark(project)["owed"] == []
    pbx.requests.clear()
    project.meltano(*RUN)
    assert not pbx.requests


def test_a_start_date_that_is_moved_reads_what_is_missing(
    project: Project, pbx: Simulator
) -> None:
    """Moved to an earlier time between two runs, start_date brings just the hours before."""
    project.read(pbx, "2021-09-14T12:00:00", "2021-09-14T15:00:00")
    project.meltano(*RUN)
    pbx.requests.clear()
    project.read(pbx, "2021-09-14T10:00:00", "2021-09-14T15:00:00")
    printed = project.meltano(*RUN)
    assert requested(pbx) == [("2021-09-14", 10), ("2021-09-14", 11)]
    assert "History goes back further than before: 2 hours to read" in printed


def test_a_relative_date_is_in_utc(project: Project, pbx: Simulator) -> None:
    """`5 hours ago` is five hours before now, whatever the zone of the PBX."""
    project.read(pbx, "5 hours ago", "")
    project.meltano(*RUN)
    now = datetime.now(ZoneInfo(pbx.timezone))
    day, hour = requested(pbx)[0]
    first = datetime.fromisoformat(f"{day}T{hour:02}:00").replace(tzinfo=now.tzinfo)
    assert timedelta(hours=5) <= now - first < timedelta(hours=6, minutes=1)


# Other commands


def test_the_settings_can_be_tried_out(project: Project, pbx: Simulator) -> None:
    """`meltano config test` passes with settings that work, and does not read on."""
    project.read(pbx, *DAY)
    assert "Plugin configuration is valid" in project.meltano("config", "test", "tap-noojee")
    assert len(pbx.requests) < 24


def test_a_wrong_key_is_reported(project: Project, pbx: Simulator) -> None:
    """`meltano config test` fails with the reason, and does not show the key."""
    project.read(pbx, *DAY, TAP_NOOJEE_API_KEY="not-to-be-seen")
    printed = project.meltano("config", "test", "tap-noojee", status=1)
    assert "check `api_key`" in printed
    assert "not-to-be-seen" not in printed


def test_the_fields_are_listed(project: Project) -> None:
    """`meltano select --list` shows all fields without any setting, and which are always there."""
    listed = project.meltano("select", "tap-noojee", "--list", "--all")
    fields = re.findall(r"\[(\w+) *\] recordings\.(\w+)", listed)
    always = {name for how, name in fields if how == "automatic"}
    assert (len(fields), always) == (12, {"CallRecordId", "Leg", "callend"})


# What meltano.yml, the tap and the README say


def settings_of_the_tap() -> dict[str, dict[str, Any]]:
    """Give the settings that the tap has of its own."""
    properties: dict[str, dict[str, Any]] = TapNoojee.config_jsonschema["properties"]
    added_by_sdk = ("stream_map", "faker_", "flattening_")
    return {n: p for n, p in properties.items() if not n.startswith(added_by_sdk)}


def kind(setting: dict[str, Any]) -> str:
    """Give Meltano's word for the type of a setting."""
    if setting.get("format") == "date-time":
        return "date_iso8601"
    if "enum" in setting:
        return "options"
    (found,) = (name for name in setting["type"] if name != "null")
    return str(found)


@pytest.fixture(scope="session")
def extractor() -> dict[str, Any]:
    """Read what meltano.yml has of the tap."""
    content = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))
    found: dict[str, Any]
    (found,) = content["plugins"]["extractors"]
    return found


def test_meltano_has_the_settings_of_the_tap(extractor: dict[str, Any]) -> None:
    """Names, order, kinds, defaults, labels, descriptions, choices and secrets are the tap's."""
    expected = []
    for name, setting in settings_of_the_tap().items():
        one = {"name": name, "label": setting["title"], "kind": kind(setting)}
        one["description"] = setting["description"]
        if "default" in setting:
            one["value"] = setting["default"]
        if "enum" in setting:
            one["options"] = [
                {"label": value.replace("_", " ").capitalize(), "value": value}
                for value in setting["enum"]
            ]
        if setting.get("secret"):
            one["sensitive"] = True
        expected.append(one)
    assert extractor["settings"][: len(expected)] == expected


def test_meltano_asks_for_what_the_tap_requires(extractor: dict[str, Any]) -> None:
    """There is one set of settings with which the tap can run."""
    required = TapNoojee.config_jsonschema["required"]
    assert extractor["settings_group_validation"] == [sorted(required)]


def test_meltano_knows_what_the_tap_can_do(extractor: dict[str, Any]) -> None:
    """The capabilities are the tap's own."""
    about = TapNoojee._get_about_info()  # noqa: SLF001 - what `--about` prints
    assert extractor["capabilities"] == sorted(c.value for c in about.capabilities)


@pytest.fixture(scope="session")
def table() -> dict[str, list[str]]:
    """Read the README's table of settings: the other columns by name."""
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        for line in lines
        if line.lstrip().startswith("|")
    ]
    head = rows.index(["setting", "type", "default", "meaning"])
    # Another table would follow with other columns.
    ours = takewhile(lambda row: len(row) == len(rows[head]), rows[head + 2 :])
    return {name: rest for name, *rest in ours}


def test_the_readme_has_the_settings_of_the_tap(table: dict[str, list[str]]) -> None:
    """Names and their order, types and defaults are the tap's own, and each has a meaning."""
    settings = settings_of_the_tap()
    assert list(table) == list(settings)
    words = {"date_iso8601": ("date",), "options": ("string", "option", "one of")}
    for name, setting in settings.items():
        type_, default, meaning = table[name]
        assert type_.startswith(words.get(kind(setting), (kind(setting),))), name
        assert ("secret" in type_) == setting.get("secret", False), name
        if name in TapNoojee.config_jsonschema["required"]:
            assert default == "required", name
        elif "default" in setting:
            assert default == str(setting["default"]), name
        else:
            _, _, instead = setting["description"].partition("Without it: ")
            assert default in {"", "none", instead.removesuffix(".")}, name
        assert meaning, name
        assert all(choice in "".join(table[name]) for choice in setting.get("enum", [])), name
