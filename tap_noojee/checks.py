"""Checks of an hour's response. They only warn, and never stop the run."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tap_noojee.decoding import DecodedBody
from tap_noojee.hours import format_hour, is_repeated, resolve
from tap_noojee.legs import HourLegs
from tap_noojee.redaction import safe_excerpt
from tap_noojee.text import humanize, pluralize

MAX_START_LAG = 20 * 60
"""Longest normal time from a call's creation to the start of its first leg, in seconds."""

MIN_CALLS = 3
"""Minimum number of calls in an hour for a warning about the time zone."""

_ASTERISK_ID = re.compile(r"([0-9]{9,10})\.[0-9]+")
"""Epoch seconds of the call's creation, a dot, a counter."""


class Finding(NamedTuple):
    """A warning. Each `topic` is logged once a run; a warning without one is always logged."""

    text: str
    topic: str = ""


def check_hour(
    hour: datetime, decoded: DecodedBody, hour_legs: HourLegs, zone: ZoneInfo, api_key: str
) -> Iterator[Finding]:
    """Yield the warnings about one hour. None quotes the API key."""
    yield from map(Finding, hour_legs.warnings)
    yield from _check_body(hour, decoded)
    yield from _check_primary_keys(hour, hour_legs, api_key)
    if name := hour_legs.ambiguous_abbreviation:
        yield Finding(
            f"The PBX prints the time zone {name}, which JVMs with time zone data older than "
            "2014 use all year; the tap ignores it and reads the wall-clock time in `timezone`",
            name,
        )
    if is_repeated(hour, zone):
        yield from _check_passes(hour, hour_legs, zone)
    elif not hour_legs.zone_confirmed:
        yield from _check_zone(hour, hour_legs)


def _check_body(hour: datetime, decoded: DecodedBody) -> Iterator[Finding]:
    if decoded.no_content:
        yield Finding(
            f"{format_hour(hour)}: the response is 204 No Content, which the vendor does not "
            "document; the tap treats it as an hour without calls",
            "204",
        )
    if decoded.charset:
        yield Finding(
            f"{format_hour(hour)}: the response is not UTF-8; the tap decodes it as "
            f"{decoded.charset}",
            "charset",
        )
    if decoded.replaced:
        fields = ", ".join(sorted(decoded.replaced))
        yield Finding(
            f"{format_hour(hour)}: {fields}: NUL characters or lone surrogates, which databases "
            "reject, were replaced with U+FFFD"
        )
    for field in sorted(decoded.unknown):
        yield Finding(
            f"The PBX sends a field {field!r} that is not in the schema; the tap drops it",
            f"unknown {field}",
        )
    for field in sorted(decoded.missing):
        yield Finding(
            f"{format_hour(hour)}: no leg has the field {field}; it is written as null",
            f"missing {field}",
        )


def _check_primary_keys(hour: datetime, hour_legs: HourLegs, api_key: str) -> Iterator[Finding]:
    unique_ids: dict[tuple[str, int], str] = {}
    shared = set()
    for leg in hour_legs.legs:
        key = leg.CallRecordId, leg.Leg
        if unique_ids.setdefault(key, leg.UniqueId) != leg.UniqueId:
            shared.add(key)
    if shared:
        example = safe_excerpt(str(min(shared)), api_key)
        yield Finding(
            f"{format_hour(hour)}: legs with different UniqueIds share "
            f"{pluralize(len(shared), 'key')} (CallRecordId, Leg), such as {example}: a target "
            "that upserts keeps one row per key. If the PBX was reinstalled, load its calls into "
            "another schema"
        )


def _check_passes(hour: datetime, hour_legs: HourLegs, zone: ZoneInfo) -> Iterator[Finding]:
    """Warn if a repeated hour's passes are indistinguishable, or one of them is missing.

    The vendor does not document how the server handles a repeated hour.
    """
    if hour_legs.ambiguous:
        yield Finding(
            f"{format_hour(hour)}: clocks repeat this hour, and some of the PBX's dates fit both "
            "passes; the tap assumes the first"
        )
        return
    passes = set()
    for leg in hour_legs.legs:
        local = datetime.fromisoformat(leg.callend).astimezone(zone)
        if len(resolve(local.replace(tzinfo=None, fold=0), zone)) > 1:
            passes.add(local.fold)
    if len(passes) == 1:
        name = "second" if passes.pop() else "first"
        yield Finding(
            f"{format_hour(hour)}: clocks repeat this hour, and all its legs are from the {name} "
            "pass: the PBX may be unable to return the other; check this hour in the PBX"
        )


def _check_zone(hour: datetime, hour_legs: HourLegs) -> Iterator[Finding]:
    """Warn if calls start long before or after the creation time in their UniqueId.

    Older servers print no time zone, so nothing else reveals a wrong `timezone`.
    """
    lags = [
        datetime.fromisoformat(leg.Start).timestamp() - int(match[1])
        for leg in hour_legs.legs
        if leg.Leg == 1 and leg.Start and (match := _ASTERISK_ID.fullmatch(leg.UniqueId or ""))
    ]
    if len(lags) < MIN_CALLS:
        return
    # Use the median, because a few calls may wait a long time for their first leg.
    lag = sorted(lags)[len(lags) // 2]
    if abs(lag) > MAX_START_LAG:
        direction = "before" if lag < 0 else "after"
        yield Finding(
            f"{format_hour(hour)}: calls start {humanize(abs(lag))} {direction} the time in their "
            "UniqueId: check `timezone`",
            "zone",
        )
