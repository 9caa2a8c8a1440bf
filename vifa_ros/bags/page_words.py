"""Words of the report: what metrics are called, what reasons mean, and the signs beside names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vifa_ros.bags.page_html import Html, noted, tag
from vifa_ros.bags.page_style import SHADE_COUNT

# metric -> its name, and what it is
METRICS = {
    "en": ("EN", "entropy, bits"),
    "sf": ("SF", "spatial frequency"),
    "vif": ("VIF", "visual information of both sources"),
    "ssim": ("SSIM", "structural similarity to both sources"),
    "map": ("mAP", "mean average precision"),
    "map50": ("mAP50", "mean average precision at IoU 0.5"),
    "map50_all": ("mAP50", "mean average precision at IoU 0.5, all classes"),
    "map50_95_all": ("mAP50-95", "the same over IoU 0.5 to 0.95, all classes"),
    "ssim_mean": ("SSIM, mean", "standard SSIM, mean over both sources"),
    "ssim_visible": ("SSIM, visible", "standard SSIM to the visible image"),
    "target_contrast": ("Target contrast", "how much brighter the warmest pixels are, gray levels"),
    "miou": ("mIoU", "mean intersection over union"),
}
# why frames and pairs are dropped, in the node's words
REASONS = {
    "no_partner": "no image of the other camera was near enough in time",
    "timed_out": "waited too long for an image of the other camera",
    "buffer_full": "too many waited for the other camera; the oldest had to go",
    "out_of_order": "older than an image that came before",
    "repeated_stamp": "the stamp of the image before, once more",
    "no_stamp": "the stamp is 0",
    "clock_jump": "stamps jumped back, so pairing began anew",
    "bad_image": "could not be decoded, or of a kind that can't be fused",
    "no_calibration": "nothing said how the thermal image lies in the visible one",
}
_OF_CLASS = {"ap50_": ("AP50", "average precision at IoU 0.5"), "iou_": ("IoU", "intersection over union")}

_TIMES = ("night", "day")


def metric_words(metric: str) -> tuple[str, str]:
    """The name of a metric as papers write it, and what it is; of one that is not known here, itself and nothing."""
    for start, (name, meaning) in _OF_CLASS.items():
        if metric.startswith(start):
            return f"{name} {metric.removeprefix(start)}", meaning
    return METRICS.get(metric, (metric, ""))


def metric_heading(metric: str, of: str = "") -> Html:
    """What heads the line of a metric: its name, and below it what it is, or what it is `of`."""
    name, meaning = metric_words(metric)
    return noted(name, of or meaning)


def of_task(row: Mapping[str, Any]) -> str:
    """What a row is of, in words: its task and, where it has them, tag and bundle."""
    tag_, bundle = row.get("tag"), row.get("bundle")
    return f"of {row['task']}{f', {tag_}' if tag_ else ''}{f', by {bundle}' if bundle else ''}"


def bundle_key(index: int) -> Html:
    """The sign of a bundle: its line in the plots. `index` is its place in the report, from 0."""
    line = tag("path", d="M0,5H22", class_="curve")
    return tag("svg", tag("g", line, class_=f"bundle{index}"), viewBox="0 0 22 10", class_="key", aria_hidden="true")


def tag_shades(tags: Sequence[str]) -> list[str]:
    """The shade of each tag in the strip below the plots: night is dark and day light, others take what comes next."""
    others = [name for name in tags if name.lower() not in _TIMES]
    return [
        f"shade {name.lower()}" if name not in others else f"shade shade{others.index(name) % SHADE_COUNT}"
        for name in tags
    ]


def swatch(class_: str) -> Html:
    """A piece of what is drawn with this class."""
    piece = tag("rect", x=0, y=2, width=22, height=6, class_=class_)
    return tag("svg", piece, viewBox="0 0 22 10", class_="key", aria_hidden="true")
