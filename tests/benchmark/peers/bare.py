"""The least there is to do: ask, decode, write. Nothing is checked, converted or remembered."""

from __future__ import annotations

import json
import sys

import requests

url, key, date, hours = sys.argv[1:]
for hour in range(int(hours)):
    answer = requests.post(
        url, params={"apiKey": key, "date": date, "hour": str(hour)}, timeout=120
    )
    for leg in answer.json():
        sys.stdout.write(json.dumps(leg) + "\n")
