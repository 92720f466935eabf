"""The tap and target-postgres in a real Meltano, into a real PostgreSQL server."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from conftest import requested, truth

from tap_noojee.simulator import Failure, Leg, Simulator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postgres import Postgres
    from projects import Project

pytestmark = pytest.mark.slow

pytest_plugins = ["projects"]

DAY = ("2021-09-14", "2021-09-15")
RUN = ("run", "tap-noojee", "target-postgres")
NOON = ("2021-09-14", 12)

Row = tuple[str, int, datetime, datetime]


@pytest.fixture
def database(server: Postgres, project: Project) -> Postgres:
    """Empty the database, and tell Meltano its address."""
    project.load_into(server, schema="tap_noojee")
    return server


def rows(database: Postgres) -> list[Row]:
    """Give key, end and start of the rows, their times taken to be in UTC."""
    found = database.query(
        'SELECT "CallRecordId", "Leg", callend, "Start" FROM tap_noojee.recordings'
    )
    return sorted(
        (record_id, leg, callend.replace(tzinfo=UTC), start.replace(tzinfo=UTC))
        for record_id, leg, callend, start in found
    )


def as_rows(legs: Iterable[Leg]) -> list[Row]:
    """Give legs as their rows should be."""
    return sorted((leg.call_record_id, leg.leg, leg.callend, leg.start) for leg in legs)


def test_each_leg_is_a_row(project: Project, pbx: Simulator, database: Postgres) -> None:
    """A day's legs are a row each, with their times in UTC, whatever the server's zone."""
    project.read(pbx, *DAY)
    project.meltano(*RUN)
    assert rows(database) == as_rows(truth(pbx, *DAY))


def test_both_passes_of_a_repeated_hour_are_kept_apart(
    project: Project, database: Postgres
) -> None:
    """Legs that ended an hour apart at the same time of the clock are an hour apart."""
    first = datetime(2021, 4, 3, 15, 30, tzinfo=UTC)  # 02:30 in Melbourne, AEDT; then AEST
    ends = [first + timedelta(hours=hours) for hours in (-1, 0, 1, 2)]
    legs = [Leg(end - timedelta(minutes=5), end, f"{n}") for n, end in enumerate(ends)]
    with Simulator(legs=legs) as pbx:
        project.read(pbx, "2021-04-04", "2021-04-04T06:00:00")
        project.meltano(*RUN)
    assert rows(database) == as_rows(legs)


def test_hours_read_again_add_no_rows(
    project: Project, pbx: Simulator, database: Postgres
) -> None:
    """A second run that looks back over the whole day finds each leg in its row."""
    project.read(pbx, *DAY)
    project.meltano(*RUN)
    project.environment["TAP_NOOJEE_LOOKBACK_HOURS"] = "24"
    project.meltano(*RUN)
    assert len(pbx.requests) == 2 * 24
    assert rows(database) == as_rows(truth(pbx, *DAY))


def test_a_failed_run_is_taken_up_where_it_failed(
    project: Project, pbx: Simulator, database: Postgres
) -> None:
    """What came before the failure is in the database, and the next run adds the rest."""
    project.read(pbx, *DAY)
    pbx.failures.append(Failure("status", NOON, status=401))
    project.meltano(*RUN, status=1)
    assert rows(database) == as_rows(truth(pbx, "2021-09-14", "2021-09-14T12:00"))
    pbx.requests.clear()
    project.meltano(*RUN)
    assert requested(pbx)[0] == NOON
    assert rows(database) == as_rows(truth(pbx, *DAY))


def test_a_killed_run_loses_nothing(project: Project, pbx: Simulator, database: Postgres) -> None:
    """Killed with all its parts amid the day, a run leaves nothing that the next cannot mend."""
    project.read(pbx, *DAY)
    pbx.failures.append(Failure("stall", NOON))
    with project.start(*RUN) as process:
        while NOON not in requested(pbx):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    # For five minutes Meltano takes a killed run for one that still goes on.
    project.meltano(*RUN, "--force")
    assert rows(database) == as_rows(truth(pbx, *DAY))
