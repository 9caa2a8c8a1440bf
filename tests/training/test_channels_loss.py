"""Eq. 1 by hand, what it holds and what it lets go."""

from __future__ import annotations

import pytest
import torch

from vifa_training.distillation.channel_loss import channel_loss, join_importance


def features(*sizes: tuple[int, ...], seed: int = 0) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {f"layer{i}": torch.randn(*size, generator=source) for i, size in enumerate(sizes)}


def test_two_layers_by_hand() -> None:
    """Differences of 3, 4 in one channel are a norm of 5."""
    teacher = {"a": torch.zeros(1, 2, 1, 2), "b": torch.zeros(1, 1, 2, 2)}
    student = {"a": torch.tensor([[[[3.0, 4.0]], [[100.0, 100.0]]]]), "b": torch.ones(1, 1, 2, 2)}
    importance = {"a": torch.tensor([2.0, 0.0]), "b": torch.tensor([0.5])}
    assert channel_loss(student, teacher, importance, per_pixel=False).item() == pytest.approx(2 * 5 + 0.5 * 2)
    expected = 2 * 5 / 2**0.5 + 0.5 * 2 / 4**0.5
    assert channel_loss(student, teacher, importance).item() == pytest.approx(expected)


def test_it_is_the_mean_over_the_images_of_a_batch() -> None:
    student, teacher = features((3, 4, 6, 5)), features((3, 4, 6, 5), seed=1)
    importance = {"layer0": torch.rand(4)}
    single = [
        channel_loss({"layer0": student["layer0"][i : i + 1]}, {"layer0": teacher["layer0"][i : i + 1]}, importance)
        for i in range(3)
    ]
    assert channel_loss(student, teacher, importance).item() == pytest.approx(sum(single).item() / 3)


def test_its_weight_does_not_depend_on_the_size_of_the_crop() -> None:
    student, teacher = features((2, 3, 4, 6)), features((2, 3, 4, 6), seed=1)
    wide = [{"layer0": some["layer0"].repeat(1, 1, 2, 2)} for some in (student, teacher)]
    importance = {"layer0": torch.rand(3)}
    assert channel_loss(*wide, importance).item() == pytest.approx(channel_loss(student, teacher, importance).item())
    printed = channel_loss(student, teacher, importance, per_pixel=False)
    assert channel_loss(*wide, importance, per_pixel=False).item() == pytest.approx(2 * printed.item())


def test_only_key_channels_of_the_student_are_pulled() -> None:
    student, teacher = features((2, 3, 4, 4), (2, 2, 8, 8)), features((2, 3, 4, 4), (2, 2, 8, 8), seed=1)
    for tensor in (*student.values(), *teacher.values()):
        tensor.requires_grad_()
    importance = {"layer0": torch.tensor([0.0, 3.0, 0.0]), "layer1": torch.zeros(2)}
    channel_loss(student, teacher, importance).backward()
    pulled = [student["layer0"].grad[:, c].abs().sum().item() > 0 for c in range(3)]
    assert pulled == [False, True, False]
    assert not student["layer1"].grad.any()
    assert all(tensor.grad is None for tensor in teacher.values())


def test_where_both_agree_it_is_zero_with_a_zero_gradient() -> None:
    teacher = features((2, 3, 4, 4))
    student = {"layer0": teacher["layer0"].clone().requires_grad_()}
    loss = channel_loss(student, teacher, {"layer0": torch.ones(3)})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student["layer0"].grad, torch.zeros(2, 3, 4, 4))


def test_several_data_sets_add_up() -> None:
    student, teacher = features((1, 3, 4, 4)), features((1, 3, 4, 4), seed=1)
    masks = [{"layer0": torch.tensor([1.0, 0, 0])}, {"layer0": torch.tensor([0.5, 0, 2.0])}]
    apart = [channel_loss(student, teacher, mask).item() for mask in masks]
    assert channel_loss(student, teacher, masks).item() == pytest.approx(sum(apart))
    assert join_importance(masks)["layer0"].tolist() == [1.5, 0, 2]


def test_half_precision_is_summed_in_full() -> None:
    student = {"a": torch.full((1, 1, 300, 300), 200.0, dtype=torch.float16)}
    loss = channel_loss(student, {"a": torch.zeros(1, 1, 300, 300, dtype=torch.float16)}, {"a": torch.ones(1)})
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(200)


def test_what_does_not_fit_is_refused_by_name() -> None:
    some = features((1, 3, 4, 4))
    with pytest.raises(ValueError, match="student gives no layer other"):
        channel_loss(some, some, {"other": torch.ones(3)})
    with pytest.raises(ValueError, match=r"layer layer0: .* mask of 2 channels"):
        channel_loss(some, some, {"layer0": torch.ones(2)})
    with pytest.raises(ValueError, match="layer layer0"):
        channel_loss(some, features((1, 3, 4, 5)), {"layer0": torch.ones(3)})
    for masks in ([], [{"layer0": torch.ones(3)}, {"layer0": torch.ones(2)}], [{"layer0": torch.ones(3)}, {}]):
        with pytest.raises(ValueError, match="importance masks"):
            channel_loss(some, some, masks)
