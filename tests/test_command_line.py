"""The tap as a process: what it prints, how it ends, how it stops."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import as_records, emitted, requested, truth
from processes import Process, arguments, command, environment, finished, last_line, until
from singer_sdk.exceptions import SingerSDKError, TapStreamConnectionFailure
from singer_sdk.plugin_base import SingerCommand

from tap_noojee.errors import NoojeeError
from tap_noojee.simulator import API_KEY, Failure, Simulator
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}


@pytest.fixture
def tap(pbx: Simulator, tmp_path: Path) -> Callable[..., Process]:
    """Starts the tap, its output on a pipe."""

    def start(**config: Any) -> Process:
        return Process(arguments(tmp_path, pbx, **config))

    return start


def _stays(value: Callable[[], object]) -> bool:
    before = value()
    time.sleep(1)
    return value() == before


def test_a_run_ends_with_0(pbx: Simulator, tmp_path: Path) -> None:
    """A run to the end exits with 0, its last message a STATE."""
    run, done = finished(arguments(tmp_path, pbx, **DAY))
    assert done.returncode == 0
    assert emitted(run) == as_records(truth(pbx, "2021-09-14", "2021-09-15"))
    assert run.messages[0]["type"] == "SCHEMA"
    assert run.messages[-1]["type"] == "STATE"


def test_a_bad_setting_ends_with_1_and_one_line(pbx: Simulator, tmp_path: Path) -> None:
    """A bad setting exits with 1: one line of error, no traceback, no message."""
    for options in ([], ["--test"]):
        run, done = finished(arguments(tmp_path, pbx, *options, timezone="Mars"))
        assert done.returncode == 1
        assert run.messages == []
        errors = [line for line in done.log.splitlines() if "| ERROR " in line]
        assert len(errors) == 1
        assert last_line(done.log).startswith("timezone: 'Mars' is not a time zone")
        assert "Traceback" not in done.log
    assert requested(pbx) == []


def test_a_failure_ends_with_1_and_says_so_last(pbx: Simulator, tmp_path: Path) -> None:
    """A lasting failure exits with 1; the last line names hour and cause, without a traceback."""
    pbx.failures.append(Failure("status", status=403, at=("2021-09-14", 9), times=2))
    run, done = finished(arguments(tmp_path, pbx, **DAY))
    assert done.returncode == 1
    assert last_line(done.log).startswith(
        "2021-09-14 09:00: the PBX rejects the request: check `api_key`"
    )
    assert "Traceback" not in done.log
    assert run.bookmarks[-1] == "2021-09-13T23:00:00+00:00"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--config", "missing.json"], "config: the file does not exist"),
        (["--config", "broken.json"], "config: what was given is not a file with a JSON object"),
        (["--config", "list.json"], "config: what was given is not a file with a JSON object"),
        (["--config", "good.json", "--state", "broken.json"], "state: the file is not JSON"),
        (
            ["--config", "good.json", "--state", "deep.json"],
            "state: the file is nested too deeply",
        ),
        (["--config", "good.json", "--state", "missing.json"], "--state: what was given cannot"),
        (["--config", "good.json", "--state", "none.json"], "state: `bookmarks` is not an object"),
        (["--config", "good.json", "--state", "message.json"], "state: has no `bookmarks`: give"),
        (["--config", "good.json", "--state", "meltano.json"], "state: has no `bookmarks`: give"),
        (["--config", "good.json", "--catalog", "broken.json"], "catalog: the file is not JSON"),
        (["--config", "good.json", "--catalog", "streams.json"], "catalog: cannot be read"),
        (["--config", "good.json", "--catalog", "key.json"], "catalog: replication_key: is not"),
        (["--config", "good.json", "--catalog", "less.json"], "catalog: callend: is excluded"),
        (["--config", "good.json", "more"], "command line: an argument cannot be used"),
        (["--config", "good.json", "--more"], "command line: an argument cannot be used"),
        (["--config", "good.json", "--state", "odd.json"], "state: "),
        (["--config", "good.json", "--state", "list.json"], "state: "),
    ],
)
def test_what_cannot_be_read_is_reported_without_a_traceback(
    pbx: Simulator, tmp_path: Path, given: list[str], reason: str
) -> None:
    """A file that is missing or cannot be read exits with 1 and one line."""
    arguments(tmp_path, pbx, **DAY)
    (tmp_path / "config.json").rename(tmp_path / "good.json")
    (tmp_path / "broken.json").write_text('{"api_key": "')
    (tmp_path / "odd.json").write_text(
        '{"bookmarks": {"recordings": {"replication_key_value": 5}}}'
    )
    (tmp_path / "list.json").write_text("[1]")
    read = {"bookmarks": {"recordings": {"replication_key_value": "2021-09-14T05:00:00Z"}}}
    (tmp_path / "message.json").write_text(json.dumps({"type": "STATE", "value": read}))
    (tmp_path / "meltano.json").write_text(json.dumps({"singer_state": read}))
    (tmp_path / "none.json").write_text('{"bookmarks": []}')
    (tmp_path / "deep.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    (tmp_path / "streams.json").write_text('{"streams": [{"stream": "recordings"}]}')
    catalog = TapNoojee(config={}, validate_config=False).catalog_dict
    metadata = catalog["streams"][0]["metadata"]
    (callend,) = (m for m in metadata if list(m["breadcrumb"]) == ["properties", "callend"])
    callend["metadata"] = {"inclusion": "available", "selected": False}
    (tmp_path / "less.json").write_text(json.dumps(catalog))
    callend["metadata"] = {"inclusion": "automatic"}
    catalog["streams"][0]["replication_key"] = "Start"
    (tmp_path / "key.json").write_text(json.dumps(catalog))
    _, done = finished(given, cwd=tmp_path)
    assert done.returncode == 1
    assert reason in last_line(done.log)
    assert "Traceback" not in done.log


@pytest.mark.parametrize("option", ["--discover", "--about", "--version"])
def test_looking_needs_no_settings(tmp_path: Path, option: str) -> None:
    """--discover, --about and --version need no settings."""
    run, done = finished([option], cwd=tmp_path)
    assert done.returncode == 0
    assert "noojee" in run.output or "recordings" in run.output


def test_settings_come_from_the_environment(pbx: Simulator, tmp_path: Path) -> None:
    """With --config ENV settings come from the environment, numbers and maps as what they are."""
    env = environment(
        TAP_NOOJEE_USER_AGENT="7",
        TAP_NOOJEE_SETTLE_MINUTES="+5",
        TAP_NOOJEE_STREAM_MAPS='{"recordings": {"Username": null}}',
        TAP_NOOJEE_API_URL=pbx.url,
        TAP_NOOJEE_API_KEY=API_KEY,
        TAP_NOOJEE_START_DATE="2021-09-14T15:00",
        TAP_NOOJEE_END_DATE="2021-09-14T16:00",
        TAP_NOOJEE_REQUEST_INTERVAL="0",
    )
    run, done = finished(["--config", "ENV"], env=env, cwd=tmp_path)
    assert done.returncode == 0
    assert len(run.records) == 4
    assert "Username" not in run.records[0]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("request_interval", "soon", "'soon' is not a whole number from 0 to 1000000"),
        ("request_interval", "-5", "-5 is not a whole number from 0 to 1000000"),
        ("start_date", "20210914150000", "'20210914150000' is not a date or time such as"),
    ],
)
def test_a_bad_setting_of_the_environment_is_named(
    pbx: Simulator, tmp_path: Path, name: str, text: str, error: str
) -> None:
    """A text that is not a number stays what it is, and so do digits that stand for no number."""
    env = environment(
        TAP_NOOJEE_API_URL=pbx.url,
        TAP_NOOJEE_API_KEY=API_KEY,
        TAP_NOOJEE_START_DATE="2021-09-14T15:00",
    )
    env[f"TAP_NOOJEE_{name.upper()}"] = text
    _, done = finished(["--config", "ENV"], env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert last_line(done.log).startswith(f"{name}: {error}")


def test_the_connection_test_is_one_request(pbx: Simulator, tmp_path: Path) -> None:
    """--test exits with 0 after one request that is answered, with 1 after one that is refused."""
    _, done = finished(arguments(tmp_path, pbx, "--test"))
    assert done.returncode == 0
    assert len(requested(pbx)) == 1
    pbx.failures.append(Failure("status", status=401))
    _, done = finished(arguments(tmp_path, pbx, "--test"))
    assert done.returncode == 1
    assert "check `api_key`" in last_line(done.log)
    assert len(requested(pbx)) == 2


SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_ends_the_wait_for_the_pace(
    pbx: Simulator, tap: Callable[..., Process], signum: signal.Signals
) -> None:
    """Stopped while it waits for the pace, the tap ends with a STATE and 128 + the signal."""
    process = tap(**DAY, request_interval=600)
    until(lambda: requested(pbx))
    time.sleep(0.3)
    process.send_signal(signum)
    run, done = process.end()
    assert done.returncode == 128 + signum
    assert run.messages[-1]["type"] == "STATE"
    assert run.bookmarks == ["2021-09-13T15:00:00+00:00"] * len(run.bookmarks)


@pytest.mark.parametrize("kind", ["stall", "trickle", "slow"])
@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_ends_the_wait_for_the_server(
    pbx: Simulator,
    tap: Callable[..., Process],
    signum: signal.Signals,
    kind: Any,
) -> None:
    """Stopped while it waits for an answer, the tap ends with a STATE and 128 + the signal."""
    pbx.failures.append(Failure(kind, delay=30, at=("2021-09-14", 10)))
    process = tap(**DAY)
    until(lambda: ("2021-09-14", 10) in requested(pbx))
    process.send_signal(signum)
    run, done = process.end()
    assert done.returncode == 128 + signum
    assert run.messages[-1]["type"] == "STATE"
    assert run.bookmarks[-1] == "2021-09-14T00:00:00+00:00"
    assert "Traceback" not in done.log


def test_a_signal_before_the_first_answer_claims_nothing(
    pbx: Simulator, tap: Callable[..., Process]
) -> None:
    """Stopped before anything was read, the tap ends with a STATE that holds no bookmark."""
    pbx.failures.append(Failure("stall"))
    process = tap(**DAY)
    until(lambda: requested(pbx))
    process.send_signal(signal.SIGTERM)
    run, done = process.end()
    assert done.returncode == 128 + signal.SIGTERM
    assert run.states == [{"bookmarks": {"recordings": {}}}]


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_amid_records_finishes_the_hour(
    pbx: Simulator, tap: Callable[..., Process], signum: signal.Signals
) -> None:
    """Stopped amid an hour's records, a full pipe before it, the tap writes all of that hour."""
    pbx.volume = 30
    process = tap(**DAY)
    assert process.stdout
    # Nobody reads, so the pipe of 64 KiB gets full, amid the records of an hour.
    until(lambda: len(requested(pbx)) > 5 and _stays(lambda: len(requested(pbx))))
    process.send_signal(signum)
    time.sleep(0.5)
    assert process.poll() is None
    run, done = process.end()
    assert done.returncode == 128 + signum
    assert run.messages[-1]["type"] == "STATE"
    end = run.bookmarks[-1]
    written = [
        leg for leg in truth(pbx, "2021-09-14", "2021-09-15") if leg.callend.isoformat() < end
    ]
    assert emitted(run) == as_records(written)
    assert len(run.bookmarks) == len(requested(pbx))


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_second_signal_ends_the_tap_at_once(
    pbx: Simulator, tap: Callable[..., Process], signum: signal.Signals
) -> None:
    """Stopped twice, the tap ends with 128 + the signal, though its target does not read."""
    pbx.volume = 30
    process = tap(**DAY)
    until(lambda: len(requested(pbx)) > 5 and _stays(lambda: len(requested(pbx))))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signum)
    assert process.wait() == 128 + signum
    process.end()


def test_the_state_of_an_hour_is_there_while_the_tap_waits(
    tap: Callable[..., Process],
) -> None:
    """An hour's STATE can be read from the pipe while the tap waits for the pace."""
    process = tap(**DAY, request_interval=600)
    assert process.stdout
    lines = [process.stdout.readline()]
    while b'"STATE"' not in lines[-1]:
        lines.append(process.stdout.readline())
    assert b"2021-09-13T15:00:00+00:00" in lines[-1]
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.end()


@pytest.mark.parametrize("name", ["END_DATE", "MAX_HOURS_PER_RUN", "USER_AGENT", "TIMEZONE"])
def test_an_empty_variable_is_as_if_unset(pbx: Simulator, tmp_path: Path, name: str) -> None:
    """An optional setting that is empty in the environment has its default."""
    env = environment(
        TAP_NOOJEE_API_URL=pbx.url,
        TAP_NOOJEE_API_KEY=API_KEY,
        TAP_NOOJEE_START_DATE="2021-09-14T15:00",
        TAP_NOOJEE_END_DATE="2021-09-14T16:00",
        TAP_NOOJEE_REQUEST_INTERVAL="0",
        TAP_NOOJEE_SETTLE_MINUTES="",
    )
    if name == "END_DATE":
        env["TAP_NOOJEE_START_DATE"] = "2999-01-01"
    _, done = finished(["--config", "ENV"], env=env | {f"TAP_NOOJEE_{name}": ""}, cwd=tmp_path)
    assert done.returncode == 0, done.log


def test_the_connection_test_makes_one_attempt(pbx: Simulator, tmp_path: Path) -> None:
    """--test is not tried again, whatever goes wrong, and exits with 1."""
    pbx.failures.append(Failure("status", status=503, times=None))
    _, done = finished(arguments(tmp_path, pbx, "--test", request_interval=60))
    assert done.returncode == 1
    assert len(requested(pbx)) == 1
    assert last_line(done.log).endswith("the PBX failed (status 503)")


def test_a_connection_test_that_fails_closes_its_files(pbx: Simulator, tmp_path: Path) -> None:
    """Given a catalog and STATE, as Meltano gives them, --test reports the cause alone."""
    catalog = tmp_path / "catalog.json"
    catalog.write_text("{}")
    pbx.failures.append(Failure("status", status=404))
    words = command(tmp_path, pbx, "--catalog", str(catalog), "--test", state={})
    env = environment(PYTHONWARNINGS="once")  # as Meltano starts taps
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert "ResourceWarning" not in done.stderr


def test_requests_are_measured_as_by_any_tap_of_the_sdk(pbx: Simulator, tmp_path: Path) -> None:
    """Each response's duration and the number of requests are logged as the SDK's metrics."""
    pbx.failures.append(Failure("status", status=503, at=("2021-09-14", 15)))
    hour: dict[str, Any] = {
        "start_date": "2021-09-14T15:00",
        "end_date": "2021-09-14T16:00",
    }
    _, done = finished(arguments(tmp_path, pbx, **hour))
    points = [
        json.loads(line.split("METRIC: ")[1])
        for line in done.log.splitlines()
        if "METRIC: " in line
    ]
    durations = [p for p in points if p["metric"] == "http_request_duration"]
    assert [(p["tags"]["http_status_code"], p["tags"]["status"]) for p in durations] == [
        (503, "failed"),
        (200, "succeeded"),
    ]
    assert {p["tags"]["endpoint"] for p in durations} == {"retrieveMetaDataByHour"}
    # In seconds.
    assert all(0 < p["value"] < 30 for p in durations)
    (count,) = [p for p in points if p["metric"] == "http_request_count"]
    assert count["value"] == 2


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (
            "sha256(config['salt'] + Source)",
            "\"sha256(config['salt'] + Source)\" fails: TypeError",
        ),
        ("1/0", "'1/0' fails: ZeroDivisionError"),
        ("Nowhere", "'Nowhere' is not defined"),
    ],
)
def test_a_stream_map_that_fails_is_named(
    pbx: Simulator, tmp_path: Path, expression: str, reason: str
) -> None:
    """A stream map that fails ends the run with one line: the expression and the cause."""
    pbx.legs = [
        dataclasses.replace(leg, source=None)  # type: ignore[arg-type]
        for leg in truth(pbx, "2021-09-14T15:00", "2021-09-14T16:00")
    ]
    _, done = finished(
        arguments(
            tmp_path,
            pbx,
            **DAY,
            stream_maps={"recordings": {"Source": expression}},
            stream_map_config={"salt": "s"},
        )
    )
    assert done.returncode == 1
    assert last_line(done.log).startswith("stream_maps: ")
    assert reason in last_line(done.log)
    assert sum("| ERROR " in line for line in done.log.splitlines()) == 1
    assert "Traceback" not in done.log


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NoojeeError("what to do"), "what to do"),
        (TapStreamConnectionFailure("no stream"), "no stream"),
        (SingerSDKError(), "SingerSDKError"),
    ],
)
def test_a_known_error_is_its_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, line: str
) -> None:
    """An error of the tap or of the SDK ends with 1 and its words, or its name if it has none."""
    _raise(monkeypatch, error)
    with pytest.raises(SystemExit) as end:
        TapNoojee.cli.main([])
    assert end.value.code == 1
    assert caplog.messages == [line]


def test_an_unknown_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A ValueError that nobody foresaw is not taken for a user's mistake."""
    _raise(monkeypatch, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        TapNoojee.cli.main([])
    assert caplog.messages == []


def _raise(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(SingerCommand, "main", fail)
