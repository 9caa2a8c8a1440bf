"""Task networks against the libraries they come from, and on one object that they must learn to find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import NO_BOXES, as_picture, batch_of, lively, overlap, picture, random_image, train
from torch import Tensor
from torch.nn import functional as F

from vifa_training.data import Batch
from vifa_training.tasks import TASK_NETWORKS, TaskNetwork, TaskNetworkError, build_task_network
from vifa_training.tasks import yolov5 as yolov5_module
from vifa_training.tasks.segmentation_loss import dice_loss, segmentation_loss

DETECTORS = [name for name, network in TASK_NETWORKS.items() if network.kind == "detection"]
BOX = (20, 15, 68, 55)


@pytest.fixture(scope="module", params=TASK_NETWORKS)
def network(request: pytest.FixtureRequest) -> TaskNetwork:
    return lively(request.param)


def pictures(count: int, height: int, width: int) -> Tensor:
    """Different ones, (count,3,height,width)."""
    return torch.cat([as_picture(random_image(height, width, seed)) for seed in range(count)])


def labelled(image: Tensor) -> Batch:
    """Something to learn in the first of the images: a box and the mask of it."""
    count = len(image)
    mask = torch.zeros(count, *image.shape[2:], dtype=torch.int64)
    mask[0, 5:30, 4:28] = 1
    boxes, labels = ([NO_BOXES[index]] * count for index in (0, 1))
    boxes[0], labels[0] = torch.tensor([[4.0, 5, 28, 30]]), torch.tensor([1])
    return batch_of(image, boxes, labels, mask)


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_results_are_the_librarys_own_at_multiples_of_32(network: TaskNetwork, size: tuple[int, int]) -> None:
    image = pictures(2, *size)
    with torch.no_grad():
        found, theirs = network.predict(image), network.network(image)
    if network.kind == "segmentation":
        assert torch.equal(found["logits"], theirs)
        return
    decoded = theirs[0].transpose(1, 2)
    centre, extent = decoded[..., :2], decoded[..., 2:4]
    corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=2)
    assert torch.equal(found["scores"], decoded[..., 4:])
    assert found["scores"].std() > 1e-3
    torch.testing.assert_close(found["boxes"], corners, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(33, 47), (71, 93), (40, 34)])
def test_any_size_of_32_or_more_works(network: TaskNetwork, size: tuple[int, int]) -> None:
    height, width = size
    with torch.no_grad():
        found = network.predict(pictures(2, height, width))
    assert all(bool(result.isfinite().all()) for result in found.values())
    if network.kind == "segmentation":
        assert found["logits"].shape == (2, 3, height, width)
    else:
        halved = [[side // 2] for side in size]
        for sides in halved:
            for _ in range(4):
                sides.append(-(-sides[-1] // 2))
        anchors = sum(rows * columns for rows, columns in zip(*(sides[2:] for sides in halved), strict=True))
        assert found["boxes"].shape == (2, anchors, 4)
        assert found["scores"].shape == (2, anchors, 3)


def test_anchors_lie_in_the_middle_of_their_cells_at_odd_sizes() -> None:
    network = lively("yolov5n")
    for branch in network.network.model[-1].cv2:  # every distance is 0, so a box is its anchor
        torch.nn.init.zeros_(branch[-1].weight)
        branch[-1].bias.data = 100 * F.one_hot(torch.zeros(4, dtype=torch.int64), 16).float().flatten()
    with torch.no_grad():
        boxes = network.predict(pictures(1, 41, 70))["boxes"][0].numpy()
    grids = [np.mgrid[0:rows, 0:columns] for rows, columns in ((5, 9), (3, 5), (2, 3))]
    points = [s * (grid[::-1].reshape(2, -1).T + 0.5) for grid, s in zip(grids, (8, 16, 32), strict=True)]
    np.testing.assert_allclose(boxes, np.tile(np.concatenate(points), 2), atol=1e-4)


@pytest.mark.parametrize("name", DETECTORS)
def test_detection_loss_is_the_librarys_own(name: str) -> None:
    from ultralytics.utils.loss import v8DetectionLoss

    network = lively(name)
    image = pictures(1, 64, 96)
    boxes = torch.tensor([[4.0, 5, 60, 50], [50, 10, 90, 64]])
    ours = network.loss(image, batch_of(image, [boxes], [torch.tensor([2, 0])]))
    targets = {
        "batch_idx": torch.zeros(2),
        "cls": torch.tensor([2.0, 0.0]),
        "bboxes": torch.tensor([[32, 27.5, 56, 45], [70, 37, 40, 54]]) / torch.tensor([96, 64, 96, 64]),
    }
    parts, _ = v8DetectionLoss(network.network)(network.network(image), targets)
    torch.testing.assert_close(ours, parts.sum(), rtol=1e-4, atol=0)


def test_loss_is_a_mean_over_images(network: TaskNetwork) -> None:
    image = pictures(2, 48, 56)
    batch, double = labelled(image), image.repeat(2, 1, 1, 1)
    copies = batch_of(double, batch.boxes * 2, batch.labels * 2, batch.mask.repeat(2, 1, 1))
    swapped = batch_of(image.flip(0), batch.boxes[::-1], batch.labels[::-1], batch.mask.flip(0))
    with torch.no_grad():
        once, twice = network.loss(image, batch), network.loss(double, copies)
        turned = network.loss(swapped.visible, swapped)
    assert once > 0
    torch.testing.assert_close(twice, once, rtol=1e-4, atol=0)
    torch.testing.assert_close(turned, once, rtol=1e-4, atol=0)


def test_gradient_reaches_the_image(network: TaskNetwork) -> None:
    image = pictures(2, 48, 56).requires_grad_()
    network.loss(image, labelled(image)).backward()
    assert bool(image.grad.isfinite().all())
    assert float(image.grad[0].abs().mean()) > 0


@pytest.mark.parametrize("images", [1, 2])
def test_nothing_known_gives_a_finite_loss(network: TaskNetwork, images: int) -> None:
    image = pictures(images, 48, 56).requires_grad_()
    unknown = torch.full((images, 48, 56), 255)
    loss = network.loss(image, batch_of(image, [NO_BOXES[0]] * images, [NO_BOXES[1]] * images, unknown))
    loss.backward()
    assert bool(image.grad.isfinite().all())
    if network.kind == "segmentation":
        assert loss.item() == 0
    else:
        assert 0 < loss.item() < 1e3  # every anchor should say that nothing is there


def test_loss_without_any_box_does_not_grow_with_the_batch() -> None:
    network, image = lively("yolov5n"), pictures(1, 48, 56)
    with torch.no_grad():
        one, four = (
            network.loss(image.repeat(n, 1, 1, 1), batch_of(image, [NO_BOXES[0]] * n, [NO_BOXES[1]] * n))
            for n in (1, 4)
        )
    torch.testing.assert_close(four, one, rtol=1e-4, atol=0)


@pytest.mark.parametrize("box", [[10.0, 10, 10, 30], [0.0, 0, 0, 0], [-90.0, -90, -20, -20], [-1e4, -1e4, 1e4, 1e4]])
def test_a_box_that_is_none_gives_a_finite_loss(box: list[float]) -> None:
    network, image = lively("yolov5n"), pictures(1, 48, 56).requires_grad_()
    loss = network.loss(image, batch_of(image, [torch.tensor([box])], [torch.tensor([1])]))
    loss.backward()
    assert bool(loss.isfinite()) and bool(image.grad.isfinite().all())


def test_a_detector_learns_where_an_object_is() -> None:
    torch.manual_seed(0)
    network = build_task_network("yolov5n", 2)
    image = picture(71, 93, BOX).repeat(2, 1, 1, 1)
    box = torch.tensor([BOX]).float()
    losses = train(network, batch_of(image, [box, box], [torch.tensor([1])] * 2), steps=40, rate=2e-3)
    assert losses[-1] < losses[0] / 5
    with torch.no_grad():
        found = network.predict(image[:1])
    best = found["scores"][0].flatten().argmax()
    assert int(best % 2) == 1
    assert overlap(found["boxes"][0, best // 2], box[0]) > 0.7


@pytest.mark.parametrize("images", [1, 2])
def test_a_segmenter_learns_where_an_object_is(images: int) -> None:
    torch.manual_seed(0)
    network = build_task_network("deeplabv3plus_mobilenet_v2", 2)
    image = picture(71, 93, BOX).repeat(images, 1, 1, 1)
    mask = torch.zeros(images, 71, 93, dtype=torch.int64)
    mask[:, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    seen = mask.clone()
    seen[:, :5] = 255
    losses = train(network, batch_of(image, mask=seen), steps=15, rate=2e-3)
    assert losses[-1] < losses[0] / 3
    with torch.no_grad():
        found = network.predict(image[:1])["logits"].argmax(dim=1)[0]
    common, either = ((found == 1) & (mask[0] == 1), (found == 1) | (mask[0] == 1))
    assert int(common.sum()) / int(either.sum()) > 0.7


def test_segmentation_loss_is_cross_entropy_and_dice_of_the_known_pixels() -> None:
    from segmentation_models_pytorch.losses import DiceLoss

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 9, 11, generator=generator)
    mask = torch.randint(0, 3, (2, 9, 11), generator=generator)
    mask[0, :4] = 255
    entropy = F.cross_entropy(logits, mask, ignore_index=255)
    dice = DiceLoss("multiclass", ignore_index=255)(logits, mask)
    torch.testing.assert_close(segmentation_loss(logits, mask), entropy + dice)


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    mask = torch.zeros(1, 20, 20, dtype=torch.int64)
    mask[0, 0, 0] = 1
    blind = torch.zeros(1, 3, 20, 20)
    blind[:, 0] = 20.0  # sure of the common class everywhere
    assert float(dice_loss(blind, mask)) == pytest.approx(0.5, abs=0.01)  # of the two classes that are there
    perfect = 20.0 * F.one_hot(mask, 3).permute(0, 3, 1, 2).float()
    assert float(dice_loss(perfect, mask)) == pytest.approx(0, abs=1e-3)


def test_unknown_pixels_do_not_count() -> None:
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    mask[:, 4:] = 255
    other = logits.clone()
    other[:, :, 4:] = 9.0
    assert torch.equal(segmentation_loss(logits, mask), segmentation_loss(other, mask))


@pytest.mark.parametrize(("name", "missing"), [("yolov5n", "boxes"), ("deeplabv3plus_mobilenet_v2", "masks")])
def test_a_batch_that_knows_nothing_of_the_kind_is_refused(name: str, missing: str) -> None:
    image = pictures(1, 32, 32)
    with pytest.raises(TaskNetworkError, match=missing):
        lively(name).loss(image, batch_of(image))


def test_unknown_names_and_numbers_of_classes_are_refused() -> None:
    with pytest.raises(TaskNetworkError, match=r"'yolov9'.*deeplabv3plus_mobilenet_v2.*yolov5n"):
        build_task_network("yolov9", 3)
    for classes in (0, 256):
        with pytest.raises(TaskNetworkError, match=f"got {classes}"):
            build_task_network("yolov5n", classes)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("yolov5s", "ultralytics.nn.tasks", "detection"),
        ("deeplabv3plus_resnet18", "segmentation_models_pytorch", "segmentation"),
    ],
)
def test_a_missing_library_is_named_with_its_mend(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    yolov5_module._library.cache_clear()
    with pytest.raises(TaskNetworkError, match=rf"pip install 'vifa-perception\[{extra}\]'") as failure:
        build_task_network(name, 3)
    assert "\n" not in str(failure.value)
    assert name in str(failure.value)


PROCESS_STATE = """
import os, socket, sys, warnings
import cv2, numpy, torch
import vifa_training.tasks as tasks
assert not {"ultralytics", "segmentation_models_pytorch", "torchvision"} & set(sys.modules)
def refuse(*arguments, **keywords):
    raise AssertionError("asks the network")
socket.getaddrinfo = socket.socket.connect = refuse
def state():
    return (dict(os.environ), torch.save, cv2.getNumThreads(), list(warnings.filters), repr(numpy.get_printoptions()),
            repr(torch._tensor_str.PRINT_OPTS), torch.get_num_threads(), sys.excepthook)
before = state()
tasks.build_task_network("yolov5n", 3)
assert "ultralytics" in sys.modules
for old, new in zip(before, state(), strict=True):
    assert old == new, (old, new)
"""


def test_making_a_detector_changes_nothing_around_it(tmp_path: Path) -> None:
    """No network access, no files, no output, no settings of other libraries."""
    root = Path(__file__).resolve().parents[2]
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
    variables |= {"YOLO_VERBOSE": "true", "YOLO_CONFIG_DIR": str(tmp_path / "own")}  # the user's, for other programs
    command = [sys.executable, "-c", PROCESS_STATE]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.rglob("*")) == []
