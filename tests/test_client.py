"""Requests: their form, pace and retries, and the checks of the PBX's clock."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from commands import SAMPLE_HOUR
from conftest import (
    FakeClock,
    ImpatientClock,
    as_rows,
    expected_legs,
    hours_read,
    requested_hours,
    run_tap,
    written_rows,
)
from requests_mock import Mocker
from typing_extensions import override

from tap_noojee.errors import FailedHoursError, NoojeeError, RequestError
from tap_noojee.simulator import Failure, Simulator

T = TypeVar("T")

FAILED_HOUR = ("2021-09-14", 15)
HOURS: dict[str, Any] = {"start_date": "2021-09-14T14:00", "end_date": "2021-09-14T17:00"}
PBX = "https://pbx.example.com"
URL = f"{PBX}/njadmin/rest/RecordingAPI/retrieveMetaDataByHour"

RATE_LIMIT = "raise `request_interval`"
CHECK_KEY = "`api_key` is the Global API key"
CHECK_URL = "check `api_url`"


@dataclasses.dataclass(frozen=True)
class Case:
    """How the tap handles a failure of the second of three hours."""

    failure: Failure
    text: str
    """Text that the error and each retry's warning contain."""
    attempts: int = 1
    run_continues: bool = False
    """Whether the run continues with the next hour."""


def status(number: int, body: bytes | None = None) -> Failure:
    return Failure("status", status=number, body=body)


def body(content: bytes) -> Failure:
    """Return a failure that sends this body with status 200."""
    return Failure("body", body=content)


CASES = [
    # These are retried and then end the run.
    Case(status(429), RATE_LIMIT, 5),
    Case(Failure("rate", status=200), RATE_LIMIT, 5),
    Case(Failure("rate", status=404), RATE_LIMIT, 5),
    Case(status(502), "status 502", 5),
    Case(status(503, b'{"Code": 7, "Message": "no"}'), "status 503, Code 7: no", 5),
    Case(Failure("reset"), "was lost", 5),
    Case(Failure("stall"), "`request_timeout`", 5),
    # These are retried and then fail only their hour.
    Case(status(500), "status 500", 5, run_continues=True),
    Case(Failure("cut"), "truncated", 5, run_continues=True),
    Case(Failure("cut-json"), "truncated", 5, run_continues=True),
    Case(Failure("empty"), "the response is empty", 5, run_continues=True),
    Case(body(b'[{"callend": "Tue Se'), "truncated after 20 bytes", 5, run_continues=True),
    # These may be the rate limit, so they are retried once.
    Case(status(201, b"[]"), CHECK_KEY, 2),
    Case(status(400), CHECK_KEY, 2),
    Case(status(403), CHECK_KEY, 2),
    Case(Failure("code"), CHECK_KEY, 2),
    Case(body(b'{"Code": 0, "Message": "success"}'), "Code 0: success", 2),
    Case(body(b'{"Message": "no"}'), "Code None: no", 2),
    # These end the run at once.
    Case(status(401), CHECK_KEY),
    Case(status(404), "/servicemanager/rest/RecordingAPI"),
    Case(status(304), "redirects to another page"),
    Case(Failure("html"), "a web page"),
    Case(Failure("null"), CHECK_URL),
    Case(body(b'{"error": "no"}'), CHECK_URL),
    # These fail their hour at once.
    Case(body(b'["a"]'), "record 1 is not an object", run_continues=True),
    Case(body(b'[{"Leg": 1},]'), "not JSON at byte", run_continues=True),
    Case(Failure("huge", size=2**26 + 1), "larger than 64 MiB", run_continues=True),
]


def case_id(case: Case) -> str:
    failure = case.failure
    parts = failure.kind, failure.status, (failure.body or b"")[:20].decode()
    return "-".join(str(part) for part in parts if part)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_failure_ends_the_run_or_fails_only_its_hour(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ImpatientClock() if case.failure.kind == "stall" else FakeClock()
    failure = dataclasses.replace(case.failure, at=FAILED_HOUR, times=None)
    with Simulator(failures=[failure]) as pbx:
        run = run_tap(pbx, **HOURS, clock=clock, request_interval=60)
        requests = [hour for _, hour in requested_hours(pbx)]
        before, _, after = (
            as_rows(expected_legs(pbx, f"2021-09-14T{hour}:00", f"2021-09-14T{hour + 1}:00"))
            for hour in (14, 15, 16)
        )
    retries = [r.getMessage() for r in caplog.records if "retrying in 60 s" in r.getMessage()]
    assert requests == [14] + [15] * case.attempts + ([16] if case.run_continues else [])
    for line, number in zip(retries, range(2, case.attempts + 1), strict=True):
        assert line.endswith(f"(attempt {number} of {case.attempts})")
    if case.run_continues:
        (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert isinstance(run.error, FailedHoursError)
        assert "2021-09-14 15:00" in str(run.error)
        assert written_rows(run) == before + after
        assert hours_read(run) == [
            ("2021-09-14T14:00", "2021-09-14T15:00"),
            ("2021-09-14T16:00", "2021-09-14T17:00"),
        ]
    else:
        assert isinstance(run.error, RequestError)
        error = str(run.error)
        assert written_rows(run) == before
        assert hours_read(run) == [("2021-09-14T14:00", "2021-09-14T15:00")]
    for line in (error, *retries):
        assert line.startswith("2021-09-14 15:00: ")
        assert case.text in line
    assert error.endswith(f"({case.attempts} attempts)") is (case.attempts > 1)


@pytest.mark.parametrize(
    ("statuses", "attempts", "error"),
    [
        ([503, 403, 403], 3, "status 403"),
        ([500, 503, 503, 503, 403], 5, "status 403"),
        ([403, 503, 503, 503, 503], 5, "status 503"),
        ([403, 500, 403], 3, "status 403"),
        ([500, 401], 2, "status 401"),
        ([500, 403], 3, ""),
        ([403, 500, 429, 500], 5, ""),
    ],
)
def test_attempts_are_counted_across_kinds_of_failure(
    statuses: list[int], attempts: int, error: str
) -> None:
    with Simulator(failures=[status(number) for number in statuses]) as pbx:
        run = run_tap(pbx, **SAMPLE_HOUR)
        expected = as_rows(expected_legs(pbx, SAMPLE_HOUR["start_date"], SAMPLE_HOUR["end_date"]))
    assert len(pbx.requests) == attempts
    if error:
        assert error in str(run.error)
        assert f"({attempts} attempts)" in str(run.error)
    else:
        assert run.error is None
        assert written_rows(run) == expected


def test_request_has_the_documented_query_and_our_headers(requests_mock: Mocker) -> None:
    requests_mock.post(URL, json=[])
    run = run_tap(
        Simulator(),
        api_url=PBX,
        start_date="2021-09-04T03:00",
        end_date="2021-09-04T04:00",
        user_agent="acme/1",
    )
    assert run.error is None
    (request,) = requests_mock.request_history
    assert request.url.endswith("/retrieveMetaDataByHour?date=2021/09/04&hour=3")
    assert request.body is None
    assert request.headers["User-Agent"] == "acme/1"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Connection"] == "close"
    assert str(request.timeout) == "(10, 120)"  # a tuple, although annotated as int


class SlowClock(FakeClock):
    """A clock on which each request takes `latency` seconds."""

    def __init__(self, latency: float) -> None:
        super().__init__()
        self.latency = latency
        self.starts: list[float] = []

    @override
    def run_in_thread(self, task: Callable[[], T], timeout: float) -> T:
        self.starts.append(self.monotonic())
        try:
            return super().run_in_thread(task, timeout)
        finally:
            self.instant = self.instant.add(seconds=self.latency)


def seconds_between_requests(
    latency: float, *failures: Failure, interval: int = 60
) -> list[float]:
    """Request eight hours, and return the seconds between the starts of the requests."""
    clock = SlowClock(latency)
    # Only the first request for 04:00 fails.
    at_four = [dataclasses.replace(failure, at=("2021-09-14", 4)) for failure in failures]
    with Simulator(volume=0, failures=at_four) as pbx:
        run_tap(pbx, clock=clock, request_interval=interval, max_hours_per_run=8)
    return [later - earlier for earlier, later in pairwise(clock.starts)]


def test_requests_start_at_least_an_interval_and_a_margin_apart() -> None:
    for interval, latency, seconds in (
        (60, 0, 60.5), (60, 59, 60.5), (60, 60.5, 60.5), (60, 90, 90),
        (1, 0.3, 1.015), (33, 0, 33.495), (0, 0.3, 0.3),
    ):  # fmt: skip
        found = seconds_between_requests(latency, interval=interval)
        assert found == pytest.approx([seconds] * 7), (interval, latency)


def test_interval_counts_from_the_end_of_a_failed_attempt() -> None:
    from_end_once, from_end_always = [80, 60.5, 60.5, 60.5], [80.0] * 4
    cases: list[tuple[Failure, list[float]]] = [
        (status(500), from_end_once),
        (Failure("reset"), from_end_once),
        (Failure("empty"), from_end_once),
        (Failure("cut"), from_end_once),
        (body(b"[1,]"), from_end_once[:3]),  # not retried
        # The JSON is valid, so the request succeeded and only the hour fails.
        (body(b"[1]"), [60.5] * 3),
        # After a rejection despite the interval, the run counts from each response's end.
        (Failure("rate"), from_end_always),
        (status(429), from_end_always),
        (status(403), from_end_always),
        (status(400), from_end_always),
        (Failure("code"), from_end_always),
    ]
    for failure, later in cases:
        assert seconds_between_requests(20, failure) == pytest.approx([60.5] * 4 + later), failure


@pytest.fixture
def _far_local_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set this process's time zone to one far from UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_local_zone")
def test_retry_after_is_honoured_up_to_an_hour(requests_mock: Mocker) -> None:
    cases = [
        ("7", 60),
        (" 61 ", 61),
        ("3600", 3600),
        ("3601", 3600),
        ("9" * 5000, 3600),
        ("-90", 60),
        ("", 60),
        ("soon", 60),
        ("Wed, 01 Jun 2022 00:10:00 GMT", 600),
        ("Wed, 01 Jun 2022 00:10:00 -0000", 600),
        ("Wed, 01 Jun 2022 10:10:00 +1000", 600),
        ("Wed, 01 Jun 2022 01:00:01 GMT", 3600),
        ("Tue, 31 May 2022 00:00:00 GMT", 60),
    ]
    all_cases = [*((503, *case) for case in cases), (403, "61", 61), (429, "61", 61)]
    for code, text, seconds in all_cases:
        clock = FakeClock("2022-06-01T00:00:00+00:00")
        rejection = {"status_code": code, "headers": {"Retry-After": text}}
        requests_mock.post(URL, [rejection, {"json": []}])
        run = run_tap(Simulator(), clock=clock, api_url=PBX, request_interval=60, **SAMPLE_HOUR)
        assert run.error is None
        assert [sleep for sleep in clock.sleeps if sleep] == [seconds], (code, text)


LEG = {"callend": "Tue Sep 14 15:03:34 AEST 2021", "CallRecordId": "1", "Leg": "1"}
NOW = "2021-09-14T06:06:00+00:00"
"""16:06 in Melbourne. The hour 15:00 has been due since 16:05."""


def run_with_date(requests_mock: Mocker, date: str, **config: Any) -> Any:
    """Run the tap at NOW, from 14:00, with a PBX that sends this `Date` header."""
    headers = {"Date": date} if date else {}
    requests_mock.post(URL, json=[LEG] * 2, headers=headers)
    config = {"api_url": PBX, "start_date": "2021-09-14T14:00"} | config
    return run_tap(Simulator(), clock=FakeClock(NOW), **config)


@pytest.mark.usefixtures("_far_local_zone")
@pytest.mark.parametrize(
    ("date", "hours"),
    [
        ("Tue, 14 Sep 2021 06:06:00 GMT", 2),
        ("Tue, 14 Sep 2021 06:04:00 GMT", 2),
        ("Tue, 14 Sep 2021 06:03:59 GMT", 1),
        ("Tue, 14 Sep 2021 06:03:59 -0000", 1),
        ("Tue, 14 Sep 2021 16:03:59 +1000", 1),
        ("Tue, 14 Sep 2021 05:03:59 GMT", 0),
        ("Mon, 13 Sep 2021 18:06:00 GMT", 0),
        ("", 2),
        (f"Tue, 14 Sep {10**25} 00:00:00 GMT", 2),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 2),
    ],
)
def test_hour_is_skipped_if_the_date_header_is_over_a_minute_too_early(
    date: str, hours: int, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_with_date(requests_mock, date)
    assert run.error is None
    read = ("2021-09-14T14:00", f"2021-09-14T{14 + hours}:00")
    assert hours_read(run) == ([read] if hours else [])
    assert len(run.records) == 2 * hours
    warnings = [line for line in caplog.messages if "skipped" in line]
    assert len(warnings) == (1 if hours < 2 else 0)
    for warning in warnings:
        assert warning.startswith(f"2021-09-14 {14 + hours}:00: skipped")
        assert "2021-09-14T06:06:00+00:00" in warning


def test_date_header_more_than_12_hours_behind_is_an_error(requests_mock: Mocker) -> None:
    dates = {
        "Mon, 13 Sep 2021 18:05:59 GMT": "2021-09-13T18:05:59+00:00",
        "Thu, 01 Jan 1970 00:00:00 GMT": "1970-01-01T00:00:00+00:00",
    }
    for date, text in dates.items():
        run = run_with_date(requests_mock, date, start_date="2021-09-13")
        assert isinstance(run.error, NoojeeError)
        assert "`Date`" in str(run.error)
        assert "2021-09-14T06:06:00+00:00" in str(run.error)
        assert text in str(run.error)
    assert len(requests_mock.request_history) == 2
