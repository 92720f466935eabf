"""Singer messages on standard output, in whole lines whenever the tap is killed."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import RecordMessage
from typing_extensions import override

from tap_noojee.client import NoojeeError

if TYPE_CHECKING:
    from singer_sdk.singerlib import Message

PIPE_BUF = getattr(select, "PIPE_BUF", 512)
"""Bytes that are written to a pipe as a whole or not at all; POSIX grants 512."""


class LineWriter(MsgSpecWriter):
    """Gathers the lines of records up to what a pipe takes as a whole.

    A line cut short would make target-jsonl fail before it prints its state, and the whole run's
    progress would be lost.
    """

    def __init__(self) -> None:
        """Start with nothing gathered."""
        self._lines = bytearray()

    @override
    def write_message(self, message: Message) -> None:
        line = self.format_message(message)
        if len(self._lines) + len(line) > PIPE_BUF:
            self.flush()
        self._lines += line
        if not isinstance(message, RecordMessage):
            self.flush()

    def flush(self) -> None:
        """Write what was gathered.

        Raises:
            NoojeeError: it cannot be written.
        """
        lines, self._lines = self._lines, bytearray()
        if not lines:
            return
        if sys.stdout is None:
            raise NoojeeError("there is no standard output to write to")
        try:
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
        except OSError as error:
            reason = f"the target takes no more messages: {error.strerror}"
            # Python would try once more at exit, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            return
        raise NoojeeError(reason)
