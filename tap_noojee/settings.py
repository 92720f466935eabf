"""The settings, and whether they can be used."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pendulum
import requests
import singer_sdk.typing as th

from tap_noojee.dates import parse_instant
from tap_noojee.errors import DateError, SettingsError
from tap_noojee.secrecy import safe_excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

API_PATH = "/njadmin/rest/RecordingAPI"

MAX_NUMBER = 1_000_000
"""As seconds eleven days, as hours a century."""

SCHEMA: dict[str, Any] = th.PropertiesList(
    th.Property(
        "api_url",
        th.StringType,
        required=True,
        title="API URL",
        description="Address of the PBX, such as https://pbx.example.com. Without a path, "
        "/njadmin/rest/RecordingAPI is used; older servers need "
        "https://pbx.example.com/servicemanager/rest/RecordingAPI.",
    ),
    th.Property(
        "api_key",
        th.StringType,
        required=True,
        secret=True,
        title="API key",
        description="The key from Noojee support, who also put your IP address on a whitelist.",
    ),
    th.Property(
        "start_date",
        th.DateTimeType,
        required=True,
        title="Start date",
        description="Earliest end of a leg; may be moved at any time. A date, or a time without "
        "an offset, is in `timezone`.",
    ),
    th.Property(
        "end_date",
        th.DateTimeType,
        title="End date",
        description="Latest end of a leg, exclusive. Without it: now.",
    ),
    th.Property(
        "timezone",
        th.StringType,
        default="Australia/Melbourne",
        title="Time zone",
        description="IANA name of the zone of the PBX's own clock.",
    ),
    th.Property(
        "backfill_order",
        th.StringType(allowed_values=["oldest_first", "newest_first"]),
        default="oldest_first",
        title="Backfill order",
        description="Whether to read history in order of time, or the newest hour first and then "
        "back through history.",
    ),
    th.Property(
        "request_interval",
        th.IntegerType(minimum=0, maximum=MAX_NUMBER),
        default=60,
        title="Request interval",
        description="Least time between two requests, in seconds. The PBX allows one a minute.",
    ),
    th.Property(
        "settle_minutes",
        th.IntegerType(minimum=0, maximum=MAX_NUMBER),
        default=5,
        title="Settle minutes",
        description="How long after the end of an hour to request it, in minutes.",
    ),
    th.Property(
        "lookback_hours",
        th.IntegerType(minimum=0, maximum=MAX_NUMBER),
        default=0,
        title="Lookback hours",
        description="How many finished hours to read again at each run, for late arrivals.",
    ),
    th.Property(
        "max_hours_per_run",
        th.IntegerType(minimum=1, maximum=MAX_NUMBER),
        title="Maximum hours per run",
        description="Stop, successfully, after that many hours. Without it: at the present.",
    ),
    th.Property(
        "request_timeout",
        th.IntegerType(minimum=1, maximum=MAX_NUMBER),
        default=120,
        title="Request timeout",
        description="How long to wait for a complete response, in seconds.",
    ),
    th.Property(
        "user_agent",
        th.StringType,
        title="User agent",
        description="The User-Agent header. Without it: tap-noojee/<version>.",
    ),
).to_dict()

_UTC = pendulum.timezone("UTC")
_MICROSECONDS = re.compile(r"\.[0-9]{6}$")

_PROPERTIES: dict[str, dict[str, Any]] = dict(SCHEMA["properties"])
"""The tap's own; the SDK adds its settings to the schema."""


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings; those missing, null or empty have defaults, unless they are required."""
    defaults = {name: prop["default"] for name, prop in _PROPERTIES.items() if "default" in prop}
    return defaults | {
        name: value
        for name, value in config.items()
        if value is not None and not (value == "" and name not in SCHEMA["required"])
    }


def check(config: Mapping[str, Any]) -> None:
    """Check the tap's settings.

    Raises:
        SettingsError: some cannot be used. For each it names the setting, what is wrong and what
            is right; it shows no URL, and nothing that has a part of the API key in it.
    """
    errors = {}
    for name, prop in _PROPERTIES.items():
        try:
            if name in config:
                _check(name, prop, config[name])
            elif name in SCHEMA["required"]:
                errors[name] = f"is missing: {prop['description']}"
        except ValueError as error:
            value = repr(config[name])
            # Without an `api_key` to compare, any value may be the key, given for another setting.
            key = config.get("api_key")
            shown = safe_excerpt(value, key) if key and isinstance(key, str) else "the value"
            errors[name] = str(error).replace(value, shown)
    if not errors:
        errors.update(_conflicts(config))
    if errors:
        raise SettingsError(*(f"{name}: {reason}" for name, reason in errors.items()))


def integers_as_strings(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema by which the SDK reads the environment without making integers of its texts.

    Of one that is empty, or not a number, it would make a traceback.
    """
    properties = {
        name: {"type": ["string"]} if "integer" in prop["type"] else prop
        for name, prop in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def parse_integers(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the environment, with integers; one that is not stays a text to reject."""
    parsed = {}
    for name, value in config.items():
        if "integer" not in schema["properties"][name]["type"]:
            parsed[name] = value
        else:
            parsed[name] = int(value) if value.lstrip("+-").isdecimal() else value
    return parsed


def api_url(text: str) -> str:
    """The URL of the recordings API that a user's `api_url` stands for.

    Raises:
        ValueError: it cannot be used; says what is wrong, without the text.
    """
    hint = "give the address of the PBX, such as https://pbx.example.com"
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
        # What requests and the name look-up would reject, and other hosts than they seem to be.
        host.encode("idna")
        requests.Request("POST", text).prepare()
    except ValueError:  # those of requests are, too
        raise ValueError(f"is not a URL: {hint}") from None
    if port == 0 or not text.isprintable() or " " in text:
        raise ValueError(f"is not a URL: {hint}")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ValueError(f"does not begin with https:// (the API key is in every request): {hint}")
    if "@" in url.netloc or "?" in text or "#" in text:
        raise ValueError(f"has a user, a query or a fragment: {hint}")
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/') or API_PATH}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def time_zone(name: str) -> ZoneInfo:
    """The time zone of this name.

    Raises:
        ValueError: there is none.
    """
    try:
        return pendulum.timezone(name)
    except (ValueError, OSError):
        raise ValueError(
            f"{name!r} is not a time zone: give an IANA name such as Australia/Melbourne"
        ) from None


def date(text: str, zone: ZoneInfo) -> datetime:
    """The instant of `start_date` or `end_date`.

    Without an offset it is in the PBX's zone. The exception ends in microseconds: that is how
    Meltano writes a relative date such as `6 months ago`, in UTC.

    Raises:
        DateError: it is not a date.
    """
    return parse_instant(text, _UTC if _MICROSECONDS.search(text) else zone)


def _check(name: str, prop: Mapping[str, Any], value: object) -> None:
    if "integer" in prop["type"]:
        # Python takes True for a number.
        if type(value) is not int or not prop["minimum"] <= value <= prop["maximum"]:
            limits = f"from {prop['minimum']} to {prop['maximum']}"
            raise ValueError(f"{value!r} is not a whole number {limits}")
        return
    if not isinstance(value, str):
        raise ValueError(f"is not a string: {prop['description']}")  # noqa: TRY004 - as all others
    if not value.strip():
        raise ValueError(f"is empty: {prop['description']}")
    if value not in prop.get("enum", [value]):
        raise ValueError(f"{value!r} is not one of {', '.join(prop['enum'])}")
    if name in _CHECKS:
        _CHECKS[name](value)


def _conflicts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # The SDK logs the expressions of stream maps.
    if config["api_key"] in str(config.get("stream_maps")):
        yield "stream_maps", "has the API key in it"
    zone = time_zone(config["timezone"])
    if "end_date" in config:
        start, end = (date(config[name], zone) for name in ("start_date", "end_date"))
        if end <= start:
            yield "end_date", f"{config['end_date']!r} is not after start_date"
    limit = config.get("max_hours_per_run")
    if limit is not None and config["lookback_hours"] >= limit:
        yield (
            "max_hours_per_run",
            f"{limit} is not more than lookback_hours: no run would get ahead",
        )


def _check_key(value: str) -> None:
    if value != value.strip():
        raise ValueError("has white space around it")


def _check_date(value: str) -> None:
    try:
        date(value, _UTC)
    except DateError as error:
        raise ValueError(f"{value!r} {error}") from None


def _check_header(value: str) -> None:
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError(f"{value!r} is not printable ASCII, as a header has to be")


_CHECKS: dict[str, Callable[[str], object]] = {
    "api_url": api_url,
    "api_key": _check_key,
    "start_date": _check_date,
    "end_date": _check_date,
    "timezone": time_zone,
    "user_agent": _check_header,
}
