"""Warnings about an hour's response."""

import logging
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import run_tap

from tap_noojee.checks import Finding, check_hour
from tap_noojee.decoding import DecodedBody
from tap_noojee.legs import Leg, LegReader
from tap_noojee.simulator import Failure, Simulator

ZONE = ZoneInfo("Australia/Melbourne")
KEY = "the-key-01"
ORDINARY_HOUR, REPEATED_HOUR = "2021-09-14T15:00", "2021-04-04T02:00"


def check(
    hour: str, *legs: dict[str, Any], zone: ZoneInfo = ZONE, **response: Any
) -> list[Finding]:
    """Return the findings about an hour. The legs need only the fields that matter."""
    raw = [
        Leg(
            **dict.fromkeys(Leg.__struct_fields__)
            | {"callend": "2021-09-14 15:59:59", "CallRecordId": str(number), "Leg": "1"}
            | leg
        )
        for number, leg in enumerate(legs)
    ]
    start = datetime.fromisoformat(hour)
    read = LegReader(zone, KEY).read(start, raw)
    return [*check_hour(start, DecodedBody(raw, **response), read, zone, KEY)]


def text(findings: list[Finding]) -> str:
    """Return the text of the only finding."""
    (finding,) = findings
    return finding.text


def test_ordinary_hour_has_no_findings() -> None:
    assert check(ORDINARY_HOUR) == []
    leg = {"callend": "Tue Sep 14 15:03:34 AEST 2021", "UniqueId": "1631595787.5"}
    assert check(ORDINARY_HOUR, leg, leg | {"Leg": "2"}) == []


def test_findings_are_logged_once_per_run_or_for_each_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    template = (
        '[{"callend": "Tue Sep 14 15:03:34 AEST 2021", "CallRecordId": "1", "Leg": "1", %s}]'
    )
    nul = '"Tag": "\\u0000", "Username": "\\u0000"'
    bodies = [template % '"Agent": 1', template % f'"Agent": 1, "Team": 2, {nul}', template % nul]
    failures = [Failure("body", body=body.encode()) for body in bodies]
    latin = Failure("body", body=template.encode().replace(b"%s", b'"Tag": "\xeb"'))
    with Simulator(failures=[*failures, latin, latin, Failure("204", times=2)]) as pbx:
        run = run_tap(pbx, max_hours_per_run=7)
    assert run.error is None
    assert len(run.records) == 5
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    for part, count in {
        "'Agent'": 1,
        "'Team'": 1,
        "no leg has the field DID": 1,
        "no leg has the field Tag": 1,
        "Tag, Username: NUL": 2,
        "windows-1252": 1,
        "2021-09-14 05:00: the response is 204": 1,
        "204": 1,
    }.items():
        assert sum(part in line for line in warnings) == count, part


def test_calls_that_share_a_key_cause_a_warning() -> None:
    leg = {"CallRecordId": "7", "UniqueId": "1.1"}
    assert check(ORDINARY_HOUR, leg, leg) == []
    assert check(ORDINARY_HOUR, leg, leg | {"Leg": "2", "UniqueId": "2.1"}) == []
    assert check(ORDINARY_HOUR, leg, leg | {"CallRecordId": "8", "UniqueId": "2.1"}) == []
    finding = text(check(ORDINARY_HOUR, leg, leg | {"UniqueId": "2.1"}, leg | {"UniqueId": "3.1"}))
    assert finding.startswith("2021-09-14 15:00: ")
    assert "share 1 key " in finding
    assert "'7', 1" in finding
    with_api_key = leg | {"CallRecordId": f"id-{KEY}"}
    assert KEY not in text(check(ORDINARY_HOUR, with_api_key, with_api_key | {"UniqueId": "2.1"}))
    legs = [leg | {"Leg": number, "UniqueId": f"{call}.1"} for number in "12" for call in "12"]
    assert "2 keys" in text(check(ORDINARY_HOUR, *legs))


def test_repeated_hour_with_a_missing_or_unknown_pass_causes_a_warning() -> None:
    first, second = (f"Sun Apr 04 02:30:00 {name} 2021" for name in ("AEDT", "AEST"))
    plain = "2021-04-04 02:30:00.0"
    for ends, part in [
        ([first, second], None),
        ([first], "first pass"),
        ([second], "second pass"),
        (["Sun Apr 04 02:30:00 GMT+11:00 2021"] * 2, "first pass"),
        ([plain], "assumes the first"),
        ([second, plain], "assumes the first"),
        (["Sun Apr 04 03:30:00 AEST 2021"], None),
        ([], None),
    ]:
        findings = check(REPEATED_HOUR, *({"callend": end} for end in ends))
        assert len(findings) == (part is not None), ends
        if part:
            assert part in findings[0].text, ends
            assert findings[0].text.startswith("2021-04-04 02:00: "), ends


def test_only_the_repeated_part_of_an_hour_has_two_passes() -> None:
    lord_howe = ZoneInfo("Australia/Lord_Howe")  # clocks repeat 01:30 to 02:00
    early, late = ({"callend": f"Sun Apr 04 01:{m}:00 LHDT 2021"} for m in (15, 45))
    assert check("2021-04-04T01:00", early, zone=lord_howe) == []
    assert "first pass" in text(check("2021-04-04T01:00", early, late, zone=lord_howe))


START = 1631595600
"""15:00 on 2021-09-14 in Melbourne, in epoch seconds."""


def calls(*lags: float, abbreviation: str = "") -> list[dict[str, Any]]:
    """Return calls that start at START, each `lag` minutes after the time in its UniqueId."""
    start = f"Tue Sep 14 15:00:00 {abbreviation} 2021" if abbreviation else "2021-09-14 15:00:00"
    return [
        {"Start": start, "callend": start, "UniqueId": f"{START - int(lag * 60)}.{number}"}
        for number, lag in enumerate(lags)
    ]


def test_calls_that_start_far_from_their_creation_cause_a_zone_warning() -> None:
    for lags, direction in [
        ((0, 0, 0), None),
        ((20, 20, 20), None),
        ((20.1, 20.1, 20.1), "after"),
        ((-20, -20, -20), None),
        ((-20.1, -20.1, -20.1), "before"),
        ((-600, -600), None),  # too few calls
        ((600, 600, 600), "after"),
        ((120, 120, 120, 0, 0), "after"),
        ((120, 120, 0, 0, 0), None),  # the median is 0
        ((120, 0, -120), None),
    ]:
        findings = check(ORDINARY_HOUR, *calls(*lags))
        assert len(findings) == (direction is not None), lags
        if direction:
            assert f" {direction} " in findings[0].text, lags
            assert "`timezone`" in findings[0].text, lags
            assert findings[0].topic == "zone", lags


def test_zone_warning_uses_only_first_legs_with_an_asterisk_id() -> None:
    others = calls(120, 120)
    third = others[0] | {"UniqueId": f"{START - 7200}.9"}
    assert len(check(ORDINARY_HOUR, *others, third)) == 1
    for change in (
        {"Leg": "2"},
        {"Start": None},
        {"UniqueId": None},
        {"UniqueId": "pbx-1"},
        {"UniqueId": f"pbx-{START}.9"},
        {"UniqueId": f"{START - 7200}.9-pbx"},
        {"UniqueId": str(START)},
    ):
        assert check(ORDINARY_HOUR, *others, third | change) == [], change


def test_dates_that_confirm_the_zone_cause_no_zone_warning() -> None:
    for name in ("AEST", "GMT+10:00"):
        assert check(ORDINARY_HOUR, *calls(120, 120, 120, abbreviation=name)) == [], name
    old_jvm, wrong_zone = check(ORDINARY_HOUR, *calls(120, 120, 120, abbreviation="EST"))
    assert "EST" in old_jvm.text
    assert old_jvm.topic == "EST"
    assert wrong_zone.topic == "zone"


def test_repeated_hour_causes_no_zone_warning() -> None:
    legs = [leg | {"callend": "2021-04-04 02:30:00"} for leg in calls(120, 120, 120)]
    assert "assumes the first" in text(check(REPEATED_HOUR, *legs))
