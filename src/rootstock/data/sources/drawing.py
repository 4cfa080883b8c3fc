"""Paint for the demo collections: contours, textures, backgrounds and light, on uint8 pixels.

Contours are complex arrays in the unit disc (x + iy), so that a rotation is a multiplication. Their corners are rounded
to 1/16 of a supersampled pixel; all that follows is integer arithmetic, which no instruction set changes.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

SUPERSAMPLING = 4  # two exact halvings
FIXED_BITS = 4  # corners are given to cv2 in sixteenths


class Placement(NamedTuple):
    """Where a figure stands: centre and radius in px, angles in radians, tilt as a ratio in (0, 1] (1 is face on)."""

    x: float
    y: float
    radius: float
    rotation: float
    tilt: float
    tilt_direction: float

    def pixels(self, contour: np.ndarray) -> np.ndarray:
        """Return a complex contour (n,) as cv2's fixed-point corners, int32 (n, 1, 2), on the supersampled canvas."""
        turned = contour * np.exp(1j * (self.rotation - self.tilt_direction))
        squashed = (turned.real * self.tilt + 1j * turned.imag) * np.exp(1j * self.tilt_direction) * self.radius
        corners = np.stack([squashed.real + self.x, squashed.imag + self.y], axis=-1)
        return np.rint(corners * (SUPERSAMPLING << FIXED_BITS)).astype(np.int32)[:, None, :]


def place(rng: np.random.Generator, *, height: int, width: int, radius: tuple[float, float], tilt: float) -> Placement:
    """Draw a placement; `radius` is a range in parts of the shorter side, `tilt` the strongest squash."""
    short = min(height, width)
    size = rng.uniform(*radius) * short
    slack_x, slack_y = max(0.0, width / 2 - 0.8 * size), max(0.0, height / 2 - 0.8 * size)
    return Placement(
        x=width / 2 + rng.uniform(-1, 1) * slack_x,
        y=height / 2 + rng.uniform(-1, 1) * slack_y,
        radius=size,
        rotation=rng.uniform(0, 2 * math.pi),
        tilt=rng.uniform(tilt, 1),
        tilt_direction=rng.uniform(0, 2 * math.pi),
    )


class Part(NamedTuple):
    """One filled contour, complex (n,); `shade` lights its fill and `edge` its outline, 128 being neutral."""

    contour: np.ndarray
    shade: int
    edge: int


def paint_parts(image_HWC: np.ndarray, parts: Iterable[Part], *, placement: Placement, paint_HWC: np.ndarray) -> None:
    """Paint parts over an image in place, later ones over earlier ones.

    Args:
        image_HWC: uint8 (H, W, 3), written to.
        parts: contours with their shades.
        placement: where the unit disc lies.
        paint_HWC: uint8 (H, W, 3), the fill.
    """
    height, width = image_HWC.shape[:2]
    alpha = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    shade = np.full_like(alpha, 128)
    for part in parts:
        corners = placement.pixels(part.contour)
        cv2.fillPoly(alpha, [corners], 255, cv2.LINE_8, FIXED_BITS)
        cv2.fillPoly(shade, [corners], part.shade, cv2.LINE_8, FIXED_BITS)
        if part.edge != part.shade:
            cv2.polylines(shade, [corners], True, part.edge, 2, cv2.LINE_8, FIXED_BITS)
    blend(image_HWC, lit(paint_HWC, _shrink(shade)), alpha_HW=_shrink(alpha))


def _shrink(canvas: np.ndarray) -> np.ndarray:
    """Halve twice; INTER_AREA by 2 on uint8 is (a + b + c + d + 2) >> 2, exactly."""
    for _ in range(2):
        canvas = cv2.resize(canvas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return canvas


def blend(image_HWC: np.ndarray, over_HWC: np.ndarray, *, alpha_HW: np.ndarray) -> None:
    """Lay `over_HWC` on `image_HWC` in place, where alpha (uint8, 255 is opaque) says so."""
    alpha = alpha_HW.astype(np.int32)[:, :, None]
    image_HWC[:] = (image_HWC * (255 - alpha) + over_HWC * alpha + 127) // 255


def lit(image_HWC: np.ndarray, light_HW: np.ndarray) -> np.ndarray:
    """Multiply an image with light, 128 being neutral; returns uint8."""
    return np.minimum(image_HWC.astype(np.int32) * light_HW[..., None] // 128, 255).astype(np.uint8)


def colour(rng: np.random.Generator) -> np.ndarray:
    """Draw any colour, int32 (3,) in [15, 240]."""
    return rng.integers(15, 241, size=3, dtype=np.int32)


def away_from(rng: np.random.Generator, other: np.ndarray, *, distance: int) -> np.ndarray:
    """Draw a colour whose lightness differs from `other`'s by at least `distance` (of 255)."""
    while True:  # over half of all draws pass at the distances asked for
        drawn = colour(rng)
        if abs(lightness(drawn) - lightness(other)) >= distance:
            return drawn


def lightness(rgb: np.ndarray) -> int:
    """Return the luma of an RGB colour in [0, 255]."""
    return int(rgb @ np.array([77, 150, 29])) >> 8


def smooth_noise(rng: np.random.Generator, *, height: int, width: int, cells: int) -> np.ndarray:
    """Draw clouds, uint8 (H, W), with about `cells` cells a side."""
    grid = rng.integers(0, 256, size=(cells, cells), dtype=np.uint8)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)


def ramp(rng: np.random.Generator, *, height: int, width: int) -> np.ndarray:
    """Draw a linear gradient from 0 to 255 in a random direction, uint8 (H, W)."""
    angle = rng.uniform(0, 2 * math.pi)
    along_x, along_y = round(1024 * math.cos(angle)), round(1024 * math.sin(angle))
    field = along_x * np.arange(width)[None, :] + along_y * np.arange(height)[:, None]
    field = field - field.min()
    return (field * 255 // max(1, int(field.max()))).astype(np.uint8)


def mix(first: np.ndarray, second: np.ndarray, weight_HW: np.ndarray) -> np.ndarray:
    """Mix two colours (3,) by weight (uint8, 255 is all second) to an image uint8 (H, W, 3)."""
    weight = weight_HW.astype(np.int32)[:, :, None]
    return ((first * (255 - weight) + second * weight) // 255).astype(np.uint8)


def textured(rng: np.random.Generator, base: np.ndarray, *, height: int, width: int, variation: int) -> np.ndarray:
    """Paint a surface around a colour: plain, graded or cloudy, uint8 (H, W, 3)."""
    other = np.clip(base + rng.integers(-variation, variation + 1, size=3), 0, 255)
    match rng.integers(3):
        case 0:
            weight = np.zeros((height, width), np.uint8)
        case 1:
            weight = ramp(rng, height=height, width=width)
        case _:
            weight = smooth_noise(rng, height=height, width=width, cells=int(rng.integers(2, 9)))
    return mix(base, other, weight)


def light_and_noise(rng: np.random.Generator, image_HWC: np.ndarray) -> np.ndarray:
    """Finish a picture: uneven light, then sensor noise; returns uint8 (H, W, 3)."""
    height, width = image_HWC.shape[:2]
    low = int(rng.integers(70, 129))
    high = int(rng.integers(118, 160))
    light = low + ramp(rng, height=height, width=width).astype(np.int32) * (high - low) // 255
    strength = int(rng.integers(1, 13))
    noise = rng.integers(-strength, strength + 1, size=image_HWC.shape, dtype=np.int32)
    return np.clip(lit(image_HWC, light).astype(np.int32) + noise, 0, 255).astype(np.uint8)


def turn(contour: np.ndarray, angle: float) -> np.ndarray:
    """Rotate a contour about the origin by `angle` radians."""
    return contour * complex(math.cos(angle), math.sin(angle))


def circle(centre: complex, radius: float) -> np.ndarray:
    """Return a circle's contour, complex (24,)."""
    return centre + radius * np.exp(1j * np.arange(24) * (math.pi / 12))


def petal(kind: str, *, base: float, width: float) -> np.ndarray:
    """Return a petal's contour along the positive x axis, from `base` to 1, complex (40,).

    Args:
        kind: round, pointed, notched (heart-shaped) or toothed.
        base: where it starts, in [0, 1).
        width: half its greatest width.
    """
    around = np.arange(40) * (2 * math.pi / 40)
    along = (1 - np.cos(around)) / 2
    side = np.sign(np.sin(around))
    if kind == "pointed":
        half_width = 2.6 * np.power(along, 0.75) * (1 - along)
    else:
        half_width = 1.25 * np.abs(np.sin(around)) * (0.3 + 0.7 * along)
    from_tip = around - math.pi
    if kind == "notched":
        along = along - 0.28 * np.exp(-np.square(from_tip / 0.4))
    elif kind == "toothed":
        along = along - 0.16 * (np.abs(from_tip) < 1.1) * (np.arange(40) % 4 < 2)
    return base + (1 - base) * along + 1j * width * half_width * side


def whorl(contour: np.ndarray, count: int, *, phase: float, scale: float) -> list[np.ndarray]:
    """Repeat a contour `count` times around the origin."""
    return [turn(contour * scale, phase + 2 * math.pi * index / count) for index in range(count)]
