"""The same with the fastest decoder and encoder of JSON."""

from __future__ import annotations

import sys

import msgspec
import requests

url, key, date, hours = sys.argv[1:]
for hour in range(int(hours)):
    answer = requests.post(
        url, params={"apiKey": key, "date": date, "hour": str(hour)}, timeout=120
    )
    for leg in msgspec.json.decode(answer.content):
        sys.stdout.buffer.write(msgspec.json.encode(leg) + b"\n")
