"""Tars are read member for member as the standard library reads them, and everything unsafe or broken is refused."""

import gzip
import hashlib
import io
import os
import resource
import tarfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.data import archives, sums
from rootstock.data.archives import ArchiveError, Member, inflate, locate, md5, members, pread, sha256

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_bytes(files, *, format=tarfile.USTAR_FORMAT) -> bytes:
    """`files`: (name or TarInfo, bytes) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(folder, data: bytes, name="a.tar"):
    path = folder / name
    path.write_bytes(data)
    return path


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@settings(max_examples=15, deadline=None)
@given(
    files=st.dictionaries(
        st.lists(st.text(st.sampled_from("abcé-_.Z9"), min_size=1, max_size=90), min_size=1, max_size=3)
        .map("/".join)
        .filter(lambda name: all(part not in (".", "..") for part in name.split("/")) and len(name.encode()) < 90),
        st.binary(max_size=1100),
        max_size=6,
    )
)
def test_members_are_those_of_tarfile_in_every_format(tmp_path_factory, files, format):
    path = write(tmp_path_factory.mktemp("tar"), tar_bytes(files.items(), format=format))
    found = [(member.name, pread(path, member.offset, member.num_bytes)) for member in members(path)]
    assert found == list(files.items())


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_a_name_longer_than_a_header_is_read(tmp_path, format):
    name = "folder/" + "é" * 150 + ".jpg"
    path = write(tmp_path, tar_bytes([(name, b"one"), ("b.jpg", b"two")], format=FORMATS[format]))
    assert [member.name for member in members(path)] == [name, "b.jpg"]


def test_known_offsets(tmp_path):
    path = write(tmp_path, tar_bytes([("a", b"x" * 513), ("b", b"")]))
    assert list(members(path)) == [Member("a", 512, 513), Member("b", 512 + 1024 + 512, 0)]


def test_a_tar_inside_a_tar_gives_offsets_in_the_outer_file(tmp_path):
    inner = tar_bytes([("x.jpg", b"pixels"), ("y.jpg", b"more")])
    path = write(tmp_path, tar_bytes([("first.tar", b"no tar"), ("n1.tar", inner), ("last", b"end")]))
    outer = list(members(path))[1]
    found = list(members(path, base=outer.offset, length=outer.num_bytes))
    assert [pread(path, image.offset, image.num_bytes) for image in found] == [b"pixels", b"more"]


def test_folders_are_passed_over_and_leading_dots_dropped(tmp_path):
    files = [(special("./", tarfile.DIRTYPE), b""), (special("./jpg", tarfile.DIRTYPE), b""), ("./jpg/a.jpg", b"1")]
    assert [member.name for member in members(write(tmp_path, tar_bytes(files)))] == ["jpg/a.jpg"]


def test_a_pax_size_beyond_a_ustar_header_is_used(tmp_path):
    info = tarfile.TarInfo("big")
    info.pax_headers = {"size": "3"}
    data = tar_bytes([(info, b"abc"), ("next", b"1")], format=tarfile.PAX_FORMAT)
    assert [member.num_bytes for member in members(write(tmp_path, data))] == [3, 1]


def test_an_empty_tar_has_no_members(tmp_path):
    assert list(members(write(tmp_path, tar_bytes([])))) == []


# ------------------------------------------------------------------------------------------------------------ refusals


REFUSED = {
    "link": (special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "'a.jpg' is a symbolic link; only regular files and"),
    "hard link": (special("a.jpg", tarfile.LNKTYPE, "b.jpg"), "'a.jpg' is a hard link; only regular"),
    "character device": (special("null", tarfile.CHRTYPE), "'null' is a character device; only"),
    "block device": (special("sda", tarfile.BLKTYPE), "'sda' is a block device; only"),
    "fifo": (special("pipe", tarfile.FIFOTYPE), "'pipe' is a FIFO; only"),
    "contiguous": (special("odd", tarfile.CONTTYPE), "'odd' is of unknown type b'7'; only"),
    "traversal": (tarfile.TarInfo("jpg/../../a.jpg"), "'jpg/../../a.jpg' has `..` in its name"),
    "absolute": (tarfile.TarInfo("/etc/a.jpg"), "'/etc/a.jpg' has an absolute name"),
    "traversing folder": (special("../up", tarfile.DIRTYPE), "has `..` in its name"),
    "newline": (tarfile.TarInfo("a\nb.jpg"), "has a control character in its name"),
    "escape": (tarfile.TarInfo("a\x1b[31m.jpg"), "has a control character in its name"),
    "bytes": (tarfile.TarInfo("a\udcff.jpg"), "has a name that is not UTF-8"),
    "nothing": (tarfile.TarInfo("././"), "has no name"),
}


@pytest.mark.parametrize(("member", "message"), REFUSED.values(), ids=REFUSED)
def test_unsafe_members_are_refused_naming_archive_and_member(tmp_path, member, message):
    path = write(tmp_path, tar_bytes([("good.jpg", b"1"), (member, b"")], format=tarfile.GNU_FORMAT))
    with pytest.raises(ArchiveError) as caught:
        list(members(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_nul_inside_a_pax_name_is_refused(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"path": "a.jpg\0.exe"}
    with pytest.raises(ArchiveError, match="control character"):
        list(members(write(tmp_path, tar_bytes([(info, b"1")], format=tarfile.PAX_FORMAT))))


def test_pax_sparse_files_are_refused(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1"}
    with pytest.raises(ArchiveError, match=r"'a\.jpg' is a sparse file"):
        list(members(write(tmp_path, tar_bytes([(info, b"1")], format=tarfile.PAX_FORMAT))))


@pytest.mark.parametrize("names", [("a.jpg", "a.jpg"), ("a.jpg", "./a.jpg"), ("x/a.jpg", "x//a.jpg")])
def test_a_name_that_appears_twice_is_refused(tmp_path, names):
    path = write(tmp_path, tar_bytes([(name, b"1") for name in names], format=tarfile.GNU_FORMAT))
    with pytest.raises(ArchiveError, match=r"a\.tar: .*a\.jpg: appears twice"):
        list(members(path))


def test_a_pax_header_that_lies_about_a_size_cannot_leave_the_archive(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"size": "99999999"}
    with pytest.raises(ArchiveError, match=r"is truncated: 'a\.jpg' needs 99999999 bytes"):
        list(members(write(tmp_path, tar_bytes([(info, b"1")], format=tarfile.PAX_FORMAT))))


def test_an_inner_tar_cannot_reach_beyond_its_length(tmp_path):
    inner = tar_bytes([("x.jpg", b"p" * 2000)])
    path = write(tmp_path, tar_bytes([("n1.tar", inner[:1024]), ("n2.tar", inner)]))
    outer = next(members(path))
    with pytest.raises(ArchiveError, match=r"truncated: 'x\.jpg' needs 2000 bytes"):
        list(members(path, base=outer.offset, length=outer.num_bytes))


# ---------------------------------------------------------------------------------------------------------- truncation


def test_every_cut_of_a_tar_is_found(tmp_path):
    whole = tar_bytes([("a.jpg", b"x" * 600), ("b.jpg", b"y" * 10)])
    needed = 512 + 1024 + 512 + 512 + 1024  # headers, padded data, the two closing blocks
    for length in [0, 1, 511, 512, 1000, 1535, 1536, 2048, 2060, 2559, 2560, 3071, 3072, needed - 1]:
        with pytest.raises(ArchiveError, match="truncated"):
            list(members(write(tmp_path, whole[:length])))
    assert len(list(members(write(tmp_path, whole[:needed])))) == 2  # the padding after the end is nobody's


def test_one_closing_block_is_not_enough(tmp_path):
    whole = tar_bytes([("a.jpg", b"x")])[:1024]
    with pytest.raises(ArchiveError, match="one end-of-archive block, wanted two"):
        list(members(write(tmp_path, whole + bytes(512) + b"x" * 512)))


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 511), value=st.integers(0, 255))
def test_a_flipped_header_byte_is_found(tmp_path_factory, position, value):
    data = bytearray(tar_bytes([("a.jpg", b"x" * 10), ("b.jpg", b"y")]))
    changed = data[position] != value
    data[position] = value
    path = write(tmp_path_factory.mktemp("tar"), bytes(data))
    if changed and not 148 <= position < 156:  # inside the sum's own field, spaces and zeros mean the same
        with pytest.raises(ArchiveError, match="bad checksum"):
            list(members(path))
    else:
        try:
            assert len(list(members(path))) == 2
        except ArchiveError as error:
            assert "not a whole tar" in str(error)  # noqa: PT017 - either outcome is right, nothing else is


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=512, max_size=4096))
def test_random_bytes_are_an_archive_error(tmp_path_factory, data):
    with pytest.raises(ArchiveError):
        list(members(write(tmp_path_factory.mktemp("tar"), b"\x01" + data)))


# --------------------------------------------------------------------------------------------------------------- pread


def test_a_short_read_names_file_found_and_wanted(tmp_path):
    path = write(tmp_path, b"12345")
    assert pread(path, 1, 3) == b"234"
    assert pread(path, 5, 0) == b""
    with pytest.raises(ArchiveError) as caught:
        pread(path, 3, 4)
    assert str(caught.value) == f"{path} is truncated: found 2 bytes at offset 3, wanted 4"


def test_a_missing_archive_is_an_archive_error(tmp_path):
    with pytest.raises(ArchiveError, match=r"gone\.tar cannot be read: No such file"):
        pread(tmp_path / "gone.tar", 0, 1)
    with pytest.raises(ArchiveError, match=r"gone\.tar cannot be read: No such file"):
        list(members(tmp_path / "gone.tar"))


def test_a_replaced_file_is_read_anew(tmp_path):
    path = write(tmp_path, b"old")
    assert pread(path, 0, 3) == b"old"
    os.replace(write(tmp_path, b"new", "b.tar"), path)
    assert pread(path, 0, 3) == b"new"


def test_few_files_stay_open_and_threads_never_read_another_file(tmp_path):
    paths = [write(tmp_path, bytes([number]) * 100, f"{number}.bin") for number in range(3 * archives.MAX_OPEN_FILES)]
    before = len(os.listdir("/proc/self/fd"))
    wrong = []

    def read(start):
        for step in range(400):
            number = (start + 7 * step) % len(paths)
            if pread(paths[number], 10, 50) != bytes([number]) * 50:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(os.listdir("/proc/self/fd")) <= before + archives.MAX_OPEN_FILES


# --------------------------------------------------------------------------------------------------------- sums, find


def test_locate_takes_the_first_folder_and_lists_all_when_missing(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(second, b"", "a.tar")
    assert locate("a.tar", [first, second]) == second / "a.tar"
    write(first, b"", "a.tar")
    assert locate("a.tar", [first, second]) == first / "a.tar"
    with pytest.raises(ArchiveError) as caught:
        locate("b.tar", [first, second])
    assert str(caught.value) == f"b.tar is in none of these folders: {first}, {second}"


def test_sums_are_those_of_hashlib(tmp_path):
    data = bytes(range(256)) * 5000
    path = write(tmp_path, data)
    assert sha256(path, cache=None) == hashlib.sha256(data).hexdigest()
    assert md5(path, cache=tmp_path / "cache") == hashlib.md5(data).hexdigest()


def _settle(path):
    os.utime(path, (1_000_000_000, 1_000_000_000))


def test_a_remembered_sum_spares_the_reading_and_a_change_is_noticed(tmp_path, monkeypatch):
    path, cache = write(tmp_path, b"one"), tmp_path / "cache"
    _settle(path)
    first = sha256(path, cache=cache)
    monkeypatch.setattr(sums.hashlib, "new", None)  # any reading would fail
    assert sha256(path, cache=cache) == first
    monkeypatch.undo()
    path.write_bytes(b"two")  # same size and inode, another mtime
    assert sha256(path, cache=cache) == hashlib.sha256(b"two").hexdigest()


def test_algorithms_are_remembered_together_and_the_file_is_read_once(tmp_path, monkeypatch):
    path, cache = write(tmp_path, b"one"), tmp_path / "cache"
    _settle(path)
    md5(path, cache=cache)
    sha256(path, cache=cache)
    monkeypatch.setattr(sums.hashlib, "new", None)
    both = sums.sums([path], algorithms=("md5", "sha256"), cache=cache)
    assert both == [{"md5": hashlib.md5(b"one").hexdigest(), "sha256": hashlib.sha256(b"one").hexdigest()}]


def test_a_file_younger_than_the_clocks_tick_is_not_remembered(tmp_path):
    path, cache = write(tmp_path, b"one"), tmp_path / "cache"
    sha256(path, cache=cache)
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as two writes within one tick leave it
    assert sha256(path, cache=cache) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_cache_costs_time_only(tmp_path, damage):
    path, cache = write(tmp_path, b"one"), tmp_path / "cache"
    _settle(path)
    cache.mkdir()
    (cache / sums.CACHE_NAME).write_bytes(damage)
    assert sha256(path, cache=cache) == hashlib.sha256(b"one").hexdigest()


# ------------------------------------------------------------------------------------------------------------- inflate


def test_a_cache_that_cannot_be_written_loses_no_sum_and_is_said_once(tmp_path, capsys):
    path = write(tmp_path, b"content")
    os.utime(path, (1, 1))
    blocked = write(tmp_path, b"a file where the folder would be", "blocked") / "own"
    wanted = hashlib.sha256(b"content").hexdigest()
    assert [sums.sha256(path, cache=blocked) for _ in range(3)] == [wanted] * 3
    assert capsys.readouterr().err == (
        f"warning: {blocked / sums.CACHE_NAME} cannot be written (Not a directory): checksums are not remembered\n"
    )


def test_inflate_gives_the_tar(tmp_path):
    data = tar_bytes([("a.jpg", bytes(range(256)) * 9000)])
    inflate(write(tmp_path, gzip.compress(data), "a.tgz"), tmp_path / "new" / "a.tar")
    assert (tmp_path / "new" / "a.tar").read_bytes() == data


def test_a_damaged_gzip_leaves_nothing_and_keeps_what_was_there(tmp_path):
    whole = gzip.compress(os.urandom(5000))
    target = write(tmp_path, b"old", "a.tar")
    flipped = bytearray(whole)
    flipped[3000] ^= 255
    for data, message in (
        (whole[:3000], "is truncated"),
        (whole[:5], "is truncated"),
        (whole[:-2], "is truncated"),
        (bytes(flipped), "is not a whole gzip file"),
        (b"no gzip at all", "is not a whole gzip file"),
    ):
        with pytest.raises(ArchiveError, match=f"a.tgz {message}"):
            inflate(write(tmp_path, data, "a.tgz"), target)
        assert target.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.tgz"]


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_INFLATE_BYTES", 1 << 20)
    source = write(tmp_path, gzip.compress(bytes(20 << 20)), "a.tgz")
    with pytest.raises(ArchiveError, match="refused as a decompression bomb"):
        inflate(source, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == [source]


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    source = write(tmp_path, gzip.compress(os.urandom(3 << 20)), "a.tgz")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the kernel refuses writes as a full disk does
    try:
        with pytest.raises(OSError, match=r"a\.tar") as caught:
            inflate(source, tmp_path / "a.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == [source]
