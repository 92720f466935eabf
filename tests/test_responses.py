"""Parsing responses into raw legs or errors."""

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FIELDS,
    as_rows,
    drop_field_warnings,
    expected_legs,
    requested_hours,
    run_tap,
    written_rows,
)
from msgspec.structs import asdict

from tap_noojee.decoding import MAX_LEGS, DecodedBody
from tap_noojee.errors import (
    FailedHoursError,
    HourError,
    NoojeeError,
    PossibleRateLimitError,
    RateLimitError,
    RequestError,
    TransientError,
    TransientHourError,
)
from tap_noojee.redaction import REDACTED
from tap_noojee.responses import MAX_MESSAGE_BYTES, Response, parse_response
from tap_noojee.simulator import Failure, Simulator

NOW = datetime(2022, 6, 1, tzinfo=UTC)
BODIES = {path.name: path.read_bytes() for path in Path(__file__).parent.glob("responses/*.json")}
BODY_TEXT = b"".join(BODIES.values()).lower()
NEWER_FIELDS = [name for name in FIELDS if b'"%b"' % name.lower().encode() not in BODY_TEXT]
"""Fields that were added to the schema after these bodies were written."""


def decode(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> DecodedBody:
    """Parse a response with this body."""
    return parse_response(Response(status, headers or {}, bytearray(body)), "the-key-01", NOW)


def error_of(*response: Any) -> RequestError:
    """Return the error that `decode` raises for these arguments."""
    with pytest.raises(RequestError) as raised:
        decode(*response)
    return raised.value


def one_leg(**raw: str) -> bytes:
    """Return a body with one leg. `raw` has JSON values for some of its fields."""
    fields = dict.fromkeys(FIELDS, '"x"') | raw
    return ("[{" + ", ".join(f"{json.dumps(n)}: {v}" for n, v in fields.items()) + "}]").encode()


def decode_tag(
    value: str | bytes, content_type: str = "application/json"
) -> tuple[Any, DecodedBody]:
    """Decode a leg whose Tag is this JSON value, and return the Tag and the decoded response."""
    raw = value if isinstance(value, bytes) else value.encode()
    body = one_leg(Tag="TAG").replace(b"TAG", raw)
    decoded = decode(body, headers={"Content-Type": content_type})
    return decoded.legs[0].Tag, decoded


# --- Bodies modelled on bug reports about other systems ---------------------------------------

START = "2021-09-14T05:03:30+00:00"

READABLE: dict[str, tuple[Any, ...]] = {
    # Each entry has a field, its value in each record, and a pattern for each warning.
    "zero-date.json": (
        "Start", [START, None, None], r"record 2: Start .*AEDT 2'",
        "record 3: Start '0000-00-00 00:00:00'",
    ),
    "number-forms.json": ("Duration", [68, 68, 68, None], "record 4: Duration 'abc'"),
    "latin-1.json": ("Username", ["Zoë"], "windows-1252"),
    "raw-line-feed.json": ("Tag", ["line 1\nline 2"]),
    "half-surrogate.json": ("Tag", ["call back \ufffd"], r"Tag: .* U\+FFFD"),
    "nul.json": ("Tag", ["INV\ufffd1001"], r"Tag: .* U\+FFFD"),
    "other-case.json": ("Duration", [4]),
    "no-did.json": ("DID", [None, None], "DID"),
    "same-key.json": (
        "UniqueId", ["1631595787.5", "1631595790.9"], "UniqueIds .*CallRecordId.*'6468', 1",
    ),
}  # fmt: skip
UNREADABLE = {"no-key.json": "record 2: CallRecordId", "trailing-comma.json": "not JSON at byte 2"}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_bad_response_affects_only_its_hour(name: str, caplog: pytest.LogCaptureFixture) -> None:
    failure = Failure("body", body=BODIES[name], at=("2021-09-14", 15))
    dates: dict[str, Any] = {"start_date": "2021-09-14T14:00", "end_date": "2021-09-14T17:00"}
    with Simulator(failures=[failure]) as pbx:
        run = run_tap(pbx, **dates)
        next_run = run_tap(pbx, state=run.states[-1], **dates)
        hours = [hour for _, hour in requested_hours(pbx)]
        before, correct, after = (
            as_rows(expected_legs(pbx, f"2021-09-14T{hour}:00", f"2021-09-14T{hour + 1}:00"))
            for hour in (14, 15, 16)
        )
    written = written_rows(run)
    middle = run.records[len(before) : -len(after)]
    assert written[: len(before)] == before
    assert written[-len(after) :] == after
    field, values, *patterns = READABLE.get(name, ("Leg", []))  # no records if unreadable
    assert [record[field] for record in middle] == values
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    for line, pattern in zip(drop_field_warnings(warnings, NEWER_FIELDS), patterns, strict=True):
        assert re.match(f"2021-09-14 15:00: .*{pattern}", line)
    assert next_run.error is None
    if problem := UNREADABLE.get(name):
        (failed,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert re.match(f"2021-09-14 15:00: .*{problem}", failed)
        assert isinstance(run.error, FailedHoursError)
        assert hours == [14, 15, 16, 15]
        assert written_rows(next_run) == correct
    else:
        assert run.error is None
        assert hours == [14, 15, 16]


# --- Arrays -----------------------------------------------------------------------------------


def test_bom_and_whitespace_around_an_array_are_ignored() -> None:
    leg = dict.fromkeys(FIELDS, "x")
    for before, after in ((b"", b""), (b" \r\n\t", b" \r\n\t"), (b"\xef\xbb\xbf", b"")):
        assert decode(before + b"[]" + after) == DecodedBody([])
        (found,) = decode(before + one_leg() + after).legs
        assert asdict(found) == leg
        # The fast decoder rejects a number, so this takes the tolerant path.
        (found,) = decode(before + one_leg(Duration="4") + after).legs
        assert asdict(found) == leg | {"Duration": "4"}


def test_tolerant_decoding_clears_the_body_to_save_memory() -> None:
    body = bytearray(one_leg(Duration="4"))
    parse_response(Response(200, {}, body), "", NOW)
    assert not body


def test_numbers_become_text_and_other_values_keep_their_type() -> None:
    for number in ("0", "-0", "68", "68.0", "6.8E1", "1e999", "9" * 5000, "-1.50"):
        assert decode_tag(number)[0] == number
    for constant in ("NaN", "Infinity", "-Infinity"):
        assert isinstance(decode_tag(constant)[0], float)
    assert [decode_tag(value)[0] for value in ("null", "true", "[1]")] == [None, True, ["1"]]
    assert decode(b'[null, 1, "a", []]').legs == [None, "1", "a", []]


def test_field_names_are_matched_regardless_of_case() -> None:
    fields = {name: f"v{number}" for number, name in enumerate(FIELDS)}
    for change in (str.upper, str.lower, str.swapcase):
        body = json.dumps([{change(name): value for name, value in fields.items()}]).encode()
        decoded = decode(body)
        assert asdict(decoded.legs[0]) == fields
        assert (decoded.unknown, decoded.missing) == (set(), set())


def test_unknown_and_missing_fields_are_listed() -> None:
    bare = b'[{"callend": "", "CallRecordId": "", "Leg": "", "Tag": ""}]'
    absent = set(FIELDS) - {"callend", "CallRecordId", "Leg", "Tag"}
    assert decode(bare).missing == absent
    assert decode(b"[{}]").missing == absent | {"Tag"}  # LegReader checks the required ones
    assert decode(bare.replace(b"}]", b'}, {"DID": null}]')).missing == absent - {"DID"}
    assert decode(b"[]").missing == set()
    decoded = decode(one_leg(Team='{"a": [1]}', Agent="1", **{"\u2028": "1"}))
    assert {"Team", "Agent", " "} <= decoded.unknown  # a line separator becomes a space
    assert decode(one_leg(**{"x-the-key-01": "1"})).unknown == {REDACTED}
    many = decode(one_leg(**{f"f{number}": "1" for number in range(30)}))
    assert len(many.unknown) == 20


def test_last_value_of_a_duplicate_field_is_kept() -> None:
    for raw in ('"a"', "[]", "7"):
        body = one_leg(Tag=raw)[:-2] + b', "Tag": "last"}]'
        assert decode(body).legs[0].Tag == "last"


# --- Characters -------------------------------------------------------------------------------


def test_only_nul_and_lone_surrogates_are_replaced() -> None:
    for value, expected in [
        (rb'"\u0001\u001f"', "\x01\x1f"),
        (b'"\x01\x1f\t\n"', "\x01\x1f\t\n"),
        (b'"\x7f\xe2\x80\xa8\xef\xbb\xbf"', "\x7f\u2028\ufeff"),
        (rb'"\ud83d\udc4b"', "\U0001f44b"),
        ('"\U0001f44b"'.encode(), "\U0001f44b"),
        (rb'"\\u0000"', r"\u0000"),
        (rb'"a\u0000b"', "a\ufffdb"),
        (b'"a\0b"', "a\ufffdb"),
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\udc4b\ud83d\u0000"', "\ufffd" * 3),
        (b'"a\xed\xa0\x80b"', "a\ufffdb"),
        (b'"\xed\xa0\xbd\xed\xb1\x8b"', "\U0001f44b"),
    ]:
        found, decoded = decode_tag(value)
        assert found == expected
        assert decoded.replaced == ({"Tag"} if "\ufffd" in expected else set())
        assert decoded.charset == ""


def test_charset_is_utf_8_or_the_declared_one_or_windows_1252() -> None:
    json_type = "application/json; charset="
    for value, content_type, expected, charset in [
        ("Zoë €".encode(), "text/plain; charset=iso-8859-1", "Zoë €", ""),
        ("Zoë €".encode("cp1252"), "application/json", "Zoë €", "windows-1252"),
        ("Zoë €".encode("cp1252"), json_type + "utf-8", "Zoë €", "windows-1252"),
        ("Zoë €".encode("cp1252"), json_type + "UTF8", "Zoë €", "windows-1252"),
        ("Zoë €".encode("cp1252"), json_type + "no-such-charset", "Zoë €", "windows-1252"),
        ("Zoë".encode("latin-1"), json_type + '"ISO-8859-1"', "Zoë", "iso-8859-1"),
        ("Живаго".encode("koi8-r"), json_type + "KOI8-R", "Живаго", "koi8-r"),
        (b"a\x81b", "", "a\ufffdb", "windows-1252"),
    ]:
        found, decoded = decode_tag(b'"%b"' % value, content_type)
        assert (found, decoded.charset) == (expected, charset), content_type
    # None of these is a charset, although Python has codecs with the first five names.
    for name in ("base64", "idna", "punycode", "undefined", "rot13", "a\0b", "", "x" * 5000):
        assert decode_tag(b'"\xeb"', json_type + name)[0] == "ë"


# --- Bodies that cannot be read ---------------------------------------------------------------

TRUNCATED = [
    b"[", b'[{"a": "b"}', b'[{"a": "b"},', b'[{"a": "b]', b'[{"a": "b\\', rb'[{"a": "b\u00',
    b'[{"a": fals', b'[{"a": -Infinit', '[{"a": "Zoë'.encode()[:-1], b'{"Code": 0', b"{" * 60_000,
]  # fmt: skip
BROKEN = [
    *((body, TransientHourError, f"after {len(body.strip()):,} bytes") for body in TRUNCATED),
    *((body, TransientHourError, "the response is empty") for body in (b"", b" \n")),
    (b'[{"a": "b"},]', HourError, "not JSON at byte 1"),
    (b'[{"a": "b"}]]', HourError, "not JSON at byte 12"),
    (b'[{"a": "b"}]}', HourError, "not JSON at byte 12"),
    (b"[] []", HourError, "not JSON at byte 3"),
    ('["ë", x]'.encode(), HourError, "not JSON at byte 7"),
    (b'["\xeb", x]', HourError, "not JSON at byte 6"),
    (b'["\xed\xa0\x80", x]', HourError, "not JSON at byte 8"),
    (b"[x, " + b" " * 20 + b"1", HourError, "not JSON at byte 1"),
    (b"[" * 100_000, HourError, "nested too deeply"),
    (one_leg(Tag="[" * 50_000 + "]" * 50_000), HourError, "nested too deeply"),
    (b"null", RequestError, "not a list of legs"),
    (b"x" * MAX_MESSAGE_BYTES + b"rate limit", RequestError, "not a list of legs"),
    (b" <html>", RequestError, "a web page"),
]


def test_unreadable_body_raises_the_matching_error() -> None:
    for body, kind, detail in BROKEN:
        raised = error_of(body)
        assert type(raised) is kind, body[:40]
        assert detail in str(raised)


def test_response_with_too_many_legs_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_LEGS == 150_000
    monkeypatch.setattr("tap_noojee.decoding.MAX_LEGS", 100)
    leg = one_leg()[1:-1]
    assert len(decode(b"[" + b",".join([leg] * 100) + b"]").legs) == 100
    max_values = 100 * (len(FIELDS) + 1)
    assert len(decode(b"[" + b"0," * (max_values - 1) + b"0]").legs) == max_values
    for body in (
        b"[" + b",".join([leg] * 101) + b"]",
        b"[" + b"0," * max_values + b"0]",
        b"[" + b"{}," * (max_values // 2) + b"{}]",
        b"[" + b"[]," * (max_values // 2) + b"[]]",
    ):
        raised = error_of(body)
        assert type(raised) is HourError
        assert "more values than 100 legs" in str(raised)


# --- Statuses ---------------------------------------------------------------------------------

RATE_LIMITS = """
API may only be called every 60 seconds / {"Code": 107, "Message": "wait a bit and retry"}
Rate limit exceeded / {"Code": -1, "Message": "You have exceeded the limit"} / too many requests
<html><h1>Enhance Your Calm</h1></html> / The request limit has been exceeded / too many calls
one call a minute / called too soon / called too often / too frequent / throttled / slow down
please wait some time, then retry / please wait before you try again / calls each minute: 1
limit is exceeded / only every 2 minutes / exceeding today's limit / Only one request per minute
once a minute / limit was reached / limit reached
"""


def test_rate_limit_is_recognized_by_status_or_wording() -> None:
    phrases = [text.strip() for text in re.split(" / |\n", RATE_LIMITS) if text]
    cases = [(429, ""), (400, "x" * (MAX_MESSAGE_BYTES - 10) + "rate limit")]
    cases += [(status, text) for status in (400, 403, 500) for text in phrases]
    cases += [(status, phrases[-1]) for status in (200, 401, 404, 499)]
    for status, text in cases:
        raised = error_of(text.encode(), status)
        assert type(raised) is RateLimitError, text[:50]
        assert f"status {status}" in str(raised)
        assert "`request_interval`" in str(raised)


def test_similar_words_and_login_pages_are_not_rate_limits() -> None:
    for phrases in (
        "limit",
        "unlimited",
        "no waiting",
        "every minute counts",
        "retry",
        "too late",
    ):
        assert type(error_of(phrases.encode(), 400)) is PossibleRateLimitError
    for status in (200, 401, 404):
        page = b"<form>Please wait and try again</form>"
        assert type(error_of(page, status)) is RequestError


def test_status_and_body_determine_the_error() -> None:
    longest = MAX_MESSAGE_BYTES - len(json.dumps({"Message": ""}))
    for status, body, kind, detail in [
        (500, b'{"Code": 1}', TransientHourError, "(status 500, Code 1: None)"),
        (500, b'{"code": 1}', TransientHourError, "(status 500)"),
        (501, b"", TransientError, "(status 501)"),
        (999, b"", TransientError, "(status 999)"),
        (499, b"", PossibleRateLimitError, "(status 499)"),
        (400, b'{"Code": 7', PossibleRateLimitError, "(status 400)"),
        (403, b'{"Message": "a\nb"}', PossibleRateLimitError, "Code None: a b"),
        (200, b'\xef\xbb\xbf {"Code": 0}', PossibleRateLimitError, "(status 200, Code 0: None)"),
        (200, b'{"Message": "%b"}' % (b"x" * longest), PossibleRateLimitError, "xxx"),
        (200, b'{"Message": "%b"}' % (b"x" * (longest + 1)), RequestError, "not a list of legs"),
        (299, b"", PossibleRateLimitError, "(status 299)"),
        (401, b'{"Code": 7}', RequestError, "(status 401, Code 7: None)"),
        (300, b"", RequestError, "redirects to another page"),
        (399, b"rate limit", RequestError, "redirects to another page"),
    ]:
        raised = error_of(body, status)
        assert type(raised) is kind, status
        assert detail in str(raised)
    assert decode(b"<html>", 204) == DecodedBody([], no_content=True)


def test_redirect_error_names_the_location_without_its_query() -> None:
    for location, where in {
        "https://login.example.com/a?b": "https://login.example.com/a,",
        "/login": "/login,",
        "": "another page",
        "https://the-key-01.example.com/": "(not shown",
    }.items():
        assert f"redirects to {where}" in str(error_of(b"", 302, {"Location": location}))


def test_long_or_deeply_nested_message_raises_the_taps_own_error() -> None:
    # A regular expression with nested quantifiers would take minutes.
    for word in (b"exceed", b"wait ", b"once ", b"every ", b"limit "):
        assert isinstance(error_of(word * 10_000, 400), PossibleRateLimitError)
    for depth in range(900, 1100, 20):
        body = b'{"Message": ' + b"[" * depth + b"]" * depth + b"}"
        assert isinstance(error_of(body, 400), NoojeeError)
