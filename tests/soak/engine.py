"""Many runs over many hours, each with settings, a kill and failures of its own.

The tap reads the real clock, so all this happens in the past: `end_date` is the present that moves
on from run to run. Time is counted in minutes from 1970: what STATE claims, what the PBX has
answered and what is unread are sets of minutes, so that none of the tap's own code is needed to
tell what it should have done.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import click
import psycopg

from soak.database import serve_to_be_killed
from tap_noojee.simulator import Failure, Leg, Simulator, legs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from signal import Signals
    from subprocess import Popen

    from projects import Project

    from soak.database import Database

ZONE = ZoneInfo("Australia/Melbourne")
# A week before its clocks are put back; half a year later they are put forward.
BEGIN = datetime(2021, 3, 28, tzinfo=ZONE)

RUN = ("run", "--force", "tap-noojee", "target-postgres")
STATE_ID = "dev:tap-noojee-to-target-postgres"

Victim = Literal["tap", "target", "meltano", "all three", "database"]
PROGRAMS: dict[Victim, str] = {"tap": "bin/tap-noojee", "target": "bin/target-postgres"}
KILLS: list[tuple[Victim, Signals] | None] = [
    *(
        (victim, signum)
        for victim in ("tap", "target", "meltano", "all three", "database")
        for signum in (signal.SIGKILL, signal.SIGTERM)
    ),
    *(None,) * 4,
]

LIMIT = "TAP_NOOJEE_MAX_HOURS_PER_RUN"
# An undisturbed answer takes milliseconds, also where other things keep the machine busy.
REQUEST_TIMEOUT = 5
# Not those that are right answers by what is documented ("204" is an empty hour), nor those that
# are for the tap's memory.
PASSING = [
    *(Failure("status", status=status) for status in (500, 503, 403)),
    *(Failure(kind) for kind in ("rate", "reset", "cut", "cut-json", "stall", "trickle")),
    *(Failure("slow", delay=0.2), Failure("early-hints")),
]
LASTING = [
    *(Failure("status", status=status) for status in (401, 404)),
    *(Failure(kind) for kind in ("html", "null", "empty", "redirect", "code")),
    Failure("status", status=503, times=5),
]
ANSWERED_ALL_THE_SAME = {None, "slow", "early-hints"}

SECONDS_TO_RUN = 600
SECONDS_TO_GO_DOWN = 60

Minutes = set[int]
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """What to do: the same seed gives each run the same settings, failures and kill."""

    hours: int = 8760
    hours_per_run: int = 150
    volume: float = 1
    seed: int = 1


@dataclass
class Report:
    """What was done."""

    plan: Plan
    runs: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    runs_with: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    rows: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        """One figure, or group of figures, a line."""
        lines = []
        for name, value in vars(self).items():
            figures = asdict(value) if isinstance(value, Plan) else value
            text = (
                ", ".join(f"{key} {count}" for key, count in sorted(figures.items()))
                if isinstance(figures, dict)
                else f"{figures:,.0f}"
            )
            total = f"{value.total()}: " if name in {"runs", "kills", "failures"} else ""
            lines.append(f"{name.replace('_', ' '):10} {total}{text}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Step:
    """One run: its settings, and when in it to kill what."""

    start: int
    end: int
    lookback: int = 0
    max_hours: int | None = None
    newest_first: bool = False
    kill: tuple[Victim, Signals] | None = None
    kill_after_requests: int = 0
    kill_after_seconds: float = 0

    @property
    def environment(self) -> dict[str, str]:
        """The settings as Meltano reads them, but for the dates."""
        limit = {} if self.max_hours is None else {LIMIT: str(self.max_hours)}
        return limit | {
            "TAP_NOOJEE_LOOKBACK_HOURS": str(self.lookback),
            "TAP_NOOJEE_BACKFILL_ORDER": "newest_first" if self.newest_first else "oldest_first",
            "TAP_NOOJEE_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT),
        }


class Soak:
    """One table, filled by many runs."""

    def __init__(self, plan: Plan, project: Project, database: Database, pbx: Simulator) -> None:
        """Begin with nothing read."""
        self._project = project
        self._database = database
        self._pbx = pbx
        self._plan = plan
        self.report = Report(plan)
        self._begin = minute(BEGIN)
        self._end = self._begin + 60 * plan.hours
        self._present = self._begin
        self._truth = true_rows(self._begin, self._end, plan.volume)
        self._ends = {minute(row[2]) for row in self._truth}
        self._claimed: Minutes = set()
        self._answered: Minutes = set()
        self._hours = minutes_by_hour(self._begin - 60, self._end + 60)

    def run(self) -> None:
        """Let all the time pass; then read what is still unread."""
        began = time.monotonic()
        while self._present < self._end:
            self._take(self._draw_step())
        # Failures that no run has met so far are met now.
        while self._claimed != set(range(self._begin, self._end)):
            self._take(Step(self._begin, self._end))
        assert self._rows() == self._truth, "the table is not what the PBX has"
        self.report.requests = len(self._pbx.requests)
        self.report.rows = len(self._truth)
        self.report.seconds = time.monotonic() - began

    def _draw_step(self) -> Step:
        number = self.report.runs.total()
        # By run, so that what one run does cannot change what is drawn for the next.
        random = Random(f"{self._plan.seed} {number}")  # noqa: S311 - no secret
        passed = random.randint(1, 2 * 60 * self._plan.hours_per_run)
        self._present = min(self._present + passed, self._end)
        start, end = self._begin, self._present
        if random.random() < 0.1:
            end = random.randint(start + 1, end)
        if random.random() < 0.3:
            start = random.randint(start, end - 1)
        unread = sorted(set(range(start, end)) - self._claimed)
        lookback = random.choice((0, 0, 1, 3, 24))
        limit = lookback + random.randint(
            self._plan.hours_per_run // 2, 2 * self._plan.hours_per_run
        )
        self._draw_failures(random, unread)
        deck = Random(f"{self._plan.seed} {number // len(KILLS)}")  # noqa: S311 - no secret
        kill = deck.sample(KILLS, len(KILLS))[number % len(KILLS)]
        expected = min(limit, lookback + len(unread) // 60)
        after = random.randint(0, expected)
        return Step(
            start,
            end,
            lookback,
            random.choice((None, limit)),
            random.choice((False, True)),
            kill,
            after,
            # In the start of Meltano, amid the hours, or as the run ends.
            random.random() * (0.2 if 0 < after < expected else 4),
        )

    def _draw_failures(self, random: Random, unread: list[int]) -> None:
        for _ in range(random.choice((0, 0, 1, 2, 3)) if unread else 0):
            failure = random.choice((*PASSING, *PASSING, *LASTING))
            local = instant(random.choice(unread)).astimezone(ZONE)
            at = f"{local:%Y-%m-%d}", local.hour
            self._pbx.failures.append(
                Failure(
                    failure.kind,
                    at,
                    times=failure.times,
                    status=failure.status,
                    delay=failure.delay,
                )
            )

    def _take(self, step: Step) -> None:
        """One run, and what must be true after it."""
        before = len(self._pbx.requests)
        claimed = self._claimed
        began = time.monotonic()
        output, status, killed = self._run(step)
        self._database.restart_if_killed()
        requests = self._pbx.requests[before:]
        met = Counter(request.failure for request in requests if request.failure)
        try:
            self._claimed = self._read_state(step)
            self._check_requests(before)
            self._check_claims(claimed)
            if not killed and not met.keys() - ANSWERED_ALL_THE_SAME:
                assert status == 0, "an undisturbed run failed"
                unread = set(range(step.start, step.end))
                if step.max_hours is None:
                    assert unread <= self._claimed, "an undisturbed run left out hours"
                elif unread - claimed:
                    assert claimed < self._claimed, "an undisturbed run made no progress"
        except AssertionError as error:
            error.add_note(f"{self._plan}\nrun {self.report.runs.total()}: {step}\n{output}")
            raise
        outcome = "killed" if killed else "failed" if status else "succeeded"
        self.report.runs[outcome] += 1
        if killed and step.kill:
            self.report.kills[f"{step.kill[0]} {step.kill[1].name}"] += 1
        self.report.failures.update(met)
        self.report.runs_with.update(
            {
                "start_date later": step.start > self._begin,
                "end_date earlier": step.end < self._present,
                "newest_first": step.newest_first,
                "lookback_hours": step.lookback > 0,
                "max_hours_per_run": step.max_hours is not None,
            }
        )
        hours = (self._present - self._begin) // 60
        click.echo(
            f"{self.report.runs.total():4} {time.monotonic() - began:5.1f} s  {hours:5} hours  "
            f"{len(requests):5} requests  {len(self._claimed) // 60:5} hours claimed  "
            f"{outcome:9}  {(step.kill or ('',))[0]}"
        )

    def _run(self, step: Step) -> tuple[str, int, bool]:
        """Run Meltano until nothing of it is left; give its output, status, and if it was hit."""
        start, end = (instant(m).isoformat() for m in (step.start, step.end))
        self._project.environment.pop(LIMIT, None)
        self._project.read(self._pbx, start, end, **step.environment)
        requests = len(self._pbx.requests) + step.kill_after_requests
        deadline = time.monotonic() + SECONDS_TO_RUN
        killed = False
        with self._project.start(*RUN) as process, ThreadPoolExecutor(1) as pool:
            done = pool.submit(process.communicate)
            if step.kill:
                while len(self._pbx.requests) < requests and not done.done():
                    time.sleep(0.002)
                wait_for(done, step.kill_after_seconds)
                killed = not done.done() and self._kill(process, *step.kill)
            wait_for(done, deadline - time.monotonic())
            if not done.done():
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = done.result()
        assert time.monotonic() < deadline, f"a run did not end: {output}"
        # What is left of a Meltano that was killed ends by itself.
        while members(process.pid):
            assert time.monotonic() < deadline + SECONDS_TO_GO_DOWN, "a process did not end"
            time.sleep(0.05)
        return output, process.returncode, killed

    def _kill(self, process: Popen[str], victim: Victim, signum: Signals) -> bool:
        """Kill a part of the run; give whether there was anything to kill."""
        with suppress(ProcessLookupError):
            match victim:
                case "database":
                    self._database.kill(signum)
                case "meltano":
                    process.send_signal(signum)
                case "all three":
                    os.killpg(process.pid, signum)
                case _:
                    found = [
                        pid
                        for pid, line in members(process.pid).items()
                        if PROGRAMS[victim] in line
                    ]
                    for pid in found:
                        os.kill(pid, signum)
                    return bool(found)
            return True
        return False

    def _read_state(self, step: Step) -> Minutes:
        """The time that Meltano's state claims: each leg that ended in it has been written."""
        suffix = self._project.environment["MELTANO_RUN_STATE_ID_SUFFIX"]
        printed = self._project.meltano("state", "get", f"{STATE_ID}:{suffix}")
        state = json.loads(printed.splitlines()[-1]).get("singer_state", {})
        bookmark = state.get("bookmarks", {}).get("recordings", {})
        if "replication_key_value" not in bookmark:
            return set()
        # Release 0.1 said nothing of where it began.
        since = minute_of(bookmark["since"]) if "since" in bookmark else step.start
        claimed = set(range(since, minute_of(bookmark["replication_key_value"])))
        for owed in bookmark.get("owed", ()):
            claimed -= set(range(minute_of(owed["start"]), minute_of(owed["end"])))
        return claimed

    def _check_requests(self, before: int) -> None:
        answered = Counter(
            (request.date, request.hour)
            for request in self._pbx.requests[before:]
            if request.status == 200 and request.failure is None
        )
        twice = [hour for hour, times in answered.items() if times > 1]
        assert not twice, f"requested again in one run: {twice}"
        for request in self._pbx.requests[before:]:
            minutes = self._hours[request.date, request.hour]
            # The two bytes of an hour without legs come whole, however slowly.
            is_short = request.failure == "trickle" and minutes.isdisjoint(self._ends)
            if request.status == 200 and (request.failure in ANSWERED_ALL_THE_SAME or is_short):
                self._answered |= minutes

    def _check_claims(self, claimed_before: Minutes) -> None:
        rows = self._rows()
        invented = rows - self._truth
        assert not invented, f"rows that are not the PBX's: {sorted(invented)[:3]}"
        missing = [row for row in self._truth - rows if minute(row[2]) in self._claimed]
        assert not missing, f"STATE claims legs that are not in the table: {sorted(missing)[:3]}"
        never = self._claimed - self._answered
        assert not never, f"STATE claims {instant(min(never))}, of which nothing was answered"
        lost = claimed_before - self._claimed
        assert not lost, f"STATE claims {instant(min(lost))} no longer"

    def _rows(self) -> set[Row]:
        try:
            rows = self._database.server.query(
                'SELECT "CallRecordId", "Leg", callend, "Start", "Duration", "DID", "Destination",'
                ' "Direction", "Source", "Tag", "UniqueId", "Username" FROM tap_noojee.recordings'
            )
        except psycopg.errors.UndefinedTable:
            return set()
        found = {
            (record_id, leg, end.replace(tzinfo=UTC), start.replace(tzinfo=UTC), *rest)
            for record_id, leg, end, start, *rest in rows
        }
        assert len(found) == len(rows), "a row is there twice"
        return found


def soak(plan: Plan, project: Project) -> Report:
    """Run it all, from an empty database to the last hour."""
    with (
        small_batches(project),
        serve_to_be_killed(str(ZONE)) as database,
        Simulator(timezone=str(ZONE), volume=plan.volume) as pbx,
    ):
        project.load_into(database.server, "tap_noojee")
        whole = Soak(plan, project, database, pbx)
        whole.run()
    return whole.report


@contextmanager
def small_batches(project: Project) -> Iterator[None]:
    """Let the target write, and hand over STATE, often in a run: there is more to interrupt."""
    path = project.root / "meltano.yml"
    before = path.read_bytes()
    content = project.content
    for loader in content["plugins"]["loaders"]:
        loader["config"] = {"batch_size_rows": 100} if loader["name"] == "target-postgres" else {}
    project.content = content
    try:
        yield
    finally:
        path.write_bytes(before)


def members(group: int) -> dict[int, str]:
    """The processes of a group that have not ended, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            state, _, its_group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            if state != "Z" and int(its_group) == group:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
    return found


def wait_for(future: Future[Any], seconds: float) -> None:
    """Wait until it is done, at most so long."""
    with suppress(TimeoutError):
        future.exception(max(0, seconds))


def true_rows(start: int, end: int, volume: float) -> set[Row]:
    """The rows of all legs that ended in a time."""
    return {as_row(leg) for leg in legs(instant(start), instant(end), zone=ZONE, volume=volume)}


def as_row(leg: Leg) -> Row:
    """A leg as its row should be."""
    return (
        *(leg.call_record_id, leg.leg, leg.callend, leg.start),
        int((leg.callend - leg.start).total_seconds()),
        *(leg.did, leg.destination, leg.direction, leg.source),
        *(leg.tag, leg.unique_id, leg.username),
    )


def minutes_by_hour(start: int, end: int) -> dict[tuple[str | None, int | None], Minutes]:
    """The minutes at which clocks show an hour; one that comes twice has 120."""
    hours: dict[tuple[str | None, int | None], Minutes] = {}
    for number in range(start, end):
        local = instant(number).astimezone(ZONE)
        hours.setdefault((f"{local:%Y-%m-%d}", local.hour), set()).add(number)
    return hours


def minute(moment: datetime) -> int:
    """The minute of an instant."""
    return int(moment.timestamp() // 60)


def minute_of(text: str) -> int:
    """The minute of an instant in STATE."""
    return minute(datetime.fromisoformat(text))


def instant(number: int) -> datetime:
    """The instant at which a minute begins."""
    return datetime.fromtimestamp(60 * number, UTC)
