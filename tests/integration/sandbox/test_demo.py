"""Test demo tasks and their cards on the board, with fake images."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from redbrick_sandbox import creation, demo_project
from redbrick_sandbox.board import StoreBoard
from redbrick_sandbox.control import Control
from redbrick_sandbox.creation import populate
from redbrick_sandbox.sandbox import Sandbox, Settings


@dataclass(frozen=True)
class File:
    filename: str
    content: bytes


@dataclass(frozen=True)
class Study:
    name: str
    files: tuple[File, ...]
    data_type: str = "dicom"
    metadata: dict[str, str] = field(default_factory=lambda: {"PatientID": "1"})


def studies(count):
    return [Study(f"study {n}", (File("a.dcm", b"A%d" % n), File("b.dcm", b"B%d" % n))) for n in range(count)]


@pytest.fixture
def sandbox(monkeypatch):
    stand_in = ModuleType("images")
    stand_in.demo_studies = studies
    monkeypatch.setitem(sys.modules, "redbrick_sandbox.images", stand_in)
    creation._studies.cache_clear()
    made = Sandbox(Settings(demo_tasks=3), populate=populate)
    yield made
    creation._studies.cache_clear()


def test_demo_tasks_have_names_and_files_of_studies(sandbox):
    board = StoreBoard(sandbox)
    cards = board.cards("Label", 10)
    assert [card["name"] for card in cards] == ["study 0", "study 1", "study 2"]
    assert cards[1]["data_type"] == "dicom"
    assert board.blob(cards[1]["item"]) == b"A1"
    row = sandbox.store.row("SELECT items, body FROM datapoints WHERE name = 'study 1'")
    assert len(json.loads(row["items"])) == 2
    assert json.loads(row["body"])["seriesInfo"][0]["itemsIndices"] == [0, 1]


def test_reset_recreates_demo_tasks(sandbox):
    control = Control(sandbox)
    control.tasks({"count": 2, "images": True, "prefix": "more"})
    assert len(StoreBoard(sandbox).cards("Label", 10)) == 5
    control.reset({})
    assert len(StoreBoard(sandbox).cards("Label", 10)) == 3


def test_board_accepts_both_names_of_ground_truth(sandbox):
    board = StoreBoard(sandbox)
    Control(sandbox).tasks({"count": 1, "ground_truth": True})
    assert len(board.cards("Output", 10)) == len(board.cards("END", 10)) == 1
    assert board.cards("Nowhere", 10) == []
    assert board.summary()["org_id"] == demo_project.ORG_ID
    with pytest.raises(KeyError):
        board.blob("nowhere")
