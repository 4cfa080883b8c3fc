"""Record: one image of a collection, its bytes located in an archive."""

from typing import NamedTuple


class Record(NamedTuple):
    """What a collection says about an image before anyone has decoded it."""

    key: str  # unique in the collection; matches rootstock.schema.manifest.KEY
    split: str  # train, val or test
    label: int  # index into class_names()
    archive: str  # a name that the source's path() resolves
    offset: int  # of the image's first byte in the archive
    num_bytes: int  # 0 for an empty file: the manifest rejects it
