"""Words and forms that several contracts share; apart from them, so that a contract's change is its own."""

SPLITS = ("train", "val", "test")
FORMATS = ("jpeg", "png", "webp")
# webdataset cuts a member's name at the first dot of its base name, hence no dots
KEY = r"[A-Za-z0-9_-][A-Za-z0-9_/-]*"
SHA256 = r"[0-9a-f]{64}"
