"""Write one shard: the part of sharding that runs in another process, hence light to import and to send."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import simplejpeg

from rootstock.data import decode, shard_note
from rootstock.data.archives import pread
from rootstock.data.tar_writer import TarWriter


@dataclass(frozen=True)
class ShardTask:
    """What one worker needs to write one shard."""

    path: Path
    samples: pyarrow.Table  # rows of the manifest, in the shard's order
    archives: dict[str, Path]  # an archive's name in the manifest -> where it lies
    decode: dict[str, object]
    short_side: int | None
    quality: int

    def __repr__(self) -> str:
        return f"{self.path.name} of {self.samples.num_rows} samples"


@dataclass(frozen=True)
class WrittenShard:
    """A shard as it lies on the disk."""

    name: str
    sha256: str
    num_bytes: int
    images: pyarrow.Table  # offset, num_bytes, format, sha256 of each image as written, in the task's order

    @property
    def facts(self) -> dict[str, object]:
        """What the index says of the whole shard."""
        return {"sha256": self.sha256, "num_bytes": self.num_bytes, "num_samples": self.images.num_rows}


def write_shard(task: ShardTask) -> WrittenShard:
    """Write a shard: of each sample `<key>.cls` (the label in ASCII) and `<key>.<jpg|png|webp>`.

    A shard that an earlier job wrote for the same task is kept, after its bytes were compared with its note.

    Raises:
        ValueError: an image's bytes are not those the manifest was made from, naming archive and key.
    """
    identity = shard_note.identity(task.samples, task.decode, task.short_side, task.quality)
    note = shard_note.read(task.path, identity)
    if note is None:
        written = _write(task)
        shard_note.write(task.path, identity, {"facts": written.facts, "images": written.images.to_pydict()})
        return written
    return WrittenShard(
        task.path.name, note["facts"]["sha256"], note["facts"]["num_bytes"], pyarrow.table(note["images"])
    )


def _write(task: ShardTask) -> WrittenShard:
    images: dict[str, list] = {"offset": [], "num_bytes": [], "format": [], "sha256": []}
    with TarWriter(task.path) as tar:
        for row in task.samples.to_pylist():
            data = _read(row, task)
            if is_shrunk(row["width"], row["height"], task.short_side):
                data = _shrink(data, row, task)
                row |= {"format": "jpeg", "sha256": hashlib.sha256(data).hexdigest()}
            # in the order of webdataset's own writer, which sorts the extensions
            tar.add(f"{row['key']}.cls", b"%d" % row["label"])
            row |= {"offset": tar.add(f"{row['key']}.{extension(row['format'])}", data), "num_bytes": len(data)}
            for name, column in images.items():
                column.append(row[name])
        sha256, num_bytes = tar.close()
    return WrittenShard(task.path.name, sha256, num_bytes, pyarrow.table(images))


def extension(format: str) -> str:
    """Return the member's extension, webdataset's word for the format."""
    return {"jpeg": "jpg"}.get(format, format)


def is_shrunk(width: int, height: int, short_side: int | None) -> bool:
    """Tell whether an image is made smaller; the others keep their bytes, for re-encoding would only cost quality."""
    return short_side is not None and min(width, height) > short_side


def _read(row: dict, task: ShardTask) -> bytes:
    data = pread(task.archives[row["archive"]], row["offset"], row["num_bytes"])
    found = hashlib.sha256(data).hexdigest()
    if found != row["sha256"]:
        raise ValueError(
            f"{task.archives[row['archive']]}: {row['key']}: found bytes of sha256 {found}, wanted {row['sha256']}; "
            "the archive changed after the manifest was made"
        )
    return data


def _shrink(data: bytes, row: dict, task: ShardTask) -> bytes:
    try:
        image_HWC = decode.decode(data, **task.decode).image_HWC
    except decode.ImageError as error:
        raise ValueError(f"{task.archives[row['archive']]}: {row['key']}: {error}") from None
    image_HWC = decode.resize_short(image_HWC, short_side=task.short_side)
    return simplejpeg.encode_jpeg(
        image_HWC, quality=task.quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
