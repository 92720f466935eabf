"""The user's choice of fields: catalogs and stream maps."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any

from singer_sdk.mapper import NULL_STRING
from singer_sdk.singerlib import Catalog, CatalogEntry, MetadataMapping, Schema
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL

from tap_noojee.errors import CatalogError
from tap_noojee.streams import RecordingsStream

_HINT = "create a catalog with `tap-noojee --discover`"

_OPERATORS = ("__alias__", "__else__", "__filter__", "__key_properties__", "__source__")


def select_fields(catalog: Mapping[str, Any]) -> Catalog:
    """Build the tap's own catalog with the user's selection of fields.

    Raises:
        CatalogError: The catalog is unreadable or lacks the stream.
    """
    name, schema = RecordingsStream.name, RecordingsStream.schema
    keys, replication_key = RecordingsStream.primary_keys, RecordingsStream.replication_key
    metadata = MetadataMapping.get_standard_metadata(
        schema=schema,
        key_properties=keys,
        valid_replication_keys=[replication_key],
        replication_method=REPLICATION_INCREMENTAL,
    )
    try:
        streams = {entry.get("tap_stream_id"): entry for entry in catalog.get("streams", [])}
        if name not in streams:
            raise CatalogError(f"catalog: there is no stream {name!r}: {_HINT}")
        user_metadata = CatalogEntry.from_dict(streams[name]).metadata
        for breadcrumb, choice in user_metadata.items():
            field = breadcrumb[-1] if breadcrumb else name
            if choice.selected not in (True, False, None):
                raise CatalogError(f"catalog: {field}: `selected` is not true or false")
            # Ignoring a misspelt name would write the field that the user meant to deselect.
            if breadcrumb and choice.selected is False and field not in schema["properties"]:
                raise CatalogError(f"catalog: there is no field {field!r}: {_HINT}")
        mask = user_metadata.resolve_selection()
        listed = streams[name].get("schema", schema).get("properties", {})
        metadata.root.selected = mask[()]
        for field in schema["properties"]:
            breadcrumb = ("properties", field)
            metadata[breadcrumb].selected = field in listed and mask[breadcrumb]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"catalog: unreadable ({type(error).__name__}: {error}): {_HINT}"
        ) from None
    entry = CatalogEntry(
        tap_stream_id=name,
        stream=name,
        key_properties=keys,
        replication_key=replication_key,
        replication_method=REPLICATION_INCREMENTAL,
        schema=Schema.from_dict(schema),
        metadata=metadata,
    )
    return Catalog({name: entry})


def check_stream_maps(maps: object) -> None:
    """Reject stream maps with misspelt names: ignoring them could expose phone numbers.

    Raises:
        CatalogError: A name matches no stream or field.
    """
    problems = _problems(maps) if isinstance(maps, dict) else ()
    if lines := [f"stream_maps: {problem}" for problem in problems]:
        raise CatalogError(*lines)


def _problems(maps: Mapping[str, Any]) -> Iterator[str]:
    stream = RecordingsStream.name
    for name, stream_map in maps.items():
        if name == "__else__":
            mapped = {name: stream_map}
        else:
            mapped = stream_map if isinstance(stream_map, dict) else {}
            source = mapped.get("__source__", name)
            if not fnmatch(stream, str(source)):
                yield f"there is no stream {source!r}: use {stream!r}"
        for field, expression in mapped.items():
            if problem := _field_problem(field, expression):
                yield f"{name}: {problem}"


def _field_problem(field: str, expression: object) -> str | None:
    fields = RecordingsStream.schema["properties"]
    is_removed = expression in (None, NULL_STRING)
    if field == "__else__" and not is_removed:
        return f"{field!r} can only be null or {NULL_STRING!r}"
    if field in fields or field in _OPERATORS:
        return None
    if field.startswith("__") and field.endswith("__"):
        return f"{field!r} is not one of {', '.join(_OPERATORS)}"
    real_names = {name.lower(): name for name in fields}
    if is_removed or field.lower() in real_names:
        close = get_close_matches(field.lower(), real_names, 1)
        remedy = f"use {real_names[close[0]]!r}" if close else "remove it"
        return f"there is no field {field!r}: {remedy}"
    return None  # any other name adds a field
