"""Hostile archives and images: each is refused with its reason or read as it should be, at little cost.

    PYTHONPATH=tests:benchmarks python -m faults.hostile_inputs

Writes benchmarks/results/hostile.json.
"""

import argparse
import gzip
import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rootstock.config import fetch
from rootstock.data import archives, manifest
from rootstock.data.archives import ArchiveError
from rootstock.data.sources.folder import Folder
from rootstock.data.sources.record import Record
from rootstock.data.tar_writer import header

MAX_PIXELS = 100_000_000  # the configuration's
MAX_SECONDS = 2.0
MAX_BYTES = 512 << 20
HANGS_SECONDS = 60
ACCEPTED = "accepted"


class Case(NamedTuple):
    """An input, the door it comes through, and the answer it must get (from `pillow` perhaps another)."""

    name: str
    door: str  # tar, tgz, image, folder
    make: Callable[[Path], None]  # writes the input to a path
    wanted: str  # the start of the answer
    pillow: str | None = None


# ----------------------------------------------------------------------------------------------------------------- tars


def _tar(*files, format: int = tarfile.GNU_FORMAT, pax: dict | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, pax_headers=pax) as archive:
        for info, data in files:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def _pax(**headers: str) -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = headers
    return _tar((info, b"abc"), format=tarfile.PAX_FORMAT)


def _with_size(field: bytes) -> bytes:
    """One member whose size field holds these 12 bytes, with a right checksum."""
    block = bytearray(header("a.jpg", 0))
    block[124:136] = field
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + bytes(1024)


def _raw_pax(content: bytes, kind: bytes = b"x") -> bytes:
    block = bytearray(header("pax", len(content)))
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


def _many(path: Path, *, number: int, block: Callable[[int], bytes]) -> None:
    with open(path, "wb") as file:
        for start in range(0, number, 4096):
            file.write(b"".join(block(place) for place in range(start, min(start + 4096, number))))
        file.write(bytes(1024))


def _sparse_tail(path: Path) -> None:
    """A member that claims 8 GB, all of it a hole in the file."""
    path.write_bytes(header("a.jpg", 8**11 - 1))
    os.truncate(path, 8**11 + 4096)


def tars(num_entries: int) -> Iterator[Case]:
    """Archives that must not be believed, and odd ones that may."""
    good = ("good.jpg", b"1")
    inner = _tar(("x.jpg", b"p" * 2000))
    damaged = bytearray(_tar(good))
    damaged[3] ^= 1
    records = b"".join(b"9 a%03d=b\n" % (number % 1000) for number in range(7000))
    whole = _tar(("a.jpg", b"x" * 600), ("b.jpg", b"y"))
    made = {
        "traversal": (_tar(good, ("jpg/../../a.jpg", b"")), "'jpg/../../a.jpg' has `..` in its name"),
        "traversal, folder": (_tar((_special("../up", tarfile.DIRTYPE), b"")), "'../up' has `..` in its name"),
        "traversal in a pax name": (_pax(path="../../a.jpg"), "'../../a.jpg' has `..` in its name"),
        "absolute name": (_tar(("/etc/cron.d/a.jpg", b"")), "'/etc/cron.d/a.jpg' has an absolute name"),
        "drive letter": (_tar(("C:/a.jpg", b"")), "'C:/a.jpg' has a drive or a backslash in its name"),
        "backslashes": (_tar(("..\\..\\a.jpg", b"")), "'..\\\\..\\\\a.jpg' has a drive or a backslash in its name"),
        "symbolic link": (_tar((_special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), b"")), "'a.jpg' is a symbolic link"),
        "hard link": (_tar((_special("a.jpg", tarfile.LNKTYPE, "/etc/passwd"), b"")), "'a.jpg' is a hard link"),
        "character device": (_tar((_special("null", tarfile.CHRTYPE), b"")), "'null' is a character device"),
        "block device": (_tar((_special("sda", tarfile.BLKTYPE), b"")), "'sda' is a block device"),
        "FIFO": (_tar((_special("pipe", tarfile.FIFOTYPE), b"")), "'pipe' is a FIFO"),
        "contiguous file": (_tar((_special("odd", tarfile.CONTTYPE), b"")), "'odd' is of unknown type b'7'"),
        "GNU sparse": (_tar((_special("a.jpg", tarfile.GNUTYPE_SPARSE), b"")), "'a.jpg' is a sparse file"),
        "pax sparse 1.0": (_pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "'a.jpg' is a sparse file"),
        "pax sparse 0.1": (_pax(**{"GNU.sparse.map": "0,9"}), "'a.jpg' is a sparse file"),
        "GNU long link": (
            _tar((_special("a.jpg", tarfile.SYMTYPE, "l" * 300), b"")),
            "'././@LongLink' is of unknown type b'K'",
        ),
        "newline in a name": (_tar(("a\nb.jpg", b"")), "'a\\nb.jpg' has a control character in its name"),
        "NUL in a pax name": (_pax(path="a.jpg\0.exe"), "'a.jpg\\x00.exe' has a control character in its name"),
        "escape codes in a name": (_tar(("a\x1b[31m.jpg", b"")), "'a\\x1b[31m.jpg' has a control character"),
        "name that is not UTF-8": (_tar(("a\udcff.jpg", b"")), "'a\\udcff.jpg' has a name that is not UTF-8"),
        "name of 1000 characters": (_tar(("n" * 1000, b"")), f"'{'n' * 80}'… has a name of 1000 bytes"),
        "name of 60 000 characters": (_tar(("n" * 60_000, b"")), f"'{'n' * 80}'… has a name of 60000 by"),
        "name of nothing": (_tar(("././", b"")), "'././' has no name"),
        "doubled name": (_tar(good, good), "good.jpg: appears twice"),
        "doubled name, spelt otherwise": (_tar(good, ("./good.jpg", b"")), "good.jpg: appears twice"),
        "folder with data": (_folder_with_data(), "'a' is a folder with 512 bytes of data"),
        "folder named like an image": (_tar((_special("a.jpg", tarfile.DIRTYPE), b""), good), ACCEPTED + ": 1 members"),
        "names that differ in case": (_tar(("a.jpg", b""), ("A.jpg", b"")), ACCEPTED + ": 2 members"),
        "tar in a tar": (_tar(("n1.tar", inner)), ACCEPTED + ": 1 members"),
        "negative size": (_with_size(b"\xff" * 12), "'a.jpg': size -1, wanted >= 0"),
        "size in base 256, 2^70": (_with_size(b"\x80" + bytes(2) + b"\x40" + bytes(8)), "is truncated: 'a.jpg' needs"),
        "size in base 256, honest": (_with_size(b"\x80" + bytes(11)), ACCEPTED + ": 1 members"),
        "size that is no number": (_with_size(b"nonsense----"), "is not a whole tar: invalid header"),
        "size beyond the archive": (_with_size(b"77777777777\0"), "is truncated: 'a.jpg' needs 8589934591 bytes"),
        "pax size that lies": (_pax(size="99999999"), "is truncated: 'a.jpg' needs 99999999 bytes"),
        "pax size below zero": (_pax(size="-5"), "'a.jpg': pax size '-5', wanted a number"),
        "pax size in Arabic digits": (_pax(size="٣"), "'a.jpg': pax size '٣', wanted a number"),
        "pax size of 5000 digits": (_pax(size="9" * 5000), "'a.jpg': pax size '999"),
        "global pax header that renames": (
            _raw_pax(b"15 path=../a.b\n", b"g") + _tar(good),
            "'pax': a global pax header that renames or resizes members",
        ),
        "damaged pax header": (_raw_pax(b"99 path=a\n") + _tar(good), "'pax': a damaged pax header"),
        "pax header of 7000 records": (_raw_pax(records[:60_000]) + _tar(good), "'pax': a damaged pax header"),
        "pax header of 1 GB": (_huge_pax(), "is truncated: 'pax' needs 1000000000 bytes"),
        "pax headers without end": (
            _raw_pax(b"9 a=bcde\n") * 50 + _tar(good),
            "more than 8 extended headers for one member",
        ),
        "wrong checksum": (bytes(damaged), "is not a whole tar: bad checksum"),
        "cut in a header": (whole[:200], "is truncated at offset 0"),
        "cut in an image": (whole[:900], "is truncated: 'a.jpg' needs 600 bytes"),
        "cut behind a member": (whole[:1536], "is truncated at offset 1536: no end-of-archive blocks"),
        "one closing block": (whole[:2560] + bytes(512), "is truncated at offset 2560: one end-of-archive block"),
        "nothing": (b"", "is truncated at offset 0"),
        "gzip named tar": (gzip.compress(whole), "is truncated at offset 0"),
        "zip named tar": (b"PK\3\4" + bytes(range(256)) * 8, "is not a whole tar"),
    }
    for name, (data, wanted) in made.items():
        yield Case(name, "tar", lambda path, data=data: path.write_bytes(data), wanted)
    for name, block in {
        f"{num_entries} entries": lambda number: header(f"class/{number:07d}.jpg", 0),
        f"{num_entries} folders": lambda number: _DIRECTORY,
    }.items():
        make = lambda path, block=block: _many(path, number=num_entries, block=block)  # noqa: E731
        yield Case(name, "tar", make, f"more than {archives.MAX_HEADERS} headers: refused")
    yield Case("member of 8 GB, a hole in the file", "tar", _sparse_tail, f"{ACCEPTED}: 1 members")


def _folder_with_data() -> bytes:
    block = bytearray(header("a", 512))
    block[156:157] = b"5"
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + bytes(2048)


def _huge_pax() -> bytes:
    block = bytearray(header("pax", 10**9))
    block[156:157] = b"x"
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + bytes(4096)


_DIRECTORY = _folder_with_data()[:512].replace(b"00000001000", b"00000000000")
_DIRECTORY = bytearray(_DIRECTORY)
_DIRECTORY[148:156] = b" " * 8
_DIRECTORY[148:155] = b"%06o\0" % sum(_DIRECTORY)
_DIRECTORY = bytes(_DIRECTORY)


def tgzs() -> Iterator[Case]:
    """Compressed archives; the bounds on a bomb are made small, for a real one fills a disk."""
    made = {
        "gzip bomb": (gzip.compress(bytes(300 << 20), 9), "inflates to more than"),
        "gzip bomb of many streams": (gzip.compress(bytes(1 << 20), 9) * 300, "inflates to more than"),
        "gzip cut": (gzip.compress(os.urandom(9000))[:5000], "is truncated: the gzip stream ends early"),
        "gzip with a wrong sum": (gzip.compress(b"x" * 900)[:-8] + bytes(8), "is not a whole gzip file: CRC"),
        "no gzip": (b"hello" * 100, "is not a whole gzip file: Not a gzipped file"),
        "gzip of a hostile tar": (gzip.compress(_tar(("../a.jpg", b""))), "'../a.jpg' has `..` in its name"),
    }
    for name, (data, wanted) in made.items():
        yield Case(name, "tgz", lambda path, data=data: path.write_bytes(data), wanted)


# --------------------------------------------------------------------------------------------------------------- images


# the backend `pillow` fills missing rows with grey, and reads arithmetic coding
PILLOW = {
    "JPEG of more rows than it has": f"{ACCEPTED}: 60×4000",
    "JPEG of 9000 × 7000, 3 kB": "9000×7000 pixels: decoding would take",
    "JPEG of 9900 × 9900, 3 kB": "9900×9900 pixels: decoding would take",
    "rotated JPEG of more rows than it has": f"{ACCEPTED}: 400×60",
    "JPEG marked arithmetic": f"{ACCEPTED}: 60×40",
}


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, data: bytes | None = None) -> bytes:
    ihdr = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = zlib.compress(bytes(10_000_000), 9) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(chunks) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _jpeg_size(data: bytes, width: int, height: int) -> bytes:
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2", b"\xff\xc9") if marker in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def _many_scans(side: int, number: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = _encoded(Image.new("RGB", (side, side), "grey"), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * number + b"\xff\xd9"


def _exif(orientation: int, **more) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def images() -> Iterator[Case]:
    """Images that are refused, and odd ones that are read."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).resize((60, 40))
    other = Image.new("RGB", (60, 40), "red")
    jpeg, png, webp = (_encoded(picture, kind) for kind in ("JPEG", "PNG", "WEBP"))
    progressive = _encoded(picture, "JPEG", progressive=True)
    sof, over = jpeg.index(b"\xff\xc0"), f"more than max_pixels {MAX_PIXELS}"
    seen = f"{ACCEPTED}: 60×40"
    bomb_webp = bytearray(_encoded(Image.new("RGBA", (8, 8)), "WEBP", exif=_exif(1)))
    at = bomb_webp.index(b"VP8X") + 12
    bomb_webp[at : at + 6] = (16_383).to_bytes(3, "little") * 2
    exif_rotated = _encoded(picture, "JPEG", exif=_exif(6))
    text = _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100 << 20), 9))
    profile = _chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100 << 20), 9))
    loaded = zlib.compress((b"\0" + bytes(180)) * 40)
    app = b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65527)
    made = {
        "nothing": (b"", "empty file"),
        "text": (b"hello, I am text\n", "neither JPEG, PNG nor WebP"),
        "HTML named JPEG": (b"<!DOCTYPE html><html>404</html>", "neither JPEG, PNG nor WebP"),
        "SVG named JPEG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "neither JPEG, PNG nor WebP"),
        "GIF named JPEG": (_encoded(picture, "GIF"), "neither JPEG, PNG nor WebP"),
        "BMP named JPEG": (_encoded(picture, "BMP"), "neither JPEG, PNG nor WebP"),
        "TIFF named JPEG": (_encoded(picture, "TIFF"), "neither JPEG, PNG nor WebP"),
        "AVIF named JPEG": (b"\0\0\0\x20ftypavif" + bytes(99), "neither JPEG, PNG nor WebP"),
        "HEIC named JPEG": (b"\0\0\0\x20ftypheic" + bytes(99), "neither JPEG, PNG nor WebP"),
        "PostScript named JPEG": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "neither JPEG, PNG nor WebP"),
        "RIFF that is no WebP": (b"RIFF\x10\0\0\0WAVEfmt ", "neither JPEG, PNG nor WebP"),
        "PNG named JPEG": (png, seen),
        "WebP named JPEG": (webp, seen),
        "JPEG, three bytes": (jpeg[:3], "broken JPEG"),
        "JPEG, header only": (jpeg[: jpeg.index(b"\xff\xda")], "broken JPEG"),
        "JPEG, half": (jpeg[: len(jpeg) // 2], "broken JPEG"),
        "JPEG without its end marker": (jpeg[:-2], "broken JPEG"),
        "JPEG with 1 MB behind it": (jpeg + os.urandom(1 << 20), seen),
        "JPEG of 60000 × 60000": (_jpeg_size(jpeg, 60_000, 60_000), f"60000×60000 pixels, {over}"),
        "JPEG of 0 × 40": (_jpeg_size(jpeg, 0, 40), "broken JPEG"),
        "JPEG of 60 × 0 (DNL)": (_jpeg_size(jpeg, 60, 0), "broken JPEG"),
        "JPEG of more rows than it has": (_jpeg_size(jpeg, 60, 4000), "broken JPEG"),
        "JPEG of 9000 × 7000, 3 kB": (_jpeg_size(jpeg, 9000, 7000), "broken JPEG"),
        "JPEG of 9900 × 9900, 3 kB": (_jpeg_size(jpeg, 9900, 9900), "broken JPEG"),
        "progressive JPEG of 9900 × 9900": (
            _jpeg_size(progressive, 9900, 9900),
            "9900×9900 pixels: decoding would take",
        ),
        "progressive JPEG of 5000 scans": (_many_scans(600, 5000), "600×600 pixels in 500"),
        "progressive JPEG of 90 scans of 25 million pixels": (_many_scans(5000, 90), "5000×5000 pixels in 9"),
        "progressive JPEG, half": (progressive[: len(progressive) // 2], "broken JPEG"),
        "JPEG of 12 bits": (jpeg[: sof + 4] + b"\x0c" + jpeg[sof + 5 :], "broken JPEG"),
        "lossless JPEG": (jpeg[: sof + 1] + b"\xc3" + jpeg[sof + 2 :], "broken JPEG"),
        "JPEG marked arithmetic": (jpeg[: sof + 1] + b"\xc9" + jpeg[sof + 2 :], "broken JPEG"),
        "JPEG without tables": (
            jpeg.replace(b"\xff\xdb", b"\xff\xfe").replace(b"\xff\xc4", b"\xff\xfe"),
            "broken JPEG",
        ),
        "CMYK JPEG": (_encoded(picture.convert("CMYK"), "JPEG"), seen),
        "grey JPEG": (_encoded(picture.convert("L"), "JPEG"), seen),
        **{f"EXIF orientation {turn}": (_encoded(picture, "JPEG", exif=_exif(turn)), seen) for turn in (1, 2, 3, 4)},
        **{
            f"EXIF orientation {turn}": (_encoded(picture, "JPEG", exif=_exif(turn)), f"{ACCEPTED}: 40×60")
            for turn in (5, 6, 7, 8)
        },
        "EXIF orientation 99": (_encoded(picture, "JPEG", exif=_exif(99)), seen),
        "broken EXIF": (_encoded(picture, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 30), seen),
        "EXIF that points to itself": (_encoded(picture, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0"), seen),
        "EXIF of 65 kB, 200 times": (jpeg[:2] + app * 200 + jpeg[2:], seen),
        "rotated JPEG of more rows than it has": (_jpeg_size(exif_rotated, 60, 400), "broken JPEG"),
        "rotated JPEG, half": (exif_rotated[: len(exif_rotated) // 2], "broken JPEG"),
        "rotated JPEG of 60000 × 60000": (_jpeg_size(exif_rotated, 60_000, 60_000), f"60000×60000 pixels, {over}"),
        "phone's photograph with a second picture (MPO)": (
            _encoded(picture, "MPO", save_all=True, append_images=[other]),
            seen,
        ),
        "PNG, header only": (png[:33], "broken PNG"),
        "PNG, half": (png[: len(png) // 2], "broken PNG"),
        "PNG with a wrong sum": (png[:40] + bytes([png[40] ^ 1]) + png[41:], "broken PNG"),
        "PNG of 60000 × 60000": (_png(60_000, 60_000), f"60000×60000 pixels, {over}"),
        "PNG of 9900 × 9900, 290 kB": (
            _png(9900, 9900, data=zlib.compress(bytes(9900 * 29_701), 9)),
            "9900×9900 pixels: decoding would take 747 MiB, more than 480",
        ),
        "PNG of 7500 × 7500, 165 kB": (
            _png(7500, 7500, data=zlib.compress(bytes(7500 * 22_501), 9)),
            f"{ACCEPTED}: 7500×7500",
        ),
        "PNG of 0 × 40": (_png(0, 40), "broken PNG"),
        "PNG of 2^31 × 1": (_png(2**31 - 1, 1), f"2147483647×1 pixels, {over}"),
        "PNG sliver of 1 × 100000": (_png(1, 100_000), "1×100000 pixels, one side more than 100 times the other"),
        "PNG with 300 MB behind its rows": (_png(60, 40, data=zlib.compress(bytes(300 << 20), 9)), seen),
        "PNG with a text of 100 MB": (_png(60, 40, text, data=loaded), "broken PNG"),
        "PNG with a profile of 100 MB": (_png(60, 40, profile, data=loaded), "broken PNG"),
        "PNG with 3000 texts of 1 MB": (
            _png(60, 40, _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20), 9)) * 3000, data=loaded),
            "broken PNG",
        ),
        "PNG with 100000 chunks": (_png(60, 40, _chunk(b"tEXt", b"k\0v") * 100_000, data=loaded), seen),
        "PNG of 16 bits": (_png(60, 40, depth=16), "16-bit PNG: convert it to 8 bits a channel"),
        "PNG of 3 bits": (_png(60, 40, depth=3), "broken PNG"),
        "PNG with a palette that is too short": (
            _png(60, 40, _chunk(b"PLTE", b"\1\2\3"), colour=3, data=zlib.compress((b"\0" + b"\xff" * 60) * 40)),
            seen,
        ),
        "PNG with transparency": (_encoded(picture.convert("RGBA"), "PNG"), seen),
        "PNG of one bit": (_encoded(picture.convert("1"), "PNG"), seen),
        "PNG of a palette": (_encoded(picture.convert("P"), "PNG"), seen),
        "animated PNG": (_encoded(picture, "PNG", save_all=True, append_images=[other]), "animated png of 2 frames"),
        "animated WebP": (_encoded(picture, "WEBP", save_all=True, append_images=[other]), "animated webp of 2 frames"),
        "WebP, header only": (webp[:20], "broken WEBP"),
        "WebP, half": (webp[: len(webp) // 2], "broken WEBP"),
        "WebP of 16384 × 16384": (bytes(bomb_webp), "broken WEBP"),
        "WebP of 6000 × 6000": (
            _encoded(Image.new("RGB", (6000, 6000)), "WEBP", method=0),
            "6000×6000 pixels: decoding would take 583 MiB, more than 480",
        ),
        "WebP that claims 4 GB": (webp[:4] + b"\xff\xff\xff\xff" + webp[8:], "broken WEBP"),
    }
    for name, (data, wanted) in made.items():
        yield Case(name, "image", lambda path, data=data: path.write_bytes(data), wanted, PILLOW.get(name))


# ------------------------------------------------------------------------------------------------ a folder of one's own


def folders() -> Iterator[Case]:
    """Folders of images with what does not belong there."""
    photo = _encoded(Image.new("RGB", (9, 9)), "JPEG")

    def tree(odd: Callable[[Path], None]) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            for name in ("a", "b"):
                (path / name).mkdir(parents=True)
                for number in range(4):
                    (path / name / f"{number}.jpg").write_bytes(photo + bytes([number]))
            odd(path)

        return make

    made = {
        "link out of the folder": (lambda path: (path / "a/x.jpg").symlink_to("/etc/passwd"), "a/x.jpg is a link out"),
        "link to nothing": (lambda path: (path / "a/x.jpg").symlink_to("gone.jpg"), "a/x.jpg is a link out"),
        "link to itself": (lambda path: (path / "a/x.jpg").symlink_to("x.jpg"), "a/x.jpg is a link out"),
        "FIFO named like an image": (lambda path: os.mkfifo(path / "a/x.jpg"), "a/x.jpg is not a regular file"),
        "folder named like an image": (lambda path: (path / "a/x.jpg").mkdir(), "a/x.jpg is a folder inside a class"),
        "newline in a file's name": (lambda path: (path / "a/x\n.jpg").write_bytes(photo), "'a/x\\n.jpg' has a name"),
        "file's name that is not UTF-8": (
            lambda path: Path(os.fsdecode(bytes(path / "a") + b"/\xff.jpg")).write_bytes(photo),
            "'a/\\udcff.jpg' has a name",
        ),
        "empty class": (lambda path: (path / "c").mkdir(), "empty class: c holds no images"),
        "images in no class": (lambda path: (path / "x.jpg").write_bytes(photo), "x.jpg lies in no class folder"),
    }
    for name, (odd, wanted) in made.items():
        yield Case(name, "folder", tree(odd), wanted)


# ------------------------------------------------------------------------------------------------------------ the trial


def answer(case_door: str, path: Path, *, backend: str) -> str:
    """Bring an input through its door; ACCEPTED and what was found, or the reason."""
    try:
        if case_door == "tar":
            return f"{ACCEPTED}: {sum(1 for _ in archives.members(path))} members"
        if case_door == "tgz":
            archives.inflate(path, path.with_suffix(".tar"))
            return f"{ACCEPTED}: {sum(1 for _ in archives.members(path.with_suffix('.tar')))} members"
        if case_door == "folder":
            config = fetch.Folder(collection="folder", path=str(path), val_fraction=0.25, test_fraction=0.25)
            source = Folder(config=config, roots=[], own=path.parent / "own")
            return f"{ACCEPTED}: {sum(1 for _ in source.records(split_seed=0, val_fraction=None))} images"
    except ArchiveError as error:
        return str(error).replace(f"{path}: ", "").replace(f"{path} ", "").replace(f"{path.with_suffix('.tar')}: ", "")
    record = Record("key", "train", 0, path.name, 0, path.stat().st_size)
    (row,) = manifest.examine(manifest.Work([record], [path], backend, MAX_PIXELS))
    return row.get("reason") or f"{ACCEPTED}: {row['width']}×{row['height']}"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(case: Case, path: Path, *, backend: str) -> dict:
    """Answer in a forked child: the answer, processor seconds, and peak memory above the child's at its start."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(HANGS_SECONDS)
        before, begin = _peak_bytes(), time.process_time()
        found = answer(case.door, path, backend=backend)
        measured = {"answer": found, "seconds": time.process_time() - begin, "peak_bytes": _peak_bytes() - before}
        os.write(writer, json.dumps(measured).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        measured = json.loads(pipe.read() or b'{"answer": "crashed or hung", "seconds": 0, "peak_bytes": 0}')
    measured["status"] = os.waitpid(child, 0)[1]
    return measured


def _tree(folder: Path) -> dict[str, tuple]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def run(root: Path, *, num_entries: int) -> list[dict]:
    """Bring every case through its door, images through both back-ends; a row each."""
    archives.MAX_INFLATE_BYTES = 64 << 20  # a bomb as it is, a disk that stays usable
    outside = root / "outside"
    (outside / "home").mkdir(parents=True)
    (outside / "home" / "file").write_text("as it was")
    os.environ |= {"HOME": str(outside / "home"), "TMPDIR": str(outside)}
    rows = []
    for number, case in enumerate([*tars(num_entries), *tgzs(), *images(), *folders()]):
        given = outside / f"given-{number}"
        given.mkdir()
        path = given / {"tar": "a.tar", "tgz": "a.tgz", "image": "a.jpg", "folder": "photographs"}[case.door]
        _in_child(case.make, path)
        os.chdir(given)
        for backend in ("simplejpeg", "pillow") if case.door == "image" else ("-",):
            before = {name: status for name, status in _tree(outside).items() if not name.startswith(str(given))}
            measured = measure(case, path, backend=backend)
            after = {name: status for name, status in _tree(outside).items() if not name.startswith(str(given))}
            rows.append(
                {
                    "case": case.name, "door": case.door, "backend": backend, **measured,
                    "wanted": case.pillow if backend == "pillow" and case.pillow else case.wanted,
                    "num_writes_outside": len(set(before.items()) ^ set(after.items())),
                }
            )  # fmt: skip
        _in_child(lambda path: subprocess.run(["rm", "-rf", path], check=True), given)
    return rows


def _in_child(make: Callable[[Path], None], path: Path) -> None:
    """What makes a bomb needs its memory: in a child, that of later children begins small."""
    child = os.fork()
    if child == 0:
        make(path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, path


def wrongs(row: dict) -> list[str]:
    """What is not as it should be."""
    found = []
    if row["status"] or not row["answer"].startswith(row["wanted"]) or not row["answer"]:
        found.append(f"answer {row['answer'][:200]!r}, wanted {row['wanted']!r}")
    if row["seconds"] >= MAX_SECONDS:
        found.append(f"{row['seconds']:.1f} s")
    if row["peak_bytes"] >= MAX_BYTES:
        found.append(f"{row['peak_bytes'] >> 20} MiB")
    if row["num_writes_outside"]:
        found.append(f"{row['num_writes_outside']} writes outside")
    return [f"{row['door']}: {row['case']} ({row['backend']}): {text}" for text in found]


def main() -> None:
    """Print a table, write the results; exit 1 when a case is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10**6, help="of the tar of many members (10^6)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON and write nothing")
    arguments = parser.parse_args()
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder).resolve(), num_entries=arguments.entries)
        os.chdir(here)
    if arguments.json:
        print(json.dumps(rows))
        return
    import record  # here only: benchmarks/ is on the path of the long run alone

    for row in rows:
        print("{door:<7}{case:<52}{backend:<11}{seconds:>6.2f} s {0:>5} MiB  {1}".format(
            row["peak_bytes"] >> 20, row["answer"][:90], **row))  # fmt: skip
    found = [text for row in rows for text in wrongs(row)]
    print("\n".join(found))
    totals = {
        "cases": len({(row["door"], row["case"]) for row in rows}),
        "trials": len(rows),
        "refused": sum(not row["answer"].startswith(ACCEPTED) for row in rows),
        "max_seconds": max(row["seconds"] for row in rows),
        "max_peak_bytes": max(row["peak_bytes"] for row in rows),
        "writes_outside": sum(row["num_writes_outside"] for row in rows),
        "wrongs": len(found),
    }
    print(totals)
    print(f"wrote {record.write('hostile', {'totals': totals, 'rows': rows})}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
