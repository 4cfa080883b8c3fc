"""Archives read in place: members of an uncompressed tar by positioned reads, nothing extracted to disk.

A tar may lie inside a tar (ILSVRC2012's training archive holds one a class): `members` takes where it begins and how
long it is, and all offsets count from the start of the outer file.
"""

import gzip
import os
import re
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rootstock.data.open_file import OpenFile
from rootstock.data.sums import md5, sha256, sums
from rootstock.schema.contract import atomic

__all__ = ["ArchiveError", "Member", "inflate", "locate", "md5", "members", "pread", "sha256", "sums"]

BLOCK = tarfile.BLOCKSIZE
MAX_OPEN_FILES = 16
# Bounds that no archive of images comes near (ILSVRC2012's largest tar has 50 000 members), so that a hostile one costs
# neither memory nor minutes.
MAX_HEADERS = 65_536
MAX_EXTENDED_HEADERS = 8  # before one member
MAX_EXTENDED_HEADER_BYTES = 1 << 16
MAX_NAME_BYTES = 512
INFLATE_BYTES = 1 << 20
# A bomb is refused: real image archives hardly shrink under gzip.
MAX_INFLATE_RATIO = 100
MAX_INFLATE_BYTES = 8 << 30

EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
REFUSED = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
ODD = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
DRIVE = re.compile(r"[A-Za-z]:|[^\\]*\\")  # on Windows these would lead elsewhere


class ArchiveError(ValueError):
    """An archive that is missing, broken, or holds what must not be read; the message names archive and member."""


class Member(NamedTuple):
    """A regular file inside an uncompressed tar."""

    name: str  # relative POSIX path
    offset: int  # of its first byte, from the start of the outer file
    num_bytes: int


def locate(name: str, folders: Sequence[Path]) -> Path:
    """Return where a file lies: in the first of the folders that has it.

    Raises:
        ArchiveError: no folder has it; the message lists the folders.
    """
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ArchiveError(f"{name} is in none of these folders: {', '.join(map(str, folders))}")


# ---------------------------------------------------------------------------------------------------- positioned reads


_open_files: OrderedDict[str, OpenFile] = OrderedDict()
_open_files_lock = threading.Lock()


def _after_fork() -> None:
    """Another thread may have held the lock when this process was forked."""
    global _open_files_lock
    _open_files_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _open_file(path: Path) -> OpenFile:
    """The open file of `path`: reopened when another file took its name, least recently used ones closed."""
    name = os.fspath(path)
    stat = os.stat(name)
    with _open_files_lock:
        found = _open_files.get(name)
        if found is None or found.identity != (stat.st_dev, stat.st_ino):
            found = _open_files[name] = OpenFile(name)
        _open_files.move_to_end(name)
        while len(_open_files) > MAX_OPEN_FILES:
            _open_files.popitem(last=False)
    return found


def pread(path: Path, offset: int, num_bytes: int) -> bytes:
    """Return `num_bytes` bytes of a file from `offset`; safe from any number of threads.

    Raises:
        ArchiveError: the file is missing or unreadable, or ends before.
    """
    assert offset >= 0, offset
    assert num_bytes >= 0, num_bytes
    try:
        data = _open_file(path).read(offset, num_bytes)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) < num_bytes:
        raise ArchiveError(f"{path} is truncated: found {len(data)} bytes at offset {offset}, wanted {num_bytes}")
    return data


# ---------------------------------------------------------------------------------------------------------------- tars


def members(path: Path, *, base: int = 0, length: int | None = None) -> Iterator[Member]:
    """Yield a tar's regular files in their order; folders are passed over, everything else is refused.

    Reads headers only. Memory grows with nothing but the names of this one tar, which are kept to find duplicates.

    Args:
        path: an uncompressed tar, or a file that holds one.
        base: where the tar begins in the file, bytes.
        length: how long it is, bytes; None for the rest of the file.

    Raises:
        ArchiveError: a damaged header, a truncated archive (also one without its two closing zero blocks), a member
            that is no regular file, a name that is absolute, long, has `..`, a drive or control characters, or appears
            twice, more headers than any archive of images has.
    """
    size = _size(path)
    end = size if length is None else base + length
    if end > size:
        raise ArchiveError(f"{path} is truncated: found {size} bytes, wanted {end}")
    where = f"{path}" if base == 0 else f"{path} (tar at offset {base})"
    seen: set[str] = set()
    position, extended, num_headers, num_extended = base, {}, 0, 0
    while (header := _header(path, where, position, end)) is not None:
        data, num_bytes = position + BLOCK, header.size
        kind = header.type
        num_headers += 1
        if num_headers > MAX_HEADERS:
            raise ArchiveError(f"{where}: more than {MAX_HEADERS} headers: refused")
        if kind in EXTENDED:
            num_extended += 1
            if num_extended > MAX_EXTENDED_HEADERS:
                raise ArchiveError(f"{where}: more than {MAX_EXTENDED_HEADERS} extended headers for one member")
            _fits(where, header.name, data, num_bytes, end)
            extended |= _extended(path, where, header, data)
        else:
            name = extended.get("path", header.name)
            num_bytes = _declared_size(where, name, extended.get("size"), num_bytes)
            _check_kind(where, name, header, num_bytes, sparse=any(key.startswith("GNU.sparse.") for key in extended))
            name = _check_name(where, name)
            _fits(where, name, data, num_bytes, end)
            if not header.isdir():
                if name in seen:
                    raise ArchiveError(f"{where}: {name}: appears twice")
                seen.add(name)
                yield Member(name, data, num_bytes)
            extended, num_extended = {}, 0
        position = data + -(-num_bytes // BLOCK) * BLOCK


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from None


def _header(path: Path, where: str, position: int, end: int) -> tarfile.TarInfo | None:
    """The header at `position`, or None at the two zero blocks that end a tar."""
    if position + BLOCK > end:
        raise ArchiveError(f"{where} is truncated at offset {position}: no end-of-archive blocks")
    block = pread(path, position, BLOCK)
    if not any(block):
        if position + 2 * BLOCK > end or any(pread(path, position + BLOCK, BLOCK)):
            raise ArchiveError(f"{where} is truncated at offset {position}: one end-of-archive block, wanted two")
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ArchiveError(f"{where} is not a whole tar: {error} at offset {position}") from None
    if header.size < 0:
        raise ArchiveError(f"{where}: {header.name!r}: size {header.size}, wanted >= 0")
    return header


def _fits(where: str, name: str, data: int, num_bytes: int, end: int) -> None:
    if data + num_bytes > end:
        raise ArchiveError(
            f"{where} is truncated: {name!r} needs {num_bytes} bytes at offset {data}, the archive ends at {end}"
        )


def _extended(path: Path, where: str, header: tarfile.TarInfo, data: int) -> dict[str, str]:
    """What a GNU longname or a pax header says about the next member: its `path`, `size`, or that it is sparse."""
    if header.size > MAX_EXTENDED_HEADER_BYTES:
        raise ArchiveError(f"{where}: {header.name!r}: a header of {header.size} bytes")
    raw = pread(path, data, header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": raw.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    records, start, raw = {}, 0, raw.rstrip(b"\0")
    while start < len(raw):
        digits = raw[start : start + 8].partition(b" ")[0]
        stop = start + (int(digits) if digits.isdigit() and len(digits) < 8 else 0)
        record = raw[start + len(digits) + 1 : stop]
        start = stop
        key, equals, value = record.partition(b"=")
        if stop > len(raw) or not equals or not record.endswith(b"\n"):
            raise ArchiveError(f"{where}: {header.name!r}: a damaged pax header")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
    if header.type == tarfile.XGLTYPE:
        if {"path", "size"} & set(records):
            raise ArchiveError(f"{where}: {header.name!r}: a global pax header that renames or resizes members")
        return {}
    return {key: value for key, value in records.items() if key in ("path", "size") or key.startswith("GNU.sparse.")}


def _declared_size(where: str, name: str, pax_size: str | None, num_bytes: int) -> int:
    if pax_size is None:
        return num_bytes
    if not (pax_size.isascii() and pax_size.isdigit() and len(pax_size) < 19):
        raise ArchiveError(f"{where}: {name!r}: pax size {pax_size!r}, wanted a number")
    return int(pax_size)


def _check_kind(where: str, name: str, header: tarfile.TarInfo, num_bytes: int, *, sparse: bool) -> None:
    kind = REFUSED[tarfile.GNUTYPE_SPARSE] if sparse else REFUSED.get(header.type)
    if kind is None and header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        kind = f"of unknown type {header.type!r}"
    if kind is None and header.isdir() and num_bytes:
        kind = f"a folder with {num_bytes} bytes of data"
    if kind is not None:
        raise ArchiveError(f"{where}: {name!r} is {kind}; only regular files and folders are read")


def _check_name(where: str, name: str) -> str:
    """The name without leading `./`, or an error with why it is refused."""
    why = None
    if (odd := ODD.search(name)) is not None:
        why = "a name that is not UTF-8" if odd[0] >= "\ud800" else "a control character in its name"
    elif len(name.encode()) > MAX_NAME_BYTES:
        raise ArchiveError(
            f"{where}: {name[:80]!r}… has a name of {len(name.encode())} bytes, at most {MAX_NAME_BYTES}"
        )
    elif name.startswith("/"):
        why = "an absolute name"
    elif ".." in name.split("/"):
        why = "`..` in its name"
    elif DRIVE.match(name):
        why = "a drive or a backslash in its name"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if why is None and not parts and name not in (".", "./"):
        why = "no name"
    if why is not None:
        raise ArchiveError(f"{where}: {name!r} has {why}")
    return "/".join(parts)


# ------------------------------------------------------------------------------------------------------------- inflate


def inflate(source: Path, target: Path) -> None:
    """Write a gzip file's content to `target`, whole or not at all.

    Args:
        source: a .tgz or .tar.gz.
        target: the plain tar to write; its folder is made.

    Raises:
        ArchiveError: `source` is missing, truncated, no gzip, or inflates beyond every real archive.
        OSError: `target` cannot be written, a full disk for one; nothing partial is left.
    """
    cap = max(MAX_INFLATE_RATIO * _size(source), MAX_INFLATE_BYTES)
    num_bytes = 0
    try:
        with atomic(target) as temporary, open(temporary, "wb") as file:
            for block in _inflated(source):
                num_bytes += len(block)
                if num_bytes > cap:
                    raise ArchiveError(f"{source} inflates to more than {cap} bytes: refused as a decompression bomb")
                file.write(block)
    except OSError as error:  # reading `source` raises ArchiveError, so this is about the target
        raise OSError(error.errno, error.strerror, str(target)) from None


def _inflated(source: Path) -> Iterator[bytes]:
    try:
        with gzip.open(source, "rb") as stream:
            while block := stream.read(INFLATE_BYTES):
                yield block
    except EOFError:
        raise ArchiveError(f"{source} is truncated: the gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ArchiveError(f"{source} is not a whole gzip file: {error}") from None
    except OSError as error:
        raise ArchiveError(f"{source} cannot be read: {error.strerror}") from None
