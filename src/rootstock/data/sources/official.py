"""Published archives: where they lie, whether their bytes are right, and what to do when they are missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rootstock.config.fetch import Official
from rootstock.data.archives import ArchiveError, locate
from rootstock.data.sums import sums


class Published(NamedTuple):
    """A file as its authors published it."""

    name: str
    num_bytes: int
    md5: str


class Archives:
    """A collection's published files, found in the first folder that has them.

    Each root is searched itself and then its subfolder with the collection's name; `own` is searched last.

    Args:
        config: which sums the files must have.
        published: the collection's files.
        roots: folders searched, in order; they may be read-only.
        own: the folder we may write to; remembers sums.
    """

    def __init__(self, *, config: Official, published: Sequence[Published], roots: Sequence[Path], own: Path):
        self.config = config
        self.published = tuple(published)
        self.own = own
        folders = [folder for root in roots for folder in (root, root / config.collection)]
        self.folders = list(dict.fromkeys([*folders, own]))
        self._check_sums_named()

    def _check_sums_named(self) -> None:
        names = {file.name for file in self.published}
        if self.config.checksums == "own" and set(self.config.sums) != names:
            raise ArchiveError(
                f"{self.config.collection}: sums: found {', '.join(sorted(self.config.sums))}, "
                f"wanted a sha256 for each of {', '.join(sorted(names))}"
            )

    def missing(self) -> list[Published]:
        """The files that no folder has."""
        return [file for file in self.published if not any((folder / file.name).is_file() for folder in self.folders)]

    def path(self, name: str) -> Path:
        """Where a file lies here.

        Raises:
            ArchiveError: no folder has it.
        """
        return locate(name, self.folders)

    def describe_missing(self, files: Sequence[Published], *, how: str) -> str:
        """An error's text: which files are missing, how to know them, and where to put them."""
        lines = [f"  {file.name}  {file.num_bytes} bytes  md5 {file.md5}" for file in files]
        return (
            f"{self.config.collection}: {len(files)} of {len(self.published)} files are missing:\n"
            + "\n".join(lines)
            + f"\n{how}\nPut them into one of these folders:\n"
            + "\n".join(f"  {folder}" for folder in self.folders)
        )

    def verify(self, *, progress: bool) -> list[dict]:
        """Return the rows of source.json, after comparing the files with the sums that the configuration states.

        Raises:
            ArchiveError: a file is missing, or its size or sum differs; the message names file, found and wanted.
        """
        paths = [self.path(file.name) for file in self.published]
        official = self.config.checksums == "official"
        if official:
            for file, path in zip(self.published, paths, strict=True):
                if path.stat().st_size != file.num_bytes:  # known before 150 GB are read
                    raise self._differs(path, "bytes", path.stat().st_size, file.num_bytes)
        algorithms = ("md5", "sha256") if official else ("sha256",)
        rows = []
        for file, path, found in zip(
            self.published,
            paths,
            sums(paths, algorithms=algorithms, cache=self.own, progress=progress),
            strict=True,
        ):
            if official and found["md5"] != file.md5:
                raise self._differs(path, "md5", found["md5"], file.md5)
            wanted = self.config.sums.get(file.name)
            if wanted is not None and found["sha256"] != wanted:
                raise self._differs(path, "sha256", found["sha256"], wanted)
            rows.append({"name": file.name, "num_bytes": path.stat().st_size, "sha256": found["sha256"]})
        return rows

    def _differs(self, path: Path, what: str, found: object, wanted: object) -> ArchiveError:
        return ArchiveError(
            f"{self.config.collection}: {path}: {what}: found {found}, wanted {wanted} "
            f"(checksums: {self.config.checksums}; for files that differ on purpose set it to own or off)"
        )


def differences(recorded: Sequence[Mapping], paths: Mapping[str, Path], *, cache: Path) -> list[str]:
    """Compare files with the rows of source.json.

    Args:
        recorded: rows with name, num_bytes, sha256.
        paths: the files that lie here now, by name.
        cache: the folder that remembers sums.

    Returns:
        One sentence a difference; empty when all is as it was.
    """
    found = []
    names = [row["name"] for row in recorded]
    same_size = []
    for row in recorded:
        path = paths.get(row["name"])
        if path is None:
            found.append(f"{row['name']}: missing")
        elif (num_bytes := path.stat().st_size) != row["num_bytes"]:
            found.append(f"{path}: found {num_bytes} bytes, wanted {row['num_bytes']}")
        else:
            same_size.append(row)
    now = sums([paths[row["name"]] for row in same_size], algorithms=("sha256",), cache=cache)
    for row, current in zip(same_size, now, strict=True):
        if current["sha256"] != row["sha256"]:
            found.append(f"{paths[row['name']]}: found sha256 {current['sha256']}, wanted {row['sha256']}")
    found += [f"{name}: a new file" for name in sorted(set(paths) - set(names))]
    return found
