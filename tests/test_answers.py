"""What a response means: records, or which error."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import astuple

from tap_noojee.answers import AnswerReader, Response
from tap_noojee.errors import RateLimitError, RejectedError, RequestError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2022, 6, 1, tzinfo=UTC)

MAX_LEGS = 200_000
MAX_VALUES = 3_200_000
MAX_MESSAGE_BYTES = 65_536


class Leg(msgspec.Struct, gc=False):
    """A record of two fields."""

    id: Any = None
    tag: Any = None


def read(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> list[Any]:
    """Read one response."""
    return reader().read(Response(status, headers or {}, bytearray(body)))


def reader() -> AnswerReader:
    """Make a reader of answers."""
    return AnswerReader(Leg, "the-key", lambda: NOW, logging.getLogger(__name__))


def plain(records: list[Any]) -> list[Any]:
    """Make tuples of what was read as a record."""
    return [astuple(record) if isinstance(record, Leg) else record for record in records]


def error(
    body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None
) -> RequestError:
    """The error of one response."""
    with pytest.raises(RequestError) as raised:
        read(body, status, headers)
    return raised.value


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"[]", []),
        (b" \r\n[ ]\n", []),
        (b'[{"id": "1"}]', [("1", None)]),
        (b'\xef\xbb\xbf[{"id": "1", "tag": ""}]', [("1", "")]),
        (b'[null, 1, 1.5, "a", true, [[]]]', [None, 1, 1.5, "a", True, [[]]]),
    ],
)
def test_an_array_is_decoded(body: bytes, records: list[Any]) -> None:
    """Objects become records; what else is in the array stays as it is."""
    assert plain(read(body)) == records


def test_no_content_has_no_records() -> None:
    """A 204 has no records, whatever its body."""
    assert read(b"<html>", 204) == []


def test_an_answer_may_have_so_many_legs_and_no_more() -> None:
    """Up to 200,000 legs are read; one more is an error that says so."""
    legs = ["{}"] * MAX_LEGS
    assert len(read(f"[{','.join(legs)}]".encode())) == MAX_LEGS
    for more in ("{}", "[]"):
        assert str(error(f"[{','.join([*legs, more])}]".encode())) == (
            "the answer has more than 200,000 legs"
        )
    nested = b"[" * (MAX_LEGS + 2)
    assert str(error(nested)) == "the answer has more than 200,000 legs"


def test_an_answer_may_have_so_many_values_and_no_more() -> None:
    """What is no leg is read up to sixteen times as many values."""
    assert len(read(b"[0" + b",0" * MAX_VALUES + b"]")) == MAX_VALUES + 1
    assert "more than 200,000 legs" in str(error(b"[0" + b",0" * (MAX_VALUES + 1) + b"]"))


def test_unknown_fields_are_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Fields that are not a record's are left out, and those of one answer named in a warning."""
    bodies = [
        b'[{"id": "1"}]',
        b'[{"id": "2", "d": {"c": [1]}}, 7, {"b": "", "tag": "x"}, {"\xff": 1}]',
        b'[{"id": "3", "e": 1}]',
    ]
    one = reader()
    with pytest.raises(TransientError):
        one.read(Response(200, {}, bytearray(b'[{"b": 1}')))
    found = [plain(one.read(Response(200, {}, bytearray(body)))) for body in bodies]
    assert found == [[("1", None)], [("2", None), 7, (None, "x"), (None, None)], [("3", None)]]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("and that are left out: b, d")


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
    (404, b"too many calls"),
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
    (403, b"<html>rate limit</html>"),
    (400, b"x" * (MAX_MESSAGE_BYTES - 10) + b"rate limit"),
]
"""Ways in which a rate limit may word its error: status and body."""


@pytest.mark.parametrize(("status", "body"), LIMITS, ids=lambda value: str(value)[:40])
def test_a_rate_limit_is_known_by_its_status_or_words(status: int, body: bytes) -> None:
    """Whatever status and words the rate limit's error has, it is known as that."""
    limit = error(body, status)
    assert type(limit) is RateLimitError
    assert f"the PBX accepts no more requests for now (status {status}" in str(limit)


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_page_is_no_rate_limit_whatever_its_words(status: int) -> None:
    """A page with a status that leaves nothing open is none, even if it says so."""
    assert type(error(b"<form>Please wait and try again</form>", status)) is RequestError


@pytest.mark.parametrize(
    ("status", "body", "kind", "detail"),
    [
        (500, b"", TransientError, "the PBX failed (status 500)"),
        (599, b"<html>", TransientError, "the PBX failed (status 599)"),
        (500, b'{"Code": 1}', TransientError, "the PBX failed (status 500, Code 1: None)"),
        (499, b"", RejectedError, "whitelist (status 499)"),
        (403, b'{"Message": "no"}', RejectedError, "whitelist (status 403, Code None: no)"),
        (403, b'{"message": "no"}', RejectedError, "whitelist (status 403)"),
        (200, b'{"Code": 0}', RejectedError, "whitelist (status 200, Code 0: None)"),
        (200, b'\xef\xbb\xbf {"Code": 0}', RejectedError, "(status 200, Code 0: None)"),
        (201, b"[]", RejectedError, "whitelist (status 201)"),
        (299, b"", RejectedError, "whitelist (status 299)"),
        (401, b'{"Code": 7}', RequestError, "whitelist (status 401, Code 7: None)"),
        (404, b"", RequestError, "/servicemanager/rest/RecordingAPI) (status 404)"),
        (300, b"", RequestError, "redirects to another page, which is not followed"),
        (399, b"rate limit", RequestError, "redirects to another page, which is not followed"),
        (200, b"", TransientError, "cut short or garbled"),
        (200, b" \n", TransientError, "cut short or garbled"),
        (200, b'{"Code": 0', TransientError, "cut short or garbled"),
        (200, b'[{"id": "1"', TransientError, "cut short or garbled"),
        (200, b"[" * 100_000, TransientError, "cut short or garbled"),
        (200, b"{" * 60_000, TransientError, "cut short or garbled"),
        (200, b"{}", RequestError, "the answer is something else, not a list"),
        (200, b"null", RequestError, "the answer is something else, not a list"),
        (
            200,
            b"x" * MAX_MESSAGE_BYTES + b"rate limit",
            RequestError,
            "something else, not a list",
        ),
        (200, b"no calls", RequestError, "the answer is something else, not a list"),
        (200, b"<html>", RequestError, "the answer is a web page, not a list"),
        (200, b"[1e999]", RequestError, "a number in the answer is out of range"),
        (200, b'[{"x": 1}, 1e999]', RequestError, "a number in the answer is out of range"),
    ],
)
def test_an_error_is_of_the_right_kind(
    status: int, body: bytes, kind: type[RequestError], detail: str
) -> None:
    """What may pass, what may be the rate limit, and what lasts are told apart."""
    raised = error(body, status)
    assert type(raised) is kind
    assert detail in str(raised)


@pytest.mark.parametrize(
    ("size", "kind"), [(MAX_MESSAGE_BYTES, RejectedError), (MAX_MESSAGE_BYTES + 1, RequestError)]
)
def test_a_message_may_have_so_many_bytes_and_no_more(size: int, kind: type[RequestError]) -> None:
    """A message is a sentence; what is longer than 64 KiB is something else."""
    empty = len(json.dumps({"Message": ""}))
    assert type(error(json.dumps({"Message": "x" * (size - empty)}).encode())) is kind


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("https://login.example.com/a?b", "login.example.com"),
        ("/login", "another page"),
        ("https://[x/", "another page"),
        ("https://the-key.example.com/", "(not shown: a part of the API key is in it)"),
    ],
)
def test_a_redirect_is_named_by_its_host(location: str, where: str) -> None:
    """Of where the server redirects to, the host is named; the rest may hold anything."""
    assert f"redirects to {where}, which" in str(error(b"", 302, {"Location": location}))


@pytest.mark.parametrize("status", [403, 429, 503])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("3600", 3600),
        ("3601", 3600),
        ("9" * 30, 3600),
        ("-7", 0),
        ("1.5", 0),
        ("", 0),
        ("soon", 0),
        ("Wed, 01 Jun 2022 00:10:00 GMT", 600),
        ("Wed, 01 Jun 2022 01:00:01 GMT", 3600),
        ("Tue, 31 May 2022 23:59:59 GMT", 0),
        ("Wed, 01 Jun 99999999999 00:10:00 GMT", 0),
    ],
)
def test_retry_after_is_heeded_up_to_an_hour(status: int, text: str, seconds: float) -> None:
    """Retry-After is a number of seconds or a date, of whatever may be tried again."""
    raised = error(b"", status, {"Retry-After": text})
    assert isinstance(raised, TransientError)
    assert raised.retry_after == seconds


def test_without_retry_after_there_is_nothing_to_heed() -> None:
    """Without a Retry-After the pace alone says when to try again."""
    raised = error(b"", 503)
    assert isinstance(raised, TransientError)
    assert raised.retry_after == 0


def test_a_response_need_not_have_a_date() -> None:
    """A response without a Date, or with one that is not a date, has none."""
    assert Response(200, {}, bytearray()).date is None
    assert Response(200, {"Date": "yesterday"}, bytearray()).date is None
    date = Response(200, {"Date": "Wed, 01 Jun 2022 10:00:00 +1000"}, bytearray()).date
    assert date == NOW
