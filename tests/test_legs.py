"""What a leg of an answer says, and what is odd about the legs of an hour."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from tap_noojee.hours import Hour
from tap_noojee.legs import LegReader

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[..., tuple[list[str], list[str]]]

SCHEMA = json.loads(Path(__file__).parent.parent.joinpath("schemas/recordings.json").read_text())
ZONE = ZoneInfo("Australia/Melbourne")


@pytest.fixture
def read(caplog: pytest.LogCaptureFixture) -> Read:
    """Reads an hour's legs, by their callend: what it becomes, and the warnings."""
    logger = logging.getLogger(__name__)
    reader = LegReader(SCHEMA, ZONE, "the-key", logger)
    ids = iter(range(1000))

    def read(hour: str, *ends: str) -> tuple[list[str], list[str]]:
        legs: list[Any] = [
            reader.leg_type(callend=end, CallRecordId=str(next(ids)), Leg="1") for end in ends
        ]
        caplog.clear()
        found = reader.read(Hour(datetime.fromisoformat(hour), ZONE), legs)
        return [leg.callend for leg in found], [r.getMessage() for r in caplog.records]

    return read


def test_a_leg_that_ends_as_the_hour_does_belongs_to_the_next(
    read: Read,
) -> None:
    """A leg that ends at an hour's start is that hour's; one at its end is kept, and warned of."""
    _, warnings = read("2021-09-14T15:00", "Tue Sep 14 15:00:00 AEST 2021")
    assert warnings == []
    ends, warnings = read(
        "2021-09-14T15:00", "Tue Sep 14 15:59:59 AEST 2021", "Tue Sep 14 16:00:00 AEST 2021"
    )
    assert ends == ["2021-09-14T05:59:59+00:00", "2021-09-14T06:00:00+00:00"]
    assert warnings == ["2021-09-14 15:00: 1 leg came that ended in another hour"]


AUTUMN_2021, AUTUMN_2022 = "2021-04-04T02:00", "2022-04-03T02:00"
"""Hours that came twice."""

AMBIGUOUS = (
    "2021-04-04 02:00: this hour came twice, and the PBX's dates do not say which pass they are "
    "of: the first is assumed"
)


def test_each_repeated_hour_is_judged_by_its_own_dates(
    read: Read,
) -> None:
    """Of several repeated hours in one run, each is warned of for what it is itself."""
    assert read(AUTUMN_2021, "2021-04-04 02:30:00.0")[1] == [AMBIGUOUS]
    both = ("Sun Apr 03 02:30:00 AEDT 2022", "Sun Apr 03 02:30:00 AEST 2022")
    assert read(AUTUMN_2022, *both) == (
        ["2022-04-02T15:30:00+00:00", "2022-04-02T16:30:00+00:00"],
        [],
    )


@pytest.mark.parametrize(("name", "which"), [("AEDT", "first"), ("AEST", "second")])
def test_a_repeated_hour_of_one_pass_is_not_called_ambiguous(
    read: Read, name: str, which: str
) -> None:
    """Dates that say which pass they are of, all the same one, bring one warning: of that pass."""
    read(AUTUMN_2021, "2021-04-04 02:30:00.0")
    _, warnings = read(AUTUMN_2022, f"Sun Apr 03 02:30:00 {name} 2022")
    assert len(warnings) == 1
    assert f"came twice, and all its legs are of the {which} pass" in warnings[0]


CREATED = 1631595600
"""2021-09-14 15:00 in Melbourne, in epoch seconds."""


def doubts(
    legs: list[tuple[int, str]], caplog: pytest.LogCaptureFixture, hour: str = "2021-09-14T15:00"
) -> int:
    """How often `timezone` is doubted in two hours of legs, by each start's minute and its id."""
    reader = LegReader(SCHEMA, ZONE, "the-key", logging.getLogger(__name__))
    for turn in "ab":
        came: list[Any] = [
            reader.leg_type(
                callend="2021-09-14 15:59:59",
                CallRecordId=f"{turn}{number}",
                Leg="1",
                Start=f"2021-09-14 15:{minute:02}:00" if minute >= 0 else "",
                UniqueId=unique_id,
            )
            for number, (minute, unique_id) in enumerate(legs)
        ]
        reader.read(Hour(datetime.fromisoformat(hour), ZONE), came)
    return sum("check `timezone`" in record.getMessage() for record in caplog.records)


def created(seconds: int, call: int = 0) -> tuple[int, str]:
    """A leg that starts so many seconds after its call was created."""
    return 0, f"{CREATED - seconds}.{call}"


def calls(minutes: int, count: int = 3) -> list[tuple[int, str]]:
    """Legs of so many calls, each of which starts so many minutes and 20 s after its creation."""
    return [created(60 * minutes + 20, call) for call in range(count)]


@pytest.mark.parametrize(
    ("legs", "warnings"),
    [
        (calls(-120), 1),
        (calls(120), 1),
        (calls(30), 1),
        (calls(-30), 1),
        (calls(-45), 1),
        (calls(15), 0),
        (calls(-15), 0),
        (calls(40), 0),
        (calls(14 * 60), 1),
        (calls(-14 * 60), 1),
        (calls(14 * 60 + 15), 0),
        (calls(-14 * 60 - 15), 0),
        (calls(-120, 2), 0),
        ([*calls(120), *calls(133), *calls(170, 5), *calls(90, 2)], 1),
        ([*calls(120, 2), *calls(90, 2)], 0),
        ([created(7200 + 119, call) for call in range(3)], 1),
        ([created(7200 + 120, call) for call in range(3)], 0),
        ([created(7200 - 119, call) for call in range(3)], 1),
        ([created(7200 - 120, call) for call in range(3)], 0),
        ([created(7200)] * 3, 0),
        ([*calls(-120), created(0)], 0),
        ([*calls(-120), created(25 * 60 - 1)], 0),
        ([*calls(-120), created(25 * 60)], 1),
        ([*calls(-120, 2), (-1, f"{CREATED + 7180}.5"), (0, ""), (0, "pbx-1")], 0),
        ([(0, f"asterisk-{CREATED + 7200}.{call}") for call in range(3)], 0),
        ([(0, str(CREATED + 7200 + call)) for call in range(3)], 0),
    ],
)
def test_a_wrong_zone_shows_where_no_leg_starts_as_its_call_is_created(
    legs: list[tuple[int, str]], warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Three calls whose legs start equally many quarters from their creation bring one warning.

    Not so if any leg starts nearer to it, or if it is further than zones are from each other.
    """
    assert doubts(legs, caplog) == warnings


@pytest.mark.parametrize(
    ("hour", "warnings"),
    [("2021-04-04T01:00", 1), (AUTUMN_2021, 0), ("2021-04-04T03:00", 0), ("2021-04-04T04:00", 1)],
)
def test_a_repeated_hour_says_nothing_of_the_zone(
    hour: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the pass of a start is not known, it may be an hour off in the right zone, too."""
    assert doubts(calls(-120), caplog, hour=hour) == warnings


def test_dates_that_name_the_zone_are_not_doubted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the PBX names the zone that is set, ids of calls are not held against it."""
    reader = LegReader(SCHEMA, ZONE, "the-key", logging.getLogger(__name__))
    for name, warnings in (("AEST", 0), ("GMT+10:00", 0), ("EST", 1)):
        legs: list[Any] = [
            reader.leg_type(
                callend=f"Tue Sep 14 15:59:59 {name} 2021",
                CallRecordId=f"{name}{number}",
                Leg="1",
                Start=f"Tue Sep 14 15:00:00 {name} 2021",
                UniqueId=f"{CREATED - 7200}.{number}",
            )
            for number in range(3)
        ]
        reader.read(Hour(datetime.fromisoformat("2021-09-14T15:00"), ZONE), legs)
        doubts = [r for r in caplog.records if "check `timezone`" in r.getMessage()]
        assert len(doubts) == warnings
