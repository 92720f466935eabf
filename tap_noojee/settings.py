"""The settings, and whether they can be used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import singer_sdk.typing as th

from tap_noojee.client import NoojeeError, api_url
from tap_noojee.dates import DateError, read_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LARGEST = 1_000_000
"""Of any number; as seconds eleven days, as hours a century."""

SCHEMA: dict[str, Any] = th.PropertiesList(
    th.Property(
        "api_url",
        th.StringType,
        required=True,
        title="API URL",
        description=(
            "Address of the PBX, such as https://pbx.example.com. Without a path, "
            "/njadmin/rest/RecordingAPI is used; older servers need "
            "https://pbx.example.com/servicemanager/rest/RecordingAPI."
        ),
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
        description=(
            "Earliest end of a leg. A date, or a time without an offset, is in `timezone`."
        ),
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
        description=(
            "Whether to read history in order of time, or the newest hour first and then back "
            "through history."
        ),
    ),
    th.Property(
        "request_interval",
        th.IntegerType(minimum=0, maximum=LARGEST),
        default=60,
        title="Request interval",
        description="Least time between two requests, in seconds. The PBX allows one a minute.",
    ),
    th.Property(
        "settle_minutes",
        th.IntegerType(minimum=0, maximum=LARGEST),
        default=5,
        title="Settle minutes",
        description="How long after the end of an hour to ask for it, in minutes.",
    ),
    th.Property(
        "lookback_hours",
        th.IntegerType(minimum=0, maximum=LARGEST),
        default=0,
        title="Lookback hours",
        description="How many finished hours to read again at each run, for late arrivals.",
    ),
    th.Property(
        "max_hours_per_run",
        th.IntegerType(minimum=1, maximum=LARGEST),
        title="Maximum hours per run",
        description="Stop, successfully, after so many hours. Without it: at the present.",
    ),
    th.Property(
        "request_timeout",
        th.IntegerType(minimum=1, maximum=LARGEST),
        default=120,
        title="Request timeout",
        description="How long to wait for an answer, in seconds.",
    ),
    th.Property(
        "user_agent",
        th.StringType,
        title="User agent",
        description="The User-Agent header. Without it: tap-noojee/<version>.",
    ),
).to_dict()

_PROPERTIES: dict[str, dict[str, Any]] = dict(SCHEMA["properties"])
"""Of the tap alone: the SDK adds its own to the schema."""


class SettingsError(NoojeeError):
    """Settings that cannot be used; an argument for each, in a line."""


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with defaults for those that are missing or null."""
    defaults = {name: kind["default"] for name, kind in _PROPERTIES.items() if "default" in kind}
    return defaults | {name: value for name, value in config.items() if value is not None}


def check(config: Mapping[str, Any]) -> None:
    """Raise SettingsError if any setting of the tap cannot be used.

    The error names the setting, what is wrong and what is right. It shows no URL and no key.
    """
    errors = {}
    for name, kind in _PROPERTIES.items():
        try:
            if name in config:
                _check(name, kind, config[name])
            elif name in SCHEMA["required"]:
                errors[name] = f"is missing: {kind['description']}"
        except ValueError as error:
            errors[name] = str(error)
    if not errors:
        errors.update(_conflicts(config))
    if errors:
        raise SettingsError(*(f"{name}: {reason}" for name, reason in errors.items()))


def check_environment(prefix: str) -> None:
    """Raise SettingsError if a variable of the environment should be a number and is not.

    The SDK makes numbers of them without a look.
    """
    errors = []
    for name, kind in _PROPERTIES.items():
        text = os.environ.get(f"{prefix}{name.upper()}", "0")
        try:
            _ = "integer" in kind["type"] and int(text)
        except ValueError:
            errors.append(f"{name}: {_not_in_range(text, kind)}")
    if errors:
        raise SettingsError(*errors)


def _check(name: str, kind: Mapping[str, Any], value: object) -> None:
    if "integer" in kind["type"]:
        # Python takes True for a number.
        if type(value) is not int or not kind["minimum"] <= value <= kind["maximum"]:
            raise ValueError(_not_in_range(value, kind))
        return
    if not isinstance(value, str):
        raise ValueError(f"is not a text: {kind['description']}")  # noqa: TRY004 - as all others
    if not value:
        raise ValueError(f"is empty: {kind['description']}")
    if value not in kind.get("enum", [value]):
        raise ValueError(f"{value!r} is not one of {', '.join(kind['enum'])}")
    if name in _CHECKS:
        _CHECKS[name](value)


def _conflicts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    zone = _zone(config["timezone"])
    if "end_date" in config:
        start, end = (read_instant(config[name], zone) for name in ("start_date", "end_date"))
        if end <= start:
            yield "end_date", f"{config['end_date']!r} is not after start_date"
    most = config.get("max_hours_per_run")
    if most is not None and config["lookback_hours"] >= most:
        yield (
            "max_hours_per_run",
            f"{most} is not more than lookback_hours: no run would get ahead",
        )


def _check_key(value: str) -> None:
    if value != value.strip():
        raise ValueError("has white space around it")


def _check_date(value: str) -> None:
    try:
        read_instant(value, ZoneInfo("UTC"))
    except DateError as error:
        raise ValueError(f"{value!r} {error}") from None


def _check_header(value: str) -> None:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{value!r} is not printable ASCII, as a header has to be")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        reason = f"{name!r} is not a time zone: give an IANA name such as Australia/Melbourne"
    raise ValueError(reason)


_CHECKS: dict[str, Callable[[str], object]] = {
    "api_url": api_url,
    "api_key": _check_key,
    "start_date": _check_date,
    "end_date": _check_date,
    "timezone": _zone,
    "user_agent": _check_header,
}


def _not_in_range(value: object, kind: Mapping[str, Any]) -> str:
    return f"{value!r} is not a whole number from {kind['minimum']} to {kind['maximum']}"
