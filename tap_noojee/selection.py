"""The user's choice of fields: catalogs and stream maps."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from singer_sdk.singerlib import Catalog, CatalogEntry, MetadataMapping, Schema
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL

from tap_noojee.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tap_noojee.streams import RecordingsStream

_HINT = "create one with `tap-noojee --discover`"


def select_fields(catalog: Mapping[str, Any], stream: type[RecordingsStream]) -> Catalog:
    """A catalog with the fields selected in another one, and nothing else of that one.

    Raises:
        CatalogError: The catalog is unreadable or lacks the stream.
    """
    name, schema = stream.name, stream.schema
    metadata = MetadataMapping.get_standard_metadata(
        schema=schema,
        key_properties=stream.primary_keys,
        valid_replication_keys=[stream.replication_key],
        replication_method=REPLICATION_INCREMENTAL,
    )
    try:
        streams = {entry.get("tap_stream_id"): entry for entry in catalog.get("streams", [])}
        if name not in streams:
            raise CatalogError(f"catalog: has no stream {name!r}: {_HINT}")
        mask = CatalogEntry.from_dict(streams[name]).metadata.resolve_selection()
        listed = streams[name].get("schema", schema).get("properties", {})
        metadata.root.selected = mask[()]
        for field in schema["properties"]:
            breadcrumb = ("properties", field)
            metadata[breadcrumb].selected = field in listed and mask[breadcrumb]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"catalog: is unreadable ({type(error).__name__}: {error}): {_HINT}"
        ) from None
    entry = CatalogEntry(
        tap_stream_id=name,
        stream=name,
        key_properties=stream.primary_keys,
        replication_key=stream.replication_key,
        replication_method=REPLICATION_INCREMENTAL,
        schema=Schema.from_dict(schema),
        metadata=metadata,
    )
    return Catalog({name: entry})


def check_stream_maps(maps: object, stream: str, fields: Mapping[str, Any]) -> None:
    """Reject stream maps that do nothing, because a name in them is misspelt.

    Raises:
        CatalogError: Without it, phone numbers would leave in the clear.
    """
    if isinstance(maps, dict):
        for problem in _problems(maps, stream, fields):
            raise CatalogError(f"stream_maps: {problem}")


def _problems(maps: Mapping[str, Any], stream: str, fields: Mapping[str, Any]) -> Iterator[str]:
    real_names = {field.lower(): field for field in fields}
    for name, stream_map in maps.items():
        if name.startswith("__"):
            continue
        mapped = stream_map if isinstance(stream_map, dict) else {}
        source = mapped.get("__source__", name)
        if not fnmatch(stream, str(source)):
            yield f"no stream has the name {source!r}: use {stream!r}"
        for field in mapped:
            real = real_names.get(field.lower(), field)
            if field != real:
                yield f"{name}: no field has the name {field!r}: use {real!r}"
