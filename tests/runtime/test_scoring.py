"""Measuring pairs: every metric against its own function, what one pair adds, and the labels that a folder has."""

from dataclasses import replace

import numpy as np
import pytest
from task_graphs import CELLS, GLARE
from tiny_bundle import write_with_tasks

from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.labels import LabelError
from vifa_runtime.metrics import (
    Detections,
    Labels,
    entropy,
    fusion_ssim,
    fusion_ssim_mean,
    fusion_vif,
    spatial_frequency,
    ssim,
)
from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.pairs import write_image
from vifa_runtime.pipeline import Results
from vifa_runtime.scoring import (
    EXTENDED_METRICS,
    FUSION_METRICS,
    Sources,
    detection_values,
    measure_pair,
    segmentation_values,
)
from vifa_runtime.street import Street


@pytest.fixture(scope="module")
def images():
    """Visible and thermal image and two mixes of both, in whole gray levels."""
    visible, thermal = Street(seed=5, size=(96, 128))[3]
    visible = visible[..., 1].astype(float)
    thermal = np.rint(np.clip((thermal.astype(float) - 28_000) / 12, 0, 255))
    return visible, thermal, np.rint((visible + thermal) / 2), np.maximum(visible, thermal)


def test_every_metric_is_that_of_its_own_function_for_one_fused_image_after_the_other(images):
    visible, thermal, *fused = images
    sources = Sources(visible, thermal)
    warmest = thermal >= np.percentile(thermal, 98)
    for image in (*fused, fused[0]):  # what is kept of the sources is not touched
        assert sources.measure(image, EXTENDED_METRICS) == pytest.approx(
            {
                "en": entropy(image),
                "sf": spatial_frequency(image),
                "vif": fusion_vif(visible, thermal, image),
                "ssim": fusion_ssim(visible, thermal, image),
                "ssim_mean": fusion_ssim_mean(visible, thermal, image),
                "target_contrast": image[warmest].mean() - image.mean(),
                "ssim_visible": ssim(visible, image),
            },
            abs=1e-12,
        )


def test_buffers_that_are_used_again_change_nothing(images):
    """Pairs one after the other, of two sizes, by all metrics or some: each as if it were measured alone."""
    visible, thermal, *fused = images
    buffers = Buffers()
    for number, part in enumerate([slice(None), slice(0, 60), slice(30, 96), slice(0, 60), slice(None)]):
        chosen = EXTENDED_METRICS if number % 2 else ("vif", "ssim")
        sources = Sources(visible[part], thermal[part] + number, buffers)
        alone = Sources(visible[part], thermal[part] + number)
        for image in fused:
            assert sources.measure(image[part], chosen) == alone.measure(image[part], chosen)


@pytest.mark.parametrize("chosen", [("vif",), ("ssim_visible", "en"), (), FUSION_METRICS])
def test_only_wanted_metrics_are_measured(images, chosen):
    values = Sources(*images[:2]).measure(images[2], chosen)
    assert list(values) == [metric for metric in EXTENDED_METRICS if metric in chosen]


def test_images_that_do_not_fit_are_refused(images):
    with pytest.raises(ValueError, match="one shape"):
        Sources(images[0], images[1][:50])
    with pytest.raises(ValueError, match="at least 41x41"):
        Sources(images[0][:40], images[1][:40])
    with pytest.raises(ValueError, match="one shape"):
        Sources(*images[:2]).measure(images[2][:50])


def test_what_a_pair_adds_is_by_task_and_by_its_labels(tmp_path, images):
    bundle = write_with_tasks(tmp_path / "tasks")
    rgb = np.repeat(images[0].astype(np.uint8)[..., None], 3, axis=2)
    found = Detections(np.array([[0, 0, 8, 8]], np.float32), np.array([0.9], np.float32), np.array([1]))
    mask = np.zeros((96, 128), np.uint8)
    results = Results({"bright": rgb, "cells": rgb, "glare": rgb}, {}, {"cells": found}, {"glare": mask})
    true = {"cells": Labels(np.array([[0, 0, 8, 9]], np.float32), np.array([1])), "bright": Labels(*[np.zeros(0)] * 2)}
    scores = measure_pair(bundle, None, results, true, {"glare": mask + 1})
    assert list(scores) == ["bright", "cells", "glare"], "the image of `blend` was not made"
    assert all(score.fusion == {} for score in scores.values())
    assert scores["cells"].matches.hits[:, 0].tolist() == [True] * 8 + [False] * 2, "an IoU of 8/9"
    assert scores["cells"].matches.ground_truths.tolist() == [0, 1, 0]
    assert scores["glare"].confusion.tolist() == [[0, 0], [96 * 128, 0]]
    assert scores["bright"].matches is None and scores["cells"].confusion is None
    scores = measure_pair(bundle, Sources(*images[:2]), results)
    assert scores["cells"].fusion == scores["bright"].fusion and list(scores["cells"].fusion) == list(FUSION_METRICS)
    assert scores["cells"].matches is None and scores["glare"].confusion is None


def test_values_of_images_together_by_hand(tmp_path, images):
    bundle = write_with_tasks(tmp_path / "tasks")
    rgb = np.repeat(images[0].astype(np.uint8)[..., None], 3, axis=2)
    box, away = [0, 0, 8, 8], [20, 20, 30, 30]
    true = {"cells": Labels(np.array([box], np.float32), np.array([0]))}
    adds = []
    for corners, score in ((box, 0.5), (away, 0.9)):
        found = Detections(np.array([corners], np.float32), np.array([score], np.float32), np.array([0]))
        adds.append(measure_pair(bundle, None, Results({"cells": rgb}, {}, {"cells": found}), true)["cells"].matches)
    values = detection_values(["red", "green", "blue"], adds)
    # Ranked: a false one, then a hit; one of two boxes is found: precision 1/2 at the recalls 0 to 1/2.
    for metric in ("map50_all", "map50_95_all", "ap50_red"):
        assert values[metric] == pytest.approx(0.5 * 51 / 101)
    assert np.isnan([values["ap50_green"], values["ap50_blue"]]).all()
    values = segmentation_values(["a", "b", "c"], np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert values["iou_a"] == 3 / 4 and values["iou_b"] == 4 / 5 and np.isnan(values["iou_c"])
    assert values["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)


# Labels of a folder


def as_task(entry):
    classes = tuple(TaskClass(known["name"], (0, 0, 0)) for known in entry["classes"])
    return Task(entry["name"], entry["kind"], classes=classes)


TASKS = [Task("bright", "fusion"), as_task(CELLS), as_task(GLARE)]


def test_a_folders_labels_are_read_by_name(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    (tmp_path / "labels/c.txt").write_text("")
    write_image(tmp_path / "masks/b.png", np.full((20, 40), 255, np.uint8))
    labels = LabelFolder(tmp_path, TASKS)
    assert not labels.missing
    boxes, masks = labels.read("a", (20, 40))
    assert boxes["cells"].boxes.tolist() == [[10, 5, 30, 15]] and boxes["cells"].labels.tolist() == [2] and not masks
    boxes, masks = labels.read("b", (20, 40, 3))
    assert not boxes and list(masks) == ["glare"] and (masks["glare"] == 255).all()
    boxes, _ = labels.read("c", (20, 40))
    assert boxes["cells"].boxes.shape == (0, 4), "an empty file says that nothing is there"


def test_tasks_that_a_folder_has_no_labels_for_are_told_why(tmp_path):
    labels = LabelFolder(tmp_path, TASKS)
    assert labels.missing == {"cells": f"{tmp_path} has no folder labels/", "glare": f"{tmp_path} has no folder masks/"}
    assert labels.read("a", (20, 40)) == ({}, {})


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"classes.txt": "red\ngreen\nblue\n"}, []),
        ({"classes.txt": "0 red\n1 green\n2 blue\n", "mask_classes.txt": "dark\nbright\n"}, []),
        ({"classes.txt": "green\nred\nblue\n"}, ["cells"]),
        ({"mask_classes.txt": "bright\ndark\n"}, ["glare"]),
        ({"classes.txt": "red\n", "mask_classes.txt": "sky\n"}, ["cells", "glare"]),
    ],
)
@pytest.mark.parametrize("above", [False, True])
def test_names_of_classes_must_be_the_tasks(tmp_path, files, missing, above):
    folder = tmp_path / "test"
    for name in ("labels", "masks"):
        (folder / name).mkdir(parents=True)
    for name, text in files.items():
        ((tmp_path if above else folder) / name).write_text(text)
    labels = LabelFolder(folder, TASKS)
    assert list(labels.missing) == missing
    for name in missing:
        assert "but the task finds" in labels.missing[name]


def test_classes_txt_names_masks_where_there_are_no_boxes(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text("dark\nbright\n")
    assert list(LabelFolder(tmp_path, TASKS).missing) == ["cells"]
    (tmp_path / "classes.txt").write_text("bright\ndark\n")
    assert list(LabelFolder(tmp_path, TASKS).missing) == ["cells", "glare"]


def test_a_wrong_label_names_its_file_and_line(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n3 0.5 0.5 0.5 0.5\n")
    with pytest.raises(LabelError, match=r"a\.txt, line 2: has class 3, but there are 3"):
        LabelFolder(tmp_path, TASKS).read("a", (20, 40))
    more = replace(TASKS[1], classes=(*TASKS[1].classes, TaskClass("white", (0, 0, 0))))
    assert len(LabelFolder(tmp_path, [more]).read("a", (20, 40))[0]["cells"].boxes) == 2
