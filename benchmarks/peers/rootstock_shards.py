"""Our sharder through the function that the stage calls: sums of every image and shard, durable files."""

import shutil
from importlib.metadata import version
from pathlib import Path

import resident  # beside this script

from rootstock.data import shards


def make(spec: dict) -> tuple[dict, object]:
    """Build the job; `spec`: manifest, images, out, short_side, quality, max_shard_bytes, num_images, num_cores."""

    def work() -> dict:
        shards.write(
            Path(spec["manifest"]),
            locate=lambda name: Path(spec["images"], name),
            folder=Path(spec["out"]),
            short_side=spec["short_side"],
            quality=spec["quality"],
            max_shard_bytes=spec["max_shard_bytes"],
            seed=0,
            workers=spec["num_cores"],
        )
        tars = list(Path(spec["out"]).glob("*.tar"))
        num_bytes = sum(path.stat().st_size for path in tars)
        return {"num_images": spec["num_images"], "output": f"{len(tars)} shards, {num_bytes / 1e6:.0f} MB"}

    def measure() -> dict:
        shutil.rmtree(spec["out"], ignore_errors=True)
        return resident.job(work)()

    about = {
        "versions": {name: version(name) for name in ("numpy", "simplejpeg", "torch")},
        "how": f"{spec['num_cores']} processes, a new pool each time, sha256, fsync",
    }
    return about, measure


if __name__ == "__main__":
    resident.serve(make)
