"""The command `noojee-simulator`."""

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import click

from tap_noojee.simulator.calls import MELBOURNE, DateFormat
from tap_noojee.simulator.failures import FORM, KINDS, Failure
from tap_noojee.simulator.server import API_KEY, USER_KEY, YEARS, Fold, Simulator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_START, _END = "TAP_NOOJEE_START_DATE", "TAP_NOOJEE_END_DATE"


def _echo(text: str) -> None:
    click.echo(f"noojee-simulator: {text}", err=True)


def _wrapped_environment(pbx: Simulator, day: datetime) -> dict[str, str]:
    env = os.environ | {
        "TAP_NOOJEE_API_URL": pbx.url,
        "TAP_NOOJEE_API_KEY": pbx.api_key,
        "TAP_NOOJEE_TIMEZONE": pbx.timezone,
        "TAP_NOOJEE_REQUEST_INTERVAL": str(math.ceil(pbx.interval)),
    }
    if not env.get(_START):
        env[_START] = f"{day:%Y-%m-%d}"
        env[_END] = env.get(_END) or f"{day + timedelta(days=1):%Y-%m-%d}"
    # Some clients read one spelling first, some the other.
    hosts = env.get("no_proxy") or env.get("NO_PROXY")
    env["no_proxy"] = env["NO_PROXY"] = ",".join(filter(None, [hosts, "127.0.0.1,localhost"]))
    return env


def _in_foreground() -> bool:
    """Whether the terminal sends Ctrl-C to this process, and so to the command as well."""
    with suppress(OSError), Path("/dev/tty").open() as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False


def _run(command: tuple[str, ...], env: dict[str, str]) -> int:
    """Run the command, forward signals, and return its exit status as a shell would."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        # The terminal has already sent Ctrl-C to the command, and a second signal could kill it.
        if number == signal.SIGINT and _in_foreground():
            return
        if child:
            child.send_signal(number)
        else:
            early.append(number)

    for signum in _SIGNALS:
        signal.signal(signum, forward)
    try:
        child = subprocess.Popen(command, env=env)  # noqa: S603 - the user's own command
        for number in early:
            child.send_signal(number)
        status = child.wait()
    except OSError as error:
        _echo(f"{command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
    return status if status >= 0 else 128 - status


def _read_zone(_: object, __: object, name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise click.BadParameter(f"{name!r} is not an IANA zone") from None


def _read_failures(_: object, __: object, texts: tuple[str, ...]) -> list[Failure]:
    try:
        return [Failure.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"allow_interspersed_args": False, "show_default": True})
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0 for any free one.")
@click.option("--timezone", default=MELBOURNE, callback=_read_zone, help="The PBX's time zone.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0),
    show_default="60, or 1 with a COMMAND",
    help="Rate limit: minimum seconds between requests; 0 for no limit.",
)
@click.option("--api-key", default=API_KEY, help="Global API key, required in each request.")
@click.option("--user-key", default=USER_KEY, help="User API key, which the PBX rejects with 403.")
@click.option(
    "--dates",
    type=click.Choice(get_args(DateFormat)),
    default="java",
    help="Zone in dates: AEST (java), GMT+10:00 (gmt), none (timestamp), EST all year (old).",
)
@click.option(
    "--fold",
    type=click.Choice(get_args(Fold)),
    default="both",
    help="Which pass of a repeated hour to return.",
)
@click.option(
    "--volume", type=click.FloatRange(0), default=1.0, help="Multiplier for the number of calls."
)
@click.option(
    "--failure",
    "failures",
    multiple=True,
    callback=_read_failures,
    metavar=FORM,
    help="Fail on purpose, for example: reset, status=503@2021-09-14T15, slow=5*3. A bare *"
    f" repeats the failure forever. Kinds: {KINDS}.",
)
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2021-09-14",
    help=f"Day for the COMMAND to read. {_START} and {_END} take precedence if you set them; a"
    " start date alone means no end date.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(
    command: tuple[str, ...],
    day: datetime,
    interval: float | None,
    **options: Any,  # noqa: ANN401 - fields of Simulator
) -> None:
    """Simulate a Noojee Contact PBX with invented calls, on this machine only.

    With a COMMAND (preferably after --), run it with tap-noojee's settings for this PBX in its
    environment, and exit with its status.
    """
    if find_spec("werkzeug") is None:
        clone = "in a clone, run: uv run --extra simulator noojee-simulator"
        _echo(f"werkzeug is missing; {clone}; elsewhere: pip install 'tap-noojee[simulator]'")
        sys.exit(1)
    if not math.isfinite(options["volume"] + (interval or 0)):
        raise click.UsageError("--interval and --volume must be finite numbers")
    if day.year not in YEARS:
        raise click.BadParameter(f"the year must be {YEARS[0]} to {YEARS[-1]}", param_hint="--day")
    if interval is None:
        interval = 1 if command else 60
    if not command:
        # Block the signals before the first thread starts, so that only sigwait gets them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    status = 0
    with Simulator(interval=interval, **options) as pbx:
        if command:
            env = _wrapped_environment(pbx, day)
            period = f"from {env[_START]}" + (f" until {env[_END]}" if env.get(_END) else "")
            _echo(f"{pbx.url} simulates a PBX in {pbx.timezone}; reading {period}")
            status = _run(command, env)
        else:
            _echo(f"{pbx.url} is ready; Global API key: {pbx.api_key}; stop with Ctrl-C")
            _echo(f"the User API key {pbx.user_key} cannot read recordings: it gets a 403")
            signal.sigwait(_SIGNALS)
    counts = Counter(str(request.status or "no response") for request in pbx.requests)
    statuses = ", ".join(f"{counts[status]} x {status}" for status in sorted(counts)) or "none"
    failed = sum(request.failure is not None for request in pbx.requests)
    _echo(f"responses by status: {statuses}; {failed} failed on purpose")
    sys.exit(status)
