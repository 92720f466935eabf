"""Warnings about an hour's response."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from conftest import run_tap

from tap_noojee.checks import check_hour
from tap_noojee.decoding import Decoded
from tap_noojee.legs import LegReader, RawLeg
from tap_noojee.simulator import Failure, Simulator

if TYPE_CHECKING:
    from tap_noojee.checks import Finding

ZONE = ZoneInfo("Australia/Melbourne")
KEY = "the-key-01"
NOON = "2021-09-14T15:00"
AUTUMN = "2021-04-04T02:00"
"""An hour that clocks repeat in Melbourne."""


def check(
    hour: str, *legs: dict[str, Any], zone: ZoneInfo = ZONE, **response: Any
) -> list[Finding]:
    """The findings about an hour of legs."""
    raw = [
        RawLeg(
            **dict.fromkeys(RawLeg.__struct_fields__)
            | {"callend": "2021-09-14 15:59:59", "CallRecordId": str(number), "Leg": "1"}
            | leg
        )
        for number, leg in enumerate(legs)
    ]
    start = datetime.fromisoformat(hour)
    read = LegReader(zone, KEY).read(start, raw)
    return [*check_hour(start, Decoded(raw, **response), read, zone, KEY)]


def text(findings: list[Finding]) -> str:
    """The text of the only finding."""
    (finding,) = findings
    return finding.text


def test_an_ordinary_hour_has_no_findings() -> None:
    assert check(NOON) == []
    leg = {"callend": "Tue Sep 14 15:03:34 AEST 2021", "UniqueId": "1631595787.5"}
    assert check(NOON, leg, leg | {"Leg": "2"}) == []


def test_peculiarities_of_a_response_are_named() -> None:
    assert check(NOON, no_content=True)[0].key == "204"
    assert "koi8-r" in text(check(NOON, charset="koi8-r"))
    assert "Tag, Username" in text(check(NOON, replaced={"Username", "Tag"}))
    agent, queue = check(NOON, unknown={"Queue", "Agent"})
    assert ("'Agent'" in agent.text, "'Queue'" in queue.text) == (True, True)
    did, tag = check(NOON, missing={"Tag", "DID"})
    assert ("DID" in did.text, "Tag" in tag.text) == (True, True)
    assert len({agent.key, queue.key, did.key, tag.key}) == 4
    assert check(NOON, replaced={"Tag"})[0].key == ""


def test_findings_with_a_key_are_logged_once_a_run(caplog: pytest.LogCaptureFixture) -> None:
    leg = '{"callend": "Tue Sep 14 15:03:34 AEST 2021", "CallRecordId": "1", "Leg": "1", %s}'
    bodies = [
        leg % '"Agent": 1',
        leg % '"Agent": 1, "Queue": 2, "Tag": "\\u0000"',
        leg % '"Agent": 1, "Tag": "\\u0000"',
    ]
    failures = [Failure("body", body=f"[{body}]".encode()) for body in bodies]
    with Simulator(failures=failures) as pbx:
        run = run_tap(pbx, max_hours_per_run=3)
    assert run.error is None
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert sum("'Agent'" in line for line in warnings) == 1
    assert sum("'Queue'" in line for line in warnings) == 1
    assert sum("no leg has the field Username" in line for line in warnings) == 1
    assert sum("no leg has the field Tag" in line for line in warnings) == 1
    assert sum("U+FFFD" in line for line in warnings) == 2


def test_two_calls_with_one_key_are_a_warning() -> None:
    one = {"CallRecordId": "7", "UniqueId": "1.1"}
    assert check(NOON, one, one) == []
    assert check(NOON, one, one | {"Leg": "2", "UniqueId": "2.1"}) == []
    assert check(NOON, one, one | {"CallRecordId": "8", "UniqueId": "2.1"}) == []
    finding = text(check(NOON, one, one | {"UniqueId": "2.1"}, one | {"UniqueId": "3.1"}))
    assert finding.startswith("2021-09-14 15:00: ")
    assert "share 1 key " in finding
    assert "'7', 1" in finding
    leaky = one | {"CallRecordId": f"id-{KEY}"}
    assert KEY not in text(check(NOON, leaky, leaky | {"UniqueId": "2.1"}))
    two = [one | {"Leg": leg, "UniqueId": f"{n}.1"} for leg in "12" for n in "12"]
    assert "2 keys" in text(check(NOON, *two))


# --- Repeated hours ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "part"),
    [
        (["Sun Apr 04 02:30:00 AEDT 2021", "Sun Apr 04 02:30:00 AEST 2021"], None),
        (["Sun Apr 04 02:30:00 AEDT 2021"], "first pass"),
        (["Sun Apr 04 02:30:00 AEST 2021"], "second pass"),
        (["Sun Apr 04 02:30:00 GMT+11:00 2021"] * 2, "first pass"),
        (["2021-04-04 02:30:00.0"], "assumes the first"),
        (["Sun Apr 04 02:30:00 AEST 2021", "2021-04-04 02:30:00.0"], "assumes the first"),
        (["Sun Apr 04 03:30:00 AEST 2021"], None),
        ([], None),
    ],
)
def test_a_repeated_hour_with_legs_of_one_pass_is_a_warning(
    ends: list[str], part: str | None
) -> None:
    findings = check(AUTUMN, *({"callend": end} for end in ends))
    assert len(findings) == (part is not None)
    if part:
        assert part in findings[0].text
        assert findings[0].text.startswith("2021-04-04 02:00: ")


def test_only_the_repeated_half_of_an_hour_has_passes() -> None:
    lord_howe = ZoneInfo("Australia/Lord_Howe")  # clocks repeat 01:30 to 02:00
    early, late = ({"callend": f"Sun Apr 04 01:{m}:00 LHDT 2021"} for m in (15, 45))
    assert check("2021-04-04T01:00", early, zone=lord_howe) == []
    assert "first pass" in text(check("2021-04-04T01:00", early, late, zone=lord_howe))


# --- Doubts about the zone --------------------------------------------------------------------

CREATED = 1631595600
"""15:00 in Melbourne, in epoch seconds."""


def calls(*lags: float, name: str = "") -> list[dict[str, Any]]:
    """Calls that start so many minutes after the time in their UniqueId."""
    start = f"Tue Sep 14 15:00:00 {name} 2021" if name else "2021-09-14 15:00:00"
    return [
        {"Start": start, "callend": start, "UniqueId": f"{CREATED - int(lag * 60)}.{number}"}
        for number, lag in enumerate(lags)
    ]


@pytest.mark.parametrize(
    ("lags", "direction"),
    [
        ((0, 0, 0), None),
        ((20, 20, 20), None),
        ((20.1, 20.1, 20.1), "after"),
        ((-20, -20, -20), None),
        ((-20.1, -20.1, -20.1), "before"),
        ((-600, -600), None),
        ((600, 600, 600), "after"),
        ((120, 120, 120, 0, 0), "after"),
        ((120, 120, 0, 0, 0), None),
        ((120, 0, -120), None),
    ],
)
def test_calls_that_start_when_they_were_not_created_are_a_doubt(
    lags: tuple[float, ...], direction: str | None
) -> None:
    findings = check(NOON, *calls(*lags))
    assert len(findings) == (direction is not None)
    if direction:
        assert f" {direction} " in findings[0].text
        assert "`timezone`" in findings[0].text
        assert findings[0].key == "zone"


def test_only_first_legs_with_an_asterisk_id_count() -> None:
    good = calls(120, 120)
    third = good[0] | {"UniqueId": f"{CREATED - 7200}.9"}
    assert len(check(NOON, *good, third)) == 1
    for change in (
        {"Leg": "2"},
        {"Start": None},
        {"UniqueId": None},
        {"UniqueId": "pbx-1"},
        {"UniqueId": f"pbx-{CREATED}.9"},
        {"UniqueId": str(CREATED)},
    ):
        assert check(NOON, *good, third | change) == []


def test_dates_that_name_the_zone_leave_no_doubt() -> None:
    for name in ("AEST", "GMT+10:00"):
        assert check(NOON, *calls(120, 120, 120, name=name)) == []
    old_jvm, zone = check(NOON, *calls(120, 120, 120, name="EST"))
    assert "EST" in old_jvm.text
    assert old_jvm.key == "EST"
    assert zone.key == "zone"


def test_a_repeated_hour_is_no_reason_to_doubt_the_zone() -> None:
    legs = [leg | {"callend": "2021-04-04 02:30:00"} for leg in calls(120, 120, 120)]
    assert "assumes the first" in text(check(AUTUMN, *legs))
