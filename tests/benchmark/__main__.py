"""Compare the tap's speed and memory with those of other taps and of another checkout."""

import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
from server import HOUR, START, start

from tap_noojee.simulator import API_KEY, Simulator

ROOT = Path(__file__).parents[2]
PARTS = ("records", "start-up", "growth", "pace")
SPAWN = multiprocessing.get_context("spawn")
Command = tuple[str | Path, ...]
Taps = dict[str, Path]


def run(command: Command, lines: int = 1) -> tuple[float, float]:
    """Run a command, and return its time in seconds and peak memory in MiB.

    Fewer than `lines` lines of output are an error. On Linux, a new process starts with its
    parent's peak memory, so this process must stay small.
    """
    counted, began = 0, time.perf_counter()
    with tempfile.TemporaryFile() as log:
        clean = {"PATH": os.environ["PATH"]}  # no settings and no proxy
        process = subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout
        while chunk := os.read(process.stdout.fileno(), 2**16):
            counted += chunk.count(b"\n")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or counted < lines:
            log.seek(0)
            raise click.ClickException(f"{command}: {counted} lines\n{log.read().decode()}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def compare(title: str, commands: dict[str, Command], times: int, legs: int = 0) -> None:
    """Run the commands in turn, so that a busy machine slows all alike, and print the medians."""
    rounds = [{n: run(tap, legs or 1) for n, tap in commands.items()} for _ in range(times)]
    click.echo(f"\n{title:40}{'s':>8}{'ratio':>8}{'peak MiB':>10}{'legs/s' if legs else '':>10}")
    first = median(next(iter(results.values()))[0] for results in rounds)
    for name in commands:
        seconds, mib = map(median, zip(*(results[name] for results in rounds), strict=True))
        rate = f"{legs / seconds:10,.0f}" if legs else ""
        click.echo(f"{name:40}{seconds:8.3f}{seconds / first:8.2f}{mib:10.1f}{rate}")


def install(venv: Path, *packages: str | Path) -> Path:
    """Install packages into a new virtual environment, and return its folder of programs."""
    uv, into = os.environ.get("UV", "uv"), ("--compile-bytecode", "--python", venv)
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    subprocess.run([uv, "pip", "install", "-q", *into, *packages], check=True)
    return venv / "bin"


def install_tap(folder: Path, checkout: Path) -> Path:
    """Install a copy of a checkout, because setuptools leaves files where it builds."""
    ignore = shutil.ignore_patterns(".*", "tests", "output", "build", "*.egg-info")
    shutil.copytree(checkout, folder / "copy", ignore=ignore)
    return install(folder / "venv", folder / "copy")


def config(path: Path, **settings: Any) -> tuple[str, Path]:
    """Write a settings file, and return the option for it."""
    path.write_text(json.dumps(settings))
    return "--config", path


def noojee_config(folder: Path, url: str, hours: int, interval: int = 0) -> tuple[str, Path]:
    """Write settings for tap-noojee and the hand-written tap, and return the option for them."""
    dates = {"start_date": START.isoformat(), "end_date": (START + hours * HOUR).isoformat()}
    pace = {"request_interval": interval}
    return config(folder / f"{hours}.json", api_url=url, api_key=API_KEY, **pace, **dates)


def msdk_config(folder: Path, url: str) -> tuple[str, Path]:
    """Write settings for tap-rest-api-msdk that read one day, with each hour as a page.

    This tap cannot POST, does not limit its request rate, and leaves dates and numbers as text.
    """
    fields = json.loads((ROOT / "schemas" / "recordings.json").read_text())["properties"]
    text = {"type": ["string", "null"]}
    schema = {"type": "object", "properties": dict.fromkeys(fields, text)}
    stream = {"name": "recordings", "path": "/retrieveMetaDataByHour", "schema": schema}
    return config(
        folder / "msdk.json",
        api_url=url,
        params={"apiKey": API_KEY, "date": f"{START:%Y/%m/%d}", "hour": "0"},
        pagination_request_style="page_number_paginator",
        pagination_response_style="page",
        pagination_next_page_param="hour",
        pagination_initial_offset=0,
        next_page_token_path="$[0].CallRecordId",  # noqa: S106 - a path
        streams=[stream | {"primary_keys": ["CallRecordId", "Leg"]}],
    )


def compare_records(folder: Path, taps: Taps, peers: Command, times: int, legs: int) -> None:
    other = install(folder / "msdk", "tap-rest-api-msdk", "setuptools<81")  # for pkg_resources
    with SPAWN.Pool(1) as server:
        url = server.apply(start, (24, legs // 24))
        settings = noojee_config(folder, url, 24)
        commands: dict[str, Command] = {name: (tap, *settings) for name, tap in taps.items()}
        commands["hand-written SDK tap"] = *peers, "written", *settings
        commands["tap-rest-api-msdk"] = other / "tap-rest-api-msdk", *msdk_config(folder, url)
        compare("records", commands, times, legs // 24 * 24)


def compare_growth(folder: Path, taps: Taps, times: int) -> None:
    """Compare 10 with 100 days of hours, to find costs that grow with history."""
    with SPAWN.Pool(1) as server:
        url = server.apply(start, (2400, 60))
        few, many = (noojee_config(folder, url, 24 * days) for days in (10, 100))
        commands: dict[str, Command] = {f"{n}, 10 days": (tap, *few) for n, tap in taps.items()}
        commands |= {f"{n}, 100 days": (tap, *many) for n, tap in taps.items()}
        compare("growth", commands, times)


def measure_pace(folder: Path, taps: Taps, requests: int) -> None:
    click.echo(f"\n{'pace':40}{'of limit':>10}{'rejected':>10}")
    for latency, name in itertools.product((0, 0.3, 0.7), taps):
        with Simulator(interval=1, latency=latency) as pbx:
            run((taps[name], *noojee_config(folder, pbx.url, requests, interval=1)))
            served = [request.time for request in pbx.requests if request.status == 200]
        title, rejected = f"{name}, {latency} s a response", len(pbx.requests) - len(served)
        used = (len(served) - 1) / (served[-1] - served[0])
        click.echo(f"{title:40}{used:10.1%}{rejected:10}")


@click.command(context_settings={"show_default": True})
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Another checkout.")
@click.option("--legs", default=200_000, help="Legs in total, in 24 responses.")
@click.option("--times", default=3, help="Runs of each program (start-ups: five times as many).")
@click.option("--requests", default=60, help="Requests in each pace measurement, one a second.")
def main(parts: Sequence[str], against: Path | None, legs: int, times: int, requests: int) -> None:
    """Measure the tap, other taps and another checkout. Default: all parts."""
    parts = parts or PARTS
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        taps = {"tap-noojee": install_tap(folder / "own", ROOT) / "tap-noojee"}
        if against:
            taps[str(against)] = install_tap(folder / "against", against) / "tap-noojee"
        peers = taps["tap-noojee"].with_name("python"), ROOT / "tests/benchmark/peers.py"
        if "records" in parts:
            compare_records(folder, taps, peers, times, legs)
        if "start-up" in parts:
            for option in ("--version", "--discover"):
                commands: dict[str, Command] = {"empty SDK tap": (*peers, "empty", option)}
                commands |= {name: (tap, option) for name, tap in taps.items()}
                compare(option, commands, 5 * times)
        if "growth" in parts:
            compare_growth(folder, taps, times)
        if "pace" in parts:
            measure_pace(folder, taps, requests)


if __name__ == "__main__":
    main()
