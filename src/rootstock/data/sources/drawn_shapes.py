"""The demo's source collection: generic figures and textures, told apart by structure and never by colour."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from rootstock.data.sources.drawing import (
    Part,
    away_from,
    circle,
    colour,
    light_and_noise,
    paint_parts,
    petal,
    place,
    textured,
    turn,
    whorl,
)

Contours = list[np.ndarray]
Figure = Callable[[np.random.Generator], list[Contours]]  # layers, each painted in its own colour


def _star(rng: np.random.Generator, *, points: int, inner: tuple[float, float]) -> list[Contours]:
    corners = np.exp(1j * np.arange(2 * points) * (math.pi / points))
    corners[1::2] *= rng.uniform(*inner)
    return [[corners]]


def _polygon(rng: np.random.Generator, *, corners: int) -> list[Contours]:
    return [[np.exp(2j * math.pi * (np.arange(corners) + rng.uniform(-0.06, 0.06, corners)) / corners)]]


def _whorl(rng: np.random.Generator, *, kind: str, count: int, width: tuple[float, float]) -> list[Contours]:
    leaf = petal(kind, base=rng.uniform(0.0, 0.2), width=rng.uniform(*width))
    layers = [whorl(leaf, count, phase=0.0, scale=1.0)]
    if rng.random() < 0.5:
        layers.append([circle(0, rng.uniform(0.12, 0.3))])
    return layers


def _two_whorls(rng: np.random.Generator, *, count: int, kind: str) -> list[Contours]:
    leaf = petal(kind, base=0.05, width=0.9 * rng.uniform(0.8, 1.1) * math.pi / count)
    half = math.pi / count
    return [whorl(leaf, count, phase=half * i, scale=s) for i, s in enumerate((1.0, 0.72, 0.45))]


def _gear(rng: np.random.Generator, *, teeth: int, hole: bool) -> list[Contours]:
    angles = (np.arange(4 * teeth) + np.tile([0.2, -0.2, 0.2, -0.2], teeth)) * (2 * math.pi / (4 * teeth))
    radii = np.tile([1.0, 1.0, 0.0, 0.0], teeth)
    radii[radii == 0] = rng.uniform(0.68, 0.8)
    return [[radii * np.exp(1j * angles)]] + ([[circle(0, rng.uniform(0.25, 0.45))]] if hole else [])


def _rings(rng: np.random.Generator, *, radii: tuple[float, ...]) -> list[Contours]:
    shift = rng.uniform(-0.05, 0.05)
    return [[circle(0, max(0.12, radius + shift))] for radius in radii]


def _dots_around(rng: np.random.Generator, *, count: int) -> list[Contours]:
    return [whorl(circle(0.78, min(0.24, 0.55 * math.pi / count) * rng.uniform(0.8, 1.1)), count, phase=0.0, scale=1.0)]


def _bar(start: complex, end: complex, half_width: float) -> np.ndarray:
    across = 1j * (end - start) / abs(end - start) * half_width
    return np.array([start + across, end + across, end - across, start - across])


def _spokes(rng: np.random.Generator, *, count: int, rim: bool) -> list[Contours]:
    half_width = rng.uniform(0.07, 0.12)
    bars = whorl(_bar(0, 1, half_width), count, phase=0.0, scale=1.0)
    return [[*bars, *([_band(np.exp(1j * np.linspace(0, 2 * math.pi, 40)) * 0.95, 0.1)] if rim else [])]]


def _band(path: np.ndarray, half_width: float) -> np.ndarray:
    """Thicken a path to a closed contour."""
    across = 1j * np.gradient(path)
    across = across / np.abs(across) * half_width
    return np.concatenate([path + across, (path - across)[::-1]])


def _spiral(rng: np.random.Generator, *, arms: int, turns: float) -> list[Contours]:
    along = np.linspace(0.03, 1, 60)
    direction = -1 if rng.random() < 0.5 else 1
    path = along * np.exp(2j * math.pi * turns * along * direction)
    return [whorl(_band(path, rng.uniform(0.07, 0.11)), arms, phase=0.0, scale=1.0)]


def _pinwheel(rng: np.random.Generator, *, blades: int) -> list[Contours]:
    along = np.linspace(0, 1, 16)
    bend = rng.uniform(0.9, 1.4) * (-1 if rng.random() < 0.5 else 1)
    front, back = along * np.exp(1j * bend * along), along * np.exp(1j * (bend * along + 0.6 * along * 4 / blades))
    return [whorl(np.concatenate([front, back[::-1]]), blades, phase=0.0, scale=1.0)]


def _crescent(rng: np.random.Generator) -> list[Contours]:
    outer = np.exp(1j * np.linspace(0.9, 2 * math.pi - 0.9, 40))
    bow = np.linspace(outer[-1], outer[0], 20)
    depth = rng.uniform(0.7, 1.0)
    return [[np.concatenate([outer, bow - depth * np.sin(np.linspace(0, math.pi, 20))])]]


def _heart(rng: np.random.Generator) -> list[Contours]:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [[(16 * np.sin(t) ** 3 * rng.uniform(0.85, 1.1) + 1j * y) / 17]]


def _leaf(rng: np.random.Generator) -> list[Contours]:
    blade = 2 * petal("pointed", base=0.0, width=rng.uniform(0.26, 0.36)) - 1
    ribs = [_bar(x + 0j, x + 0.22 + 0.22j * s, 0.03) for x in (-0.5, -0.15, 0.2) for s in (-1, 1)]
    return [[blade], [_bar(-1.15 + 0j, 0.8 + 0j, 0.04), *ribs]]


def _cup(rng: np.random.Generator) -> list[Contours]:
    rim = rng.uniform(0.2, 0.45)
    top = np.array([0.85 + 0.7j, 0.85 - rim + 0.35j, 0.85 + 0j, 0.85 - rim - 0.35j, 0.85 - 0.7j])
    bowl = (
        0.85
        - 1.6 * np.cos(np.linspace(-math.pi / 2, math.pi / 2, 20))
        + 0.7j * np.sin(np.linspace(-math.pi / 2, math.pi / 2, 20))
    )
    return [[np.concatenate([top, bowl[1:-1]])]]


def _ball(rng: np.random.Generator) -> list[Contours]:
    golden = math.pi * (3 - math.sqrt(5))
    count = int(rng.integers(26, 40))
    at = [math.sqrt((i + 0.5) / count) * np.exp(1j * golden * i) for i in range(count)]
    return [[circle(z * 0.88, 0.8 / math.sqrt(count)) for z in at]]


def _ear(rng: np.random.Generator) -> list[Contours]:
    rows = int(rng.integers(6, 9))
    grains = []
    for row in range(rows):
        x, reach = -0.6 + 1.5 * row / rows, 0.3 * (1 - 0.5 * row / rows)
        grains += [circle(x + 1j * s * reach, 0.15) for s in (-1, 1)] + [circle(x + 0.1, 0.13)]
    return [grains, [_bar(-1.1 + 0j, -0.6 + 0j, 0.06)]]


def _stripes(rng: np.random.Generator, *, bend: float) -> list[Contours]:
    count = int(rng.integers(4, 8))
    x = np.linspace(-1.6, 1.6, 41)
    wave = bend * np.sin(x * rng.uniform(5, 7))
    lines = np.linspace(-1.4, 1.4, count)
    half_width = rng.uniform(0.22, 0.3) * 2.8 / count
    return [[_band(x + 1j * (y + wave), half_width) for y in lines]]


def _tiles(rng: np.random.Generator, *, kind: str) -> list[Contours]:
    count = int(rng.integers(4, 7))
    step = 2.8 / count
    square = np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j]) * step / 2
    cells = []
    for row in range(count + 1):
        for column in range(count + 1):
            at = complex(column - count / 2, row - count / 2) * step
            if kind == "checks" and (row + column) % 2 == 0:
                cells.append(square + at)
            elif kind == "dots":
                cells.append(circle(at, step * 0.3))
    return [cells]


def _sunburst(rng: np.random.Generator) -> list[Contours]:
    count = int(rng.integers(7, 11))
    return [whorl(np.array([0, 2, 2 * np.exp(1j * math.pi / count)]), count, phase=0.0, scale=1.0)]


def _arcs(rng: np.random.Generator) -> list[Contours]:
    step = rng.uniform(0.42, 0.55)
    angles = np.linspace(-0.9, 0.9, 30)
    return [[_band(-1.4 + radius * np.exp(1j * angles), step * 0.25) for radius in np.arange(step, 2.8, step)]]


# class -> figure; the order is the label
FIGURES: dict[str, Figure] = {
    "triangle": partial(_polygon, corners=3),
    "four-pointed star": partial(_star, points=4, inner=(0.3, 0.5)),
    "five-pointed star": partial(_star, points=5, inner=(0.38, 0.55)),
    "ten-pointed star": partial(_star, points=10, inner=(0.55, 0.7)),
    "three lobes": partial(_whorl, kind="round", count=3, width=(0.4, 0.55)),
    "four lobes": partial(_whorl, kind="round", count=4, width=(0.38, 0.5)),
    "five lobes": partial(_whorl, kind="round", count=5, width=(0.34, 0.44)),
    "six lobes": partial(_whorl, kind="round", count=6, width=(0.28, 0.36)),
    "eight lobes": partial(_whorl, kind="round", count=8, width=(0.2, 0.28)),
    "twelve lobes": partial(_whorl, kind="round", count=12, width=(0.12, 0.17)),
    "three blades": partial(_whorl, kind="pointed", count=3, width=(0.24, 0.36)),
    "four blades": partial(_whorl, kind="pointed", count=4, width=(0.22, 0.32)),
    "five blades": partial(_whorl, kind="pointed", count=5, width=(0.18, 0.28)),
    "six blades": partial(_whorl, kind="pointed", count=6, width=(0.16, 0.24)),
    "nine blades": partial(_whorl, kind="pointed", count=9, width=(0.1, 0.15)),
    "four hearts": partial(_whorl, kind="notched", count=4, width=(0.42, 0.55)),
    "five hearts": partial(_whorl, kind="notched", count=5, width=(0.34, 0.44)),
    "toothed fans": partial(_whorl, kind="toothed", count=6, width=(0.34, 0.42)),
    "nested round whorls": partial(_two_whorls, count=7, kind="round"),
    "nested pointed whorls": partial(_two_whorls, count=7, kind="pointed"),
    "gear": partial(_gear, teeth=9, hole=True),
    "toothed disc": partial(_gear, teeth=14, hole=False),
    "bullseye": partial(_rings, radii=(1.0, 0.75, 0.5, 0.25)),
    "ring of six dots": partial(_dots_around, count=6),
    "cross": partial(_spokes, count=4, rim=False),
    "wheel": partial(_spokes, count=6, rim=True),
    "spiral": partial(_spiral, arms=1, turns=2.3),
    "pinwheel": partial(_pinwheel, blades=4),
    "crescent": _crescent,
    "heart": _heart,
    "leaf": _leaf,
    "cup": _cup,
    "ball of dots": _ball,
    "ear": _ear,
    "stripes": partial(_stripes, bend=0.0),
    "waves": partial(_stripes, bend=0.14),
    "checks": partial(_tiles, kind="checks"),
    "dots": partial(_tiles, kind="dots"),
    "sunburst": _sunburst,
    "arcs": _arcs,
}
FILLING = {"stripes", "waves", "checks", "dots", "sunburst", "arcs"}  # larger than the picture


def draw_shape(rng: np.random.Generator, name: str, *, height: int, width: int) -> np.ndarray:
    """Draw one picture of a class of `FIGURES`; returns uint8 (H, W, 3) RGB."""
    ground = colour(rng)
    image_HWC = textured(rng, ground, height=height, width=width, variation=70)
    _clutter(rng, image_HWC, num_pieces=int(rng.integers(0, 4)))
    figure_colour = away_from(rng, ground, distance=55)
    placement = place(
        rng, height=height, width=width, radius=(0.7, 0.95) if name in FILLING else (0.27, 0.48), tilt=0.6
    )
    for layer, contours in enumerate(FIGURES[name](rng)):
        paint = textured(rng, figure_colour, height=height, width=width, variation=50)
        paint_parts(image_HWC, _shaded(rng, contours), placement=placement, paint_HWC=paint)
        looks_pierced = layer == 0 and rng.random() < 0.5
        figure_colour = ground if looks_pierced else away_from(rng, figure_colour, distance=45)
    if rng.random() < 0.3:
        _clutter(rng, image_HWC, num_pieces=1)
    return light_and_noise(rng, image_HWC)


def _shaded(rng: np.random.Generator, contours: Contours) -> list[Part]:
    """Give a layer's contours their shades; half of the layers have outlines."""
    outlined = rng.random() < 0.5
    wobble = rng.uniform(0.0, 0.05)
    parts = []
    for contour in contours:
        shade = int(rng.integers(112, 145))
        moved = turn(contour, rng.uniform(-wobble, wobble)) * rng.uniform(1 - wobble, 1 + wobble)
        parts.append(Part(moved, shade=shade, edge=shade - 55 if outlined else shade))
    return parts


def _clutter(rng: np.random.Generator, image_HWC: np.ndarray, *, num_pieces: int) -> None:
    """Scatter small polygons and bars that mean nothing."""
    height, width = image_HWC.shape[:2]
    for _ in range(num_pieces):
        piece = np.exp(2j * math.pi * np.sort(rng.random(int(rng.integers(3, 7)))))
        placement = place(rng, height=height, width=width, radius=(0.06, 0.16), tilt=0.2)._replace(
            x=rng.uniform(0, width), y=rng.uniform(0, height)
        )
        paint = textured(rng, colour(rng), height=height, width=width, variation=40)
        paint_parts(image_HWC, [Part(piece, shade=128, edge=128)], placement=placement, paint_HWC=paint)
