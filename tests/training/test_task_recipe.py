"""Task recipes and labelled pairs: what they may hold; all else is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from data_cases import write_folder, write_text
from task_toys import DETECTION, SCHEDULE, SEGMENTATION, TOYS, make_recipe

from vifa_runtime.pairs import write_image
from vifa_training.data import Augmentation, DataError
from vifa_training.distillation.reference import train_alone
from vifa_training.networks import NETWORKS, build_network
from vifa_training.pictures import show_visible
from vifa_training.recipe import RecipeError
from vifa_training.schedule import Schedule
from vifa_training.task_data import open_labelled
from vifa_training.task_evaluation import evaluate_task
from vifa_training.task_recipe import PRESETS, TaskRecipe, load_task_recipe
from vifa_training.tasks import TASK_NETWORKS

SHIPPED = Path(__file__).resolve().parents[2] / "vifa_training" / "recipes" / "tasks"
NAN, INF = float("nan"), float("inf")
ONE_BOX = "0 0.5 0.5 0.5 0.5"


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in TOYS.items():
        monkeypatch.setitem(TASK_NETWORKS, name, network)


# Recipes


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_followed(path: Path) -> None:
    recipe = load_task_recipe(path.stem)
    assert recipe == load_task_recipe(str(path)) and recipe.name == path.stem
    assert TASK_NETWORKS[recipe.network].kind == recipe.kind
    assert list(recipe.presets) == list(PRESETS)
    assert not set(recipe.training.split("+")) & set(recipe.validation.split("+"))
    if not recipe.data.startswith("street:"):  # whose parts never share a street
        assert {*recipe.training.split("+"), *recipe.validation.split("+")} <= set(recipe.data.split("+"))
    multiples = {build_network(name, ["a"]).size_multiple for name in NETWORKS}
    for preset in recipe.presets.values():
        sides = [*preset.task.enlarged(recipe.shrink).crop_sides, *preset.head.crop_sides]
        assert not any(side % multiple for side in sides for multiple in multiples)


def test_the_two_tasks_of_the_project_ship() -> None:
    kinds = {name: load_task_recipe(name).kind for name in ("msrs-detection", "cwfid-segmentation")}
    assert kinds == {"msrs-detection": "detection", "cwfid-segmentation": "segmentation"}


def test_a_recipe_of_one_time_is_a_task_of_its_own_on_the_pairs_of_that_time(tmp_path: Path) -> None:
    path = tmp_path / "tiny-detection.yaml"
    both = make_recipe(tmp_path, DETECTION, training="street:40@train", data="street:10", validation="street:40@val")
    night = load_task_recipe(f"{path}@night")
    assert (night.name, night.task) == ("tiny-detection-night", "road_users_night")
    assert (night.data, night.training, night.validation) == (
        *("street:10@night", "street:40@train,night", "street:40@val,night"),
    )
    assert night.presets == both.presets and night.identity == both.identity
    pairs = open_labelled(tmp_path, night.data, night)
    assert len(pairs) == 5 and all(pairs[index].tags == ("night",) for index in range(5))
    assert set(pairs.names) | set(open_labelled(tmp_path, "street:10@day", both).names) == set(
        open_labelled(tmp_path, both.data, both).names
    )
    with pytest.raises(RecipeError, match="no task recipe is called 'msrs-detection@noon'"):
        load_task_recipe("msrs-detection@noon")


def test_a_recipe_is_read_as_it_is_written(tmp_path: Path) -> None:
    schedule = SCHEDULE | {"crop": [64, 96], "milestones": [1], "learning_rate": 0.002}
    augmentation = {"scale": [0.5, 2], "mirror": 0}
    presets = {"smoke": {"task": schedule, "head": SCHEDULE}}
    recipe = make_recipe(tmp_path, DETECTION, augmentation=augmentation, presets=presets, rare=["car"], shrink=2)
    assert dict(recipe.classes) == {"person": (230, 60, 60), "car": (70, 130, 240)}
    assert list(recipe.classes) == ["person", "car"] and recipe.rare == ("car",)
    assert recipe.augmentation == Augmentation(mirror=0, scale=(0.5, 2))
    assert recipe.preset("smoke").task == Schedule(2, 2, (64, 96), 0.002, milestones=(1,), validate_every=2)
    assert recipe.preset("smoke").head == Schedule(2, 2, 64, validate_every=2)
    assert (recipe.shrink, dict(recipe.thresholds)) == (2, DETECTION["thresholds"])
    with pytest.raises(RecipeError, match="recipe tiny-detection has no preset 'cpu'; use one of smoke"):
        recipe.preset("cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", "other_toy"),
        ("shrink", 2),
        ("fusion_weight", 0.5),
        ("fusion_share", 0.5),
        ("head_share", 0.5),
        ("fusion_loss", {"maximum": 3}),
        ("classes", {"car": [70, 130, 240], "person": [230, 60, 60]}),
        ("augmentation", {"mirror": 0}),
    ],
)
def test_what_changes_a_training_makes_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.setitem(TASK_NETWORKS, "other_toy", TOYS["toy_detector"])
    changed, same = (
        make_recipe(tmp_path, DETECTION, **change) for change in ({key: value}, {"description": "others", "name": "a"})
    )
    recipe = make_recipe(tmp_path, DETECTION)
    assert changed.identity != recipe.identity == same.identity


def preset(part: str = "task", **changes: Any) -> dict[str, Any]:
    """A change of a recipe's presets."""
    return {"presets": {"smoke": {"task": SCHEDULE, "head": SCHEDULE} | {part: SCHEDULE | changes}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "the key 'colour' is unknown; use name, task, kind, network"),
        ({"name": "a/b"}, "name 'a/b' must be letters, digits and _.-, as it names folders"),
        ({"name": "../a"}, "name '../a' must be letters"),
        ({"name": 3}, "name must be a text, got 3"),
        ({"description": 3}, "description must be a text, got 3"),
        ({"task": "Road users"}, "task 'Road users' must be small letters, digits and underscores"),
        ({"task": 3}, "task 3 must be small letters"),
        ({"kind": "fusion"}, "kind 'fusion' is unknown; use detection or segmentation"),
        ({"kind": "segmentation"}, "network 'toy_detector' is for detection, not for kind 'segmentation'"),
        ({"network": "yolo99"}, "network 'yolo99' is unknown; use one of yolov5n, "),
        ({"network": ["yolov5n"]}, "network ['yolov5n'] is unknown; use one of yolov5n, "),
        ({"classes": ["person"]}, "classes must be a mapping, got ['person']"),
        ({"classes": {}}, "classes must name 1 to 254, got 0"),
        ({"classes": {f"c{i}": [0, 0, 0] for i in range(255)}}, "classes must name 1 to 254, got 255"),
        ({"classes": {"a": "red"}}, "classes.a must be a colour of three numbers in 0..255, got 'red'"),
        ({"classes": {"a": [1, 2]}}, "classes.a must be a colour"),
        ({"classes": {"a": [1, 2, 256]}}, "classes.a must be a colour"),
        ({"classes": {"a": [1, 2, 0.5]}}, "classes.a must be a colour"),
        ({"classes": {1: [0, 0, 0], "1": [0, 0, 0]}}, "two classes share a name; rename one"),
        ({"classes": {"a\nb": [0, 0, 0]}}, r"class 'a\nb' must have a name of 1 to 64 characters that can be printed"),
        ({"classes": {"a" * 65: [0, 0, 0]}}, "must have a name of 1 to 64 characters"),
        ({"rare": "car"}, "rare must be a list of classes, got 'car'"),
        ({"rare": 5}, "rare must be a list of classes, got 5"),
        ({"rare": ["bus"]}, "rare names bus, which are no classes"),
        ({"rare": ["car", "person"]}, "rare names every class, so that none is left for the primary metric"),
        ({"data": "coco:x"}, "the format 'coco' is unknown; use one of folder, street"),
        ({"training": "x@best"}, "x@best: 'best' is unknown; write"),
        ({"validation": ["a", "b"]}, "validation must be a text, got ['a', 'b']"),
        ({"shrink": 0}, "shrink must be a whole number of 1 or more, got 0"),
        ({"shrink": 1.5}, "shrink must be a whole number"),
        ({"head_layers": 0}, "head_layers must be a whole number of 1 or more, got 0"),
        ({"thresholds": {"score": 1.5}}, "thresholds.score must be in 0..1, got 1.5"),
        ({"thresholds": {"iou": NAN}}, "thresholds.iou must be in 0..1, got nan"),
        ({"thresholds": {"max_detections": 0}}, "thresholds.max_detections must be a whole number in 1..10000, got 0"),
        ({"thresholds": {"nms": 1}}, "thresholds.nms is unknown; use score, iou, max_detections"),
        ({"augmentation": {"flip": 1}}, "augmentation: got an unexpected keyword argument 'flip'"),
        ({"augmentation": {"mirror": 2}}, "augmentation mirror must be in 0..1, got 2"),
        ({"augmentation": {"mirror": "often"}}, "augmentation mirror must be in 0..1, got often"),
        ({"augmentation": {"scale": 3}}, "augmentation scale must be two ascending numbers in 0.1..10, got 3"),
        ({"augmentation": {"scale": [1]}}, "augmentation scale must be two ascending numbers"),
        ({"augmentation": {"scale": [1, 2, 3]}}, "augmentation scale must be two ascending numbers"),
        ({"augmentation": {"scale": ["a", "b"]}}, "augmentation scale must be two ascending numbers"),
        ({"fusion_weight": -1}, "fusion_weight must be a number of 0 or more, got -1"),
        ({"fusion_share": INF}, "fusion_share must be a number of 0 or more, got inf"),
        ({"head_share": "all"}, "head_share must be a number of 0 or more, got 'all'"),
        ({"fusion_loss": {"beauty": 1}}, "has no option 'beauty'; it has thermal_gain, maximum"),
        ({"fusion_loss": {"maximum": "x"}}, "maximum must be a number of 0 or more, got 'x'"),
        ({"presets": {}}, "presets holds none; give one or more of smoke, cpu, "),
        ({"presets": {"smoke": {"task": SCHEDULE}}}, "presets.smoke must hold task and head, and nothing else"),
        ({"presets": {"smoke": None}}, "presets.smoke must hold task and head, and nothing else"),
        (preset(speed=2), "presets.smoke.task: got an unexpected keyword argument 'speed'"),
        (preset(steps=0), "presets.smoke.task: schedule.steps must be a whole number of 1 or more, got 0"),
        (preset("head", learning_rate="1e-3"), "presets.smoke.head: schedule.learning_rate must be a number above 0"),
        ({"licences": {"weights": "MIT"}}, "licences lacks a text 'data'"),
        ({"licences": {"weights": 3, "data": "none"}}, "licences lacks a text 'weights'"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(DETECTION | change))
    with pytest.raises(RecipeError) as refusal:
        load_task_recipe(str(path))
    assert str(refusal.value).startswith(f"{path}: ") and message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "key", ["name", "task", "kind", "network", "classes", "data", "training", "validation", "presets", "licences"]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({name: DETECTION[name] for name in DETECTION.keys() - {key}}))
    with pytest.raises(RecipeError, match=rf"wrong\.yaml: lacks the key '{key}'"):
        load_task_recipe(str(tmp_path / "wrong.yaml"))


def test_thresholds_are_for_detection(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="thresholds are for detection; remove them from a recipe of segmentation"):
        make_recipe(tmp_path, SEGMENTATION, thresholds={"score": 0.5})


@pytest.mark.parametrize("content", [b"", b"3", b"- a", b"a: [", b"\x00", b"\xff\xfe\xff"])
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"wrong\.yaml: .+") as refusal:
        load_task_recipe(str(tmp_path / "wrong.yaml"))
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_an_unknown_name_are_told_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read .*gone\.yaml: No such file"):
        load_task_recipe(str(tmp_path / "gone.yaml"))
    with pytest.raises(RecipeError, match=r"called 'gone'; use a \.yaml file or one of cwfid-.*, msrs-detection"):
        load_task_recipe("gone")


# Labelled pairs


def problems_of(root: Path, part: str, recipe: TaskRecipe) -> list[str]:
    with pytest.raises(DataError) as refusal:
        open_labelled(root, part, recipe)
    return list(refusal.value.problems)


def test_classes_that_are_not_the_recipes_are_refused_with_both(tmp_path: Path) -> None:
    few = make_recipe(tmp_path, SEGMENTATION, classes={"background": [0, 0, 0], "person": [1, 1, 1]})
    [problem] = problems_of(tmp_path, "street:2", few)
    assert problem == "street:2 has the classes background, person, car; recipe tiny-segmentation wants " + (
        "background, person"
    )
    turned = make_recipe(tmp_path, DETECTION, classes={"car": [0, 0, 0], "person": [1, 1, 1]})
    assert "has the classes person, car; recipe tiny-detection wants car, person" in str(
        problems_of(tmp_path, "street:2", turned)
    )
    write_text(write_folder(tmp_path / "named", ["a"], labels=ONE_BOX) / "classes.txt", "car\nperson")
    assert len(open_labelled(tmp_path, "named", make_recipe(tmp_path, DETECTION))) == 1, "the recipe's names go first"


def test_labels_of_another_kind_or_none_are_missing(tmp_path: Path) -> None:
    detection, segmentation = make_recipe(tmp_path, DETECTION), make_recipe(tmp_path, SEGMENTATION)
    write_folder(tmp_path / "bare", ["a", "b"])
    write_folder(tmp_path / "boxed", ["a"], labels=ONE_BOX)
    write_folder(tmp_path / "masked", ["a"], mask=1)
    assert problems_of(tmp_path, "bare", detection) == [
        f"bare: pair {name} has no boxes, of which detection learns; add labels" for name in "ab"
    ]
    assert problems_of(tmp_path, "masked", detection)[0].startswith("masked: pair a has no boxes")
    assert problems_of(tmp_path, "boxed", segmentation)[0].startswith("boxed: pair a has no mask, of which segment")


def test_every_wrong_label_is_told_at_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", ["good", "class", "outside", "words", "empty"], labels=ONE_BOX)
    write_text(folder / "labels/class.txt", f"{ONE_BOX}\n2 0.5 0.5 0.1 0.1")
    write_text(folder / "labels/outside.txt", "0 1.5 0.5 0.1 0.1")
    write_text(folder / "labels/words.txt", "person 0.5")
    write_text(folder / "labels/empty.txt")
    problems = problems_of(tmp_path, "set", make_recipe(tmp_path, DETECTION))
    assert [problem.partition(",")[0].rpartition("/")[2] for problem in problems] == [
        "class.txt", "outside.txt", "words.txt",
    ]  # fmt: skip
    assert "line 2: has class 2, but there are 2" in problems[0]


def test_wrong_masks_are_told_by_their_file_or_pair(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, SEGMENTATION)
    folder = write_folder(tmp_path / "set", ["good", "class", "size"], mask=2)
    write_image(folder / "masks/class.png", np.full((24, 32), 3, np.uint8))
    write_image(folder / "masks/size.png", np.zeros((24, 31), np.uint8))
    problems = problems_of(tmp_path, "set", recipe)
    assert len(problems) == 2
    assert "masks/class.png has the class ids 3; expected 0..2" in problems[0]
    assert "masks/size.png is 31x24 but" in problems[1]
    both = write_folder(tmp_path / "both", ["a", "b"], labels=ONE_BOX, mask=255)
    write_image(both / "masks/b.png", np.arange(4, dtype=np.uint8).repeat(192).reshape(24, 32))
    assert problems_of(tmp_path, "both", recipe) == [
        "both: pair b has the class 3 in its mask; recipe tiny-segmentation names 3 classes"
    ]


def test_boxes_beside_the_masks_are_of_classes_of_their_own(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, SEGMENTATION)
    folder = write_folder(tmp_path / "both", ["a"], labels="5 0.5 0.5 0.2 0.2", mask=1)
    assert len(open_labelled(tmp_path, "both", recipe)) == 1, "nobody named the boxes' classes"
    write_text(folder / "classes.txt", "\n".join("uvwxyz"))
    assert list(open_labelled(tmp_path, "both", recipe).classes) == list("uvwxyz")
    write_text(folder / "classes.txt", "u\nv\nw\nx")
    assert "has class 5, but there are 4" in str(problems_of(tmp_path, "both", recipe))
    write_text(folder / "classes.txt", "\n".join("uvwxyz"))
    write_text(folder / "mask_classes.txt", "soil\ncrop")
    assert "has the classes soil, crop; recipe tiny-segmentation wants" in str(problems_of(tmp_path, "both", recipe))


def test_two_pairs_of_one_name_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", ["a", "b"], labels=ONE_BOX)
    write_folder(tmp_path / "two", ["b", "c"], labels=ONE_BOX)
    recipe = make_recipe(tmp_path, DETECTION)
    assert problems_of(tmp_path, "one+two", recipe) == ["one+two: 2 pairs are called b; rename all but one"]


@pytest.mark.parametrize("part", ["nowhere", "empty", "street:9@val"])
def test_a_part_without_a_pair_is_refused(tmp_path: Path, part: str) -> None:
    for folder in ("vi", "ir", "labels"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    assert problems_of(tmp_path, part, make_recipe(tmp_path, DETECTION))


@pytest.mark.parametrize("labels", ["", ONE_BOX])
def test_a_detector_is_trained_and_evaluated_where_nothing_or_one_class_is_there(tmp_path: Path, labels: str) -> None:
    write_folder(tmp_path / "set", ["a", "b"], labels=labels, size=(64, 96))
    recipe = make_recipe(tmp_path, DETECTION)
    values = trained_and_evaluated(tmp_path, recipe)
    defined = {"map50", "map50_all", "ap50_person"} if labels else set()
    assert {metric for metric, value in values.items() if value == value} == defined


@pytest.mark.parametrize("mask", [255, 0, 1])
def test_a_segmenter_is_trained_and_evaluated_where_nothing_or_one_class_is_known(tmp_path: Path, mask: int) -> None:
    write_folder(tmp_path / "set", ["a", "b"], mask=mask, size=(64, 96))
    values = trained_and_evaluated(tmp_path, make_recipe(tmp_path, SEGMENTATION))
    assert (values["miou"] == values["miou"]) == (mask != 255)


def trained_and_evaluated(root: Path, recipe: TaskRecipe) -> dict[str, float]:
    pairs, network = open_labelled(root, "set", recipe), TOYS[recipe.network](len(recipe.classes))
    train_alone(network, pairs, recipe, recipe.preset("smoke"), root / "run")
    assert all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())
    return evaluate_task(network, show_visible, pairs, recipe)


def test_pairs_smaller_than_a_crop_are_learnt_from(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", ["a"], labels=ONE_BOX, size=(40, 50))
    assert trained_and_evaluated(tmp_path, make_recipe(tmp_path, DETECTION))["map50"] >= 0
