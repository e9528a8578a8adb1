"""The example DAGs' model: its boxes sit on what is in the picture, and the rules about boxes hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from airflow_provider_redbrick.client.models.task import Task
from redbrick_sandbox.images import demo_studies, pixels

sys.path.insert(0, str(Path(__file__).parents[3] / "example_dags"))
import threshold_model as model

STUDIES = demo_studies(12)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_boxes_sit_on_the_bright_parts_of_every_demo_image(study):
    file = study.files[0]
    picture = model.read_pixels(file.content, file.filename)
    boxes = model.find_regions(picture)
    assert boxes
    rows, columns = picture.shape
    covered = np.zeros(picture.shape, dtype=bool)
    for box in boxes:
        top, left = round(box.top * rows), round(box.left * columns)
        covered[top : top + round(box.height * rows), left : left + round(box.width * columns)] = True
    assert picture[covered].mean() > 1.2 * picture[~covered].mean()


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_model_sees_the_picture_that_the_board_shows(study):
    file = study.files[0]
    assert np.array_equal(model.read_pixels(file.content, file.filename), pixels(file.content, file.filename))


def test_a_bright_square_is_found_where_it_is():
    picture = np.zeros((100, 200))
    picture[20:60, 50:150] = 100  # a body
    picture[30:40, 60:80] = 200  # something bright in it
    (box,) = model.find_regions(picture)
    assert box == pytest.approx((0.3, 0.3, 0.1, 0.1), abs=0.02)


def task(*boxes: tuple[float, float, float, float]) -> Task:
    labels = [
        {"pointTopLeft": {"xNorm": x, "yNorm": y}, "wNorm": w, "hNorm": h, "category": "finding"}
        for x, y, w, h in boxes
    ]
    return Task("t", series=({"boundingBoxes": labels},) if boxes else ({},))


def test_rules_about_boxes():
    assert model.plausible(task((0.1, 0.1, 0.2, 0.2)))
    assert not model.plausible(task())
    assert not model.plausible(task((0.9, 0.1, 0.2, 0.2)))
    assert not model.plausible(task((0.1, 0.1, 0.01, 0.01)))
    assert not model.plausible(task((0.1, 0.1, 0.2, 0.2), (0.0, 0.0, 1.0, 1.0)))
    assert model.too_large(task((0.1, 0.1, 0.2, 0.2), (0.0, 0.0, 0.6, 0.6)))
    assert not model.too_large(task((0.1, 0.1, 0.2, 0.2)))
    assert not model.too_large(task())
