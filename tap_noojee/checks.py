"""Warnings about an hour's response: findings that are worth a look but no reason to stop."""

from __future__ import annotations

import re
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tap_noojee.hours import is_repeated, name_of, resolve
from tap_noojee.redaction import safe_excerpt
from tap_noojee.text import humanize, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

    from tap_noojee.decoding import Decoded
    from tap_noojee.legs import HourLegs

MAX_START_LAG = 20 * 60
"""Seconds between a call's creation and the start of its first leg that need no explanation."""

MIN_CALLS = 3
"""Number of calls before we doubt the time zone."""

_ASTERISK_ID = re.compile(r"([0-9]{9,10})\.[0-9]+")
"""It starts with the epoch seconds of the call's creation."""


class Finding(NamedTuple):
    """A warning. One with a `key` is worth logging once a run."""

    text: str
    key: str = ""


def check_hour(
    hour: datetime, response: Decoded, read: HourLegs, zone: ZoneInfo, key: str
) -> Iterator[Finding]:
    """The findings about one hour. `key` is the API key, not to be quoted."""
    yield from map(Finding, read.warnings)
    yield from _check_response(hour, response)
    yield from _check_keys(hour, read, key)
    if name := read.ambiguous_abbreviation:
        yield Finding(
            f"The PBX prints the time zone {name}, as a JVM older than 2014 does in summer and "
            "winter alike; the tap relies on the wall-clock time and `timezone`",
            name,
        )
    if is_repeated(hour, zone):
        yield from _check_passes(hour, read, zone)
    elif not read.zone_confirmed:
        yield from _check_zone(hour, read)


def _check_response(hour: datetime, response: Decoded) -> Iterator[Finding]:
    if response.no_content:
        yield Finding(
            f"{name_of(hour)}: the PBX answers 204 No Content, which its documentation does not "
            "mention; the tap takes it for an hour without calls",
            "204",
        )
    if response.charset:
        yield Finding(
            f"{name_of(hour)}: the response is not UTF-8; the tap reads it as {response.charset}",
            "charset",
        )
    if response.replaced:
        fields = ", ".join(sorted(response.replaced))
        yield Finding(
            f"{name_of(hour)}: {fields}: NUL characters or halves of surrogate pairs, which "
            "databases reject, are replaced by U+FFFD"
        )
    for field in sorted(response.unknown):
        yield Finding(
            f"The PBX sends a field {field!r}, which is not in the schema; it is dropped",
            f"unknown {field}",
        )
    for field in sorted(response.missing):
        yield Finding(
            f"{name_of(hour)}: no leg has the field {field}; it is written as null",
            f"missing {field}",
        )


def _check_keys(hour: datetime, read: HourLegs, api_key: str) -> Iterator[Finding]:
    calls: dict[tuple[str, int], str] = {}
    shared = set()
    for leg in read.legs:
        key = leg.CallRecordId, leg.Leg
        if calls.setdefault(key, leg.UniqueId) != leg.UniqueId:
            shared.add(key)
    if shared:
        example = safe_excerpt(str(min(shared)), api_key)
        yield Finding(
            f"{name_of(hour)}: {pluralize(len(shared), 'key')} (CallRecordId, Leg) with several "
            f"UniqueIds, such as {example}: a target that upserts keeps one row each. If the "
            "PBX was installed anew, load it into another schema"
        )


def _check_passes(hour: datetime, read: HourLegs, zone: ZoneInfo) -> Iterator[Finding]:
    """Warn if the passes of a repeated hour cannot be told apart, or one of them is missing.

    The vendor does not document the server's behaviour on such a day.
    """
    if read.ambiguous:
        yield Finding(
            f"{name_of(hour)}: clocks repeat this hour, and the PBX's dates do not name the pass; "
            "the tap assumes the first"
        )
        return
    passes = set()
    for leg in read.legs:
        local = datetime.fromisoformat(leg.callend).astimezone(zone)
        if len(resolve(local.replace(tzinfo=None, fold=0), zone)) > 1:
            passes.add(local.fold)
    if len(passes) == 1:
        name = "second" if passes.pop() else "first"
        yield Finding(
            f"{name_of(hour)}: clocks repeat this hour, and all its legs are of the {name} pass: "
            "the PBX may be unable to return the other; compare the hour with the PBX"
        )


def _check_zone(hour: datetime, read: HourLegs) -> Iterator[Finding]:
    """Warn if calls do not start when they were created, according to their ids.

    Dates of older servers do not name their zone, so nothing else reveals a wrong `timezone`.
    """
    lags = [
        datetime.fromisoformat(leg.Start).timestamp() - int(match[1])
        for leg in read.legs
        if leg.Leg == 1 and leg.Start and (match := _ASTERISK_ID.fullmatch(leg.UniqueId or ""))
    ]
    if len(lags) >= MIN_CALLS and abs(lag := median(lags)) > MAX_START_LAG:
        direction = "before" if lag < 0 else "after"
        yield Finding(
            f"{name_of(hour)}: calls start {humanize(abs(lag))} {direction} the time in their "
            "UniqueId: check `timezone`",
            "zone",
        )
