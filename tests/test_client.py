"""Requests: what is sent, the pace, what is tried again, what an error says."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from conftest import FakeClock, as_records, asked, run_tap, told, truth

from tap_noojee.errors import NoojeeError
from tap_noojee.settings import api_url
from tap_noojee.simulator import Fault, Simulator

if TYPE_CHECKING:
    from requests_mock import Mocker

DAY: dict[str, Any] = {"start_date": "2021-09-14T08:00", "end_date": "2021-09-14T20:00"}
AT = ("2021-09-14", 15)
HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}
HOURS = "https://pbx.example.com/njadmin/rest/RecordingAPI/retrieveMetaDataByHour"

BROKEN_ONCE = [
    Fault("status", status=429),
    Fault("status", status=500),
    Fault("status", status=503, retry_after=7),
    Fault("rate", status=200),
    Fault("rate", status=400),
    Fault("rate", status=403),
    Fault("rate", status=429),
    Fault("cut"),
    Fault("cut-json"),
    Fault("reset"),
    Fault("stall"),
    Fault("empty"),
    Fault("body", body=b'[{"callend": "Tue Sep 14 15:03:3'),
    Fault("body", body=b'{"Code": -1, "Mess'),
    Fault("body", body=b'[{"Username": "\xff"}]'),
]
"""What a later attempt may mend."""

CHECK_KEY = "check `api_key`, and that Noojee support has put"
NOT_A_LIST = "not a list of recordings: check `api_url`"
LOGIN_PAGE = b"<form>Please wait and try again</form>"

FINAL = [
    (Fault("status", status=401), CHECK_KEY),
    (Fault("status", status=401, body=LOGIN_PAGE), CHECK_KEY),
    (Fault("status", status=404), "check `api_url`"),
    (Fault("status", status=404, body=LOGIN_PAGE), "check `api_url`"),
    (Fault("redirect"), "which is not followed: check `api_url`"),
    (Fault("status", status=304), "which is not followed: check `api_url`"),
    (Fault("html"), f"the answer is a web page, {NOT_A_LIST}"),
    (Fault("body", body=LOGIN_PAGE), f"the answer is a web page, {NOT_A_LIST}"),
    (Fault("null"), f"the answer is something else, {NOT_A_LIST}"),
    (Fault("body", body=b"42"), f"the answer is something else, {NOT_A_LIST}"),
    (Fault("body", body=b'{"error": "no"}'), f"the answer is something else, {NOT_A_LIST}"),
    (Fault("body", body=b'["a"]'), "record 1: is not an object"),
    (Fault("body", body=b'[{"Leg": [1]}]'), "record 1: callend: is missing"),
    (Fault("body", body=b'[{"Duration": 1e999}]'), "a number in the answer is out of range"),
]
"""What no further request will mend, and what the error says of it."""

REJECTIONS = [
    Fault("status", status=201),
    Fault("status", status=400),
    Fault("status", status=403),
    Fault("status", status=405),
    Fault("status", status=406),
    Fault("status", status=409),
    Fault("status", status=418),
    Fault("code"),
    Fault("body", body=b'{"Code": 0, "Message": "success"}'),
    Fault("body", body=b'{"Message": "no"}'),
]
"""What may be the rate limit's own error: worth one more request."""

LIMITS = [
    (400, b"API may only be called every 60 seconds"),
    (400, b'{"Code": 107, "Message": "wait a bit and retry"}'),
    (403, b"Rate limit exceeded"),
    (406, b'{"Code": -1, "Message": "You have exceeded the limit"}'),
    (409, b"limit reached"),
    (420, b"<html><h1>Enhance Your Calm</h1></html>"),
    (429, b""),
    (200, b"limit exceeded"),
    (200, b'{"Code": -1, "Message": "The request limit has been exceeded"}'),
    (401, b'{"Code": -1, "Message": "too many requests"}'),
    (500, b"Only one request per minute"),
    (400, b"one call a minute"),
    (400, b"called too soon"),
    (400, b"called too often"),
    (400, b"too frequent"),
    (400, b"throttled"),
    (400, b"slow down"),
    (400, b"please wait some time, then retry"),
    (400, b"please wait before you try again"),
    (400, b"once a minute"),
    (400, b"calls each minute: 1"),
]
"""Ways in which a rate limit may word its error: status and body."""


def name(case: Any) -> str:
    """A readable id for a case."""
    fault = case[0] if isinstance(case, tuple) else case
    return f"{fault.kind}-{fault.status}-{(fault.body or b'')[:16].decode(errors='replace')}"


@pytest.mark.parametrize("fault", BROKEN_ONCE, ids=name)
def test_a_passing_fault_is_tried_again(fault: Fault) -> None:
    """A fault that may pass is tried again after the interval, and nothing is lost."""
    clock = FakeClock()
    at_hour = dataclasses.replace(fault, at=AT, times=2)
    with Simulator(faults=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY, clock=clock, request_interval=60, request_timeout=1)
        assert told(run) == as_records(truth(pbx, DAY["start_date"], DAY["end_date"]))
        assert [hour for _, hour in asked(pbx)] == [*range(8, 15), 15, 15, *range(15, 20)]
    assert run.error is None
    assert sum(clock.sleeps) >= 60 * 13


@pytest.mark.parametrize("fault", BROKEN_ONCE, ids=name)
def test_a_lasting_fault_ends_the_run_after_five_attempts(fault: Fault) -> None:
    """A fault that lasts ends the run with the hour and the cause; a later run loses nothing."""
    at_hour = dataclasses.replace(fault, at=AT, times=None)
    with Simulator(faults=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY, request_timeout=1)
        assert [hour for _, hour in asked(pbx)] == [*range(8, 15), *[15] * 5]
        assert isinstance(run.error, NoojeeError)
        assert str(run.error).startswith("2021-09-14 15:00: ")
        assert str(run.error).endswith("(5 attempts)")
        assert run.bookmarks[-1] == "2021-09-14T05:00:00+00:00"
        pbx.faults.clear()
        rest = run_tap(pbx, **DAY, state=run.states[-1])
        true_legs = truth(pbx, DAY["start_date"], DAY["end_date"])
    assert told(run) + told(rest) == as_records(true_legs)


@pytest.mark.parametrize("case", FINAL, ids=name)
def test_what_will_not_pass_ends_the_run_at_once(case: tuple[Fault, str]) -> None:
    """What will not pass ends the run at once, with the hour, the cause and what to check."""
    fault, reason = case
    at_hour = dataclasses.replace(fault, at=AT, times=None)
    with Simulator(faults=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY)
        assert [hour for _, hour in asked(pbx)] == list(range(8, 16))
    assert isinstance(run.error, NoojeeError)
    assert str(run.error).startswith("2021-09-14 15:00: ")
    assert reason in str(run.error)
    assert run.bookmarks[-1] == "2021-09-14T05:00:00+00:00"


@pytest.mark.parametrize("fault", REJECTIONS, ids=name)
def test_a_rejection_is_reported_and_tried_once_more(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """A rejection is reported at once with what to check, and ends the run if it stands."""
    at_hour = dataclasses.replace(fault, at=AT, times=None)
    with Simulator(faults=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY, request_interval=60)
        assert [hour for _, hour in asked(pbx)] == [*range(8, 16), 15]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert CHECK_KEY in warning
    assert warning.endswith("asking again in 60 s (attempt 2 of 5)")
    assert CHECK_KEY in str(run.error)
    assert str(run.error).endswith("(2 attempts)")


@pytest.mark.parametrize("fault", REJECTIONS, ids=name)
def test_a_rejection_that_passes_loses_nothing(fault: Fault) -> None:
    """A rejection that was the rate limit's own error passes with the next request."""
    at_hour = dataclasses.replace(fault, at=AT, times=1)
    with Simulator(faults=[at_hour]) as pbx:
        run = run_tap(pbx, **DAY)
        assert told(run) == as_records(truth(pbx, DAY["start_date"], DAY["end_date"]))


@pytest.mark.parametrize(("status", "body"), LIMITS, ids=lambda value: str(value)[:40])
def test_a_rate_limit_in_any_words_is_waited_out(
    status: int, body: bytes, requests_mock: Mocker
) -> None:
    """Whatever status and words the rate limit's error has, five requests are made."""
    rejection = {"status_code": status, "content": body}
    requests_mock.post(HOURS, [*[rejection] * 4, {"json": []}])
    with Simulator() as pbx:
        run = run_tap(pbx, api_url="https://pbx.example.com", **HOUR)
    assert run.error is None
    assert len(requests_mock.request_history) == 5


def test_no_content_is_an_empty_hour() -> None:
    """A 204 is an hour without calls."""
    with Simulator(faults=[Fault("204", at=AT)]) as pbx:
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
    with Simulator(faults=[Fault("body", body=body, times=None)]) as pbx:
        return run_tap(pbx, **HOUR | config)


@pytest.mark.parametrize(
    ("field", "value", "said"),
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
def test_an_odd_record_is_named(field: str, value: Any, said: str) -> None:
    """A record that cannot be read ends the run with its hour, place, field and value."""
    odd = RECORD | {field: value}
    run = run_on([RECORD, RECORD | {"Leg": "2"}, odd])
    assert run.records == []
    assert run.states == []
    assert str(run.error).startswith(f"2021-09-14 15:00: record 3: {field}: ")
    assert said in str(run.error)
    assert len(str(run.error)) < 500


@pytest.mark.parametrize(
    ("field", "value", "told_as"),
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
def test_a_lack_or_another_form_is_no_error(field: str, value: Any, told_as: Any) -> None:
    """All but the keys and callend may be missing; numbers may come as numbers."""
    run = run_on([RECORD | {field: value}])
    assert run.error is None
    assert run.records[0][field] == told_as


def test_a_missing_field_is_null() -> None:
    """A field that is not in the answer is null; one that is not in the schema is left out."""
    short = {name: RECORD[name] for name in ("callend", "CallRecordId", "Leg")}
    run = run_on([short | {"Queue": "sales"}])
    assert run.error is None
    assert run.records[0].keys() == RECORD.keys()
    assert run.records[0]["Username"] is None


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


def test_a_clock_ahead_of_the_pbx_is_warned_of(
    requests_mock: Mocker, caplog: pytest.LogCaptureFixture
) -> None:
    """When by the PBX's clock an hour is asked for before it is over, a warning says so, once."""
    requests_mock.post(HOURS, json=[], headers={"Date": "Tue, 14 Sep 2021 04:56:00 GMT"})
    with Simulator() as pbx:
        run_tap(
            pbx,
            clock=FakeClock("2021-09-14T06:06:00+00:00"),
            api_url="https://pbx.example.com",
            start_date="2021-09-14T13:00",
        )
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith("2021-09-14 14:00: the clock of this machine is 70 minutes ahead")


def test_a_wait_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is announced in one line: the hour, the reason, the wait, the attempt."""
    with Simulator(faults=[Fault("status", status=500, at=AT, times=2)]) as pbx:
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
    ],
)
def test_an_address_that_would_tell_the_key_is_refused(text: str) -> None:
    """Any other address is refused, in words that do not repeat it."""
    with pytest.raises(ValueError, match="give the address of the PBX") as refusal:
        api_url(text)
    assert "secret" not in str(refusal.value)
