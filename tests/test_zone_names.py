"""The names of time zones, held against those that a JDK prints.

`jdk/zone_names.tsv` has one date for each name and each offset at which JDK 17 prints it from 2014
to 2026. It was made by `java tests/jdk/PrintZoneNames.java`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tap_noojee.dates import Reading, parse_date
from tap_noojee.errors import DateError
from tap_noojee.zone_names import OFFSETS

LINES = (Path(__file__).parent / "jdk" / "zone_names.tsv").read_text("utf-8").splitlines()
PRINTED = [line.split("\t") for line in LINES]

MISLEADING = {
    *("AKST -0800", "AWST +1100", "BST +1000", "BST +1100", "CAT +0100", "CAT +0300"),
    *("CDT -0600", "CST -0700", "EDT -0500", "EET +0300", "EGST -0100", "EGT -0200"),
    *("EST -0400", "EST -0600", "GMT +0100", "GMT+04:00 +0300", "GMT+07:00 +0600"),
    *("GMT-03:00 -0400", "MDT -0700", "MSK +0200", "MST -0600", "MST -0800", "TRT +0200"),
    "WAT +0200",
}
"""Names that stand for another offset elsewhere, or did at another time; most are the zone's
present name, printed for its past. To take them would hide a wrong `timezone`."""


def name_and_offset(zone: str, instant: str, text: str) -> str:
    """The name in a date, and the offset at which it is printed."""
    return f"{text.split()[4]} {datetime.fromisoformat(instant).astimezone(ZoneInfo(zone)):%z}"


@pytest.mark.parametrize(("zone", "instant", "text"), PRINTED)
def test_a_date_that_a_jdk_prints_is_read_as_its_instant(
    zone: str, instant: str, text: str
) -> None:
    """A name that a JDK prints is understood at the zone's offset, unless it is misleading."""
    if name_and_offset(zone, instant, text) in MISLEADING:
        with pytest.raises(DateError, match="which is not the time of"):
            parse_date(text, ZoneInfo(zone))
    else:
        expected = Reading(datetime.fromisoformat(instant).isoformat())
        assert parse_date(text, ZoneInfo(zone)) == expected


def test_no_name_has_an_offset_at_which_no_jdk_prints_it() -> None:
    """Each name of the table is printed at each of its offsets; Perth's WST, before 2014."""
    at_midnight = datetime(2021, 1, 1, tzinfo=UTC)
    understood = {
        f"{name} {at_midnight.replace(tzinfo=timezone(offset)):%z}"
        for name, offsets in OFFSETS.items()
        for offset in offsets
    }
    assert understood - {name_and_offset(*one) for one in PRINTED} == {"WST +0800"}


@pytest.mark.parametrize("name", sorted({text.split()[4] for _, _, text in PRINTED} - {"NPT"}))
def test_a_name_that_a_jdk_prints_elsewhere_blames_the_setting(name: str) -> None:
    """A name that a JDK prints is known in a zone of another offset, too: `timezone` is wrong."""
    with pytest.raises(DateError, match=r"which is not the time of .*: set `timezone`"):
        parse_date(f"Fri Jul 15 12:00:00 {name} 2022", ZoneInfo("Asia/Kathmandu"))
