"""Pictures made by code: contact sheets and the synthetic street."""

import numpy as np
import pytest

from vifa_runtime.pairs import write_image
from vifa_runtime.render import GAP, LABEL_HEIGHT, contact_sheet
from vifa_runtime.street import AMBIENT, CLASSES, MASK_CLASSES, Street

WIDTH = 40


def plain(colour, height=20, width=WIDTH):
    return np.full((height, width, 3), colour, np.uint8)


def test_tiles_lie_in_rows_and_columns_under_a_line_of_titles():
    colours = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9), (99, 9, 9), (9, 99, 9)]]
    sheet = contact_sheet([[plain(colour) for colour in row] for row in colours], ["a", "b", "c"], tile_width=WIDTH)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (LABEL_HEIGHT + 2 * (20 + GAP), 3 * (WIDTH + GAP), 3)
    for row in range(2):
        for column in range(3):
            top, left = LABEL_HEIGHT + row * (20 + GAP), column * (WIDTH + GAP)
            tile = sheet[top : top + 20, left : left + WIDTH]
            assert (tile == colours[row][column]).all()
            assert (sheet[top : top + 20, left + WIDTH : left + WIDTH + GAP] == 255).all()
    assert (sheet[LABEL_HEIGHT + 20 : LABEL_HEIGHT + 20 + GAP] == 255).all()


def test_each_title_stands_over_its_column():
    sheet = contact_sheet([[plain(0), plain(0)]], ["", "warm"], tile_width=WIDTH)
    dark = (sheet[:LABEL_HEIGHT] < 128).any(axis=(0, 2))
    assert not dark[: WIDTH + GAP].any()
    assert dark[WIDTH + GAP :].any()


def test_gray_bytes_and_floats_are_shown_as_gray():
    gray = np.full((20, WIDTH), 51, np.uint8)
    sheet = contact_sheet([[gray, gray / np.float32(255), gray * 0 + np.float32(7)]], ["", "", ""], tile_width=WIDTH)
    row = sheet[LABEL_HEIGHT + 5]
    assert (row[:WIDTH] == 51).all()
    assert (row[WIDTH + GAP : 2 * WIDTH + GAP] == 51).all()
    assert (row[2 * (WIDTH + GAP) : 3 * WIDTH + 2 * GAP] == 255).all()  # above 1 is white


def test_images_of_other_sizes_keep_their_aspect_and_lower_ones_are_padded():
    sheet = contact_sheet([[plain(10, 40, 2 * WIDTH), plain(20, 10, WIDTH // 2), plain(30, 5)]], "abc", WIDTH)
    assert sheet.shape[0] == LABEL_HEIGHT + 20 + GAP
    third = sheet[LABEL_HEIGHT:, 2 * (WIDTH + GAP) : 3 * WIDTH + 2 * GAP]
    assert (third[:5] == 30).all()
    assert (third[5:] == 255).all()


@pytest.mark.parametrize("rows", [[], [[plain(0)]], [[plain(0), plain(0)], [plain(0)]]])
def test_rows_that_do_not_fit_the_titles_are_refused(rows):
    with pytest.raises(ValueError, match="expected rows of 2 images"):
        contact_sheet(rows, ["a", "b"])


SIZE = (180, 240)


@pytest.fixture(scope="module")
def street():
    return Street(seed=3, size=SIZE, day_frames=10)


def test_a_frame_is_a_visible_and_a_raw_thermal_image(street):
    visible, thermal = street[0]
    assert (visible.shape, visible.dtype) == ((*SIZE, 3), np.uint8)
    assert (thermal.shape, thermal.dtype) == (SIZE, np.uint16)
    assert abs(float(np.median(thermal)) - AMBIENT) < 1000  # centikelvin


def test_the_same_seed_gives_the_same_frames_in_any_order(street):
    again = Street(seed=3, size=SIZE, day_frames=10)
    for index in (25, 0, 7):
        for one, other in zip(street[index], again[index], strict=True):
            np.testing.assert_array_equal(one, other)


def test_another_seed_gives_another_street(street):
    assert (Street(seed=4, size=SIZE)[0][0] != street[0][0]).mean() > 0.5


def test_frames_are_not_changed_by_those_who_get_them(street):
    visible, thermal = street[2]
    before = visible.copy(), thermal.copy()
    visible[:], thermal[:] = 0, 0
    np.testing.assert_array_equal(street[2][0], before[0])
    np.testing.assert_array_equal(street[2][1], before[1])


def test_day_and_night_take_turns(street):
    assert [street.is_night(index) for index in (0, 9, 10, 19, 20)] == [False, False, True, True, False]
    assert street[9][0].mean() > 3 * street[10][0].mean()


def test_everything_moves(street):
    """More changes between two frames than noise alone would change."""
    thermal = [street[index][1].astype(int) for index in (0, 5)]
    assert (np.abs(thermal[1] - thermal[0]) > 300).mean() > 0.01


@pytest.mark.parametrize("index", [10, 13, 17])
@pytest.mark.parametrize("seed", [0, 3])
def test_people_are_warm_and_by_night_dark(seed, index):
    frame = Street(seed, size=SIZE, day_frames=10).labelled(index)
    chests = [
        (x, y)
        for box in frame.boxes[frame.labels == CLASSES.index("person")]
        for x, y in [chest(box)]
        if 3 <= x < SIZE[1] - 3 and frame.mask[y, x] == MASK_CLASSES.index("person")
    ]
    assert chests
    for x, y in chests:
        assert frame.thermal[y, x] > AMBIENT + 400
        assert frame.visible[y - 2 : y + 3, x - 2 : x + 3].mean() < 60


def chest(box):
    """Column and row of the chest of somebody who fills a box."""
    left, top, right, bottom = box
    return int((left + right) / 2), int(bottom - 0.6 * (bottom - top))


def test_lane_marks_are_seen_and_not_felt(street):
    visible, thermal = street[0]
    row = int(0.82 * SIZE[0])
    assert visible[row].max() > 200
    marks = visible[row].min(axis=1) > 200
    assert marks.any() and (~marks).any()
    assert abs(float(np.median(thermal[row][marks])) - float(np.median(thermal[row][~marks]))) < 300


def test_a_frame_before_the_first_is_refused(street):
    with pytest.raises(IndexError, match="frame -1 is before the first"):
        street[-1]


@pytest.mark.parametrize("size", [(24, 4), (48, 64), (31, 77)])
def test_small_and_odd_sizes_work(size):
    visible, thermal = Street(size=size)[70]
    assert (visible.shape, thermal.shape) == ((*size, 3), size)


def test_a_street_can_be_written_and_looked_at(street, tmp_path):
    write_image(tmp_path / "street.png", contact_sheet([[street[0][0], street[12][0]]], ["day", "night"]))
    assert (tmp_path / "street.png").stat().st_size > 1000
