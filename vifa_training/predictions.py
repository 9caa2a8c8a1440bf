"""Predictions as files, so that trainings need not be there any more when they are pooled."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vifa_runtime.files import write_atomically
from vifa_runtime.metrics import Detections
from vifa_training.checkpoint import TrainingError
from vifa_training.task_evaluation import Prediction


def save_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as JSON, masks as PNG inside it."""
    write_atomically(path, json.dumps([_to_json(prediction) for prediction in predictions]).encode())


def load_predictions(path: Path) -> list[Prediction]:
    """Read what `save_predictions` wrote.

    Raises:
        TrainingError: there is no such file, or it holds something else.
    """
    if not path.exists():
        raise TrainingError(f"{path} does not exist; run the experiment to its end first")
    try:
        entries = json.loads(path.read_bytes())
        if not isinstance(entries, list):
            raise TypeError(f"{type(entries).__name__} in place of a list")
        return [_from_json(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, cv2.error) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path} holds no predictions ({reason}); remove it, and they are made again") from None


def _to_json(prediction: Prediction) -> dict[str, Any]:
    if prediction.mask is not None:
        png = cv2.imencode(".png", prediction.mask)[1].tobytes()
        return {"name": prediction.name, "mask": base64.b64encode(png).decode()}
    boxes, scores, labels = map(np.asarray, prediction.detections)
    return {
        "name": prediction.name,
        "boxes": np.round(boxes.astype(float), 2).tolist(),
        "scores": np.round(scores.astype(float), 6).tolist(),
        "labels": labels.tolist(),
    }


def _from_json(entry: dict[str, Any]) -> Prediction:
    if "mask" in entry:
        png = np.frombuffer(base64.b64decode(entry["mask"]), np.uint8)
        mask = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
        if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"the mask of {entry['name']} is no 8-bit image of one channel")
        return Prediction(entry["name"], mask=mask)
    boxes = np.array(entry["boxes"], np.float32).reshape(-1, 4)
    found = Detections(boxes, np.array(entry["scores"], np.float32), np.array(entry["labels"], np.int64))
    if not len(found.boxes) == len(found.scores) == len(found.labels):
        raise ValueError(f"boxes, scores and labels of {entry['name']} differ in number")
    return Prediction(entry["name"], detections=found)
