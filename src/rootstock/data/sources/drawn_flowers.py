"""The demo's target collection: flowers told apart by structure; all classes share one distribution of colours."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from rootstock.data.sources.drawing import (
    Part,
    Placement,
    blend,
    circle,
    light_and_noise,
    lightness,
    mix,
    paint_parts,
    petal,
    place,
    smooth_noise,
    textured,
    turn,
    whorl,
)

# petals and hearts of flowers, the same for every class
PETALS = np.array(
    [[245, 240, 235], [245, 210, 50], [235, 130, 180], [205, 40, 55], [140, 70, 180], [80, 100, 210], [240, 140, 50]]
)
HEARTS = np.array([[240, 200, 40], [110, 65, 30], [120, 160, 60], [70, 30, 70], [240, 230, 200]])
GREENS = np.array([[60, 110, 45], [90, 140, 60], [40, 85, 50], [120, 150, 80]])
GROUNDS = np.array([[70, 110, 60], [130, 170, 215], [110, 90, 70], [60, 60, 65], [170, 175, 160], [95, 120, 110]])

Parts = list[Part]
Flower = Callable[[np.random.Generator], tuple[Parts, Parts]]  # petals, and heart over them


def _petals(
    rng: np.random.Generator, kind: str, *, count: int, width: float, base: float, phase: float, scale: float
) -> Parts:
    """One whorl: each petal a fill with an outline and a lighter or darker inner blade."""
    shape = petal(kind, base=base, width=width * rng.uniform(0.9, 1.1))
    inner = petal(kind, base=base, width=width * 0.45) * 0.72
    tone = int(rng.integers(-26, 27))
    parts = []
    for index in range(count):
        angle = phase + (2 * math.pi * index + rng.uniform(-0.3, 0.3)) / count
        size = scale * rng.uniform(0.92, 1.05)
        shade = int(rng.integers(116, 142))
        parts.append(Part(turn(shape * size, angle), shade=shade, edge=shade - 48))
        parts.append(Part(turn(inner * size, angle), shade=shade + tone, edge=shade + tone))
    return parts


def _disc(rng: np.random.Generator, *, radius: float, seeds: bool) -> Parts:
    parts = [Part(circle(0, radius), shade=124, edge=80)]
    if seeds:
        golden = math.pi * (3 - math.sqrt(5))
        for i in range(24):
            at = radius * 0.9 * math.sqrt((i + 0.5) / 24) * np.exp(1j * golden * i)
            shade = int(rng.choice([85, 165]))
            parts.append(Part(circle(at, radius * 0.12), shade=shade, edge=shade))
    return parts


def _stamens(rng: np.random.Generator, *, count: int, reach: float) -> Parts:
    parts = [Part(circle(0, 0.09), shade=110, edge=80)]
    for index in range(count):
        angle = 2 * math.pi * (index + rng.uniform(-0.15, 0.15)) / count
        thread = np.array([-0.018j, reach - 0.018j, reach + 0.018j, 0.018j])
        parts.append(Part(turn(thread, angle), shade=130, edge=130))
        parts.append(Part(turn(circle(reach, 0.065), angle), shade=150, edge=85))
    return parts


def _open(
    rng: np.random.Generator,
    *,
    kind: str,
    counts: tuple[int, ...],
    width: float,
    scales: tuple[float, ...],
    heart: str,
    base: float,
) -> tuple[Parts, Parts]:
    """A flower seen from above: whorls from the outside in, then its heart."""
    petals: Parts = []
    for index, (count, scale) in enumerate(zip(counts, scales, strict=True)):
        half = math.pi / count * (index % 2)
        petals += _petals(rng, kind, count=count, width=width, base=base, phase=half, scale=scale)
    match heart:
        case "small disc":
            over = _disc(rng, radius=rng.uniform(0.13, 0.18), seeds=False)
        case "disc":
            over = _disc(rng, radius=rng.uniform(0.24, 0.3), seeds=True)
        case "seed disc":
            over = _disc(rng, radius=rng.uniform(0.44, 0.52), seeds=True)
        case "ring":
            over = [*_disc(rng, radius=0.27, seeds=False), Part(circle(0, 0.13), shade=60, edge=60)]
        case "stamens":
            over = _stamens(rng, count=int(rng.integers(6, 9)), reach=rng.uniform(0.36, 0.46))
        case "corona":
            teeth = petal("round", base=0.0, width=0.2)
            over = [Part(c, shade=128, edge=85) for c in whorl(teeth, 9, phase=0.0, scale=0.47)]
            over += [Part(circle(0, 0.24), shade=75, edge=60)]
        case _:
            over = []
    return petals, over


def _frill(rng: np.random.Generator) -> tuple[Parts, Parts]:
    """A carnation: ruffled discs, one in another."""
    parts = []
    for scale in (1.0, 0.8, 0.6, 0.4, 0.22):
        angles = np.arange(48) * (2 * math.pi / 48)
        ruffle = 1 - 0.16 * (np.arange(48) % 2) + 0.06 * np.sin(angles * 5 + rng.uniform(0, 6))
        shade = int(rng.integers(108, 146))
        parts.append(Part(turn(scale * ruffle * np.exp(1j * angles), rng.uniform(0, 6)), shade=shade, edge=shade - 50))
    return parts, []


def _tulip(rng: np.random.Generator) -> tuple[Parts, Parts]:
    """A cup from the side, three petals and its stem; it opens towards +x."""
    blade = 1.65 * petal("pointed", base=0.0, width=rng.uniform(0.28, 0.33)) - 0.75
    parts = [Part(turn(blade + 0.75, angle) * s - 0.75, shade=sh, edge=sh - 45) for angle, s, sh in
             ((0.0, 0.95, 112), (0.38, 1.0, 132), (-0.38, 1.0, 126), (0.0, 0.9, 138))]  # fmt: skip
    return parts, []


def _globe(rng: np.random.Generator) -> tuple[Parts, Parts]:
    """An allium: a ball of florets."""
    golden = math.pi * (3 - math.sqrt(5))
    parts = []
    for i in range(34):
        at = math.sqrt(1 - i / 34) * np.exp(1j * golden * i) * 0.88
        shade = int(rng.integers(100, 160))
        floret = petal("pointed", base=0.0, width=0.4)
        parts += [Part(at + c, shade=shade, edge=shade - 30) for c in whorl(floret, 4, phase=float(i), scale=0.2)]
    return parts, []


def _spike(rng: np.random.Generator) -> tuple[Parts, Parts]:
    """A lavender: rows of florets up a stem, narrower to the tip."""
    parts = []
    for row in range(9):
        x, reach = 0.95 - 0.19 * row, 0.08 + 0.03 * row
        for side in (-1, 1, 0):
            shade = int(rng.integers(105, 155))
            at = x + 1j * side * reach + (0.08 if side == 0 else 0)
            parts.append(Part(at + circle(0, 0.13), shade=shade, edge=shade - 45))
    return parts, []


def _orchid(rng: np.random.Generator) -> tuple[Parts, Parts]:
    """Bilateral: two broad wings, three narrow sepals and a lip."""
    sepals = [turn(petal("pointed", base=0.0, width=0.2), angle) for angle in (0.0, 2.25, -2.25)]
    wings = [turn(petal("round", base=0.0, width=0.5), angle) for angle in (1.15, -1.15)]
    lip = turn(petal("toothed", base=0.0, width=0.34) * 0.7, math.pi)
    parts = [Part(c, shade=s, edge=s - 45) for c, s in [*((c, 112) for c in sepals), *((c, 134) for c in wings)]]
    return parts, [Part(lip, shade=128, edge=75), Part(circle(0, 0.13), shade=150, edge=90)]


# class -> flower; the order is the label
FLOWERS: dict[str, Flower] = {
    "trillium": partial(_open, kind="pointed", counts=(3,), width=0.42, scales=(1.0,), heart="small disc", base=0.0),
    "poppy": partial(_open, kind="round", counts=(4,), width=0.62, scales=(1.0,), heart="stamens", base=0.0),
    "wallflower": partial(_open, kind="notched", counts=(4,), width=0.5, scales=(1.0,), heart="small disc", base=0.0),
    "buttercup": partial(_open, kind="round", counts=(5,), width=0.46, scales=(1.0,), heart="disc", base=0.0),
    "primrose": partial(_open, kind="notched", counts=(5,), width=0.42, scales=(1.0,), heart="ring", base=0.0),
    "borage": partial(_open, kind="pointed", counts=(5,), width=0.24, scales=(1.0,), heart="small disc", base=0.0),
    "daffodil": partial(_open, kind="round", counts=(6,), width=0.3, scales=(1.0,), heart="corona", base=0.0),
    "lily": partial(_open, kind="pointed", counts=(6,), width=0.22, scales=(1.0,), heart="stamens", base=0.0),
    "cosmos": partial(_open, kind="toothed", counts=(8,), width=0.3, scales=(1.0,), heart="disc", base=0.1),
    "daisy": partial(_open, kind="round", counts=(14,), width=0.1, scales=(1.0,), heart="disc", base=0.15),
    "sunflower": partial(
        _open, kind="pointed", counts=(18, 18), width=0.12, scales=(1.0, 0.92), heart="seed disc", base=0.3
    ),
    "dahlia": partial(
        _open, kind="pointed", counts=(12, 12, 9, 6), width=0.2, scales=(1.0, 0.76, 0.52, 0.3), heart="", base=0.0
    ),
    "carnation": _frill,
    "tulip": _tulip,
    "allium": _globe,
    "lavender": _spike,
    "orchid": _orchid,
}
ON_STEM = {"tulip", "lavender", "allium"}


def draw_flower(rng: np.random.Generator, name: str, *, height: int, width: int) -> np.ndarray:
    """Draw one picture of a class of `FLOWERS`; returns uint8 (H, W, 3) RGB."""
    image_HWC, ground = _background(rng, height=height, width=width)
    petal_colour = _jittered(rng, PETALS, away=ground, distance=50)
    heart_colour = _jittered(rng, HEARTS, away=petal_colour, distance=40)
    placement = place(rng, height=height, width=width, radius=(0.35, 0.5), tilt=0.7)
    if name in ON_STEM:
        placement = placement._replace(rotation=-math.pi / 2 + rng.uniform(-0.6, 0.6), tilt=max(0.8, placement.tilt))
    _greenery(rng, image_HWC, placement, stem=name in ON_STEM or rng.random() < 0.5)
    petals, heart = FLOWERS[name](rng)
    for parts, base in ((petals, petal_colour), (heart, heart_colour)):
        paint = textured(rng, base, height=height, width=width, variation=35)
        paint_parts(image_HWC, parts, placement=placement, paint_HWC=paint)
    if rng.random() < 0.25:
        _blade(rng, image_HWC)
    return light_and_noise(rng, image_HWC)


def _jittered(rng: np.random.Generator, palette: np.ndarray, *, away: np.ndarray, distance: int) -> np.ndarray:
    """Draw a palette colour, jittered, whose lightness is not that of `away`."""
    while True:
        drawn = np.clip(rng.choice(palette) + rng.integers(-30, 31, size=3), 5, 250)
        if abs(lightness(drawn) - lightness(away)) >= distance:
            return drawn


def _background(rng: np.random.Generator, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint a meadow, a sky, bokeh or clouds of any of the ground colours."""
    ground = np.clip(rng.choice(GROUNDS) + rng.integers(-30, 31, size=3), 5, 250)
    image_HWC = textured(rng, ground, height=height, width=width, variation=60)
    match rng.integers(3):
        case 0:
            for _ in range(int(rng.integers(6, 22))):
                _blade(rng, image_HWC)
        case 1:
            for _ in range(int(rng.integers(3, 9))):
                placement = Placement(rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, 10), 0, 1, 0)
                light = np.clip(ground + rng.integers(-40, 90, size=3), 0, 255)
                paint = mix(light, light, np.zeros((height, width), np.uint8))
                paint_parts(image_HWC, [Part(circle(0, 1), 128, 128)], placement=placement, paint_HWC=paint)
        case _:
            haze = smooth_noise(rng, height=height, width=width, cells=int(rng.integers(3, 12)))
            blend(image_HWC, np.full_like(image_HWC, int(rng.integers(40, 200))), alpha_HW=haze // 3)
    return image_HWC, ground


def _green(rng: np.random.Generator, image_HWC: np.ndarray) -> np.ndarray:
    base = np.clip(rng.choice(GREENS) + rng.integers(-25, 26, size=3), 5, 250)
    return textured(rng, base, height=image_HWC.shape[0], width=image_HWC.shape[1], variation=30)


def _blade(rng: np.random.Generator, image_HWC: np.ndarray) -> None:
    """Lay one blade of grass anywhere."""
    height, width = image_HWC.shape[:2]
    length = rng.uniform(0.2, 0.6) * height
    placement = Placement(rng.uniform(0, width), rng.uniform(0, height), length, rng.uniform(-2.2, -0.9), 1, 0)
    blade = petal("pointed", base=0.0, width=rng.uniform(0.03, 0.09))
    paint_parts(image_HWC, [Part(blade, 128, 90)], placement=placement, paint_HWC=_green(rng, image_HWC))


def _greenery(rng: np.random.Generator, image_HWC: np.ndarray, placement: Placement, *, stem: bool) -> None:
    """Draw up to three leaves, and a stem where there is one, behind the flower."""
    parts = [
        Part(
            turn(
                petal("pointed", base=0.3, width=rng.uniform(0.12, 0.25)) * rng.uniform(1.1, 1.5), rng.uniform(0, 6.3)
            ),
            120,
            80,
        )
        for _ in range(int(rng.integers(0, 4)))
    ]
    if stem:
        parts.append(Part(np.array([0.05j, -4 + 0.07j, -4 - 0.07j, -0.05j]), 128, 90))
    paint_parts(image_HWC, parts, placement=placement, paint_HWC=_green(rng, image_HWC))
