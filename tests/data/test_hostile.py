"""The bounds on what an archive or an image may cost, each just at its edge."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from rootstock.data import archives, decode
from rootstock.data.archives import ArchiveError, members
from rootstock.data.decode import ImageError
from rootstock.data.tar_writer import header


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_as_many_members_as_allowed_are_read_and_one_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_HEADERS", 5)
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(header(f"{n}.jpg", 0) for n in range(5)) + bytes(1024))
    assert len(list(members(path))) == 5
    path.write_bytes(b"".join(header(f"{n}.jpg", 0) for n in range(6)) + bytes(1024))
    with pytest.raises(ArchiveError, match=r"a\.tar: more than 5 headers: refused"):
        list(members(path))


def test_a_name_of_the_greatest_length_is_read_and_a_longer_one_refused(tmp_path):
    for length in (archives.MAX_NAME_BYTES, archives.MAX_NAME_BYTES + 1):
        with tarfile.open(tmp_path / f"{length}.tar", "w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("é" * (length // 2) + "n" * (length % 2)))
    assert len(list(members(tmp_path / "512.tar"))) == 1
    with pytest.raises(ArchiveError, match=r"'éé.*… has a name of 513 bytes, at most 512"):
        list(members(tmp_path / "513.tar"))


def test_extended_headers_for_one_member_are_bounded_and_begin_anew_with_the_next(tmp_path):
    info = tarfile.TarInfo("n" * 200)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(20):
            archive.addfile(info.replace(name=f"{number}" + "n" * 200))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert len(list(members(tmp_path / "a.tar"))) == 20
    extended = buffer.getvalue()[:1024]
    (tmp_path / "b.tar").write_bytes(extended * archives.MAX_EXTENDED_HEADERS + buffer.getvalue())
    with pytest.raises(ArchiveError, match="more than 8 extended headers for one member"):
        list(members(tmp_path / "b.tar"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_memory_is_bounded_whatever_max_pixels_allows(kind, monkeypatch):
    data = encoded(Image.new("RGB", (100, 100)), kind)
    per_pixel = decode.BYTES_PER_PIXEL[kind.lower()]
    monkeypatch.setattr(decode, "MAX_DECODE_BYTES", 10_000 * per_pixel)
    assert decode.decode(data, backend="pillow", max_pixels=10**6).image_HWC.shape == (100, 100, 3)
    monkeypatch.setattr(decode, "MAX_DECODE_BYTES", 10_000 * per_pixel - 1)
    with pytest.raises(ImageError, match="100×100 pixels: decoding would take 0 MiB, more than 0"):
        decode.decode(data, backend="pillow", max_pixels=10**6)


@pytest.mark.parametrize("backend", ["simplejpeg", "pillow"])
def test_scans_are_bounded_by_number_and_by_pixels(backend, monkeypatch):
    data = encoded(Image.new("RGB", (100, 100)), "JPEG", progressive=True)
    num_scans = data.count(b"\xff\xda")
    assert num_scans > 2
    for name, limit in (("MAX_SCANS", num_scans), ("MAX_SCANNED_PIXELS", num_scans * 10_000)):
        with monkeypatch.context() as patched:
            patched.setattr(decode, name, limit)
            decode.decode(data, backend=backend, max_pixels=10**6)
            patched.setattr(decode, name, limit - 1)
            with pytest.raises(ImageError, match=f"100×100 pixels in {num_scans} scans"):
                decode.decode(data, backend=backend, max_pixels=10**6)


@pytest.mark.parametrize(
    ("options", "wanted"), [({}, 1), ({"progressive": True}, 10), ({"exif": b"Exif\0\0\xff\xda"}, 1)]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scans_are_counted(options, wanted, mode):
    data = encoded(Image.new(mode, (100, 100)), "JPEG", **options)
    found = decode._num_scans(data, decode._head(data))
    assert found == wanted if wanted == 1 or mode == "RGB" else found > 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_strips_give_the_pixels_of_the_whole(mode, monkeypatch):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)).convert(mode)
    data = encoded(picture, "PNG")
    whole = decode.decode(data, backend="pillow", max_pixels=10**6).image_HWC
    monkeypatch.setattr(decode, "STRIP_PIXELS", 53 * 5)
    np.testing.assert_array_equal(decode.decode(data, backend="pillow", max_pixels=10**6).image_HWC, whole)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_rotated_or_cmyk_photograph_with_missing_rows_is_refused_like_any_other(mode):
    """Pillow alone would fill what is missing with grey."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)).convert(mode)
    data = encoded(picture, "JPEG", exif=exif)
    assert decode.decode(data, backend="simplejpeg", max_pixels=10**6).image_HWC.shape == (60, 40, 3)
    at = data.index(b"\xff\xc0")
    taller = data[: at + 5] + (400).to_bytes(2, "big") + data[at + 7 :]
    with pytest.raises(ImageError, match="broken JPEG: "):
        decode.decode(taller, backend="simplejpeg", max_pixels=10**6)
