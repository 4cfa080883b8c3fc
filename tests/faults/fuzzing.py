"""Random damage to tars and images: only the documented errors come out of their doors, and soon.

    PYTHONPATH=tests:benchmarks python -m faults.fuzzing --minutes 10

Writes benchmarks/results/fuzz.json. Examples run in a child process; the one under way when it crashes, or takes longer
than its limit, is kept beside the results.
"""

import argparse
import faulthandler
import io
import json
import os
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from rootstock.data.archives import ArchiveError, members, pread
from rootstock.data.decode import ImageError, decode

EXAMPLE_SECONDS = 10  # more is a hang, also on a busy machine
MAX_PIXELS = 4_000_000
MAX_ADDRESS_BYTES = 6 << 30
ROUND = 200  # examples between two looks at the clock
EXAMPLE = "example.bin"


def _tars() -> list[bytes]:
    found = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
            for number, length in enumerate((3, 600, 0, 1100)):
                info = tarfile.TarInfo(f"folder{number}/" + "é" * (150 * (format != tarfile.USTAR_FORMAT)) + ".jpg")
                info.size = length
                archive.addfile(info, io.BytesIO(bytes(length)))
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        found.append(buffer.getvalue().rstrip(b"\0"))
        found[-1] += bytes(-len(found[-1]) % 512 + 1024)
    return found


def _images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((45, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted = [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "exif": exif}),
        ("CMYK", "JPEG", {}),
        ("L", "JPEG", {"exif": exif}),
        ("RGB", "PNG", {"exif": exif}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("1", "PNG", {}),
        ("RGB", "WEBP", {"exif": exif}),
        ("RGBA", "WEBP", {"lossless": True}),
    ]
    found = []
    for mode, kind, options in wanted:
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


TARS, IMAGES = _tars(), _images()
INTERESTING = [0, 1, 9, 32, 48, 55, 57, 127, 128, 254, 255]


@st.composite
def damaged(draw: st.DrawFn, wholes: list[bytes], block: int) -> bytes:
    """One of the wholes after up to four changes: bytes set, bits flipped, pieces cut, doubled, moved, taken over."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        at, other = (draw(st.integers(0, len(data) - 1)) for _ in range(2))
        length = draw(st.one_of(st.integers(1, 16), st.integers(1, 4).map(lambda blocks: blocks * block)))
        change = draw(st.integers(0, 6))
        if change == 0:
            data[at] = draw(st.sampled_from(INTERESTING))
        elif change == 1:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == 2:
            del data[at : at + length]
        elif change == 3:
            data[at:at] = data[other : other + length]
        elif change == 4:
            data[at : at + length] = draw(st.binary(max_size=16))
        elif change == 5:
            donor = draw(st.sampled_from(wholes))
            data[at : at + length] = donor[other % len(donor) :][:length]
        else:
            del data[at:]
    return bytes(data)


def _with_sums(data: bytes) -> bytes:
    """The same blocks with right checksums wherever one could be a header: else nothing lies behind the first check."""
    changed = bytearray(data)
    for start in range(0, len(changed) - 511, 512):
        if any(changed[start + 257 : start + 262]):
            changed[start + 148 : start + 156] = b" " * 8
            changed[start + 148 : start + 155] = b"%06o\0" % sum(changed[start : start + 512])
    return bytes(changed)


def read_tar(path: Path, data: bytes) -> str:
    """Read every member; what came of it."""
    path.write_bytes(data)
    try:
        for member in members(path):
            assert not member.name.startswith("/"), member
            assert ".." not in member.name.split("/"), member
            assert 0 <= member.offset <= member.offset + member.num_bytes <= len(data), member
            assert len(pread(path, member.offset, member.num_bytes)) == member.num_bytes
    except ArchiveError as error:
        assert str(error).startswith(str(path)), error  # noqa: PT017 - either outcome is right, nothing else is
        return "refused"
    return "read"


def read_image(data: bytes, backend: str) -> str:
    """Decode; what came of it."""
    try:
        image_HWC = decode(data, backend=backend, max_pixels=MAX_PIXELS).image_HWC
    except ImageError as error:
        assert str(error), data  # noqa: PT017
        return "refused"
    height, width, depth = image_HWC.shape
    assert depth == 3, image_HWC.shape
    assert 0 < height * width <= MAX_PIXELS, image_HWC.shape
    assert image_HWC.dtype == np.uint8
    return "read"


def fuzz(folder: Path, *, seconds: float, start: int) -> dict[str, int]:
    """Try examples until the time is over; how many were read and refused."""
    counts: Counter[str] = Counter()
    example = folder / EXAMPLE
    options = {
        "max_examples": ROUND,
        "deadline": None,
        "database": None,
        "phases": (Phase.generate,),
        "suppress_health_check": list(HealthCheck),
    }

    def begin(data: bytes) -> None:
        example.write_bytes(data)
        faulthandler.dump_traceback_later(EXAMPLE_SECONDS, exit=True)

    @settings(**options)
    @given(data=damaged(TARS, 512), sums=st.booleans())
    def tars(data: bytes, sums: bool) -> None:
        data = _with_sums(data) if sums else data
        begin(data)
        counts["tar " + read_tar(folder / "a.tar", data)] += 1

    @settings(**options)
    @given(data=damaged(IMAGES, 64), backend=st.sampled_from(["simplejpeg", "pillow"]))
    def pictures(data: bytes, backend: str) -> None:
        begin(data)
        counts["image " + read_image(data, backend)] += 1

    end, number = time.monotonic() + seconds, start
    while time.monotonic() < end:
        for test in (tars, pictures):
            seed(number)(test)()
        number += 1
    faulthandler.cancel_dump_traceback_later()
    counts["rounds"] = number - start
    return dict(counts)


def in_child(folder: Path, *, seconds: float, start: int) -> dict:
    """Fuzz in a process of its own: its counts, or how it ended and the example it ended at."""
    command = [sys.executable, "-m", "faults.fuzzing", "--child", str(folder), "--seconds", str(seconds)]
    ended = subprocess.run(
        [*command, "--start", str(start)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=seconds + 300,
    )
    if ended.returncode == 0:
        return {"counts": json.loads(ended.stdout.splitlines()[-1])}
    return {"crash": ended.stderr[-4000:], "code": ended.returncode, "example": (folder / EXAMPLE).read_bytes().hex()}


def main() -> None:
    """Fuzz for some minutes, print and write the figures; exit 1 after a crash or a hang."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--child", type=Path, help="fuzz here (what this script does in its child processes)")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--start", type=int, default=None, help="the first seed; by the clock when absent")
    arguments = parser.parse_args()
    if arguments.child:
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
        print(json.dumps(fuzz(arguments.child, seconds=arguments.seconds, start=arguments.start)))
        return
    import record  # here only: benchmarks/ is on the path of the long run alone

    start = random.SystemRandom().randrange(10**9) if arguments.start is None else arguments.start
    counts, failures, number = Counter(), [], start
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        while (left := end - time.monotonic()) > 1:
            found = in_child(Path(folder), seconds=min(60, left), start=number)
            counts.update(found.get("counts", {}))
            failures += [found] if "crash" in found else []
            number += 1_000_000
    figures = {"minutes": arguments.minutes, "start": start, "examples": dict(counts), "failures": failures}
    print(json.dumps(figures, indent=1))
    print(f"wrote {record.write('fuzz', figures)}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
