"""Two taps to compare with: an empty one, and one in the style of the SDK's cookiecutter."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from singer_sdk import RESTStream, Stream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import BaseAPIPaginator
from typing_extensions import override

ZONE = ZoneInfo("Australia/Melbourne")


class EmptyStream(Stream):
    name = "empty"
    schema = th.PropertiesList(th.Property("id", th.StringType)).to_dict()

    @override
    def get_records(self, context: Any) -> tuple[()]:
        return ()


class HourPaginator(BaseAPIPaginator[datetime]):
    end: datetime

    @override
    def get_next(self, response: Any) -> datetime | None:
        following = self.current_value + timedelta(hours=1)
        return following if following < self.end else None


class RecordingsStream(RESTStream[datetime]):
    name = "recordings"
    path = "/retrieveMetaDataByHour"
    http_method = "POST"
    primary_keys = ("CallRecordId", "Leg")
    replication_key = "callend"
    schema = json.loads((Path(__file__).parents[2] / "schemas/recordings.json").read_text())

    @property
    @override
    def url_base(self) -> str:
        return str(self.config["api_url"])

    @override
    def get_new_paginator(self) -> HourPaginator:
        paginator = HourPaginator(self.get_starting_timestamp(None) or datetime.now(UTC))
        paginator.end = datetime.fromisoformat(self.config["end_date"])
        return paginator

    @override
    def get_url_params(self, context: Any, next_page_token: datetime | None) -> dict[str, Any]:
        local = (next_page_token or datetime.now(UTC)).astimezone(ZONE)
        return {"apiKey": self.config["api_key"], "date": f"{local:%Y/%m/%d}", "hour": local.hour}

    @override
    def post_process(self, row: dict[str, Any], context: Any = None) -> dict[str, Any]:
        for field in ("Start", "callend"):
            head, name, year = row[field].rsplit(" ", 2)
            local = datetime.strptime(f"{head} {year}", "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007
            local = local.replace(tzinfo=ZONE, fold=int(name == "AEST"))
            row[field] = local.astimezone(UTC).isoformat()
        return row | {"Duration": int(row["Duration"]), "Leg": int(row["Leg"])}


class TapPeer(Tap):
    name = "tap-peer"
    package_name = "singer-sdk"  # --version looks it up
    config_jsonschema = th.PropertiesList().to_dict()

    @override
    def discover_streams(self) -> list[Stream]:
        return [STREAM(self)]


if __name__ == "__main__":
    STREAM = {"empty": EmptyStream, "written": RecordingsStream}[sys.argv.pop(1)]
    TapPeer.cli()
