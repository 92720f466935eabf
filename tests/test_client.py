"""Requests: what is sent, the pace, what is tried again, what an error says."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from conftest import FakeClock, Hasty, as_records, emitted, requested, run_tap, truth
from typing_extensions import override

from tap_noojee.errors import NoojeeError, Stopped, TransientError
from tap_noojee.settings import api_url
from tap_noojee.simulator import Failure, Simulator
from tap_noojee.transport import Attempt, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests_mock import Mocker

    from tap_noojee.simulator import Leg

DAY: dict[str, Any] = {"start_date": "2021-09-14T08:00", "end_date": "2021-09-14T20:00"}
AT = ("2021-09-14", 15)
HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}
HOURS = "https://pbx.example.com/njadmin/rest/RecordingAPI/retrieveMetaDataByHour"

BROKEN_ONCE = [
    Failure("status", status=429),
    Failure("status", status=500),
    Failure("status", status=503, retry_after=7),
    Failure("rate", status=200),
    Failure("rate", status=400),
    Failure("rate", status=403),
    Failure("rate", status=429),
    Failure("cut"),
    Failure("cut-json"),
    Failure("reset"),
    Failure("stall"),
    Failure("empty"),
    Failure("body", body=b'[{"callend": "Tue Sep 14 15:03:3'),
    Failure("body", body=b'{"Code": -1, "Mess'),
    Failure("body", body=b'[{"Username": "\xff"}]'),
]
"""What a later attempt may mend."""

CHECK_KEY = "check `api_key`, and that Noojee support has put"
NOT_A_LIST = "not a list of recordings: check `api_url`"
LOGIN_PAGE = b"<form>Please wait and try again</form>"

FINAL = [
    (Failure("status", status=401), CHECK_KEY),
    (Failure("status", status=401, body=LOGIN_PAGE), CHECK_KEY),
    (Failure("status", status=404), "check `api_url`"),
    (Failure("status", status=404, body=LOGIN_PAGE), "check `api_url`"),
    (Failure("redirect"), "which is not followed: check `api_url`"),
    (Failure("status", status=304), "which is not followed: check `api_url`"),
    (Failure("html"), f"the answer is a web page, {NOT_A_LIST}"),
    (Failure("body", body=LOGIN_PAGE), f"the answer is a web page, {NOT_A_LIST}"),
    (Failure("null"), f"the answer is something else, {NOT_A_LIST}"),
    (Failure("body", body=b"42"), f"the answer is something else, {NOT_A_LIST}"),
    (Failure("body", body=b'{"error": "no"}'), f"the answer is something else, {NOT_A_LIST}"),
    (Failure("body", body=b'["a"]'), "record 1: is not an object"),
    (Failure("body", body=b'[{"Leg": [1]}]'), "record 1: callend: is missing"),
    (Failure("body", body=b'[{"Duration": 1e999}]'), "a number in the answer is out of range"),
]
"""What no further request will mend, and what the error says of it."""

REJECTIONS = [
    Failure("status", status=201),
    Failure("status", status=400),
    Failure("status", status=403),
    Failure("status", status=405),
    Failure("status", status=406),
    Failure("status", status=409),
    Failure("status", status=418),
    Failure("code"),
    Failure("body", body=b'{"Code": 0, "Message": "success"}'),
    Failure("body", body=b'{"Message": "no"}'),
]
"""What may be the rate limit's own error: worth one more request."""


def name(case: Any) -> str:
    """A readable id for a case."""
    failure = case[0] if isinstance(case, tuple) else case
    return f"{failure.kind}-{failure.status}-{(failure.body or b'')[:16].decode(errors='replace')}"


@pytest.mark.parametrize("failure", BROKEN_ONCE, ids=name)
def test_a_passing_failure_is_tried_again(failure: Failure) -> None:
    """A failure that may pass is tried again after the interval, and nothing is lost."""
    clock = FakeClock()
    at_hour = dataclasses.replace(failure, at=AT, times=2)
    with Simulator(failures=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY, clock=clock, request_interval=60, request_timeout=1)
        assert emitted(run) == as_records(truth(pbx, DAY["start_date"], DAY["end_date"]))
        assert [hour for _, hour in requested(pbx)] == [*range(8, 15), 15, 15, *range(15, 20)]
    assert run.error is None
    assert sum(clock.sleeps) >= 60 * 13


@pytest.mark.parametrize("failure", BROKEN_ONCE, ids=name)
def test_a_lasting_failure_ends_the_run_after_five_attempts(failure: Failure) -> None:
    """A failure that lasts ends the run with the hour and the cause; a later run loses nothing."""
    at_hour = dataclasses.replace(failure, at=AT, times=None)
    with Simulator(failures=[at_hour]) as pbx:
        clock = Hasty() if failure.kind == "stall" else FakeClock()
        run = run_tap(pbx, **DAY, clock=clock, request_timeout=1)
        assert [hour for _, hour in requested(pbx)] == [*range(8, 15), *[15] * 5]
        assert isinstance(run.error, NoojeeError)
        assert str(run.error).startswith("2021-09-14 15:00: ")
        assert str(run.error).endswith("(5 attempts)")
        assert run.bookmarks[-1] == "2021-09-14T05:00:00+00:00"
        pbx.failures.clear()
        rest = run_tap(pbx, **DAY, state=run.states[-1])
        true_legs = truth(pbx, DAY["start_date"], DAY["end_date"])
    assert emitted(run) + emitted(rest) == as_records(true_legs)


@pytest.mark.parametrize("case", FINAL, ids=name)
def test_what_will_not_pass_ends_the_run_at_once(case: tuple[Failure, str]) -> None:
    """What will not pass ends the run at once, with the hour, the cause and what to check."""
    failure, reason = case
    at_hour = dataclasses.replace(failure, at=AT, times=None)
    with Simulator(failures=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY)
        assert [hour for _, hour in requested(pbx)] == list(range(8, 16))
    assert isinstance(run.error, NoojeeError)
    assert str(run.error).startswith("2021-09-14 15:00: ")
    assert reason in str(run.error)
    assert run.bookmarks[-1] == "2021-09-14T05:00:00+00:00"


@pytest.mark.parametrize("failure", REJECTIONS, ids=name)
def test_a_rejection_is_reported_and_tried_once_more(
    failure: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    """A rejection is reported at once with what to check, and ends the run if it stands."""
    at_hour = dataclasses.replace(failure, at=AT, times=None)
    with Simulator(failures=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY, request_interval=60)
        assert [hour for _, hour in requested(pbx)] == [*range(8, 16), 15]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert CHECK_KEY in warning
    assert warning.endswith("asking again in 60 s (attempt 2 of 5)")
    assert CHECK_KEY in str(run.error)
    assert str(run.error).endswith("(2 attempts)")


@pytest.mark.parametrize("failure", REJECTIONS, ids=name)
def test_a_rejection_that_passes_loses_nothing(failure: Failure) -> None:
    """A rejection that was the rate limit's own error passes with the next request."""
    at_hour = dataclasses.replace(failure, at=AT, times=1)
    with Simulator(failures=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY)
        assert emitted(run) == as_records(truth(pbx, DAY["start_date"], DAY["end_date"]))


def test_no_content_is_an_empty_hour() -> None:
    """A 204 is an hour without calls."""
    with Simulator(failures=[Failure("204", at=AT)]) as pbx:
        run = run_tap(pbx, **DAY)
    assert run.error is None
    assert len(run.states) == 12


RECORD = {
    "callend": "Tue Sep 14 15:03:34 AEST 2021",
    "CallRecordId": "6468",
    "DID": "7601",
    "Destination": "123",
    "Direction": "Inbound",
    "Duration": "68",
    "Leg": "1",
    "Source": "500",
    "Start": "Tue Sep 14 15:03:30 AEST 2021",
    "Tag": "",
    "UniqueId": "1631595787.5",
    "Username": "NoojeeAdmin",
}


def run_on(answer: Any, **config: Any) -> Any:
    """Run the tap on one hour whose answer is this."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with Simulator(failures=[Failure("body", body=body, times=None)]) as pbx:
        return run_tap(pbx, **HOUR | config)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("Duration", "x12", "'x12' is not a whole number"),
        ("Duration", "1.5", "'1.5' is not a whole number"),
        ("Duration", "9" * 5000, "is not a whole number"),
        ("Duration", 1.5, "1.5 is not a string"),
        ("Duration", True, "true is not a string"),
        ("Leg", "", "is missing"),
        ("Leg", None, "is missing"),
        ("Leg", "one", "'one' is not a whole number"),
        ("CallRecordId", None, "is missing"),
        ("CallRecordId", "", "is missing"),
        ("CallRecordId", "x" * 256, "is longer than 255 characters"),
        ("Leg", "9223372036854775808", "is not from -9223372036854775808 to 9223372036854775807"),
        ("CallRecordId", {"id": 1}, '{"id": 1} is not a string'),
        ("callend", None, "is missing"),
        ("callend", "yesterday", "'yesterday' is not a date"),
        ("callend", "Tue Sep 31 15:03:34 AEST 2021", "is not a date"),
        ("callend", "Tue Sep 14 15:03:34 XYZT 2021", "has an unknown time zone name"),
        ("callend", "Mon Jan 01 00:00:00 AEST 0001", "is not a date"),
        ("callend", 1631595787, "1631595787 is not a date"),
        ("Start", "Tue Sep 14 13:03:34 AWST 2021", "set `timezone`"),
        ("Username", ["a"], '["a"] is not a string'),
    ],
)
def test_an_odd_record_is_named(field: str, value: Any, reason: str) -> None:
    """A record that cannot be read ends the run with its hour, place, field and value."""
    odd = RECORD | {field: value}
    run = run_on([RECORD, RECORD | {"Leg": "2"}, odd])
    assert run.records == []
    assert run.states == []
    assert str(run.error).startswith(f"2021-09-14 15:00: record 3: {field}: ")
    assert reason in str(run.error)
    assert len(str(run.error)) < 500


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("Duration", "", None),
        ("Duration", None, None),
        ("Duration", " 68 ", 68),
        ("Duration", 68, 68),
        ("Start", "", None),
        ("Start", None, None),
        ("Tag", None, None),
        ("Tag", "", ""),
        ("CallRecordId", 6468, "6468"),
        ("CallRecordId", "x" * 255, "x" * 255),
        ("Leg", "9223372036854775807", 9223372036854775807),
        ("UniqueId", None, None),
        ("callend", "2021-09-14 15:03:34.25", "2021-09-14T05:03:34.250000+00:00"),
    ],
)
def test_a_lack_or_another_form_is_no_error(field: str, value: Any, expected: Any) -> None:
    """All but the keys and callend may be missing; numbers may come as numbers."""
    run = run_on([RECORD | {field: value}])
    assert run.error is None
    assert run.records[0][field] == expected


def test_a_missing_field_is_null() -> None:
    """A field that is not in the answer is null."""
    short = {name: RECORD[name] for name in ("callend", "CallRecordId", "Leg")}
    run = run_on([short])
    assert run.error is None
    assert run.records[0].keys() == RECORD.keys()
    assert run.records[0]["Username"] is None


def test_a_field_that_the_schema_lacks_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """Fields that are not in the schema are left out, and named in one warning a run."""
    more = {"Queue": {"id": [7]}, "Agent": "x"}
    answer = [RECORD, RECORD | {"Leg": "2"} | more, RECORD | {"Leg": "3", "Queue": None}]
    run = run_on(answer, end_date="2021-09-14T18:00")
    assert run.error is None
    assert [record["Leg"] for record in run.records] == [1, 2, 3]
    assert all(record.keys() == RECORD.keys() for record in run.records)
    (warning,) = [r.getMessage() for r in caplog.records if "schema" in r.getMessage()]
    assert warning == (
        "The PBX sends fields that the schema does not have, and that are left out: Agent, Queue"
    )


def test_the_request_is_as_documented(requests_mock: Mocker) -> None:
    """A request is a POST without a body, its date with slashes, its hour zero based."""
    requests_mock.post(HOURS, json=[])
    with Simulator() as pbx:
        run = run_tap(
            pbx,
            api_url="https://pbx.example.com",
            start_date="2021-09-04T03:00",
            end_date="2021-09-04T04:00",
            user_agent="acme/1",
        )
    assert run.error is None
    (request,) = requests_mock.request_history
    assert request.url.endswith("/retrieveMetaDataByHour?date=2021/09/04&hour=3")
    assert request.body is None
    assert request.headers["User-Agent"] == "acme/1"
    assert request.headers["Connection"] == "close"
    assert str(request.timeout) == "(10, 120)"


def test_a_server_error_page_with_a_retry_after_date_is_heeded(requests_mock: Mocker) -> None:
    """Retry-After may be a date; more than the interval is waited, up to an hour."""
    clock = FakeClock("2022-06-01T00:00:00+00:00")
    requests_mock.post(
        HOURS,
        [
            {"status_code": 503, "headers": {"Retry-After": "Wed, 01 Jun 2022 00:10:00 GMT"}},
            {"status_code": 429, "headers": {"Retry-After": "99999"}},
            {"status_code": 429, "headers": {"Retry-After": "soon"}},
            {"json": []},
        ],
    )
    with Simulator() as pbx:
        run = run_tap(
            pbx,
            clock=clock,
            api_url="https://pbx.example.com",
            start_date="2021-09-14T03:00",
            end_date="2021-09-14T04:00",
            request_interval=60,
        )
    assert run.error is None
    assert [sleep for sleep in clock.sleeps if sleep] == [600, 3600, 60]


@pytest.fixture
def _zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's zone is far from UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_zone_of_this_machine")
@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Wed, 01 Jun 2022 00:10:00 GMT", 600),
        ("Wed, 01 Jun 2022 00:10:00 -0000", 600),
        ("Wed, 01 Jun 2022 10:10:00 +1000", 600),
        ("Wed, 01 Jun 2022 00:10:00", 600),
        ("Wed, 01 Jun 2022 01:00:00 GMT", 3600),
        ("Wed, 01 Jun 2022 01:00:01 GMT", 3600),
        ("Thu, 02 Jun 2022 00:00:00 GMT", 3600),
        ("Tue, 31 May 2022 00:00:00 GMT", 60),
    ],
)
def test_a_date_in_retry_after_is_an_instant(
    date: str, seconds: int, requests_mock: Mocker
) -> None:
    """Retry-After's date is waited for, for an hour at most, whatever the machine's own zone."""
    clock = FakeClock("2022-06-01T00:00:00+00:00")
    refused = {"status_code": 503, "headers": {"Retry-After": date}}
    requests_mock.post(HOURS, [refused, {"json": []}])
    with Simulator() as pbx:
        run = run_tap(
            pbx, clock=clock, api_url="https://pbx.example.com", request_interval=60, **HOUR
        )
    assert run.error is None
    assert [sleep for sleep in clock.sleeps if sleep] == [seconds]


@pytest.mark.usefixtures("_zone_of_this_machine")
@pytest.mark.parametrize(
    ("date", "is_over"),
    [
        ("Tue, 14 Sep 2021 04:59:59 GMT", False),
        ("Tue, 14 Sep 2021 04:59:59 -0000", False),
        ("Tue, 14 Sep 2021 14:59:59 +1000", False),
        ("Tue, 14 Sep 2021 05:00:00 GMT", True),
        ("Tue, 14 Sep 2021 05:00:00 -0000", True),
        ("Tue, 14 Sep 2021 15:00:00 +1000", True),
        ("", True),
        ("yesterday", True),
    ],
)
def test_the_date_of_an_answer_is_an_instant(
    date: str, *, is_over: bool, requests_mock: Mocker
) -> None:
    """An hour is not over if the answer's Date, in any form of zone, says so, and only then."""
    requests_mock.post(HOURS, json=[], headers={"Date": date})
    with Simulator() as pbx:
        run = run_tap(
            pbx,
            clock=FakeClock("2021-09-14T05:06:00+00:00"),
            api_url="https://pbx.example.com",
            start_date="2021-09-14T14:00",
        )
    (bookmark,) = (value["bookmarks"]["recordings"] for value in run.states)
    read_until = "2021-09-14T05:00:00+00:00" if is_over else None
    assert bookmark.get("replication_key_value") == read_until


class SlowClock(FakeClock):
    """A clock that each request moves, too."""

    def __init__(self, latency: float) -> None:
        """Take the seconds that each answer takes."""
        super().__init__()
        self.latency = latency

    @override
    def run(self, task: Callable[[], Any], timeout: float) -> Any:
        result = super().run(task, timeout)
        self.instant = self.instant.add(seconds=self.latency)
        return result


def gaps_between_requests(latency: float, *failures: Failure, interval: int = 60) -> list[float]:
    """The seconds between requests, as they arrive, of a run over some hours."""
    clock = SlowClock(latency)
    arrivals: list[float] = []

    def note_arrival(_start: object, _end: object) -> list[Leg]:
        arrivals.append(clock.monotonic())
        return []

    with Simulator(legs=note_arrival, failures=list(failures)) as pbx:
        run = run_tap(pbx, **DAY, clock=clock, request_interval=interval)
    assert run.error is None
    return [later - earlier for earlier, later in pairwise(arrivals)]


@pytest.mark.parametrize("latency", [0.3, 0.7, 20, 59])
def test_the_interval_counts_from_the_sending(latency: float) -> None:
    """A slow answer costs no pace: the interval, and a little, lies between two arrivals."""
    assert gaps_between_requests(latency) == pytest.approx([60.5] * 11)


def test_the_margin_of_a_short_interval_is_a_small_part_of_it() -> None:
    """What is added for the network's jitter leaves more than 98 % of the allowed requests."""
    assert gaps_between_requests(0.3, interval=1) == pytest.approx([1.015] * 11)


def test_an_answer_slower_than_the_interval_delays_nothing_more() -> None:
    """After an answer that took longer than the interval, the next request leaves at once."""
    assert gaps_between_requests(90) == pytest.approx([90] * 11)


@pytest.mark.parametrize(
    "rejection", [Failure("rate", at=AT), Failure("status", status=403, at=AT)]
)
def test_after_a_rejection_the_interval_counts_from_the_answer(rejection: Failure) -> None:
    """A PBX that rejects what kept the interval may count from its answers: from then on so."""
    gaps = gaps_between_requests(20, rejection)
    # The rejected request itself is not among the arrivals.
    assert gaps == pytest.approx([60.5] * 6 + [60.5 + 80] + [80] * 4)


def test_after_a_failure_the_interval_counts_from_its_end() -> None:
    """When a failed attempt arrived is not known: the next leaves an interval after its end."""
    gaps = gaps_between_requests(20, Failure("status", status=500, at=AT))
    assert gaps == pytest.approx([60.5] * 6 + [60.5 + 80] + [60.5] * 4)


def test_an_abandoned_attempt_is_not_sent(pbx: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that was given up while the name look-up hung sends nothing later."""
    transport = Transport(
        f"{pbx.url}/njadmin/rest/RecordingAPI",
        api_key=pbx.api_key,
        user_agent="test",
        timeout=5,
        monotonic=time.monotonic,
    )
    attempt = Attempt()
    look_up = socket.getaddrinfo

    def abandon_meanwhile(*args: Any, **kwargs: Any) -> Any:
        attempt.abandoned = True
        return look_up(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", abandon_meanwhile)
    with pytest.raises(TransientError):
        transport.post("retrieveMetaDataByHour?date=2021/09/14&hour=15", attempt)
    assert requested(pbx) == []
    assert attempt.sent_at is None


@pytest.mark.parametrize("end", [TimeoutError, Stopped])
def test_an_attempt_that_is_not_waited_for_is_abandoned(end: type[Exception]) -> None:
    """When the wait for an answer ends, by time or by a signal, the attempt counts as given up."""
    attempts: list[Attempt] = []

    class ImpatientClock(FakeClock):
        @override
        def run(self, task: Callable[[], Any], timeout: float) -> Any:
            assert isinstance(task, partial)
            attempts.extend(arg for arg in task.args if isinstance(arg, Attempt))
            raise end

    with Simulator() as pbx, suppress(SystemExit):
        run_tap(pbx, **HOUR, clock=ImpatientClock())
    assert attempts
    assert all(attempt.abandoned for attempt in attempts)


def test_an_hour_that_is_not_over_on_the_pbx_is_left_for_later(
    requests_mock: Mocker, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of an hour is emitted or claimed that is not over by the answer's Date header."""
    requests_mock.post(
        HOURS,
        json=[RECORD],
        headers={"Date": "Tue, 14 Sep 2021 03:55:00 GMT"},
    )
    with Simulator() as pbx:
        run = run_tap(
            pbx,
            clock=FakeClock("2021-09-14T06:06:00+00:00"),  # 16:06
            api_url="https://pbx.example.com",
            start_date="2021-09-14T13:00",
        )
    assert run.error is None
    assert run.states == [{"bookmarks": {"recordings": {}}}]
    assert run.records == []
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith(
        "2021-09-14 13:00: the clock of this machine is 2 hours 11 minutes ahead"
    )


def test_history_is_read_while_the_clock_is_ahead_of_the_pbx(requests_mock: Mocker) -> None:
    """With newest_first, an hour that is left for later does not keep history from being read."""
    now = {"Date": "Tue, 14 Sep 2021 04:56:00 GMT"}
    requests_mock.post(HOURS, json=[], headers=now)
    with Simulator() as pbx:
        run = run_tap(
            pbx,
            clock=FakeClock("2021-09-14T05:06:00+00:00"),
            api_url="https://pbx.example.com",
            start_date="2021-09-14T11:00",
            backfill_order="newest_first",
        )
    hours = [request.qs["hour"][0] for request in requests_mock.request_history]
    assert hours == ["14", "13", "12", "11"]
    assert run.bookmarks[-1] == "2021-09-14T04:00:00+00:00"


@pytest.mark.parametrize(
    "change",
    [
        {"Tag": "invoice 7"},
        {"Duration": "99"},
        {"callend": "Tue Sep 14 16:20:00 AEST 2021"},
        {"Duration": "-2"},  # whose hash is that of -1
    ],
)
def test_a_leg_that_comes_again_changed_is_emitted_again(
    change: dict[str, str], requests_mock: Mocker
) -> None:
    """A leg that comes with two hours is emitted once if it is the same, else twice."""
    leg = RECORD | {"Duration": "-1"}
    requests_mock.post(HOURS, [{"json": [leg, leg]}, {"json": [leg, leg | change]}])
    with Simulator() as pbx:
        run = run_tap(
            pbx,
            api_url="https://pbx.example.com",
            start_date="2021-09-14T15:00",
            end_date="2021-09-14T17:00",
        )
    assert run.keys == [("6468", 1)] * 2
    assert run.records[0] != run.records[1]


@pytest.mark.parametrize(
    "path",
    ["/./njadmin/rest/RecordingAPI", "/x/../njadmin/rest/RecordingAPI", "/a|b", "/ä", "/%7e/"],
)
def test_the_key_goes_with_every_address(path: str) -> None:
    """However requests rewrites the URL, the call is sent with the key."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Simulator() as pbx:
            run = run_tap(pbx, api_url=f"http://127.0.0.1:{server.server_port}{path}", **HOUR)
        server.shutdown()
    assert run.error is None
    (target,) = seen
    assert f"?apiKey={pbx.api_key}&date=2021/09/14&hour=15" in target


# No connection is made here, so no certificate is checked.
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_an_internationalised_host_gets_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host beyond ASCII is looked up as IDNA has it, and the call is sent with the key."""
    sent: list[str] = []

    def note(_: object, method: str, url: str, **__: object) -> None:
        sent.append(f"{method} {url}")
        raise ConnectionResetError

    monkeypatch.setattr("urllib3.connection.HTTPConnection.request", note)
    monkeypatch.setattr("urllib3.connection.HTTPSConnection.connect", lambda _: None)
    with Simulator() as pbx:
        run_tap(pbx, api_url="https://münchen.example", **HOUR)
    assert len(sent) == 5
    assert all(f"?apiKey={pbx.api_key}&" in line for line in sent)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_plain_http_call_goes_to_no_proxy(
    pbx: Simulator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A call by plain http stays on this machine, whatever proxy the environment names."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    run = run_tap(pbx, **HOUR)
    assert run.error is None
    assert len(run.records) == 4


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("HTTPS_PROXY", "socks9://127.0.0.1:9", "check HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://", "check HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://:80:80", "check HTTPS_PROXY"),
        ("REQUESTS_CA_BUNDLE", "/no/such/file", "REQUESTS_CA_BUNDLE"),
    ],
)
def test_a_bad_environment_is_named_and_not_tried_again(
    pbx: Simulator, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    """What is wrong with the environment is named, and ends the run at once."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(variable, value)
    run = run_tap(pbx, api_url="https://localhost:9", **HOUR)
    assert reason in str(run.error)
    assert "attempts" not in str(run.error)


def test_early_hints_are_not_an_answer() -> None:
    """Interim responses are passed over; what follows them is the answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for status in (102, 103, 100, 103):
                self.wfile.write(f"HTTP/1.1 {status} x\r\nLink: </a>\r\n\r\n".encode())
            body = json.dumps([RECORD]).encode()
            self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Simulator() as pbx:
            run = run_tap(pbx, api_url=f"http://127.0.0.1:{server.server_port}", **HOUR)
        server.shutdown()
    assert run.error is None
    assert run.keys == [("6468", 1)]


@pytest.mark.parametrize(
    "body", [b"[" + b"{}," * 500_000 + b"{}]", b'[{"a":[' + b"0," * 6_000_000 + b"0]}]"]
)
def test_an_answer_of_too_many_values_is_not_decoded(body: bytes, requests_mock: Mocker) -> None:
    """An answer that would cost many times its bytes in memory ends the run undecoded."""
    requests_mock.post(HOURS, content=body)
    with Simulator() as pbx:
        run = run_tap(pbx, api_url="https://pbx.example.com", **HOUR)
    assert "the answer has more than 200,000 legs" in str(run.error)


def test_of_a_refusal_a_few_kilobytes_are_read(requests_mock: Mocker) -> None:
    """Of what is not an answer, no more is read than a message can have."""
    requests_mock.post(HOURS, status_code=500, content=b"x" * 10_000_000)
    with Simulator() as pbx:
        run = run_tap(pbx, api_url="https://pbx.example.com", **HOUR)
    assert "the PBX failed (status 500)" in str(run.error)


def test_a_wait_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is announced in one line: the hour, the reason, the wait, the attempt."""
    with Simulator(failures=[Failure("status", status=500, at=AT, times=2)]) as pbx:
        run_tap(pbx, **DAY, request_interval=60)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert lines == [
        f"2021-09-14 15:00: the PBX failed (status 500); asking again in 60 s (attempt {n} of 5)"
        for n in (2, 3)
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://pbx.example.com", "https://pbx.example.com/njadmin/rest/RecordingAPI"),
        ("https://pbx.example.com/", "https://pbx.example.com/njadmin/rest/RecordingAPI"),
        (
            "https://pbx.example.com:8443/servicemanager/rest/RecordingAPI/",
            "https://pbx.example.com:8443/servicemanager/rest/RecordingAPI",
        ),
        ("http://localhost:80/x", "http://localhost:80/x"),
        ("http://127.8.9.1", "http://127.8.9.1/njadmin/rest/RecordingAPI"),
        ("http://[::1]:1234/a", "http://[::1]:1234/a"),
    ],
)
def test_an_address_without_a_path_gets_the_usual_one(text: str, url: str) -> None:
    """api_url is the PBX's address, or the API's; http is for loopback hosts alone."""
    assert api_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://pbx.example.com",
        "ftp://pbx.example.com",
        "pbx.example.com",
        "https://",
        "https://pbx.example.com:0",
        "https://pbx.example.com:port",
        "https://[::1",
        "https://user:secret@pbx.example.com",
        "https://pbx.example.com?apiKey=secret",
        "https://pbx.example.com?",
        "https://pbx.example.com#top",
        "https://pbx.example.com/a b",
        "https://pbx.example.com/\n",
        "http://localhost.example.com",
        "https://pbx..example.com",
        "https://*.example.com",
        "https://.example.com",
        f"https://{'x' * 64}.example.com",
    ],
)
def test_an_address_that_would_leak_the_key_is_refused(text: str) -> None:
    """Any other address is refused, in words that do not repeat it."""
    with pytest.raises(ValueError, match="give the address of the PBX") as refusal:
        api_url(text)
    assert "secret" not in str(refusal.value)


def test_an_answer_that_trickles_is_given_up_by_its_own_thread(requests_mock: Mocker) -> None:
    """When its time is over an attempt ends by itself: nothing else ends its thread."""
    requests_mock.post("https://pbx.example.com/api/path", content=b"[" + b" " * 2**19)
    minutes = count(step=60)
    transport = Transport(
        "https://pbx.example.com/api",
        api_key="key",
        user_agent="tap",
        timeout=120,
        monotonic=lambda: next(minutes),
    )
    with pytest.raises(TransientError, match="no complete response within 120 s"):
        transport.post("path", Attempt())
