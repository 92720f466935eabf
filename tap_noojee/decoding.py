"""Decode the body of a successful response, an array of raw legs."""

import codecs
import dataclasses
import email.message
import json
import re
import sys
from typing import Any

import msgspec

from tap_noojee.errors import HourError, RequestError, TransientHourError
from tap_noojee.legs import REQUIRED, Leg
from tap_noojee.redaction import safe_excerpt

MAX_LEGS = 150_000
"""Maximum number of legs in a response. A large call centre has a few thousand an hour."""

MAX_TEXT_BYTES = 80 * 2**20
"""Largest decoded response, in bytes. One emoji makes Python store the whole text at four
bytes a character."""

MAX_UNKNOWN = 20
"""Maximum number of unknown field names that we report for one response."""

_DECODER = msgspec.json.Decoder(list[Leg])  # type: ignore[valid-type]
_FIELDS = {name.lower(): name for name in Leg.__struct_fields__}

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL cannot store a NUL, and no target can encode a lone surrogate."""


@dataclasses.dataclass(slots=True)
class DecodedBody:
    """The raw legs of a response, and anything unusual in them."""

    legs: list[Any]
    """Leg objects, and any other JSON values in the array."""
    unknown: set[str] = dataclasses.field(default_factory=set)
    """Fields that are not in the schema."""
    missing: set[str] = dataclasses.field(default_factory=set)
    """Optional fields that no leg has."""
    charset: str = ""
    """The charset, if it is not UTF-8."""
    replaced: set[str] = dataclasses.field(default_factory=set)
    """Fields in which characters that databases reject were replaced."""
    no_content: bool = False
    """Whether the status was 204."""


def decode_legs(body: bytearray, content_type: str, api_key: str) -> DecodedBody:
    """Decode an array of legs. May clear `body` to save memory. No message quotes the API key.

    Raises:
        TransientHourError: The body ends before the array does.
        HourError: The body is unreadable.
    """
    # Each item and each field follows one of these, so their count bounds the memory we need.
    if sum(map(body.count, (b",", b"{", b"["))) > MAX_LEGS * (len(_FIELDS) + 1):
        raise HourError(
            f"the response is too large: it has more values than {MAX_LEGS:,} legs would have"
        )
    if b"\\u0000" not in body:  # an escaped NUL has to be replaced
        try:
            # Fast path: each leg has exactly the schema's fields, all strings or null.
            return DecodedBody(_DECODER.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return _decode_tolerantly(body, content_type, api_key)


def _decode_tolerantly(body: bytearray, content_type: str, api_key: str) -> DecodedBody:
    """Decode legs with unknown or missing fields, numbers, another charset or bad characters."""
    text, charset = _decode_text(body, content_type)
    size = len(body)
    body.clear()
    if sys.getsizeof(text) > MAX_TEXT_BYTES:
        raise HourError(f"the response takes more than {MAX_TEXT_BYTES // 2**20} MiB as text")
    result = DecodedBody([], charset=charset)
    seen: set[str] = set()

    def build_leg(pairs: list[tuple[str, Any]]) -> Any:  # noqa: ANN401 - Leg is made at run time
        values = dict.fromkeys(_FIELDS.values())
        for name, value in pairs:
            field = _FIELDS.get(name.lower())
            if field is None:
                if len(result.unknown) < MAX_UNKNOWN:
                    result.unknown.add(safe_excerpt(name, api_key))
                continue
            seen.add(field)
            if isinstance(value, str) and _UNSTORABLE.search(value):
                value = _UNSTORABLE.sub("\ufffd", value)  # noqa: PLW2901 - the same value, cleaned
                result.replaced.add(field)
            values[field] = value
        return Leg(**values)

    try:
        result.legs = json.loads(
            text,
            strict=False,  # allow raw control characters in strings
            object_pairs_hook=build_leg,
            parse_int=str,
            parse_float=str,
            parse_constant=float,  # keep NaN and Infinity as floats, which LegReader rejects
        )
    except json.JSONDecodeError as error:
        raise _json_error(text, charset, size, error) from None
    except RecursionError:
        raise HourError("the response is not a list of legs: it is nested too deeply") from None
    if result.legs:
        result.missing = set(_FIELDS.values()) - seen - REQUIRED
    return result


def _decode_text(body: bytearray, content_type: str) -> tuple[str, str]:
    """Return the text, and its charset if it is not UTF-8."""
    try:
        text = body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return _decode_non_utf8(body, content_type)
    if _UNSTORABLE.search(text):
        # Java may write each half of a surrogate pair as a character (CESU-8).
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text, ""


def _decode_non_utf8(body: bytearray, content_type: str) -> tuple[str, str]:
    header = email.message.Message()
    header["Content-Type"] = content_type
    charset = str(header.get_content_charset("windows-1252"))
    try:
        if codecs.lookup(charset).name != "utf-8":
            return body.decode(charset, "replace"), charset
    except (LookupError, ValueError):  # not a charset, or not one for text
        pass
    return body.decode("windows-1252", "replace"), "windows-1252"


def _json_error(text: str, charset: str, size: int, error: json.JSONDecodeError) -> RequestError:
    if _is_truncated(text, error):
        return TransientHourError(f"the response is truncated after {size:,} bytes")
    errors = "replace" if charset else "surrogatepass"
    position = len(text[: error.pos].encode(charset or "utf-8", errors))
    return HourError(f"the response is not JSON at byte {position:,} ({error.msg})")


def _is_truncated(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the only error is that the text ends too early."""
    text = text.rstrip()
    if error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Extra data"):
        return False
    # The decoder reports a truncated token at its start.
    longest_token = len("-Infinity")
    return error.pos >= len(text) - longest_token and not text.endswith("]")
