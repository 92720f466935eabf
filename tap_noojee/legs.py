"""What the legs of an answer say: strings from the PBX into the values of the schema."""

from __future__ import annotations

import re
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from tap_noojee.client import NoojeeError
from tap_noojee.dates import read_date_as_iso
from tap_noojee.hours import instants

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping
    from zoneinfo import ZoneInfo

    from tap_noojee.hours import Hour

REMEMBERED = 10_000
"""Legs, at the least, that are known again when they come with another hour, too."""

_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


class AnswerDecoder:
    """Decodes an array of legs into structs, a field for each of the schema's.

    Their values are strings, as the PBX sends them, or integers, or None. A struct takes half the
    memory of a dictionary.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Take the stream's schema."""
        fields = schema["properties"]
        self._texts = [name for name, kind in fields.items() if _is_text(kind)]
        number = str | int | None
        self._legs = list[  # type: ignore[misc]
            msgspec.defstruct(
                "Leg",
                [(name, str | None if name in self._texts else number, None) for name in fields],
                gc=False,
            )
        ]
        self._decoder = msgspec.json.Decoder(self._legs)

    def decode(self, answer: bytes) -> list[Any]:
        """Decode an answer.

        Raises:
            msgspec.ValidationError: it is JSON, but no array of such objects.
            msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no JSON.
        """
        try:
            legs: list[Any] = self._decoder.decode(answer)
        except msgspec.ValidationError as error:
            try:
                legs = msgspec.json.decode(answer)
            except msgspec.ValidationError:  # a number out of range; the first error says where
                raise error from None
        else:
            return legs
        # Ids that come as numbers are no reason to stop.
        for leg in legs:
            for name in self._texts:
                if isinstance(leg, dict) and type(leg.get(name)) is int:
                    leg[name] = str(leg[name])
        return list(msgspec.convert(legs, self._legs))


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
        fields: dict[str, Any] = schema["properties"]
        self._required: list[str] = schema["required"]
        self._numbers = [name for name, kind in fields.items() if "integer" in kind["type"]]
        self._dates = [name for name, kind in fields.items() if "format" in kind]
        self._zone = zone
        self._quote = quote
        self._logger = logger
        self._old_name = ""
        self._vague = False
        self._recent: set[str] = set()
        self._older: set[str] = set()

    def read(self, hour: Hour, legs: list[Any]) -> list[Any]:
        """Turn an hour's legs, in place, into values of the schema, in order of their end.

        Dates become ISO 8601 in UTC, which sort as text. Legs that came before are left out.

        Raises:
            NoojeeError: one of them cannot be read; names it.
        """
        self._vague = False
        for place, leg in enumerate(legs, 1):
            if problem := self._read_leg(leg):
                raise NoojeeError(f"{hour}: record {place}: {problem}")
        legs = sorted(filter(self._is_new, legs), key=attrgetter("callend"))
        if hour.repeated:
            self._check_passes(hour, legs)
        start, end = hour.start.isoformat(), hour.end.isoformat()
        strays = sum(not start <= leg.callend < end for leg in legs)
        if strays:
            self._logger.warning("%s: legs that ended in another hour came: %d", hour, strays)
        return legs

    def _read_leg(self, leg: Any) -> str:  # noqa: ANN401 - its fields are the schema's
        """Read a leg in place; say what is wrong with it, if anything."""
        for name in self._required:
            if getattr(leg, name) in _NOTHING:
                return f"{name}: is missing"
        for names, read in ((self._numbers, _number), (self._dates, self._instant)):
            for name in names:
                value = getattr(leg, name)
                try:
                    setattr(leg, name, None if value in _NOTHING else read(str(value)))
                except ValueError as error:
                    return f"{name}: {self._quote(repr(value))} {error}"
        return ""

    def _instant(self, text: str) -> str:
        instant, vague, old_name = read_date_as_iso(text, self._zone)
        self._vague |= vague
        if old_name and not self._old_name:
            self._old_name = old_name
            self._logger.warning(
                "The PBX names its time zone %s, as a JVM older than 2014 does in summer and "
                "winter alike: its wall-clock time is taken as it stands",
                old_name,
            )
        return instant

    def _is_new(self, leg: Any) -> bool:  # noqa: ANN401
        """Whether this leg has not come before, as far as is remembered.

        Two sets take turns, so that a leg that keeps coming stays known and memory is bounded.
        """
        key = f"{leg.CallRecordId} {leg.Leg}"
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
            for leg in legs
            for local in [datetime.fromisoformat(leg.callend).astimezone(self._zone)]
            if len(instants(local.replace(tzinfo=None, fold=0), self._zone)) > 1
        }
        if len(passes) == 1:
            self._logger.warning(
                "%s: this hour came twice, and all its legs are of the %s time: the PBX may not "
                "be able to return those of the other",
                *(hour, "second" if passes.pop() else "first"),
            )


_NOTHING = (None, "")


def _is_text(kind: Mapping[str, Any]) -> bool:
    return "format" not in kind and "integer" not in kind["type"]


def _number(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError("is not a whole number")
    return int(text)
