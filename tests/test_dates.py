"""The PBX's date formats, and what is not a date."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from times import JDK_11_TO_21, at, reading

from tap_noojee.dates import parse_date, parse_instant
from tap_noojee.errors import DateError

MELBOURNE = ZoneInfo("Australia/Melbourne")


# Java's names

JANUARY = [(zone, offset, name) for zone, offset, name, _, _ in JDK_11_TO_21]
JULY = [(zone, offset, name) for zone, _, _, offset, name in JDK_11_TO_21]


@pytest.mark.parametrize(("zone", "offset", "name"), JANUARY)
def test_java_names_of_january_are_understood(zone: str, offset: str, name: str) -> None:
    """The name that Java prints for a zone in January places the time."""
    found = parse_date(f"Sat Jan 15 12:34:56 {name} 2022", ZoneInfo(zone))
    assert found == reading(at(f"2022-01-15T12:34:56{offset}"))


@pytest.mark.parametrize(("zone", "offset", "name"), JULY)
def test_java_names_of_july_are_understood(zone: str, offset: str, name: str) -> None:
    """The name that Java prints for a zone in July places the time."""
    found = parse_date(f"Fri Jul 15 12:34:56 {name} 2022", ZoneInfo(zone))
    assert found == reading(at(f"2022-07-15T12:34:56{offset}"))


@pytest.mark.parametrize("name", ["GMT{}", "UTC{}", "{}"])
@pytest.mark.parametrize(("zone", "offset"), [(zone, offset) for zone, offset, _ in JANUARY])
def test_offsets_stand_for_names(zone: str, offset: str, name: str) -> None:
    """An offset in place of a name, as JDK 25 prints it, is understood for any zone."""
    found = parse_date(f"Sat Jan 15 12:34:56 {name.format(offset)} 2022", ZoneInfo(zone))
    assert found == reading(at(f"2022-01-15T12:34:56{offset}"))


@pytest.mark.parametrize(
    ("zone", "name", "offset"),
    [
        ("Australia/Melbourne", "+1000", "+10:00"),
        ("Australia/Melbourne", "GMT+10:00", "+10:00"),
        ("Australia/Adelaide", "+0930", "+09:30"),
        ("America/St_Johns", "GMT-02:30", "-02:30"),
        ("America/St_Johns", "-0230", "-02:30"),
        ("Australia/Eucla", "GMT+8:45", "+08:45"),
    ],
)
def test_offsets_are_understood_in_each_format(zone: str, name: str, offset: str) -> None:
    """Offsets come east or west, with and without GMT, a colon or a leading zero."""
    found = parse_date(f"Fri Jul 15 12:34:56 {name} 2022", ZoneInfo(zone))
    assert found == reading(at(f"2022-07-15T12:34:56{offset}"))


def test_half_an_hour_west_of_greenwich_counts_westward() -> None:
    """The minutes of an offset go the way that its sign says."""
    found = parse_date("Sat Jan 15 12:34:56 GMT-03:30 2022", ZoneInfo("America/St_Johns"))
    assert found == reading(at("2022-01-15T12:34:56-03:30"))


def test_the_sample_of_the_api_page_is_understood() -> None:
    """The vendor's own sample is read as the instant that it means."""
    found = parse_date("Tue Sep 14 15:03:34 AEST 2021", MELBOURNE)
    assert found == reading(datetime(2021, 9, 14, 5, 3, 34, tzinfo=UTC))


def test_instants_are_in_utc() -> None:
    """Whatever the format, the instant comes in UTC, as ISO 8601 with its offset."""
    formats = ["Tue Sep 14 15:03:34 AEST 2021", "2021-09-14 15:03:34.0"]
    for text in formats:
        assert parse_date(text, MELBOURNE).iso == "2021-09-14T05:03:34+00:00"
    assert parse_instant("2021-09-14T15:00:00+10:00", MELBOURNE).tzinfo is UTC


def test_a_sub_minute_offset_is_rejected() -> None:
    """A time at which the zone's offset had seconds is not one that a call can have."""
    with pytest.raises(DateError, match="sub-minute offset"):
        parse_date("1971-01-01 00:00:00.0", ZoneInfo("Africa/Monrovia"))


# The timestamps of older servers


def test_a_timestamp_is_the_time_of_the_zone() -> None:
    """A date without a zone is in the zone of the setting, in summer as in winter."""
    assert parse_date("2014-02-13 17:06:52.0", MELBOURNE) == reading(
        at("2014-02-13T17:06:52+11:00"), proven=False
    )
    assert parse_date("2014-07-13 17:06:52.0", MELBOURNE) == reading(
        at("2014-07-13T17:06:52+10:00"), proven=False
    )


@pytest.mark.parametrize(
    ("fraction", "microsecond"),
    [
        ("", 0),
        (".0", 0),
        (".5", 500_000),
        (".05", 50_000),
        (".123", 123_000),
        (".123456", 123_456),
        (".123456789", 123_456),
        (".999999999", 999_999),
    ],
)
def test_fractions_of_a_second_are_kept(fraction: str, microsecond: int) -> None:
    """A fraction counts from the left, and what is finer than a microsecond is dropped."""
    found = parse_date(f"2014-02-13 17:06:52{fraction}", MELBOURNE)
    assert datetime.fromisoformat(found.iso) == at("2014-02-13T17:06:52+11:00").replace(
        microsecond=microsecond
    )


# Repeated hours


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        ("Australia/Melbourne", "02:30:15 AEDT", "02:30:15+11:00"),
        ("Australia/Melbourne", "02:30:15 AEST", "02:30:15+10:00"),
        ("Australia/Melbourne", "02:30:15 GMT+11:00", "02:30:15+11:00"),
        ("Australia/Melbourne", "02:30:15 GMT+10:00", "02:30:15+10:00"),
        ("Australia/Melbourne", "02:30:15 +1000", "02:30:15+10:00"),
        ("Australia/Lord_Howe", "01:45:15 LHDT", "01:45:15+11:00"),
        ("Australia/Lord_Howe", "01:45:15 LHST", "01:45:15+10:30"),
        ("Pacific/Chatham", "02:50:15 CHADT", "02:50:15+13:45"),
        ("Pacific/Chatham", "02:50:15 CHAST", "02:50:15+12:45"),
    ],
)
def test_the_name_decides_the_pass_of_a_repeated_hour(zone: str, text: str, instant: str) -> None:
    """In a repeated hour the zone's name or offset picks the pass, beyond doubt."""
    found = parse_date(f"Sun Apr 04 {text} 2021", ZoneInfo(zone))
    assert found == reading(at(f"2021-04-04T{instant}"))


def test_a_timestamp_in_a_repeated_hour_is_the_first_pass_and_ambiguous() -> None:
    """Without a name the first pass is taken, and the reading says that it may be the second."""
    found = parse_date("2021-04-04 02:30:15.5", MELBOURNE)
    assert found == reading(at("2021-04-04T02:30:15.5+11:00"), ambiguous=True, proven=False)


# JVMs older than 2014


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        ("Australia/Melbourne", "Sat Jan 15 12:00:00 EST 2022", "2022-01-15T12:00+11:00"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 EST 2022", "2022-07-15T12:00+10:00"),
        ("Australia/Brisbane", "Sat Jan 15 12:00:00 EST 2022", "2022-01-15T12:00+10:00"),
        ("Australia/Adelaide", "Sat Jan 15 12:00:00 CST 2022", "2022-01-15T12:00+10:30"),
        ("Australia/Adelaide", "Fri Jul 15 12:00:00 CST 2022", "2022-07-15T12:00+09:30"),
        ("Australia/Darwin", "Fri Jul 15 12:00:00 CST 2022", "2022-07-15T12:00+09:30"),
    ],
)
def test_a_legacy_name_leaves_the_time_to_the_clock(zone: str, text: str, instant: str) -> None:
    """An old JVM's EST or CST is the zone's time of the season, and the reading has the name."""
    name = text.split()[4]
    assert parse_date(text, ZoneInfo(zone)) == reading(at(instant), legacy_name=name)


def test_a_legacy_name_in_a_repeated_hour_is_the_first_pass_and_ambiguous() -> None:
    """An old JVM's name is the same in both passes, so the first is taken, and is ambiguous."""
    found = parse_date("Sun Apr 04 02:30:15 EST 2021", MELBOURNE)
    assert found == reading(at("2021-04-04T02:30:15+11:00"), ambiguous=True, legacy_name="EST")


@pytest.mark.parametrize(
    ("zone", "name", "offset"),
    [
        ("America/New_York", "EST", "-05:00"),
        ("America/Chicago", "CST", "-06:00"),
        ("America/Havana", "CST", "-05:00"),
        ("Asia/Shanghai", "CST", "+08:00"),
    ],
)
def test_est_and_cst_of_other_zones_are_not_legacy_names(
    zone: str, name: str, offset: str
) -> None:
    """Where EST and CST are the zone's own names they say what they say."""
    found = parse_date(f"Sat Jan 15 12:00:00 {name} 2022", ZoneInfo(zone))
    assert found == reading(at(f"2022-01-15T12:00{offset}"))


# What is refused


@pytest.mark.parametrize(
    ("zone", "text", "name"),
    [
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 AWST 2022", "AWST"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 AEDT 2022", "AEDT"),
        ("Australia/Melbourne", "Sat Jan 15 12:00:00 AEST 2022", "AEST"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 UTC 2022", "UTC"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 GMT+08:00 2022", "GMT+08:00"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 GMT-10:00 2022", "GMT-10:00"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 +1100 2022", "+1100"),
        ("Australia/Melbourne", "Fri Jul 15 12:00:00 CST 2022", "CST"),
        ("Australia/Adelaide", "Fri Jul 15 12:00:00 EST 2022", "EST"),
        ("America/New_York", "Fri Jul 15 12:00:00 EST 2022", "EST"),
        ("Australia/Perth", "Sat Jan 15 12:00:00 AEDT 2022", "AEDT"),
        ("Australia/Lord_Howe", "Fri Jul 15 12:00:00 LHDT 2022", "LHDT"),
    ],
)
def test_a_name_of_another_offset_blames_the_setting(zone: str, text: str, name: str) -> None:
    """A name that stands for another offset than the zone has then is named, with the setting."""
    with pytest.raises(DateError) as error:
        parse_date(text, ZoneInfo(zone))
    assert f"name {name}," in str(error.value)
    assert zone in str(error.value)
    assert "`timezone`" in str(error.value)


@pytest.mark.parametrize("name", ["XYZ", "aest", "GMT10:00", "GMT+10:0", "AEST-10", "Z"])
def test_an_unknown_name_is_not_repeated(name: str) -> None:
    """A name that stands for nothing is not repeated, and the setting is not blamed."""
    with pytest.raises(DateError) as error:
        parse_date(f"Fri Jul 15 12:00:00 {name} 2022", MELBOURNE)
    assert str(error.value) == "has an unknown time zone name"


def test_a_weekday_that_contradicts_the_date_is_refused() -> None:
    """A date on another day of the week than it says is rejected, with the right day."""
    with pytest.raises(DateError, match="is not a date: that day is a Tue"):
        parse_date("Wed Sep 14 15:03:34 AEST 2021", MELBOURNE)


@pytest.mark.parametrize(
    "text",
    [
        "Sun Oct 03 02:30:00 AEST 2021",
        "Sun Oct 03 02:00:00 AEDT 2021",
        "Sun Oct 03 02:59:59 EST 2021",
        "2021-10-03 02:30:00.0",
    ],
)
def test_a_time_that_clocks_skip_blames_the_setting(text: str) -> None:
    """A time that the zone's clocks never show is rejected, with the setting."""
    with pytest.raises(DateError, match="clocks of Australia/Melbourne skip: set `timezone`"):
        parse_date(text, MELBOURNE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "1631595787",
        "2021-09-14",
        "2021-09-14T15:03:34",
        "2021-09-14 15:03:34.",
        "2021-09-14 15:03:34.1234567890",
        "2021-09-14 15:03:34+10:00",
        "2021-09-14 15:03",
        "2021-9-14 15:03:34.0",
        "2021-02-30 15:03:34.0",
        "2021-13-01 15:03:34.0",
        "2021-09-14 24:00:00.0",
        "2021-09-14 15:60:00.0",
        "2021-09-14 15:03:60.0",
        "2021-09-14 15:03:34.0 ",
        "2021-09-14 15:03:34.0\n",
        "\uff12021-09-14 15:03:34.0",
        "Tue Sep 14 15:03:34 2021",
        "Tue Sep 14 15:03:34 AEST",
        "Tue Sep 14 15:03:34 AEST 21",
        "Tue Sep 14 15:03 AEST 2021",
        "Tue Sep 14 24:00:00 AEST 2021",
        "Tue Sep 14 15:60:34 AEST 2021",
        "Tue Sep 14 15:03:60 AEST 2021",
        "Tue Sep 31 15:03:34 AEST 2021",
        "Tue Sep 00 15:03:34 AEST 2021",
        "Tue sep 14 15:03:34 AEST 2021",
        "tue Sep 14 15:03:34 AEST 2021",
        "Die Sep 14 15:03:34 AEST 2021",
        "Tue Sep  14 15:03:34 AEST 2021",
        " Tue Sep 14 15:03:34 AEST 2021",
        "Tue Sep 14 15:03:34 AEST 2021\n",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    """What is not wholly in one of the PBX's formats, or not on the calendar, is rejected."""
    with pytest.raises(DateError, match=r"^is not a date$"):
        parse_date(text, MELBOURNE)


@pytest.mark.parametrize("year", ["0001", "1900", "1969", "9001", "9999"])
def test_a_year_without_telephony_servers_is_refused(year: str) -> None:
    """Dates before 1970 or out of Python's reach are refused, however near its limits."""
    with pytest.raises(DateError, match=r"^is not a date that a call can have$"):
        parse_date(f"{year}-01-01 00:00:00.0", MELBOURNE)


# Dates of settings and states


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2021-09-14", "2021-09-14T00:00:00+10:00"),
        ("2021-01-14", "2021-01-14T00:00:00+11:00"),
        ("2021-09-14T15:00:00", "2021-09-14T15:00:00+10:00"),
        ("2021-09-14 15:00", "2021-09-14T15:00:00+10:00"),
        ("2021-09-14T15:00:00Z", "2021-09-14T15:00:00+00:00"),
        ("2021-09-14T15:00:00+00:00", "2021-09-14T15:00:00+00:00"),
        ("2021-09-14T15:00:00-03:30", "2021-09-14T15:00:00-03:30"),
        ("2021-09-14T15:00:00.250000+10:00", "2021-09-14T15:00:00.250000+10:00"),
        ("2021-04-04T02:30:00+10:00", "2021-04-04T02:30:00+10:00"),
    ],
)
def test_a_setting_is_in_the_zone_unless_it_says_otherwise(text: str, instant: str) -> None:
    """A date, or a time without an offset, is in the zone; an offset is followed."""
    assert parse_instant(text, MELBOURNE) == at(instant)


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        ("Australia/Melbourne", "2021-04-04T02:30", "2021-04-04T02:30+11:00"),
        ("Australia/Lord_Howe", "2021-04-04T01:45", "2021-04-04T01:45+11:00"),
        ("Pacific/Chatham", "2021-04-04T03:00", "2021-04-04T03:00+13:45"),
        ("America/Havana", "2021-11-07", "2021-11-07T00:00-04:00"),
    ],
)
def test_a_repeated_time_of_a_setting_is_the_first_pass(
    zone: str, text: str, instant: str
) -> None:
    """A time without an offset that clocks show twice is the first of the two."""
    assert parse_instant(text, ZoneInfo(zone)) == at(instant)


@pytest.mark.parametrize("text", ["", "yesterday", "14/09/2021", "2021-02-30", "2021-09-14T25:00"])
def test_a_setting_that_is_not_a_date_gets_an_example(text: str) -> None:
    """What is not an ISO 8601 date or time is rejected, with an example."""
    with pytest.raises(DateError, match="is not a date or time such as 2021-09-14"):
        parse_instant(text, MELBOURNE)


@pytest.mark.parametrize("text", ["0001-01-01", "1970-12-31", "9000-01-01", "9999-12-31T23:59Z"])
def test_a_setting_out_of_range_gets_the_range(text: str) -> None:
    """Years in which arithmetic with zones may fail are refused, with those that are right."""
    with pytest.raises(DateError, match="is not between 1971 and 8999"):
        parse_instant(text, MELBOURNE)


@pytest.mark.parametrize("text", ["1971-01-01", "8999-12-31T23:59:59"])
def test_a_setting_may_be_as_early_or_late_as_the_range(text: str) -> None:
    """The first and the last year of the range can be read."""
    assert parse_instant(text, ZoneInfo("UTC")) == at(
        f"{text}+00:00" if "T" in text else f"{text}T00Z"
    )
