"""What a competent engineer would put into cron: hours from a bookmark on, dates in UTC, JSONL."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import requests

ZONE = ZoneInfo("Australia/Melbourne")
BOOKMARK = Path("bookmark.txt")


def to_utc(text: str) -> str:
    """Read `Tue Sep 14 15:03:34 AEST 2021`."""
    head, name, year = text.rsplit(" ", 2)
    local = datetime.strptime(f"{head} {year}", "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007 - below
    fold = 1 if name == "AEST" else 0
    return local.replace(tzinfo=ZONE, fold=fold).astimezone(UTC).isoformat()


url, key, date, hours = sys.argv[1:]
start = datetime.strptime(date, "%Y/%m/%d").replace(tzinfo=ZONE)
end = (start + timedelta(hours=int(hours))).astimezone(UTC)
asked = (
    datetime.fromisoformat(BOOKMARK.read_text()) if BOOKMARK.exists() else start.astimezone(UTC)
)
while asked < end:
    local = asked.astimezone(ZONE)
    params = {"apiKey": key, "date": f"{local:%Y/%m/%d}", "hour": str(local.hour)}
    response = requests.post(url, params=params, timeout=120)
    response.raise_for_status()
    for leg in response.json():
        leg["Start"], leg["callend"] = to_utc(leg["Start"]), to_utc(leg["callend"])
        leg["Duration"], leg["Leg"] = int(leg["Duration"]), int(leg["Leg"])
        sys.stdout.write(json.dumps(leg) + "\n")
    sys.stdout.flush()
    asked += timedelta(hours=1)
    BOOKMARK.write_text(asked.isoformat())
