"""The tap and its command line."""

import io
import json
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import IO, Any, ClassVar, cast

import click
from singer_sdk import Tap
from singer_sdk.exceptions import (
    ConfigValidationError,
    MapExpressionError,
    SingerSDKError,
    StreamMapConfigError,
)
from singer_sdk.helpers.capabilities import PluginCapabilities
from singer_sdk.plugin_base import SingerCommand
from typing_extensions import override

from tap_noojee import settings
from tap_noojee.clock import Clock
from tap_noojee.errors import Interrupted, NoojeeError, SettingsError, StateError
from tap_noojee.selection import check_stream_maps, select_fields
from tap_noojee.streams import RecordingsStream
from tap_noojee.writer import LineWriter


class NoojeeCommand(SingerCommand):
    """Logs expected errors without a traceback, and exits with 128 + signal after a signal."""

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except Interrupted as interrupted:
            name = signal.Signals(interrupted.signum).name
            self.logger.info("Stopped by %s; the next run continues from the last STATE", name)
            sys.exit(128 + interrupted.signum)
        except NoojeeError as error:
            lines = error.args
        except (MapExpressionError, StreamMapConfigError) as error:
            lines = (f"stream_maps: {error} {error.__cause__ or ''}".strip(),)
        except SingerSDKError as error:
            lines = error.args or (type(error).__name__,)
        except Exception as error:
            if (expression := _failed_expression(error)) is None:
                raise
            # Leave out the error's message, which may quote a record.
            lines = (f"stream_maps: recordings: {expression!r} fails: {type(error).__name__}",)
        for line in lines:
            self.logger.error(line)
        sys.exit(1)

    @override
    def invoke(self, ctx: click.Context) -> Any:
        # The SDK's errors about these files name neither the option nor the problem.
        for name in ("state", "catalog"):
            if file := ctx.params.get(name):
                ctx.params[name] = io.StringIO(_read_json_object(name, file))
        return super().invoke(ctx)


def _read_json_object(name: str, file: IO[str]) -> str:
    try:
        if not (text := file.read().removeprefix("\ufeff")).strip():
            raise NoojeeError(f"{name}: the file is empty")
        value = json.loads(text)
    except (RecursionError, ValueError):
        raise NoojeeError(f"{name}: the file is not JSON") from None
    if not isinstance(value, dict):
        raise NoojeeError(f"{name}: the file is not a JSON object")
    return text


def _failed_expression(error: Exception) -> str | None:
    """Return the stream map expression that raised the error. The SDK does not name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "singer_sdk.mapper" and "expr" in frame.f_locals:
            return str(frame.f_locals["expr"])
    return None


class TapNoojee(Tap):
    """Singer tap for the call recordings of a Noojee Contact PBX."""

    name = "tap-noojee"
    message_writer_class = LineWriter
    config_jsonschema = settings.SCHEMA

    # A batch's STATE would come before its records.
    capabilities: ClassVar = [
        capability for capability in Tap.capabilities if capability is not PluginCapabilities.BATCH
    ]

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        catalog: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        **kwargs: Any,  # noqa: ANN401 - passed on to the SDK
    ) -> None:
        """Create the tap. Tests pass a fake clock.

        Raises:
            SettingsError: A setting is unusable.
            CatalogError: The catalog or a stream map is unusable.
            StateError: The state is unusable.
        """
        self._clock = clock or Clock()
        # The checks below need the SDK's own settings as well.
        self.append_builtin_config(self.config_jsonschema)
        config = dict(config or {})
        if parse_env_config:
            environment = settings.read_environment(self.config_jsonschema)
            # A variable overrides the files unless it is empty. Keep unknown ones for the warning.
            config = environment | config | settings.drop_empty(environment)
        for warning in settings.unknown_setting_warnings(config, self.config_jsonschema):
            self.logger.warning(warning)
        config = settings.drop_empty(config)
        if validate_config:
            settings.validate(config)
            check_stream_maps(config.get("stream_maps"))
        if catalog is not None:
            catalog = select_fields(catalog)
        try:
            super().__init__(
                config=config, catalog=catalog, validate_config=validate_config, **kwargs
            )
        except ConfigValidationError as error:
            raise SettingsError(*settings.rewrite_schema_errors(error.errors, config)) from None
        # The SDK's handler exits with 0, possibly in mid-write.
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._clock.handle_signal)
        # Write the latest STATE even if the command fails.
        if context := click.get_current_context(silent=True):
            context.call_on_close(cast("LineWriter", self.message_writer).release_state)

    @override
    @classmethod
    def cb_config(cls, *args: Any) -> Any:
        try:
            return super().cb_config(*args)
        except (OSError, RecursionError, TypeError, ValueError) as error:
            raise NoojeeError(f"config: cannot be read as a JSON object: {error}") from None

    @override
    def discover_streams(self) -> list[RecordingsStream]:
        return [RecordingsStream(self, self._clock)]

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        if state and "bookmarks" not in state:
            raise StateError(
                "state: `bookmarks` is missing: pass the `value` of a STATE message, or the "
                "`singer_state` that `meltano state get` prints"
            )
        bookmarks = state.get("bookmarks", {})
        if not isinstance(bookmarks, dict) or not all(
            isinstance(bookmark, dict) for bookmark in bookmarks.values()
        ):
            raise StateError("state: `bookmarks` must map each stream's name to an object")
        super().load_state(state)
        for stream in self.streams.values():
            cast("RecordingsStream", stream).restore_hours_read()

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


def main() -> None:
    """Run the command line."""
    TapNoojee.cli()
