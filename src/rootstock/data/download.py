"""Download a file whole or not at all: resumed where it broke off, retried, and compared with its published sum."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

TIMEOUT_SECONDS = 30.0
MAX_TRIES = 5
FIRST_WAIT_SECONDS = 1.0  # doubled after every failed try
BLOCK_BYTES = 1 << 16
# What may be gone on the next try; other answers of a server are final.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class DownloadError(ValueError):
    """A file that cannot be had; the message names the URL, what was found and what was wanted."""


class _BrokenOffError(Exception):
    """This try failed; the next one may not."""


def download(
    url: str,
    target: Path,
    *,
    md5: str | None,
    num_bytes: int | None,
    progress: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch `url` to `target`, through `target` + `.part`, from which the next call goes on.

    Args:
        url: http or https.
        target: where the file goes; its folder is made.
        md5: the published sum, or None to take what comes.
        num_bytes: the published size, or None.
        progress: show a bar on a terminal.
        sleep: waits between tries, seconds.

    Returns:
        `target`.

    Raises:
        DownloadError: refused by the server, broken off too often, or of another size or sum than published.
        OSError: `target` cannot be written, a full disk for one; what came so far is kept for the next call.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note = _part(target), _note(target)
    for last in (False, True):  # a part from an older publication, or a mangled body, deserves one fresh start
        _complete(url, target, num_bytes=num_bytes, progress=progress, sleep=sleep)
        wrong = _wrong(part, md5=md5, num_bytes=num_bytes)
        if wrong is None:
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
            note.unlink(missing_ok=True)
            return target
        _discard(target)
        if last:
            raise DownloadError(f"{url}: {wrong}")
    raise AssertionError("the last round returns or raises")


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _note(target: Path) -> Path:
    """Remembers which version of the file the part is of."""
    return target.with_name(target.name + ".part.json")


def _discard(target: Path) -> None:
    _part(target).unlink(missing_ok=True)
    _note(target).unlink(missing_ok=True)


def _wrong(part: Path, *, md5: str | None, num_bytes: int | None) -> str | None:
    found = part.stat().st_size
    if num_bytes is not None and found != num_bytes:
        return f"found {found} bytes, wanted {num_bytes}"
    if md5 is None:
        return None
    with open(part, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return None if digest == md5 else f"found md5 {digest}, wanted {md5}"


def _complete(url: str, target: Path, *, num_bytes: int | None, progress: bool, sleep: Callable[[float], None]) -> None:
    """Bring the part to its end, in several tries; a try that got further does not count against the others."""
    failures, furthest = 0, _size(_part(target))
    while True:
        try:
            _try(url, target, num_bytes=num_bytes, progress=progress)
            return
        except _BrokenOffError as error:
            after = _size(_part(target))
            failures = 1 if after > furthest else failures + 1
            furthest = max(furthest, after)
            if failures >= MAX_TRIES:
                raise DownloadError(
                    f"{url}: {error}; gave up after {failures} tries that got no further; "
                    f"{after} bytes are kept in {_part(target)}"
                ) from None
        sleep(FIRST_WAIT_SECONDS * 2 ** (failures - 1))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _try(url: str, target: Path, *, num_bytes: int | None, progress: bool) -> None:
    part = _part(target)
    start, validator = _size(part), _read_validator(target, url)
    if start and start == num_bytes and validator is not None:
        return  # stopped just before it got its name
    if start and (validator is None or (num_bytes is not None and start > num_bytes)):
        _discard(target)  # a part of we do not know what
        start = 0
    request = urllib.request.Request(url, headers={"User-Agent": "rootstock", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            start = _start_of(response, target, start)
            with _writing(target):
                _write_validator(target, url, response)
            _save(response, target, start=start, progress=progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the part is as long as the file, or longer
            _discard(target)
            raise _BrokenOffError("the part could not be resumed") from None
        if error.code in TRANSIENT:
            raise _BrokenOffError(f"the server answered {error.code} {error.reason}") from None
        raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from None
    except BROKEN as error:
        raise _BrokenOffError(f"the connection broke: {getattr(error, 'reason', None) or error!r}") from None


def _start_of(response: http.client.HTTPResponse, target: Path, start: int) -> int:
    """Where the body begins: a server may ignore Range and send all of it again."""
    if response.status != 206:
        _discard(target)  # also before the new version's note is written: a kill must not pair it with old bytes
        return 0
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if given is None or int(given[1]) != start:
        _discard(target)
        found = response.headers.get("Content-Range")
        raise _BrokenOffError(f"found Content-Range {found!r}, wanted one from byte {start}")
    return start


def _save(response: http.client.HTTPResponse, target: Path, *, start: int, progress: bool) -> None:
    length = response.headers.get("Content-Length")
    wanted = None if length is None or not length.isdigit() else start + int(length)
    position = start
    with (
        _writing(target),
        open(_part(target), "r+b" if start else "wb") as file,
        tqdm(
            total=wanted,
            initial=start,
            unit="B",
            unit_scale=True,
            desc=target.name,
            leave=False,
            disable=None if progress else True,
        ) as bar,
    ):
        file.seek(start)
        while block := _read(response):
            file.write(block)
            position += len(block)
            bar.update(len(block))
    if wanted is not None and position < wanted:
        raise _BrokenOffError(f"the body ended after {position} of {wanted} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(f"the connection broke: {error!r}") from None


@contextlib.contextmanager
def _writing(target: Path):
    """Errors of the disk name the file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(_part(target))) from None


def _read_validator(target: Path, url: str) -> str | None:
    """The ETag or date of the version that the part is of, when it came from this URL."""
    try:
        note = json.loads(_note(target).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(note, dict) or note.get("url") != url or not isinstance(note.get("validator"), str):
        return None
    return note["validator"]


def _write_validator(target: Path, url: str, response: http.client.HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag
    if validator is None:  # nothing tells versions apart: a broken download starts over
        _note(target).unlink(missing_ok=True)
    else:
        _note(target).write_text(json.dumps({"url": url, "validator": validator}, sort_keys=True) + "\n")
