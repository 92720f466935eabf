"""Answers that no PBX should give: read as they were sent, or refused by name, and always at once.

What an answer says is worked out here a second time, with Python's own JSON and another way to
place a date, so that a mistake of the tap cannot hide behind the same mistake in its tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

import pytest
import requests_mock
from conftest import FakeClock, Hasty, run_tap, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from processes import command, environment
from times import DAYS, MONTHS

from tap_noojee.answers import AnswerReader
from tap_noojee.client import Client
from tap_noojee.errors import HourNotOverError, NoojeeError, RecordError
from tap_noojee.hours import Hour
from tap_noojee.legs import LegReader
from tap_noojee.simulator import Failure, Simulator
from tap_noojee.transport import MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


ZONE = ZoneInfo("Australia/Melbourne")
HOUR = "2021-09-14 15:00"
START = "2021-09-14T04:00:00+00:00"
BEFORE = "2021-09-14T05:00:00+00:00"
END = "2021-09-14T06:00:00+00:00"
PBX = "https://pbx.example.com"

TEXTS = [
    *("CallRecordId", "DID", "Destination", "Direction", "Source", "Tag", "UniqueId", "Username")
]
NUMBERS = ["Duration", "Leg"]
DATES = ["Start", "callend"]
FIELDS = [*TEXTS, *NUMBERS, *DATES]
REQUIRED = ["callend", "CallRecordId", "Leg"]

thorough = settings(deadline=None, derandomize=True, max_examples=150)
through_http = settings(deadline=None, derandomize=True, max_examples=60)


# --- What an answer says, worked out a second time -------------------------------------------


class OddError(Exception):
    """A value cannot be read."""


class DoubtError(Exception):
    """Whether a value can be read is not for this test to say."""


def whole_number(value: Any) -> int | None:
    """Read a number."""
    if value in ("", None):
        return None
    text = str(value).strip()
    if isinstance(value, bool | float) or not re.fullmatch("[+-]?[0-9]{1,19}", text):
        raise OddError
    if not -(2**63) <= int(text) < 2**63:
        raise OddError
    return int(text)


CLOCK = "(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})"
JAVA = f"(?P<day>[A-Z][a-z]{{2}}) (?P<month>[A-Z][a-z]{{2}}) (?P<date>[0-9]{{2}}) {CLOCK}"
JAVA += " (?P<zone>[A-Za-z0-9+:-]+) (?P<year>[0-9]{4})"
TIMESTAMP = f"(?P<year>[0-9]{{4}})-(?P<month>[0-9]{{2}})-(?P<date>[0-9]{{2}}) {CLOCK}"
TIMESTAMP += r"(?:\.(?P<fraction>[0-9]{1,9}))?"
OFFSETS = {"AEST": 600, "AEDT": 660}


def instant(value: Any) -> str | None:
    """Read a date: of the instants at which Melbourne's clocks show it, the first of its name."""
    if value in ("", None):
        return None
    match = re.fullmatch(JAVA, str(value)) or re.fullmatch(TIMESTAMP, str(value))
    if not match:
        raise OddError
    part = match.groupdict()
    month = part["month"]
    numbers = {name: str(number) for number, name in enumerate(MONTHS, 1)}
    digits = (part.get("fraction") or "0")[:6].ljust(6, "0")
    text = f"{part['year']}-{numbers.get(month, month)}-{part['date']} {part['time']}.{digits}"
    try:
        wall = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007 - of a clock's
    except ValueError:
        raise OddError from None
    if part.get("day", DAYS[wall.weekday()]) != DAYS[wall.weekday()]:
        raise OddError
    if not 1970 <= wall.year <= 9000:
        raise OddError
    shown = {
        minutes: when
        for minutes in (660, 600)
        if (when := wall.replace(tzinfo=UTC) - timedelta(minutes=minutes))
        .astimezone(ZONE)
        .replace(tzinfo=None)
        == wall
    }
    name = part.get("zone", "")
    if number := re.fullmatch("(?:GMT|UTC)?([+-])([0-9]{1,2}):?([0-9]{2})", name):
        minutes = int(number[2]) * 60 + int(number[3])
        shown = {m: when for m, when in shown.items() if m == int(f"{number[1]}{minutes}")}
    elif name in OFFSETS:
        shown = {m: when for m, when in shown.items() if m == OFFSETS[name]}
    elif name not in {"", "EST"}:
        raise DoubtError
    if not shown:
        raise OddError
    return min(shown.values()).isoformat()


def text_of(value: Any) -> str | None:
    """Read a text."""
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise OddError


READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(TEXTS, text_of),
    **dict.fromkeys(NUMBERS, whole_number),
    **dict.fromkeys(DATES, instant),
}


@dataclasses.dataclass
class Meaning:
    """What an answer says."""

    readable: bool = True
    """Whether it is a list in JSON."""
    clean: bool = True
    """Whether all its text is Unicode."""
    records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    odd: set[str] = dataclasses.field(default_factory=set)
    """The places and fields that cannot be read."""
    doubtful: set[str] = dataclasses.field(default_factory=set)


def refuse(_text: str) -> NoReturn:
    """Refuse NaN and the like, which are not JSON."""
    raise ValueError


def field_of(leg: dict[str, Any], name: str) -> Any:
    """Read a field."""
    value = READERS[name](leg.get(name))
    if name in REQUIRED and value in ("", None):
        raise OddError
    if name == "CallRecordId" and len(value) > 255:
        raise OddError
    return value


def is_unicode(value: Any) -> bool:
    """Whether there are no halves of surrogate pairs in a value."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        return False
    return True


def meaning(body: bytes) -> Meaning:
    """Work out what an answer says, if anything."""
    text = body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n").decode(errors="surrogateescape")
    try:
        legs = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return Meaning(readable=False)
    if not isinstance(legs, list):
        return Meaning(readable=False)
    found = Meaning(clean=is_unicode(legs))
    for place, leg in enumerate(legs, 1):
        if not isinstance(leg, dict):
            found.odd.add(f"record {place}: is not an object")
            continue
        record = {}
        for name in FIELDS:
            what = f"record {place}: {name}: "
            try:
                record[name] = field_of(leg, name)
            except OddError:
                found.odd.add(what)
            except DoubtError:
                found.doubtful.add(what)
        if record.keys() == set(FIELDS):
            found.records.append(record)
    found.records.sort(key=lambda record: datetime.fromisoformat(record["callend"]))
    found.records = without_repeats(found.records)
    return found


def without_repeats(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out each record that is the same as the last one of its key."""
    last: dict[tuple[str, int], dict[str, Any]] = {}
    news = []
    for record in records:
        key = record["CallRecordId"], record["Leg"]
        if last.get(key) != record:
            news.append(record)
        last[key] = record
    return news


@dataclasses.dataclass
class Outcome:
    """What came of an answer."""

    error: BaseException | None
    records: list[dict[str, Any]]


def is_for_users(error: BaseException | None) -> bool:
    """Whether this is an error for users, in one line that begins with the hour."""
    text = str(error)
    fine = text.startswith(f"{HOUR}: ") and text.isprintable() and len(text) < 500
    return isinstance(error, NoojeeError) and fine


def check(body: bytes, outcome: Outcome) -> None:
    """Hold an outcome against what the answer says."""
    sent = meaning(body)
    if outcome.error is None:
        assert sent.readable
        assert not sent.odd
        if not sent.doubtful:
            assert outcome.records == sent.records
        return
    assert is_for_users(outcome.error), outcome.error
    assert outcome.records == []
    if sent.readable and sent.clean:
        reason = str(outcome.error).removeprefix(f"{HOUR}: ")
        if reason == "a number in the answer is out of range":
            assert b"Infinity" in json.dumps(json.loads(body)).encode()
            return
        assert any(reason.startswith(what) for what in sent.odd | sent.doubtful), outcome.error


# --- The tap on an answer --------------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet() -> Iterator[Simulator]:
    """A PBX without calls of its own."""
    with Simulator(volume=0) as simulator:
        yield simulator


def run_on(simulator: Simulator, body: bytes) -> Outcome:
    """Run the tap on two hours: one without calls, and the one with this answer."""
    simulator.failures[:] = [Failure("body", body=body, at=("2021-09-14", 15), times=None)]
    run = run_tap(simulator, start_date=START, max_hours_per_run=2)
    messages = [json.loads(line) for line in run.output.split("\n") if line]
    bookmarks = [
        m["value"]["bookmarks"]["recordings"]["replication_key_value"]
        for m in messages
        if m["type"] == "STATE"
    ]
    assert bookmarks == ([BEFORE] if run.error else [BEFORE, END])
    return Outcome(run.error, [m["record"] for m in messages if m["type"] == "RECORD"])


CONFIG: dict[str, Any] = {
    "api_url": PBX,
    "api_key": "k3y-wxyh-o0d-chqrs",
    "request_interval": 0,
    "request_timeout": 120,
    "user_agent": "test",
}
SCHEMA = json.loads(files("tap_noojee.schemas").joinpath("recordings.json").read_text())
LOGGER = logging.getLogger("test_hostile")


def read(body: bytes, status: int = 200, **headers: str) -> Outcome:
    """Read an answer without a server, a stream and messages, which takes less time."""
    reader = LegReader(SCHEMA, ZONE, CONFIG["api_key"], LOGGER)
    clock = FakeClock()
    answers = AnswerReader(reader.leg_type, CONFIG["api_key"], clock.now, LOGGER)
    client = Client(CONFIG, answers, clock, LOGGER, lambda _status, _seconds: None)
    hour = Hour.containing(datetime.fromisoformat(BEFORE), ZONE)
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, content=body, status_code=status, headers=headers)
        try:
            legs = reader.read(hour, client.fetch(hour))
        except Exception as error:  # noqa: BLE001 - handed to the test
            return Outcome(error, [])
    return Outcome(None, [asdict(leg) for leg in legs])


# --- Answers ---------------------------------------------------------------------------------

GOOD = {
    "callend": "Tue Sep 14 15:03:34 AEST 2021",
    "CallRecordId": "6468",
    "DID": "7601",
    "Destination": "123",
    "Direction": "Inbound",
    "Duration": "4",
    "Leg": "1",
    "Source": "500",
    "Start": "Tue Sep 14 15:03:30 AEST 2021",
    "Tag": "Rückruf ☎ \u2028",
    "UniqueId": "1631595787.5",
    "Username": "李小龍 \U0001f44b",
}


def valid_answers() -> list[bytes]:
    """Make good answers."""
    with Simulator() as simulator:
        legs = truth(simulator, "2021-09-14T15:00", "2021-09-14T16:00")
    records = [leg.record(ZONE) for leg in legs]
    records += [GOOD | {"Leg": str(number)} for number in range(2, 5)]
    return [
        json.dumps(records, ensure_ascii=False).encode(),
        json.dumps(records[-3:], indent=1).encode(),
        json.dumps([leg.record(ZONE, "timestamp") for leg in legs]).encode(),
        b"[]",
    ]


VALID = valid_answers()
TOKENS = [
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"1e5",
        b"-1",
        b"\\u0000",
    ),
    *(b"\\ud800", b"\\udc00\\ud800", b"\x00", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(b'"Leg":"7",', b'"callend":null,', b'"Duration":" +68 ",', b"[" * 2000, b'{"":' * 2000),
]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Damage a good answer: cut, flip, insert, duplicate, splice."""
    body = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(body))] * 2)))
        near = min(end, start + draw(st.integers(0, 40)))
        other = draw(st.sampled_from(VALID))
        at = draw(st.integers(0, len(other)))
        middle = draw(
            st.one_of(
                st.just(b""),
                st.binary(min_size=1, max_size=4),
                st.sampled_from(TOKENS),
                st.just(body[start:near] * 2),
                st.just(body[start:end] * 2),
                st.just(other[at : at + end - start]),
                st.just(other),
            )
        )
        body = body[:start] + middle + body[draw(st.sampled_from([start, near, end])) :]
    return body


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**40), 10**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

zone_names = st.one_of(
    st.sampled_from(["AEST", "AEDT", "EST", "GMT+10:00", "+1100", "UTC", "XYZT", "LHST"]),
    st.from_regex("[A-Za-z0-9+:-]{1,6}", fullmatch=True),
)


@st.composite
def date_texts(draw: st.DrawFn) -> str:
    """Print a date, more or less as a PBX does."""
    when = draw(
        st.one_of(
            st.datetimes(datetime(1960, 1, 1), datetime(9100, 1, 1)),  # noqa: DTZ001 - its clock
            st.datetimes(datetime(2021, 4, 4, 1), datetime(2021, 4, 4, 4)),  # noqa: DTZ001
            st.datetimes(datetime(2021, 10, 3, 1), datetime(2021, 10, 3, 4)),  # noqa: DTZ001
        )
    )
    day = draw(st.sampled_from([when.day, when.day, when.day, when.day % 28 + 3]))
    second = draw(st.sampled_from([when.second, when.second, 60]))
    clock = f"{when:%H:%M}:{second:02}"
    text = draw(
        st.sampled_from(
            [
                f"{when:%a} {MONTHS[when.month - 1]} {day:02} {clock} ZONE {when.year}",
                f"{when.year}-{when.month:02}-{day:02} {clock}.{when.microsecond:06}",
                f"{when.year}-{when.month:02}-{day:02} {clock}",
            ]
        )
    ).replace("ZONE", draw(zone_names))
    if draw(st.integers(0, 4)):
        return text
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.text(max_size=2)) + text[at + draw(st.integers(0, 2)) :]


number_texts = st.one_of(
    st.integers().map(str),
    st.integers(0, 9999).map(lambda number: f" +{number}\t"),
    st.from_regex(r"\s?[+-]?[0-9_.]{0,20}\s?", fullmatch=True),
    st.text(st.characters(categories=["Nd", "Zs", "Cc"]), max_size=4),
)
field_values = {
    **dict.fromkeys(TEXTS, json_values | st.text()),
    **dict.fromkeys(NUMBERS, json_values | number_texts),
    **dict.fromkeys(DATES, json_values | date_texts() | date_texts()),
}
odd_legs = st.fixed_dictionaries({}, optional=field_values).map(lambda odd: GOOD | odd)


@st.composite
def odd_answers(draw: st.DrawFn) -> bytes:
    """Make an answer whose legs have odd fields, or lack some."""
    legs = []
    for place in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(FIELDS))
        changes = {name: field_values[name]} if draw(st.booleans()) else field_values
        odd = draw(st.fixed_dictionaries({}, optional=changes))
        leg = GOOD | {"CallRecordId": str(place)} | odd
        if not draw(st.integers(0, 9)):
            leg.pop(name)
        legs.append(leg)
    return json.dumps(legs, ensure_ascii=draw(st.booleans())).encode()


other_answers = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda body: b"[" + body + b"]"),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(json_values, max_size=3).map(lambda value: json.dumps(value).encode()),
)


# --- Tests -----------------------------------------------------------------------------------


@through_http
@given(body=mutants())
def test_a_damaged_answer_is_read_as_sent_or_refused_by_name(
    quiet: Simulator, body: bytes
) -> None:
    """Of a damaged answer, the records are what was sent, or none, and the hour is not claimed."""
    check(body, run_on(quiet, body))


@through_http
@given(body=odd_answers())
def test_odd_fields_are_read_as_sent_or_refused_by_name(quiet: Simulator, body: bytes) -> None:
    """A leg is emitted as it was sent, or the run ends with its place and field."""
    check(body, run_on(quiet, body))


@thorough
@given(body=mutants())
def test_no_damage_changes_a_record(body: bytes) -> None:
    """The same as of damaged answers, of many more."""
    check(body, read(body))


@thorough
@given(body=odd_answers())
def test_no_oddness_changes_a_record(body: bytes) -> None:
    """The same as of odd fields, of many more."""
    check(body, read(body))


@thorough
@given(body=other_answers)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    """Anything else than a list of legs ends the run with the hour."""
    check(body, read(body))


def one_leg(**raw: str) -> bytes:
    """Write a leg, some of its values in JSON's own form."""
    fields = {name: json.dumps(value) for name, value in GOOD.items()} | raw
    written = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    return f"[{{{written}}}]".encode()


@thorough
@given(date=date_texts())
def test_a_date_is_read_as_it_was_printed_or_rejected(date: str) -> None:
    """A date is emitted as the instant at which Melbourne's clocks showed it, or it is refused."""
    body = one_leg(Start=json.dumps(date))
    check(body, read(body))


DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(one_leg(Tag=r'"a\u0000b\u001fc"'), id="control characters"),
        pytest.param(one_leg(Tag=r'"\ud83d\udc4b \u2028"'), id="a pair of surrogates"),
        pytest.param(one_leg(Tag=r'"\ud83d"'), id="half a pair"),
        pytest.param(one_leg(Tag=r'"\udc4b\ud83d"'), id="a pair the wrong way round"),
        pytest.param(one_leg(Tag='"a\0b"'), id="a bare NUL"),
        pytest.param(one_leg(Other=r'"\ud83d"'), id="half a pair elsewhere"),
        pytest.param(b"\xef\xbb\xbf" + one_leg(), id="a byte order mark"),
        pytest.param(one_leg().decode().encode("utf-16"), id="UTF-16"),
        pytest.param(one_leg().decode().encode("latin-1", "replace"), id="Latin-1"),
        pytest.param(one_leg(UniqueId="9" * 30), id="a long number for a text"),
        pytest.param(one_leg(UniqueId="9" * 5000), id="an endless number for a text"),
        pytest.param(one_leg(Leg="9" * 30), id="a long number"),
        pytest.param(one_leg(Duration="9" * 5000), id="an endless number"),
        pytest.param(one_leg(Duration="-0"), id="minus nothing"),
        pytest.param(one_leg(Duration="1.0"), id="a fraction"),
        pytest.param(one_leg(Duration="1e2"), id="an exponent"),
        pytest.param(one_leg(Duration="1e999"), id="a number out of range"),
        pytest.param(one_leg(Duration="NaN"), id="not a number"),
        pytest.param(one_leg(Other="1e999"), id="a number out of range elsewhere"),
        pytest.param(one_leg()[:-2] + b', "Leg": "2"}]', id="a field twice"),
        pytest.param(one_leg(Leg="[]")[:-2] + b', "Leg": "2"}]', id="a field twice, first odd"),
        pytest.param(one_leg()[:-2] + b', "Leg": []}]', id="a field twice, then odd"),
        pytest.param(one_leg(Other="[" * 500 + "]" * 500), id="nesting"),
        pytest.param(one_leg(Other="[" * DEEP + "]" * DEEP), id="deep nesting"),
        pytest.param(one_leg(Tag="[" * DEEP + "]" * DEEP), id="deep nesting in a field"),
        pytest.param(one_leg(Other='{"":' * DEEP + "1" + "}" * DEEP), id="deep objects"),
        pytest.param(b"[" * DEEP, id="an open end"),
        pytest.param(b"[" * DEEP + b"]" * DEEP, id="nothing but nesting"),
        pytest.param(b'{"Code":' * DEEP, id="a deep message"),
        pytest.param(one_leg() + b"[]", id="two lists"),
        pytest.param(one_leg() + b"\n \t\r\n", id="white space after it"),
        pytest.param(one_leg(callend='"Tue Sep 14 15:03:34 AEDT 2021"'), id="another zone"),
        pytest.param(one_leg(Start='"Mon Sep 14 15:03:34 AEST 2021"'), id="another weekday"),
        pytest.param(one_leg(Start='"Sun Oct 03 02:30:00 AEST 2021"'), id="a skipped time"),
        pytest.param(one_leg(Start='"Sun Apr 04 02:30:00 AEST 2021"'), id="a repeated time"),
        pytest.param(one_leg(Start='"2021-04-04 02:30:00.0"'), id="a time that came twice"),
        pytest.param(one_leg(callend='"Tue Sep 14 13:03:34 AEST 2021"'), id="a stray"),
    ],
)
def test_an_unusual_answer_is_read_as_sent_or_refused_by_name(
    quiet: Simulator, body: bytes
) -> None:
    """What JSON allows is read as sent; the rest ends the run with hour, place and field."""
    outcome = run_on(quiet, body)
    if outcome.error is None and not outcome.records:
        assert instant(json.loads(body)[0]["callend"]) < START  # type: ignore[operator]
        return
    check(body, outcome)


digits = st.one_of(st.integers(0, 60), st.integers(), st.just(10**25)).map(str)
header_dates = st.tuples(
    st.sampled_from(["Wed", "", "Mo"]),
    digits,
    st.sampled_from(["Jun", "Foo"]),
    digits,
    st.tuples(digits, digits, digits).map(":".join),
    st.sampled_from(["GMT", "+", "-", "+0", "EST", ""]),
    digits | st.just(""),
).map(lambda parts: "{}, {} {} {} {} {}{}".format(*parts))


@pytest.mark.parametrize(
    ("status", "header", "value"),
    [
        pytest.param(503, "Retry-After", f"Wed, 01 Jun {10**25} 00:00:00 GMT", id="late year"),
        pytest.param(503, "Retry-After", f"Wed, 01 Jun 2022 00:00:00 +{10**25}", id="far zone"),
        pytest.param(503, "Retry-After", "9" * 5000, id="for ever"),
        pytest.param(503, "Date", f"Wed, 01 Jun {10**25} 00:00:00 GMT", id="late date"),
        pytest.param(503, "Date", "Fri, 31 Dec 9999 23:59:59 -2359", id="the last date"),
        pytest.param(503, "Date", "Sat, 01 Jan 0001 00:00:00 +2359", id="the first date"),
        pytest.param(201, "Location", "https://[", id="half an address"),
        pytest.param(302, "Location", "https://[", id="redirect to half an address"),
        pytest.param(302, "Location", "\xff", id="redirect to no text"),
    ],
)
def test_an_odd_header_is_no_more_than_an_error(status: int, header: str, value: str) -> None:
    """A header that cannot be read ends no run in another way than its status does."""
    outcome = read(b"", status, **{header: value})
    assert is_for_users(outcome.error), repr(outcome.error)
    assert f"status {status}" in str(outcome.error)


header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)


@thorough
@given(
    status=st.sampled_from([200, 201, 204, 206, 300, 301, 302, 304, 307, 400, 401, 418])
    | st.integers(200, 999),
    body=other_answers | mutants(),
    wait=header_texts | header_dates | digits,
    date=header_texts | header_dates,
    location=header_texts | header_texts.map(lambda text: f"https://{text}/"),
)
def test_no_status_and_no_header_is_too_much(
    status: int, body: bytes, wait: str, date: str, location: str
) -> None:
    """Whatever comes with an answer, the run goes on or ends with the hour."""
    headers = {"Retry-After": wait, "Date": date, "Location": location}
    outcome = read(body, status, **headers)
    if isinstance(outcome.error, HourNotOverError):
        assert status in {200, 204}
    elif outcome.error is not None:
        assert is_for_users(outcome.error), repr(outcome.error)
    else:
        assert status == 204 or (status == 200 and outcome.records == meaning(body).records)


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each connection in a thread of its own until the block ends."""
    connections: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        # The client hangs up, or the block has ended.
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for some in [listener, *connections]:
            with contextlib.suppress(OSError):
                some.shutdown(socket.SHUT_RDWR)
        thread.join()


def endless(start: bytes, piece: bytes, pause: float = 0) -> Callable[[socket.socket], None]:
    """Answer with this, and then with the same piece again and again."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(OK + b"Content-Length: 99999\r\n\r\n[", b" ", id="body"),
        pytest.param(OK + b"\r\n[", b" ", id="body without a length"),
        pytest.param(CHUNKED, b"1\r\n \r\n", id="chunks"),
        pytest.param(CHUNKED, b"0", id="a chunk's length"),
        pytest.param(CHUNKED + b"0\r\n", b"X: y\r\n", id="trailers"),
        pytest.param(b"HTTP/1.1 200 ", b"x", id="status line"),
        pytest.param(OK, b"X: y\r\n", id="headers"),
        pytest.param(OK + b"X: ", b"y", id="a header"),
        pytest.param(b"", CONTINUE, id="interim answers"),
        pytest.param(b"HTTP/1.1 500 x\r\n\r\n", b"x", id="refusal"),
        pytest.param(b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n", b"x", id="redirect"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_an_answer_that_trickles_is_cut_off(start: bytes, piece: bytes) -> None:
    """An answer that keeps coming, a little at a time, is given up like one that never comes."""
    with serving(endless(start, piece, pause=0.02)) as url:
        run = run_tap(
            Simulator(), clock=Hasty(), api_url=url, start_date=BEFORE, request_timeout=1
        )
    assert str(run.error) == f"{HOUR}: no complete response within 1 s (5 attempts)"
    assert isinstance(run.error, NoojeeError)
    assert run.records == run.states == []


PIECE = b" " * 2**16
TOO_LARGE = f"{HOUR}: the answer is larger than {MAX_RESPONSE_BYTES // 2**20} MiB"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(OK + b"\r\n[", PIECE, id="body"),
        pytest.param(OK + b"Content-Length: 999999999999\r\n\r\n[", PIECE, id="a length"),
        pytest.param(CHUNKED, b"10000\r\n" + PIECE + b"\r\n", id="chunks"),
        pytest.param(
            OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(PIECE * 100), id="compressed"
        ),
    ],
)
def test_an_endless_answer_is_cut_off(start: bytes, piece: bytes) -> None:
    """An answer larger than any hour's is given up for good."""
    with serving(endless(start, piece)) as url:
        run = run_tap(Simulator(), api_url=url, start_date=BEFORE)
    assert str(run.error) == TOO_LARGE
    assert isinstance(run.error, NoojeeError)
    assert run.records == run.states == []


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 ", b"x" * 1000, id="status line"),
        pytest.param(OK, b"X: y\r\n" * 50, id="headers"),
        pytest.param(OK + b"X: ", b"y" * 1000, id="a header"),
        pytest.param(b"", CONTINUE * 50, id="interim answers"),
        pytest.param(CHUNKED, b"0" * 1000, id="a chunk's length"),
        pytest.param(CHUNKED + b"0\r\n", b"X: y\r\n" * 50, id="trailers"),
    ],
)
def test_an_endless_preamble_is_cut_off(start: bytes, piece: bytes) -> None:
    """Before, between and after the parts of an answer there is no room for endless text, too."""
    with serving(endless(start, piece)) as url:
        run = run_tap(
            Simulator(), clock=Hasty(), api_url=url, start_date=BEFORE, request_timeout=1
        )
    assert is_for_users(run.error)
    assert str(run.error).endswith("(5 attempts)")
    assert run.records == run.states == []


@pytest.mark.parametrize("status", ["302 x\r\nLocation: https://example.com", "500 x", "403 x"])
def test_little_is_read_of_what_is_not_an_answer(status: str) -> None:
    """Of an error or a redirect that never ends, no more is read than a message can have."""
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
        while sent < MAX_RESPONSE_BYTES:
            sent += connection.send(PIECE)

    with serving(answer) as url:
        run = run_tap(Simulator(), api_url=url, start_date=BEFORE)
    assert is_for_users(run.error)
    assert f"status {status[:3]}" in str(run.error)
    assert sent < 2**26


def test_a_message_may_come_in_pieces() -> None:
    """A message is read to its end, in however many chunks it comes."""
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(c), c) for c in (b'{"Code": 7, ', b'"Message": ', b'"no"}')
    )

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(chunks + b"0\r\n\r\n")

    with serving(answer) as url:
        run = run_tap(Simulator(), api_url=url, start_date=BEFORE)
    assert "(status 403, Code 7: no)" in str(run.error)


MEASURE = """
import os, sys
pid = os.posix_spawn(sys.executable, sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and prints the most memory that it had. A small process has to start it, for what
that has at the time is counted, too."""

UNIT = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`, in bytes."""


def measured(tmp_path: Path, url: str) -> tuple[int, str, int]:
    """Run the tap as a process: its status, its log, its MiB. Its output goes into a file."""
    words = command(tmp_path, Simulator(), api_url=url, start_date=BEFORE, end_date=END)
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *words],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
            env=environment(),
        )
    *log, size = done.stderr.splitlines()
    return done.returncode, "\n".join(log), int(size) * UNIT // 2**20


def at_once(body: bytes, headers: str = "") -> Callable[[socket.socket], None]:
    """Send a whole answer."""
    head = OK + f"{headers}Content-Length: {len(body)}\r\n\r\n".encode()

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        connection.sendall(body)

    return answer


def many_legs(count: int) -> bytes:
    """Make an answer of very many legs."""
    text = json.dumps(GOOD | {"CallRecordId": "%d"}, ensure_ascii=False)
    return f"[{','.join(text % number for number in range(count))}]".encode()


@pytest.mark.slow
def test_a_huge_answer_needs_little_memory(tmp_path: Path) -> None:
    """An answer of 150,000 legs, more than any hour's, is read within 350 MiB."""
    body = many_legs(150_000)
    with serving(at_once(body)) as url:
        status, log, size = measured(tmp_path, url)
    assert status == 0, log
    with (tmp_path / "output").open() as output:
        types = [line[:16] for line in output]
    assert types == ['{"type":"SCHEMA"', *['{"type":"RECORD"'] * 150_000, '{"type":"STATE",']
    assert size < 350, size


def test_an_error_does_not_copy_a_long_value() -> None:
    """To name a wrong value, however long, takes next to no memory."""
    leg = GOOD | {"Duration": "\U0001f44b" * 2**20}
    reader = LegReader(SCHEMA, ZONE, CONFIG["api_key"], LOGGER)
    hour = Hour.containing(datetime.fromisoformat(BEFORE), ZONE)
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match=r"👋{199}… is not a whole number$"):
            reader.read(hour, [reader.leg_type(**leg)])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("records", "fields"), [(190_000, 1), (1, 2_800_000), (190_000, 14)])
def test_unknown_fields_cost_little_however_many(
    tmp_path: Path, records: int, fields: int
) -> None:
    """Fields by the million, each of another name, are left out as one is."""
    more = "x" * max(0, 320 - fields * 30)
    made = [
        ",".join(f'"\U0001f44b{place:07}{more}":1' for place in range(first, first + fields))
        for first in range(0, records * fields, fields)
    ]
    body = f"[{json.dumps(GOOD)},{{{'},{'.join(made)}}}]".encode()
    with serving(at_once(body)) as url:
        status, log, size = measured(tmp_path, url)
    assert status == 1, log
    assert "that are left out: " in log
    assert log.endswith("record 2: callend: is missing")
    assert size < 650, size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "limit"),
    [
        pytest.param(b"{},", 350, id="objects"),
        pytest.param(b"[],", 350, id="lists"),
        pytest.param(b"0,", 350, id="numbers"),
        pytest.param(b'"",', 350, id="strings"),
        pytest.param(b'{"Tag":[0]},', 350, id="legs"),
        pytest.param(b"x", 350, id="one string"),
        # One character beyond the BMP, and Python takes four bytes for each of the string.
        pytest.param('"\U0001f44babcdefghijklmnopqr",'.encode(), 650, id="wide strings"),
    ],
)
def test_no_answer_costs_many_times_its_bytes(tmp_path: Path, unit: bytes, limit: int) -> None:
    """An answer of 63 MiB, whatever it is made of, is rejected within so many MiB."""
    count = 63 * 2**20 // len(unit)
    body = b'["' + unit * count + b'"]' if unit == b"x" else b"[" + unit * count + b"0]"
    with serving(at_once(body)) as url:
        status, log, size = measured(tmp_path, url)
    assert status == 1, log
    assert size < limit, size


@pytest.mark.slow
def test_a_compressed_answer_cannot_grow_without_bounds(tmp_path: Path) -> None:
    """A doubly compressed answer of a few KiB that stands for gigabytes is cut off."""
    inner = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = bytes(2**24)
    packed = b"".join(inner.compress(zeros) for _ in range(128)) + inner.flush()
    body = gzip.compress(packed)
    with serving(at_once(body, "Content-Encoding: gzip, gzip\r\n")) as url:
        status, log, size = measured(tmp_path, url)
    assert status == 1, log
    assert log.endswith(TOO_LARGE), log
    assert size < 500, size


def test_an_endless_answer_ends_the_run_with_1(tmp_path: Path) -> None:
    """Cut off, the tap as a process exits with 1, the hour in its last line, nothing written."""
    with serving(endless(OK + b"\r\n[", PIECE)) as url:
        status, log, size = measured(tmp_path, url)
    assert status == 1
    assert log.endswith(TOO_LARGE)
    assert "Traceback" not in log
    with (tmp_path / "output").open() as output:
        assert [line[:16] for line in output] == ['{"type":"SCHEMA"']
    assert size < 400, size
