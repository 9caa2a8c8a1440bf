"""At a steady size the pipeline works in memory that it has: nothing the size of a frame is allocated again."""

import tracemalloc

import numpy as np
import pytest
from tiny_bundle import write_with_tasks

from vifa_runtime.alignment import Alignment
from vifa_runtime.pixel_maps import HomographyMap

TASKS = ["bright", "blend", "glare"]  # what a detector finds is of the size of what is there, and the caller's own
SIZE = (240, 320)
PIXELS = SIZE[0] * SIZE[1]  # bytes of the smallest buffer that holds something for every pixel

CASES = {
    "own size": ({}, SIZE),
    "padded": ({"size_multiple": 128}, SIZE),
    "letterbox, smaller": ({"working_size": [128, 192]}, SIZE),
    "letterbox, larger": ({"working_size": [320, 320]}, SIZE),
    "stretch": ({"working_size": [192, 192], "aspect": "stretch"}, SIZE),
    "thermal of another size": ({}, (120, 160)),
    "aligned": ({}, (120, 160)),
    "aligned, smaller": ({"working_size": [128, 192]}, (120, 160)),
}
INSIDE = HomographyMap((1.5, 0.0, 40.0, 0.0, 1.5, 30.0, 0.0, 0.0, 1.0), (120, 160), SIZE)


@pytest.fixture(params=CASES)
def stream(request, tmp_path, make_pipeline, make_pair):
    """A function that runs frame after frame through one pipeline."""
    changes, thermal_size = CASES[request.param]
    alignment = Alignment("homography", INSIDE) if request.param.startswith("aligned") else None
    pipeline = make_pipeline(write_with_tasks(tmp_path / "a", **changes), alignment=alignment)

    def run(frames, dtype=np.uint8):
        thermal = [make_pair(*thermal_size, seed)[1].astype(dtype) for seed in range(frames)]
        visible = [make_pair(*SIZE, seed)[0] for seed in range(frames)]
        for frame in range(frames):
            yield lambda frame=frame: pipeline.process(visible[frame], thermal[frame], stamp=frame / 15, tasks=TASKS)

    return run


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_no_frame_sized_buffer_is_allocated(stream, dtype):
    frames = list(stream(6, dtype))
    for process in frames[:3]:
        process()
    tracemalloc.start()
    try:
        for process in frames[3:]:
            process()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PIXELS


def test_results_lie_at_the_same_address_in_every_frame(stream):
    addresses = set()
    for process in list(stream(4)):
        results = process()
        images = [*results.fused.values(), *results.masks.values(), *results.confidences.values()]
        assert len(images) == 5
        addresses.add(tuple(image.ctypes.data for image in images))
    assert len(addresses) == 1
