"""Whether the packages that run are the pinned ones."""

import importlib.metadata

from packaging.requirements import InvalidRequirement, Requirement


def differences(lock: str) -> list[str]:
    """Compare the content of a requirements.lock with what is installed here; one sentence a difference.

    Pins whose marker excludes this Python or platform are passed over.
    """
    found = []
    for line in lock.splitlines():
        if not line or line[0] in " #-":  # a hash, a comment, an option
            continue
        try:
            pinned = Requirement(line.rstrip(" \\"))
        except InvalidRequirement:
            continue
        if pinned.marker is not None and not pinned.marker.evaluate():
            continue
        version = _version(pinned.name)
        if version is None or not pinned.specifier.contains(version, prereleases=True):
            found.append(f"{pinned.name}: found {version or 'none'}, wanted {pinned.specifier}")
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
