"""Each published recipe through the real trainer, with a schedule of seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vifa_training.data.street import StreetData
from vifa_training.networks import build_network
from vifa_training.recipe import load_recipe
from vifa_training.trainer import train


@pytest.mark.parametrize("name", ["piafusion", "tardal", "didfuse", "swinfusion"])
def test_a_published_recipe_trains_rests_and_goes_on(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(f"{name}-published")
    options = {"classifier_steps": 2} if name == "piafusion" else {}
    recipe = replace(recipe, objective={**recipe.objective, **options})
    schedule = replace(recipe.schedule, steps=4, batch=2, crop=64, validate_every=2, validation_pairs=1)
    data = StreetData(4, size=(64, 96))

    def run(folder: str, minutes: float) -> torch.nn.Module:
        torch.manual_seed(0)
        network = build_network(recipe.network, [task.name for task in recipe.tasks])
        train(network, recipe.build_objective(), data, data, schedule, tmp_path / folder, max_minutes=minutes)
        return network

    whole = run("whole", 10)
    run("rested", 0)  # only what comes before the first step
    rested = run("rested", 10)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, rested.state_dict()[key]), key
    rows = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
