"""Write Singer messages in whole lines, with few STATE messages before the first RECORD."""

import select
import sys

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import Message, RecordMessage, StateMessage
from typing_extensions import override

from tap_noojee.errors import NoojeeError

PIPE_BUF = getattr(select, "PIPE_BUF", 512)
"""Largest write that a pipe accepts completely or not at all, in bytes. POSIX guarantees 512."""

MAX_HELD_STATES = 52
"""Without records, write only every 52nd STATE. The first 52 are the SDK's copy of the input
state, the one at the start of the sync, and one for each of 50 hours."""


class LineWriter(MsgSpecWriter):
    """Writes whole lines and, until the first RECORD, only a few STATE messages.

    A cut line makes target-jsonl fail before it prints its state, which loses the whole run's
    progress. In a run without records, target-duckdb and PipelineWise's targets keep the first
    STATE and drop the later ones, so the first one must be as late as possible. target-jsonl
    forgets its state at each RECORD, so the last message must be a STATE.
    """

    def __init__(self) -> None:
        self._lines = bytearray()
        self._state = b""
        self._held_count = 0
        self._has_records = False
        self._state_written = False

    @override
    def write_message(self, message: Message) -> None:
        if isinstance(message, RecordMessage):
            if not self._has_records:
                self._has_records = True
                self.release_state()
            self._state_written = False
            self._buffer(self.format_message(message))
        elif isinstance(message, StateMessage):
            # A copy: the next message overwrites the SDK's buffer.
            self._state = bytes(self.format_message(message))
            self._state_written = False
            self._held_count += 1
            if self._has_records or self._held_count >= MAX_HELD_STATES:
                self.release_state()
        else:
            self._buffer(self.format_message(message))
            self._flush()

    def release_state(self) -> None:
        """Write all messages held back, and end with the latest STATE.

        Raises:
            NoojeeError: They cannot be written.
        """
        if not self._state_written:
            self._state_written = True
            self._held_count = 0
            self._buffer(self._state)
            self._flush()

    def _buffer(self, line: bytes | bytearray) -> None:
        if len(self._lines) + len(line) > PIPE_BUF:
            self._flush()
        self._lines += line

    def _flush(self) -> None:
        lines, self._lines = self._lines, bytearray()
        if not lines:
            return
        if sys.stdout is None:
            raise NoojeeError("cannot write messages: standard output is closed")
        try:
            _write(memoryview(lines))
        except OSError as error:
            self._state = b""  # nothing may follow a cut line
            raise NoojeeError(f"cannot write to the target: {error.strerror or error}") from None


def _write(data: memoryview) -> None:
    """Write all data to standard output, bypassing Python's buffer.

    The raw file may accept only part of the data. With PYTHONUNBUFFERED, `sys.stdout.buffer` is
    itself the raw file.
    """
    output = sys.stdout.buffer
    raw = getattr(output, "raw", output)
    while data:
        written = raw.write(data)
        if written is None:  # a full, non-blocking pipe
            select.select([], [raw], [])
        elif written:
            data = data[written:]
        else:
            raise OSError("nothing was written")
