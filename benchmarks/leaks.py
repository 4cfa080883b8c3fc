"""Plant copies of photographs and see which are found, by kind and radius, and what else is taken for a copy.

Each kind of change is planted on a sample of a collection; recall is the share that stays within the radius of its
original and that the thumbnail then takes for the same. False alarms are counted over all pairs of the collection
itself, unplanted: real copies among them have to be told by eye, so `--sheet` draws them side by side.

    python benchmarks/leaks.py [--data ../shared/data] [--sheet FOLDER]
"""

import argparse
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import record  # beside this script
from PIL import Image, ImageDraw, ImageFont

from rootstock.data import decode
from rootstock.data.likeness import MIRROR, Likeness, alike, likeness
from rootstock.data.near_pairs import MAX_RADIUS, near_pairs
from rootstock.data.sources.demo import picture
from rootstock.data.sources.drawn_flowers import FLOWERS

RADII = (3, 5, 7, 9, 11)
DECODE = {"backend": "simplejpeg", "max_pixels": 10**8}
Change = Callable[[Image.Image], bytes]


class Gathered(NamedTuple):
    """A collection's looks, those of the planted copies, and what looking cost."""

    looks: list[Likeness]
    planted: dict[str, list[tuple[int, Likeness]]]  # by kind: the original's place, and the copy's looks
    decode_seconds: float
    look_seconds: float


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 95) -> bytes:
    """Encode an image; PNG knows no quality."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({} if kind == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cut a share of each side's length, a third of it left and above, the rest right and below."""
    cut_x, cut_y = (max(1, round(side * share)) for side in image.size)
    return image.crop((cut_x // 3, cut_y // 3, image.width - cut_x + cut_x // 3, image.height - cut_y + cut_y // 3))


def scaled(image: Image.Image, gain: float) -> Image.Image:
    """Multiply all values."""
    return Image.fromarray(np.clip(np.asarray(image) * gain, 0, 255).astype(np.uint8))


def marked(image: Image.Image) -> Image.Image:
    """Write an owner's name across the lower right, half transparent."""
    layer = Image.new("RGBA", image.size)
    font = ImageFont.load_default(max(6, image.height // 14))
    place = (0.5 * image.width, 0.88 * image.height)
    ImageDraw.Draw(layer).text(place, "(c) example.org", fill=(255, 255, 255, 160), font=font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    """Resize to half of each side."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)


def mirrored(image: Image.Image) -> Image.Image:
    """Mirror left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


KINDS: dict[str, Change] = {
    "JPEG, quality 30": lambda image: encoded(image, quality=30),
    "JPEG, quality 60": lambda image: encoded(image, quality=60),
    "JPEG, quality 90": lambda image: encoded(image, quality=90),
    "PNG": lambda image: encoded(image, "PNG"),
    "WebP, quality 80": lambda image: encoded(image, "WEBP", 80),
    "half the size": lambda image: encoded(halved(image)),
    "64 × 64 pixels": lambda image: encoded(image.resize((64, 64), Image.Resampling.BICUBIC)),
    "brighter by 10 %": lambda image: encoded(scaled(image, 1.1)),
    "darker by 10 %": lambda image: encoded(scaled(image, 0.9)),
    "watermark": lambda image: encoded(marked(image)),
    "mirrored": lambda image: encoded(mirrored(image)),
    "cropped by 2 %": lambda image: encoded(cropped(image, 0.02)),
    "cropped by 3 %": lambda image: encoded(cropped(image, 0.03)),
    "cropped by 3 %, mirrored": lambda image: encoded(cropped(mirrored(image), 0.03)),
    "cropped by 5 %": lambda image: encoded(cropped(image, 0.05)),
    "cropped by 10 %": lambda image: encoded(cropped(image, 0.10)),
}


def gather(contents: Iterator[bytes], *, every: int) -> Gathered:
    """Look at all images, and at copies of every n-th."""
    looks: list[Likeness] = []
    planted: dict[str, list[tuple[int, Likeness]]] = {kind: [] for kind in KINDS}
    decode_seconds = look_seconds = 0.0
    for place, data in enumerate(contents):
        start = time.process_time()
        image_HWC = decode.decode(data, **DECODE).image_HWC
        decoded = time.process_time()
        looks.append(likeness(image_HWC))
        look_seconds += time.process_time() - decoded
        decode_seconds += decoded - start
        if place % every == 0:
            image = Image.fromarray(image_HWC)
            for kind, change in KINDS.items():
                copy_HWC = decode.decode(change(image), **DECODE).image_HWC
                planted[kind].append((place, likeness(copy_HWC)))
    return Gathered(looks, planted, decode_seconds, look_seconds)


def measure(gathered: Gathered) -> dict:
    """Return recall by kind and radius, and what is found among the unplanted, by radius, with the cost."""
    start = time.process_time()
    pairs, same = found_among(gathered.looks)
    num_images = len(gathered.looks)
    return {
        "num_images": num_images,
        "num_pairs": num_images * (num_images - 1) // 2,
        "recall": {kind: recall(gathered.looks, copies) for kind, copies in gathered.planted.items()},
        "found_unplanted": {
            str(radius): {
                "by_hash_alone": int((pairs[:, 2] <= radius).sum()),
                "with_thumbnail": int((pairs[same, 2] <= radius).sum()),
            }
            for radius in RADII
        },
        "milliseconds_an_image": {
            "decode": 1e3 * gathered.decode_seconds / num_images,
            "likeness": 1e3 * gathered.look_seconds / num_images,
        },
        "search_cpu_seconds": time.process_time() - start,
    }


def recall(looks: list[Likeness], copies: list[tuple[int, Likeness]]) -> dict:
    """Return n and the share found by radius: near and taken for the same picture, as it is or mirrored."""
    nearest = np.full(len(copies), 255)
    for turn in (0, MIRROR):
        bits = np.array([(looks[place].hash ^ copy.hash ^ turn).bit_count() for place, copy in copies])
        same = alike(
            thumbnails([looks[place] for place, _ in copies]),
            thumbnails([copy for _, copy in copies]),
            mirrored=np.full(len(copies), turn != 0),
        )
        nearest = np.where(same, np.minimum(nearest, bits), nearest)
    return {"n": len(copies)} | {str(radius): float((nearest <= radius).mean()) for radius in RADII}


def found_among(looks: list[Likeness]) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs within the largest radius, int64 (m, 4): first, second, bits, mirrored; and which are alike."""
    hashes = np.array([one.hash for one in looks], np.uint64)
    found = [np.stack(pairs, axis=1).astype(np.int64) for pairs in near_pairs(hashes, radius=MAX_RADIUS)]
    pairs = np.concatenate([np.zeros((0, 4), np.int64), *found])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))]
    pixels = thumbnails(looks)
    return pairs, alike(pixels[pairs[:, 0]], pixels[pairs[:, 1]], mirrored=pairs[:, 3] == 1)


def thumbnails(looks: list[Likeness]) -> np.ndarray:
    """Return uint8 (n, 192)."""
    return np.frombuffer(b"".join(one.thumbnail for one in looks), np.uint8).reshape(len(looks), -1)


def generated(num_each: int) -> Iterator[bytes]:
    """Yield the demo's own flowers, so that the benchmark runs without any photograph."""
    for name in FLOWERS:
        for index in range(num_each):
            image_HWC = picture(layout="flowers102", seed=0, name=name, split="train", index=index)
            yield encoded(Image.fromarray(image_HWC), quality=92)


def in_tars(*paths: Path) -> Iterator[bytes]:
    """Yield the JPEGs of tars, and of tars inside them, in their order."""
    for path in paths:
        with tarfile.open(path) as archive:
            yield from _members(archive)


def _members(archive: tarfile.TarFile) -> Iterator[bytes]:
    for member in archive:
        if not member.isfile():
            continue
        data = archive.extractfile(member).read()
        if member.name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                yield from _members(inner)
        elif member.name.lower().endswith((".jpg", ".jpeg")):
            yield data


def draw_sheet(path: Path, contents: Iterator[bytes], pairs: np.ndarray, *, side: int = 128, columns: int = 6) -> None:
    """Draw pairs side by side, the nearest first."""
    wanted = set(pairs[:, :2].ravel().tolist())
    images = {
        place: Image.open(io.BytesIO(data)).convert("RGB") for place, data in enumerate(contents) if place in wanted
    }
    sheet = Image.new("RGB", (columns * (2 * side + 12), -(-len(pairs) // columns) * (side + 22)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (first, second, bits, is_mirrored) in enumerate(pairs.tolist()):
        left, top = number % columns * (2 * side + 12), number // columns * (side + 22)
        for shift, place in ((0, first), (side, second)):
            sheet.paste(images[place].resize((side - 2, side - 2)), (left + shift, top))
        text = f"{first} / {second}: {bits} bits{', mirrored' if is_mirrored else ''}"
        draw.text((left, top + side + 2), text, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def show(name: str, figures: dict) -> None:
    """Print a collection's table."""
    print(f"\n{name}: {figures['num_images']} images, {figures['num_pairs']} pairs")
    print(f"{'planted':28}{'n':>6}" + "".join(f"{f'<= {radius}':>9}" for radius in RADII))
    for kind, row in figures["recall"].items():
        print(f"{kind:28}{row['n']:6}" + "".join(f"{row[str(radius)]:9.3f}" for radius in RADII))
    for how in ("by_hash_alone", "with_thumbnail"):
        found = (figures["found_unplanted"][str(radius)][how] for radius in RADII)
        print(f"{'unplanted, ' + how.replace('_', ' '):34}" + "".join(f"{number:9}" for number in found))
    cost = figures["milliseconds_an_image"]
    print(f"CPU: decode {cost['decode']:.2f} ms, likeness {cost['likeness']:.2f} ms an image; ", end="")
    print(f"search {figures['search_cpu_seconds']:.1f} s")


def main() -> None:
    """Measure every collection that is here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=record.ROOT.parent / "shared/data")
    parser.add_argument("--sheet", type=Path, help="folder for pictures of what was found among the unplanted")
    arguments = parser.parse_args()
    mini = arguments.data / "ilsvrc2012-mini"
    collections = {
        "generated flowers": ([], 4, lambda: generated(40)),
        "ImageNet, natural size": ([arguments.data / "imagenet-natural/images.tar"], 1, in_tars),
        "Flowers-102, short side 128": ([arguments.data / "flowers102/102flowers.tgz"], 16, in_tars),
        "ImageNet, 64 × 64": ([mini / f"ILSVRC2012_img_{split}.tar" for split in ("train", "val")], 70, in_tars),
    }
    figures: dict = {"load_average": os.getloadavg()[0]}
    for name, (paths, every, contents) in collections.items():
        if not all(path.exists() for path in paths):
            print(f"\n{name}: skipped, {paths[0]} is not here")
            continue
        gathered = gather(contents(*paths), every=every)
        figures[name] = measure(gathered)
        show(name, figures[name])
        pairs, same = found_among(gathered.looks)
        if arguments.sheet and same.any():
            draw_sheet(arguments.sheet / f"{name}.png".replace(" ", "-"), contents(*paths), pairs[same])
    print(f"\nwrote {record.write('leaks', figures)}")


if __name__ == "__main__":
    main()
