"""Small planted collections: images in one archive file and the manifest that lists them."""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rootstock.schema.contract import write_table
from rootstock.schema.manifest import MANIFEST, MANIFEST_ARROW

MAX_PIXELS = 10**8


class Collection(NamedTuple):
    """A manifest and the archive it points into."""

    manifest: Path
    archive: Path
    rows: pd.DataFrame

    def locate(self, name: str) -> Path:
        assert name == self.archive.name
        return self.archive


@pytest.fixture
def encode():
    """Encode uint8 (H, W, 3) without loss, or as JPEG of some quality."""

    def _encode(image_HWC: np.ndarray, quality: int | None = None) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(image_HWC)
        image.save(buffer, "PNG") if quality is None else image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()

    return _encode


@pytest.fixture
def plant(tmp_path):
    """Make a collection of encoded images: `plant(images, splits=…, labels=…, keys=…)`, all lists of one length."""

    def _plant(images, *, splits=None, labels=None, keys=None, backend="simplejpeg", name="planted", rows_per_group=50):
        folder = tmp_path / name
        folder.mkdir()
        archive, manifest = folder / "images.bin", folder / "manifest.parquet"
        archive.write_bytes(b"".join(images))
        rows, offset = [], 0
        for number, data in enumerate(images):
            with Image.open(io.BytesIO(data)) as image:
                width, height, kind = *image.size, image.format.lower()
            split = splits[number] if splits else "train"
            rows.append(
                {
                    "key": keys[number] if keys else f"class/{number:05d}",
                    "split": split,
                    "label": labels[number] if labels else number % 3,
                    "archive": archive.name,
                    "offset": offset,
                    "num_bytes": len(data),
                    "format": kind,
                    "width": width,
                    "height": height,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "gate": split == "val" and number % 2 == 0,
                }
            )
            offset += len(data)
        frame = pd.DataFrame(rows).astype({"label": "int32", "width": "int32", "height": "int32"})
        facts = {
            "collection": name,
            "class_names": ["a", "b", "c"],
            "decode": {"backend": backend, "max_pixels": MAX_PIXELS},
        }
        pieces = (frame[start : start + rows_per_group].copy() for start in range(0, len(frame), rows_per_group))
        write_table(manifest, pieces, MANIFEST, MANIFEST_ARROW, facts)
        return Collection(manifest, archive, frame)

    return _plant
