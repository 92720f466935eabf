"""Turn a response into raw legs or an error.

The vendor documents 200 with an array, and otherwise "an appropriate http error code". An object
with `Code` or `Message` is an error under any HTTP status.
"""

import dataclasses
import email.message
import email.utils
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import requests

from tap_noojee.decoding import DecodedBody, decode_legs
from tap_noojee.errors import (
    PossibleRateLimitError,
    RateLimitError,
    RequestError,
    TransientError,
    TransientHourError,
)
from tap_noojee.redaction import safe_excerpt

MAX_RETRY_AFTER = 3600
"""Longest `Retry-After` we honour, in seconds."""

MAX_MESSAGE_BYTES = 2**16
"""Longest part of an error's body that we look at, in bytes."""

_BOM = b"\xef\xbb\xbf"
_ARRAY = re.compile(rb"\s*\[")
_RATE_LIMIT = re.compile(
    r"rate.?limit|limit (was |is |has been )?(exceeded|reached)|exceed\w{0,9} .{0,40}limit"
    r"|too (many (calls|requests)|soon|often|frequent)|throttl|slow down|enhance your calm"
    r"|wait a bit|wait.{1,40}(retry|again)|(calls?|requests?|once) (a|per|every|each) minute"
    r"|(once |only )?(a|per|every|each) [0-9]+ (seconds|minutes)",
    re.IGNORECASE,
)
"""Typical wording of rate-limit errors. The vendor's lead API answers 400 with "wait a bit and
retry"; this API's wording is not documented."""

_CHECK_KEY = (
    "check that `api_key` is the Global API key, and that Noojee support has whitelisted this "
    "machine's IP address"
)
_FATAL_STATUSES: dict[int, str] = {
    requests.codes.unauthorized: f"the PBX refuses access: {_CHECK_KEY}",
    requests.codes.not_found: (
        "the PBX does not have this API: check `api_url` (older servers have it under "
        "/servicemanager/rest/RecordingAPI)"
    ),
}

_STATUS_KEYS = {"Code", "Message"}
"""The keys of the vendor's status objects."""


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytearray
    started: float = 0
    """When the request started, on the monotonic clock."""

    @property
    def date(self) -> datetime | None:
        """The `Date` header in UTC, or None if it is missing or unreadable."""
        return _parse_http_date(self.headers.get("Date", ""))


def parse_response(response: Response, api_key: str, now: datetime) -> DecodedBody:
    """Decode a response. May clear its body. No message quotes the API key.

    Raises:
        RateLimitError: The PBX reports its rate limit.
        PossibleRateLimitError: The PBX rejects the request, perhaps because of its rate limit.
        TransientError: The PBX failed, or the response is truncated.
        HourError: The response cannot be read.
        RequestError: The PBX refuses access, or the response is not from its API.
    """
    if response.status == requests.codes.no_content:
        return DecodedBody([], no_content=True)
    body = response.body
    if body.startswith(_BOM):
        del body[: len(_BOM)]
    if response.status != requests.codes.ok or not _ARRAY.match(body):
        raise _build_error(response, bytes(body[:MAX_MESSAGE_BYTES]).strip(), api_key, now)
    return decode_legs(body, response.headers.get("Content-Type", ""), api_key)


def _build_error(response: Response, body: bytes, api_key: str, now: datetime) -> RequestError:
    """Build the error for any response other than a 200 with an array."""
    status, wait = response.status, _retry_after(response, now)
    message = _status_message(body)
    detail = f"status {status}" + (f", {safe_excerpt(message, api_key)}" if message else "")
    if requests.codes.multiple_choices <= status < requests.codes.bad_request:
        # Leave out the query, which may contain the key.
        page = safe_excerpt(response.headers.get("Location", "").partition("?")[0], api_key)
        return RequestError(
            f"the server redirects to {page or 'another page'}, which the tap does not follow: "
            f"check `api_url` ({detail})"
        )
    if _is_rate_limit(status, body):
        return RateLimitError(
            f"the PBX accepts no more requests for now ({detail}): stop whatever else calls its "
            "API (another tap, a script, a --test), or raise `request_interval`",
            wait,
        )
    if status >= requests.codes.internal_server_error:
        # A 500 may affect only this hour. Other 5xx statuses affect the whole PBX.
        is_500 = status == requests.codes.internal_server_error
        kind = TransientHourError if is_500 else TransientError
        return kind(f"the PBX failed ({detail})", wait)
    if status in _FATAL_STATUSES:
        return RequestError(f"{_FATAL_STATUSES[status]} ({detail})")
    if status == requests.codes.ok and not message:
        return _unexpected_body(body)
    return PossibleRateLimitError(f"the PBX rejects the request: {_CHECK_KEY} ({detail})", wait)


def _retry_after(response: Response, now: datetime) -> float:
    """Return how many seconds `Retry-After`, a number or a date, asks us to wait."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return min(int(text[:9]), MAX_RETRY_AFTER)
    until = _parse_http_date(text)
    seconds = (until - now).total_seconds() if until else 0
    return min(max(seconds, 0), MAX_RETRY_AFTER)


def _status_message(body: bytes) -> str:
    """Format the vendor's status object, or return an empty string for any other body."""
    try:
        status = json.loads(body.decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(status, dict) or status.keys().isdisjoint(_STATUS_KEYS):
        return ""
    return f"Code {status.get('Code')}: {status.get('Message')}"


def _is_rate_limit(status: int, body: bytes) -> bool:
    if status == requests.codes.too_many_requests:
        return True
    # Do not search a web page with status 200, 401 or 404: a login page may have the same words.
    if body.startswith(b"<") and (status in _FATAL_STATUSES or status == requests.codes.ok):
        return False
    return bool(_RATE_LIMIT.search(body.decode(errors="replace")))


def _unexpected_body(body: bytes) -> RequestError:
    """Build the error for status 200 with neither an array nor a status object."""
    if not body:
        return TransientHourError("the response is empty")
    is_cut = body.startswith(b"{") and not body.endswith(b"}")
    # The end of a longer body is unknown, because `parse_response` cuts it off.
    if is_cut and len(body) < MAX_MESSAGE_BYTES:
        return TransientHourError(f"the response is truncated after {len(body):,} bytes")
    page = "a web page, " if body.startswith(b"<") else ""
    return RequestError(f"the response is {page}not a list of legs: check `api_url`")


def _parse_http_date(text: str) -> datetime | None:
    """Parse a header's date into UTC, or return None if it is not a date."""
    try:
        date = email.utils.parsedate_to_datetime(text)
        # A date with the offset -0000 is parsed as naive.
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
