"""Dates from the PBX, the settings and the state."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from times import CHANGES, at, clocks_around, wall_time

from tap_noojee.dates import ParsedDate, parse_date, parse_instant
from tap_noojee.errors import DateError, ZoneError
from tap_noojee.zone_names import OFFSETS

MELBOURNE = ZoneInfo("Australia/Melbourne")


def expected_date(
    instant: datetime | str,
    *,
    ambiguous: bool = False,
    abbreviation: str = "",
    confirmed: bool = True,
) -> ParsedDate:
    """Return the expected ParsedDate. An old JVM's abbreviation does not confirm the zone."""
    if isinstance(instant, str):
        instant = at(instant)
    iso = instant.astimezone(UTC).isoformat()
    return ParsedDate(iso, ambiguous, abbreviation, confirmed and not abbreviation)


# `java tests/jdk/PrintZoneNames.java` prints these lines: one date for each abbreviation and
# offset that JDK 17 uses from 2014 to 2026.
LINES = (Path(__file__).parent / "jdk" / "zone_names.tsv").read_text("utf-8").splitlines()
PRINTED = [line.split("\t") for line in LINES]

MISLEADING = {
    "AKST -0800", "AWST +1100", "BST +1000", "BST +1100", "CAT +0100", "CAT +0300",
    "CDT -0600", "CST -0700", "EDT -0500", "EET +0300", "EGST -0100", "EGT -0200",
    "EST -0400", "EST -0600", "GMT +0100", "GMT+04:00 +0300", "GMT+07:00 +0600",
    "GMT-03:00 -0400", "MDT -0700", "MSK +0200", "MST -0600", "MST -0800", "TRT +0200",
    "WAT +0200",
}  # fmt: skip
"""A JDK prints each abbreviation at this offset, but it means, or once meant, another offset
elsewhere. Accepting the pair would hide a wrong `timezone`."""


def abbreviation_and_offset(zone: str, instant: str, text: str) -> str:
    return f"{text.split()[4]} {at(instant).astimezone(ZoneInfo(zone)):%z}"


def test_dates_printed_by_a_jdk_are_read_unless_misleading() -> None:
    for key, instant, text in PRINTED:
        if abbreviation_and_offset(key, instant, text) in MISLEADING:
            with pytest.raises(ZoneError, match="contradicts"):
                parse_date(text, ZoneInfo(key))
        else:
            assert parse_date(text, ZoneInfo(key)) == expected_date(instant), (key, text)


def test_offsets_are_read_in_every_form() -> None:
    """JDK 25 prints offsets for many zones, and a JVM with CLDR names prints them for all."""
    for zone, forms, instant in (
        ("Australia/Eucla", "GMT+08:45 UTC+08:45 +08:45 +0845 GMT+8:45", "2022-07-15T03:49:56Z"),
        ("America/St_Johns", "GMT-02:30 UTC-02:30 -02:30 -0230 GMT-2:30", "2022-07-15T15:04:56Z"),
        ("Europe/Lisbon", "GMT+01:00 UTC+01:00 +01:00 +0100 GMT+1:00", "2022-07-15T11:34:56Z"),
    ):
        for name in forms.split():
            found = parse_date(f"Fri Jul 15 12:34:56 {name} 2022", ZoneInfo(zone))
            assert found == expected_date(instant), name


def test_every_accepted_abbreviation_and_offset_is_printed_by_a_jdk() -> None:
    midnight = datetime(2021, 1, 1, tzinfo=UTC)
    accepted = {
        f"{name} {midnight.replace(tzinfo=timezone(offset)):%z}"
        for name, offsets in OFFSETS.items()
        for offset in offsets
    }
    printed = {abbreviation_and_offset(*line) for line in PRINTED}
    # The exception is Perth's abbreviation in zone data older than 2014.
    assert accepted - printed == {"WST +0800"}


def test_abbreviation_with_another_offset_contradicts_timezone() -> None:
    # NPT is Kathmandu's own abbreviation.
    for name in sorted({text.split()[4] for _, _, text in PRINTED} - {"NPT"}):
        with pytest.raises(ZoneError, match=rf"{re.escape(name)}, .*Kathmandu.*`timezone`"):
            parse_date(f"Fri Jul 15 12:00:00 {name} 2022", ZoneInfo("Asia/Kathmandu"))
    cases = [
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 AEDT 2022"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 GMT-10:00 2022"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 GMT+10:01 2022"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 CST 2022"),
        ("Australia/Adelaide", "Fri Jul 15 12:00:00 EST 2022"),
    ]
    for key, text in cases:
        with pytest.raises(ZoneError, match=f"contradicts {key}: set `timezone`"):
            parse_date(text, ZoneInfo(key))


def test_unknown_abbreviation_is_not_quoted() -> None:
    """The text may be anything, even the API key."""
    for name in ("XYZ", "aest", "GMT10:00", "GMT+10:0", "GMT+100:00", "AEST-10", "Z"):
        with pytest.raises(DateError) as error:
            parse_date(f"Fri Jul 15 12:00:00 {name} 2022", MELBOURNE)
        assert "unknown" in str(error.value), name
        assert name not in str(error.value)


def test_dates_with_an_ambiguous_abbreviation_are_read_as_wall_clock_times() -> None:
    cases = [
        ("Australia/Melbourne", "Sat Jan 15 12:00:00 EST 2022", "2022-01-15T12:00+11:00"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 EST 2022", "2022-07-15T12:00+10:00"),
        ("Australia/Brisbane", "Sat Jan 15 12:00:00 EST 2022", "2022-01-15T12:00+10:00"),
        ("Australia/Adelaide", "Fri Jul 15 12:00:00 CST 2022", "2022-07-15T12:00+09:30"),
    ]
    for key, text, instant in cases:
        expected = expected_date(instant, abbreviation=text.split()[4])
        assert parse_date(text, ZoneInfo(key)) == expected, (key, text)
    # In the Americas, CST has other offsets.
    for key, offset in (("Chicago", "-06:00"), ("Havana", "-05:00")):
        found = parse_date("Sat Jan 15 12:00:00 CST 2022", ZoneInfo(f"America/{key}"))
        assert found == expected_date(f"2022-01-15T12:00{offset}"), key


FORMATS: dict[str, Callable[[datetime], str]] = {
    "JDK 25": lambda instant: f"{instant:%a %b %d %T} GMT{instant.isoformat()[-6:]} {instant:%Y}",
    "offset": lambda instant: f"{instant:%a %b %d %T %z %Y}",
    "timestamp": lambda instant: f"{instant:%Y-%m-%d %H:%M:%S}.0",
}


def test_every_format_is_read_correctly_around_clock_changes() -> None:
    """A date without an offset means the first pass, and is ambiguous if there are two."""
    for key, change in CHANGES:
        clocks = clocks_around(key, change)
        # Sample the three hours before the change and the three hours after it.
        for minute in clocks.instants[420:780:4]:
            instant = minute.replace(second=minute.minute)  # an arbitrary second
            passes = clocks.by_minute[wall_time(minute, clocks.zone)]
            first = passes[0].replace(second=minute.minute)
            for name, format_date in FORMATS.items():
                expected = expected_date(instant)
                if name == "timestamp":
                    expected = expected_date(first, ambiguous=len(passes) > 1, confirmed=False)
                text = format_date(instant.astimezone(clocks.zone))
                assert parse_date(text, clocks.zone) == expected


def test_abbreviation_selects_the_pass_of_a_repeated_hour() -> None:
    cases = [
        ("Australia/Melbourne", "02:30:15 AEDT", "02:30:15+11:00"),
        ("Australia/Melbourne", "02:30:15 AEST", "02:30:15+10:00"),
        ("Australia/Lord_Howe", "01:45:15 LHDT", "01:45:15+11:00"),
        ("Australia/Lord_Howe", "01:45:15 LHST", "01:45:15+10:30"),
        ("Pacific/Chatham", "02:50:15 CHADT", "02:50:15+13:45"),
        ("Pacific/Chatham", "02:50:15 CHAST", "02:50:15+12:45"),
    ]
    for key, text, instant in cases:
        found = parse_date(f"Sun Apr 04 {text} 2021", ZoneInfo(key))
        assert found == expected_date(f"2021-04-04T{instant}"), (key, text)
    # An old JVM prints the same abbreviation in both passes.
    expected = expected_date("2021-04-04T02:30:15+11:00", ambiguous=True, abbreviation="EST")
    assert parse_date("Sun Apr 04 02:30:15 EST 2021", MELBOURNE) == expected


def test_skipped_time_contradicts_timezone() -> None:
    printed = [f"Sun Oct 03 02:{text} 2021" for text in ("30:00 AEST", "00:00 AEDT", "59:59 EST")]
    for text in printed:
        with pytest.raises(ZoneError, match="Australia/Melbourne skip: set `timezone`"):
            parse_date(text, MELBOURNE)
    # Without an abbreviation, only this value is rejected.
    with pytest.raises(DateError, match="Australia/Melbourne skip"):
        parse_date("2021-10-03 02:30:00.0", MELBOURNE)


def test_fraction_is_kept_to_the_microsecond() -> None:
    for fraction, microseconds in (
        ("", 0), (".0", 0), (".5", 500_000), (".05", 50_000), (".123456", 123_456),
        (".123456789", 123_456), (".999999999", 999_999),
    ):  # fmt: skip
        found = parse_date(f"2014-02-13 17:06:52{fraction}", MELBOURNE)
        instant = at("2014-02-13T17:06:52+11:00").replace(microsecond=microseconds)
        assert found == expected_date(instant, confirmed=False), fraction


def test_other_formats_and_impossible_dates_are_rejected() -> None:
    texts = [
        "", "null", "1631595787", "2021-09-14", "2021-09-14T15:03:34", "0000-00-00 00:00:00",
        "2021-09-14 15:03:34.", "2021-09-14 15:03:34.1234567890", "2021-09-14 15:03:34+10:00",
        "2021-09-14 15:03", "2021-9-14 15:03:34.0", "2021-02-30 15:03:34.0",
        "2021-13-01 15:03:34.0", "2021-09-14 24:00:00.0", "2021-09-14 15:60:00.0",
        "2021-09-14 15:03:60.0", "2021-09-14 15:03: 4.0", "2021-09-14 15:03:34.0 ",
        "2021-09-14 15:03:34.0\n", "\uff12021-09-14 15:03:34.0", "Tue Sep 14 15:03:34 2021",
        "Tue Sep 14 15:03:34 AEST", "Tue Sep 14 15:03:34 AEST 21",
        "Tue Sep 14 15:03 AEST 2021", "Tue Sep 14 24:00:00 AEST 2021",
        "Tue Sep 14 15:60:34 AEST 2021", "Tue Sep 14 15:03:60 AEST 2021",
        "Tue Sep 31 15:03:34 AEST 2021", "Tue Sep 00 15:03:34 AEST 2021",
        "Tue sep 14 15:03:34 AEST 2021", "Die Sep 14 15:03:34 AEST 2021",
        "Tue Sep  14 15:03:34 AEST 2021", " Tue Sep 14 15:03:34 AEST 2021",
        "Tue Sep 14 15:03:34 AEST 2021\n",
    ]  # fmt: skip
    for text in texts:
        with pytest.raises(DateError, match=r"^is not a date$"):
            parse_date(text, MELBOURNE)
    with pytest.raises(DateError, match="its weekday is Tue"):
        parse_date("Wed Sep 14 15:03:34 AEST 2021", MELBOURNE)


def test_epoch_is_rejected_in_every_zone() -> None:
    """Servers print a missing date as the epoch."""
    epoch = datetime.fromtimestamp(0, UTC)
    for key in ("Australia/Melbourne", "Europe/London", "America/New_York"):
        for format_date in FORMATS.values():
            with pytest.raises(DateError, match="1971"):
                parse_date(format_date(epoch.astimezone(ZoneInfo(key))), ZoneInfo(key))


def test_years_before_1971_and_after_8999_are_rejected() -> None:
    for year in ("0001", "1969", "1970", "9000", "9999"):
        for parse in (parse_date, parse_instant):
            with pytest.raises(DateError, match="between 1971 and 8999"):
                parse(f"{year}-12-31 00:00:00", MELBOURNE)
    utc = ZoneInfo("UTC")
    for text in ("1971-01-01 00:00:00", "8999-12-31 23:59:59"):
        assert parse_date(text, utc) == expected_date(f"{text}+00:00", confirmed=False)
        assert parse_instant(text, utc) == at(f"{text}+00:00")
    # Liberia was 44 minutes and 30 seconds behind UTC until 1972.
    with pytest.raises(DateError, match="offset included seconds"):
        parse_date("1971-01-01 00:00:00.0", ZoneInfo("Africa/Monrovia"))


def test_date_setting_without_an_offset_is_interpreted_in_timezone() -> None:
    cases = [
        ("2021-09-14", "2021-09-14T00:00:00+10:00"),
        ("2021-09-14T15:00:00", "2021-09-14T15:00:00+10:00"),
        ("2021-09-14T15:00:00-03:30", "2021-09-14T15:00:00-03:30"),
        ("2021-04-04T02:30:00+10:00", "2021-04-04T02:30:00+10:00"),
        # In a repeated hour, the time means the first pass.
        ("2021-04-04T02:30", "2021-04-04T02:30+11:00"),
    ]
    for text, instant in cases:
        found = parse_instant(text, MELBOURNE)
        assert found == at(instant), text
        assert found.tzinfo is UTC
    for key, text, offset in (
        ("Australia/Lord_Howe", "2021-04-04T01:45", "+11:00"),
        ("Pacific/Chatham", "2021-04-04T03:00", "+13:45"),
        ("America/Havana", "2021-11-07T00:00", "-04:00"),
    ):
        assert parse_instant(text, ZoneInfo(key)) == at(f"{text}{offset}")


def test_error_for_an_invalid_date_setting_gives_an_example() -> None:
    texts = ["", "yesterday", "now", "15:00", "P1D", "14/09/2021", "2021-02-30", "2021-09-14T25"]
    for text in texts:
        with pytest.raises(DateError, match="such as 2021-09-14"):
            parse_instant(text, MELBOURNE)
