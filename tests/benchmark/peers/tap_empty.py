"""The least tap on the SDK: one stream, of nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context


class EmptyStream(Stream):
    """Nothing."""

    name = "empty"
    schema = th.PropertiesList(th.Property("id", th.StringType)).to_dict()

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        return ()


class TapEmpty(Tap):
    """The tap."""

    name = "tap-empty"
    # So that there is a version to look up.
    package_name = "singer-sdk"
    config_jsonschema = th.PropertiesList().to_dict()

    @override
    def discover_streams(self) -> list[EmptyStream]:
        return [EmptyStream(self)]


if __name__ == "__main__":
    TapEmpty.cli()
