"""What the node says about itself: rates, percentiles, skew and diagnostics."""

import threading

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from images import random_thermal, random_visible
from robot import wait_until

from vifa.msg import FusionStatus, StageTime, StreamStatus
from vifa_ros.health import (
    SILENT_AFTER,
    WINDOW,
    Samples,
    StreamWatch,
    describe_backend,
    drop_counts,
    to_diagnostics,
)
from vifa_runtime.backends import FallenBack, Options, prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle


def test_percentiles_are_those_of_the_added_values():
    samples, values = Samples(), np.arange(100.0)
    for value in np.random.default_rng(0).permutation(values):
        samples.add({"backbone": value})
    summary = samples.summary("backbone")
    assert (summary.stage, summary.count) == ("backbone", 100)
    np.testing.assert_allclose(
        [summary.p50_ms, summary.p95_ms, summary.p99_ms], np.percentile(values, [50, 95, 99]), rtol=1e-6
    )
    assert samples.largest("backbone") == 99


def test_only_the_last_values_count():
    samples = Samples()
    for value in [1e6, *[1.0] * WINDOW]:
        samples.add({"backbone": value})
    assert samples.summary("backbone").count == WINDOW
    assert samples.largest("backbone") == 1.0


def test_a_name_without_values_is_all_zeros():
    summary = Samples().summary("backbone")
    assert (summary.count, summary.p50_ms, Samples().largest("backbone")) == (0, 0.0, 0.0)


def test_names_keep_the_order_of_their_appearance():
    samples = Samples()
    samples.add({"b": 1.0, "a": 1.0})
    samples.add({"c": 1.0, "a": 1.0})
    assert samples.names() == ["b", "a", "c"]


def test_samples_may_be_added_and_summarised_at_the_same_time():
    samples = Samples()
    thread = threading.Thread(target=lambda: [samples.add({"a": 1.0, str(i % 50): 1.0}) for i in range(5000)])
    thread.start()
    while thread.is_alive():
        assert all(samples.summary(name).count for name in samples.names())
    thread.join()


def make_watch(*arrivals: float) -> StreamWatch:
    watch = StreamWatch("visible/image_raw")
    watch.arrivals.extend(arrivals)
    return watch


def test_the_rate_is_that_of_the_last_arrivals():
    assert make_watch(10.0, 10.1, 10.2, 10.3).rate(10.4) == pytest.approx(10)


@pytest.mark.parametrize(("arrivals", "now"), [((), 10.0), ((10.0,), 10.0), ((10.0, 10.1), 10.2 + SILENT_AFTER)])
def test_a_silent_stream_has_no_rate(arrivals, now):
    assert make_watch(*arrivals).rate(now) == 0.0


def test_silence_counts_from_the_last_frame_or_else_from_the_start():
    assert make_watch(10.0, 11.0).silence(15.0, since=3.0) == 4.0
    assert make_watch().silence(15.0, since=3.0) == 12.0


def test_drops_are_sorted_by_reason():
    counts = [(entry.reason, entry.count) for entry in drop_counts({"superseded": 2, "failed": 1})]
    assert counts == [("failed", 1), ("superseded", 2)]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (FusionStatus.OK, DiagnosticStatus.OK),
        (FusionStatus.WARN, DiagnosticStatus.WARN),
        (FusionStatus.ERROR, DiagnosticStatus.ERROR),
    ],
)
def test_diagnostics_say_the_same_as_the_status(level, expected):
    status = FusionStatus(level=level, message="why", bundle="tiny", processed=7, dropped=drop_counts({"failed": 3}))
    entry = to_diagnostics(status, "/fusion_node").status[0]
    assert (entry.level, entry.message, entry.name, entry.hardware_id) == (
        expected,
        "why",
        "/fusion_node: fusion",
        "tiny",
    )
    values = {value.key: value.value for value in entry.values}
    assert values["pairs processed"] == "7"
    assert values["pairs dropped: failed"] == "3"


def test_diagnostics_have_an_entry_for_each_camera_and_for_the_engine():
    silent = StreamStatus(topic="/thermal/image_raw", problem="frozen", dropped=drop_counts({"no_partner": 2}))
    status = FusionStatus(
        level=FusionStatus.ERROR,
        bundle="tiny",
        backend="onnxruntime 1.30",
        fallback="tensorrt: no GPU",
        visible=StreamStatus(topic="/visible/image_raw", rate_hz=30.0, received=9, paired=8, waiting=1),
        thermal=silent,
        skew_p50_ms=1.0,
        skew_p95_ms=2.5,
        latency=StageTime(stage="latency", count=9, p50_ms=4.0, p95_ms=5.0, p99_ms=6.0),
        stages=[StageTime(stage="backbone", count=9, p50_ms=1.0, p95_ms=2.0, p99_ms=3.25)],
    )
    entries = {entry.name.removeprefix("/eyes: "): entry for entry in to_diagnostics(status, "/eyes").status}
    values = {name: {pair.key: pair.value for pair in entry.values} for name, entry in entries.items()}
    assert list(entries) == ["fusion", "visible", "thermal", "engine"]
    assert (entries["visible"].level, entries["visible"].message) == (DiagnosticStatus.OK, "30.0 Hz")
    assert (entries["thermal"].level, entries["thermal"].message) == (DiagnosticStatus.ERROR, "frozen")
    assert values["visible"]["topic"] == "/visible/image_raw" and values["visible"]["paired"] == "8"
    assert values["thermal"]["dropped: no_partner"] == "2"
    assert (entries["engine"].level, entries["engine"].message) == (DiagnosticStatus.WARN, "tensorrt: no GPU")
    assert values["engine"]["backbone p99 (ms)"] == "3.2"
    assert values["fusion"]["skew p95 (ms)"] == "2.5" and values["fusion"]["latency p99 (ms)"] == "6.0"


def test_a_running_node_tells_its_bundle_engine_rates_skew_and_stages(robot):
    robot.listen("bright")
    robot.connect_cameras()
    for i in range(3):
        robot.deliver("visible", random_visible(), 1.0 + i)
        robot.deliver("thermal", random_thermal(), 1.0 + i + 0.01 * i)
        robot.wait_for_image("bright", 1.0 + i)
    status = robot.wait_for_status(lambda status: status.processed == 3, "three pairs")
    assert status.bundle == "tiny" and status.backend.startswith("onnxruntime ") and "1 threads" in status.backend
    assert status.visible.rate_hz > 0 and status.thermal.rate_hz > 0
    assert (status.visible.last_stamp.sec, status.thermal.last_stamp.nanosec) == (3, 20_000_000)
    assert status.skew_p50_ms == pytest.approx(10) and status.skew_max_ms == pytest.approx(20)
    assert [stage.stage for stage in status.stages] == [
        *("convert", "normalise", "align", "restore", "backbone", "head.bright", "pipeline", "publish")
    ]
    assert {stage.count for stage in status.stages} == {status.latency.count} == {3}


def test_a_running_node_publishes_diagnostics(robot):
    heard: list[DiagnosticArray] = []
    robot.friend.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    name = f"{robot.node.get_fully_qualified_name()}: fusion"
    entry = wait_until(
        lambda: next((entry for array in heard for entry in array.status if entry.name == name), None), "diagnostics"
    )
    assert entry.hardware_id == "tiny"


def test_an_engine_that_is_not_the_wanted_one_says_why():
    engine = prepare("onnxruntime", load_bundle(find_bundle("nano-fusion")), Options(threads=1))
    plain = describe_backend(engine)
    assert plain.startswith("onnxruntime ") and "fallback" not in plain
    assert describe_backend(FallenBack(engine, "tensorrt: no GPU")) == f"{plain}; fallback, because of tensorrt: no GPU"
