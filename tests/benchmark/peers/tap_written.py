"""A tap written by hand on the SDK, as its cookiecutter template and its guides lead to it."""

from __future__ import annotations

import decimal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import APIKeyAuthenticator
from singer_sdk.helpers.jsonpath import extract_jsonpath
from singer_sdk.pagination import BaseAPIPaginator
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable

    import requests
    from singer_sdk.helpers.types import Context

ZONE = ZoneInfo("Australia/Melbourne")


class HourPaginator(BaseAPIPaginator[datetime]):
    """One hour after another."""

    def __init__(self, start: datetime, end: datetime) -> None:
        """Take the first hour, and the end of the last."""
        super().__init__(start)
        self._end = end

    @override
    def get_next(self, response: requests.Response) -> datetime | None:
        following = self.current_value + timedelta(hours=1)
        return following if following < self._end else None


class RecordingsStream(RESTStream[datetime]):
    """Legs of recorded calls."""

    name = "recordings"
    path = "/retrieveMetaDataByHour"
    http_method = "POST"
    primary_keys = ("CallRecordId", "Leg")
    replication_key = "callend"
    records_jsonpath = "$[*]"
    schema = th.PropertiesList(
        th.Property("callend", th.DateTimeType),
        th.Property("CallRecordId", th.StringType),
        th.Property("DID", th.StringType),
        th.Property("Destination", th.StringType),
        th.Property("Direction", th.StringType),
        th.Property("Duration", th.IntegerType),
        th.Property("Leg", th.IntegerType),
        th.Property("Source", th.StringType),
        th.Property("Start", th.DateTimeType),
        th.Property("Tag", th.StringType),
        th.Property("UniqueId", th.StringType),
        th.Property("Username", th.StringType),
    ).to_dict()

    @property
    @override
    def url_base(self) -> str:
        return str(self.config["api_url"])

    @property
    @override
    def authenticator(self) -> APIKeyAuthenticator:
        return APIKeyAuthenticator(key="apiKey", value=self.config["api_key"], location="params")

    @override
    def get_new_paginator(self) -> HourPaginator:
        start = self.get_starting_timestamp(None) or datetime.now(UTC)
        return HourPaginator(start, datetime.fromisoformat(self.config["end_date"]))

    @override
    def get_url_params(
        self, context: Context | None, next_page_token: datetime | None
    ) -> dict[str, Any]:
        local = (next_page_token or datetime.now(UTC)).astimezone(ZONE)
        return {"date": f"{local:%Y/%m/%d}", "hour": local.hour}

    @override
    def parse_response(self, response: requests.Response) -> Iterable[dict[str, Any]]:
        yield from extract_jsonpath(
            self.records_jsonpath, input=response.json(parse_float=decimal.Decimal)
        )

    @override
    def post_process(
        self, row: dict[str, Any], context: Context | None = None
    ) -> dict[str, Any] | None:
        for field in ("Start", "callend"):
            head, name, year = row[field].rsplit(" ", 2)
            local = datetime.strptime(f"{head} {year}", "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007
            moment = local.replace(tzinfo=ZONE, fold=1 if name == "AEST" else 0)
            row[field] = moment.astimezone(UTC).isoformat()
        row["Duration"], row["Leg"] = int(row["Duration"]), int(row["Leg"])
        return row


class TapWritten(Tap):
    """The tap."""

    name = "tap-written"
    config_jsonschema = th.PropertiesList(
        th.Property("api_url", th.StringType, required=True),
        th.Property("api_key", th.StringType, required=True, secret=True),
        th.Property("start_date", th.DateTimeType),
        th.Property("end_date", th.DateTimeType),
    ).to_dict()

    @override
    def discover_streams(self) -> list[RecordingsStream]:
        return [RecordingsStream(self)]


if __name__ == "__main__":
    TapWritten.cli()
