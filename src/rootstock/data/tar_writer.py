"""Plain ustar archives, the same bytes for the same members: what `tarfile` writes, several times faster.

Every member is a regular file of owner 0:0, mode 0444, time 0. A name longer than 100 bytes is split at a `/`, as the
format wants it.
"""

import hashlib
import os
from pathlib import Path

BLOCK = 512
RECORD = 20 * BLOCK  # an archive is padded to whole records
MAX_MEMBER_BYTES = 8**11 - 1  # eleven octal digits
_TAIL = b"ustar\x0000"  # magic and version; owner's names and device numbers stay empty


class TarWriter:
    """Writes an archive under a temporary name and gives it its own when it is whole and on the disk."""

    def __init__(self, path: Path):
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file = open(self._temporary, "wb", buffering=1 << 20)  # noqa: SIM115
        self._sum = hashlib.sha256()
        self._position = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member and return the offset of its first byte.

        Raises:
            ValueError: the name or the size does not fit the format.
        """
        self._write(header(name, len(data)))
        offset = self._position
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        return offset

    def close(self) -> tuple[str, int]:
        """Finish the archive, make it durable under its own name, and return its sha256 and size."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._position % RECORD))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)
        return self._sum.hexdigest(), self._position

    def abandon(self) -> None:
        """Remove what was written, unless it was closed."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.abandon()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sum.update(data)
        self._position += len(data)


def member_bytes(num_bytes: int) -> int:
    """Return the bytes a member of `num_bytes` takes in an archive: header, content, padding."""
    return BLOCK + num_bytes + -num_bytes % BLOCK


def archive_bytes(content_bytes: int) -> int:
    """Return the size of an archive whose members take `content_bytes`: end mark and padding added."""
    return content_bytes + 2 * BLOCK + -(content_bytes + 2 * BLOCK) % RECORD


def header(name: str, num_bytes: int) -> bytes:
    """Return a member's header block.

    Raises:
        ValueError: the name is longer than 100 bytes and has no `/` at which to split it, or the size is 8 GiB or more.
    """
    prefix, base = _split(name)
    if num_bytes > MAX_MEMBER_BYTES:
        raise ValueError(f"{name}: found {num_bytes} bytes, wanted at most {MAX_MEMBER_BYTES} in a tar")
    block = bytearray(BLOCK)
    block[0 : len(base)] = base
    block[100:136] = b"0000444\x000000000\x000000000\x00%011o\x00" % num_bytes
    block[136:157] = b"00000000000\x00        0"  # time, the checksum's place as blanks, regular file
    block[257:265] = _TAIL
    block[345 : 345 + len(prefix)] = prefix
    block[148:155] = b"%06o\x00" % sum(block)
    return bytes(block)


def _split(name: str) -> tuple[bytes, bytes]:
    encoded = name.encode()
    if len(encoded) <= 100:
        return b"", encoded
    for place, byte in enumerate(encoded[:156]):
        if byte == ord("/") and len(encoded) - place - 1 <= 100:
            return encoded[:place], encoded[place + 1 :]
    raise ValueError(
        f"{name}: found a name of {len(encoded)} bytes, wanted at most 100, "
        "or a `/` with at most 155 bytes before it and 100 after"
    )
