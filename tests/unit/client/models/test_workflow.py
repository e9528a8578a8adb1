"""Tests for workflows with any stage names and routes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.client.models.parsing import reading
from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH, Stage, Workflow, public_stage_name
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickInputError


def wire(name, brick, routing=None, config=None):
    return {"stageName": name, "brickName": brick, "routing": routing, "stageConfig": config}


USUAL = Workflow.from_wire(
    [
        wire("Input", "labelset-input", {"nextStageName": "Label"}),
        wire("Label", "manual-labeling", {"nextStageName": "Review_1"}, '{"autoAssign": true}'),
        wire(
            "Review_1", "expert-review", {"passed": "Review_2", "failed": "Failed_Review_1"}, '{"reviewPercent": 0.5}'
        ),
        wire("Review_2", "expert-review", {"passed": "Output", "failed": "Failed_Review_2"}),
        wire("Output", "labelset-output", {"nextStageName": "END"}),
        wire("Failed_Review_1", "feedback", {"feedbackStageName": "Label"}),
        wire("Failed_Review_2", "feedback", {"feedbackStageName": "Label"}),
    ]
)


@pytest.mark.parametrize("name", ["Label", "Review_1", "Failed_Review_1", "Input"])
def test_stage_is_found_by_its_exact_name(name):
    assert USUAL.find(name).public_name == name


@pytest.mark.parametrize("name", ["label", "Label ", "Review", "", "  ", "Groundtruth", "{{ params.stage }}"])
def test_unknown_stage_error_lists_the_stages(name):
    with pytest.raises(RedBrickInputError) as raised:
        USUAL.find(name)
    assert repr(name) in str(raised.value)
    assert "Input, Label, Review_1, Review_2, Ground Truth, Failed_Review_1" in str(raised.value)


def test_unknown_stage_error_says_that_there_are_no_stages():
    with pytest.raises(RedBrickInputError, match="its stages are: none"):
        Workflow.from_wire(None).find("Label")


@pytest.mark.parametrize("name", ["Ground Truth", "ground truth", " GROUND TRUTH ", "Output", "output", "END", "end"])
def test_ground_truth_is_found_by_all_its_names(name):
    stage = USUAL.find(name)
    assert stage.is_ground_truth
    assert (stage.public_name, stage.name, stage.counting_name) == (GROUND_TRUTH, "Output", "END")


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END", "Fertig"])
def test_ground_truth_is_recognized_by_its_brick(name):
    workflow = Workflow.from_wire([wire("Label", "manual-labeling"), wire("Fertig", "labelset-output")])
    stage = workflow.find(name)
    assert (stage.public_name, stage.name, stage.counting_name) == (GROUND_TRUTH, "Fertig", "END")


def test_stage_named_like_ground_truth_is_not_ground_truth():
    workflow = Workflow.from_wire([wire("Output", "manual-labeling"), wire("Out", "labelset-output")])
    assert workflow.find("Output").is_label
    assert workflow.find("END").name == "Out"


def test_ground_truth_exists_even_if_no_stage_is_listed_for_it():
    stage = Workflow.from_wire([wire("Label", "manual-labeling")]).find("Ground Truth")
    assert (stage.name, stage.counting_name) == ("Output", "END")


def test_public_stage_name_changes_only_end():
    assert [public_stage_name(name) for name in ("END", "end", "Output", "")] == [GROUND_TRUTH, "end", "Output", ""]


def test_stage_kinds_are_recognized():
    kinds = [(stage.is_label, stage.is_review, stage.is_ground_truth) for stage in USUAL.stages]
    assert kinds[:5] == [
        (False, False, False),
        (True, False, False),
        (False, True, False),
        (False, True, False),
        (False, False, True),
    ]


def test_stage_routes_are_parsed():
    assert USUAL.find("Review_1").next_names == ("Review_2", "Failed_Review_1")
    assert USUAL.find("Failed_Review_1").next_names == ("Label",)
    assert Stage.from_wire(wire("x", "y", {"stageNames": ["a", None, "b"]})).next_names == ("a", "b")


@pytest.mark.parametrize(
    "stage",
    [
        wire("QA", "manual-labeling"),
        wire("Label-1 (Zürich) with a name far over twenty characters", "manual-labeling", {"stageNames": None}),
        wire("M", "model", {}, None),
        wire("M", "model", {"placeholder": None}, "not json"),
        wire("M", "brick-of-the-future", {"nextStageName": None, "passed": 5}, "[1]"),
        wire("M", None, None, 5),
        {"stageName": "bare"},
    ],
)
def test_malformed_stage_does_not_fail_the_workflow(stage):
    workflow = Workflow.from_wire([stage, None, wire("Label", "manual-labeling")])
    found = workflow.find(stage["stageName"])
    assert found.next_names == ()
    assert workflow.find("Label").is_label


def test_position_increases_along_the_workflow():
    names = ["Input", "Label", "Review_1", "Review_2", "Ground Truth"]
    positions = [USUAL.position(name) for name in names]
    assert positions == sorted(set(positions))
    assert USUAL.position("END") == USUAL.position(GROUND_TRUTH) > USUAL.position("Output")


def test_position_of_an_unknown_or_feedback_stage_is_negative():
    assert USUAL.position("Failed_Review_1") == -1
    assert USUAL.position("ARCHIVED") == -1
    assert USUAL.position("") == -1


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@given(JUNK, st.sampled_from(["stageName", "brickName", "routing", "stageConfig"]))
def test_malformed_answer_raises_only_an_answer_error(junk, key):
    for stages in (
        junk,
        [junk],
        [{**wire("Label", "manual-labeling"), key: junk}],
        [wire("a", "b", {"stageNames": junk})],
    ):
        try:
            with reading("project"):
                Workflow.from_wire(stages)
        except RedBrickAnswerError:
            pass
