"""report.html of `vifa evaluate`: one file that shows a report to people, without network or script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from vifa_ros.bags.page_frames import collect_pictures, over_time, worst_frames
from vifa_ros.bags.page_html import (
    Column,
    Html,
    breakable,
    hidden_text,
    is_finite,
    is_number,
    join,
    noted,
    number,
    table,
    tag,
)
from vifa_ros.bags.page_plots import interval_bar, share_bar, spread_bar
from vifa_ros.bags.page_series import Series
from vifa_ros.bags.page_style import STYLE
from vifa_ros.bags.page_words import REASONS, bundle_key, metric_heading, metric_words, of_task, swatch

Row = Mapping[str, Any]


def render_page(report: Mapping[str, Any], folder: Path) -> str:
    """The whole page.

    Args:
        report: what report.json holds; of it, all but `meta` may be empty or missing. `frames` may be any iterable of
            rows; it is read once, and not held.
        folder: the report's, with the pictures of `report["worst"]` in `worst/`. One that can't be read is named.
    """
    meta: Mapping[str, Any] = report["meta"]
    series = Series(report.get("frames") or ())
    bundles = list(dict.fromkeys([*meta.get("bundles", {}), *series.bundles]))
    pictures = collect_pictures(_part(report, "worst"))
    sections = [
        ("thresholds", "Thresholds", _thresholds(_part(report, "thresholds"))),
        ("metrics", "Metrics", _metrics(_part(report, "rows"), _part(report, "undefined"))),
        ("comparison", "Comparison", _comparison(_part(report, "comparison"), bundles)),
        ("frames", "What became of the frames", _frames(_part(report, "streams"), _part(report, "drops"))),
        ("latency", "Latency", _latency(_part(report, "latency"))),
        ("time", "Over time", over_time(series, bundles, pictures)),
        ("worst", "Worst frames", worst_frames(pictures, folder / "worst", series)),
        ("run", "How it was run", _run(meta)),
    ]
    shown = [(id_, title, content) for id_, title, content in sections if content]
    title = f"Evaluation of {_bag_name(meta)}"
    body = [
        tag("header", tag("h1", title), _verdict(_part(report, "thresholds")), _measured(meta)),
        tag(
            "nav",
            tag("ul", *(tag("li", tag("a", title, href=f"#{id_}")) for id_, title, _ in shown)),
            aria_label="Parts",
        ),
        tag("main", *(_section(*section) for section in shown)),
    ]
    return "<!DOCTYPE html>\n" + tag("html", _head(title), tag("body", join(body, "\n")), lang="en") + "\n"


def _head(title: str) -> Html:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # even of a page that somebody changed
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", title),
        tag("style", Html(STYLE)),
    )


def _section(id_: str, title: str, content: Html) -> Html:
    return tag("section", tag("h2", title, id=f"{id_}-title"), content, id=id_, aria_labelledby=f"{id_}-title")


def _part(report: Mapping[str, Any], name: str) -> Sequence[Row]:
    return report.get(name) or ()


def _bag_name(meta: Mapping[str, Any]) -> str:
    path = str(meta.get("bag", {}).get("path", ""))
    return PurePath(path).name or "a bag"


def _verdict(thresholds: Sequence[Row]) -> Html:
    """One sentence that nobody can miss, and the thresholds that were not held."""
    failed = [row for row in thresholds if not row["passed"]]
    if not thresholds:
        return tag("p", "No thresholds were set, so there is nothing to pass or to fail.", class_="verdict")
    if not failed:
        count = "the one threshold is" if len(thresholds) == 1 else f"all {len(thresholds)} thresholds are"
        return tag("p", tag("strong", "✓ Passed:"), f" {count} held.", class_="verdict good")
    items = (
        tag(
            "li",
            f"{metric_words(row['metric'])[0]} {of_task(row)}: ",
            number(row["value"]),
            ", wanted ",
            _limit(row),
        )
        for row in failed
    )
    sentence = tag("p", tag("strong", "✗ Failed:"), f" {len(failed)} of {len(thresholds)} thresholds not held.")
    return tag("div", sentence, tag("ul", *items), class_="verdict bad")


def _measured(meta: Mapping[str, Any]) -> Html:
    """The facts that a reader needs first: which bag, by what, where and when."""
    bag = meta.get("bag", {})
    facts: list[tuple[str, Any]] = [("Bag", bag.get("path"))]
    if is_number(bag.get("duration_s")):
        facts.append(("Duration", join([number(bag["duration_s"], 1), " s"])))
    if is_number(bag.get("messages")):
        facts.append(("Messages", number(bag["messages"])))
    bundles = list(meta.get("bundles", {}))
    names = (tag("span", bundle_key(index), name) for index, name in enumerate(bundles))
    facts.append(("Bundles" if len(bundles) > 1 else "Bundle", join(names, tag("br"))))
    facts += [("Machine", meta.get("machine")), ("Date", meta.get("date"))]
    notes = tag("ul", *(tag("li", note) for note in meta["notes"]), class_="notes") if meta.get("notes") else None
    return join([tag("dl", *_definitions(facts), class_="facts"), notes])


def _definitions(facts: Iterable[tuple[str, Any]]) -> Iterator[Html]:
    for name, content in facts:
        if content not in (None, ""):
            yield tag("div", tag("dt", name), tag("dd", content))


def _thresholds(rows: Sequence[Row]) -> Html | None:
    if not rows:
        return None
    columns = [Column("Metric"), Column("Limit"), Column("Measured", "number"), Column("Result")]
    cells = (
        (
            metric_heading(row["metric"], of_task(row)),
            _limit(row),
            number(row["value"]),
            tag("span", "✓ passed", class_="good") if row["passed"] else tag("span", "✗ failed", class_="bad"),
        )
        for row in rows
    )
    return table("Every threshold, and what was measured", columns, cells)


def _limit(row: Row) -> Html:
    """What was wanted: a value fails on one side of the limit."""
    words = {"below": "at least ", "above": "at most "}[row["side"]]
    return join([words, tag("data", f"{row['limit']:g}", value=row["limit"])])


def _metrics(rows: Sequence[Row], undefined: Sequence[Row]) -> Html:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["bundle"]), []).append(row)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    order = sorted(groups, key=lambda of: tasks.index(of[0]))  # the tables of a task side by side
    parts = [tag("div", *(_metric_table(*of, groups[of]) for of in order), class_="tables")]
    if not rows:
        parts = [tag("p", "Nothing was measured.")]
    if undefined:
        columns = [Column("Metric"), Column("Reason")]
        reasons = ((metric_heading(row["metric"], of_task(row)), row["reason"]) for row in undefined)
        parts.append(table("What has no value, and why", columns, reasons))
    return join(parts)


def _metric_table(task: str, bundle: str, rows: Sequence[Row]) -> Html:
    """A line a metric, a column a tag. Where a number is of fewer pairs than others of its tag, it says so."""
    found = {(row["metric"], row["tag"]): row for row in rows}
    tags = list(dict.fromkeys(row["tag"] for row in rows))
    most = {name: max(row["pairs"] for row in rows if row["tag"] == name) for name in tags}

    def cell(metric: str, name: str) -> Html:
        row = found.get((metric, name))
        if row is None:
            return number(None)
        return noted(number(row["value"]), _pairs(row["pairs"]) if row["pairs"] != most[name] else None)

    columns = [Column("Metric"), *(Column(noted(name, _pairs(most[name])), "number") for name in tags)]
    metrics = dict.fromkeys(row["metric"] for row in rows)
    lines = ((metric_heading(metric), *(cell(metric, name) for name in tags)) for metric in metrics)
    return table(f"Task {task}, by {bundle}", columns, lines)


def _pairs(count: int) -> Html:
    return join([number(count), " pair" if count == 1 else " pairs"])


def _comparison(rows: Sequence[Row], bundles: Sequence[str]) -> Html | None:
    if not rows:
        return None
    first, second = [*bundles, "the first", "the second"][:2]
    note = (
        f"The first is {first}, the second {second}. For the interval, pairs were drawn again and again with "
        "replacement, neighbours in time together, and both bundles' results of a pair together. "
    )
    scale = tag("span", "In the pictures the upright line is no difference; each has its own scale.", class_="wide")
    tasks = dict.fromkeys(row["task"] for row in rows)
    tables = (_comparison_table(task, [row for row in rows if row["task"] == task]) for task in tasks)
    return join([tag("p", note, scale), *tables])


def _comparison_table(task: str, rows: Sequence[Row]) -> Html:
    columns = [
        Column("Metric"),
        Column(join([bundle_key(0), "First"]), "number"),
        Column(join([bundle_key(1), "Second"]), "number"),
        Column("Difference", "number"),
        Column("95 % interval", "number"),
        Column(hidden_text("Interval as a picture"), "picture"),
        Column("So the second is"),
    ]
    cells = (
        (
            noted(metric_words(row["metric"])[0], join([f"{row['tag']}, ", _pairs(row["pairs"])])),
            number(row["first"]),
            number(row["second"]),
            number(row["difference"]),
            join([number(row["low"]), " to ", number(row["high"])]),
            _interval(row),
            _finding(row["low"], row["high"]),
        )
        for row in rows
    )
    return table(f"Task {task}, second minus first", columns, cells)


def _interval(row: Row) -> Html | None:
    values = (row["difference"], row["low"], row["high"])
    return interval_bar(*values) if all(map(is_finite, values)) else None


def _finding(low: Any, high: Any) -> str:
    if not (is_finite(low) and is_finite(high)):
        return "not known"
    return "higher" if low > 0 else "lower" if high < 0 else "not surely different"


def _frames(streams: Sequence[Row], drops: Sequence[Row]) -> Html | None:
    """How many frames came, and where they went; the numbers of a line add up."""
    if not streams:
        return None
    signs = {"Paired": "paired", "Dropped": "dropped", "Waiting": "rest"}
    columns = [Column("Camera"), Column("Received", "number")]
    columns += [Column(join([swatch(class_), name]), "number") for name, class_ in signs.items()]
    columns.append(Column(hidden_text("Shares as a picture"), "picture"))
    lines = []
    for row in streams:
        received, paired, dropped = row["received"], row["paired"], row["dropped"]
        heading = noted(row["stream"], join([breakable(row["topic"]), ", ", number(row["rate_hz"], 2), " Hz"]))
        counts = map(number, (received, paired, dropped, received - paired - dropped))
        lines.append((heading, *counts, share_bar([("paired", paired), ("dropped", dropped)], received)))
    note = "Every image that was received was paired, was dropped, or still waited for its partner at the end."
    parts = [tag("p", note), table("Images of each camera", columns, lines)]
    if drops:
        columns = [Column("Reason"), Column("Of"), Column("Count", "number")]
        reasons = (
            (noted(row["reason"], REASONS.get(row["reason"])), row["what"], number(row["count"])) for row in drops
        )
        parts.append(table("What was dropped, and why", columns, reasons))
    else:
        parts.append(tag("p", "Nothing was dropped."))
    return tag("div", *parts)


def _latency(rows: Sequence[Row]) -> Html | None:
    if not rows:
        return None
    note = "Half of all pairs took no longer than p50, 95 of 100 no longer than p95, and 99 no longer than p99."
    bundles = dict.fromkeys(row["bundle"] for row in rows)
    tables = (_latency_table(bundle, [row for row in rows if row["bundle"] == bundle]) for bundle in bundles)
    return join([tag("p", note), tag("div", *tables, class_="tables")])


def _latency_table(bundle: str, rows: Sequence[Row]) -> Html:
    most = max((row["p99_ms"] for row in rows if is_finite(row["p99_ms"])), default=0.0)
    columns = [Column("Stage, ms"), *(Column(name, "number") for name in ("p50", "p95", "p99"))]
    columns.append(Column(hidden_text("Spread as a picture"), "picture"))
    values = [(row["p50_ms"], row["p95_ms"], row["p99_ms"]) for row in rows]
    lines = (
        (breakable(row["stage"]), *(number(value, 2) for value in own), _spread(own, most))
        for row, own in zip(rows, values, strict=True)
    )
    return table(f"Time a pair takes by {bundle}", columns, lines)


def _spread(values: tuple[Any, Any, Any], most: float) -> Html | None:
    return spread_bar(*values, most) if all(map(is_finite, values)) else None


def _run(meta: Mapping[str, Any]) -> Html:
    """All that is known of the run, as report.json has it."""
    plain = {name: value for name, value in meta.items() if not isinstance(value, Mapping) and name != "notes"}
    groups = [(name, value) for name, value in meta.items() if isinstance(value, Mapping)]
    parts = [tag("dl", *_definitions(_flat(plain)), class_="long")]
    for name, group in groups:
        parts += [tag("h3", name), tag("dl", *_definitions(_flat(group)), class_="long")]
    return join(parts)


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of mappings in mappings, each under its whole name."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name} › ")
        else:
            yield f"{before}{name}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
