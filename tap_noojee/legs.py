"""What the legs of an answer say: strings from the PBX into the values of the schema."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from tap_noojee.client import NoojeeError
from tap_noojee.dates import read_date
from tap_noojee.hours import instants

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from tap_noojee.hours import Hour

REMEMBERED = 25_000
"""Legs, at the least, that are known again when they come with another hour, too."""

_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


def leg_decoder(schema: dict[str, Any]) -> msgspec.json.Decoder[list[Any]]:
    """A decoder of answers into what LegReader reads: structs of strings, as the PBX sends them.

    It takes whole numbers, too; a struct needs half the memory of a dictionary.
    """
    fields = [(name, str | int | None, None) for name in schema["properties"]]
    leg = msgspec.defstruct("Leg", fields, gc=False)
    return msgspec.json.Decoder(list[leg])  # type: ignore[valid-type]


class LegReader:
    """Reads the legs of one answer after another, and remembers which came."""

    def __init__(
        self,
        schema: dict[str, Any],
        zone: ZoneInfo,
        quote: Callable[[str], str],
        logger: logging.Logger,
    ) -> None:
        """Take the stream's schema, and how to quote what the PBX sent."""
        self._fields = [(name, self._reader(kind)) for name, kind in schema["properties"].items()]
        self._required = frozenset(schema["required"])
        self._zone = zone
        self._quote = quote
        self._logger = logger
        self._old_name = ""
        self._vague = False
        self._recent: set[tuple[str, int]] = set()
        self._older: set[tuple[str, int]] = set()

    def read(self, hour: Hour, legs: list[Any]) -> list[Any]:
        """Turn an hour's legs, in place, into values of the schema, in order of their end.

        Dates become datetimes in UTC. Legs that came before are left out.

        Raises:
            NoojeeError: one of them cannot be read; names it.
        """
        self._vague = False
        for place, leg in enumerate(legs, 1):
            if problem := self._read_leg(leg):
                raise NoojeeError(f"{hour}: record {place}: {problem}")
        legs = sorted(filter(self._is_new, legs), key=lambda leg: leg.callend)
        if hour.repeated:
            self._check_passes(hour, legs)
        strays = sum(not hour.start <= leg.callend < hour.end for leg in legs)
        if strays:
            self._logger.warning("%s: %d legs came that ended in another hour", hour, strays)
        return legs

    def _read_leg(self, leg: Any) -> str:  # noqa: ANN401 - its fields are the schema's
        """Read a leg in place; say what is wrong with it, if anything."""
        for name, read in self._fields:
            value = getattr(leg, name)
            if (value is None or value == "") and name in self._required:
                return f"{name}: is missing"
            try:
                setattr(leg, name, read(value))
            except ValueError as error:
                return f"{name}: {self._quote(repr(value))} {error}"
        return ""

    def _reader(self, kind: Mapping[str, Any]) -> Callable[[Any], Any]:
        """How to read a field of this kind."""
        if "format" in kind:
            return self._instant
        return _number if "integer" in kind["type"] else _text

    def _instant(self, value: object) -> datetime | None:
        if not value:
            return None
        reading = read_date(str(value), self._zone)
        self._vague |= reading.vague
        if reading.old_name and not self._old_name:
            self._old_name = reading.old_name
            self._logger.warning(
                "The PBX names its time zone %s, as a JVM older than 2014 does in summer and "
                "winter alike: its wall-clock time is taken as it stands",
                reading.old_name,
            )
        return reading.instant

    def _is_new(self, leg: Any) -> bool:  # noqa: ANN401
        """Whether this leg has not come before, as far as is remembered.

        Two sets take turns, so that a leg that keeps coming stays known and memory is bounded.
        """
        key = (leg.CallRecordId, leg.Leg)
        known = key in self._recent or key in self._older
        self._recent.add(key)
        if len(self._recent) > REMEMBERED:
            self._older, self._recent = self._recent, set()
        return not known

    def _check_passes(self, hour: Hour, legs: Iterable[Any]) -> None:
        """Warn where a repeated hour's passes are not told apart, or one does not show.

        What the server does on such a day is not known: it may return one pass only.
        """
        if self._vague:
            self._logger.warning(
                "%s: this hour came twice, and the PBX's dates do not tell which time is meant: "
                "the first is taken",
                hour,
            )
            return
        passes = {
            local.fold
            for local in (leg.callend.astimezone(self._zone) for leg in legs)
            if len(instants(local.replace(tzinfo=None, fold=0), self._zone)) > 1
        }
        if len(passes) == 1:
            self._logger.warning(
                "%s: this hour came twice, and all its legs are of the %s time: the PBX may not "
                "be able to return those of the other",
                *(hour, "second" if passes.pop() else "first"),
            )


def _text(value: str | int | None) -> str | None:
    return str(value) if isinstance(value, int) else value


def _number(value: str | int | None) -> int | None:
    if value is None or value == "":
        return None
    if not _WHOLE_NUMBER.fullmatch(str(value)):
        raise ValueError("is not a whole number")
    return int(value)
