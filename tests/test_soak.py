"""Many runs of real Meltano into real PostgreSQL, with kills, failures and changing settings.

    SOAK_HOURS=200 uv run --extra simulator --group test pytest --capture=no tests/test_soak.py

8760 hours cover a year. Another seed, such as SOAK_SEED=7, draws other events. The tap reads the
real clock, so an `end_date` in the past stands for the present and advances from run to run.
"""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import click
import psycopg
import pytest
from postgres import Postgres, serve
from projects import Project
from times import wall_time

from tap_noojee.simulator import Failure, Leg, Simulator, invent_legs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
    pytest.mark.skipif("SOAK_HOURS" not in os.environ, reason="takes minutes: set SOAK_HOURS"),
]
pytest_plugins = ["projects"]

COUNT = int(os.environ.get("SOAK_HOURS", "200"))
SEED = os.environ.get("SOAK_SEED", "1")
HOURS_PER_RUN = max(40, COUNT // 60)

ZONE = ZoneInfo("Australia/Melbourne")
HOUR = timedelta(hours=1)
# The first hour is a week before a repeated hour, and half a year before a skipped one.
BEGIN = datetime(2021, 3, 28, tzinfo=ZONE).astimezone(UTC)
END = BEGIN + COUNT * HOUR
SKIPPED = datetime.fromisoformat("2021-10-03T02:00")

VICTIMS = ("bin/tap-noojee", "bin/target-postgres", "bin/meltano", "all")
KILLS = [(victim, signum) for victim in VICTIMS for signum in (signal.SIGKILL, signal.SIGTERM)]
FAILURES = [
    *(Failure(kind) for kind in ("rate", "reset", "cut", "cut-json", "stall")),
    *(Failure(kind) for kind in ("html", "null", "empty", "redirect", "code")),
    *(Failure("status", status=status) for status in (401, 403, 404, 500, 503)),
    Failure("status", status=503, times=5),
    Failure("body", body=b"[{}]"),
]

# The fields of `Leg` in their order, then the duration.
QUERY = """
    SELECT "Start" AT TIME ZONE 'UTC', callend AT TIME ZONE 'UTC', "CallRecordId", "Leg",
        "UniqueId", "Direction", "Source", "Destination", "DID", "Username", "Tag", "Duration"
    FROM tap_noojee.recordings
"""

Kill = tuple[str, signal.Signals]
Row = tuple[Leg, int]


def hour_at(moment: datetime) -> datetime:
    """Return the wall-clock hour of this instant in the PBX's zone."""
    return wall_time(moment, ZONE).replace(minute=0, second=0, microsecond=0)


def test_kills_and_failures_lose_no_leg(project: Project) -> None:
    """SIGTERM and SIGKILL hit the tap, the target, Meltano, or all three."""
    # With small batches, the target writes rows and emits STATE many times in a run.
    project.change("loaders", "target-postgres", config={"batch_size_rows": 100})
    random = Random(SEED)  # noqa: S311 - not a secret
    kills = random.sample([*KILLS, None, None], k=len(KILLS) + 2)
    # Use UTC: in Python, a time in a repeated hour never equals one in another zone.
    with serve("UTC") as server, Simulator(timezone=str(ZONE)) as pbx:
        project.use_postgres(server)
        soak = Soak(project, server, pbx)
        present = BEGIN
        while present < END:
            present = min(present + random.random() * 2 * HOURS_PER_RUN * HOUR, END)
            soak.run(present, kills[soak.runs.total() % len(kills)])
        while soak.read != soak.ends.keys():
            soak.run(END, None)
        assert soak.rows() == soak.legs.keys()
    click.echo(f"{soak.runs}\n{soak.failures}")
    assert soak.runs.keys() - {"ended", "failed"}, "no kill hit a run"


class Soak:
    """Runs Meltano, counts the outcomes, and checks the state and the table after each run."""

    def __init__(self, project: Project, server: Postgres, pbx: Simulator) -> None:
        self.project, self.server, self.pbx = project, server, pbx
        # Map each hour to its end, which for a repeated hour is the end of the second pass.
        moments = (BEGIN + number * HOUR for number in range(COUNT))
        self.ends = {hour_at(moment): moment + HOUR for moment in moments}
        self.legs: dict[Row, datetime] = {}
        for leg in invent_legs(BEGIN, END, zone=ZONE):
            self.legs[leg, (leg.callend - leg.start).seconds] = hour_at(leg.callend)
        self.read: set[datetime] = set()
        self.served: set[tuple[str | None, int | None]] = set()
        self.runs: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def run(self, present: datetime, kill: Kill | None) -> None:
        """Draw settings and failures, run once, and check the state and the table."""
        # Each run has its own seed, so that its draws do not depend on those of earlier runs.
        random = Random(f"{SEED} {self.runs.total()}")  # noqa: S311 - not a secret
        start, end = BEGIN, present
        if random.random() < 0.3:
            start += random.random() * (end - start)
        if random.random() < 0.1:
            end = start + random.random() * (end - start)
        first = hour_at(start)
        wanted = {hour for hour, ended in self.ends.items() if hour >= first and ended <= end}
        unread = sorted(wanted - self.read)
        for failure in random.choices(FAILURES, k=random.choice((0, 0, 1, 2, 3)) if unread else 0):
            hour = random.choice(unread)
            self.pbx.failures.append(replace(failure, at=(f"{hour:%F}", hour.hour)))
        lookback = random.choice((0, 0, 1, 3, 24))
        limit = lookback + random.choice((COUNT, random.randint(1, 2 * HOURS_PER_RUN)))
        settings = {
            "TAP_NOOJEE_LOOKBACK_HOURS": str(lookback),
            "TAP_NOOJEE_MAX_HOURS_PER_RUN": str(limit),
            "TAP_NOOJEE_BACKFILL_ORDER": random.choice(("oldest_first", "newest_first")),
            "TAP_NOOJEE_REQUEST_TIMEOUT": "5",
        }
        dates = [date.isoformat(timespec="seconds") for date in (start, end)]
        self.project.configure_tap(self.pbx, *dates, **settings)
        self.pbx.requests.clear()
        after = random.randint(0, min(limit, lookback + len(unread)))
        output, status, killed = self.run_meltano(kill, after, random.random())
        failures = Counter(r.failure for r in self.pbx.requests if r.failure)
        outcome = "failed" if status else "ended"
        if kill and killed:
            outcome = f"{kill[0]} {kill[1].name}"
        self.runs[outcome] += 1
        self.failures.update(failures)
        try:
            self.check()
            if not killed and not failures:
                assert status == 0, "an undisturbed run failed"
                left = max(0, len(unread) - limit + lookback)
                assert len(wanted - self.read) <= left, "the run left too many hours unread"
        except Exception as error:
            error.add_note(f"seed {SEED}, {dates}, {settings}, {failures}\n{output}")
            raise
        click.echo(
            f"{present:%F} {len(self.pbx.requests):5} requests {len(self.read):5} hours  {outcome}"
        )

    def run_meltano(self, kill: Kill | None, after: int, chance: float) -> tuple[str, int, bool]:
        """Run Meltano, and return the output, the status, and whether the kill hit a process."""
        killed = False
        command = ("run", "--force", "tap-noojee", "target-postgres")
        with self.project.start(*command) as process, ThreadPoolExecutor(1) as pool:
            done = pool.submit(process.communicate)
            if kill:
                while len(self.pbx.requests) < after and not done.done():
                    time.sleep(0.002)
                # Delays, mostly short, let kills hit Meltano's start and the target's last writes.
                time.sleep(4 * chance**2)
                killed = not done.done() and self.kill(process.pid, *kill)
            try:
                output, _ = done.result(timeout=600)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        # A killed Meltano leaves behind processes that end by themselves.
        while members(process.pid):
            time.sleep(0.05)
        return output, process.returncode, killed

    def kill(self, group: int, victim: str, signum: signal.Signals) -> bool:
        """Send the signal to a part of the run, and return whether it was running."""
        found = [pid for pid, line in members(group).items() if victim == "all" or victim in line]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        return bool(found)

    def check(self) -> None:
        """Compare this run's requests, the state and the table."""
        served = [(r.date, r.hour) for r in self.pbx.requests if r.status == 200 and not r.failure]
        self.served.update(served)
        earlier, self.read = self.read, self.hours_read()
        rows, read = self.rows(), {(f"{hour:%F}", hour.hour) for hour in self.read}
        marked = {row for row, hour in self.legs.items() if hour in self.read}
        problems: dict[str, set[Any]] = {
            "served twice in one run": {hour for hour in served if served.count(hour) > 1},
            "in the table, but not on the PBX": rows - self.legs.keys(),
            "read according to the state, but not in the table": marked - rows,
            "read according to the state, but never served": read - self.served,
            "no longer in the state": earlier - self.read,
        }
        for problem, found in problems.items():
            assert not found, f"{problem}: {[*found][:3]}"

    def hours_read(self) -> set[datetime]:
        """Return the hours in Meltano's state, without the skipped hour."""
        hours = set()
        for part in self.project.hours_read():
            hour, to = map(datetime.fromisoformat, part)
            while hour < to:
                hours.add(hour)
                hour += HOUR
        hours.discard(SKIPPED)
        if hours:
            newest = self.project.bookmark()["replication_key_value"]
            assert datetime.fromisoformat(newest) == self.ends[max(hours)]
        return hours

    def rows(self) -> set[Row]:
        """Return the table's rows, or none if the target has not created it yet."""
        try:
            rows = [(Leg(*row[:-1]), row[-1]) for row in self.server.query(QUERY)]
        except psycopg.errors.UndefinedTable:
            rows = []
        assert len(set(rows)) == len(rows), "a row is in the table twice"
        return set(rows)


def members(group: int) -> dict[int, str]:
    """Return the command lines of a group's running processes, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            state, _, its_group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            if state != "Z" and int(its_group) == group:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
    return found
