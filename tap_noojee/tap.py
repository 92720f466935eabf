"""The tap: its settings, its streams, its command line."""

from __future__ import annotations

import io
import json
import sys
import traceback
from pathlib import PurePath
from types import NoneType
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk import Tap
from singer_sdk.configuration._dict_config import parse_environment_config
from singer_sdk.exceptions import (
    ConfigValidationError,
    MapExpressionError,
    SingerSDKError,
    StreamMapConfigError,
)
from singer_sdk.helpers._classproperty import classproperty
from singer_sdk.helpers.capabilities import PluginCapabilities
from singer_sdk.plugin_base import SingerCommand
from singer_sdk.singerlib import Catalog
from typing_extensions import override

from tap_noojee import settings
from tap_noojee.coverage import Coverage
from tap_noojee.errors import NoojeeError, SettingsError, StateError
from tap_noojee.secrecy import safe_excerpt
from tap_noojee.streams import RecordingsStream
from tap_noojee.waiting import Clock
from tap_noojee.writer import LineWriter

if TYPE_CHECKING:
    from types import FrameType
    from zoneinfo import ZoneInfo


class NoojeeCommand(SingerCommand):
    """Reports errors that the user can fix in one line, without a traceback."""

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except NoojeeError as error:
            lines = error.args
        except (MapExpressionError, StreamMapConfigError) as error:
            lines = (f"stream_maps: {error} {error.__cause__ or ''}".strip(),)
        except SingerSDKError as error:
            lines = error.args or (type(error).__name__,)
        except Exception as error:
            if not (expression := _failed_expression(error)):
                raise
            # Without the error's own words: a record's values may be in them.
            lines = (f"stream_maps: recordings: {expression} fails: {type(error).__name__}",)
        for line in lines:
            self.logger.error(line)
        sys.exit(1)

    @override
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            # Of what was given, nothing is repeated: the API key may stand in the wrong place.
            param = getattr(error, "param", None)
            what = f"{param.opts[0]}: what was given" if param else "an argument"
        raise NoojeeError(f"command line: {what} cannot be used; see tap-noojee --help")

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except BaseException:
            # `--test` runs amid the parsing, and what fails there leaves click's files open.
            ctx.close()
            raise

    @override
    def invoke(self, ctx: click.Context) -> Any:
        for name in ("state", "catalog"):
            if file := ctx.params.get(name):
                ctx.params[name] = io.StringIO(_read_json_object(name, file))
        return super().invoke(ctx)


def _read_json_object(name: str, file: IO[str]) -> str:
    try:
        text = file.read()
        if isinstance(json.loads(text), dict):
            return text
        reason = "is not a JSON object"
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError:
        reason = "is not JSON"
    raise NoojeeError(f"{name}: the file {reason}")


def _failed_expression(error: Exception) -> str | None:
    """The expression of a stream map that raised the error, if one did."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "singer_sdk.mapper" and "expr" in frame.f_locals:
            return repr(frame.f_locals["expr"])
    return None


class TapNoojee(Tap):
    """Singer tap for the call recordings of a Noojee Contact PBX."""

    name = "tap-noojee"
    message_writer_class = LineWriter
    config_jsonschema = settings.SCHEMA

    # A batch's STATE would be handed over before its records.
    capabilities: ClassVar = [
        capability for capability in Tap.capabilities if capability is not PluginCapabilities.BATCH
    ]

    def __init__(self, *, clock: Clock | None = None, **kwargs: Any) -> None:  # noqa: ANN401 - the SDK's
        """Take the time from this clock, and the rest as any tap of the SDK.

        Raises:
            SettingsError: a setting cannot be used.
            StateError: the STATE cannot be read.
        """
        self._clock = clock or Clock()
        if not isinstance(kwargs.get("state"), (dict, str, PurePath, NoneType)):
            raise StateError("state: is not a JSON object")
        if isinstance(catalog := kwargs.get("catalog"), dict):
            kwargs["catalog"] = _read_catalog(catalog)
        super().__init__(**kwargs)

    @override
    def discover_streams(self) -> list[RecordingsStream]:
        return [RecordingsStream(self, self._clock)]

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        if state and "bookmarks" not in state:
            # A whole message, or Meltano's own form: all of history would be read again.
            raise StateError("state: has no `bookmarks`: give the value of a STATE message")
        bookmarks = state.get("bookmarks", {})
        if not isinstance(bookmarks, dict) or not all(
            isinstance(bookmark, dict) for bookmark in bookmarks.values()
        ):
            raise StateError("state: `bookmarks` is not an object of objects")
        bookmark = bookmarks.get(RecordingsStream.name, {})
        if bookmark.get("replication_key_value"):
            # From now on it says since when: of an older release's, only this run knows that.
            zone = settings.time_zone(self.config["timezone"])
            start = settings.date(self.config["start_date"], zone)
            claimed = Coverage.parse_bookmark(bookmark, start, zone)
            # In the first STATE already: any later run would take the claim for true.
            coverage = claimed.clipped(self._clock.now(), zone)
            if coverage != claimed:
                until = claimed.until.isoformat()
                self.logger.warning("state: %s is later than now, and has been set back", until)
            name = _zone_name(bookmark, zone)
            bookmark = coverage.make_bookmark(RecordingsStream.replication_key, name)
            state = {"bookmarks": bookmarks | {RecordingsStream.name: bookmark}}
        super().load_state(state)

    @override
    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        # The SDK's own exits with 0, from within whatever is being written.
        self._clock.stop(signum)

    @override
    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        # Checked before the SDK does, which shows the values of bad settings, the API key's too.
        self._config = settings.with_defaults(self._config)
        if raise_errors:
            settings.check(self._config)
        try:
            return super()._validate_config(raise_errors=raise_errors)
        except ConfigValidationError as error:
            # A setting of the SDK's own; its value may be the key all the same.
            errors = [safe_excerpt(line, self._config["api_key"]) for line in error.errors]
        raise SettingsError(*errors)

    @override
    @classproperty
    def _env_var_config(cls) -> dict[str, Any]:  # noqa: N805 - as the SDK has it
        schema = cls.config_jsonschema
        cls.append_builtin_config(schema)
        texts = parse_environment_config(settings.integers_as_strings(schema), cls._env_var_prefix)
        return settings.parse_integers(texts, schema)

    @override
    @classmethod
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        # The SDK's repeats what it was given, and settings in place of a file's name hold the key.
        try:
            return super().cb_config(ctx, param, value)
        except FileNotFoundError:
            reason = "the file does not exist"
        except (OSError, TypeError, ValueError, RecursionError):
            reason = "what was given is not a file with a JSON object"
        raise NoojeeError(f"config: {reason}")

    @override
    @classmethod
    def get_singer_command(cls) -> click.Command:
        command = super().get_singer_command()
        return NoojeeCommand(
            name=command.name,
            callback=command.callback,
            context_settings=command.context_settings,
            params=command.params,
            help=command.help,
            logger=cls.logger,
        )


def _zone_name(bookmark: dict[str, Any], zone: ZoneInfo) -> str:
    """The time zone by whose clock a bookmark's hours were requested; the one given if unsaid."""
    name = zone.key if bookmark.get("timezone") is None else str(bookmark["timezone"])
    try:
        return settings.time_zone(name).key
    except ValueError:
        # Not repeated here: it may be anything, the API key included.
        reason = "the bookmark of recordings cannot be read: `timezone` is not a time zone"
    raise StateError(f"state: {reason}")


def _read_catalog(catalog: dict[str, Any]) -> Catalog:
    try:
        return Catalog.from_dict(catalog)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"catalog: cannot be read ({type(error).__name__}: {error})"
    raise NoojeeError(reason)
