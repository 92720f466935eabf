"""The PBX that the benchmark reads from: a process of its own, which ends with its input.

It prints its URL in a line and, when its input has ended, the requests that it counted.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from tap_noojee.simulator import Simulator, legs
from tap_noojee.simulator.calls import MELBOURNE

if TYPE_CHECKING:
    from tap_noojee.simulator import Leg

ZONE = ZoneInfo(MELBOURNE)


def invent(start: datetime, hours: int, total: int) -> list[Leg]:
    """Legs as a call centre has them at each time of the day, some `total` of them."""
    end = start + timedelta(hours=hours)
    few = len(legs(start, end, zone=ZONE)) or 1
    return legs(start, end, zone=ZONE, volume=total / few)


def invent_even(start: datetime, hours: int, total: int) -> list[Leg]:
    """As many legs in each hour, `total` of them."""
    found = invent(start, hours, round(total * 1.1))[:total]
    ends = (start + timedelta(seconds=k * hours * 3600 // total) for k in range(total))
    return [
        replace(leg, start=end - (leg.callend - leg.start), callend=end)
        for leg, end in zip(found, ends, strict=True)
    ]


class Stub(BaseHTTPRequestHandler):
    """Serves what was rendered beforehand, so that it takes next to no time."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answers: ClassVar[dict[tuple[str, str], bytes]] = {}

    def do_POST(self) -> None:
        """Answer, whatever the key."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(urlsplit(self.path).query))
        body = self.answers.get((query["date"], query["hour"]), b"[]")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # The PBX takes none. It is for those who can send nothing else.
    do_GET = do_POST  # noqa: N815 - the name is the server's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - likewise
        """Say nothing."""


def render(found: list[Leg]) -> dict[tuple[str, str], bytes]:
    """All answers, by date and hour as they are asked for; by record, not by end."""
    answers = defaultdict(list)
    for leg in sorted(found, key=lambda leg: (int(leg.call_record_id), leg.leg)):
        local = leg.callend.astimezone(ZONE)
        answers[f"{local:%Y/%m/%d}", str(local.hour)].append(leg.record(ZONE))
    return {hour: json.dumps(records).encode() for hour, records in answers.items()}


def say(**facts: object) -> None:
    """Answer the benchmark in a line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the input ends."""
    plan = json.loads(sys.argv[1])
    start = datetime.fromisoformat(plan["start"]).replace(tzinfo=ZONE).astimezone(UTC)
    found = (invent_even if plan["even"] else invent)(start, plan["hours"], plan["legs"])
    if plan["interval"]:
        # The answers are found in no time, so that latency is all the time that it takes.
        with Simulator(legs=found, interval=plan["interval"], **plan["options"]) as simulator:
            say(url=simulator.url, key=simulator.api_key, legs=len(found))
            sys.stdin.read()
            say(requests=[request._asdict() for request in simulator.requests])
        return
    Stub.answers = render(found)
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        size = sum(map(len, Stub.answers.values()))
        url = f"http://127.0.0.1:{server.server_port}"
        say(url=url, key="benchmark", legs=len(found), bytes=size)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
