"""The command line: options, files, exit codes and the last line of the log."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from commands import SAMPLE_HOUR, run_command, run_with
from conftest import requested_hours, settings
from singer_sdk.exceptions import SingerSDKError
from singer_sdk.plugin_base import SingerCommand

from tap_noojee.errors import NoojeeError
from tap_noojee.simulator import API_KEY, Failure, Simulator


def test_successful_run_exits_0_and_ends_with_state(pbx: Simulator, tmp_path: Path) -> None:
    done = run_with(pbx, tmp_path)
    assert (done.code, done.logged("WARNING", "ERROR")) == (0, [])
    assert (len(done.records), done.messages[-1]["type"]) == (4, "STATE")
    assert API_KEY[:8] not in done.log + done.output


def test_run_continues_from_a_state_file(pbx: Simulator, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps(run_with(pbx, tmp_path).states[-1]))
    done = run_with(pbx, tmp_path, "--state", state, end_date="2021-09-14T17:00")
    assert done.code == 0
    assert requested_hours(pbx) == [("2021-09-14", 15), ("2021-09-14", 16)]


def test_failed_run_exits_1_and_logs_the_error_last(pbx: Simulator, tmp_path: Path) -> None:
    pbx.failures.append(Failure("status", status=403, times=2))
    done = run_with(pbx, tmp_path)
    assert done.code == 1
    (line,) = done.logged("ERROR")
    assert done.log.rstrip().endswith(line)
    assert line.startswith("2021-09-14 15:00: ")
    assert done.messages[-1]["type"] == "STATE"


@pytest.mark.parametrize("env", [{}, {"TAP_NOOJEE_TIMEZONE": "Mars"}], ids=["none", "bad zone"])
def test_discover_about_version_and_help_need_no_settings(env: dict[str, str]) -> None:
    catalog = json.loads(run_command("--discover", env=env).output)
    (stream,) = catalog["streams"]
    assert stream["tap_stream_id"] == "recordings"
    about = json.loads(run_command("--about", "--format=json", env=env).output)
    assert (about["name"], about["version"]) == ("tap-noojee", version("tap-noojee"))
    assert set(about["settings"]["required"]) == {"api_url", "api_key", "start_date"}
    assert version("tap-noojee") in run_command("--version", env=env).output
    assert "--discover" in run_command("--help", env=env).output


def test_failed_connection_test_exits_1_and_is_not_retried(pbx: Simulator, tmp_path: Path) -> None:
    done = run_with(pbx, tmp_path, "--test")
    assert (done.code, len(requested_hours(pbx))) == (0, 1)
    for count, status in enumerate((401, 503, 429, 403), 2):
        pbx.failures.append(Failure("status", status=status))
        done = run_with(pbx, tmp_path, "--test")
        assert (done.code, len(requested_hours(pbx))) == (1, count), status
        line = done.logged("ERROR")[-1]
        assert done.log.rstrip().endswith(line)
        assert f"status {status}" in line
        assert "attempts" not in line


def test_unusable_settings_file_is_a_one_line_error(tmp_path: Path) -> None:
    paths = [tmp_path, tmp_path / "missing.json"]
    for number, content in enumerate(
        (b"", b"{", b'{"api_key": "\xff"}', b'{"a": nan}', b'"x"', b"5", b"null", b"[1]")
    ):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_bytes(content)
    for path in paths:
        for options in ([], ["--test"], ["--discover"]):
            line = run_command("--config", path, *options).error_line
            assert line.startswith("config: "), path


@pytest.mark.parametrize(
    "options", [["--state", "missing"], ["--catalog", "missing"], ["--unknown"], ["unknown"]]
)
def test_usage_error_exits_2(pbx: Simulator, tmp_path: Path, options: list[str]) -> None:
    done = run_with(pbx, tmp_path, *options)
    assert (done.code, done.output) == (2, "")
    assert options[-1] in done.log.splitlines()[-1]


def test_environment_and_later_files_override_earlier_files(
    pbx: Simulator, tmp_path: Path
) -> None:
    files = tmp_path / "first.json", tmp_path / "second.json"
    files[0].write_text(json.dumps(settings(pbx, **SAMPLE_HOUR, timezone="Mars")))
    files[1].write_text(json.dumps({"timezone": "Venus"}))
    options = ["--config", files[0], "--config", files[1]]
    assert "'Venus'" in run_command(*options).error_line
    env = {"TAP_NOOJEE_TIMEZONE": "Australia/Melbourne"}
    assert run_command(*options, "--config", "ENV", env=env).code == 0


def test_unusable_state_is_a_one_line_error(pbx: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    values: tuple[Any, ...] = ([], None, {"recordings": 5}, {"other": None})
    states: list[tuple[dict[str, Any], str]] = [
        *(({"bookmarks": value}, "`bookmarks` must map") for value in values),
        ({"bookmarks": {"recordings": {"replication_key_value": 5}}}, "replication_key_value"),
        # These are a whole STATE message and the output of `meltano state get`.
        ({"value": {"bookmarks": {}}}, "`value`"),
        ({"singer_state": {"bookmarks": {}}}, "`singer_state`"),
    ]
    for state, problem in states:
        path.write_text(json.dumps(state))
        line = run_with(pbx, tmp_path, "--state", path).error_line
        assert line.startswith("state: "), state
        assert problem in line
    assert requested_hours(pbx) == []


@pytest.mark.parametrize("file", ["catalog", "state"])
def test_unreadable_catalog_or_state_file_is_a_one_line_error(
    pbx: Simulator, tmp_path: Path, file: str
) -> None:
    path = tmp_path / "file.json"
    problems = {
        "is empty": [b"", b" \n", b"\xef\xbb\xbf"],
        "is not JSON": [b"{", b'{"a": "\xff"}', b'{"a":' * 100_000, "{}".encode("utf-16")],
        "is not a JSON object": [b"[]", b"null"],
    }
    for problem, contents in problems.items():
        for content in contents:
            path.write_bytes(content)
            line = run_with(pbx, tmp_path, f"--{file}", path).error_line
            assert line == f"{file}: the file {problem}", content[:20]
    assert requested_hours(pbx) == []


def test_byte_order_mark_in_catalog_or_state_is_ignored(pbx: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    catalog = {"streams": [{"tap_stream_id": "recordings"}]}
    for file, content in {"catalog": catalog, "state": {}}.items():
        path.write_text(json.dumps(content), "utf-8-sig")
        assert len(run_with(pbx, tmp_path, f"--{file}", path).records) == 4


def test_known_error_is_logged_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, line in (
        (NoojeeError("what to do"), "what to do"),
        (SingerSDKError("no stream"), "no stream"),
        (SingerSDKError(), "SingerSDKError"),
    ):
        monkeypatch.setattr(SingerCommand, "main", Mock(side_effect=error))
        assert run_command().error_line == line


def test_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SingerCommand, "main", Mock(side_effect=ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        run_command()
