"""The synthetic street's boxes and masks lie on what it shows."""

import numpy as np
import pytest

from vifa_runtime.street import CAR, CLASSES, MASK_CLASSES, PERSON, Street

FRAMES = [(seed, index) for seed in range(3) for index in (0, 17, 64, 150)]


def test_classes_agree():
    assert MASK_CLASSES[1:] == CLASSES
    assert (CLASSES[PERSON], CLASSES[CAR]) == ("person", "car")


@pytest.mark.parametrize("seed,index", FRAMES)
def test_boxes_are_inside_and_full_of_their_class(seed, index):
    frame = Street(seed, (120, 160)).labelled(index)
    assert len(frame.boxes) == len(frame.labels) > 0
    assert frame.mask.shape == frame.thermal.shape == (120, 160)
    for (left, top, right, bottom), label in zip(frame.boxes.astype(int), frame.labels, strict=True):
        assert 0 <= left < right <= 160 and 0 <= top < bottom <= 120
        inside = frame.mask[top:bottom, left:right]
        # The box is tight: its class touches all four sides.
        for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert (side == label + 1).any()


def test_the_images_are_those_of_the_player():
    street = Street(3, (96, 128), 5)
    for index in (0, 7):
        frame, (visible, thermal) = street.labelled(index), street[index]
        assert (frame.visible == visible).all() and (frame.thermal == thermal).all()


def test_people_are_warm_and_cars_are_seen_by_day():
    people, ground, cars, road = [], [], [], []
    for seed, index in FRAMES:
        frame = Street(seed, (240, 320), day_frames=10**6).labelled(index)
        lower = np.arange(240)[:, None] > 125  # below the horizon
        people.append(frame.thermal[frame.mask == 1].mean())
        ground.append(frame.thermal[(frame.mask == 0) & lower].mean())
        cars.append(frame.visible[frame.mask == 2].std())
        road.append(frame.visible[(frame.mask == 0) & lower].std())
    assert np.mean(people) > np.mean(ground) + 400  # centikelvin
    assert np.mean(cars) > 1.5 * np.mean(road)


def test_what_is_mostly_hidden_or_outside_has_no_box():
    street = Street(0, (120, 160))
    counts = {len(street.labelled(index).boxes) for index in range(0, 400, 7)}
    assert max(counts) == 6  # all four people and both cars
    assert min(counts) < 6
    rests = []
    for index in range(0, 400, 7):
        frame = street.labelled(index)
        left = frame.mask == 2
        for x1, y1, x2, y2 in frame.boxes[frame.labels == CAR].astype(int):
            left[y1:y2, x1:x2] = False
        rests.append(np.count_nonzero(left))
    whole = 2.4 * 0.22**2 * (0.8 * 120) ** 2  # pixels around the largest car
    assert 0 < max(rests) < 0.25 * whole
