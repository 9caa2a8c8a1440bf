"""A report of `vifa evaluate` as its page gets it, put together by hand: no two of its numbers are alike."""

import random

BUNDLES, TASKS, TAGS, METRICS = ("small", "large"), ("roads", "fields"), ("all", "day", "night"), ("en", "map50_all")
START = 1_700_000_000_000_000_000  # nanoseconds
STEP = 33_333_333
PAIRS = 12


def make_report() -> dict:
    """Two bundles, two tasks, two tags, and every part that a report can have."""
    draw = random.Random(0)

    def value() -> float:
        return draw.uniform(0.001, 99)

    rows = [
        {"bundle": bundle, "tag": tag, "task": task, "metric": metric, "value": value(), "pairs": draw.randint(1, 9999)}
        for bundle in BUNDLES
        for task in TASKS
        for tag in TAGS
        for metric in METRICS
    ]
    frames = [
        {"index": i, "stamp": START + i * STEP, "tag": TAGS[1 + i // 6], "bundle": bundle, "task": task, "en": value()}
        for bundle in BUNDLES
        for task in TASKS
        for i in range(PAIRS)
    ]
    of = ("bundle", "task", "metric", "tag")
    return {
        "meta": {
            "command": "vifa evaluate street",
            "machine": "a desk computer",
            "versions": {"numpy": "2.4.6"},
            "commit": "0123456789ab",
            "seed": 7,
            "date": "2026-11-23",
            "bag": {"path": "bags/street", "sha256": "ab" * 32, "duration_s": 12.25, "messages": 4711},
            "bundles": {name: {"sha256": "cd" * 32, "network": f"network of {name}"} for name in BUNDLES},
            "settings": {"pairing": {"slop": 0.0213}, "topics": ["/a", "/b"]},
            "notes": ["the bag is cut off", "the last bad image was torn"],
        },
        "rows": rows,
        "undefined": [
            {"bundle": BUNDLES[0], "task": TASKS[0], "metric": "ap50_owl", "reason": "there is no owl"},
            {"bundle": None, "task": TASKS[1], "metric": "map50_all", "reason": "not compared"},
        ],
        "streams": [
            {"stream": stream, "topic": f"/{stream}", "received": received, "paired": 1203, "dropped": dropped}
            | {"rate_hz": value()}
            for stream, received, dropped in (("visible", 1500, 290), ("thermal", 1402, 197))
        ],
        "drops": [
            {"what": "visible", "reason": "no_partner", "count": 290},
            {"what": "thermal", "reason": "of_tomorrow", "count": 197},
        ],
        "latency": [
            {"bundle": bundle, "stage": stage, "p50_ms": value(), "p95_ms": value(), "p99_ms": value()}
            for bundle in BUNDLES
            for stage in ("decode", "total")
        ],
        "frames": frames,
        "worst": [
            {"bundle": BUNDLES[0], "task": TASKS[0], "metric": "en", "value": frames[i]["en"]}
            | {"stamp": frames[i]["stamp"], "file": f"{i}.png"}
            for i in range(3)
        ],
        "thresholds": [
            {**{key: row[key] for key in of}, "side": side, "limit": value(), "value": value(), "passed": passed}
            for row, side, passed in zip(rows, ("below", "above"), (True, False), strict=False)
        ],
        "comparison": [
            {"task": task, "metric": "en", "tag": "day", "first": value(), "second": value(), "difference": value()}
            | {"low": -value(), "high": value(), "pairs": draw.randint(1, 9999)}
            for task in TASKS
        ],
    }


def map_text(content, change):
    """`content` with `change` applied to every text in it that may be any text; keys stay."""
    if isinstance(content, dict):
        return {key: value if key in ("file", "side") else map_text(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [map_text(value, change) for value in content]
    return change(content) if isinstance(content, str) else content
