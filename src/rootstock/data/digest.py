"""Which data a result was computed from: a sum over the training rows of a manifest and the decoder."""

import hashlib
import json

import pandas as pd


class DataDigest:
    """The sha256 of the decoder's settings and of key, sha256, label and split of each training row.

    Statistics and shards of one manifest carry the same digest.

    Args:
        decode: the manifest's fact of that name: the decoder decides which pixels the bytes mean.
    """

    def __init__(self, *, decode: dict[str, object]):
        self._sum = hashlib.sha256(json.dumps(decode, sort_keys=True).encode() + b"\n")

    def update(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Take in a piece of a manifest, in its order (the cuts do not matter), and hand it back."""
        train = frame[frame["split"] == "train"]
        rows = zip(train["key"], train["sha256"], train["label"], train["split"], strict=True)
        self._sum.update("".join(f"{key} {sha256} {label} {split}\n" for key, sha256, label, split in rows).encode())
        return frame

    def hexdigest(self) -> str:
        """Return the digest of the rows so far."""
        return self._sum.hexdigest()
