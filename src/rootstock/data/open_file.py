"""A file open for positioned reads from any number of threads; apart, so that readers of shards need no archives."""

import os
from pathlib import Path


class OpenFile:
    """An open file that closes when the last thread that uses it lets go of it.

    Attributes:
        identity: device and inode, by which a file that took its name is told from it.
    """

    def __init__(self, path: str | Path):
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stat = os.fstat(self.fd)
        self.identity = (stat.st_dev, stat.st_ino)

    def read(self, offset: int, num_bytes: int) -> bytes:
        """Return `num_bytes` bytes from `offset`, fewer only where the file ends."""
        data = os.pread(self.fd, num_bytes, offset)
        while len(data) < num_bytes:  # the kernel may return less than asked
            more = os.pread(self.fd, num_bytes - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def __del__(self):
        if hasattr(self, "fd"):
            os.close(self.fd)
