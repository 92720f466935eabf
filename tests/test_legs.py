"""The conversion of raw legs to records."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import RAW_LEG

from tap_noojee.errors import HourError, ZoneError
from tap_noojee.legs import REQUIRED, HourLegs, Leg, LegReader

WALL_HOUR = datetime(2021, 9, 14, 15)  # noqa: DTZ001 - a wall-clock hour
ZONE = ZoneInfo("Australia/Melbourne")
KEY = "5f0c7a52-1c1e"
LEG = RAW_LEG | {"Duration": "68", "Start": "Tue Sep 14 15:03:30 AEST 2021"}
BIG = 2**63


def read(*changes: dict[str, Any]) -> HourLegs:
    """Read an hour that has one copy of LEG for each set of changes."""
    legs = [Leg(**(LEG | change)) for change in changes]
    return LegReader(ZONE, KEY).read(WALL_HOUR, legs)


NUMBERS = {
    "68": 68, "3999": 3999, "4000": 4000, " 68 ": 68, "+68": 68, "-2": -2, "-0": 0, "68.0": 68,
    "6.8E1": 68, "680e-1": 68, "7".zfill(20): 7, f"{BIG - 1}.000": BIG - 1,
}  # fmt: skip

VALUES: list[tuple[str, Any, Any]] = [
    *(("Duration", text, number) for text, number in NUMBERS.items()),
    ("Duration", str(-BIG), -BIG),
    ("Duration", " ", None),
    ("Leg", "3.0", 3),
    ("Leg", str(BIG - 1), BIG - 1),
    ("Start", "2021-09-14 15:03:34.25", "2021-09-14T05:03:34.250000+00:00"),
    ("callend", "Tue Sep 14 15:03:34 GMT+10:00 2021", "2021-09-14T05:03:34+00:00"),
    *((name, None, None) for name in ("Duration", "Start", "Tag", "UniqueId")),
    *((name, "", None) for name in ("Duration", "Start")),
    *(("Tag", text, text) for text in ("", " a\nb ", "x" * 10_000)),
    ("CallRecordId", "x" * 255, "x" * 255),
]


def test_values_are_converted_to_the_types_of_the_schema() -> None:
    for field, value, expected in VALUES:
        result = read({field: value})
        assert getattr(result.legs[0], field) == expected, (field, value)
        assert result.warnings == []


NOT_WHOLE = ("abc", "1.5", "1e999", "1.", "1_0", "٣")
UNREADABLE: list[tuple[str, Any, str]] = [
    *(("Duration", text, f"'{text}' is not a whole number") for text in NOT_WHOLE),
    ("Duration", "9" * 5000, "is not a whole number"),
    ("Duration", "1e99", "is not between"),
    ("Duration", f"-{BIG + 1}.0", "is not between"),
    ("Duration", True, "is not a string"),
    ("Duration", float("nan"), "is not a string"),
    ("Username", ["a"], "is not a string"),
    ("Tag", Leg(**LEG), "is not a string"),  # a nested object
    ("Start", "yesterday", "'yesterday' is not a date"),
    ("Start", "1970-01-01 00:00:00.0", "is not a date"),
    ("Start", "Tue Sep 14 15:03:34 XYZT 2021", "unknown time zone"),
    *((name, value, "is missing") for name in REQUIRED for value in (None, "", " \n")),
    *((name, ["a"], "is not a string") for name in REQUIRED),
    ("CallRecordId", "x" * 256, "is longer than 255 characters"),
    ("Leg", "1.5", "'1.5' is not a whole number"),
    ("Leg", str(BIG), "is not between"),
    ("callend", "yesterday", "'yesterday' is not a date"),
    ("callend", "Tue Sep 14 15:03:34 XYZT 2021", "unknown time zone"),
]


def test_unreadable_value_becomes_null_or_fails_the_hour_if_required() -> None:
    for field, value, reason in UNREADABLE:
        if field in REQUIRED:
            with pytest.raises(HourError) as raised:
                read({}, {field: value})
            message = str(raised.value)
        else:
            result = read({}, {"Leg": "2", field: value})
            good, bad = result.legs
            assert getattr(good, field) is not None
            assert getattr(bad, field) is None
            (message,) = result.warnings
        assert message.startswith(f"2021-09-14 15:00: record 2: {field} ")
        assert reason in message
        assert len(message) < 400


def test_date_that_contradicts_timezone_raises_zone_error() -> None:
    for abbreviation in ("AWST", "GMT+11:00"):
        for field in ("callend", "Start"):
            with pytest.raises(ZoneError) as raised:
                read({field: f"Tue Sep 14 15:03:34 {abbreviation} 2021"})
            assert str(raised.value).startswith(f"2021-09-14 15:00: record 1: {field} ")
            assert "`timezone`" in str(raised.value)


def test_only_the_first_ten_unreadable_values_have_their_own_warnings() -> None:
    for count, more in ((10, []), (12, ["2021-09-14 15:00: 2 more values written as null"])):
        warnings = read(*({"Duration": f"x{number}"} for number in range(count))).warnings
        assert len(warnings) == 10 + len(more)
        assert "record 10" in warnings[9]
        assert warnings[10:] == more


def test_legs_are_sorted_by_end() -> None:
    ends = ["15:03:34.5", "15:03:34", "15:59:59", "15:03:34.25", "15:00:00"]
    legs = read(*({"callend": f"2021-09-14 {end}"} for end in ends)).legs
    found = [datetime.fromisoformat(leg.callend) for leg in legs]
    assert len(found) == 5
    assert found == sorted(found)


def test_hour_is_ambiguous_or_unconfirmed_if_any_date_is() -> None:
    java, plain = "Tue Sep 14 15:03:30 {} 2021", "2021-09-14 15:03:30"
    for dates, ambiguous, confirmed, abbreviation in [
        ((java.format("AEST"),), False, True, ""),
        ((java.format("GMT+10:00"),), False, True, ""),
        ((plain,), False, False, ""),
        ((java.format("AEST"), plain), False, False, ""),
        ((java.format("EST"),), False, False, "EST"),
        ((plain, "2021-04-04 02:30:00"), True, False, ""),
        (("Sun Apr 04 02:30:00 AEDT 2021",), False, True, ""),
    ]:
        result = read(*({"callend": date, "Start": ""} for date in dates))
        assert result.ambiguous is ambiguous
        assert result.zone_confirmed is confirmed
        assert result.ambiguous_abbreviation == abbreviation


def test_one_hour_does_not_affect_the_next() -> None:
    reader = LegReader(ZONE, KEY)
    bad = LEG | {"callend": "2021-04-04 02:30:00", "Duration": "x"}
    first = reader.read(WALL_HOUR, [Leg(**bad)])
    second = reader.read(WALL_HOUR, [Leg(**LEG)])
    assert (first.ambiguous, first.zone_confirmed, len(first.warnings)) == (True, False, 1)
    assert (second.ambiguous, second.zone_confirmed, second.warnings) == (False, True, [])
