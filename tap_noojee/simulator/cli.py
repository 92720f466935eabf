"""The command `noojee-simulator`."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any, get_args
from zoneinfo import ZoneInfo

import click

from tap_noojee.simulator.calls import MELBOURNE, Dates
from tap_noojee.simulator.failures import Failure, Kind
from tap_noojee.simulator.server import API_KEY, Fold, Simulator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _wrapped_environment(simulator: Simulator, day: datetime) -> dict[str, str]:
    env = dict(os.environ)
    env |= {
        "TAP_NOOJEE_API_URL": simulator.url,
        "TAP_NOOJEE_API_KEY": simulator.api_key,
        "TAP_NOOJEE_TIMEZONE": simulator.timezone,
        "TAP_NOOJEE_REQUEST_INTERVAL": str(math.ceil(simulator.interval)),
    }
    if "TAP_NOOJEE_START_DATE" not in env:
        env["TAP_NOOJEE_START_DATE"] = f"{day:%Y-%m-%d}"
        env["TAP_NOOJEE_END_DATE"] = f"{day + timedelta(days=1):%Y-%m-%d}"
    # Clients differ in which spelling they read first: set both, and lose no host of either.
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        hosts = os.environ.get(name) or os.environ.get(other)
        env[name] = ",".join(filter(None, [hosts, "127.0.0.1,localhost"]))
    return env


def _reaches_all() -> bool:
    """Whether Ctrl-C also reaches the wrapped command, as part of the foreground group."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


def _run(command: tuple[str, ...], env: dict[str, str]) -> int:
    """Run the command, forward signals, and return its exit status as a shell would."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        # A second SIGINT would make the command abort.
        if number == signal.SIGINT and _reaches_all():
            return
        (child.send_signal if child else early.append)(number)

    before = {number: signal.signal(number, forward) for number in _SIGNALS}
    try:
        child = subprocess.Popen(command, env=env)  # noqa: S603 - the user's own command
        for number in early:
            child.send_signal(number)
        status = child.wait()
    except OSError as error:
        click.echo(f"noojee-simulator: {command[0]}: {error.strerror}", err=True)
        return 127 if isinstance(error, FileNotFoundError) else 126
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _read_zone(_: object, __: object, name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        message = f"{name!r} is not an IANA zone"
        raise click.BadParameter(message) from error


@click.command(context_settings={"allow_interspersed_args": False, "show_default": True})
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--timezone", default=MELBOURNE, callback=_read_zone, help="Time zone of the PBX's clock."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0),
    show_default="60; with a COMMAND 1",
    help="Rate limit: minimum seconds between requests; 0 for no limit.",
)
@click.option("--api-key", default=API_KEY, help="API key that requests must carry.")
@click.option(
    "--dates", type=click.Choice(get_args(Dates)), default="java", help="Format of the dates."
)
@click.option(
    "--fold",
    type=click.Choice(get_args(Fold)),
    default="both",
    help="Which pass of a repeated hour to return.",
)
@click.option(
    "--volume",
    type=click.FloatRange(min=0),
    default=1.0,
    help="Multiplies the number of calls; 0 for none.",
)
@click.option(
    "--failure",
    "--fault",
    "failures",
    multiple=True,
    type=Failure.parse,
    metavar="KIND[=VALUE][@HOUR][*TIMES]",
    help="Fail on purpose, for example: reset, status=503@2021-09-14T15, slow=5*3; a bare * means"
    f" always. Kinds: {', '.join(get_args(Kind))}.",
)
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2021-09-14",
    help="Day for the COMMAND to read, unless TAP_NOOJEE_START_DATE is set.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(
    command: tuple[str, ...],
    day: datetime,
    interval: float | None,
    **options: Any,  # noqa: ANN401 - Simulator's own, checked by the options above
) -> None:
    """Simulate a Noojee Contact PBX with invented calls, on this machine only.

    With a COMMAND (preferably after --), run it with tap-noojee's settings for this PBX in its
    environment, and exit with its status.
    """
    if find_spec("werkzeug") is None:
        needs = "noojee-simulator needs its extra: pip install 'tap-noojee[simulator]'"
        click.echo(needs, err=True)
        sys.exit(1)
    if interval is None:
        interval = 1 if command else 60
    if not command:
        # Before the first thread starts, so that all inherit it and only sigwait gets them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    status = 0
    with Simulator(interval=interval, **options) as pbx:
        if command:
            status = _run(command, _wrapped_environment(pbx, day))
        else:
            ready = f"{pbx.url} with the key {pbx.api_key}; Ctrl-C stops it"
            click.echo(f"noojee-simulator: {ready}", err=True)
            signal.sigwait(_SIGNALS)
    failed = sum(request.failure is not None for request in pbx.requests)
    served = sum(r.status == HTTPStatus.OK and not r.failure for r in pbx.requests)
    rejected = len(pbx.requests) - served - failed
    counts = f"{served} requests served, {rejected} rejected, {failed} failed on purpose"
    click.echo(f"noojee-simulator: {counts}", err=True)
    sys.exit(status)
