"""Settings: what is refused, and in what words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import FakeClock, requested, run_tap, settings

from tap_noojee.errors import SettingsError
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from tap_noojee.simulator import Simulator


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("api_url", None, "is missing: Address of the PBX"),
        ("api_url", "", "is empty: Address of the PBX"),
        ("api_url", 5, "is not a string: Address of the PBX"),
        ("api_url", "http://pbx.example.com", "does not begin with https://"),
        ("api_url", "ftp://127.0.0.1", "does not begin with https://"),
        ("api_url", "https://", "is not a URL"),
        ("api_url", "https://:443/x", "is not a URL"),
        ("api_key", None, "is missing: The key from Noojee support"),
        ("api_key", "", "is empty: The key from Noojee support"),
        ("api_key", "key\n", "has white space around it"),
        ("api_key", 12345678, "is not a string: The key from Noojee support"),
        ("start_date", None, "is missing: Earliest end of a leg"),
        ("start_date", "", "is empty: Earliest end of a leg"),
        ("start_date", "14/09/2021", "'14/09/2021' is not a date or time such as 2021-09-14"),
        ("start_date", "2021-02-30", "'2021-02-30' is not a date or time"),
        ("start_date", "1066-10-14", "'1066-10-14' is not between 1971 and 8999"),
        ("end_date", "tomorrow", "'tomorrow' is not a date or time"),
        ("end_date", "2021-09-14", "'2021-09-14' is not after start_date"),
        ("end_date", "2021-09-13T14:00:00Z", "'2021-09-13T14:00:00Z' is not after start_date"),
        ("timezone", "Melbourne", "'Melbourne' is not a time zone: give an IANA name"),
        ("timezone", "Australia", "'Australia' is not a time zone"),
        ("timezone", "../etc/passwd", "'../etc/passwd' is not a time zone"),
        ("timezone", " ", "is empty: IANA name"),
        ("backfill_order", "random", "'random' is not one of oldest_first, newest_first"),
        ("request_interval", -1, "-1 is not a whole number from 0 to 1000000"),
        ("request_interval", "60", "'60' is not a whole number from 0 to 1000000"),
        ("request_interval", 1.5, "1.5 is not a whole number"),
        ("request_interval", True, "True is not a whole number"),
        ("settle_minutes", -1, "-1 is not a whole number from 0 to 1000000"),
        ("lookback_hours", "x", "'x' is not a whole number from 0 to 1000000"),
        ("max_hours_per_run", 0, "0 is not a whole number from 1 to 1000000"),
        ("request_timeout", 0, "0 is not a whole number from 1 to 1000000"),
        ("user_agent", "tap\r\nX: y", "is not printable ASCII"),
        ("user_agent", "  ", "is empty: The User-Agent header"),
        ("user_agent", " tap", "is not printable ASCII"),
    ],
)
def test_a_bad_setting_is_reported_before_any_request(
    pbx: Simulator, name: str, value: Any, reason: str
) -> None:
    """A bad setting ends the run before any request: its name, what is wrong, what is right."""
    run = run_tap(pbx, **{name: value})
    assert isinstance(run.error, SettingsError)
    (line,) = run.error.args
    assert line.startswith(f"{name}: {reason}") or (
        line.startswith(f"{name}: ") and reason in line
    )
    assert "\n" not in line
    assert requested(pbx) == []


def test_all_bad_settings_are_reported_at_once(pbx: Simulator) -> None:
    """Each bad setting has a line."""
    run = run_tap(pbx, api_key=None, timezone="Mars", settle_minutes=-5)
    assert run.error is not None
    assert [line.split(":")[0] for line in run.error.args] == [
        "api_key",
        "timezone",
        "settle_minutes",
    ]


@pytest.mark.parametrize("key", [None, "", 7])
def test_without_a_key_no_value_is_shown(pbx: Simulator, key: Any) -> None:
    """Where `api_key` has no key, any other setting may have it: its value is not repeated."""
    run = run_tap(pbx, api_key=key, start_date="5f0c7a52-1c1e", settle_minutes="5f0c7a52-1c1e")
    assert run.error is not None
    assert [line.partition(" ")[0] for line in run.error.args] == [
        "api_key:",
        "start_date:",
        "settle_minutes:",
    ]
    assert "5f0c" not in str(run.error)
    assert "start_date: the value is not a date" in run.error.args[1]


def test_lookback_must_leave_room_for_news(pbx: Simulator) -> None:
    """max_hours_per_run must be more than lookback_hours, or no run would get any further."""
    run = run_tap(pbx, lookback_hours=5, max_hours_per_run=5)
    assert str(run.error) == (
        "max_hours_per_run: 5 is not more than lookback_hours: no run would get ahead"
    )


@pytest.mark.parametrize(
    "name",
    [
        "request_interval",
        "settle_minutes",
        "lookback_hours",
        "max_hours_per_run",
        "request_timeout",
    ],
)
def test_a_number_may_be_a_million_and_no_more(pbx: Simulator, name: str) -> None:
    """1,000,000 is the largest number that any setting takes."""
    assert TapNoojee(config=settings(pbx, **{name: 1_000_000})).config[name] == 1_000_000
    with pytest.raises(SettingsError, match=f"{name}: 1000001 is not a whole number from"):
        TapNoojee(config=settings(pbx, **{name: 1_000_001}))


def test_null_settings_are_as_if_missing(pbx: Simulator) -> None:
    """A setting that is null has its default."""
    config = settings(pbx) | {"end_date": None, "timezone": None, "settle_minutes": None}
    tap = TapNoojee(config=config)
    assert tap.config["timezone"] == "Australia/Melbourne"
    assert tap.config["settle_minutes"] == 5
    assert tap.config.get("end_date") is None


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("2021-09-14", ("2021-09-14", 0)),
        ("2021-09-14T15:30:00", ("2021-09-14", 15)),
        ("2021-09-14T05:30:00Z", ("2021-09-14", 15)),
        ("2021-09-14T05:30:00+00:00", ("2021-09-14", 15)),
        ("2021-09-14T00:00:00-04:00", ("2021-09-14", 14)),
        # As Meltano writes a relative date.
        ("2021-09-14T05:30:00.123456", ("2021-09-14", 15)),
        ("2021-09-14T15:30:00.000", ("2021-09-14", 15)),
    ],
)
def test_a_time_without_an_offset_is_the_zones(
    pbx: Simulator, start: str, first: tuple[str, int]
) -> None:
    """start_date without an offset is in `timezone`, but with microseconds in UTC."""
    run_tap(pbx, start_date=start, clock=FakeClock("2021-09-14T23:00:00+00:00"))
    assert requested(pbx)[0] == first
