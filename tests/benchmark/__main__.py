"""How punctual, fast and lean the tap is, next to other ways to read the same API.

    uv run --extra simulator python tests/benchmark

--help says how to run a part of it, and smaller. Everything runs on this machine: the tap and its
peers, each in a virtual environment of its own that uv makes in --cache, against a server in
another process. Besides the table, all figures of all runs are written to --output as JSON.

The parts:

pace      the share of the calls that the PBX would have taken. It takes a call that arrives no
          sooner than the interval after the last one that it took.
records   legs a second, start-up and all, and the peak memory of the whole process; peers take
          turns, once into a pipe and once into /dev/null, and the median counts.
start-up  --version and --discover, next to a tap of one empty stream on the same SDK.
growth    peak memory and time an hour for more and more hours.

Figures of a machine that is busy otherwise are worth little: the load is printed with them.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MONDAY = "2021-06-07"
MEBIBYTE = 2**20
PARTS = ("pace", "records", "start-up", "growth")


# --- Processes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a process took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    lines: int = 0
    bytes: int = 0


def run(command: Sequence[str | Path], folder: Path, *, piped: bool = False) -> Run:
    """Run a command to its end, into /dev/null or into a pipe whose lines are counted.

    Linux hands on the peak memory of a process to its children as theirs. So whatever runs here
    must stay smaller than what is measured: nothing large is imported or read.
    """
    lines = size = 0
    with (folder / "stderr.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
            stderr=log,
        )
        if process.stdout:
            while chunk := os.read(process.stdout.fileno(), 2**16):
                size += len(chunk)
                lines += chunk.count(b"\n")
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.stdout:
        process.stdout.close()
    if process.returncode:
        tail = (folder / "stderr.log").read_text()[-2000:]
        raise click.ClickException(f"{command[0]} ended with {process.returncode}:\n{tail}")
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= usage.ru_maxrss:
        raise click.ClickException("the benchmark itself has become larger than what it measures")
    unit = 1 if sys.platform == "darwin" else 1024
    peak = usage.ru_maxrss * unit / MEBIBYTE
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak, lines, size)


def environment() -> dict[str, str]:
    """This environment without what would change how the tap and its peers run."""
    prefixes = ("TAP_", "LOGLEVEL", "SINGER_SDK_", "PYTHON", "VIRTUAL_ENV")
    rest = {n: v for n, v in os.environ.items() if not n.startswith(prefixes)}
    local = ",".join(filter(None, [rest.get("NO_PROXY"), "127.0.0.1"]))
    return rest | {
        "NO_PROXY": local,
        "no_proxy": local,
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
    }


@dataclass(frozen=True)
class Pbx:
    """A server, as long as it runs."""

    url: str
    key: str
    legs: int
    end: Callable[[], str]
    """Ends it; gives what it said last."""


@contextmanager
def pbx(
    hours: int, legs: int, *, even: bool = False, interval: int = 0, **options: Any
) -> Iterator[Pbx]:
    """Serve so many legs in so many hours."""
    plan = {
        "start": MONDAY,
        "hours": hours,
        "legs": legs,
        "even": even,
        "interval": interval,
        "options": options,
    }
    command: list[str | Path] = [sys.executable, HERE / "pbx.py", json.dumps(plan)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            facts = json.loads(process.stdout.readline())
            yield Pbx(facts["url"], facts["key"], facts["legs"], lambda: process.communicate()[0])
        finally:
            process.stdin.close()


# --- The tap and its peers -----------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is to be read."""

    pbx: Pbx
    hours: int
    interval: int = 0

    @property
    def api(self) -> str:
        """Where the PBX has its API."""
        return f"{self.pbx.url}/njadmin/rest/RecordingAPI"

    @property
    def config(self) -> dict[str, Any]:
        """Settings of tap-noojee, and of the SDK tap that was written by hand."""
        return {
            "api_url": self.api,
            "api_key": self.pbx.key,
            "start_date": f"{self._wall(0)}+10:00",
            "end_date": f"{self._wall(self.hours)}+10:00",
        }

    def _wall(self, hours: int) -> str:
        return (datetime.fromisoformat(MONDAY) + timedelta(hours=hours)).isoformat()


@dataclass(frozen=True)
class Peer:
    """A way to read the API."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, Path, Task], list[str | Path]]
    """Made for its environment's `bin`, a folder for its files, and what is to be read."""
    to_files: bool = False


def script(file: str) -> Callable[[Path, Path, Task], list[str | Path]]:
    """Make the command of a peer that takes it all as arguments."""

    def command(binaries: Path, _: Path, task: Task) -> list[str | Path]:
        url = f"{task.api}/retrieveMetaDataByHour"
        date = MONDAY.replace("-", "/")
        return [
            binaries / "python",
            HERE / "peers" / file,
            url,
            task.pbx.key,
            date,
            str(task.hours),
        ]

    return command


def noojee(binaries: Path, folder: Path, task: Task) -> list[str | Path]:
    """Make the command of the tap."""
    config = task.config | {"request_interval": task.interval}
    return [binaries / "tap-noojee", "--config", write(folder / "config.json", config)]


def written(binaries: Path, folder: Path, task: Task) -> list[str | Path]:
    """Make the command of the SDK tap that was written by hand."""
    file = HERE / "peers" / "tap_written.py"
    return [binaries / "python", file, "--config", write(folder / "config.json", task.config)]


def rest_api_msdk(binaries: Path, folder: Path, task: Task) -> list[str | Path]:
    """Make the command of tap-rest-api-msdk, configured as well as it can be for this API.

    It comes close, but with a server that takes GET: it has no other method. It cannot go from one
    day to the next; the hours are taken for the pages of one day, which ends at the first hour
    without a leg (a page number has no end of its own). It leaves dates and numbers as text, so
    that its bookmark could not be compared with anything, and it has no pace.
    """
    schema = json.loads((ROOT / "schemas" / "recordings.json").read_text())
    text = {"type": ["string", "null"]}
    config = {
        "api_url": task.api,
        "params": {"apiKey": task.pbx.key, "date": MONDAY.replace("-", "/"), "hour": "0"},
        "pagination_request_style": "page_number_paginator",
        "pagination_response_style": "page",
        "pagination_next_page_param": "hour",
        "pagination_initial_offset": 0,
        "next_page_token_path": "$[0].CallRecordId",
        "streams": [
            {
                "name": "recordings",
                "path": "/retrieveMetaDataByHour",
                "primary_keys": ["CallRecordId", "Leg"],
                "schema": str(
                    write(
                        folder / "schema.json",
                        {
                            "type": "object",
                            "properties": dict.fromkeys(schema["properties"], text),
                        },
                    )
                ),
            }
        ],
    }
    return [binaries / "tap-rest-api-msdk", "--config", write(folder / "config.json", config)]


def airbyte(binaries: Path, folder: Path, task: Task) -> list[str | Path]:
    """Make the command of a source of Airbyte's low-code CDK."""
    day = MONDAY.replace("-", "/")
    config = {"start": f"{day} 00:00:00", "end": f"{day} {task.hours - 1:02}:59:59"}
    stream = {
        "name": "recordings",
        "json_schema": {},
        "supported_sync_modes": ["full_refresh", "incremental"],
    }
    selected = {
        "stream": stream,
        "sync_mode": "incremental",
        "destination_sync_mode": "append",
    }
    return [
        *(binaries / "source-declarative-manifest", "read"),
        *("--manifest-path", HERE / "peers" / "airbyte.yaml"),
        *("--config", write(folder / "config.json", task.config | config)),
        *("--catalog", write(folder / "catalog.json", {"streams": [selected]})),
    ]


TAP = Peer("tap-noojee", (), noojee)
PEERS = (
    TAP,
    Peer("bare loop (requests, json)", ("requests",), script("bare.py")),
    Peer("bare loop (requests, msgspec)", ("requests", "msgspec"), script("bare_msgspec.py")),
    Peer("cron script", ("requests",), script("cron.py")),
    # Its old SDK imports pkg_resources, without asking for it.
    Peer("tap-rest-api-msdk", ("tap-rest-api-msdk", "setuptools<81"), rest_api_msdk),
    Peer("SDK tap written by hand", ("singer-sdk",), written),
    Peer("dlt resource", ("dlt", "requests"), script("dlt_pipeline.py"), to_files=True),
    Peer("Airbyte CDK manifest", ("airbyte-cdk",), airbyte),
)


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write a file of JSON."""
    path.write_text(json.dumps(content))
    return path


class Environments:
    """The virtual environments, made where they are missing."""

    def __init__(self, cache: Path) -> None:
        """Keep them in this folder."""
        self._cache = cache
        beside = Path(sys.executable).with_name("uv")
        uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
        if not uv:
            raise click.ClickException("there is no uv on the PATH")
        self._uv = uv
        self.versions: dict[str, dict[str, str]] = {}

    def binaries(self, peer: Peer) -> Path:
        """Install a peer; the same version of the SDK for all that name it."""
        venv = self._cache / peer.name.replace(" ", "-")
        binaries = venv / "bin"
        if peer.name in self.versions:
            return binaries
        if not (binaries / "python").exists():
            self._call("venv", "--python", sys.executable, str(venv))
        if peer is TAP:
            self._install_tap(venv)
        else:
            sdk = self.versions.get(TAP.name, {}).get("singer-sdk")
            packages = [f"{p}=={sdk}" if p == "singer-sdk" else p for p in peer.packages]
            self._install(venv, *packages)
        listed = json.loads(self._call("pip", "list", "--format=json", "--python", str(venv)))
        self.versions[peer.name] = {p["name"]: p["version"] for p in listed}
        return binaries

    def _install_tap(self, venv: Path) -> None:
        """Install the tap as its users do: not editable, and without a trace in the project."""
        with tempfile.TemporaryDirectory() as copy:
            for name in ("tap_noojee", "schemas"):
                shutil.copytree(ROOT / name, Path(copy, name))
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, copy)
            self._install(venv, "--reinstall-package", "tap-noojee", copy)
        # Beside it, so that both start in the very same environment.
        (site,) = venv.glob("lib/python*/site-packages")
        shutil.copy(HERE / "peers" / "tap_empty.py", site)

    def _install(self, venv: Path, *packages: str) -> None:
        self._call("pip", "install", "--compile-bytecode", "--python", str(venv), *packages)

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([self._uv, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"uv {' '.join(arguments)}:\n{done.stderr}")
        return done.stdout


# --- The parts -----------------------------------------------------------------------------------


@dataclass
class Report:
    """What was found out."""

    figures: dict[str, Any] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; the first column is on the left."""
        texts = [list(head), *([str(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in texts
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        progress("")
        click.echo("\n".join(lines) + "\n")

    def target(self, name: str, figure: float, target: float, *, most: bool = False) -> None:
        """Hold a figure against the least, or most, that it should be."""
        met = figure <= target if most else figure >= target
        self.targets.append(
            {"name": name, "figure": figure, "target": target, "most": most, "met": met}
        )


PBXES = (
    ("arrival", 0.005),
    ("arrival", 0.3),
    ("arrival", 0.7),
    ("answer", 0.3),
)
"""What a PBX may count its interval from, and how long it may take to answer."""


def measure_pace(report: Report, environments: Environments, hours: int) -> None:
    """See how many of the calls that the PBX would take are made."""
    binaries = environments.binaries(TAP)
    interval = 1
    rows = []
    for counts_from, latency in PBXES:
        options: dict[str, Any] = {"latency": latency, "counts_from": counts_from}
        with folder() as at, pbx(hours, 20 * hours, interval=interval, **options) as server:
            run(TAP.command(binaries, at, Task(server, hours, interval)), at)
            requests = json.loads(server.end())["requests"]
        taken = [request["time"] for request in requests if request["status"] == 200]
        rejected = len(requests) - len(taken)
        apart = [later - earlier for earlier, later in itertools.pairwise(taken)]
        allowed = interval + (latency if counts_from == "answer" else 0)
        share = allowed * len(apart) / sum(apart)
        name = f"counts from {counts_from}, {latency} s an answer"
        report.figures[f"pace, {name}"] = {"rejected": rejected, "share": share, "apart": apart}
        spread = f"{min(apart):.4f} to {max(apart):.4f} s"
        rows.append((name, len(taken), rejected, spread, f"{share:.1%}"))
        if counts_from == "arrival":
            report.target(f"pace, {name}: share of the calls allowed", share, 0.97)
        limit = 0 if counts_from == "arrival" else 1
        report.target(f"pace, {name}: calls rejected", rejected, limit, most=True)
    head = ("pace: one call a second", "calls", "rejected", "apart", "share of the calls allowed")
    report.table(head, rows)


def measure_records(
    report: Report,
    environments: Environments,
    peers: Sequence[Peer],
    legs: int,
    repetitions: int,
) -> None:
    """Read the same legs in all ways."""
    hours = 24
    runs: dict[str, dict[str, list[Run]]] = {p.name: {"pipe": [], "null": []} for p in peers}
    binaries = {peer.name: environments.binaries(peer) for peer in peers}
    with pbx(hours, legs, even=True) as server:
        for repetition in range(repetitions):
            for peer in peers:
                for sink, done in runs[peer.name].items():
                    progress(f"records {repetition + 1}/{repetitions}: {peer.name}, {sink}")
                    with folder() as at:
                        command = peer.command(binaries[peer.name], at, Task(server, hours))
                        result = run(command, at, piped=sink == "pipe")
                        check(peer, result, at, legs if sink == "pipe" else 0)
                    done.append(result)
    rate = {
        name: {sink: legs / median(r.seconds for r in done) for sink, done in sinks.items()}
        for name, sinks in runs.items()
    }
    peak = {
        name: median(r.peak_mib for done in sinks.values() for r in done)
        for name, sinks in runs.items()
    }
    cpu = {name: median(r.cpu_seconds for r in sinks["null"]) for name, sinks in runs.items()}
    report.figures["records"] = {
        "legs": legs,
        "hours": hours,
        "per_second": rate,
        "cpu_seconds": cpu,
        "peak_mib": peak,
        "runs": {
            name: {sink: [asdict(r) for r in done] for sink, done in sinks.items()}
            for name, sinks in runs.items()
        },
    }
    own = rate.get(TAP.name)
    report.table(
        (
            f"{legs:,} legs in {hours} answers",
            *("legs/s, pipe", "legs/s, null", "tap-noojee is", "by CPU", "CPU s", "peak MiB"),
        ),
        [
            (
                peer.name,
                "to files" if peer.to_files else f"{rate[peer.name]['pipe']:,.0f}",
                f"{rate[peer.name]['null']:,.0f}",
                f"{own['null'] / rate[peer.name]['null']:.2f} x" if own else "",
                f"{cpu[peer.name] / cpu[TAP.name]:.2f} x" if own else "",
                f"{cpu[peer.name]:.2f}",
                f"{peak[peer.name]:.1f}",
            )
            for peer in peers
        ],
    )
    if not own:
        return
    for name, target in (("tap-rest-api-msdk", 2.5), ("SDK tap written by hand", 3)):
        if name in rate:
            for sink, figure in rate[name].items():
                report.target(f"records: x {name}, {sink}", own[sink] / figure, target)
    report.target("records: peak MiB", peak[TAP.name], 80, most=True)


def check(peer: Peer, result: Run, at: Path, legs: int) -> None:
    """Make sure that a peer did it all: a line for each leg."""
    lines = result.lines
    if peer.to_files:
        lines = 0
        for path in at.glob("loaded/noojee/recordings/*.jsonl"):
            with path.open("rb") as file:
                lines += sum(1 for _ in file)
    if lines < legs:
        raise click.ClickException(f"{peer.name}: {lines} lines for {legs} legs")


def measure_start(report: Report, environments: Environments, repetitions: int) -> None:
    """Start the tap and an empty one, in the same environment and the same way."""
    python = environments.binaries(TAP) / "python"
    modules = ("tap_noojee", "tap_empty")
    figures: dict[str, Any] = {}
    rows = []
    for option in ("--version", "--discover"):
        runs: dict[str, list[Run]] = {module: [] for module in modules}
        with folder() as at:
            # The first of each is not counted: it fills the caches.
            for repetition in range(repetitions + 1):
                progress(f"start-up {repetition}/{repetitions}: {option}")
                for module in modules:
                    result = run([python, "-m", module, option], at)
                    runs[module].extend([result] if repetition else [])
        own, empty = (median(r.seconds for r in runs[module]) for module in modules)
        cpu, cpu_empty = (median(r.cpu_seconds for r in runs[module]) for module in modules)
        figures[option] = {
            "ratio": own / empty,
            "cpu_ratio": cpu / cpu_empty,
            "runs": {module: [asdict(r) for r in runs[module]] for module in modules},
        }
        rows.append(
            (option, f"{own:.3f}", f"{empty:.3f}", f"{own / empty:.3f}", f"{cpu / cpu_empty:.3f}")
        )
        report.target(f"start-up: {option}, ratio", own / empty, 1.15, most=True)
    report.figures["start-up"] = figures
    report.table(
        (f"start-up, median of {repetitions}", "tap-noojee s", "empty tap s", "ratio", "CPU"), rows
    )


def measure_growth(
    report: Report, environments: Environments, days: Sequence[int], repetitions: int
) -> None:
    """Read more and more hours, with some 2,000 legs a weekday."""
    binaries = environments.binaries(TAP)
    runs: dict[int, list[Run]] = {many: [] for many in days}
    with pbx(24 * max(days), 1_500 * max(days)) as server:
        for repetition in range(repetitions):
            for many, done in runs.items():
                progress(f"growth {repetition + 1}/{repetitions}: {many} days")
                with folder() as at:
                    command = TAP.command(binaries, at, Task(server, 24 * many))
                    done.append(run(command, at, piped=True))
    peak = {many: median(r.peak_mib for r in done) for many, done in runs.items()}
    seconds = {many: median(r.seconds for r in done) for many, done in runs.items()}
    least = min(days)
    report.figures["growth"] = {
        "peak_mib": peak,
        "seconds": seconds,
        "runs": {many: [asdict(r) for r in done] for many, done in runs.items()},
    }
    report.table(
        ("growth", "hours", "lines", "peak MiB", "s", "ms an hour, after the first"),
        [
            (
                f"{many} days",
                24 * many,
                runs[many][0].lines,
                f"{peak[many]:.1f}",
                f"{seconds[many]:.2f}",
                f"{1000 * (seconds[many] - seconds[least]) / (24 * (many - least)):.2f}"
                if many > least
                else "",
            )
            for many in days
        ],
    )
    report.target(
        "growth: MiB between the peaks", max(peak.values()) - min(peak.values()), 5, most=True
    )


def median(figures: Iterator[float]) -> float:
    """The middle one."""
    return statistics.median(figures)


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for a run's files."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def progress(text: str) -> None:
    """Tell what is going on, where somebody looks."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


# --- The command line ----------------------------------------------------------------------------


@click.command(context_settings={"show_default": True})
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS)
@click.option(
    "--peer",
    "names",
    type=click.Choice([p.name for p in PEERS]),
    multiple=True,
    default=[p.name for p in PEERS],
    help="Of the part records.",
)
@click.option(
    "--pace-hours",
    type=click.IntRange(2),
    default=60,
    help="A second each, and more, for each of four PBXs.",
)
@click.option("--legs", type=click.IntRange(24), default=200_000, help="Of the part records.")
@click.option("--repetitions", type=click.IntRange(1), default=5)
@click.option("--starts", type=click.IntRange(1), default=21, help="Of each kind.")
@click.option("--days", type=click.IntRange(1), multiple=True, default=[1, 10, 100])
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path.home() / ".cache" / "tap-noojee-benchmark",
    help="For the virtual environments.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ROOT / "output" / "benchmark.json",
)
def main(  # noqa: PLR0913 - an option each
    *,
    parts: Sequence[str],
    names: Sequence[str],
    pace_hours: int,
    legs: int,
    repetitions: int,
    starts: int,
    days: Sequence[int],
    cache: Path,
    output: Path,
) -> None:
    """Measure the tap next to other ways to read the same API."""
    report = Report()
    environments = Environments(cache)
    peers = [peer for peer in PEERS if peer.name in names]
    load = {"before": os.getloadavg()[0]}
    measures: dict[str, Callable[[], None]] = {
        "pace": lambda: measure_pace(report, environments, pace_hours),
        "records": lambda: measure_records(report, environments, peers, legs, repetitions),
        "start-up": lambda: measure_start(report, environments, starts),
        "growth": lambda: measure_growth(report, environments, sorted(days), repetitions),
    }
    for part in PARTS:
        if part in parts:
            measures[part]()
    load["after"] = os.getloadavg()[0]
    report.table(
        ("target", "figure", "should be", ""),
        [
            (
                target["name"],
                f"{target['figure']:.3f}",
                f"{'<=' if target['most'] else '>='} {target['target']}",
                "met" if target["met"] else "MISSED",
            )
            for target in report.targets
        ],
    )
    loads = ", ".join(f"{when} {figure:.1f}" for when, figure in load.items())
    click.echo(f"load of {os.cpu_count()} CPUs: {loads}")
    output.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version,
        "cpus": os.cpu_count(),
        "load": load,
        "versions": environments.versions,
        "targets": report.targets,
    }
    output.write_text(json.dumps(facts | report.figures, indent=2) + "\n")
    click.echo(f"all figures: {output}")


if __name__ == "__main__":
    main()
