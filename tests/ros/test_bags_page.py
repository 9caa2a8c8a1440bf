"""report.html of `vifa evaluate`: all that the report says is there, and nothing that a name smuggled in."""

import base64
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reports import BUNDLES, STEP, make_report, map_text

from vifa_ros.bags.page import render_page
from vifa_ros.bags.page_frames import MOST_PICTURES, MOST_PIXELS
from vifa_ros.bags.page_style import DARK, LIGHT

PARTS = {"undefined", "thresholds", "rows", "comparison", "streams", "drops", "latency", "frames", "worst"}
COLOURS = ((200, 60, 20), (130, 130, 130), (20, 90, 220))  # of the pictures; blue, green, red
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><h1>owned</h1>",
    "'; background: url(http://example.org/a.png)",
    "javascript:alert(1)",
    "&lt;b&gt; &#60;b&#62; ]]> <!-- --",
    "\x00\x1b[2J\ud800\ufffe\x85\u202eabc",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report's folder with three pictures: small, large, and very wide."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "worst").mkdir()
    for i, shape in enumerate([(120, 160, 3), (1440, 2560, 3), (60, 8000, 3)]):
        cv2.imwrite(str(folder / "worst" / f"{i}.png"), np.full(shape, COLOURS[i], np.uint8))
    return folder


def parse(page: str) -> ElementTree.Element:
    """The page's root, from a parser that takes no element that is not closed and no bare `&` or `<`."""
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    page.encode()
    return ElementTree.fromstring(rest)


def text_of(element: ElementTree.Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def part(root: ElementTree.Element, id_: str) -> ElementTree.Element | None:
    return root.find(f".//section[@id='{id_}']")


def numbers_of(root: ElementTree.Element) -> set[float]:
    return {float(data.get("value", "")) for data in root.iter("data")}


def test_browsers_and_strict_parsers_read_the_same(folder):
    page, seen = render_page(make_report(), folder), []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append((tag, dict(attributes)))

        def handle_endtag(self, tag):
            seen.append(tag)

    def walk(element):
        yield element.tag, {name.lower(): value for name, value in element.attrib.items()}
        for child in element:
            yield from walk(child)
        yield element.tag

    Reader().feed(page)
    assert seen == list(walk(parse(page)))


def test_every_number_of_the_report_is_there_in_full(folder):
    report = make_report()
    root = parse(render_page(report, folder))
    shown = numbers_of(root)
    wanted = {
        float(value)
        for name in PARTS - {"frames"}
        for row in report[name]
        for key, value in row.items()
        if isinstance(value, (int, float)) and key not in ("stamp", "passed")
    }
    assert len(wanted) > 60
    assert wanted <= shown
    assert {str(row["stamp"]) in text_of(part(root, "worst")) for row in report["worst"]} == {True}


def test_every_number_stands_where_it_belongs(folder):
    report = make_report()
    root = parse(render_page(report, folder))
    for row in report["rows"]:
        caption = f"Task {row['task']}, by {row['bundle']}"
        table = next(t for t in part(root, "metrics").iter("table") if text_of(t.find("caption")) == caption)
        tags = [text_of(th).split()[0] for th in table.findall("thead/tr/th")]
        line = next(tr for tr in table.findall("tbody/tr") if numbers_of(tr) & {row["value"]})
        assert text_of(line.find("th")).startswith({"en": "EN ", "map50_all": "mAP50 "}[row["metric"]])
        assert float(line[tags.index(row["tag"])].find("data").get("value")) == row["value"]
    stream = part(root, "frames").find(".//tbody/tr")
    assert [text_of(td) for td in stream.findall("td")][:4] == ["1,500", "1,203", "290", "7"]


def test_a_number_is_written_so_that_people_can_read_it(folder):
    report = {"meta": {"settings": {}}, "rows": []}
    for value, shown in [
        (0.123456, "0.1235"),
        (-1.5, "−1.5000"),
        (0, "0"),
        (0.0, "0.0000"),
        (1234567, "1,234,567"),
        (0.00056789, "0.0006"),
        (0.00001234, "1.234e-05"),
        (math.inf, "∞"),
        (math.nan, "–no value"),
        (None, "–no value"),
    ]:
        row = {"bundle": "b", "tag": "all", "task": "t", "metric": "m", "value": value, "pairs": 1}
        root = parse(render_page(report | {"rows": [row]}, folder))
        assert text_of(part(root, "metrics").find(".//td")) == shown


def test_verdict_says_what_failed(folder):
    report = make_report()
    held, missed = report["thresholds"]

    def verdict(thresholds):
        root = parse(render_page(report | {"thresholds": thresholds}, folder))
        return list(root.find("body/header"))[1]

    assert text_of(verdict([])).startswith("No thresholds were set")
    assert text_of(verdict([held])) == "✓ Passed: the one threshold is held."
    assert text_of(verdict([held, held])) == "✓ Passed: all 2 thresholds are held."
    failed = verdict([held, missed])
    assert text_of(failed).startswith("✗ Failed: 1 of 2 thresholds not held.")
    assert numbers_of(failed) == {missed["limit"], missed["value"]}
    wanted = [text_of(td) for td in part(parse(render_page(report, folder)), "thresholds").findall(".//td[1]")]
    assert wanted == [f"at least {held['limit']:g}", f"at most {missed['limit']:g}"]


def test_what_has_no_value_is_told_with_its_reason(folder):
    root = parse(render_page(make_report(), folder))
    lines = part(root, "metrics").findall("table") or list(part(root, "metrics").iter("table"))[-1].findall("tbody/tr")
    assert [text_of(line) for line in lines] == [
        "AP50 owl of roads, by smallthere is no owl",
        "mAP50 of fieldsnot compared",
    ]


def test_all_that_is_known_of_the_run_is_there(folder):
    root = parse(render_page(make_report(), folder))
    facts = {text_of(fact.find("dt")): text_of(fact.find("dd")) for fact in part(root, "run").findall(".//dl/div")}
    assert facts == {
        "command": "vifa evaluate street",
        "machine": "a desk computer",
        "commit": "0123456789ab",
        "seed": "7",
        "date": "2026-11-23",
        "numpy": "2.4.6",
        "path": "bags/street",
        "sha256": "ab" * 32,
        "duration_s": "12.25",
        "messages": "4711",
        **{f"{name} › sha256": "cd" * 32 for name in BUNDLES},
        **{f"{name} › network": f"network of {name}" for name in BUNDLES},
        "pairing › slop": "0.0213",
        "topics": "/a, /b",
    }


def test_notes_are_seen_first(folder):
    notes = parse(render_page(make_report(), folder)).findall("body/header/ul/li")
    assert [text_of(note) for note in notes] == ["the bag is cut off", "the last bad image was torn"]


def test_comparison_says_whether_the_interval_leaves_out_zero(folder):
    report = make_report()
    row = report["comparison"][0]
    ends = [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.2), (0.0, 0.2), (math.nan, math.nan), (None, None)]
    report["comparison"] = [{**row, "low": low, "high": high} for low, high in ends]
    lines = part(parse(render_page(report, folder)), "comparison").findall(".//tbody/tr")
    said = [text_of(line.findall("td")[-1]) for line in lines]
    assert said == ["higher", "lower", *["not surely different"] * 2, *["not known"] * 2]


def hostile_report(change) -> dict:
    report = map_text(make_report(), change)
    bundles = {change(name): value for name, value in zip(BUNDLES, report["meta"]["bundles"].values(), strict=True)}
    report["meta"] |= {"bundles": bundles, "settings": {change("a"): {change("b"): change("c")}}}
    return report


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text, folder):
    check_text_stays_text(text, folder)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=30) | st.text("<>&\"'/=- ax\n\x00\ud800", min_size=1, max_size=12))
def test_any_name_stays_text(folder, text):
    check_text_stays_text(text, folder)


def check_text_stays_text(text, folder):
    """The page of a report that has `text` at the end of every name is made of the same elements and attributes."""
    plain, changed = (
        parse(render_page(hostile_report(lambda name, end=end: name + end), folder)) for end in ("!", text)
    )

    def skeleton(root):
        return [(element.tag, sorted(element.attrib)) for element in root.iter() if element.tag not in ("wbr", "small")]

    assert skeleton(changed) == skeleton(plain)
    kept = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", "\ufffd", "street" + text)
    assert (
        f"Evaluation of {kept.rsplit('/', 1)[-1]}" in "".join(changed.find("body/header/h1").itertext()) or "/" in text
    )
    assert " ".join(kept.split()) in text_of(changed.find("body/header/dl"))
    check_nothing_comes_from_elsewhere(changed)


def check_nothing_comes_from_elsewhere(root):
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        assert element.tag not in ("script", "link", "iframe", "object", "base", "use", "image")
        assert not [name for name in element.attrib if name.startswith("on") or name == "style"]
        if (target := element.get("href")) is not None:
            assert target.removeprefix("#") in ids
        if (source := element.get("src")) is not None:
            assert source.startswith("data:image/jpeg;base64,")
    style = root.findtext("head/style")
    assert "url(" not in style and "@import" not in style


def test_nothing_comes_from_elsewhere(folder):
    page = render_page(make_report(), folder)
    check_nothing_comes_from_elsewhere(parse(page))
    assert "http:" not in page and "https:" not in page


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(PARTS))), st.booleans())
def test_whatever_is_missing_has_no_part_in_the_page(folder, missing, is_empty):
    report = make_report()
    for name in missing:
        if is_empty:
            report[name] = []
        else:
            del report[name]
    root = parse(render_page(report, folder))
    shown = {element.get("id") for element in root.iter("section")}
    names = {"rows": "metrics", "streams": "frames", "frames": "time"}
    gone = {names.get(name, name) for name in missing} - {"metrics", "drops", "undefined"}
    all_of_them = {names.get(name, name) for name in PARTS} - {"drops", "undefined"} | {"run"}
    assert shown == all_of_them - gone
    assert ("Nothing was measured." in text_of(part(root, "metrics"))) == ("rows" in missing)
    check_nothing_comes_from_elsewhere(root)


def test_a_report_of_nothing_is_a_page(folder):
    root = parse(render_page({"meta": {}}, folder))
    assert text_of(root.find("head/title")) == "Evaluation of a bag"
    assert [element.get("id") for element in root.iter("section")] == ["metrics", "run"]


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_numbers_that_are_not_there_are_dashes(nothing, folder):
    def without(content):
        if isinstance(content, dict):
            return {key: value if key == "limit" else without(value) for key, value in content.items()}
        if isinstance(content, list):
            return [without(value) for value in content]
        return nothing if isinstance(content, float) else content

    root = parse(render_page(without(make_report()), folder))
    assert "nan" not in text_of(root.find("body/main")).lower().split()
    assert "None" not in text_of(root.find("body/main"))
    assert all(text_of(td).startswith("–") for td in part(root, "latency").findall(".//tbody/tr/td[@class='number']"))


def test_pictures_are_in_the_page_and_no_larger_than_they_have_to_be(folder):
    root = parse(render_page(make_report(), folder))
    images = list(part(root, "worst").iter("img"))
    assert len(images) == 3
    for i, image in enumerate(images):
        data = base64.b64decode(image.get("src").partition(",")[2])
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (int(image.get("height")), int(image.get("width")))
        assert pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS * 1.01
        np.testing.assert_allclose(pixels.mean((0, 1)), COLOURS[i], atol=3)
        assert f"{i * STEP * 1e-9:.2f} s" in image.get("alt") and "roads" in image.get("alt")
    assert (images[0].get("width"), images[0].get("height")) == ("160", "120")
    figures = list(part(root, "worst").iter("figure"))
    assert [figure[0].tag for figure in figures] == ["img", "img", "div"]  # a wide one is moved sideways on a phone
    assert figures[2][0].attrib.items() >= {"class": "scroll", "tabindex": "0", "role": "group"}.items()


@pytest.mark.parametrize(
    "file", ["none.png", "text.png", "empty.png", "../secret.png", "/etc/hostname", "..", "", "a\x00b"]
)
def test_what_is_no_picture_of_the_folder_is_named(file, folder):
    (folder / "worst" / "text.png").write_text("no picture")
    (folder / "worst" / "empty.png").touch()
    cv2.imwrite(str(folder / "secret.png"), np.zeros((50, 50, 3), np.uint8))
    report = make_report()
    report["worst"] = [{**report["worst"][0], "file": file}]
    worst = part(parse(render_page(report, folder)), "worst")
    assert worst.find(".//img") is None
    assert "Not a picture that can be read" in text_of(worst)


def test_more_pictures_than_a_page_can_hold_are_named(folder):
    report = make_report()
    for i in range(MOST_PICTURES + 3):
        cv2.imwrite(str(folder / "worst" / f"many{i}.png"), np.zeros((48, 64, 3), np.uint8))
    row = report["worst"][0]
    report["worst"] = [{**row, "file": f"many{i}.png", "value": i + 0.5} for i in range(MOST_PICTURES + 3)]
    worst = part(parse(render_page(report, folder)), "worst")
    assert len(list(worst.iter("img"))) == MOST_PICTURES
    assert [f"many{i}.png" in text_of(worst) for i in (MOST_PICTURES - 1, MOST_PICTURES, MOST_PICTURES + 2)] == [
        False,
        True,
        True,
    ]
    assert {row["value"] for row in report["worst"]} <= numbers_of(worst)


def test_one_picture_of_several_worst_frames_is_there_once(folder):
    report = make_report()
    report["worst"][1]["file"] = "0.png"
    worst = part(parse(render_page(report, folder)), "worst")
    assert [len(figure.findall(".//li")) for figure in worst.iter("figure")] == [2, 1]


def test_a_screen_reader_is_told_everything(folder):
    root = parse(render_page(make_report(), folder))
    assert root.get("lang") == "en"
    for table in root.iter("table"):
        assert text_of(table.find("caption"))
        for line in table.findall("tbody/tr"):
            assert line[0].tag == "th" and line[0].get("scope") == "row"
        for head in table.findall("thead//th"):
            assert head.get("scope") == "col" and text_of(head)
    for picture in root.iter("svg"):
        assert picture.get("aria-hidden") == "true" or picture.get("aria-label")
    for image in root.iter("img"):
        assert image.get("alt")
    levels = [int(element.tag[1]) for element in root.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    ids = {element.get("id"): element for element in root.iter() if element.get("id")}
    assert all(text_of(ids[s.get("aria-labelledby")]) for s in root.iter("section"))


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out_from_its_paper(colours):
    def luminance(name):
        channels = (int(colours[name][i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for ink in ("ink", "muted", "link", "good", "bad"):
        assert contrast(ink, "paper") >= 4.5
    assert contrast("ink", "raised") >= 4.5
    assert contrast("good", "good-paper") >= 4.5 and contrast("bad", "bad-paper") >= 4.5
    assert contrast("bundle0", "paper") >= 3 and contrast("bundle1", "paper") >= 3


def test_the_same_report_gives_the_same_page(folder):
    assert render_page(make_report(), folder) == render_page(make_report(), folder)
