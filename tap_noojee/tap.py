"""The tap: its settings, its streams, its command line."""

from __future__ import annotations

import sys
from pathlib import PurePath
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Tap
from singer_sdk.exceptions import SingerSDKError
from singer_sdk.helpers.capabilities import PluginCapabilities
from singer_sdk.plugin_base import SingerCommand
from typing_extensions import override

from tap_noojee import settings
from tap_noojee.client import Clock, NoojeeError
from tap_noojee.streams import RecordingsStream, read_bookmark, write_bookmark
from tap_noojee.writer import LineWriter

if TYPE_CHECKING:
    from types import FrameType

    import click


class NoojeeCommand(SingerCommand):
    """Tells what the user can mend in a line, without a traceback."""

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except (NoojeeError, SingerSDKError) as error:
            lines = error.args or (type(error).__name__,)
        except ValueError as error:
            # There are two of this name, and the SDK uses either.
            if type(error).__name__ != "JSONDecodeError":
                raise
            lines = (f"a file given on the command line is no JSON: {error}",)
        for line in lines:
            self.logger.error(line)
        sys.exit(1)


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
            NoojeeError: the state cannot be read.
        """
        self._clock = clock or Clock()
        if not isinstance(kwargs.get("state"), (dict, str, PurePath, NoneType)):
            raise NoojeeError("state: is not a JSON object")
        try:
            super().__init__(**kwargs)
        except ValueError:
            settings.check_environment(self._env_var_prefix)
            raise

    @override
    def discover_streams(self) -> list[RecordingsStream]:
        return [RecordingsStream(self, self._clock)]

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        bookmarks = state.get("bookmarks", {})
        if not isinstance(bookmarks, dict):
            raise NoojeeError(f"state: the bookmarks {bookmarks!r} cannot be read")
        if bookmark := bookmarks.get(RecordingsStream.name):
            unread = read_bookmark(bookmark)
            bookmark = write_bookmark(unread) if unread else {}
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
        return super()._validate_config(raise_errors=raise_errors)

    @override
    @classmethod
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        # The SDK's tells what it was given, and settings in place of a file's name hold the key.
        try:
            return super().cb_config(ctx, param, value)
        except (OSError, TypeError, ValueError) as error:
            told = isinstance(error, OSError) and "{" not in str(error)
            why = str(error) if told else "what was given is no file with a JSON object"
        raise NoojeeError(f"config: {why}")

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
