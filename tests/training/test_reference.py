"""Reference models: Eq. 2 by its gradients and by hand, and what the two parts of a joint model learn at which rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from task_toys import (
    DETECTION,
    SCHEDULE,
    SEGMENTATION,
    ToyDetector,
    ToySegmenter,
    lively_network,
    make_recipe,
    same,
    weights_of,
)
from torch import Tensor

from vifa_training import trainer
from vifa_training.checkpoint import TrainingError
from vifa_training.data import Augmentation, Batch, draw_batch
from vifa_training.data.street import StreetData
from vifa_training.distillation.reference import train_alone, train_reference
from vifa_training.networks import NETWORKS
from vifa_training.objectives import FusionWeights
from vifa_training.objectives.fusion_loss import fusion_loss
from vifa_training.pictures import Pictures, show_visible
from vifa_training.schedule import Schedule
from vifa_training.task_model import JointModel, TaskModel, TaskObjective, shrink_labels
from vifa_training.task_recipe import TaskPreset, TaskRecipe
from vifa_training.tasks import TASK_NETWORKS, TaskNetwork
from vifa_training.trainer import train


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (ToySegmenter, ToyDetector):
        monkeypatch.setitem(TASK_NETWORKS, network.name, network)


def some_batch(size: int | tuple[int, int] = 32, images: int = 2) -> Batch:
    return draw_batch(StreetData(3, size=(96, 128)), images, size, np.random.default_rng(0), Augmentation(stretch=0))


def joint(name: str = "nano", task: TaskNetwork | None = None, **options: object) -> JointModel:
    torch.manual_seed(1)
    return JointModel(lively_network(name, ["first"]), "first", task or ToySegmenter(3), **options).train()


# Eq. 2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", [ToySegmenter, ToyDetector])
def test_the_tasks_gradient_reaches_every_weight_of_the_fusion_network(name: str, kind: type[TaskNetwork]) -> None:
    model = joint(name, kind(3 if kind is ToySegmenter else 2))
    TaskObjective()(model, some_batch(), 0.0).backward()
    for key, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and bool(gradient.isfinite().all()), key
        if not key.startswith("fusion.") or parameter.ndim > 1:  # a bias before a batch norm changes nothing
            assert float(gradient.abs().max()) > 0, key


def test_the_gradient_is_that_of_the_image_through_the_network() -> None:
    """The chain rule by two passes: the loss's gradient of the fused luma, then the network's own of that."""
    model, batch = joint(), some_batch()
    model.loss(batch).backward()
    found = [parameter.grad.clone() for parameter in model.fusion.parameters()]
    fused = model.fuse(batch).detach().requires_grad_()
    model.loss_of(fused, batch).backward()
    by_hand = torch.autograd.grad(model.fuse(batch), list(model.fusion.parameters()), fused.grad)
    for ours, expected in zip(found, by_hand, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("shrink", [1, 2])
def test_without_a_fusion_weight_the_loss_is_the_tasks_own_on_the_recoloured_image(shrink: int) -> None:
    model, batch = joint(shrink=shrink), some_batch()
    with torch.no_grad():
        loss = TaskObjective(FusionWeights(), 0.0)(model, batch, 0.0)
        fused = model.fusion.heads["first"](model.fusion.backbone(batch.visible_y, batch.thermal)).clamp(0, 1)
        red, green, blue = (batch.visible[:, i : i + 1] for i in range(3))
        change = fused - (0.299 * red + 0.587 * green + 0.114 * blue)
        picture = (batch.visible + change).clamp(0, 1)
        mask = batch.mask
        if shrink == 2:
            picture = picture.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean(dim=(3, 5))
            mask = mask[:, 1::2, 1::2]
        expected = model.task.loss(picture, replace(batch, mask=mask))
    torch.testing.assert_close(loss, expected)
    assert float(change.abs().mean()) > 0.02


@pytest.mark.parametrize(("images", "looked_at"), [(1, 1), (3, 1), (4, 1), (8, 2)])
def test_a_fusion_weight_adds_the_fusion_loss_of_a_quarter_of_the_images(images: int, looked_at: int) -> None:
    model, batch, weights = joint().eval(), some_batch(images=images), FusionWeights(maximum=3, gradient=2, ssim=1)
    with torch.no_grad():
        alone, both = (TaskObjective(weights, factor)(model, batch, 0.0) for factor in (0.0, 0.7))
        some = [part[:looked_at] for part in (model.fuse(batch), batch.visible_y, batch.thermal)]
        fusion = fusion_loss(*some, weights)
    torch.testing.assert_close(both, alone + 0.7 * fusion)
    assert float(fusion) > 0.1


def test_a_task_network_alone_is_shown_the_batchs_picture() -> None:
    task, batch = ToySegmenter(3), some_batch()
    with torch.no_grad():
        torch.testing.assert_close(
            TaskObjective(FusionWeights(), 5.0)(TaskModel(task), batch, 0.0), task.loss(batch.visible, batch)
        )


# Labels


def test_boxes_and_masks_shrink_with_the_picture() -> None:
    mask = torch.arange(2 * 9 * 12).view(2, 9, 12) % 7
    boxes = [torch.tensor([[2.0, 4, 10, 9]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)]
    batch = Batch(torch.rand(2, 3, 9, 12), torch.rand(2, 1, 9, 12), boxes, labels, mask)
    for shrink in (1, 2, 3, 4):
        small = shrink_labels(batch, shrink)
        rows, columns = 9 // shrink, 12 // shrink
        assert small.boxes[0].tolist() == [[pytest.approx(value / shrink) for value in (2, 4, 10, 9)]]
        assert small.boxes[1].shape == (0, 4) and small.labels is labels
        middle = shrink // 2
        expected = [[mask[0, r * shrink + middle, c * shrink + middle] for c in range(columns)] for r in range(rows)]
        assert small.mask[0].tolist() == expected
    unlabelled = shrink_labels(replace(batch, boxes=None, labels=None, mask=None), 2)
    assert unlabelled.boxes is None and unlabelled.mask is None


def test_a_shrunk_crop_has_the_labels_of_shrunk_pictures() -> None:
    """A reference shrinks what it fuses; the others learn from pictures that were shrunk before: the same labels."""
    pairs = StreetData(2, size=(96, 128))
    small = Pictures(pairs, show_visible, 2)
    large = draw_batch(pairs, 3, (64, 96), np.random.default_rng(3), Augmentation(mirror=0, stretch=0))
    shrunk = shrink_labels(large, 2)
    assert small[0].mask.shape == (48, 64) and shrunk.mask.shape == (3, 32, 48)
    np.testing.assert_array_equal(small[0].mask, pairs[0].mask[1::2, 1::2])
    np.testing.assert_allclose(small[0].boxes, pairs[0].boxes / 2)
    assert all(torch.equal(a, b / 2) for a, b in zip(shrunk.boxes, large.boxes, strict=True))


# Training


def watch_rates(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, float]]:
    """The learning rate that Adam gives each parameter, by its id, at each step."""
    seen: list[dict[int, float]] = []
    step = torch.optim.Adam.step

    def watched(self: torch.optim.Adam, *arguments: object) -> object:
        seen.append({id(p): group["lr"] for group in self.param_groups for p in group["params"]})
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    return seen


def test_backbone_and_head_of_fusion_get_their_shares_of_the_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, model = watch_rates(monkeypatch), joint(fusion_share=0.25, head_share=0.5)
    before = weights_of(model)
    schedule = Schedule(steps=3, batch=2, crop=32, learning_rate=0.01, decay="constant", warm_up=1, validate_every=3)
    train(model, TaskObjective(), StreetData(3, size=(96, 128)), None, schedule, tmp_path)
    for rates, rate in zip(seen, (0.005, 0.01, 0.01), strict=True):
        for part, share in ((model.task, 1), (model.fusion.backbone, 1 / 4), (model.fusion.heads, 1 / 2)):
            assert [rates[id(p)] for p in part.parameters()] == pytest.approx(
                [share * rate] * len([*part.parameters()])
            )
        assert len(rates) == len([*model.parameters()])
    moved = {name: float((tensor - before[name]).abs().max()) for name, tensor in model.state_dict().items()}
    # Adam's steps are at most about as long as the rate: 0.005 + 0.01 + 0.01, and a part of it
    assert moved["task.layers.0.weight"] == pytest.approx(0.025, rel=0.15)
    assert moved["fusion.backbone.stem.weight"] == pytest.approx(0.025 / 4, rel=0.15)
    assert moved["fusion.heads.first.change.weight"] == pytest.approx(0.025 / 2, rel=0.15)


def test_a_share_of_nothing_leaves_the_fusion_network_as_it_is(tmp_path: Path) -> None:
    model = joint(fusion_share=0.0, head_share=0.0)
    before = weights_of(model)
    train(model, TaskObjective(), StreetData(3, size=(96, 128)), None, Schedule(2, 2, 32, validate_every=2), tmp_path)
    assert same(before, weights_of(model), "fusion.")
    assert not same(before, weights_of(model), "task.layers.0")


class Seen:
    """What a training was given, by its arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Schedule, Augmentation | None, tuple[int, ...], int]] = []
        step = trainer._Session._step

        def watched(session: trainer._Session) -> float:
            shape = tuple(session._draw(session.progressed.step).visible.shape)
            self.calls.append((session.schedule, session.augmentation, shape, session.progressed.step))
            return step(session)

        monkeypatch.setattr(trainer._Session, "_step", watched)


def tiny(tmp_path: Path, content: dict = SEGMENTATION, **changes: object) -> tuple[TaskRecipe, TaskPreset]:
    recipe = make_recipe(tmp_path, content, **changes)
    return recipe, recipe.preset("smoke")


def test_all_methods_learn_for_as_many_steps_and_on_as_much_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, preset = tiny(
        tmp_path, shrink=2, presets={"smoke": {"task": SCHEDULE | {"crop": [32, 48]}, "head": SCHEDULE}}
    )
    seen, pairs = Seen(monkeypatch), StreetData(4, size=(128, 160))
    train_alone(ToySegmenter(3), Pictures(pairs, show_visible, 2), recipe, preset, tmp_path / "alone")
    train_reference(lively_network("nano", ["a"]), "a", ToySegmenter(3), pairs, recipe, preset, tmp_path / "ref")
    alone, reference = seen.calls[:2], seen.calls[2:]
    assert [step for *_, step in alone] == [step for *_, step in reference] == [0, 1]
    assert {shape for *_, shape, _ in alone} == {(2, 3, 32, 48)}
    assert {shape for *_, shape, _ in reference} == {(2, 3, 64, 96)}, "which the task network sees at half the size"
    assert {augmentation for _, augmentation, _, _ in seen.calls} == {recipe.augmentation}


def test_a_reference_is_both_networks_trained_by_the_recipe(tmp_path: Path) -> None:
    recipe, preset = tiny(tmp_path, fusion_weight=0.5, fusion_share=0.5, head_share=0.7)
    fusion, task, pairs = lively_network("nano", ["a"]), ToySegmenter(3), StreetData(3, size=(96, 128))
    before = weights_of(fusion), weights_of(task)
    model = train_reference(fusion, "a", task, pairs, recipe, preset, tmp_path / "ref")
    assert [group["share"] for group in model.parameter_groups()] == [1, 0.5, 0.7]
    assert not model.training and (model.fusion, model.task, model.head) == (fusion, task, "a")
    for old, module in zip(before, (fusion, task), strict=True):
        assert not any(torch.equal(old[name], new) for name, new in module.named_parameters())
    kept = load_file(tmp_path / "ref/best.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    again = train_reference(
        lively_network("nano", ["a"]), "a", ToySegmenter(3), pairs, recipe, preset, tmp_path / "ref"
    )
    assert same(weights_of(model), weights_of(again))


@pytest.mark.parametrize("change", ["weights", "head", "pairs", "share"])
def test_a_reference_that_began_otherwise_is_not_gone_on_with(tmp_path: Path, change: str) -> None:
    recipe, preset = tiny(tmp_path)
    pairs, fusion = StreetData(3, size=(96, 128)), lively_network("nano", ["a", "b"])
    train_reference(fusion, "a", ToySegmenter(3), pairs, recipe, preset, tmp_path / "ref")
    other, head = lively_network("nano", ["a", "b"], spread=0.06 if change == "weights" else 0.05), "a"
    if change == "head":
        head = "b"
    elif change == "pairs":
        pairs = StreetData(4, size=(96, 128))
    elif change == "share":
        recipe = replace(recipe, fusion_share=0.9)
    with pytest.raises(TrainingError, match=r"ref/last\.safetensors belongs to a training by another recipe"):
        train_reference(other, head, ToySegmenter(3), pairs, recipe, preset, tmp_path / "ref")


def test_pairs_without_labels_are_refused(tmp_path: Path) -> None:
    class Bare(StreetData):
        def __getitem__(self, index: int):
            return replace(super().__getitem__(index), boxes=None, labels=None, mask=None)

    recipe, preset = tiny(tmp_path)
    for task, missing in ((ToySegmenter(3), "masks"), (ToyDetector(2), "boxes")):
        with pytest.raises(ValueError, match=missing):
            train_alone(task, Bare(3, size=(96, 128)), recipe, preset, tmp_path / missing)


def test_labels_count_for_detectors_too(tmp_path: Path) -> None:
    """A detector's loss of a shrunk reference is that of a shrunk picture with shrunk boxes."""
    recipe, _ = tiny(tmp_path, DETECTION, shrink=2)
    model = JointModel(lively_network("nano", ["a"]), "a", ToyDetector(2), recipe.shrink)
    batch = some_batch(64)
    seen: dict[str, Tensor] = {}
    model.task.loss = lambda image, known: seen.update(image=image, boxes=known.boxes) or image.sum()
    model.loss(batch)
    assert seen["image"].shape == (2, 3, 32, 32)
    assert all(torch.equal(small, large / 2) for small, large in zip(seen["boxes"], batch.boxes, strict=True))
    assert any(len(boxes) for boxes in batch.boxes)


def test_a_task_network_by_itself_is_the_same_training_whatever_the_fusion_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path, SEGMENTATION)
    pairs, preset = Pictures(StreetData(3, size=(96, 128)), show_visible), recipe.preset("smoke")

    def train_toy(of: TaskRecipe, shown: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return train_alone(ToySegmenter(3), pairs, of, preset, tmp_path / "run", shown).state_dict()

    first = {name: tensor.clone() for name, tensor in train_toy(recipe, "visible").items()}
    monkeypatch.setattr(trainer._Session, "_step", lambda session: pytest.fail("is trained already"))
    again = train_toy(replace(recipe, fusion_share=0.5, fusion_weight=9.0, head_share=3.0), "visible")
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    for other, shown in ((recipe, "thermal"), (replace(recipe, augmentation=Augmentation(mirror=0.1)), "visible")):
        with pytest.raises(TrainingError, match="belongs to a training by another recipe"):
            train_toy(other, shown)
