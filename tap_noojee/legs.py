"""Convert raw legs to records: the PBX's strings to the schema's types."""

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from importlib.resources import files
from operator import attrgetter
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import astuple

from tap_noojee.dates import ParsedDate, parse_date
from tap_noojee.errors import HourError, ZoneError
from tap_noojee.hours import format_hour
from tap_noojee.redaction import MAX_EXCERPT, safe_excerpt
from tap_noojee.text import pluralize

SCHEMA: dict[str, Any] = json.loads(
    files("tap_noojee.schemas").joinpath("recordings.json").read_text(encoding="utf-8")
)
REQUIRED = frozenset(SCHEMA["required"])

Leg = msgspec.defstruct(
    "Leg",
    [(name, str | None) for name in SCHEMA["properties"]],
    forbid_unknown_fields=True,
    gc=False,  # a leg cannot be part of a reference cycle
)
"""A leg with the schema's fields, usually strings until LegReader converts them in place.

A struct takes less than half the memory of a dictionary.
"""

MAX_WARNINGS = 10
"""Maximum number of unreadable values logged individually per hour."""

_SMALL_NUMBERS = {str(number): number for number in range(4000)}
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")


@dataclasses.dataclass(slots=True)
class HourLegs:
    """The legs of one hour, in order of `callend`."""

    legs: list[Any]
    warnings: list[str]
    """One for each unreadable value, up to MAX_WARNINGS, and one for the rest."""
    ambiguous: bool
    """Whether some dates could be in either pass of a repeated hour."""
    zone_confirmed: bool
    """Whether every date has an abbreviation that matches `timezone`."""
    ambiguous_abbreviation: str
    """An abbreviation that an old JVM prints all year, or an empty string."""


class LegReader:
    """Converts the raw legs of one PBX to records."""

    def __init__(self, zone: ZoneInfo, api_key: str) -> None:
        self._zone = zone
        self._api_key = api_key
        self._fields = [
            (name, _is_plain(name, prop), partial(self._convert, name, prop))
            for name, prop in SCHEMA["properties"].items()
        ]

    def read(self, hour: datetime, raw_legs: list[Any]) -> HourLegs:
        """Convert an hour's raw legs in place. Dates become ISO 8601 in UTC.

        An unreadable optional value becomes null, with a warning.

        Raises:
            HourError: A record is not an object, or its key or `callend` is unreadable.
            ZoneError: A date contradicts the `timezone` setting.
        """
        warnings: list[str] = []
        dates: list[ParsedDate] = []
        unreadable = 0
        for number, leg in enumerate(raw_legs, 1):
            if not isinstance(leg, Leg):
                raise HourError(f"{format_hour(hour)}: record {number} is not an object")
            for (name, is_plain, convert), value in zip(self._fields, astuple(leg), strict=True):
                # Fast path: most fields are plain strings.
                if is_plain and type(value) is str:
                    continue
                try:
                    converted = convert(value)
                except (ValueError, ZoneError) as error:
                    where = f"{format_hour(hour)}: record {number}"
                    warning = self._warn_or_raise(where, name, value, error)
                    converted = None
                    unreadable += 1
                    if unreadable <= MAX_WARNINGS:
                        warnings.append(warning)
                if isinstance(converted, ParsedDate):
                    dates.append(converted)
                    converted = converted.iso
                setattr(leg, name, converted)
        if unreadable > MAX_WARNINGS:
            more = pluralize(unreadable - MAX_WARNINGS, "more value")
            warnings.append(f"{format_hour(hour)}: {more} written as null")
        return HourLegs(
            sorted(raw_legs, key=attrgetter("callend")),
            warnings,
            ambiguous=any(date.ambiguous for date in dates),
            zone_confirmed=all(date.zone_confirmed for date in dates),
            ambiguous_abbreviation=next(
                (d.ambiguous_abbreviation for d in dates if d.ambiguous_abbreviation), ""
            ),
        )

    def _convert(self, name: str, prop: Mapping[str, Any], value: object) -> object:
        """Convert a value to the field's type, or raise ValueError."""
        if value is None or (type(value) is str and not value.strip()):
            if name in REQUIRED:
                raise ValueError("is missing")
            return None
        if not isinstance(value, str):
            raise ValueError("is not a string")  # noqa: TRY004 - like all other bad values
        if "integer" in prop["type"]:
            return _whole_number(value, prop["minimum"], prop["maximum"])
        if "format" in prop:
            return parse_date(value, self._zone)
        if len(value) > prop.get("maxLength", len(value)):
            raise ValueError(f"is longer than {prop['maxLength']} characters")
        return value

    def _warn_or_raise(self, where: str, name: str, value: object, error: Exception) -> str:
        """Return the warning about an optional value. Raise for a required one or a ZoneError."""
        text = f"{where}: {name}"
        if isinstance(value, str) and value.strip():
            text += f" {safe_excerpt(repr(value[: MAX_EXCERPT + 1]), self._api_key)}"
        if isinstance(error, ZoneError):
            raise ZoneError(f"{text} {error}") from None
        if name in REQUIRED:
            raise HourError(f"{text} {error}") from None
        return f"{text} {error}; it is written as null"


def _is_plain(name: str, prop: Mapping[str, Any]) -> bool:
    """Whether the field takes any string."""
    return "string" in prop["type"] and "format" not in prop and name not in REQUIRED


def _whole_number(text: str, minimum: int, maximum: int) -> int:
    """Read a whole number in any form: `68`, `68.0`, `6.8E1`."""
    value: Decimal | int | None = _SMALL_NUMBERS.get(text)  # much faster than a pattern
    if value is None:
        if not _NUMBER.fullmatch(text.strip()):
            raise ValueError("is not a whole number")
        value = Decimal(text.strip())
        if value != value.to_integral_value():
            raise ValueError("is not a whole number")
    if not minimum <= value <= maximum:
        raise ValueError(f"is not between {minimum} and {maximum}")
    return int(value)
