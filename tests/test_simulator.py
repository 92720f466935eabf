"""The simulated PBX, over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args
from zoneinfo import ZoneInfo

import pytest
import requests
from times import every

from tap_noojee.simulator import API_KEY, Failure, Leg, Simulator, legs
from tap_noojee.simulator.server import BASES, Fold

if TYPE_CHECKING:
    from tap_noojee.simulator.calls import Dates
    from tap_noojee.simulator.failures import Kind
    from tap_noojee.simulator.server import Gap

MELBOURNE = ZoneInfo("Australia/Melbourne")
SAMPLE_HOUR = (date(2021, 9, 14), 15)
BUSY_HOUR = (date(2021, 9, 15), 10)
FIELDS = [
    *("callend", "CallRecordId", "DID", "Destination", "Direction", "Duration"),
    *("Leg", "Source", "Start", "Tag", "UniqueId", "Username"),
]


def url(pbx: Simulator) -> str:
    """The address of the API's only call."""
    return f"{pbx.url}{BASES[0]}/retrieveMetaDataByHour"


def post_hour(pbx: Simulator, day: date, hour: int, **options: Any) -> requests.Response:
    """Send one request, as the API's documentation describes it."""
    params = {"apiKey": pbx.api_key, "date": f"{day:%Y/%m/%d}", "hour": str(hour)}
    timeout = options.pop("timeout", 10)
    return requests.post(url(pbx), params=params, timeout=timeout, **options)


def raw_request(key: str) -> bytes:
    """The same request for the documented hour, as it is on the wire."""
    path = f"{BASES[0]}/retrieveMetaDataByHour?apiKey={key}&date=2021/09/14&hour=15"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()


def records(pbx: Simulator, day: date, hour: int) -> list[dict[str, str]]:
    """The records of one hour."""
    answer = post_hour(pbx, day, hour)
    assert answer.status_code == 200
    return cast("list[dict[str, str]]", json.loads(answer.content.decode()))


def keys(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The keys of the legs of an answer."""
    return [(record["CallRecordId"], record["Leg"]) for record in found]


QUARTER = timedelta(minutes=15)


# Hours and calls


def test_every_leg_of_a_week_is_in_one_answer() -> None:
    """Every invented leg of a week is in the answer to exactly one hour."""
    days = [date(2021, 9, 13) + timedelta(number) for number in range(7)]
    with Simulator() as pbx:
        found = [
            key for day in days for hour in range(24) for key in keys(records(pbx, day, hour))
        ]
    start = datetime(2021, 9, 13, tzinfo=MELBOURNE).astimezone(UTC)
    truth = legs(start, start + timedelta(7), zone=MELBOURNE)
    assert len(found) > 1000
    assert Counter(found) == Counter((leg.call_record_id, str(leg.leg)) for leg in truth)


@pytest.mark.parametrize(
    ("zone", "changes"),
    [
        ("Australia/Melbourne", date(2021, 4, 4)),
        ("Australia/Melbourne", date(2021, 10, 3)),
        ("Australia/Lord_Howe", date(2021, 4, 4)),
        ("Australia/Lord_Howe", date(2021, 10, 3)),
        ("Pacific/Chatham", date(2021, 4, 4)),
        ("Pacific/Chatham", date(2021, 9, 26)),
    ],
)
def test_every_leg_of_a_clock_change_day_is_in_one_answer(zone: str, changes: date) -> None:
    """Every leg of a clock-change day is in the answer to exactly one hour."""
    local = ZoneInfo(zone)
    start, end = (
        datetime(changes.year, changes.month, changes.day + day, tzinfo=local) for day in (0, 1)
    )
    truth = every(timedelta(minutes=7), start.astimezone(UTC), end.astimezone(UTC))
    with Simulator(timezone=zone, legs=truth) as pbx:
        found = [key for hour in range(24) for key in keys(records(pbx, changes, hour))]
    assert Counter(found) == Counter((leg.call_record_id, "1") for leg in truth)


@pytest.mark.parametrize(
    ("fold", "names"),
    [("both", ["AEDT", "AEST"]), ("first", ["AEDT"]), ("second", ["AEST"])],
)
def test_a_repeated_hour_returns_the_passes_of_fold(fold: Fold, names: list[str]) -> None:
    """A repeated hour returns the legs of the passes that `fold` names."""
    around = datetime(2021, 4, 3, tzinfo=UTC)
    with Simulator(fold=fold, legs=every(QUARTER, around, around + timedelta(2))) as pbx:
        found = records(pbx, date(2021, 4, 4), 2)
        neighbours = records(pbx, date(2021, 4, 4), 1) + records(pbx, date(2021, 4, 4), 3)
    assert [record["callend"].split()[4] for record in found] == [
        name for name in names for _ in range(4)
    ]
    assert len(neighbours) == 8


@pytest.mark.parametrize(("gap", "same_as"), [("empty", None), ("next", 3)])
def test_a_skipped_hour_is_empty_or_the_next_hour(gap: Gap, same_as: int | None) -> None:
    """A skipped hour returns nothing or, with `gap="next"`, the next hour's legs."""
    around = datetime(2021, 10, 2, tzinfo=UTC)
    with Simulator(gap=gap, legs=every(QUARTER, around, around + timedelta(2))) as pbx:
        found = records(pbx, date(2021, 10, 3), 2)
        expected = records(pbx, date(2021, 10, 3), same_as) if same_as else []
    assert found == expected
    assert len(found) == (4 if same_as else 0)


def test_an_hour_of_which_half_exists_returns_its_own_legs() -> None:
    """An hour of which only half exists returns its own legs, even with `gap="next"`."""
    around = datetime(2021, 10, 2, tzinfo=UTC)
    truth = every(timedelta(minutes=10), around, around + timedelta(2))
    with Simulator(timezone="Australia/Lord_Howe", gap="next", legs=truth) as pbx:
        found = records(pbx, date(2021, 10, 3), 2)
    assert [record["callend"][11:16] for record in found] == ["02:30", "02:40", "02:50"]


def test_an_answer_is_an_array_of_records_of_strings() -> None:
    """An answer is a JSON array in UTF-8; its records have twelve fields, all of them strings."""
    with Simulator() as pbx:
        answer = post_hour(pbx, *BUSY_HOUR)
    found = answer.json()
    assert 20 <= len(found) <= 80
    assert all(list(record) == FIELDS for record in found)
    assert {type(value) for record in found for value in record.values()} == {str}
    assert any(not record["Username"].isascii() for record in found)
    assert b"\\u" not in answer.content


def test_the_legs_of_a_call_follow_each_other() -> None:
    """The legs of a call follow each other without gaps, count from 1 and share their ids."""
    start = datetime(2024, 3, 4, tzinfo=UTC)
    calls: dict[str, list[Leg]] = {}
    for leg in legs(start, start + timedelta(28), zone=MELBOURNE):
        calls.setdefault(leg.call_record_id, []).append(leg)
    for call in calls.values():
        if call[0].leg == 1 and call[-1].callend < start + timedelta(27):
            assert [leg.leg for leg in call] == list(range(1, len(call) + 1))
        assert all(one.callend == other.start for one, other in pairwise(call))
        assert len({leg.unique_id for leg in call}) == 1
        assert int(call[0].unique_id.split(".")[0]) <= call[0].start.timestamp()
    assert {len(call) for call in calls.values()} == {1, 2, 3, 4, 5}
    assert {call[0].direction for call in calls.values()} == {"Inbound", "Outbound", "Internal"}
    assert any(call[0].callend.hour != call[-1].callend.hour for call in calls.values())


def test_the_volume_follows_the_week() -> None:
    """Mornings are busy, nights quiet, Saturdays thin, and Sundays have a few calls an hour."""
    start = datetime(2024, 3, 4, tzinfo=MELBOURNE).astimezone(UTC)  # a Monday
    ends = [
        leg.callend.astimezone(MELBOURNE)
        for leg in legs(start, start + timedelta(28), zone=MELBOURNE)
    ]
    day = Counter(end.weekday() for end in ends)
    hour = Counter(end.hour for end in ends)
    assert 0 < day[5] * 5 < day[0]
    assert 0 < day[6] * 2 < day[0]
    assert hour[10] > hour[12] * 1.5
    assert hour[3] * 10 < hour[10]


@pytest.mark.parametrize("zone", ["Australia/Melbourne", "Europe/London", "Pacific/Auckland"])
def test_a_clock_change_is_visible(zone: str) -> None:
    """On the Sunday on which clocks go back, there are calls in both passes of the hour."""
    repeated = {
        "Australia/Melbourne": (date(2021, 4, 4), 2),
        "Pacific/Auckland": (date(2021, 4, 4), 2),
        "Europe/London": (date(2021, 10, 31), 1),
    }
    names = {}
    for fold in get_args(Fold):
        with Simulator(timezone=zone, fold=fold) as pbx:
            found = records(pbx, *repeated[zone])
        names[fold] = {record["callend"].split()[4] for record in found}
    assert len(names["both"]) == 2
    assert len(names["first"]) == len(names["second"]) == 1
    assert names["first"] != names["second"]


@pytest.mark.parametrize("failures", [[], [Failure("status")], [Failure("slow", delay=0)]])
def test_the_rate_limit_counts_from_the_arrival_of_a_request(failures: list[Failure]) -> None:
    """After an answer that took longer than the interval, the next request is accepted at once."""
    with Simulator(interval=0.2, latency=0.3, failures=failures) as pbx:
        statuses = [post_hour(pbx, *SAMPLE_HOUR).status_code for _ in range(2)]
    assert 429 not in statuses


@pytest.mark.parametrize("failures", [[], [Failure("status")], [Failure("slow", delay=0)]])
def test_the_rate_limit_may_count_from_the_end_of_an_answer(failures: list[Failure]) -> None:
    """With `counts_from="answer"`, the interval starts when the answer is sent."""
    with Simulator(interval=0.2, latency=0.3, counts_from="answer", failures=failures) as pbx:
        post_hour(pbx, *SAMPLE_HOUR)
        while post_hour(pbx, *SAMPLE_HOUR).status_code == 429:
            pass
    first, *_, last = pbx.requests
    assert last.time - first.time >= 0.5


@pytest.mark.parametrize("zone", ["UTC", "Australia/Melbourne"])
def test_the_date_header_shows_the_time_of_the_clock(zone: str) -> None:
    """With `clock`, the `Date` header shows its time, in whatever zone that is."""
    now = datetime(2021, 9, 14, 5, 59, 30, tzinfo=UTC).astimezone(ZoneInfo(zone))
    with Simulator(clock=lambda: now) as pbx:
        answer = post_hour(pbx, *SAMPLE_HOUR)
    assert answer.headers["Date"] == "Tue, 14 Sep 2021 05:59:30 GMT"


def test_the_date_header_shows_the_real_time_by_default() -> None:
    """Without `clock`, the `Date` header shows the real time, so that past hours are over."""
    before = datetime.now(UTC).replace(microsecond=0)
    with Simulator() as pbx:
        shown = parsedate_to_datetime(post_hour(pbx, *SAMPLE_HOUR).headers["Date"])
    assert before <= shown <= datetime.now(UTC)


def test_the_calls_are_the_same_in_every_process() -> None:
    """The calls of an hour are the same in every process, whatever was requested before."""
    code = (
        "from datetime import *; from zoneinfo import *; from tap_noojee.simulator import *\n"
        "start = datetime(2031, 5, 6, 1, tzinfo=UTC)\n"
        "print(ascii(legs(start, start + timedelta(hours=1), zone=ZoneInfo('Asia/Singapore'))))"
    )
    env = os.environ | {"PYTHONHASHSEED": "7"}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, check=True
    )
    start = datetime(2031, 5, 6, 1, tzinfo=UTC)
    zone = ZoneInfo("Asia/Singapore")
    legs(start - timedelta(9), start + timedelta(9), zone=zone)
    found = legs(start, start + timedelta(hours=1), zone=zone)
    assert printed.stdout.decode().strip() == ascii(found)
    # Pinned, so that a change of Python or of the code cannot change them unnoticed.
    pinned = (30, "1935795667.1", "Grace Papadopoulos")
    assert (len(found), found[0].unique_id, found[0].username) == pinned


def test_volume_multiplies_the_calls() -> None:
    """`volume` multiplies the calls; 0 leaves none."""
    start = datetime(2021, 9, 13, tzinfo=UTC)
    counts = [
        len(legs(start, start + timedelta(5), zone=MELBOURNE, volume=volume))
        for volume in (0, 1, 3)
    ]
    assert counts[0] == 0
    assert 2 < counts[2] / counts[1] < 4
    with Simulator(volume=0) as pbx:
        assert records(pbx, *BUSY_HOUR) == []


def test_the_documented_hour_is_served_to_the_letter() -> None:
    """The documented hour returns just the documented legs, to the letter and in order."""
    with Simulator() as pbx:
        found = records(pbx, *SAMPLE_HOUR)
    documented = Path(__file__).with_name("documented-answer.json").read_text()
    assert found == json.loads(documented)


def test_legs_may_be_a_function() -> None:
    """`legs` may be a function of the time that is requested."""
    with Simulator(legs=lambda start, _: [Leg(start, start, "1")]) as pbx:
        assert keys(records(pbx, *BUSY_HOUR)) == [("1", "1")]


@pytest.mark.parametrize(
    ("dates", "zone", "january", "july"),
    [
        ("java", "Australia/Melbourne", "AEDT", "AEST"),
        ("java", "Australia/Adelaide", "ACDT", "ACST"),
        ("java", "Australia/Lord_Howe", "LHDT", "LHST"),
        ("java", "Australia/Eucla", "ACWST", "ACWST"),
        ("java", "Pacific/Norfolk", "NFST", "NFT"),
        ("java", "Pacific/Auckland", "NZDT", "NZST"),
        ("java", "Pacific/Chatham", "CHADT", "CHAST"),
        ("java", "Asia/Singapore", "SGT", "SGT"),
        ("java", "Etc/GMT-10", "GMT+10:00", "GMT+10:00"),
        ("java", "UTC", "UTC", "UTC"),
        ("gmt", "Australia/Melbourne", "GMT+11:00", "GMT+10:00"),
        ("gmt", "Australia/Lord_Howe", "GMT+11:00", "GMT+10:30"),
        ("gmt", "America/St_Johns", "GMT-03:30", "GMT-02:30"),
        ("old", "Australia/Melbourne", "EST", "EST"),
        ("old", "Australia/Adelaide", "CST", "CST"),
        ("old", "Australia/Perth", "WST", "WST"),
        ("old", "Pacific/Auckland", "NZDT", "NZST"),
    ],
)
def test_zones_have_javas_names(dates: Dates, zone: str, january: str, july: str) -> None:
    """Zones are named as Java names them."""
    for month, name in ((1, january), (7, july)):
        moment = datetime(2021, month, 3, 0, 0, 5, tzinfo=UTC)
        printed = Leg(moment, moment, "1").record(ZoneInfo(zone), dates)["callend"]
        local = moment.astimezone(ZoneInfo(zone))
        assert printed == f"{local:%a %b %d %H:%M:%S} {name} 2021"


def test_an_older_server_prints_timestamps() -> None:
    """An older server prints timestamps without a zone."""
    with Simulator(dates="timestamp") as pbx:
        assert records(pbx, *SAMPLE_HOUR)[0]["callend"] == "2021-09-14 15:03:34.0"


# Rejections


def test_the_api_has_two_paths_and_no_others() -> None:
    """The API is served at both paths; any other is a 404 with HTML."""
    with Simulator() as pbx:
        query = f"apiKey={API_KEY}&date=2021/09/14&hour=15"
        for base in BASES:
            answer = requests.post(f"{pbx.url}{base}/retrieveMetaDataByHour?{query}", timeout=10)
            assert len(answer.json()) == 4
        answer = requests.post(f"{pbx.url}/retrieveMetaDataByHour?{query}", timeout=10)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")


def test_only_post_is_allowed() -> None:
    """Anything but a POST is a 405 with HTML."""
    with Simulator() as pbx:
        answer = requests.get(url(pbx), params={"apiKey": API_KEY}, timeout=10)
    assert answer.status_code == 405
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"apiKey": "x", "date": "2021/09/14", "hour": "3"}, 403),
        ({"date": "2021/09/14", "hour": "3"}, 403),
        ({"apiKey": API_KEY, "date": "2021-09-14", "hour": "3"}, 400),
        ({"apiKey": API_KEY, "date": "2021/02/29", "hour": "3"}, 400),
        ({"apiKey": API_KEY, "date": "2021/09/14", "hour": "24"}, 400),
        ({"apiKey": API_KEY, "date": "9999/12/31", "hour": "1"}, 400),
        ({"apiKey": API_KEY, "date": "2021/09/14"}, 400),
    ],
)
def test_a_bad_request_gets_a_code_and_a_message(params: dict[str, str], status: int) -> None:
    """A wrong key, date or hour is rejected with Code and Message."""
    with Simulator() as pbx:
        answer = requests.post(url(pbx), params=params, timeout=10)
    assert answer.status_code == status
    assert answer.json()["Code"] == -1
    assert pbx.requests[0].status == status


def test_a_request_too_soon_is_rejected_and_does_not_count() -> None:
    """A request too soon is rejected and does not count; one after the interval is accepted."""
    with Simulator(interval=0.5, rate_limit_status=400) as pbx:
        statuses = [post_hour(pbx, *SAMPLE_HOUR).status_code for _ in range(2)]
        while post_hour(pbx, *SAMPLE_HOUR).status_code != 200:
            pass
    assert statuses == [200, 400]
    first, *rejected, last = pbx.requests
    assert {request.status for request in rejected} == {400}
    assert last.time - first.time >= 0.5


def test_the_rate_limit_has_a_status_and_a_message() -> None:
    """A request too soon gets a 429 with Code and Message, also after a request that failed."""
    with Simulator(interval=60, failures=[Failure("status")]) as pbx:
        answers = [post_hour(pbx, *SAMPLE_HOUR) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 429]
    assert answers[1].json() == {"Code": -1, "Message": "wait a bit and retry"}


@pytest.mark.parametrize("failures", [[], [Failure("rate")]])
@pytest.mark.parametrize("body", [b"<h1>Too many calls</h1>", b""])
def test_the_rate_limit_may_have_any_form(failures: list[Failure], body: bytes) -> None:
    """The status, body and content type of the rate limit's error can be set."""
    with Simulator(
        interval=0 if failures else 60,
        rate_limit_status=200,
        rate_limit_body=body,
        rate_limit_content_type="text/html",
        failures=[Failure("204"), *failures],
    ) as pbx:
        answers = [post_hour(pbx, *SAMPLE_HOUR) for _ in range(2)]
    assert answers[1].status_code == 200
    assert answers[1].content == body
    assert answers[1].headers["Content-Type"] == "text/html"


def test_requests_are_recorded_in_order() -> None:
    """Every request is recorded in order, with its hour and its outcome."""
    with Simulator(failures=[Failure("reset", at=("2021-09-14", 4))]) as pbx:
        records(pbx, date(2021, 9, 14), 3)
        with pytest.raises(requests.ConnectionError):
            post_hour(pbx, date(2021, 9, 14), 4)
    assert [request[1:] for request in pbx.requests] == [
        ("2021-09-14", 3, 200, None),
        ("2021-09-14", 4, None, "reset"),
    ]


# Failures


def test_failures_are_served_in_order(pbx: Simulator) -> None:
    """The first failure that matches and has times left is served, then the right answer."""
    pbx.failures += [
        Failure("status", status=500, times=2),
        Failure("status", status=502, at=("2021-09-14", 16)),
        Failure("status", status=504),
    ]
    answers = [post_hour(pbx, *SAMPLE_HOUR).status_code for _ in range(4)]
    assert answers == [500, 500, 504, 200]
    assert post_hour(pbx, date(2021, 9, 14), 16).status_code == 502


def test_a_failure_may_last_for_ever(pbx: Simulator) -> None:
    """A failure with times=None does not wear out."""
    pbx.failures.append(Failure("empty", times=None))
    assert [post_hour(pbx, *SAMPLE_HOUR).content for _ in range(5)] == [b""] * 5


def test_an_error_is_a_page_that_may_echo_the_url(pbx: Simulator) -> None:
    """An error is an HTML page, may ask to wait, and may echo the whole URL."""
    pbx.failures.append(Failure("status", status=502, retry_after=7, echo=True))
    answer = post_hour(pbx, *SAMPLE_HOUR)
    assert answer.status_code == 502
    assert answer.headers["Retry-After"] == "7"
    assert answer.headers["Content-Type"].startswith("text/html")
    assert API_KEY in answer.text
    assert pbx.url in answer.text


@pytest.mark.parametrize(
    ("failure", "status", "body"),
    [
        (Failure("status", body=b"oops"), 503, b"oops"),
        (Failure("null"), 200, b"null"),
        (Failure("empty"), 200, b""),
        (Failure("204"), 204, b""),
        (Failure("body", body=b"\xff["), 200, b"\xff["),
    ],
)
def test_a_wrong_body_comes_as_given(
    pbx: Simulator, failure: Failure, status: int, body: bytes
) -> None:
    """A wrong body is sent as it was given."""
    pbx.failures.append(failure)
    answer = post_hour(pbx, *SAMPLE_HOUR)
    assert (answer.status_code, answer.content) == (status, body)


def test_a_login_page_has_status_200(pbx: Simulator) -> None:
    """A login page has status 200."""
    pbx.failures.append(Failure("html"))
    answer = post_hour(pbx, *SAMPLE_HOUR)
    assert answer.status_code == 200
    assert answer.text.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Failure("code"), 200), (Failure("rate"), 429), (Failure("rate", status=200), 200)],
)
def test_an_error_message_may_have_any_status(
    pbx: Simulator, failure: Failure, status: int
) -> None:
    """An error is sent as Code and Message, whatever the status."""
    pbx.failures.append(failure)
    answer = post_hour(pbx, *SAMPLE_HOUR)
    assert answer.status_code == status
    assert answer.json()["Code"] == -1
    assert ("wait a bit" in answer.json()["Message"]) == (failure.kind == "rate")


def test_a_redirect_carries_the_key(pbx: Simulator) -> None:
    """A redirect has the key in its Location."""
    pbx.failures.append(Failure("redirect"))
    answer = post_hour(pbx, *SAMPLE_HOUR, allow_redirects=False)
    assert answer.status_code == 302
    assert API_KEY in answer.headers["Location"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("cut", requests.exceptions.ChunkedEncodingError),
        ("reset", requests.ConnectionError),
    ],
)
def test_a_broken_answer_is_a_connection_error(
    pbx: Simulator, kind: Kind, error: type[Exception]
) -> None:
    """An answer cut short, or a connection reset, is an error for the client."""
    pbx.failures.append(Failure(kind))
    with pytest.raises(error) as caught:
        post_hour(pbx, *SAMPLE_HOUR)
    assert ("reset by peer" in str(caught.value)) == (kind == "reset")
    assert len(records(pbx, *SAMPLE_HOUR)) == 4


def test_half_an_answer_may_look_complete(pbx: Simulator) -> None:
    """Half an answer that ends cleanly looks complete until it is parsed as JSON."""
    whole = post_hour(pbx, *SAMPLE_HOUR).content
    pbx.failures.append(Failure("cut-json"))
    answer = post_hour(pbx, *SAMPLE_HOUR)
    assert "Content-Length" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers
    assert answer.content == whole[: len(whole) // 2]


def test_a_slow_answer_is_the_right_one(pbx: Simulator) -> None:
    """A slow answer is the right one, for a client that waits."""
    pbx.failures.append(Failure("slow", delay=0.5, times=2))
    with pytest.raises(requests.ReadTimeout):
        post_hour(pbx, *SAMPLE_HOUR, timeout=0.1)
    assert len(records(pbx, *SAMPLE_HOUR)) == 4


def test_a_stalled_request_is_never_answered(pbx: Simulator) -> None:
    """A stalled request is never answered."""
    pbx.failures.append(Failure("stall"))
    with pytest.raises(requests.ReadTimeout):
        post_hour(pbx, *SAMPLE_HOUR, timeout=0.3)
    assert pbx.requests[0].status is None


@pytest.mark.parametrize(("kind", "enough"), [("trickle", 2), ("endless", 300_000)])
def test_an_endless_answer_begins_like_a_right_one(
    pbx: Simulator, kind: Kind, enough: int
) -> None:
    """An answer that is sent byte by byte, or never ends, begins like a right one."""
    pbx.failures.append(Failure(kind))
    with post_hour(pbx, *SAMPLE_HOUR, stream=True) as answer:
        begun = next(answer.iter_content(chunk_size=enough))
    assert begun.startswith(b"[{")
    assert len(records(pbx, *SAMPLE_HOUR)) == 4


def test_early_hints_come_before_the_right_answer(pbx: Simulator) -> None:
    """A 103 precedes the right answer."""
    pbx.failures.append(Failure("early-hints"))
    port = int(pbx.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(raw_request(API_KEY))
        received = b"".join(iter(lambda: client.recv(65536), b""))
    hints, head, body = received.split(b"\r\n\r\n")
    assert hints.startswith(b"HTTP/1.1 103 Early Hints\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == records(pbx, *SAMPLE_HOUR)


@pytest.mark.parametrize("status", [None, 403])
@pytest.mark.parametrize("size", [2, 3, 5, 200_000, 200_001])
@pytest.mark.parametrize("unit", [None, b"0,", b'{"Leg": "1"},'])
def test_a_huge_answer_is_an_array_of_any_size(
    pbx: Simulator, unit: bytes | None, size: int, status: int | None
) -> None:
    """An answer, or a rejection, of `size` bytes is a JSON array that repeats `body`."""
    pbx.failures.append(Failure("huge", size=size, body=unit, status=status))
    answer = post_hour(pbx, *SAMPLE_HOUR)
    assert answer.status_code == (status or 200)
    assert len(answer.content) == int(answer.headers["Content-Length"]) == size
    unit = unit or b"{},"
    assert answer.json() == [json.loads(unit.removesuffix(b","))] * ((size - 2) // len(unit))


def test_a_huge_answer_is_sent_in_pieces(pbx: Simulator) -> None:
    """An answer larger than any memory begins like one that is not."""
    pbx.failures.append(Failure("huge", size=2**60))
    with post_hour(pbx, *SAMPLE_HOUR, stream=True) as answer:
        assert answer.headers["Content-Length"] == str(2**60)
        assert next(answer.iter_content(chunk_size=100_000)).startswith(b"[{},{},")


def test_latency_delays_every_answer() -> None:
    """Every answer is late by `latency`; its request is recorded on arrival."""
    with Simulator(latency=0.5) as pbx:
        with pytest.raises(requests.ReadTimeout):
            post_hour(pbx, *SAMPLE_HOUR, timeout=0.1)
        assert [request.status for request in pbx.requests] == [200]


@pytest.mark.parametrize("kind", ["stall", "trickle", "endless", "slow", "huge"])
def test_stopping_ends_every_connection_and_thread(kind: Kind) -> None:
    """Stopping breaks off every answer and idle connection, and leaves no thread behind."""
    before = threading.active_count()
    pbx = Simulator(failures=[Failure(kind, delay=600, size=2**60)])
    with pbx:
        port = int(pbx.url.rsplit(":", 1)[1])
        idle = socket.create_connection(("127.0.0.1", port))
        busy = socket.create_connection(("127.0.0.1", port))
        busy.sendall(raw_request(API_KEY))
        while not pbx.requests:
            pass
    assert threading.active_count() == before
    for client in (idle, busy):
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    pbx.stop()  # twice does no harm


# The command line


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("reset", Failure("reset")),
        ("reset*3", Failure("reset", times=3)),
        ("cut-json*", Failure("cut-json", times=None)),
        ("slow=2.5", Failure("slow", delay=2.5)),
        ("status=502@2021-09-14T05*2", Failure("status", ("2021-09-14", 5), 2, status=502)),
        ("rate=400", Failure("rate", status=400)),
        ("body=[1]", Failure("body", body=b"[1]")),
        ("early-hints", Failure("early-hints")),
        ("huge=1000*", Failure("huge", size=1000, times=None)),
    ],
)
def test_a_failure_is_parsed_from_text(text: str, failure: Failure) -> None:
    """A failure can be written as text, as on the command line."""
    assert Failure.parse(text) == failure


@pytest.mark.parametrize("text", ["", "boom", "status=x", "reset=1", "reset@2021", "reset*x"])
def test_a_failure_that_cannot_be_parsed_is_an_error(text: str) -> None:
    """A failure that cannot be parsed is a ValueError, and on the command line a usage error."""
    with pytest.raises(ValueError):  # noqa: PT011 - int() and float() have messages of their own
        Failure.parse(text)
    done = simulate("--failure", text, "--", "true")
    assert done.returncode == 2
    assert "--failure" in done.stderr


CODE = (sys.executable, "-m", "tap_noojee.simulator")


def simulate(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the simulator to its end."""
    return subprocess.run(
        [*CODE, *arguments],
        env={name: value for name, value in (os.environ | env).items() if value},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def wrapped_env(*options: str, **env: str) -> dict[str, str]:
    """The environment that the simulator gives a command."""
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    done = simulate(*options, "--", sys.executable, "-c", show, **env)
    assert done.returncode == 0
    return cast("dict[str, str]", json.loads(done.stdout))


def test_a_wrapped_command_gets_the_settings_of_the_tap() -> None:
    """A wrapped command gets the tap's settings in its environment, and connects directly."""
    found = wrapped_env(
        *("--timezone", "Pacific/Chatham", "--interval", "0.2", "--day", "2024-02-29"),
        TAP_NOOJEE_START_DATE="",
        NO_PROXY="pbx.example",
        no_proxy="",
    )
    assert found["TAP_NOOJEE_API_URL"].startswith("http://127.0.0.1:")
    assert found["TAP_NOOJEE_API_KEY"] == API_KEY
    assert found["TAP_NOOJEE_TIMEZONE"] == "Pacific/Chatham"
    assert found["TAP_NOOJEE_REQUEST_INTERVAL"] == "1"
    assert found["TAP_NOOJEE_START_DATE"] == "2024-02-29"
    assert found["TAP_NOOJEE_END_DATE"] == "2024-03-01"
    assert found["NO_PROXY"] == found["no_proxy"] == "pbx.example,127.0.0.1,localhost"


def test_a_start_date_that_is_set_is_kept() -> None:
    """A start date that is already set is kept, and no end date is added."""
    found = wrapped_env(TAP_NOOJEE_START_DATE="2020-01-01", TAP_NOOJEE_END_DATE="")
    assert found["TAP_NOOJEE_START_DATE"] == "2020-01-01"
    assert "TAP_NOOJEE_END_DATE" not in found


@pytest.mark.parametrize("option", ["--failure", "--fault"])
def test_the_last_line_counts_the_requests(option: str) -> None:
    """The last line counts the requests, by outcome; the key is not in the output."""
    code = (
        "import os, urllib.request\n"
        "url = os.environ['TAP_NOOJEE_API_URL'] + '/njadmin/rest/RecordingAPI/'\n"
        "query = 'retrieveMetaDataByHour?date=2021/09/14&hour=15&apiKey='\n"
        "for key in (os.environ['TAP_NOOJEE_API_KEY'], os.environ['TAP_NOOJEE_API_KEY'], 'x'):\n"
        "    try:\n"
        "        urllib.request.urlopen(url + query + key, data=b'')\n"
        "    except urllib.error.HTTPError:\n"
        "        pass\n"
    )
    done = simulate(option, "code", "--interval", "0", "--", sys.executable, "-c", code)
    assert done.stderr.splitlines() == [
        "noojee-simulator: 1 requests served, 1 rejected, 1 failed on purpose"
    ]
    assert API_KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), 3),
        (("sh", "-c", "kill -9 $$"), 137),
        (("no-such-command",), 127),
        (("/",), 126),
    ],
)
def test_the_exit_status_is_that_of_the_command(command: tuple[str, ...], status: int) -> None:
    """The exit status is the command's, or a shell's for a command that cannot be started."""
    done = simulate("--", *command)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


COUNTS_SIGNALS = (
    "import signal, sys, time\n"
    "got = []\n"
    "for number in (signal.SIGINT, signal.SIGTERM):\n"
    "    signal.signal(number, lambda number, _: got.append(number))\n"
    "print('ready', flush=True)\n"
    "while not got: time.sleep(0.01)\n"
    "time.sleep(0.3)\n"
    "print(*map(int, got))\n"
    "sys.exit(42)\n"
)


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, without a terminal."""
    return subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_forwarded_once(number: signal.Signals) -> None:
    """A signal is forwarded to the wrapped command once, and the simulator waits for its end."""
    with start(*CODE, "--", sys.executable, "-c", COUNTS_SIGNALS) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, out) == (42, f"{int(number)}\n")


def test_an_interrupt_from_the_terminal_is_not_forwarded() -> None:
    """Ctrl-C in a terminal reaches the wrapped command by itself and is not forwarded."""
    in_terminal = (
        "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))\n"
    )
    wrapper = (*CODE, "--", sys.executable, "-c", COUNTS_SIGNALS)
    with start(sys.executable, "-c", in_terminal, *wrapper) as running:
        assert running.stdin
        assert running.stdout
        assert running.stdout.readline().strip() == "ready"
        running.stdin.write("\x03")
        running.stdin.flush()
        lines = [running.stdout.readline().strip() for _ in range(2)]
        assert running.wait(30) == 42
    assert lines[0].removeprefix("^C") == "2"
    assert lines[1].startswith("noojee-simulator: 0 requests served")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_command_it_serves_until_stopped(number: signal.Signals) -> None:
    """Without a command, it prints its address and exits with 0 when it is stopped."""
    with start(*CODE, "--api-key", "abc", "--failure", "stall") as running:
        assert running.stderr
        line = running.stderr.readline()
        address = line.split()[1]
        assert " abc" in line
        query = "apiKey=abc&date=2021/09/14&hour=15"
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{address}{BASES[0]}/retrieveMetaDataByHour?{query}", timeout=(10, 0.3))
        running.send_signal(number)
        _, rest = running.communicate(timeout=30)
    assert running.returncode == 0
    assert rest == "noojee-simulator: 0 requests served, 0 rejected, 1 failed on purpose\n"


def test_an_unknown_zone_is_an_error() -> None:
    """An unknown time zone is a usage error."""
    for zone in ("Melbourne", "../etc/passwd", "Australia"):
        done = simulate("--timezone", zone, "--", "true")
        assert done.returncode == 2
        assert "is not an IANA zone" in done.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    """Without the extra, one line names it."""
    code = (
        "import sys; sys.modules['werkzeug'] = None\n"
        "from tap_noojee.simulator.cli import main; main(['--', 'true'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "noojee-simulator needs its extra: pip install 'tap-noojee[simulator]'\n"
    )
