"""A synthetic street: visible and raw 16-bit thermal images of moving warm people and cars, by day and by night.

Made by code alone, so that a demo and the tests need no data. What it shows is chosen to need both cameras: by night
people are invisible but warm, lane marks and signs exist in the visible image only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("person", "car")  # of boxes
MASK_CLASSES = ("background", "person", "car")
PERSON, CAR = range(2)
PEOPLE, CARS = 4, 2
SMALLEST_SHARE = 0.25  # of an object that must be seen for it to have a box
AMBIENT, COUNTS_PER_KELVIN = 29_315, 100  # thermal counts are centikelvin: 293.15 K is 29315


class StreetFrame(NamedTuple):
    """A frame and what is in it.

    Attributes:
        visible: RGB (H,W,3) uint8.
        thermal: (H,W) uint16, centikelvin.
        boxes: (N,4) float32, x1 y1 x2 y2 in pixels around what is seen of each object; none for one that is hidden or
            outside the image by more than three quarters.
        labels: (N,) int64, numbers of `CLASSES`.
        mask: (H,W) uint8, numbers of `MASK_CLASSES`; small rests of hidden objects are in it too.
    """

    visible: NDArray[np.uint8]
    thermal: NDArray[np.uint16]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.uint8]


_Canvases = tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]]  # visible, thermal, whose pixel it is


@dataclass(frozen=True)
class _Mover:
    """Something that crosses the street: class, feet position, pixels a frame, size and looks."""

    label: int
    start: float
    speed: float
    ground: float
    height: float
    colour: tuple[int, int, int]
    kelvin: float

    @property
    def width(self) -> float:
        return self.height * (2.4 if self.label == CAR else 0.3)


class Street:
    """An endless, seeded sequence; `street[i]` is the i-th pair, the same for the same seed and size.

    Frames alternate between day and night every `day_frames`.
    """

    def __init__(self, seed: int = 0, size: tuple[int, int] = (480, 640), day_frames: int = 60) -> None:
        self.height, self.width = size
        self.day_frames = day_frames
        rng = np.random.default_rng(seed)
        self._people = [self._make_person(rng) for _ in range(PEOPLE)]
        self._cars = [self._make_car(rng) for _ in range(CARS)]
        self._day, self._warmth = self._paint_background(rng)
        self._night = (self._day * np.array([0.13, 0.13, 0.17])).astype(np.uint8)
        self._lamp = self._paint_lamps()
        self._visible_noise = rng.normal(0, 2.5, (self.height + 64, self.width + 64, 3)).astype(np.int16)
        self._thermal_noise = rng.normal(0, 6, (self.height + 64, self.width + 64)).astype(np.int16)

    def is_night(self, index: int) -> bool:
        """Whether the i-th frame is by night."""
        return (index // self.day_frames) % 2 == 1

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return visible RGB (H,W,3) uint8 and thermal (H,W) uint16 in centikelvin of frame `index` >= 0."""
        return self._render(index)[:2]

    def labelled(self, index: int) -> StreetFrame:
        """Frame `index` >= 0 with boxes and mask; the images are those of `street[index]`."""
        visible, thermal, owners, sizes = self._render(index)
        movers = [*self._cars, *self._people]
        boxes, labels = [], []
        for number, (mover, size) in enumerate(zip(movers, sizes, strict=True), start=1):
            rows, columns = np.nonzero(owners == number)
            if len(rows) > SMALLEST_SHARE * size:
                boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
                labels.append(mover.label)
        mask_ids = np.array([0, *(mover.label + 1 for mover in movers)], np.uint8)
        return StreetFrame(
            visible,
            thermal,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            mask_ids[owners],
        )

    def _render(self, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8], list[float]]:
        """Both images; whose pixel it is (0 nobody's, then the objects as drawn); pixels of each in full view."""
        if index < 0:
            raise IndexError(f"frame {index} is before the first")
        night = self.is_night(index)
        visible = (self._night if night else self._day).copy()
        thermal = self._warmth.copy()
        owners = np.zeros(thermal.shape, np.uint8)
        sizes = []
        for number, mover in enumerate([*self._cars, *self._people], start=1):
            draw = self._draw_car if mover.label == CAR else self._draw_person
            draw((visible, thermal, owners), mover, index, night, number)
            x = self._place(mover, index)
            inside = min(x + mover.width / 2, self.width) - max(x - mover.width / 2, 0)
            sizes.append(np.count_nonzero(owners == number) * mover.width / max(inside, 1.0))
        if night:
            visible = cv2.add(visible, self._lamp)
        row, column = (index * 17) % 64, (index * 29) % 64
        noise = self._visible_noise[row : row + self.height, column : column + self.width]
        visible = cv2.add(visible, noise, dtype=cv2.CV_8U)
        noise = self._thermal_noise[row : row + self.height, column : column + self.width]
        thermal = cv2.add(cv2.GaussianBlur(thermal, (5, 5), 1.0), noise, dtype=cv2.CV_16U)
        return visible, thermal, owners, sizes

    def _make_person(self, rng: np.random.Generator) -> _Mover:
        ground = rng.uniform(0.62, 0.95) * self.height
        colour = _colour(rng, 40, 200)
        speed = rng.choice([-1, 1]) * rng.uniform(1.0, 2.0)
        height = 0.30 * ground * rng.uniform(0.85, 1.1)
        return _Mover(PERSON, rng.uniform(0, self.width), speed, ground, height, colour, rng.uniform(8, 12))

    def _make_car(self, rng: np.random.Generator) -> _Mover:
        ground = rng.uniform(0.60, 0.80) * self.height
        colour = _colour(rng, 60, 220)
        speed = rng.choice([-1, 1]) * rng.uniform(2.5, 4.5)
        return _Mover(CAR, rng.uniform(0, self.width), speed, ground, 0.22 * ground, colour, rng.uniform(4, 7))

    def _paint_background(self, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Visible by day, and thermal: cold sky, facades near ambient with warm windows, the road a little warmer."""
        height, width = self.height, self.width
        horizon = int(0.48 * height)
        image = np.empty((height, width, 3), np.uint8)
        image[:horizon] = np.linspace((120, 165, 220), (205, 220, 235), horizon)[:, None]
        image[horizon:] = (105, 105, 108)
        kelvin = np.full((height, width), 1.5, np.float32)
        kelvin[:horizon] = -8
        left = 0
        while left < width:
            right = left + max(1, int(rng.uniform(0.10, 0.2) * width))
            top = int(rng.uniform(0.08, 0.33) * height)
            wall = rng.integers(90, 190, 3)
            image[top:horizon, left:right] = wall
            kelvin[top:horizon, left:right] = rng.uniform(-2, 1)
            for y in range(top + 8, horizon - 12, 22):
                for x in range(left + 6, right - 10, 18):
                    image[y : y + 12, x : x + 9] = wall // 3
                    kelvin[y : y + 12, x : x + 9] += 1.5
            left = right
        image[horizon : horizon + height // 24] = (150, 145, 135)
        for step in range(0, width, 80):
            cv2.line(image, (step, int(0.82 * height)), (step + 40, int(0.82 * height)), (235, 235, 235), 4)
        grain = cv2.GaussianBlur(rng.normal(0, 14, image.shape[:2]).astype(np.float32), (3, 3), 0)
        drift = cv2.GaussianBlur(rng.normal(0, 4, kelvin.shape).astype(np.float32), (0, 0), 12)
        visible = cv2.add(image, np.repeat(grain[:, :, None], 3, axis=2), dtype=cv2.CV_8U)
        return visible, (AMBIENT + COUNTS_PER_KELVIN * (kelvin + drift)).astype(np.uint16)

    def _paint_lamps(self) -> NDArray[Any]:
        lamp = np.zeros((self.height, self.width, 3), np.uint8)
        for x in range(self.width // 8, self.width, self.width // 4):
            cv2.circle(lamp, (x, int(0.3 * self.height)), self.height // 60, (255, 235, 190), -1)
        return cv2.add(lamp, cv2.GaussianBlur(lamp, (0, 0), self.height / 24))

    def _place(self, mover: _Mover, index: int) -> int:
        span = self.width + 2 * mover.width
        return int((mover.start + mover.speed * index) % span - mover.width)

    def _draw_person(self, canvases: _Canvases, person: _Mover, index: int, night: bool, number: int) -> None:
        visible, thermal, owners = canvases
        height = person.height
        x, y = self._place(person, index), int(person.ground)
        swing = int(0.15 * height * np.sin(0.5 * index))
        head, hip = (x, int(y - 0.9 * height)), (x, int(y - 0.45 * height))
        skin = (214, 178, 150)
        dim = 0.12 if night else 1.0
        counts = int(AMBIENT + COUNTS_PER_KELVIN * person.kelvin)
        for canvas, cloth, face in (
            (visible, _dimmed(person.colour, dim), _dimmed(skin, dim)),
            (thermal, counts - 250, counts + 150),
            (owners, number, number),
        ):
            for foot in (x - swing, x + swing):
                cv2.line(canvas, hip, (foot, y), cloth, max(2, int(0.13 * height)))
            axes = (int(0.14 * height), int(0.25 * height))
            cv2.ellipse(canvas, (x, int(y - 0.6 * height)), axes, 0, 0, 360, cloth, -1)
            cv2.circle(canvas, head, max(2, int(0.09 * height)), face, -1)

    def _draw_car(self, canvases: _Canvases, car: _Mover, index: int, night: bool, number: int) -> None:
        visible, thermal, owners = canvases
        height, width = car.height, car.width
        x, y = self._place(car, index), int(car.ground)
        body = [(x - width / 2, y - 0.55 * height), (x + width / 2, y - 0.15 * height)]
        roof = [(x - 0.28 * width, y - height), (x + 0.25 * width, y - 0.5 * height)]
        dim = 0.25 if night else 1.0
        counts = int(AMBIENT + COUNTS_PER_KELVIN * car.kelvin)
        paint, glass = _dimmed(car.colour, dim), _dimmed((50, 60, 70), dim)
        for canvas, metal, pane, tyre in (
            (visible, paint, glass, (15, 15, 15)),
            (thermal, counts - 300, counts - 550, counts + 300),
            (owners, number, number, number),
        ):
            _rectangle(canvas, roof, pane)
            _rectangle(canvas, body, metal)
            for wheel in (x - 0.3 * width, x + 0.3 * width):
                cv2.circle(canvas, (int(wheel), int(y - 0.12 * height)), int(0.16 * height), tyre, -1)
        front = int(x + np.sign(car.speed) * width / 2)
        if night:
            cv2.circle(visible, (front, int(y - 0.4 * height)), max(2, int(0.08 * height)), (255, 250, 220), -1)
        bonnet = (front - int(np.sign(car.speed) * 0.2 * width), int(y - 0.35 * height))
        cv2.circle(thermal, bonnet, int(0.14 * height), counts + 500, -1)


def _rectangle(canvas: NDArray, corners: list[tuple[float, float]], colour: int | tuple[int, int, int]) -> None:
    (left, top), (right, bottom) = corners
    cv2.rectangle(canvas, (int(left), int(top)), (int(right), int(bottom)), colour, -1)


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def _dimmed(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (int(value * factor) for value in colour)
    return red, green, blue
