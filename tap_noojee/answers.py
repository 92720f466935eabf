"""What a response of the PBX means: an array of records, or which error.

As the vendor documents it: 200 and an array, else "an appropriate http error code"; and an object
with Code and Message is a status, whatever HTTP status it comes with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import requests

from tap_noojee.errors import RateLimitError, RejectedError, RequestError, TransientError
from tap_noojee.secrecy import MAX_EXCERPT, safe_excerpt

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

MAX_RETRY_AFTER = 3600
"""Seconds of a server's `Retry-After` that are heeded."""

MAX_MESSAGE_BYTES = 2**16
"""Of a response that is not an array of records; all that is wanted of it is a sentence."""

MAX_LEGS = 200_000
"""In one response; a large call centre has a few thousand an hour."""

MAX_VALUES = 16 * MAX_LEGS
"""In one response; a leg has twelve. `{}` and `0,` cost many times their bytes in memory."""

_BOM = b"\xef\xbb\xbf"
_ARRAY = re.compile(rb"\s*\[")

_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_RATE_LIMIT = re.compile(
    r"rate.?limit|limit (was |is |has been )?(exceeded|reached)|exceed\w* .{0,40}limit"
    r"|too (many (calls|requests)|soon|often|frequent)|throttl|slow down|enhance your calm"
    r"|wait a bit|wait.{1,40}(retry|again)|(calls?|requests?|once) (a|per|every|each) minute"
    r"|(once |only )?(a|per|every|each) [0-9]+ (seconds|minutes)",
    re.IGNORECASE,
)
"""The words of a rate limit. The vendor's lead API says "wait a bit and retry" with a 400; how
this one says it is not documented."""

_CHECK_KEY = (
    "check `api_key`, and that Noojee support has put this machine's IP address on the PBX's "
    "whitelist"
)
_FINAL: dict[int, str] = {
    requests.codes.unauthorized: f"the PBX refuses access: {_CHECK_KEY}",
    requests.codes.not_found: (
        "the PBX does not have this API: check `api_url` (older servers have it under "
        "/servicemanager/rest/RecordingAPI)"
    ),
}
"""Statuses that mean what they say."""

_MESSAGE = {"Code", "Message"}
"""The fields of the vendor's messages."""


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """What the server sent."""

    status: int
    headers: Mapping[str, str]
    body: bytearray

    @property
    def date(self) -> datetime | None:
        """When it was sent, by the server's clock; None if it does not say."""
        return _parse_http_date(self.headers.get("Date", ""))


class AnswerReader:
    """Tells answers from errors, and decodes answers."""

    def __init__(
        self,
        record_type: type[msgspec.Struct],
        key: str,
        now: Callable[[], datetime],
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """Take the type of a record, the API key (not to be quoted), and the clock's `now`."""
        self._record_type = record_type
        strict = msgspec.defstruct(
            "Strict", [], bases=(record_type,), forbid_unknown_fields=True, gc=False
        )
        self._decoder = _decoder(strict)
        self._key = key
        self._now = now
        self._logger = logger

    def read(self, response: Response) -> list[Any]:
        """Decode the records of an answer; those that are objects as the type of a record.

        Raises:
            RateLimitError: the request was one too many.
            RejectedError: the PBX rejects the request, perhaps because it was one too many.
            TransientError: the PBX failed, or the answer is cut short.
            RequestError: no request will bring more.
        """
        if response.status == requests.codes.no_content:
            return []
        body = response.body
        if body.startswith(_BOM):
            del body[: len(_BOM)]
        if response.status != requests.codes.ok or not _ARRAY.match(body):
            raise self._error(response, bytes(body).strip())
        # The array itself has a bracket, too.
        brackets = body.count(b"{") + body.count(b"[") - 1
        if brackets > MAX_LEGS or body.count(b",") > MAX_VALUES:
            raise RequestError(f"the answer has more than {MAX_LEGS:,} legs")
        try:
            return self._decode_records(body)
        except msgspec.ValidationError:
            raise RequestError("a number in the answer is out of range") from None
        except _NOT_JSON:
            raise TransientError("the answer is cut short or garbled") from None

    def _decode_records(self, body: bytearray) -> list[Any]:
        with contextlib.suppress(msgspec.ValidationError):
            return self._decoder.decode(body)
        decoder = _decoder(self._record_type)
        records = decoder.decode(body)  # fails, too, if it was not for unknown fields
        self._decoder = decoder
        names: set[str] = set()
        for record in msgspec.json.decode(body, type=list[msgspec.Raw]):
            # A record, and names, may be of any length.
            if memoryview(record).nbytes <= MAX_MESSAGE_BYTES and len(names) < MAX_EXCERPT:
                with contextlib.suppress(*_NOT_JSON):
                    fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
                    names.update(name[:MAX_EXCERPT] for name in fields)
        unknown = ", ".join(sorted(names - set(self._record_type.__struct_fields__)))
        self._logger.warning(
            "The PBX sends fields that the schema does not have, and that are left out: %s",
            safe_excerpt(unknown, self._key),
        )
        return records

    def _error(self, response: Response, body: bytes) -> RequestError:
        """The error that a response stands for which is not an array."""
        status, wait = response.status, self._retry_after(response)
        content = _decode(body)
        detail = f"status {status}"
        is_message = False
        if isinstance(content, dict) and not content.keys().isdisjoint(_MESSAGE):
            is_message = True
            text = f"Code {content.get('Code')}: {content.get('Message')}"
            detail += f", {safe_excerpt(text, self._key)}"
        if requests.codes.multiple_choices <= status < requests.codes.bad_request:
            return self._redirect(response, detail)
        if _is_rate_limit(status, body):
            return RateLimitError(f"the PBX accepts no more requests for now ({detail})", wait)
        if status >= requests.codes.internal_server_error:
            return TransientError(f"the PBX failed ({detail})", wait)
        if status in _FINAL:
            return RequestError(f"{_FINAL[status]} ({detail})")
        if status == requests.codes.ok and not is_message:
            return _odd_answer(content, body)
        return RejectedError(f"the PBX rejects the request: {_CHECK_KEY} ({detail})", wait)

    def _redirect(self, response: Response, detail: str) -> RequestError:
        try:
            host = urlsplit(response.headers.get("Location", "")).netloc
        except ValueError:
            host = ""
        where = safe_excerpt(host, self._key) or "another page"
        return RequestError(
            f"the server redirects to {where}, which is not followed: check `api_url` ({detail})"
        )

    def _retry_after(self, response: Response) -> float:
        """The seconds that `Retry-After` asks for: a number, or a date."""
        text = response.headers.get("Retry-After", "").strip()
        if text.isdecimal():
            return min(int(text[:9]), MAX_RETRY_AFTER)
        until = _parse_http_date(text)
        seconds = (until - self._now()).total_seconds() if until else 0
        return min(max(seconds, 0), MAX_RETRY_AFTER)


def _decoder(record_type: type[msgspec.Struct]) -> msgspec.json.Decoder[list[Any]]:
    # A record may be anything: it is the reader of legs who says what is wrong with it.
    return msgspec.json.Decoder(list[record_type | str | int | float | bool | list[Any] | None])  # type: ignore[valid-type]


def _decode(body: bytes) -> object:
    """Decode a message; UNSET where it is not JSON, or too long to be one."""
    if len(body) > MAX_MESSAGE_BYTES:
        return None
    try:
        return msgspec.json.decode(body)
    except _NOT_JSON:
        return msgspec.UNSET


def _is_rate_limit(status: int, body: bytes) -> bool:
    if status == requests.codes.too_many_requests:
        return True
    # "Please wait and try again" may be a login page's words. Of a page they count only where the
    # status leaves open what it means.
    if body.startswith(b"<") and (status in _FINAL or status == requests.codes.ok):
        return False
    return bool(_RATE_LIMIT.search(body[:MAX_MESSAGE_BYTES].decode(errors="replace")))


def _odd_answer(content: object, body: bytes) -> RequestError:
    """The error of an answer with status 200 that is neither an array nor a message."""
    if content is msgspec.UNSET and body[:1] in {b"", b"{"}:
        return TransientError("the answer is cut short or garbled")
    what = "a web page" if body.startswith(b"<") else "something else"
    return RequestError(f"the answer is {what}, not a list of recordings: check `api_url`")


def _parse_http_date(text: str) -> datetime | None:
    """The instant of a header's date; None if it is not one."""
    try:
        date = email.utils.parsedate_to_datetime(text)
        # An offset of -0000 makes it naive, and UTC.
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
