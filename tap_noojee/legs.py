"""What the legs of an answer say: strings of the PBX into the values of the schema."""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import astuple

from tap_noojee.dates import parse_date
from tap_noojee.errors import RecordError
from tap_noojee.hours import QUARTER, instants
from tap_noojee.progress import in_words, number
from tap_noojee.secrecy import MAX_EXCERPT, safe_excerpt

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping
    from zoneinfo import ZoneInfo

    from tap_noojee.hours import Hour, Span

REMEMBERED = 10_000
"""Legs, at the least, that are recognised when they come with another hour, too."""

MIN_ZONE_DIFFERENCE = 25 * 60
"""Seconds between a call's creation and a leg's start that may be the sign of a wrong zone."""

MAX_QUARTERS = 14 * 4
"""Of an hour; what is further off has another reason."""

ENOUGH_CALLS = 3
"""To tell a wrong zone from calls whose legs started long after them."""

_QUARTER = QUARTER.total_seconds()

MAX_START_LAG = 120
"""Seconds from a call's creation to the start of its first leg."""

_ASTERISK_ID = re.compile(r"([0-9]{9,10})\.[0-9]+")
"""It begins with the epoch seconds of the call's creation."""

_SMALL = {str(number): number for number in range(4000)}
_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,19}\s*")


def leg_type(schema: Mapping[str, Any]) -> type[msgspec.Struct]:
    """A struct with a field for each of the schema's, of any type.

    It takes half the memory of a dictionary.
    """
    return msgspec.defstruct("Leg", [(name, Any, None) for name in schema["properties"]], gc=False)


class LegReader:
    """Reads the legs of one answer after another, and remembers which came."""

    def __init__(
        self,
        schema: Mapping[str, Any],
        zone: ZoneInfo,
        key: str,
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """Take the stream's schema, the PBX's zone, and the API key, which is not to be quoted."""
        self.leg_type = leg_type(schema)
        self._readers = []
        for name, prop in schema["properties"].items():
            convert, required = self._converter(prop), name in schema["required"]
            takes_any_string = convert is str and not required
            self._readers.append((name, takes_any_string, _field_reader(convert, required)))
        self._zone = zone
        self._key = key
        self._logger = logger
        self._legacy_name = ""
        self._ambiguous = False
        self._proven = True
        self._zone_doubted = False
        self._recent: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._older: dict[tuple[str, int], tuple[Any, ...]] = {}

    def read(self, hour: Hour, legs: list[Any]) -> list[Any]:
        """Turn an hour's legs, in place, into values of the schema, in order of their end.

        Dates become ISO 8601 in UTC, which sort as text. Legs that have come before, and have not
        changed since, are left out.

        Raises:
            RecordError: one of them cannot be read.
        """
        self._ambiguous, self._proven = False, True
        for place, leg in enumerate(legs, 1):
            if not isinstance(leg, self.leg_type):
                raise RecordError(f"{hour}: record {place}: is not an object")
            for (name, takes_any_string, read), value in zip(
                self._readers, astuple(leg), strict=True
            ):
                # Most fields, so not worth a call each.
                if takes_any_string and type(value) is str:
                    continue
                try:
                    setattr(leg, name, read(value))
                except ValueError as error:
                    reason = f"{name}: {self._show(value)}{error}"
                    raise RecordError(f"{hour}: record {place}: {reason}") from None
        legs = sorted(legs, key=attrgetter("callend"))
        legs = [leg for leg in legs if self._is_news((leg.CallRecordId, leg.Leg), astuple(leg))]
        if hour.repeated:
            self._check_passes(hour, legs)
        # Behind a repeated hour, legs may have started in its second pass.
        elif not (self._proven or self._zone_doubted or hour.previous().repeated):
            self._check_zone(hour, legs)
        passes = iso_spans(hour.passes)
        inside = sum(s <= leg.callend < e for s, e in passes for leg in legs)
        if strays := len(legs) - inside:
            what = number(strays, "leg")
            self._logger.warning("%s: %s came that ended in another hour", hour, what)
        return legs

    def _converter(self, prop: Mapping[str, Any]) -> Callable[[str], Any]:
        """What turns a field's string into the schema's value, or raises ValueError."""
        if "integer" in prop["type"]:
            return partial(_whole_number, minimum=prop["minimum"], maximum=prop["maximum"])
        if "format" in prop:
            return self._read_date
        return partial(_bounded, max_length=prop["maxLength"]) if "maxLength" in prop else str

    def _show(self, value: object) -> str:
        """A value for an error, as it came, with a space behind it; nothing for a missing one."""
        if value is None or value == "":
            return ""
        try:
            # Of a long string, what is shown, and one more to tell that there is more.
            text = repr(value[: MAX_EXCERPT + 1]) if isinstance(value, str) else json.dumps(value)
        except RecursionError:
            text = "the value"
        return f"{safe_excerpt(text, self._key)} "

    def _read_date(self, text: str) -> str:
        reading = parse_date(text, self._zone)
        self._ambiguous |= reading.ambiguous
        self._proven &= reading.proven
        if reading.legacy_name and not self._legacy_name:
            self._legacy_name = reading.legacy_name
            self._logger.warning(
                "The PBX names its time zone %s, as a JVM older than 2014 does in summer and "
                "winter alike: its wall-clock time is taken as it stands",
                reading.legacy_name,
            )
        return reading.iso

    def _is_news(self, key: tuple[str, int], leg: tuple[Any, ...]) -> bool:
        """Whether this leg has not come before, or has changed since, as far as is remembered.

        Two dictionaries take turns, so that a leg that keeps coming stays known and memory is
        bounded.
        """
        recent = self._recent
        last = recent.get(key) or self._older.get(key)
        recent[key] = leg
        if len(recent) > REMEMBERED:
            self._older, self._recent = recent, {}
        return leg != last

    def _check_passes(self, hour: Hour, legs: Iterable[Any]) -> None:
        """Warn if a repeated hour's passes look the same, or one of them is missing.

        What the server does on such a day is not known: it may return one pass only.
        """
        if self._ambiguous:
            self._logger.warning(
                "%s: this hour came twice, and the PBX's dates do not say which pass they are of: "
                "the first is assumed",
                hour,
            )
            return
        passes = {
            local.fold
            for leg in legs
            for local in [datetime.fromisoformat(leg.callend).astimezone(self._zone)]
            if len(instants(local.replace(tzinfo=None, fold=0), self._zone)) > 1
        }
        if len(passes) == 1:
            self._logger.warning(
                "%s: this hour came twice, and all its legs are of the %s pass: the PBX may not "
                "be able to return those of the other",
                *(hour, "second" if passes.pop() else "first"),
            )

    def _check_zone(self, hour: Hour, legs: Iterable[Any]) -> None:
        """Warn if no call's legs start when it was created, but several as long before or after.

        Dates of older servers do not name their zone: nothing else tells that `timezone` is wrong.
        """
        calls: dict[int, set[str]] = {}
        for leg in legs:
            if leg.Start and (match := _ASTERISK_ID.fullmatch(leg.UniqueId or "")):
                lag = datetime.fromisoformat(leg.Start).timestamp() - int(match[1])
                if abs(lag) < MIN_ZONE_DIFFERENCE:
                    return
                quarters = round(lag / _QUARTER)
                # A first leg starts with its call; a later one, whenever.
                if abs(lag - quarters * _QUARTER) < MAX_START_LAG:
                    calls.setdefault(quarters, set()).add(leg.UniqueId)
        quarters = max(calls, key=lambda quarters: len(calls[quarters]), default=0)
        if len(calls.get(quarters, ())) < ENOUGH_CALLS or abs(quarters) > MAX_QUARTERS:
            return
        self._zone_doubted = True
        self._logger.warning(
            "%s: legs start %s %s their calls were created, as their UniqueIds say: check "
            "`timezone`",
            *(hour, in_words(abs(quarters) * _QUARTER), "before" if quarters < 0 else "after"),
        )


def iso_spans(spans: Iterable[Span]) -> list[tuple[str, str]]:
    """Spans of time as ISO 8601, to compare with a leg's dates."""
    return [(start.isoformat(), end.isoformat()) for start, end in spans]


def _field_reader(convert: Callable[[str], Any], required: bool) -> Callable[[Any], Any]:  # noqa: FBT001 - of two
    """What reads a field of any JSON value: it returns the schema's, or raises ValueError."""
    # A string may be empty; an empty number or date is a missing one.
    empty = "" if convert is str and not required else None

    def read(value: object) -> object:
        if type(value) is str and value:
            return convert(value)
        if value is None or value == "":
            if required:
                raise ValueError("is missing")
            return value if value is None else empty
        if type(value) is int:
            return convert(str(value))  # ids may come as numbers
        raise ValueError("is not a string")

    return read


def _whole_number(text: str, minimum: int, maximum: int) -> int:
    value = _SMALL.get(text)  # most of them, and quicker than a pattern
    if value is None:
        if not _WHOLE_NUMBER.fullmatch(text):
            raise ValueError("is not a whole number")
        value = int(text)
    if not minimum <= value <= maximum:
        raise ValueError(f"is not from {minimum} to {maximum}")
    return value


def _bounded(text: str, max_length: int) -> str:
    if len(text) > max_length:
        raise ValueError(f"is longer than {max_length} characters")
    return text
