"""Reading recordings hour by hour: which hours, which records, which STATE."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from conftest import FakeClock, Run, as_records, emitted, requested, run_tap, truth
from times import every, local
from typing_extensions import override

from tap_noojee import simulator
from tap_noojee.errors import NoojeeError
from tap_noojee.simulator import Failure, Simulator
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_noojee.simulator import Leg

DAY: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}


START = "2021-09-13T14:00:00+00:00"
"""2021-09-14 in Melbourne, where `run_tap` begins unless it is given a start_date."""


def state(value: str, since: str = START, owed: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """A STATE's value with this bookmark."""
    bookmark = {
        "replication_key": "callend",
        "replication_key_value": value,
        "since": since,
        "owed": [{"start": start, "end": end} for start, end in owed],
        "timezone": "Australia/Melbourne",
    }
    return {"bookmarks": {"recordings": bookmark}}


def state_of_release_0_1(value: str, **more: Any) -> dict[str, Any]:
    """A STATE's value as release 0.1 wrote it."""
    bookmark = {"replication_key": "callend", "replication_key_value": value, **more}
    return {"bookmarks": {"recordings": bookmark}}


def discovered(**changes: Any) -> dict[str, Any]:
    """The tap's own catalog, with changes to the stream's entry."""
    catalog = TapNoojee(config={}, validate_config=False).catalog_dict
    catalog["streams"][0] |= changes
    return catalog


def in_order(run: Run) -> bool:
    """Whether the records come in order of their end."""
    ends = [record["callend"] for record in run.records]
    return ends == sorted(ends)


def test_a_day_brings_every_leg_once(pbx: Simulator) -> None:
    """A day is 24 requests, and brings each leg that ended in it once, at its instants."""
    run = run_tap(pbx, **DAY)
    assert run.error is None
    assert emitted(run) == as_records(truth(pbx, "2021-09-14", "2021-09-15"))
    assert requested(pbx) == [("2021-09-14", hour) for hour in range(24)]


def test_the_documented_sample_comes_with_its_values(pbx: Simulator) -> None:
    """The vendor's sample comes as documented, numbers as numbers and dates in UTC."""
    run = run_tap(pbx, start_date="2021-09-14T15:00", end_date="2021-09-14T16:00")
    assert run.records[0] == {
        "callend": "2021-09-14T05:03:34+00:00",
        "CallRecordId": "6468",
        "DID": "7601",
        "Destination": "123",
        "Direction": "Inbound",
        "Duration": 4,
        "Leg": 1,
        "Source": "500",
        "Start": "2021-09-14T05:03:30+00:00",
        "Tag": "",
        "UniqueId": "1631595787.5",
        "Username": "NoojeeAdmin",
    }
    assert [record["CallRecordId"] for record in run.records] == ["6468", "6469", "6470", "6471"]


def test_names_beyond_ascii_come_as_they_are(pbx: Simulator) -> None:
    """Answers are read as UTF-8, whatever they say they are."""
    run = run_tap(pbx, **DAY)
    names = {record["Username"] for record in run.records}
    assert names <= {leg.username for leg in truth(pbx, "2021-09-14", "2021-09-15")}
    assert any(not name.isascii() for name in names)


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        ("Australia/Melbourne", "2021-04-03", 48),
        ("Australia/Melbourne", "2021-10-02", 47),
        ("Australia/Lord_Howe", "2021-04-03", 48),
        ("Australia/Lord_Howe", "2021-10-02", 48),
        ("Australia/Adelaide", "2021-04-03", 48),
        ("Australia/Adelaide", "2021-10-02", 47),
        ("Pacific/Chatham", "2021-04-03", 48),
        ("Pacific/Chatham", "2021-09-25", 48),
        ("Pacific/Auckland", "2021-04-03", 48),
        ("Pacific/Auckland", "2021-09-25", 47),
        ("Europe/London", "2021-10-30", 48),
        ("Europe/London", "2021-03-27", 47),
    ],
)
@pytest.mark.parametrize(("order", "dates"), [("oldest_first", "java"), ("newest_first", "gmt")])
def test_no_leg_is_lost_where_clocks_change(
    zone: str, start: str, hours: int, order: str, dates: Any
) -> None:
    """Over a change of clocks each hour that exists is requested once, each leg at its instant."""
    first = local(start, zone)
    end = (datetime.fromisoformat(start) + timedelta(days=2)).isoformat()
    legs = every(timedelta(minutes=15), first, local(end, zone))
    with Simulator(timezone=zone, legs=legs, dates=dates) as pbx:
        run = run_tap(pbx, start_date=start, end_date=end, backfill_order=order)
    assert run.error is None
    assert sorted(emitted(run)) == sorted(as_records(legs))
    assert len(requested(pbx)) == len(set(requested(pbx))) == hours
    if order == "oldest_first" and zone != "Pacific/Chatham":
        assert in_order(run)


def test_an_hour_that_ends_in_another_order_is_sorted() -> None:
    """Within an hour, records come in order of their end."""
    start = local("2021-09-14T15:00", "Australia/Melbourne")
    legs = every(timedelta(minutes=1), start, start + timedelta(hours=1))
    with Simulator(legs=legs[::-1]) as pbx:
        run = run_tap(pbx, start_date="2021-09-14T15:00", end_date="2021-09-14T16:00")
    assert len(run.records) == 60
    assert in_order(run)


def test_a_leg_that_comes_with_several_hours_is_emitted_once() -> None:
    """A leg is emitted once a run, whatever hours it came in."""
    zone = ZoneInfo("Australia/Melbourne")
    start = local("2021-09-14", zone.key)
    legs = every(timedelta(minutes=30), start, start + timedelta(hours=6))
    answer = json.dumps([leg.record(zone) for leg in legs] * 2).encode()
    with Simulator(failures=[Failure("body", body=answer, times=None)]) as pbx:
        run = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-14T12:00")
    assert sorted(emitted(run)) == sorted(as_records(legs))


def test_start_and_end_cut_legs_within_an_hour() -> None:
    """A leg comes if it ended at or after start_date and before end_date."""
    start = local("2021-09-14T15:00", "Australia/Melbourne")
    legs = every(timedelta(minutes=10), start, start + timedelta(hours=3))
    with Simulator(legs=legs) as pbx:
        run = run_tap(pbx, start_date="2021-09-14T15:20", end_date="2021-09-14T17:10")
        assert emitted(run) == as_records(legs[2:13])
        assert run.bookmarks[-1] == "2021-09-14T07:10:00+00:00"
        del pbx.requests[:]
        dates: dict[str, Any] = {
            "start_date": "2021-09-14T15:20",
            "end_date": "2021-09-14T17:10",
        }
        again = run_tap(pbx, **dates, state=run.states[-1])
        assert again.bookmarks == run.bookmarks[-1:]
        assert requested(pbx) == []
        dates["end_date"] = "2021-09-14T18:00"
        rest = run_tap(pbx, **dates, state=run.states[-1])
    assert emitted(rest) == as_records(legs[13:])


def test_a_leg_that_ends_on_the_hour_comes_once_in_two_runs() -> None:
    """A leg that ends on an hour's first instant is emitted by the run of that hour alone."""
    start = local("2021-09-14T15:00", "Australia/Melbourne")
    legs = every(timedelta(minutes=30), start, start + timedelta(hours=2))
    with Simulator(legs=legs) as pbx:
        first = run_tap(pbx, start_date="2021-09-14T15:00", end_date="2021-09-14T16:00")
        second = run_tap(
            pbx,
            start_date="2021-09-14T15:00",
            end_date="2021-09-14T17:00",
            state=first.states[-1],
        )
    assert first.keys + second.keys == [(str(k), 1) for k in range(4)]


def test_empty_hours_are_crossed_once() -> None:
    """60 empty hours are crossed in 60 requests, and two hours later there are two to ask for."""
    with Simulator(volume=0) as pbx:
        clock = FakeClock("2021-09-16T02:06:00+00:00")  # 12:06 in Melbourne
        first = run_tap(pbx, clock=clock)
        assert len(requested(pbx)) == len(first.states) == 60
        clock = FakeClock("2021-09-16T04:06:00+00:00")
        second = run_tap(pbx, clock=clock, state=first.states[-1])
        assert requested(pbx)[60:] == [("2021-09-16", 12), ("2021-09-16", 13)]
    assert first.error is second.error is None


@pytest.mark.parametrize(("minute", "last"), [(3, 14), (5, 15), (6, 15)])
def test_an_hour_is_due_when_it_has_settled(pbx: Simulator, minute: int, last: int) -> None:
    """An hour is requested from settle_minutes after its end."""
    clock = FakeClock(f"2021-09-14T06:{minute:02}:00+00:00")
    run_tap(pbx, start_date="2021-09-14T13:00", clock=clock)
    assert requested(pbx)[-1] == ("2021-09-14", last)


def test_a_repeated_hour_is_due_after_its_second_pass() -> None:
    """An hour that comes twice is requested when its second pass has settled."""
    with Simulator(volume=0) as pbx:
        # 02:00 to 03:00 came first from 15:00 to 16:00 UTC, and again until 17:00.
        run_tap(pbx, start_date="2021-04-04", clock=FakeClock("2021-04-03T17:04:00+00:00"))
        assert requested(pbx)[-1] == ("2021-04-04", 1)
        run_tap(pbx, start_date="2021-04-04", clock=FakeClock("2021-04-03T17:05:00+00:00"))
        assert requested(pbx)[-1] == ("2021-04-04", 2)


def test_hours_that_fall_due_during_a_run_are_read(pbx: Simulator) -> None:
    """A run ends when nothing is due any more, not with what was due when it began."""
    clock = FakeClock("2021-09-14T06:06:00+00:00")
    run_tap(pbx, clock=clock, request_interval=300)
    # 16 hours were due at the beginning; reading them takes more than an hour.
    assert requested(pbx)[-1] == ("2021-09-14", 16)


def test_nothing_due_is_a_success_without_requests(pbx: Simulator) -> None:
    """A run with nothing to read makes no request, and keeps its STATE."""
    now = "2021-09-14T06:06:00+00:00"
    bookmark = "2021-09-14T06:00:00+00:00"
    run = run_tap(pbx, clock=FakeClock(now), state=state(bookmark))
    assert run.error is None
    assert run.bookmarks == [bookmark]
    assert run_tap(pbx, clock=FakeClock("2021-09-13T00:00:00+00:00")).error is None
    assert requested(pbx) == []


def test_state_follows_every_hour(pbx: Simulator) -> None:
    """One STATE comes after every hour: its end, whether there were calls in it or not."""
    run = run_tap(pbx, **DAY)
    start = local("2021-09-14", pbx.timezone)
    assert run.bookmarks == [(start + timedelta(hours=hour)).isoformat() for hour in range(1, 25)]
    assert run.messages[-1]["type"] == "STATE"
    assert run.states[-1] == state("2021-09-14T14:00:00+00:00")


def test_no_state_claims_what_is_not_written(pbx: Simulator) -> None:
    """All legs that ended before a STATE's bookmark stand before that STATE."""
    run = run_tap(pbx, **DAY)
    seen = set()
    for message in run.messages:
        if message["type"] == "RECORD":
            seen.add((message["record"]["CallRecordId"], message["record"]["Leg"]))
        elif message["type"] == "STATE":
            value = message["value"]["bookmarks"]["recordings"]["replication_key_value"]
            ended = {
                (leg.call_record_id, leg.leg)
                for leg in truth(pbx, "2021-09-14", "2021-09-15")
                if leg.callend.isoformat() < value
            }
            assert ended == seen


@pytest.mark.parametrize(
    "value",
    [
        "2021-09-14T05:00:00+00:00",
        "2021-09-14T05:00:00Z",
        "2021-09-14T05:30:00.123456+00:00",
        "2021-09-14T15:59:59+10:00",
        "2021-09-14T05:15:00",
    ],
)
def test_any_instant_resumes_its_hour(pbx: Simulator, value: str) -> None:
    """Whatever instant of an hour STATE holds, the run resumes at the start of that hour."""
    for bookmark in (state(value), state_of_release_0_1(value)):
        del pbx.requests[:]
        run = run_tap(pbx, end_date="2021-09-15", state=bookmark)
        assert run.error is None
        assert requested(pbx)[0] == ("2021-09-14", 15)
        assert run.bookmarks == sorted(run.bookmarks)


@pytest.mark.parametrize(
    "bookmark",
    [
        {"replication_key_value": "yesterday"},
        {"replication_key_value": 1631595787},
        {"replication_key_value": "0001-01-01"},
        {"replication_key_value": "8998-01-01"},
        {"replication_key_value": "2021-09-14", "owed": [{"start": "2021-09-13"}]},
        {"replication_key_value": "2021-09-14", "owed": "all"},
        "2021-09-14",
    ],
)
def test_a_state_that_cannot_be_read_is_an_error(pbx: Simulator, bookmark: Any) -> None:
    """A STATE that cannot be read ends the run before any request, and says so."""
    run = run_tap(pbx, state={"bookmarks": {"recordings": bookmark}})
    assert isinstance(run.error, NoojeeError)
    assert str(run.error).startswith("state: ")
    assert requested(pbx) == []


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
@pytest.mark.parametrize(
    ("zone", "wrong", "dates"),
    [
        ("Australia/Perth", "Australia/Melbourne", "java"),
        ("Pacific/Auckland", "Australia/Melbourne", "java"),
        ("Australia/Melbourne", "UTC", "java"),
        ("Australia/Melbourne", "Asia/Kathmandu", "java"),
        ("Australia/Perth", "Australia/Melbourne", "timestamp"),
        ("Australia/Melbourne", "Australia/Adelaide", "timestamp"),
    ],
)
def test_what_was_read_by_a_wrong_clock_is_read_again(
    zone: str, wrong: str, dates: Any, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When `timezone` is put right, no leg is missing, and all have the right times."""
    now = datetime.fromisoformat("2021-09-14T02:10+00:00")

    def ended(start: datetime, end: datetime) -> list[Leg]:
        return simulator.legs(start, min(end, now), zone=ZoneInfo(zone), volume=0.3)

    found: dict[tuple[str, int], tuple[str, int, str, str]] = {}
    begin = local("2021-09-14", zone)
    with Simulator(timezone=zone, dates=dates, legs=ended, clock=lambda: now) as pbx:
        state: Any = None
        claimed = False
        # Run hourly with the wrong zone, until legs show that it is; then with the right one.
        for setting in [wrong] * 10 + [zone] * 2:
            run = run_tap(
                pbx,
                clock=FakeClock(now.isoformat()),
                start_date=begin.isoformat(),
                timezone=setting,
                backfill_order=order,
                state=state,
            )
            found |= {row[:2]: row for row in emitted(run)}
            claimed |= setting == wrong and bool(run.states)
            state = run.states[-1] if run.states else state
            now += timedelta(hours=1)
    assert run.error is None
    until = (now - timedelta(hours=1)).replace(minute=0)
    assert sorted(found.values()) == sorted(as_records(ended(begin, until)))
    changed = f"STATE was written with `timezone` {wrong}, not {zone}: "
    assert sum(warning.startswith(changed) for warning in _warnings(caplog)) == claimed


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [
        ("Australia/Melbourne", "Australia/Hobart", []),
        ("Australia/Melbourne", "Australia/Victoria", []),
        ("Australia/Brisbane", "Australia/Melbourne", range(3, 24)),
        ("Australia/Melbourne", "Australia/Brisbane", range(2, 23)),
    ],
)
def test_only_what_clocks_show_differently_is_read_again(
    before: str, after: str, again: Sequence[int], pbx: Simulator
) -> None:
    """Where two zones' clocks agree, a new `timezone` changes nothing of what has been read."""
    days: dict[str, Any] = {
        "start_date": "2021-10-02T00:00+10:00",
        "end_date": "2021-10-04T00:00+11:00",
    }
    first = run_tap(pbx, **days, timezone=before, clock=FakeClock("2021-10-20T00:00Z"))
    with Simulator(timezone=after) as other:
        second = run_tap(other, **days, timezone=after, state=first.states[-1])
        assert second.error is None
        assert requested(other) == [("2021-10-03", hour) for hour in again]
    bookmark = second.states[-1]["bookmarks"]["recordings"]
    assert bookmark["timezone"] == (after if again else before)
    assert bookmark["owed"] == []


def test_a_run_by_a_wrong_clock_that_reads_nothing_changes_nothing() -> None:
    """STATE claims what it did until an hour has been read by the clock of another `timezone`."""
    with Simulator(timezone="Australia/Perth") as pbx:
        first = run_tap(pbx, **DAY)
        del pbx.requests[:]
        days = DAY | {"end_date": "2021-09-15T20:00"}
        wrong = run_tap(
            pbx,
            **days | {"start_date": "2021-09-14T10:00+08:00"},
            timezone="Australia/Melbourne",
            state=first.states[-1],
        )
        assert "AWST" in str(wrong.error)
        assert wrong.states[-1:] in ([], first.states[-1:])
        del pbx.requests[:]
        run = run_tap(pbx, **days, state=wrong.states[-1] if wrong.states else first.states[-1])
        assert requested(pbx) == [("2021-09-15", hour) for hour in range(20)]
    assert run.error is None


@pytest.mark.parametrize("name", ["Mars/Olympus", "5f0c7a52", 600, ["UTC"], ""])
def test_a_state_of_no_zone_is_an_error(pbx: Simulator, name: Any) -> None:
    """A STATE whose zone is none cannot be read; its name is not repeated."""
    value = state("2021-09-14T05:00:00+00:00")
    value["bookmarks"]["recordings"]["timezone"] = name
    run = run_tap(pbx, state=value)
    assert isinstance(run.error, NoojeeError)
    assert str(run.error) == (
        "state: the bookmark of recordings cannot be read: `timezone` is not a time zone"
    )
    assert requested(pbx) == []


def test_other_streams_state_is_kept(pbx: Simulator) -> None:
    """Bookmarks of other streams are handed on."""
    other = {"bookmarks": {"other": {"replication_key_value": 1}}}
    run = run_tap(pbx, **DAY, state=other)
    assert run.states[-1]["bookmarks"]["other"] == {"replication_key_value": 1}


def test_lookback_reads_finished_hours_again(pbx: Simulator) -> None:
    """lookback_hours finished hours are read again, and the bookmark never goes back."""
    bookmark = "2021-09-14T05:00:00+00:00"  # 15:00
    run = run_tap(pbx, end_date="2021-09-14T17:00", lookback_hours=3, state=state(bookmark))
    assert [hour for _, hour in requested(pbx)] == [12, 13, 14, 15, 16]
    assert run.bookmarks == [bookmark] * 4 + [
        "2021-09-14T06:00:00+00:00",
        "2021-09-14T07:00:00+00:00",
    ]
    assert emitted(run) == as_records(truth(pbx, "2021-09-14T12:00", "2021-09-14T17:00"))


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_state_follows_an_hour_that_changes_nothing(pbx: Simulator, order: str) -> None:
    """Each hour's STATE is written behind its records, also where it equals the last one."""
    first = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-14T18:00")
    del pbx.requests[:]
    second = run_tap(
        pbx,
        start_date="2021-09-14",
        end_date="2021-09-14T20:00",
        state=first.states[-1],
        lookback_hours=4,
        backfill_order=order,
    )
    hours = range(14, 20) if order == "oldest_first" else range(19, 13, -1)
    assert requested(pbx) == [("2021-09-14", hour) for hour in hours]
    assert len(set(map(str, second.states))) == 3
    legs_before_state = []
    legs = 0
    for message in second.messages[1:]:
        if message["type"] == "RECORD":
            legs += 1
        else:
            legs_before_state.append(legs)
    legs_of_hours = [truth(pbx, f"2021-09-14T{h}:00", f"2021-09-14T{h + 1}:00") for h in hours]
    # The SDK writes one at the beginning.
    assert legs_before_state == [0, *accumulate(map(len, legs_of_hours))]
    assert second.messages[-1]["type"] == "STATE"


def test_lookback_does_not_reach_before_the_start(pbx: Simulator) -> None:
    """lookback_hours never reaches before start_date."""
    run_tap(
        pbx,
        start_date="2021-09-14T14:00",
        end_date="2021-09-14T16:00",
        lookback_hours=24,
        state=state("2021-09-14T05:00:00+00:00"),
    )
    assert [hour for _, hour in requested(pbx)] == [14, 15]


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_runs_of_a_few_hours_add_up(pbx: Simulator, order: str) -> None:
    """max_hours_per_run ends a run, successfully, and the next goes on from there."""
    last: dict[str, Any] | None = None
    found: list[tuple[str, int]] = []
    for _ in range(5):
        run = run_tap(pbx, **DAY, max_hours_per_run=5, backfill_order=order, state=last)
        assert run.error is None
        last = run.states[-1]
        found += run.keys
    assert len(requested(pbx)) == len(set(requested(pbx))) == 24
    true_legs = truth(pbx, "2021-09-14", "2021-09-15")
    assert sorted(found) == sorted((leg.call_record_id, leg.leg) for leg in true_legs)


def test_an_earlier_start_date_reads_just_the_missing_hours(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier start_date reads the hours before `since` and those after the bookmark."""
    caplog.set_level("INFO")
    run = run_tap(
        pbx,
        start_date="2021-09-13T22:00",
        end_date="2021-09-14T06:00",
        state=state("2021-09-13T18:00:00+00:00"),  # 00:00 to 04:00
    )
    hours = [("2021-09-13", 22), ("2021-09-13", 23), ("2021-09-14", 4), ("2021-09-14", 5)]
    assert requested(pbx) == hours
    assert run.states[1] == state(
        "2021-09-13T18:00:00+00:00",
        since="2021-09-13T12:00:00+00:00",
        owed=[("2021-09-13T13:00:00+00:00", START)],
    )
    assert run.states[-1] == state("2021-09-13T20:00:00+00:00", since="2021-09-13T12:00:00+00:00")
    assert "History goes back further than before: 2 hours to read" in caplog.messages


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_a_later_start_date_leaves_hours_out_without_claiming_them(
    pbx: Simulator, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A later start_date leaves hours out, which stay owed until it is moved back."""
    caplog.set_level("INFO")
    run = run_tap(
        pbx,
        start_date="2021-09-14T10:00",
        end_date="2021-09-14T12:00",
        backfill_order=order,
        state=state("2021-09-13T20:00:00+00:00"),  # 06:00
    )
    assert sorted(hour or 0 for _, hour in requested(pbx)) == [10, 11]
    owed = [("2021-09-13T20:00:00+00:00", "2021-09-14T00:00:00+00:00")]
    assert run.states[-1] == state("2021-09-14T02:00:00+00:00", owed=owed)
    assert any(message.startswith("4 hours left out of this run") for message in caplog.messages)
    del pbx.requests[:]
    back = run_tap(pbx, end_date="2021-09-14T12:00", backfill_order=order, state=run.states[-1])
    assert sorted(hour or 0 for _, hour in requested(pbx)) == [6, 7, 8, 9]
    assert back.states[-1] == state("2021-09-14T02:00:00+00:00")


def test_an_earlier_end_date_leaves_owed_hours_out(pbx: Simulator) -> None:
    """What is owed after an end_date is left alone, and read when it is moved back."""
    owed = [("2021-09-13T16:00:00+00:00", "2021-09-13T19:00:00+00:00")]  # 02:00 to 05:00
    before = state("2021-09-14T00:00:00+00:00", owed=owed)
    run = run_tap(pbx, end_date="2021-09-14T03:00", state=before)
    assert requested(pbx) == [("2021-09-14", 2)]
    owed = [("2021-09-13T17:00:00+00:00", "2021-09-13T19:00:00+00:00")]
    assert run.states[-1] == state("2021-09-14T00:00:00+00:00", owed=owed)
    run = run_tap(pbx, end_date="2021-09-14T10:00", state=run.states[-1])
    assert requested(pbx)[1:] == [("2021-09-14", 3), ("2021-09-14", 4)]
    assert run.states[-1] == state("2021-09-14T00:00:00+00:00")


def test_an_end_date_within_an_hour_emits_each_leg_once() -> None:
    """Moved on within an hour, end_date brings only what has not been emitted."""
    start = local("2021-09-14T15:00", "Australia/Melbourne")
    legs = every(timedelta(minutes=10), start, start + timedelta(hours=1))
    last: dict[str, Any] | None = None
    found: list[tuple[str, int]] = []
    with Simulator(legs=legs) as pbx:
        for minute in (15, 30, 45, 59):
            run = run_tap(
                pbx,
                start_date="2021-09-14T15:05",
                end_date=f"2021-09-14T15:{minute}",
                state=last,
            )
            last = run.states[-1]
            found += run.keys
    assert found == [(str(k), 1) for k in range(1, 6)]


def test_a_state_of_release_0_1_reads_as_since_the_start_date(pbx: Simulator) -> None:
    """A STATE without `since` claims what ended since this run's start_date, and then says so."""
    run = run_tap(
        pbx,
        start_date="2021-09-10",
        end_date="2021-09-14T08:00",
        state=state_of_release_0_1("2021-09-13T20:00:00+00:00"),
    )
    since = "2021-09-09T14:00:00+00:00"
    assert run.states[0] == state("2021-09-13T20:00:00+00:00", since=since)
    assert [hour for _, hour in requested(pbx)] == [6, 7]


def test_a_bookmark_later_than_now_claims_nothing_that_is_not_over(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Hours that a STATE claims before they are over are read when they are, with a warning."""
    now = FakeClock("2021-09-14T03:30:00+00:00")  # 13:30
    run = run_tap(pbx, clock=now, state=state("2021-09-14T08:00:00+00:00"))
    assert requested(pbx) == []
    assert run.states[-1] == state("2021-09-14T03:00:00+00:00")
    assert "later than now" in caplog.text
    later = FakeClock("2021-09-14T05:06:00+00:00")
    run_tap(pbx, clock=later, state=run.states[-1])
    assert [hour for _, hour in requested(pbx)] == [13, 14]


def test_the_last_hour_of_a_limited_run_is_one_that_was_never_read(pbx: Simulator) -> None:
    """With newest_first, lookback_hours never take up all of max_hours_per_run."""
    last: dict[str, Any] | None = state(
        "2021-09-14T05:00:00+00:00", owed=[(START, "2021-09-13T18:00:00+00:00")]
    )
    for hour in range(6, 10):  # an hour falls due before each run
        run = run_tap(
            pbx,
            clock=FakeClock(f"2021-09-14T{hour:02}:06:00+00:00"),
            backfill_order="newest_first",
            lookback_hours=3,
            max_hours_per_run=4,
            state=last,
        )
        last = run.states[-1]
    assert [hour for _, hour in requested(pbx)[3::4]] == [3, 2, 1, 0]
    assert last == state("2021-09-14T09:00:00+00:00")


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_without_history_lookback_takes_the_rest_of_a_limited_run(
    pbx: Simulator, order: str
) -> None:
    """Where nothing else is unread, all of lookback_hours is read again in each run."""
    last: dict[str, Any] | None = state("2021-09-14T05:00:00+00:00")
    for hour in (6, 7):  # an hour falls due before each run
        del pbx.requests[:]
        run = run_tap(
            pbx,
            clock=FakeClock(f"2021-09-14T{hour:02}:06:00+00:00"),
            backfill_order=order,
            lookback_hours=1,
            max_hours_per_run=2,
            state=last,
        )
        last = run.states[-1]
        assert {requested_hour for _, requested_hour in requested(pbx)} == {hour + 8, hour + 9}


def test_newest_first_begins_with_the_last_hour(pbx: Simulator) -> None:
    """With newest_first the newest due hour comes first, then history, back to start_date."""
    clock = FakeClock("2021-09-14T06:06:00+00:00")  # 16:06
    run = run_tap(pbx, clock=clock, backfill_order="newest_first")
    assert requested(pbx) == [("2021-09-14", hour) for hour in range(15, -1, -1)]
    assert set(run.bookmarks) == {"2021-09-14T06:00:00+00:00"}
    assert run.states[0] == state(
        "2021-09-14T06:00:00+00:00", owed=[(START, "2021-09-14T05:00:00+00:00")]
    )
    assert run.states[-1] == state("2021-09-14T06:00:00+00:00")


def test_newest_first_takes_up_each_hour_as_it_falls_due(pbx: Simulator) -> None:
    """With newest_first an hour that falls due during a long run comes next."""
    clock = FakeClock("2021-09-14T06:06:00+00:00")
    run_tap(
        pbx,
        clock=clock,
        backfill_order="newest_first",
        start_date="2021-09-14T10:00",
        request_interval=1800,
    )
    # A request each half hour: after two of history, there is a new one.
    assert [hour for _, hour in requested(pbx)] == [15, 14, 16, 13, 17, 12, 18, 11, 19, 10]


def test_an_outage_leaves_two_debts(pbx: Simulator) -> None:
    """After an outage the newest hour goes first again, and STATE owes both gaps."""
    first = run_tap(
        pbx,
        clock=FakeClock("2021-09-14T06:06:00+00:00"),
        backfill_order="newest_first",
        max_hours_per_run=2,
    )
    second = run_tap(
        pbx,
        clock=FakeClock("2021-09-14T10:06:00+00:00"),
        backfill_order="newest_first",
        max_hours_per_run=1,
        state=first.states[-1],
    )
    assert [hour for _, hour in requested(pbx)] == [15, 14, 19]
    assert second.states[-1] == state(
        "2021-09-14T10:00:00+00:00",
        owed=[
            (START, "2021-09-14T04:00:00+00:00"),
            ("2021-09-14T06:00:00+00:00", "2021-09-14T09:00:00+00:00"),
        ],
    )


def test_debts_are_paid_in_either_order(pbx: Simulator) -> None:
    """Hours owed are read whatever the order is later, oldest first with oldest_first."""
    clock = FakeClock("2021-09-14T06:06:00+00:00")
    first = run_tap(pbx, clock=clock, backfill_order="newest_first", max_hours_per_run=3)
    clock = FakeClock("2021-09-14T07:06:00+00:00")
    second = run_tap(pbx, clock=clock, state=first.states[-1])
    assert [hour for _, hour in requested(pbx)] == [15, 14, 13, *range(13), 16]
    assert second.states[-1] == state("2021-09-14T07:00:00+00:00")
    found = sorted(first.keys + second.keys)
    true_legs = truth(pbx, "2021-09-14", "2021-09-14T17:00")
    assert found == sorted((leg.call_record_id, leg.leg) for leg in true_legs)


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_every_state_of_a_run_resumes_with_nothing_lost(order: str) -> None:
    """Resumed from any STATE of a run, over a change of clocks, nothing is lost or repeated."""
    first, last = (local(day, "Pacific/Chatham") for day in ("2021-04-04", "2021-04-04T12:00"))
    legs = every(timedelta(minutes=15), first, last)
    dates: dict[str, Any] = {
        "start_date": "2021-04-04",
        "end_date": "2021-04-04T12:00",
        "backfill_order": order,
    }
    with Simulator(timezone="Pacific/Chatham", legs=legs) as pbx:
        whole = run_tap(pbx, **dates)
        for index in range(len(whole.states)):
            del pbx.requests[:]
            rest = run_tap(pbx, **dates, state=whole.states[index])
            assert len(requested(pbx)) == 12 - (index + 1)
            written = Run(_until_state(whole.output, index))
            assert sorted(emitted(written) + emitted(rest)) == sorted(as_records(legs))


def _until_state(output: str, index: int) -> str:
    """The output up to its STATE of this index."""
    lines = output.splitlines(keepends=True)
    ends = [k for k, line in enumerate(lines) if line.startswith('{"type":"STATE"')]
    return "".join(lines[: ends[index] + 1])


class SettingClock(FakeClock):
    """A clock that somebody puts back during one of the waits."""

    def __init__(self, now: str, wait: int, hours: int) -> None:
        """Take the number of the wait and how far the clock is put back."""
        super().__init__(now)
        self._wait = wait
        self._back = timedelta(hours=hours)
        self._elapsed = 0.0

    @override
    def monotonic(self) -> float:
        return self._elapsed

    @override
    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._elapsed += self.sleeps[-1]
        if len(self.sleeps) == self._wait:
            self.instant -= self._back


@pytest.mark.parametrize("wait", range(1, 9))
@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_a_clock_that_is_put_back_ends_no_run_early(pbx: Simulator, order: str, wait: int) -> None:
    """Put back during any wait, a clock costs no hour that is due by it, and none comes twice."""
    clock = SettingClock("2021-09-14T05:06:00+00:00", wait, hours=2)
    dates: dict[str, Any] = {"start_date": "2021-09-14T11:00", "backfill_order": order}
    run = run_tap(pbx, clock=clock, request_interval=60, **dates)
    assert run.error is None
    hours = [hour for _, hour in requested(pbx)]
    assert {11, 12} <= set(hours)
    assert len(hours) == len(set(hours))
    later = FakeClock("2021-09-14T06:06:00+00:00")
    run_tap(pbx, clock=later, state=run.states[-1], **dates)
    assert {hour for _, hour in requested(pbx)} == {11, 12, 13, 14, 15}


def test_a_full_table_run_reads_from_the_start(pbx: Simulator) -> None:
    """Forced to FULL_TABLE, the run begins at start_date and leaves the bookmark alone."""
    catalog = discovered(replication_method="FULL_TABLE")
    before = state("2021-09-14T10:00:00+00:00", since="2021-09-01T00:00:00+00:00")
    run = run_tap(pbx, **DAY, catalog=catalog, state=before)
    assert run.error is None
    assert len(requested(pbx)) == 24
    assert all(value == before for value in run.states)


def test_what_is_not_selected_may_lack_keys(pbx: Simulator) -> None:
    """A stream that is not selected is left out, whatever is excluded of it."""
    catalog = discovered()
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = False
        entry["metadata"]["replication-method"] = "LOG_BASED"
        if entry["breadcrumb"]:
            entry["metadata"]["inclusion"] = "unsupported"
    run = run_tap(pbx, **DAY, catalog=catalog)
    assert run.error is None
    assert requested(pbx) == []


def test_the_log_has_what_users_need(pbx: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """Details stay at DEBUG, and an error is not called unhandled before its own line."""
    caplog.set_level("INFO")
    pbx.failures.append(Failure("status", status=401))
    run = run_tap(pbx, **DAY)
    assert isinstance(run.error, NoojeeError)
    own = [r.getMessage() for r in caplog.records if r.name == "tap-noojee.recordings"]
    assert [line.partition(" ")[0] for line in own] == ["Beginning", "Starting", "24"]


@pytest.mark.parametrize("method", ["incremental", "LOG_BASED", ""])
def test_an_unknown_method_is_an_error(pbx: Simulator, method: str) -> None:
    """A replication method that is not INCREMENTAL or FULL_TABLE ends the run, and is named so."""
    catalog = discovered(replication_method=method)
    run = run_tap(pbx, **DAY, catalog=catalog)
    if method:
        assert isinstance(run.error, NoojeeError)
        assert str(run.error) == "catalog: replication_method: is not INCREMENTAL or FULL_TABLE"
    assert len(requested(pbx)) == (0 if method else 24)


def test_a_full_table_run_has_no_limit(pbx: Simulator) -> None:
    """FULL_TABLE with max_hours_per_run would read the same hours for ever: it is an error."""
    catalog = discovered(replication_method="FULL_TABLE")
    run = run_tap(pbx, **DAY, catalog=catalog, max_hours_per_run=9)
    assert isinstance(run.error, NoojeeError)
    assert str(run.error) == (
        "max_hours_per_run: cannot be used with FULL_TABLE: each run would read the same hours"
    )
    assert requested(pbx) == []


@pytest.mark.parametrize(
    "maps",
    [
        {"recordings": None},
        {"*": None},
        {"__else__": None},
        {"recording": {"Tag": None}, "__else__": None},
    ],
)
def test_a_map_that_leaves_out_the_stream_is_an_error(
    pbx: Simulator, maps: dict[str, Any]
) -> None:
    """Where stream maps leave nothing to write, nothing is requested, and STATE claims nothing."""
    run = run_tap(pbx, **DAY, stream_maps=maps)
    assert isinstance(run.error, NoojeeError)
    assert str(run.error) == "stream_maps: recordings: is left out, and there is nothing else"
    assert requested(pbx) == []
    assert run.states == []


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("zone", "hour", "fold", "which"),
    [
        ("Australia/Melbourne", 2, "first", "first"),
        ("Australia/Melbourne", 2, "second", "second"),
        ("Australia/Lord_Howe", 1, "second", "second"),
        ("Pacific/Chatham", 3, "first", "first"),
    ],
)
def test_a_repeated_hour_with_one_pass_is_warned_of(
    zone: str, hour: int, fold: Any, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When a repeated hour's legs are all of one pass, a warning names the hour."""
    day = local("2021-04-04", zone)
    legs = every(timedelta(minutes=5), day, day + timedelta(hours=8))
    with Simulator(timezone=zone, fold=fold, legs=legs) as pbx:
        run_tap(pbx, start_date="2021-04-04", end_date="2021-04-04T06:00")
    named = [w for w in _warnings(caplog) if w.startswith(f"2021-04-04 {hour:02}:00: this hour")]
    assert len(named) == 1
    assert f"of the {which} pass" in named[0]


def test_a_repeated_hour_with_both_passes_is_not_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A repeated hour that shows both passes, or no leg, is nothing to warn of."""
    day = local("2021-04-04", "Australia/Melbourne")
    for legs in ([], every(timedelta(minutes=5), day, day + timedelta(hours=8))):
        with Simulator(legs=legs) as pbx:
            run_tap(pbx, start_date="2021-04-04", end_date="2021-04-04T06:00")
    assert _warnings(caplog) == []


@pytest.mark.parametrize("dates", ["old", "timestamp"])
def test_dates_without_a_pass_take_the_first(dates: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where dates do not say which pass, the first is taken, with a warning of the hour."""
    day = local("2021-04-04", "Australia/Melbourne")
    legs = every(timedelta(minutes=5), day, day + timedelta(hours=8))
    with Simulator(legs=legs, dates=dates) as pbx:
        run = run_tap(pbx, start_date="2021-04-04", end_date="2021-04-04T06:00")
    assert run.error is None
    second = local("2021-04-04T02:00", "Australia/Melbourne") + timedelta(hours=1)
    for leg, (*_, callend, _) in zip(
        legs, sorted(emitted(run), key=lambda r: int(r[0])), strict=False
    ):
        in_second = second <= leg.callend < second + timedelta(hours=1)
        expected = leg.callend - timedelta(hours=1) if in_second else leg.callend
        assert callend == expected.isoformat()
    unsaid = "2021-04-04 02:00: this hour came twice, and the PBX's dates do not say"
    assert sum(unsaid in w for w in _warnings(caplog)) == 1
    assert sum("older than 2014" in w for w in _warnings(caplog)) == (dates == "old")


def test_a_wrong_zone_stops_before_the_first_record() -> None:
    """A PBX in another zone than `timezone` says ends the run before any record, naming both."""
    with Simulator(timezone="Australia/Perth") as pbx:
        run = run_tap(pbx, **DAY | {"timezone": "Australia/Melbourne"})
    assert run.records == []
    assert isinstance(run.error, NoojeeError)
    assert "AWST" in str(run.error)
    assert "`timezone`" in str(run.error)


@pytest.mark.parametrize(
    ("zone", "setting", "difference"),
    [
        ("Australia/Perth", "Australia/Melbourne", "2 hours before"),
        ("Australia/Adelaide", "Australia/Melbourne", "30 minutes before"),
        ("Pacific/Auckland", "Australia/Melbourne", "2 hours after"),
    ],
)
def test_dates_without_a_zone_are_held_against_the_ids_of_calls(
    zone: str, setting: str, difference: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where dates have no zone's name, ids that say another one bring one warning in a run."""
    with Simulator(timezone=zone, dates="timestamp") as pbx:
        run = run_tap(pbx, **DAY | {"timezone": setting})
    assert run.error is None
    (warning,) = _warnings(caplog)
    hour, _, words = warning.partition(": ")
    assert hour.startswith("2021-09-14 ")
    assert words == (
        f"legs start {difference} their calls were created, as their UniqueIds say: check "
        "`timezone`"
    )


@pytest.mark.parametrize("dates", ["java", "gmt", "timestamp"])
def test_ids_that_agree_with_the_dates_bring_no_warning(
    dates: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A month of dates that agree with the ids of calls brings no warning of the zone."""
    with Simulator(dates=dates) as pbx:
        run_tap(pbx, start_date="2021-08-15", end_date="2021-09-15")
    assert _warnings(caplog) == []


def test_progress_names_hour_legs_rest_and_end(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Each hour's log line names the hour, its legs, the hours left and when they will be done."""
    caplog.set_level("INFO")
    run_tap(
        pbx,
        start_date="2021-09-14T15:00",
        end_date="2021-09-14T18:00",
        request_interval=60,
        clock=FakeClock("2021-09-20T00:00:00+00:00"),
    )
    legs = [len(truth(pbx, f"2021-09-14T{h}:00", f"2021-09-14T{h + 1}:00")) for h in (15, 16, 17)]
    lines = [r.getMessage() for r in caplog.records if r.name == "tap-noojee.recordings"]
    assert lines[-4:] == [
        "3 hours of history to read, about 3 minutes",
        f"2021-09-14 15:00: {legs[0]} legs; 2 hours left, done at about 2021-09-20 10:02 AEST",
        f"2021-09-14 16:00: {legs[1]} legs; 1 hour left, done at about 2021-09-20 10:02 AEST",
        f"2021-09-14 17:00: {legs[2]} legs; nothing left to read",
    ]


@pytest.mark.parametrize(
    ("calls", "line"),
    [
        (0, "0 legs; the connection works; if calls ended in that hour, check `timezone`"),
        (1, "4 legs; the connection works"),
    ],
)
def test_the_connection_test_makes_one_request(
    calls: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """--test makes one request, says how many legs came, and claims nothing in STATE."""
    caplog.set_level("INFO")
    with Simulator(volume=calls) as pbx:
        run = run_tap(
            pbx,
            clock=FakeClock("2021-09-14T06:06:00+00:00"),
            sync=TapNoojee.run_connection_test,
        )
        assert requested(pbx) == [("2021-09-14", 15)]
    assert run.error is None
    assert len(run.records) == calls
    assert all(value == {"bookmarks": {"recordings": {}}} for value in run.states)
    assert f"2021-09-14 15:00: {line}" in [record.getMessage() for record in caplog.records]


def test_deselected_fields_are_left_out(pbx: Simulator) -> None:
    """A field that is not selected is in no record and not in the schema; keys always are."""
    catalog = discovered()
    metadata = catalog["streams"][0]["metadata"]
    for entry in metadata:
        if entry["breadcrumb"][-1:] in (["Tag"], ["callend"], ["Leg"]):
            entry["metadata"]["selected"] = False
    run = run_tap(pbx, **DAY, catalog=catalog)
    assert run.error is None
    assert all("Tag" not in r and {"callend", "Leg"} <= r.keys() for r in run.records)
    schema = run.messages[0]["schema"]
    assert "Tag" not in schema["properties"]
    assert schema["required"] == ["callend", "CallRecordId", "Leg"]


def test_stream_maps_apply(pbx: Simulator) -> None:
    """Stream maps rename, drop and compute as with any tap of the SDK."""
    maps = {"recordings": {"__alias__": "calls", "Username": None, "secs": "Duration"}}
    run = run_tap(pbx, **DAY, stream_maps=maps)
    assert run.error is None
    assert {m.get("stream") for m in run.messages} == {"calls", None}
    assert all("Username" not in r and r["secs"] == r["Duration"] for r in run.records)
    assert len(run.states) == 24
