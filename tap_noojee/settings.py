"""The settings: their schema, and the checks that JSON Schema cannot express."""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pendulum
import requests
import singer_sdk.typing as th
from singer_sdk.configuration._dict_config import parse_environment_config

from tap_noojee.dates import parse_instant
from tap_noojee.errors import SettingsError
from tap_noojee.redaction import safe_excerpt

ENDPOINT = "retrieveMetaDataByHour"
"""The only API call that the tap makes."""

API_PATH = "/njadmin/rest/RecordingAPI"

ENV_PREFIX = "TAP_NOOJEE_"

MAX_INTEGER = 100_000
"""Upper limit for every numeric setting: more than a day in seconds, eleven years in hours."""

DEFAULT_ZONE = "Australia/Melbourne"

_NON_NEGATIVE = th.IntegerType(minimum=0, maximum=MAX_INTEGER)
_POSITIVE = th.IntegerType(minimum=1, maximum=MAX_INTEGER)

SCHEMA: dict[str, Any] = th.PropertiesList(
    th.Property(
        "api_url",
        th.StringType,
        required=True,
        description="Address of the PBX, such as https://pbx.example.com. Without a path, the tap "
        "uses /njadmin/rest/RecordingAPI; older servers need "
        "https://pbx.example.com/servicemanager/rest/RecordingAPI.",
    ),
    th.Property(
        "api_key",
        th.StringType,
        required=True,
        secret=True,
        description="The Global API key, from Noojee support. A User API key probably does not "
        "work.",
    ),
    th.Property(
        "start_date",
        th.DateTimeType,
        required=True,
        description="First hour to read. You may change it at any time. Dates and times without "
        "an offset are interpreted in `timezone`.",
    ),
    th.Property(
        "end_date",
        th.DateTimeType,
        description="Read only hours that end by this time. Default: no limit.",
    ),
    th.Property(
        "timezone",
        th.StringType,
        default=DEFAULT_ZONE,
        description="Time zone of the PBX's clock, as an IANA name.",
    ),
    th.Property(
        "backfill_order",
        th.StringType(allowed_values=["oldest_first", "newest_first"]),
        default="oldest_first",
        description="Start with the oldest hour, or with the newest and work back through "
        "history.",
    ),
    th.Property(
        "request_interval",
        _NON_NEGATIVE,
        default=60,
        description="Minimum time between two requests, in seconds. The PBX allows one a minute.",
    ),
    th.Property(
        "settle_minutes",
        _NON_NEGATIVE,
        default=5,
        description="How long to wait after an hour ends before requesting it, in minutes.",
    ),
    th.Property(
        "lookback_hours",
        _NON_NEGATIVE,
        default=0,
        description="Number of recent hours to read again in each run, to pick up late changes.",
    ),
    th.Property(
        "max_hours_per_run",
        _POSITIVE,
        description="Maximum number of hours to request in one run. Default: no limit.",
    ),
    th.Property(
        "request_timeout",
        _POSITIVE,
        default=120,
        description="How long to wait for a complete response, in seconds.",
    ),
    th.Property(
        "user_agent",
        th.StringType,
        default=f"tap-noojee/{version('tap-noojee')}",
        description="The User-Agent header.",
    ),
).to_dict()

_SDK_VARIABLES = {"loglevel"}
"""Names, without our prefix, of variables that the SDK reads itself."""


def read_environment(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings from the environment.

    Unknown variables map to None, so that the tap can warn about them.

    Raises:
        SettingsError: A variable has the wrong type.
    """
    config: dict[str, Any] = {}
    for name, prop in schema["properties"].items():
        variable = ENV_PREFIX + name.upper()
        try:
            # The SDK's public way fails on an empty number, and its errors name no variable.
            config |= parse_environment_config({"properties": {name: prop}}, ENV_PREFIX)
        except (RecursionError, ValueError):
            if os.environ[variable].strip():  # an empty one counts as unset
                kind = "a whole number" if "integer" in prop["type"] else "JSON"
                raise SettingsError(f"{name}: the variable {variable} is not {kind}") from None
    for variable in os.environ:
        name = variable.removeprefix(ENV_PREFIX).lower()
        # `TAP_NOOJEE__SYDNEY_…` belongs to another extractor of a Meltano project.
        is_ours = variable.startswith(ENV_PREFIX) and not name.startswith("_")
        if is_ours and name not in _SDK_VARIABLES:
            config.setdefault(name, None)
    return config


def drop_empty(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop null and empty settings, which count as unset."""
    return {name: value for name, value in config.items() if value is not None and value != ""}


def validate(config: Mapping[str, Any]) -> None:
    """Check what JSON Schema cannot express.

    Raises:
        SettingsError: Some settings are invalid. Each has a line with its name, the problem and,
            where it is not obvious, the remedy. No line quotes `api_url` or part of the API key.
    """
    # Only valid settings can be compared with each other.
    if errors := [*_invalid_values(config)] or [*_conflicts(config)]:
        raise SettingsError(*errors)


def rewrite_schema_errors(
    schema_errors: Iterable[str], config: Mapping[str, Any]
) -> Iterator[str]:
    """Rewrite the SDK's validation errors so that the setting's name comes first."""
    for error in schema_errors:
        match = re.fullmatch(r"(?s)(.*) in config\['(\w+)'\](.*)", error)
        prefix, problem = (f"{match[2]}{match[3]}: ", match[1]) if match else ("", error)
        yield prefix + safe_excerpt(problem, config["api_key"])


def unknown_setting_warnings(
    config: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a warning for each unknown setting."""
    for name in config:
        if name not in schema["properties"]:
            close = difflib.get_close_matches(name.lower(), schema["properties"], 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            quoted = safe_excerpt(repr(name), str(config.get("api_key", "")))
            yield f"{quoted} is not a setting and has no effect{hint}"


def _invalid_values(config: Mapping[str, Any]) -> Iterator[str]:
    for name in SCHEMA["required"]:
        if name not in config:
            yield f"{name} is missing: {SCHEMA['properties'][name]['description']}"
    key = config.get("api_key", "")
    if not isinstance(key, str):
        # The SDK's validation would quote it, and we cannot look for it in the other values.
        yield "api_key is not a string: put it in quotes"
        return
    for name, check in _CHECKS.items():
        if isinstance(value := config.get(name), str):
            try:
                check(value)
            except ValueError as error:
                is_secret = name in {"api_url", "api_key"}
                quoted = "" if is_secret else f": {safe_excerpt(repr(value), key)}"
                yield f"{name}{quoted} {error}"


def _conflicts(config: Mapping[str, Any]) -> Iterator[str]:
    # The SDK logs stream map expressions.
    if config["api_key"] in str(config.get("stream_maps")):
        yield "stream_maps contains the API key: remove it"
    # The SDK checks the types later.
    start, end = config["start_date"], config.get("end_date")
    zone_name = config.get("timezone", DEFAULT_ZONE)
    if isinstance(start, str) and isinstance(end, str) and isinstance(zone_name, str):
        zone = parse_zone(zone_name)
        if parse_instant(end, zone) <= parse_instant(start, zone):
            yield f"end_date: {end!r} is not after start_date: set a later one"
    limit, lookback = config.get("max_hours_per_run"), config.get("lookback_hours", 0)
    if isinstance(limit, int) and isinstance(lookback, int) and lookback >= limit:
        problem = f"{limit} is not greater than lookback_hours ({lookback})"
        yield f"max_hours_per_run: {problem}: raise it"


def build_api_url(text: str) -> str:
    """Build the URL of the recordings API from the `api_url` setting.

    Raises:
        ValueError: The setting is unusable. The message does not quote it.
    """
    hint = "give the address of the PBX, such as https://pbx.example.com"
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
        # Reject a URL that requests or DNS would reject.
        host.encode("idna")
        requests.Request("POST", text).prepare()
    except ValueError:  # requests' own errors are ValueErrors as well
        raise ValueError(f"is not a URL: {hint}") from None
    # urlsplit drops control characters, so look at the text.
    if port == 0 or not text.isprintable() or " " in text:
        raise ValueError(f"is not a URL: {hint}")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ValueError(
            f"does not start with https:// (every request contains the API key): {hint}"
        )
    parts = {"user name": "@" in url.netloc, "query": "?" in text, "fragment": "#" in text}
    for part, is_there in parts.items():
        if is_there:
            raise ValueError(f"has a {part}: {hint}")
    path = url.path.rstrip("/").removesuffix(f"/{ENDPOINT}")
    return f"{url.scheme}://{url.netloc}{path or API_PATH}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_zone(name: str) -> ZoneInfo:
    """Return the time zone with this IANA name.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        return pendulum.timezone(name)
    except (ValueError, OSError):
        raise ValueError(
            "is not a time zone: give an IANA name such as Australia/Melbourne"
        ) from None


def _check_key(value: str) -> None:
    if value != value.strip():
        raise ValueError("starts or ends with whitespace: remove it")


def _check_date(value: str) -> None:
    parse_instant(value, pendulum.timezone("UTC"))


def _check_header(value: str) -> None:
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError("is not a valid header value: use printable ASCII")


_CHECKS: dict[str, Callable[[str], object]] = {
    "api_url": build_api_url,
    "api_key": _check_key,
    "start_date": _check_date,
    "end_date": _check_date,
    "timezone": parse_zone,
    "user_agent": _check_header,
}
