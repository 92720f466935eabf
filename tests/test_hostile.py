"""Responses that no PBX should send, and how much memory the tap needs to read them.

A second, simpler reader computes the expected records.
"""

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import RAW_LEG, run_tap
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from processes import command, environment
from servers import OK, at_once, serving

from tap_noojee.errors import FailedHoursError, HourError, NoojeeError
from tap_noojee.legs import SCHEMA, LegReader
from tap_noojee.responses import Response, parse_response
from tap_noojee.simulator import Failure, Simulator

ZONE = ZoneInfo("Australia/Melbourne")
WALL_HOUR = datetime(2021, 9, 14, 15)  # noqa: DTZ001 - a wall-clock hour
KEY = "k3y-wxyh-o0d-chqrs"
LEG = RAW_LEG | {
    "CallRecordId": "6468",
    "DID": "7601",
    "Destination": "123",
    "Direction": "Inbound",
    "Duration": "4",
    "Source": "500",
    "Tag": "Rückruf ☎ \u2028",
    "UniqueId": "1631595787.5",
    "Username": "李小龍 \U0001f44b",
}
PROPERTIES = SCHEMA["properties"].items()
NUMBERS = {n: (p["minimum"], p["maximum"]) for n, p in PROPERTIES if "integer" in p["type"]}
DATES = {name for name, prop in PROPERTIES if "format" in prop}
REQUIRED = {"callend", "CallRecordId", "Leg"}

thorough = settings(deadline=None, derandomize=True, max_examples=40)
quick = settings(deadline=None, derandomize=True, max_examples=12)


SAMPLE_DATES = {
    "Tue Sep 14 15:03:34 AEST 2021": "2021-09-14T05:03:34+00:00",
    "Fri Jan 01 00:00:00 GMT+11:00 2021": "2020-12-31T13:00:00+00:00",
    "2021-09-14 15:03:34.25": "2021-09-14T05:03:34.250000+00:00",
    "0000-00-00 00:00:00": None,
    "Thu Jan 01 10:00:00 AEST 1970": None,
    "Mon Sep 14 15:03:34 AEST 2021": None,
    "Tue Sep 14 15:03:34 XYZT 2021": None,
}
"""The instant of each date, or None if it is unreadable. `test_dates.py` has more dates."""


def whole_number(text: str, least: int, most: int) -> int | None:
    """Return the whole number from `least` to `most` that the text represents, or None."""
    digits = text.lower().partition("e")[0].lstrip("+-")
    # Reject "1." and ".5", which Decimal accepts.
    if not text.isascii() or "_" in text or digits != digits.strip("."):
        return None
    with suppress(ArithmeticError):
        number = Decimal(text)
        return int(number) if least <= number <= most and number == int(number) else None
    return None


def expected_value(name: str, value: Any) -> Any:
    """Return the value of a field in a record, or None if it cannot be read."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    utf_16 = text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass")
    text = utf_16.decode("utf-16", "replace")  # joins surrogate pairs, replaces lone surrogates
    if name in NUMBERS:
        return whole_number(text.strip(), *NUMBERS[name])
    if name in DATES:
        return SAMPLE_DATES.get(text)
    if name == "CallRecordId" and (not text.strip() or len(text) > 255):
        return None
    return text


def expected_outcome(legs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Return the expected records, and part of the expected error, or an empty string."""
    records = [{name: expected_value(name, leg.get(name)) for name in LEG} for leg in legs]
    for number, record in enumerate(records, 1):
        for name, value in record.items():
            if value is None and name in REQUIRED:
                return [], f"record {number}: {name} "
    return sorted(records, key=lambda record: str(record["callend"])), ""


texts = st.text("\0\t\ud7ff\ud800\udfff 7٣é☎", max_size=5)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
number_texts = st.one_of(
    st.integers().map(str),
    st.integers(0, 9999).map(lambda number: f" +{number}.0\t"),
    st.from_regex(r"\s?[+-]?[0-9_.]{0,20}(e-?[0-9])?\s?", fullmatch=True),
)
field_values = {
    name: json_values | (number_texts if name in NUMBERS else texts)
    for name in LEG
    if name not in DATES
} | dict.fromkeys(DATES, json_values | st.sampled_from([*SAMPLE_DATES]))


@st.composite
def odd_legs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Generate legs that have odd values in some fields and may lack one."""
    legs = []
    for number in range(draw(st.integers(0, 4))):
        leg = LEG | {"CallRecordId": str(number)}
        for name in draw(st.sets(st.sampled_from([*LEG]), max_size=3)):
            leg[name] = draw(field_values[name])
        if draw(st.integers(0, 9)) == 0:
            leg.pop(draw(st.sampled_from([*LEG])))
        legs.append(leg)
    return legs


BODIES = [
    json.dumps([LEG | {"Leg": str(n)} for n in range(3)], ensure_ascii=False).encode(),
    json.dumps([LEG], indent=1).encode(),
    b"[]",
]
TOKENS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"1e5", b"-1", b"NaN",
    b"\\ud800", b"\\u0000", b"\x00", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b'"Leg":"7",', b'"CALLEND":null,', b'"Duration":" +68 ",', b"[" * 2000, b'{"":' * 2000,
]  # fmt: skip


@st.composite
def damaged_bodies(draw: st.DrawFn) -> bytes:
    """Generate a damaged body: up to three parts are inserted, repeated, replaced or removed."""
    body = draw(st.sampled_from(BODIES))
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.lists(st.integers(0, len(body)), min_size=2, max_size=2)))
        near = min(end, start + draw(st.integers(0, 40)))
        pieces = [b"", body[start:near] * 2, *TOKENS, *BODIES]
        middle = draw(st.sampled_from(pieces) | st.binary(min_size=1, max_size=4))
        body = body[:start] + middle + body[draw(st.sampled_from([start, near, end])) :]
    return body


def read(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> tuple[list[dict[str, Any]], NoojeeError | None]:
    """Return the records of a response, and the error if it cannot be read."""
    response = Response(status, headers or {}, bytearray(body))
    try:
        _ = response.date  # an unreadable header must not raise
        decoded = parse_response(response, KEY, datetime(2022, 6, 1, tzinfo=UTC))
        legs = LegReader(ZONE, KEY).read(WALL_HOUR, decoded.legs).legs
    except NoojeeError as error:
        text = str(error)
        assert text.isprintable()
        assert len(text) < 500
        return [], error
    return [asdict(leg) for leg in legs], None


@thorough
@given(legs=odd_legs(), ascii_only=st.booleans())
def test_odd_value_is_read_or_becomes_null_or_fails_the_hour(
    legs: list[dict[str, Any]], *, ascii_only: bool
) -> None:
    text = json.dumps(legs, ensure_ascii=ascii_only)
    records, error = read(text.encode(errors="surrogatepass"))
    expected, message = expected_outcome(legs)
    assert records == expected
    assert (error is not None) is bool(message)
    assert message in str(error)


header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
headers = st.fixed_dictionaries(
    {
        "Retry-After": header_texts | st.integers().map(str),
        "Date": header_texts | st.datetimes().map(lambda date: f"{date:%a, %d %b %Y %T} -2359"),
        "Location": header_texts.map(lambda text: f"https://{text}/"),
        "Content-Type": header_texts.map(lambda text: f"text/json; charset={text}"),
    }
)


@thorough
@given(
    status=st.sampled_from([200, 200, 200, 204, 302, 401, 403, 429]) | st.integers(100, 999),
    body=damaged_bodies() | st.binary(max_size=60),
    headers=headers,
)
def test_any_response_is_read_or_rejected(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    records, error = read(body, status, headers)
    assert error or status in {200, 204}
    json.dumps(records, ensure_ascii=False).encode()  # raises if a lone surrogate is left
    for record in records:
        assert record.keys() == LEG.keys()
        assert "\0" not in "".join(map(str, record.values()))
        for name, value in record.items():
            is_null = value is None and name not in REQUIRED
            assert is_null or isinstance(value, int if name in NUMBERS else str)
            if name in DATES and value:
                assert datetime.fromisoformat(value).utcoffset() == timedelta()


@quick
@given(body=damaged_bodies() | odd_legs().map(lambda legs: json.dumps(legs).encode()))
def test_run_writes_any_response_or_ends_with_a_known_error(body: bytes) -> None:
    failure = Failure("body", body=body, at=("2021-09-14", 15), times=None)
    with Simulator(volume=0, failures=[failure]) as pbx:
        run = run_tap(pbx, start_date="2021-09-14T14:00", end_date="2021-09-14T16:00")
    records, error = read(body)
    # `splitlines` would also split at U+2028, which the records contain.
    messages = [json.loads(line) for line in run.output.split("\n") if line]
    assert [m["record"] for m in messages if m["type"] == "RECORD"] == records
    assert (run.error is None) is (error is None)
    assert isinstance(run.error, NoojeeError | None)
    if isinstance(error, HourError):
        assert isinstance(run.error, FailedHoursError)


MEASURE = """
import os, sys
pid = os.posix_spawn(sys.executable, sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A script that runs a command and prints its peak memory in KiB. Only a small process can measure
this, because the peak is never below the size of the parent process."""


def measure(tmp_path: Path, response: bytes) -> tuple[int, str, int]:
    """Run the tap in a process, and return its exit code, its log and its peak memory in MiB."""
    dates: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}
    with serving(at_once(response)) as host, (tmp_path / "output").open("wb") as output:
        tap = command(tmp_path, Simulator(), api_url=f"http://{host}", **dates)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *tap],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
            env=environment(),
        )
    *log, size = done.stderr.splitlines()
    return done.returncode, "\n".join(log), int(size) // 1024


def build_response(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([OK + b"Content-Length: %d" % len(body), *headers, b"", body])


MIB = 2**20
WAVE = "\U0001f44b".encode()
"""One character beyond the BMP makes Python use four bytes for each character of a string."""

HOSTILE: dict[str, Callable[[], bytes]] = {
    "nested objects": lambda: (
        b"[" + b",".join([b'{"Tag":' * 800 + b"1" + b"}" * 800] * 2400) + b',{"Tag":"%b%b"}]' % (
            WAVE, b"x" * 2 * MIB)
    ),
    "too many legs": lambda: b"[" + b"{}," * (21 * MIB) + b"{}]",
    "long field": lambda: json.dumps([LEG | {"Tag": "x" * (60 * MIB) + "\0"}]).encode(),
    "wide field": lambda: json.dumps(
        [LEG | {"Tag": "\U0001f44b" + "x" * (19 * MIB) + "\n\0"}], ensure_ascii=False).encode(),
    "wide field names": lambda: b"[{%b}]" % b",".join(
        b'"%b%07d":"%b"' % (WAVE, number, WAVE) for number in range(1_390_000)),
    "wide strings": lambda: b"[" + b'"%bx",' % WAVE * 1_940_000 + b"0]",
    "Latin-1": lambda: b'["' + b"\xeb" * (63 * MIB) + b'"]',
    "not JSON": lambda: b"x" * (63 * MIB),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_no_response_takes_more_than_650_mib(tmp_path: Path, name: str) -> None:
    status, log, size = measure(tmp_path, build_response(HOSTILE[name]()))
    assert status in {0, 1}, log
    assert "Traceback" not in log
    assert size < 650, size


@pytest.mark.slow
@pytest.mark.parametrize(("count", "limit"), [(5_000, 100), (150_000, 350)])
def test_many_legs_take_moderate_memory(tmp_path: Path, count: int, limit: int) -> None:
    leg = json.dumps(LEG | {"CallRecordId": "%d"}, ensure_ascii=False)
    body = f"[{','.join(leg % number for number in range(count))}]".encode()
    status, log, size = measure(tmp_path, build_response(body))
    assert status == 0, log
    with (tmp_path / "output").open() as output:
        assert sum(line.startswith('{"type":"RECORD"') for line in output) == count
    assert size < limit, size


@pytest.mark.slow
def test_decompressed_response_is_limited_to_64_mib(tmp_path: Path) -> None:
    inner = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31 selects gzip
    zeros = bytes(2**24)
    packed = b"".join(inner.compress(zeros) for _ in range(128)) + inner.flush()
    body = gzip.compress(packed)
    status, log, size = measure(tmp_path, build_response(body, b"Content-Encoding: gzip, gzip"))
    assert status == 1
    assert "larger than 64 MiB" in log
    assert size < 500, size
