"""The simulator, over real HTTP."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
import requests
from click.testing import CliRunner
from processes import wait_until
from times import CHANGES, HOUR, MINUTE, clocks_around

from tap_noojee.simulator import API_KEY, USER_KEY, Failure, Leg, Simulator, invent_legs
from tap_noojee.simulator.cli import main
from tap_noojee.simulator.server import BASES

MELBOURNE = ZoneInfo("Australia/Melbourne")
SAMPLE = {"apiKey": API_KEY, "date": "2021/09/14", "hour": "15"}
ENDPOINT = f"{BASES[0]}/retrieveMetaDataByHour"
COMMAND = (sys.executable, "-m", "tap_noojee.simulator")


def post(pbx: Simulator, **params: str) -> requests.Response:
    """Request the sample hour, with these parameters changed."""
    options: Any = {"stream": True, "allow_redirects": False}
    return requests.post(f"{pbx.url}{ENDPOINT}", params=SAMPLE | params, timeout=2, **options)


def read(pbx: Simulator, date: str, hour: int) -> Any:
    return post(pbx, date=date, hour=str(hour)).json()


def run_simulator(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    return subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=30
    )


def start_without_terminal(*arguments: str) -> Any:
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(arguments, text=True, start_new_session=True, **pipes)


def test_every_leg_is_in_exactly_one_response(pbx: Simulator) -> None:
    responses = [read(pbx, f"2021/04/0{day}", hour) for day in (3, 4, 5) for hour in range(24)]
    found = [(record["CallRecordId"], record["Leg"]) for hour in responses for record in hour]
    midnights = (datetime(2021, 4, day, tzinfo=MELBOURNE).astimezone(UTC) for day in (3, 6))
    expected = invent_legs(*midnights, zone=MELBOURNE)
    assert Counter(found) == Counter((leg.call_record_id, str(leg.leg)) for leg in expected)
    repeated_hour = responses[24 + 2]
    assert {record["callend"].split()[4] for record in repeated_hour} == {"AEDT", "AEST"}


@pytest.mark.parametrize("fold", ["both", "first", "second"])
def test_repeated_hour_returns_the_passes_that_fold_selects(fold: Any) -> None:
    passes = {"both": slice(None), "first": slice(1), "second": slice(-1, None)}
    for key, change in CHANGES:
        clocks = clocks_around(key, change)
        legs = [Leg(end, end, end.isoformat()) for end in clocks.instants]
        with Simulator(timezone=key, fold=fold, legs=legs) as pbx:
            for hour in clocks.all_hours()[5:-5]:
                by_minute = [clocks.by_minute.get(hour + k * MINUTE, []) for k in range(60)]
                expected = {end.isoformat() for ends in by_minute for end in ends[passes[fold]]}
                records = read(pbx, f"{hour:%Y/%m/%d}", hour.hour)
                assert {record["CallRecordId"] for record in records} == expected, (clocks, hour)


def test_record_has_the_documented_fields_as_strings(pbx: Simulator) -> None:
    documented = json.loads(Path(__file__).with_name("documented-response.json").read_text())
    assert post(pbx).json() == documented
    busy = post(pbx, hour="10")
    assert all(record.keys() == documented[0].keys() for record in busy.json())
    assert {type(value) for record in busy.json() for value in record.values()} == {str}
    assert any(not record["Username"].isascii() for record in busy.json())
    assert b"\\u" not in busy.content


def test_generated_calls_never_change() -> None:
    hour = datetime(2031, 5, 6, 1, tzinfo=UTC)
    found = invent_legs(hour, hour + HOUR, zone=ZoneInfo("Asia/Singapore"))
    summary = (len(found), found[0].unique_id, found[0].username)
    assert summary == (30, "1935795667.1", "Grace Papadopoulos")
    assert invent_legs(hour, hour + HOUR, zone=MELBOURNE, volume=0) == []


# Each line has a date format, a zone, and the zone's names in January and July.
JAVA_NAMES = """\
java Australia/Melbourne AEDT AEST
java Australia/Lord_Howe LHDT LHST
java Australia/Eucla ACWST ACWST
java Pacific/Norfolk NFST NFT
java Pacific/Chatham CHADT CHAST
java Asia/Singapore SGT SGT
java Etc/GMT-10 GMT+10:00 GMT+10:00
gmt Australia/Lord_Howe GMT+11:00 GMT+10:30
old Australia/Melbourne EST EST
old Australia/Adelaide CST CST
old Pacific/Auckland NZDT NZST"""


@pytest.mark.parametrize("line", JAVA_NAMES.split("\n"))
def test_dates_have_java_zone_names(line: str) -> None:
    style: Any
    style, zone, *names = line.split()
    for month, name in zip((1, 7), names, strict=True):
        moment = datetime(2021, month, 3, 0, 0, 5, tzinfo=UTC)
        printed = Leg(moment, moment, "1").record(ZoneInfo(zone), style)["callend"]
        assert printed == f"{moment.astimezone(ZoneInfo(zone)):%a %b %d %T} {name} 2021"


def test_api_has_two_paths_and_requires_post(pbx: Simulator) -> None:
    for base in BASES:
        url = f"{pbx.url}{base}/retrieveMetaDataByHour"
        assert len(requests.post(url, params=SAMPLE, timeout=9).json()) == 4
    assert requests.get(f"{pbx.url}{ENDPOINT}", params=SAMPLE, timeout=9).status_code == 405
    assert requests.post(f"{pbx.url}/x", params=SAMPLE, timeout=9).status_code == 404


def test_bad_request_is_rejected_with_a_code_and_a_message(pbx: Simulator) -> None:
    for status, words, params in (
        (403, "unknown API key", {"apiKey": ""}),
        (403, "does not have access to this endpoint", {"apiKey": USER_KEY}),
        (400, "date", {"date": "2021-09-14"}),
        (400, "date", {"date": "2021/02/29"}),
        (400, "date", {"date": "9999/12/31"}),
        (400, "hour", {"hour": "24"}),
    ):
        response = post(pbx, **params)
        assert response.status_code == pbx.requests[-1].status == status
        assert response.json()["Code"] == -1
        assert words in response.json()["Message"]


def test_early_request_is_rejected_and_does_not_restart_the_interval() -> None:
    with Simulator(interval=0.5, rate_limit_status=400, failures=[Failure("status")]) as pbx:
        assert post(pbx).status_code == 503
        assert post(pbx).json() == {"Code": -1, "Message": "wait a bit and retry"}
        wait_until(lambda: post(pbx).status_code == 200)
    first, *rejected, last = pbx.requests
    assert {request.status for request in rejected} == {400}
    assert last.time - first.time >= 0.5


@pytest.mark.parametrize(
    "failures",
    [[], [Failure("status")], [Failure("slow", delay=0)]],
    ids=["success", "status", "slow"],
)
def test_interval_starts_at_the_request_or_at_its_response(failures: list[Failure]) -> None:
    with Simulator(interval=0.2, latency=0.3, failures=failures) as pbx:
        assert 429 not in [post(pbx).status_code for _ in range(2)]
    with Simulator(interval=0.2, latency=0.3, failures=failures, counts_from="response") as pbx:
        post(pbx)
        wait_until(lambda: post(pbx).status_code != 429)
    assert pbx.requests[-1].time - pbx.requests[0].time >= 0.5


def test_clock_and_date_format_can_be_set() -> None:
    now = datetime(2021, 9, 14, 15, 59, 30, tzinfo=MELBOURNE)
    with Simulator(clock=lambda: now, dates="timestamp") as pbx:
        response = post(pbx)
        assert response.headers["Date"] == "Tue, 14 Sep 2021 05:59:30 GMT"
        assert response.json()[0]["callend"] == "2021-09-14 15:03:34.0"


def test_failures_are_served_in_order_until_used_up(pbx: Simulator) -> None:
    other_hour = Failure("status", status=502, at=("2021-09-14", 16))
    pbx.failures += [Failure("status", status=500, times=2), other_hour, Failure("rate")]
    assert [post(pbx).status_code for _ in range(4)] == [500, 500, 429, 200]
    assert post(pbx, hour="16").status_code == 502
    assert pbx.requests[-1] == (mock.ANY, "2021-09-14", 16, 502, "status")
    pbx.failures[:] = [Failure("empty", times=None)]
    assert [post(pbx).content for _ in range(3)] == [b""] * 3


def test_failure_determines_the_response(pbx: Simulator) -> None:
    for failure, response in (
        (Failure("status", body=b"oops"), (503, "text/html", b"oops")),
        (Failure("code"), (200, "application/json", b'{"Code": -1, "Mess')),
        (Failure("rate", status=200), (200, "application/json", b'{"Code": -1, "Mess')),
        (Failure("html"), (200, "text/html", b"<!doctype html><ti")),
        (Failure("null"), (200, "application/json", b"null")),
        (Failure("204"), (204, "application/json", b"")),
        (Failure("body", body=b"\xeb", content_type="text/x"), (200, "text/x", b"\xeb")),
        (Failure("body", body=b"[]", status=500), (500, "application/json", b"[]")),
    ):
        pbx.failures.append(failure)
        found = post(pbx)
        content_type = found.headers["Content-Type"].split(";")[0]
        assert (found.status_code, content_type, found.content[:18]) == response, failure


def test_failure_can_quote_the_url_with_the_key(pbx: Simulator) -> None:
    pbx.failures += [Failure("status", retry_after=7, echo=True), Failure("redirect")]
    page, redirect = post(pbx), post(pbx)
    assert page.headers["Retry-After"] == "7"
    assert f"{pbx.url}{ENDPOINT}?apiKey={API_KEY}&" in page.text
    assert redirect.status_code == 302
    assert API_KEY in redirect.headers["Location"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [("cut", "IncompleteRead"), ("reset", "reset by"), ("stall", "timed"), ("slow", "timed")],
)
def test_failure_can_break_the_response(pbx: Simulator, kind: Any, error: str) -> None:
    pbx.failures.append(Failure(kind, delay=600))
    with pytest.raises(requests.RequestException, match=error):
        _ = post(pbx).content
    assert pbx.requests[0].status == (None if kind in {"reset", "stall"} else 200)
    assert len(post(pbx).json()) == 4


def test_incomplete_response_starts_like_the_complete_one(pbx: Simulator) -> None:
    complete = post(pbx).content
    pbx.failures += [Failure("cut-json"), Failure("trickle"), Failure("endless")]
    cut = post(pbx)
    assert not {"Content-Length", "Transfer-Encoding"} & set(cut.headers)
    assert cut.content == complete[: len(complete) // 2]
    for _ in ("trickle", "endless"):
        with post(pbx) as response:
            assert next(response.iter_content(chunk_size=2)) == complete[:2]


@pytest.mark.parametrize("size", [5, 100, 200_000, 200_001])
@pytest.mark.parametrize("unit", [b"{},", b"0,"])
def test_huge_response_is_an_array_of_the_given_size(
    pbx: Simulator, unit: bytes, size: int
) -> None:
    pbx.failures.append(Failure("huge", size=size, body=unit, status=403))
    response = post(pbx)
    assert len(response.content) == int(response.headers["Content-Length"]) == size
    assert {json.dumps(item) for item in response.json()} == {unit.decode()[:-1]}


@pytest.mark.parametrize("kind", ["stall", "trickle", "endless", "slow", "huge"])
def test_stop_ends_all_connections_and_threads(kind: Any) -> None:
    before = threading.active_count()
    target = f"{ENDPOINT}?apiKey={API_KEY}&date=2021/09/14&hour=15"
    with Simulator(failures=[Failure(kind, delay=600, size=2**60)]) as pbx:
        address = ("127.0.0.1", int(pbx.url.rsplit(":", 1)[1]))
        # The first connection stays idle.
        with socket.create_connection(address), socket.create_connection(address) as busy:
            busy.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: pbx.requests)
            pbx.stop()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_failure_is_parsed_from_text() -> None:
    assert Failure.parse("cut-json*") == Failure("cut-json", times=None)
    assert Failure.parse("slow=2.5") == Failure("slow", delay=2.5)
    assert Failure.parse("body=[1]*3") == Failure("body", body=b"[1]", times=3)
    status = Failure("status", ("2021-09-14", 5), 2, status=502)
    assert Failure.parse("status=502@2021-09-14T05*2") == status


# Each line has options and part of the error.
BAD_OPTIONS = """\
--failure foo: the kinds are status, cut, cut-json,
--failure status=x: status cannot have the value 'x'
--failure slow=nan: delay
--failure reset=1: reset cannot have the value
--failure cut@2021-02-29T1: 2021-02-29T1 is not an hour
--failure reset*0: TIMES
--interval nan: finite
--interval inf: finite
--volume nan: finite
--day 9999-12-31: 1970 to 9998
--timezone Melbourne: not an IANA zone
--timezone Australia: not an IANA zone"""


@pytest.mark.parametrize("line", BAD_OPTIONS.split("\n"))
def test_bad_option_is_a_usage_error(line: str) -> None:
    arguments, _, words = line.partition(": ")
    done = CliRunner().invoke(main, [*arguments.split(), "--", "true"])
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize("start_date", ["", "2020-01-01"])
@pytest.mark.parametrize("end_date", ["", "2025-01-01"])
def test_command_gets_settings_and_keeps_the_users_dates(start_date: str, end_date: str) -> None:
    given = {"TAP_NOOJEE_START_DATE": start_date, "TAP_NOOJEE_END_DATE": end_date}
    options = ("--timezone", "Pacific/Chatham", "--interval", "0.2", "--day", "2024-02-29")
    show = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    done = run_simulator(*options, "--", *show, NO_PROXY="pbx.example", no_proxy="", **given)
    env = json.loads(done.stdout)
    default_end = "" if start_date else "2024-03-01"
    dates = (start_date or "2024-02-29", end_date or default_end)
    assert (env["TAP_NOOJEE_START_DATE"], env["TAP_NOOJEE_END_DATE"]) == dates
    assert env["TAP_NOOJEE_API_KEY"] == API_KEY
    assert env["TAP_NOOJEE_REQUEST_INTERVAL"] == "1"  # 0.2 rounded up
    assert env["NO_PROXY"] == env["no_proxy"] == "pbx.example,127.0.0.1,localhost"
    shown = done.stderr.splitlines()[0]
    assert all(word in shown for word in (env["TAP_NOOJEE_API_URL"], "Pacific/Chatham", *dates))


@pytest.mark.parametrize(
    ("command", "status"),
    [("sh -c 'exit 3'", 3), ("sh -c 'kill -9 $$'", 137), ("no-such-command", 127), ("/", 126)],
)
def test_exit_status_follows_the_shells_conventions(command: str, status: int) -> None:
    done = run_simulator("--", *shlex.split(command))
    assert done.returncode == status
    assert (f"noojee-simulator: {command}: " in done.stderr) == (status in {126, 127})


PRINT_SIGNALS = """
import signal, time
received = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: received.append(number))
print("ready", flush=True)
while not received: time.sleep(0.01)
time.sleep(0.3)
print(*map(int, received))
raise SystemExit(42)
"""
SIGNAL_PRINTER = (*COMMAND, "--", sys.executable, "-c", PRINT_SIGNALS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_is_forwarded_once(number: signal.Signals) -> None:
    with start_without_terminal(*SIGNAL_PRINTER) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, out) == (42, f"{int(number)}\n")


def test_ctrl_c_in_a_terminal_is_not_forwarded() -> None:
    terminal = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    with start_without_terminal(sys.executable, "-c", terminal, *SIGNAL_PRINTER) as running:
        # The simulator prints its address first.
        assert ["ready" in running.stdout.readline() for _ in range(2)] == [False, True]
        running.stdin.write("\x03")
        running.stdin.flush()
        assert running.stdout.readline().strip().removeprefix("^C") == "2"
        running.communicate(timeout=30)
    assert running.returncode == 42


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_simulator_without_a_command_prints_keys_and_status_counts(number: signal.Signals) -> None:
    options = ("--api-key", "abc", "--user-key", "def", "--interval", "0")
    with start_without_terminal(*COMMAND, *options, "--failure", "status=500") as running:
        ready, user = (running.stderr.readline() for _ in range(2))
        assert "Global API key: abc;" in ready
        assert "User API key def " in user
        for key in ("def", "abc", "abc", "abc"):
            url = f"{ready.split()[1]}{ENDPOINT}"
            requests.post(url, params=SAMPLE | {"apiKey": key}, timeout=9)
        running.send_signal(number)
        _, rest = running.communicate(timeout=30)
    counts = "responses by status: 2 x 200, 1 x 403, 1 x 500; 1 failed on purpose"
    assert (running.returncode, rest) == (0, f"noojee-simulator: {counts}\n")
