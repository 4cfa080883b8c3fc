"""A run's outbox: everything the tracking store is to be told, on disk before it is sent, kept until acknowledged.

One file for each attempt at a run, `<attempt>.jsonl`, a JSON list a line, the first being the header; beside it
`<attempt>.sent` counts the acknowledged bytes. The writer holds a kernel lock on the file for its life, so whoever can
take the lock knows that the writer is gone and delivers what it left (`leftovers`).
"""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rootstock.ops.locks import take

SUFFIX = ".jsonl"
Line = list  # [kind, value, …]


class Journal:
    """Append-only lines with a cursor; one thread appends while another sends."""

    def __init__(self, path: Path, *, header: dict) -> None:
        """Start a journal.

        Args:
            path: a new file's name; what cannot be written at once (a full disk) waits in memory for the next append.
            header: what a later process needs to deliver the rest.
        """
        self.path = path
        self.header = header
        self.sent_bytes = 0
        self._file: IO[bytes] | None = None
        self._unwritten: list[Line] = [["header", header]]
        self._lock = threading.Lock()

    def append(self, lines: list[Line]) -> None:
        """Put lines on disk, durably; on an OSError, which is raised, they wait in memory for the next call."""
        with self._lock:
            self._unwritten += lines
            if not self._unwritten:
                return
            data = b"".join(json.dumps(line).encode() + b"\n" for line in self._unwritten)
            if self._file is None:
                self._file = _create(self.path, data)
            else:
                _write(self._file, data)
            self._unwritten = []

    def pending(self, limit: int) -> tuple[list[Line], int]:
        """Return up to `limit` lines not yet acknowledged, and the cursor after them."""
        if self._file is None:
            return [], self.sent_bytes
        lines: list[Line] = []
        cursor = self.sent_bytes
        with open(self.path, "rb") as file:
            file.seek(cursor)
            while len(lines) < limit and (raw := file.readline()).endswith(b"\n"):
                cursor += len(raw)
                lines.append(json.loads(raw))
        return lines, cursor

    def is_delivered(self) -> bool:
        """Return whether every line arrived, none waiting in memory either."""
        return not self._unwritten and not self.pending(1)[0]

    def acknowledge(self, cursor: int) -> None:
        """Remember that everything before `cursor` arrived; losing this (no fsync) only means sending again."""
        self.sent_bytes = cursor
        temporary = self._sent.with_suffix(".sent.tmp")
        temporary.write_text(str(cursor))
        os.replace(temporary, self._sent)

    def remove(self) -> None:
        """Delete the journal: everything arrived."""
        self._sent.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Release the lock; the files stay for a later process."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def has_ended(self) -> bool:
        """Return whether the writer said how the run ended; if it did not, it was killed."""
        with open(self.path, "rb") as file:
            return any(json.loads(line)[0] == "end" for line in file)

    @property
    def _sent(self) -> Path:
        return self.path.with_suffix(".sent")


def _create(path: Path, data: bytes) -> IO[bytes]:
    """Make a locked file with its first lines, and only then give it the name that `leftovers` looks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    file = open(new, "w+b", buffering=0)  # noqa: SIM115 (open and locked for life)
    try:
        locked = take(file, timeout_s=0.0)
        assert locked, f"{new}: a journal's name is used once"
        _write(file, data)
        os.replace(new, path)
    except OSError:
        file.close()
        raise
    return file


def _write(file: IO[bytes], data: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    try:
        if file.write(data) != len(data):
            raise OSError(f"{file.name}: found room for a part of {len(data)} bytes only")
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)  # no half line in the middle
        raise


def leftovers(folder: Path, *, token: str = "") -> Iterator[Journal]:
    """Yield, locked, each journal whose writer is gone (`token`: of this run); the caller removes or closes it."""
    for path in sorted(folder.glob(f"{token}*{SUFFIX}")):
        try:
            file = open(path, "r+b", buffering=0)  # noqa: SIM115 (handed over to the journal)
        except FileNotFoundError:
            continue
        if take(file, timeout_s=0.0) and path.exists():  # else its writer lives, or removed it just now
            yield _adopt(path, file)
        else:
            file.close()


def _adopt(path: Path, file: IO[bytes]) -> Journal:
    data = file.read()
    # what a power failure left of a last line
    file.truncate(data.rfind(b"\n") + 1)
    journal = Journal(path, header=json.loads(data.split(b"\n", 1)[0])[1])
    journal._file, journal._unwritten = file, []
    sent = path.with_suffix(".sent")
    journal.sent_bytes = int(sent.read_text()) if sent.exists() else 0
    return journal
