"""What the paper claims of sequences, judged by hand-made rows; what it prints, against its own other tables."""

from __future__ import annotations

import pytest

from vifa_training.experiments.published import TABLE_3, TABLE_4, TABLE_7
from vifa_training.experiments.verdicts import judge


def rows_of(task: str, metric: str, **means: float | None) -> list[dict]:
    return [{"task": task, "metric": metric, "method": method, "mean": mean} for method, mean in means.items()]


def test_claims_by_hand() -> None:
    """Seq loses 0.2 of 0.5; VIFA wins 0.18 of that back, replay 0.1."""
    rows = rows_of("old", "map50", ref=0.5, seq=0.3, vifa=0.48, replay=0.4)
    rows += rows_of("old", "map50_all", ref=0.1, seq=0.1, vifa=0.0, replay=0.9)  # not what counts
    rows += rows_of("new", "miou", ref=0.6, seq=0.62, vifa=0.6, replay=0.61)
    measured = {verdict.claim: (verdict.measured, verdict.holds) for verdict in judge(rows, ["old", "new"])}
    expected = {
        "old: seq loses of ref": (0.4, True),
        "old: vifa of ref": (0.96, False),
        "old: vifa wins back of what seq lost": (0.9, True),
        "old: replay wins back of what seq lost": (0.5, True),
        "old: vifa less replay": (0.08, True),
        "new: vifa of ref": (1.0, True),
        "new: vifa less replay": (-0.01, False),
    }
    assert measured.keys() == expected.keys()
    for claim, (value, holds) in expected.items():
        assert measured[claim] == (pytest.approx(value), holds), claim


def test_an_interval_that_spans_what_is_wanted_leaves_a_claim_open() -> None:
    rows = rows_of("new", "miou", ref=0.6, vifa=0.6, replay=0.61, ewc=0.5)
    gains = {"replay": (-0.03, 0.01), "ewc": (0.05, 0.2)}
    for row in rows:
        if row["method"] in gains:
            row["gain_low"], row["gain_high"] = gains[row["method"]]
    found = {verdict.claim: (verdict.holds, verdict.is_open) for verdict in judge(rows, ["new"])}
    assert found == {
        "new: vifa of ref": (True, False),
        "new: vifa less replay": (False, True),
        "new: vifa less ewc": (True, False),
    }


def test_the_ablation_orders_as_table_7() -> None:
    rows = rows_of("old", "map50", ref=0.5, seq=0.3, key_channels=0.35, reference=0.29, vifa=0.48)
    rows += rows_of("new", "miou", ref=0.6, seq=0.62, key_channels=0.5, reference=0.6, vifa=0.6)
    failed = [verdict.claim for verdict in judge(rows, ["old", "new"]) if not verdict.holds]
    assert failed == ["old: vifa of ref", "old: reference less seq"]


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    assert judge(rows_of("old", "map50", ref=0.0, seq=0.0, vifa=0.0), ["old"]) == []
    assert judge(rows_of("old", "map50", ref=None, seq=0.1), ["old"]) == []
    [verdict] = judge(rows_of("old", "map50", ref=0.5, seq=0.5), ["old"])
    assert verdict.measured == 0 and not verdict.holds


def test_the_labels_of_table_3_are_those_that_its_other_tables_repeat() -> None:
    printed = {(row.network, row.method): (row.map50, row.miou) for row in TABLE_3}
    for network, methods in TABLE_7.items():
        assert printed[network, "seq"] == methods["seq"] and printed[network, "vifa"] == methods["vifa"]
    for network, methods in TABLE_4.items():
        for method in ("base", "ref"):
            assert printed[network, method] == methods[method][:2]
    for network in ("PIAFusion", "TarDAL", "DIDFuse", "SwinFusion"):
        known = {method: printed[network, method][0] for method in ("base", "seq", "vifa")}
        assert known["seq"] < known["base"] and (known["vifa"] is None or known["vifa"] > known["base"])
