"""What is in a clip of shapes and how it moves: drawn by lot once, then formulas in time.

Lengths are in picture heights around the picture's centre, times in frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from mobileinst_deploy.data.textures import colour_ramp, pattern_bank, rgb

#: Class names, in label order.
CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")
MAX_OBJECTS = 6


@dataclass(frozen=True)
class Wave:
    """A quantity that swings: ``centre + swing * sin(2 pi t / period + phase)``.

    Attributes:
        centre: Its mean, in its own unit.
        swing: Its largest distance from that.
        period: In frames.
        phase: In radians.
    """

    centre: float
    swing: float
    period: float
    phase: float

    def at(self, t: float) -> float:
        """Its value at a time."""
        return self.centre + self.swing * math.sin(2 * math.pi * t / self.period + self.phase)


@dataclass(frozen=True)
class Shape:
    """One shape: what it looks like and how it moves.

    Attributes:
        label: Index into :data:`CLASSES`.
        x: Sway to the right, added to the drift.
        y: Sway downwards, likewise.
        drift: Position (x, y) at time 0 and velocity (x, y) per frame; reflected where the shape
            is just outside the picture.
        radius: Half its size.
        turn: Angle in radians.
        spin: Added to the angle per frame, in radians.
        stretch: Factor of its width, and divisor of its height.
        pattern: Index into the pattern bank.
        pattern_scale: How much of the pattern it shows.
        pattern_offset: Texel (x, y) under its centre.
        ramp: (256, 1, 3) uint8, colours of the pattern's greys.
    """

    label: int
    x: Wave
    y: Wave
    drift: tuple[float, float, float, float]
    radius: Wave
    turn: Wave
    spin: float
    stretch: float
    pattern: int
    pattern_scale: float
    pattern_offset: tuple[float, float]
    ramp: np.ndarray


@dataclass(frozen=True)
class Camera:
    """Where the camera looks and how its picture comes out.

    Attributes:
        x: What it looks at, to the right of the scene's centre.
        y: The same downwards.
        shake: Added to both, as by a hand.
        roll: Angle in radians.
        zoom: Factor of every length.
        focus: Standard deviation of the blur, in pixels of a picture 192 high.
        gain: Factor of the brightness.
        grain: Standard deviation of the sensor's noise, in grey levels.
    """

    x: Wave
    y: Wave
    shake: Wave
    roll: Wave
    zoom: Wave
    focus: Wave
    gain: Wave
    grain: float


@dataclass(frozen=True)
class Background:
    """Two patterns mixed and coloured, seen by the camera as a wall behind the objects.

    Attributes:
        patterns: Indices into the pattern bank.
        mix: Share of the first, in [0, 1].
        scale: How finely they are sampled.
        turn: Their angle in radians.
        ramp: (256, 1, 3) uint8, colours of the mixed greys.
    """

    patterns: tuple[int, int]
    mix: float
    scale: float
    turn: float
    ramp: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean colour (3,) in 0 to 255."""
        mean: np.ndarray = self.ramp[:, 0].mean(0)
        return mean


@dataclass(frozen=True)
class Scene:
    """All of a clip but its size in pixels; the last object is in front."""

    background: Background
    camera: Camera
    objects: tuple[Shape, ...]


def random_scene(rng: np.random.Generator, aspect: float) -> Scene:
    """Draw a scene by lot.

    Args:
        rng: Where the lots come from.
        aspect: Width of the picture over its height.
    """
    background = _random_background(rng)
    camera = _random_camera(rng)
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    # Hues are spread around the circle, so that neighbours differ.
    hue = rng.random()
    objects = [
        _random_object(rng, hue + index / count, background.mean, aspect) for index in range(count)
    ]
    return Scene(background, camera, tuple(objects))


def placement(shape: Shape, t: float, aspect: float) -> np.ndarray:
    """An object's (2, 3) matrix at time ``t`` from its own unit size to picture heights."""
    radius = shape.radius.at(t)
    x0, y0, vx, vy = shape.drift
    # The rim lies outside the picture: what drifts leaves it and comes back.
    x = shape.x.at(t) + _reflect(x0 + vx * t, aspect / 2 + radius)
    y = shape.y.at(t) + _reflect(y0 + vy * t, 0.5 + radius)
    angle = shape.turn.at(t) + shape.spin * t
    c, s = math.cos(angle), math.sin(angle)
    a, b = radius * shape.stretch, radius / shape.stretch
    return np.array([[a * c, -b * s, x], [a * s, b * c, y]])


def _reflect(position: float, limit: float) -> float:
    """Fold the line into [-limit, limit], as between two mirrors."""
    phase = (position + limit) % (4 * limit)
    return (phase if phase < 2 * limit else 4 * limit - phase) - limit


@cache
def outlines() -> tuple[tuple[np.ndarray, ...], ...]:
    """Each class's outlines (n, 2) around the origin in unit size, the outer one first."""
    square = 0.85 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    star = _circle(10, 1.15)
    star[1::2] *= 0.45
    a, b = 0.33, 1.05
    cross = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    cross += [(-x, -y) for x, y in cross]
    return (
        (_circle(48, 1.0),),
        (square,),
        (_circle(3, 1.15),),
        (star,),
        (_circle(48, 1.0), _circle(40, 0.52)),
        (np.array(cross),),
    )


@cache
def areas() -> tuple[float, ...]:
    """Area of each class in unit size: its outer outline less its hole."""
    return tuple(_area(outer) - sum(_area(hole) for hole in holes) for outer, *holes in outlines())


def _area(outline: np.ndarray) -> float:
    x, y = outline.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _circle(points: int, radius: float) -> np.ndarray:
    angle = np.arange(points) * (2 * math.pi / points) - math.pi / 2
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _random_background(rng: np.random.Generator) -> Background:
    bank = pattern_bank()
    # Muted colours, so that the vivid objects stand out from any pattern.
    base = rng.random()
    colours = np.stack(
        [
            rgb(base + rng.uniform(-0.15, 0.15), rng.uniform(0, 0.35), value)
            for value in rng.permutation([0.25, 0.45, 0.65]) + rng.uniform(-0.15, 0.2)
        ]
    )
    return Background(
        patterns=(int(rng.integers(len(bank))), int(rng.integers(3))),
        mix=rng.uniform(0.2, 0.7),
        scale=rng.uniform(0.6, 1.3),
        turn=rng.uniform(0, 2 * math.pi),
        ramp=colour_ramp(colours),
    )


def _random_object(
    rng: np.random.Generator, hue: float, background: np.ndarray, aspect: float
) -> Shape:
    radius = 0.5 * math.exp(rng.uniform(math.log(0.16), math.log(0.5)))
    x, y = rng.uniform(-aspect / 2, aspect / 2) * 0.85, rng.uniform(-0.5, 0.5) * 0.85
    sway_x = _wave(rng, 0, rng.uniform(0, 0.12), (30, 90))
    sway_y = _wave(rng, 0, rng.uniform(0, 0.12), (30, 90))
    velocity = (0.0, 0.0)
    kind = rng.choice(3, p=(0.45, 0.35, 0.2))
    if kind == 1:  # crosses the picture
        speed, way = rng.uniform(0.006, 0.03), rng.uniform(0, 2 * math.pi)
        velocity = (speed * math.cos(way), speed * math.sin(way))
    elif kind == 2:  # looks in from one side, again and again
        x = math.copysign(aspect / 2, x)
        sway_x = _wave(rng, 0, rng.uniform(1, 1.5) * radius, (20, 44))
    return Shape(
        label=int(rng.integers(len(CLASSES))),
        x=sway_x,
        y=sway_y,
        drift=(x, y, *velocity),
        radius=_wave(rng, radius, radius * rng.uniform(0, 0.25), (24, 80)),
        turn=_wave(rng, rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.5), (24, 80)),
        spin=rng.uniform(-0.06, 0.06) if rng.random() < 0.5 else 0.0,
        stretch=math.exp(rng.uniform(-0.14, 0.14)),
        pattern=int(rng.integers(len(pattern_bank()))),
        pattern_scale=rng.uniform(0.5, 1.6),
        pattern_offset=(rng.uniform(150, 362), rng.uniform(150, 362)),
        ramp=_vivid_ramp(rng, hue, background),
    )


def _vivid_ramp(rng: np.random.Generator, hue: float, background: np.ndarray) -> np.ndarray:
    """Two strong colours of one hue, bright over a dark background and dark over a bright one."""
    hue += rng.uniform(-0.06, 0.06)
    saturation = rng.uniform(0.65, 1)
    values = rng.uniform(0.75, 1), rng.uniform(0.45, 0.7)
    if background.mean() > 140:
        values = rng.uniform(0.55, 0.8), rng.uniform(0.2, 0.4)
    other = hue + rng.uniform(-0.08, 0.08)
    return colour_ramp(np.stack([rgb(hue, saturation, values[0]), rgb(other, 1, values[1])]))


def _random_camera(rng: np.random.Generator) -> Camera:
    still = rng.random() < 0.3
    pan = 0.0 if still else rng.uniform(0.02, 0.2)
    shaky = 0.0 if still else rng.uniform(0, 0.006)
    return Camera(
        x=_wave(rng, 0, pan, (50, 120)),
        y=_wave(rng, 0, pan / 2, (50, 120)),
        shake=_wave(rng, 0, shaky, (3, 9)),
        roll=_wave(rng, 0, 0 if still else rng.uniform(0, 0.08), (40, 100)),
        zoom=_wave(rng, 1, 0 if still else rng.uniform(0, 0.1), (40, 100)),
        focus=_wave(rng, 0.5, rng.uniform(0, 1.2), (30, 90)),
        gain=_wave(rng, 1, rng.uniform(0, 0.25), (20, 90)),
        grain=(0.0, 1.5, 3.0, 5.0)[int(rng.integers(4))],
    )


def _wave(
    rng: np.random.Generator, centre: float, swing: float, periods: tuple[float, float]
) -> Wave:
    return Wave(centre, swing, rng.uniform(*periods), rng.uniform(0, 2 * math.pi))
