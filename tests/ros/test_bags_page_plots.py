"""The plots of report.html: what they draw is read back from the drawing."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import START, STEP, TASKS, make_report
from test_bags_page import parse, part, text_of

from vifa_ros.bags.page import render_page
from vifa_ros.bags.page_plots import interval_bar, share_bar, spread_bar, ticks
from vifa_ros.bags.page_series import MOST_POINTS, Series
from vifa_ros.bags.page_words import tag_shades

finite = st.floats(-1e6, 1e6)


def plot_of(report, tmp_path, task="roads", metric="EN"):
    """The figure of one metric of one task."""
    time = part(parse(render_page(report, tmp_path)), "time")
    titles = [text_of(title) for title in time.findall("h3")]
    plots = time.findall("div")[titles.index(f"Task {task}")]
    return next(figure for figure in plots if text_of(figure.find("figcaption")).startswith(metric))


def corners(path) -> np.ndarray:
    """(N,2) of a path, pixels."""
    return np.array([[float(n) for n in pair.split(",")] for pair in re.findall(r"[-\d.]+,[-\d.]+", path.get("d"))])


def scales(figure):
    """Functions from pixels to seconds and to values, from where the axes write their numbers."""
    written = [
        (text.get("x"), text.get("y"), "".join(text.itertext()).replace("−", "-")) for text in figure.iter("text")
    ]
    across = [(float(x), float(label[:-2])) for x, _, label in written if label.endswith(" s")]
    up = [(float(y), float(label)) for _, y, label in written if not label.endswith(" s")]
    assert len(across) >= 2 and len(up) >= 2
    return [np.poly1d(np.polyfit(*zip(*places, strict=True), 1)) for places in (across, up)]


def curves(figure, bundle: int, class_: str = "curve"):
    lines = figure.find(f".//g[@class='bundle{bundle}']")
    return [corners(path) for path in lines.iter("path") if path.get("class") == class_]


def make_frames(values, stamps=None, **other):
    stamps = START + STEP * np.arange(len(values)) if stamps is None else stamps
    return [
        {"index": i, "stamp": int(stamp), "tag": "day", "bundle": "small", "task": "roads", "en": value, **other}
        for i, (value, stamp) in enumerate(zip(values, stamps, strict=True))
    ]


def test_every_frame_is_drawn_where_it_belongs(tmp_path):
    report = make_report()
    for task in TASKS:
        figure = plot_of(report, tmp_path, task)
        seconds, values = scales(figure)
        for index, bundle in enumerate(report["meta"]["bundles"]):
            own = [row for row in report["frames"] if (row["task"], row["bundle"]) == (task, bundle)]
            (line,) = curves(figure, index)
            np.testing.assert_allclose(seconds(line[:, 0]), [(row["stamp"] - START) * 1e-9 for row in own], atol=2e-3)
            np.testing.assert_allclose(values(line[:, 1]), [row["en"] for row in own], atol=0.2)


def test_worst_frames_are_marked_and_lead_to_their_pictures(tmp_path):
    report = make_report()
    figure = plot_of(report, tmp_path)
    seconds, values = scales(figure)
    links = list(figure.iter("a"))
    assert [link.get("href") for link in links] == ["#picture-1", "#picture-2", "#picture-3"]
    for link, row in zip(links, report["worst"], strict=True):
        circle = link.find("circle")
        assert seconds(float(circle.get("cx"))) == pytest.approx((row["stamp"] - START) * 1e-9, abs=2e-3)
        assert values(float(circle.get("cy"))) == pytest.approx(row["value"], abs=0.2)
    assert not list(plot_of(report, tmp_path, "fields").iter("a"))


def test_a_mark_far_from_all_values_is_in_the_picture_too(tmp_path):
    report = make_report()
    report["worst"] = [report["worst"][0] | {"value": 5000.0}]
    figure = plot_of(report, tmp_path)
    assert 0 < float(figure.find(".//a/circle").get("cy")) < float(figure.find("svg").get("viewBox").split()[3])


def test_a_screen_reader_hears_mean_and_extremes(tmp_path):
    report = make_report() | {"frames": make_frames([2.0, 5.0, 1.0, 4.0])}
    said = plot_of(report, tmp_path).find("svg").get("aria-label")
    assert "small: mean 3.0000, lowest 1.0000 at 0.07 s, highest 5.0000 at 0.03 s." in said


@pytest.mark.parametrize("count", [MOST_POINTS, MOST_POINTS + 1, 5 * MOST_POINTS, 5 * MOST_POINTS + 3])
def test_many_frames_are_thinned_and_the_page_says_so(count, tmp_path):
    values = np.random.default_rng(0).normal(50, 10, count)
    report = make_report() | {"frames": make_frames(values.tolist()), "worst": []}
    each = 2 ** math.ceil(math.log2(count / MOST_POINTS))
    groups = [values[start : start + each] for start in range(0, count, each)]
    figure = plot_of(report, tmp_path)
    _, scale = scales(figure)
    (line,) = curves(figure, 0)
    np.testing.assert_allclose(scale(line[:, 1]), [group.mean() for group in groups], atol=0.2)
    said = text_of(part(parse(render_page(report, tmp_path)), "time"))
    assert ("Each point is one pair." in said) == (each == 1)
    assert (f"each point stands for up to {each} pairs in a row" in said) == (each > 1)
    if each == 1:
        assert not curves(figure, 0, "band")
        return
    (band,) = curves(figure, 0, "band")
    np.testing.assert_allclose(scale(band[: len(groups), 1]), [group.max() for group in groups], atol=0.2)
    np.testing.assert_allclose(scale(band[: len(groups) - 1 : -1, 1]), [group.min() for group in groups], atol=0.2)


@given(st.data())
def test_points_are_those_of_all_rows_at_once_whatever_comes_when(data):
    """One pass with few points in memory gives what NumPy gives that has all rows."""
    count = data.draw(st.integers(1, 4 * MOST_POINTS))
    values = data.draw(st.lists(st.none() | finite, min_size=count, max_size=count))
    series = Series(iter(make_frames(values)))
    places = np.arange(count) // series.each
    assert series.each == 1 or MOST_POINTS / 2 < (count - 1) // series.each + 1 <= MOST_POINTS
    starts = [START + STEP * int(place) * series.each for place in np.unique(places)]
    assert series.strip() == [(pytest.approx((start - START) * 1e-9), 0) for start in starts]
    line = series.lines.get(("roads", "en"), {}).get("small")
    groups = [
        [v for v, own in zip(values, places, strict=True) if own == place and v is not None] for place in set(places)
    ]
    groups = [group for group in groups if group]
    if not groups:
        assert line is None
        return
    points = line.in_time()
    np.testing.assert_allclose([point.value for point in points], [np.mean(group) for group in groups], atol=1e-6)
    assert [(point.low[0], point.high[0]) for point in points] == [(min(group), max(group)) for group in groups]
    every = [value for group in groups for value in group]
    assert line.whole().low == (min(every), pytest.approx(values.index(min(every)) * STEP * 1e-9))
    assert line.whole().high == (max(every), pytest.approx(values.index(max(every)) * STEP * 1e-9))


def test_rows_are_read_once_and_need_not_be_a_list(tmp_path):
    report = make_report()
    assert render_page(report | {"frames": iter(report["frames"])}, tmp_path) == render_page(report, tmp_path)


def test_a_line_is_broken_where_the_bag_has_a_hole(tmp_path):
    stamps = START + STEP * np.array([0, 1, 2, 3, 4, 40, 41, 42, 90])
    report = make_report() | {"frames": make_frames(range(9), stamps), "worst": []}
    figure = plot_of(report, tmp_path)
    assert [len(line) for line in curves(figure, 0)] == [5, 3]
    assert len([dot for dot in figure.iter("circle") if dot.get("class") == "dot"]) == 1


def test_frames_without_a_value_are_left_out(tmp_path):
    values = [1.0, None, math.nan, 4.0, math.inf, 6.0]
    report = make_report() | {"frames": make_frames(values, miou=None, note="text"), "worst": []}
    figure = plot_of(report, tmp_path)
    _, scale = scales(figure)
    (line,) = curves(figure, 0)
    np.testing.assert_allclose(scale(line[:, 1]), [1, 4, 6], atol=0.05)
    time = part(parse(render_page(report, tmp_path)), "time")
    assert len(list(time.iter("figure"))) == 1


def test_a_metric_that_is_nowhere_defined_says_so(tmp_path):
    report = make_report() | {"frames": make_frames([1.0, 2.0], miou=math.nan), "worst": []}
    assert text_of(plot_of(report, tmp_path, metric="mIoU")).endswith("No pair has a value.")


@given(st.lists(finite, min_size=1, max_size=8), st.booleans())
def test_any_values_and_stamps_are_drawn_inside_the_picture(tmp_path_factory, values, at_once):
    stamps = [START] * len(values) if at_once else None
    report = {"meta": {}, "frames": make_frames(values, stamps)}
    figure = plot_of(report, tmp_path_factory.getbasetemp())
    _, _, width, height = map(float, figure.find("svg").get("viewBox").split())
    drawn = [line for class_ in ("curve", "band") for line in curves(figure, 0, class_)]
    dots = [[float(dot.get("cx")), float(dot.get("cy"))] for dot in figure.iter("circle")]
    places = np.concatenate([*drawn, np.reshape(dots, (-1, 2))])
    assert len(places) and np.all(places >= 0) and np.all(places <= [width, height])


def test_tags_are_shown_as_shades_over_their_time(tmp_path):
    figure = plot_of(make_report(), tmp_path)
    seconds, _ = scales(figure)
    pieces = [piece for piece in figure.iter("rect") if "shade" in piece.get("class", "")]
    starts = [seconds(float(piece.get("x"))) for piece in pieces]
    np.testing.assert_allclose(starts, [0, 6 * STEP * 1e-9], atol=3e-3)
    assert [piece.get("class") for piece in pieces] == ["shade day", "shade night"]
    legend = [text_of(item) for item in part(parse(render_page(make_report(), tmp_path)), "time").iter("li")]
    assert legend == ["small", "large", "day", "night"]


def test_night_is_darker_than_day_and_other_tags_keep_apart(tmp_path):
    assert tag_shades(["night", "rain", "day", "fog"]) == ["shade night", "shade shade0", "shade day", "shade shade1"]
    page = render_page(make_report(), tmp_path)
    fills = dict(re.findall(r"\.(night|day) \{ fill: #([0-9a-f]{6}); \}", page))
    assert int(fills["night"][:2], 16) < 64 < 192 < int(fills["day"][:2], 16), "in light and dark pages alike"


@given(finite, finite, st.integers(2, 8))
def test_ticks_are_few_round_and_inside(one, other, most):
    low, high = sorted((one, other))
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        return
    found = ticks(low, high, most)
    assert len(found) <= most
    assert all(low <= value <= high for value in found)
    steps = np.diff(found)
    if len(steps):
        mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
        assert min(abs(mantissa - round_) for round_ in (1, 2, 5, 10)) < 1e-6
    assert len(found) * 5 >= most - 1  # and not too few


def test_bars_in_tables_are_as_long_as_their_numbers():
    shares = ElementTree.fromstring(share_bar([("a", 30), ("b", 10)], 50))
    assert [(r.get("class"), float(r.get("x")), float(r.get("width"))) for r in shares] == [
        ("rest", 0, 200),
        ("a", 0, 120),
        ("b", 120, 40),
    ]
    assert [float(rect.get("width")) for rect in ElementTree.fromstring(share_bar([("a", 0)], 0))] == [200, 0]
    spread = ElementTree.fromstring(spread_bar(10.0, 20.0, 30.0, 60.0))
    assert float(spread.find("rect").get("width")) == 33
    assert spread.find("path").get("d") == "M33.0,5H99.0M66.0,1V9"
    interval = ElementTree.fromstring(interval_bar(1.0, -2.0, 4.0))
    assert interval.findall("path")[1].get("d") == "M54.0,3V11M192.0,3V11M54.0,7H192.0"
    assert (float(interval.find("circle").get("cx")) - 100) * 4 == 192 - 100
