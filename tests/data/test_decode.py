"""Bytes become upright RGB pixels, or a reason; never a crash, never other pixels."""

import io
import itertools
import json
import struct
import subprocess
import sys
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rootstock.data.decode import (
    CONTEXT_ROWS,
    ImageError,
    Scratch,
    _head,
    _is_rotated,
    center_crop,
    decode,
    resize,
    resize_short,
)

BACKENDS = ("simplejpeg", "pillow")
MAX_PIXELS = 10_000
# what Pillow says of damaged metadata while it reads the pixels all the same
quietly = pytest.mark.filterwarnings(
    "ignore::UserWarning:PIL.TiffImagePlugin", "ignore::UserWarning:PIL.JpegImagePlugin"
)


def smooth(height: int = 24, width: int = 36) -> np.ndarray:
    """A picture that JPEG keeps well and no orientation leaves as it is."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 200], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    return exif


def refused(data: bytes, backend: str = "simplejpeg") -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, backend=backend, max_pixels=MAX_PIXELS)
    return str(caught.value)


def pixels(data: bytes, backend: str = "simplejpeg") -> np.ndarray:
    decoded = decode(data, backend=backend, max_pixels=MAX_PIXELS)
    assert decoded.image_HWC.dtype == np.uint8
    assert decoded.image_HWC.flags.c_contiguous
    assert decoded.image_HWC.flags.writeable
    return decoded.image_HWC


PICTURE = Image.fromarray(smooth())
JPEG = encoded(PICTURE, "JPEG", quality=95)
PNG = encoded(PICTURE, "PNG")
WEBP = encoded(PICTURE, "WEBP", lossless=True)


# --------------------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("data", "kind"), [(JPEG, "jpeg"), (PNG, "png"), (WEBP, "webp")])
def test_the_format_is_told_from_the_bytes(data, kind, backend):
    assert decode(data, backend=backend, max_pixels=MAX_PIXELS).format == kind


@pytest.mark.parametrize("data", [PNG, WEBP])
def test_lossless_formats_give_their_pixels(data):
    np.testing.assert_array_equal(pixels(data), smooth())


def test_the_two_backends_differ_by_a_little():
    difference = np.abs(pixels(JPEG).astype(int) - pixels(JPEG, "pillow"))
    assert difference.max() <= 3
    assert difference.mean() < 0.5
    assert np.abs(pixels(JPEG).astype(int) - smooth()).mean() < 4


def test_real_photographs_differ_by_a_little(shared_data):
    with tarfile.open(next(shared_data.rglob("102flowers.tgz"))) as archive:
        members = itertools.islice((member for member in archive if member.isfile()), 8)
        photographs = [archive.extractfile(member).read() for member in members]
    for data in photographs:
        images = [decode(data, backend=backend, max_pixels=10**8).image_HWC for backend in BACKENDS]
        assert np.abs(images[0].astype(int) - images[1]).mean() < 0.5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_applied(orientation, kind, backend):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = encoded(PICTURE, kind, exif=oriented(orientation), **options)
    found = pixels(data, backend)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert found.shape == wanted.shape == ((24, 36, 3) if orientation <= 4 else (36, 24, 3))
    np.testing.assert_allclose(found.astype(int), wanted, atol=3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_orientation_is_found_behind_other_metadata(backend):
    """A colour profile of several blocks may come first."""
    plain = encoded(PICTURE, "JPEG", quality=95, exif=oriented(6))
    at = plain.index(b"\xff\xe1")
    block = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)
    assert pixels(plain[:at] + block + plain[at:], backend).shape == (36, 24, 3)


@pytest.mark.parametrize("extra", [b"\xff" * 3, b"\xff\xe1\x00\x02" * 1500])
def test_the_orientation_is_found_in_a_head_that_is_no_plain_chain(extra):
    """Fill bytes; more segments than are walked."""
    data = encoded(PICTURE, "JPEG", quality=95, exif=oriented(6))
    assert _head(data) is not None
    odd = data[:2] + extra + data[2:]
    assert _head(odd) is None
    assert _is_rotated(odd, None)


def test_exif_behind_the_first_scan_is_not_looked_for():
    data = encoded(PICTURE, "JPEG", quality=95)
    tail = encoded(PICTURE, "JPEG", exif=oriented(6))
    np.testing.assert_array_equal(pixels(data + tail), pixels(data))
    assert not _is_rotated(data + tail, None), "a search of the whole finds the same"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_head_ends_where_the_first_scan_begins(mode, options):
    data = encoded(PICTURE.convert(mode), "JPEG", **options)
    head = _head(data)
    assert head.num_bytes == data.index(b"\xff\xda")
    assert head.is_one_scan == ("progressive" not in options)


def test_a_second_scan_where_one_has_everything_is_refused():
    """So it needs no counting."""
    at = JPEG.index(b"\xff\xda")
    assert refused(JPEG[:-2] + JPEG[at:]).startswith("broken JPEG")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_have_a_head_or_none(data):
    head = _head(b"\xff\xd8" + data)
    assert head is None or head.num_bytes <= len(data) + 2


def test_scratch_is_used_again_and_changes_no_pixel():
    scratch = Scratch()
    larger = encoded(PICTURE.resize((60, 48)), "JPEG", quality=95)
    grey = encoded(PICTURE.convert("L"), "JPEG")
    found = []
    for data in (JPEG, larger, JPEG, PNG, grey, JPEG):
        image = decode(data, backend="simplejpeg", max_pixels=MAX_PIXELS, scratch=scratch).image_HWC
        np.testing.assert_array_equal(image, pixels(data))
        found.append(image)
    assert np.shares_memory(found[1], found[2])
    assert np.shares_memory(found[2], found[5])
    kept = found[5].copy()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(decode, larger, backend="simplejpeg", max_pixels=MAX_PIXELS, scratch=scratch).result()
    np.testing.assert_array_equal(found[5], kept), "another thread has memory of its own"


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(2, 70),
    needed=st.floats(0, 1),
    subsampling=st.sampled_from(["444", "422", "420", "440", "411", "Gray"]),
    quality=st.sampled_from([30, 75, 98]),
)
def test_decoding_no_more_rows_than_needed_gives_the_same_rows(height, width, needed, subsampling, quality):
    picture = np.random.default_rng(height * width).integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
    picture = np.repeat(np.repeat(picture, 5, 0), 5, 1)[:height, :width].copy()
    grey = subsampling == "Gray"
    data = simplejpeg.encode_jpeg(
        picture[:, :, :1].copy() if grey else picture, quality=quality, colorspace="GRAY" if grey else "RGB",
        colorsubsampling=subsampling,
    )  # fmt: skip
    num_rows = max(1, int(needed * height))
    found = decode(data, backend="simplejpeg", max_pixels=10**6, num_rows=lambda *_: num_rows).image_HWC
    whole = decode(data, backend="simplejpeg", max_pixels=10**6).image_HWC
    assert len(found) == min(height, num_rows + CONTEXT_ROWS)
    np.testing.assert_array_equal(found[:num_rows], whole[:num_rows])


@pytest.mark.parametrize(
    "data",
    [
        PNG,
        WEBP,
        encoded(PICTURE, "JPEG", progressive=True),
        encoded(PICTURE, "JPEG", exif=oriented(6)),
        encoded(PICTURE.convert("CMYK"), "JPEG"),
    ],
)
def test_what_cannot_be_cut_short_comes_whole_and_unasked(data):
    def never(height: int, width: int) -> int:
        raise AssertionError((height, width))

    np.testing.assert_array_equal(
        decode(data, backend="simplejpeg", max_pixels=MAX_PIXELS, num_rows=never).image_HWC, pixels(data)
    )


def test_real_photographs_have_the_same_rows(shared_data):
    with tarfile.open(shared_data / "imagenet-natural/images.tar") as archive:
        members = [member for member in archive if member.isfile()][::8]
        photographs = [archive.extractfile(member).read() for member in members]
    for number, data in enumerate(photographs):
        whole = decode(data, backend="simplejpeg", max_pixels=10**8).image_HWC
        num_rows = len(whole) * (3 + number % 7) // 10
        options = {"backend": "simplejpeg", "max_pixels": 10**8, "num_rows": lambda *_, n=num_rows: n}
        np.testing.assert_array_equal(decode(data, **options).image_HWC[:num_rows], whole[:num_rows])


def test_large_images_are_not_kept(monkeypatch):
    monkeypatch.setattr("rootstock.data.decode.MAX_SCRATCH_BYTES", 1000)
    scratch = Scratch()
    images = [decode(JPEG, backend="simplejpeg", max_pixels=MAX_PIXELS, scratch=scratch).image_HWC for _ in range(2)]
    assert not np.shares_memory(*images)


@settings(max_examples=60, deadline=None)
@given(sides=st.tuples(*[st.integers(1, 70)] * 4), mirrored=st.booleans())
def test_resizing_a_crop_is_resizing_its_copy(sides, mirrored):
    high, wide, height, width = sides
    picture = np.random.default_rng(high * wide).integers(0, 256, (75, 75, 3), np.uint8)
    crop = picture[3 : 3 + high, 2 : 2 + wide]
    crop = crop[:, ::-1] if mirrored else crop
    found = resize(crop, height=height, width=width)
    planes = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(planes, size=(height, width), mode="bilinear", antialias=True)
    np.testing.assert_array_equal(found, wanted[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_orientation_in_xmp_is_applied_by_both(backend):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    assert pixels(encoded(PICTURE, "JPEG", xmp=xmp), backend).shape == (36, 24, 3)


@quietly
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x03\x01\x12\0\x03"]
)
def test_broken_exif_is_not_a_broken_image(kind, exif, backend):
    assert pixels(encoded(PICTURE, kind, exif=exif), backend).shape == (24, 36, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rotated_photograph_with_exif_that_cannot_be_written_again_is_accepted(backend):
    """Turning is all we want of EXIF; Pillow's own `exif_transpose` writes the rest of it anew."""
    exif = oriented(6)
    exif[0x8825] = {2: (1.0, 2.0, 3.0)}
    data = bytearray(encoded(PICTURE, "JPEG", exif=exif))
    at = data.index(b"a maker")
    data[at : at + 7] = b"\xff\xfe\x80\x81\x82\x83\x84"
    assert pixels(bytes(data), backend).shape == (36, 24, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_phones_photograph_with_a_second_picture_behind_it_is_accepted(orientation, backend):
    second = Image.fromarray(255 - smooth())
    data = encoded(PICTURE, "MPO", save_all=True, append_images=[second], exif=oriented(orientation))
    found = pixels(data, backend)
    wanted = smooth() if orientation == 1 else np.rot90(smooth(), -1)
    assert np.abs(found.astype(int) - wanted).mean() < 10, "the first picture is the photograph"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_other_colour_spaces_of_jpeg_become_rgb(mode, backend):
    image = PICTURE.convert(mode)
    found = pixels(encoded(image, "JPEG", quality=95), backend)
    assert np.abs(found.astype(int) - np.asarray(image.convert("RGB"))).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_palette_and_bilevel_pngs_become_rgb(mode):
    image = PICTURE.convert(mode)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_lies_on_white(kind):
    colours = np.full((4, 4, 4), (200, 100, 0, 255), np.uint8)
    colours[0, :, 3], colours[1, :, 3] = 0, 128
    found = pixels(
        encoded(Image.fromarray(colours), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    )
    assert (found[0] == 255).all()
    np.testing.assert_allclose(found[1].astype(int), np.full((4, 3), (227, 177, 127)), atol=1)
    assert (found[2:] == (200, 100, 0)).all()


def test_a_transparent_palette_entry_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=0)), [[[255] * 3, [40, 50, 60]]])


# ---------------------------------------------------------------------------------------------------------- refused


def test_what_is_no_image_says_so():
    assert refused(b"") == "empty file"
    assert refused(b"hello, I am text in a file named .jpg\n") == "neither JPEG, PNG nor WebP"
    assert refused(encoded(PICTURE, "GIF")) == "neither JPEG, PNG nor WebP"
    assert refused(b"\xff\xd8\xff").startswith("broken JPEG")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("data", [JPEG, PNG, WEBP, encoded(PICTURE, "JPEG", progressive=True)])
def test_a_cut_file_is_refused_wherever_it_is_cut(data, backend):
    for num_bytes in (12, *(int(len(data) * part) for part in (0.3, 0.6, 0.75))):
        assert refused(data[:num_bytes], backend).startswith("broken ")


def test_a_cut_before_the_last_marker_is_noticed():
    assert refused(JPEG[:-2]).startswith("broken JPEG")


def test_sixteen_bits_are_refused_with_advice():
    deep = Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600)
    assert refused(encoded(deep, "PNG")) == "16-bit PNG: convert it to 8 bits a channel"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind):
    data = encoded(PICTURE, kind, save_all=True, append_images=[Image.fromarray(255 - smooth())], duration=100)
    assert refused(data) == f"animated {kind.lower()} of 2 frames"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_more_pixels_than_allowed_are_refused(kind, backend):
    assert refused(encoded(Image.new("RGB", (101, 100)), kind), backend) == "101×100 pixels, more than max_pixels 10000"
    pixels(encoded(Image.new("RGB", (100, 100)), kind), backend)


def test_a_sliver_is_refused():
    """Resized to a short side of 256 pixels, 1 × 10000 of them would become 2 GB."""
    assert refused(encoded(Image.new("RGB", (1, 101)), "PNG")) == "1×101 pixels, one side more than 100 times the other"
    assert pixels(encoded(Image.new("RGB", (1, 100)), "PNG")).shape == (100, 1, 3)


def bomb_png(side: int) -> bytes:
    """A header that claims side × side pixels, and honest compressed zeros for a few of its rows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb_jpeg() -> bytes:
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", 60_000, 60_000) + JPEG[at + 9 :]


def bomb_webp() -> bytes:
    """The extended header claims 16384 × 16384."""
    small = encoded(Image.new("RGBA", (8, 8)), "WEBP", exif=oriented(1))
    at = small.index(b"VP8X") + 12
    return small[:at] + (16_383).to_bytes(3, "little") * 2 + small[at + 6 :]


MEASURE = """
import json, resource, sys, time
from rootstock.data.decode import ImageError, decode
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
answers = []
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    for backend in ("simplejpeg", "pillow"):
        before, started = peak(), time.perf_counter()
        try:
            decode(data, backend=backend, max_pixels=10**8)
            reason = "accepted"
        except ImageError as error:
            reason = str(error)
        answers.append([reason, time.perf_counter() - started, peak() - before])
print(json.dumps(answers))
"""


def test_a_decompression_bomb_costs_neither_time_nor_memory(tmp_path):
    paths = []
    for name, data in {"a.png": bomb_png(60_000), "b.jpg": bomb_jpeg(), "c.webp": bomb_webp()}.items():
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    for reason, seconds, megabytes in json.loads(done.stdout):
        assert "more than max_pixels 100000000" in reason or reason.startswith("broken WEBP"), reason
        assert seconds < 1.0, (reason, seconds)
        assert megabytes < 50, (reason, megabytes)


@quietly
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_gives_pixels_or_a_reason(data):
    """A crash of the decoder would end the whole manifest."""
    seeds = [encoded(PICTURE, kind, exif=oriented(6)) for kind in ("JPEG", "PNG", "WEBP")]
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    try:
        found = decode(bytes(content), backend=data.draw(st.sampled_from(BACKENDS)), max_pixels=MAX_PIXELS)
    except ImageError:
        return
    assert found.image_HWC.ndim == 3
    assert found.image_HWC.shape[2] == 3
    assert found.image_HWC.shape[0] * found.image_HWC.shape[1] <= MAX_PIXELS


# ----------------------------------------------------------------------------------------------------- the geometry


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), short_side=st.integers(1, 40))
def test_the_short_side_is_met_and_the_crop_fits(height, width, short_side):
    image = np.full((height, width, 3), 77, np.uint8)
    resized = resize_short(image, short_side=short_side)
    assert min(resized.shape[:2]) == short_side
    assert (resized == 77).all(), "a flat image stays flat"
    long_side = max(height, width) * short_side / min(height, width)
    assert abs(max(resized.shape[:2]) - long_side) <= 0.5
    assert center_crop(resized, size=short_side).shape == (short_side, short_side, 3)


def test_an_image_of_the_right_size_is_not_resampled():
    image = smooth()
    assert resize_short(image, short_side=24) is image


def test_shrinking_by_a_whole_factor_averages():
    """Antialiasing: a checkerboard of pixels becomes grey, where plain bilinear sampling would alias."""
    board = ((np.indices((32, 32)).sum(0) % 2) * 255).astype(np.uint8)
    shrunk = resize_short(np.repeat(board[..., None], 3, axis=2), short_side=8)
    assert np.abs(shrunk[1:-1, 1:-1].astype(int) - 127).max() <= 2


def test_the_central_crop_is_central():
    image = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
    np.testing.assert_array_equal(center_crop(image, size=3), image[2:5, 1:4])
