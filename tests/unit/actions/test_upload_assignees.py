"""Who new tasks are assigned to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_redbrick._utils import read_once
from airflow_provider_redbrick.actions.upload import Assignees
from airflow_provider_redbrick.client.models.task import Member, User
from airflow_provider_redbrick.client.models.workflow import Stage, Workflow
from airflow_provider_redbrick.exceptions import RedBrickInputError

STAGES = (Stage("In", "labelset-input"), Stage("Label", "manual-labeling"), Stage("Check", "expert-review"))


class Project:
    """A project of two people, who are asked for so many times."""

    info = SimpleNamespace(workflow=Workflow(STAGES))
    asked = 0

    def members(self):
        self.asked += 1
        people = [("Ada@X.org", {"Label": True, "Check": True}), ("bob@x.org", {"Label": True, "Check": False})]
        return [Member(User(email, email), "LABELER", True, access) for email, access in people]


def test_e_mails_are_sent_as_the_project_spells_them():
    found = Assignees(Project()).check({"Label": ["BOB@x.org", "ada@x.org"], "Check": "ada@x.ORG"})
    assert found == {"Label": ["bob@x.org", "Ada@X.org"], "Check": "Ada@X.org"}


def test_people_are_read_once_and_only_when_somebody_is_named():
    project = Project()
    assignees = Assignees(project)
    assert (assignees.check(None), assignees.check({}), project.asked) == (None, None, 0)
    for _ in range(3):
        assignees.check({"Label": "bob@x.org"})
    assert project.asked == 1


@pytest.mark.parametrize("stage", ["In", "label", "Ground Truth", ""])
def test_a_stage_that_nobody_works_in_lists_those_there_are(stage):
    with pytest.raises(
        RedBrickInputError, match=r"is not a label or review stage of the project\. Its stages are Label, Check"
    ):
        Assignees(Project()).check({stage: "bob@x.org"})


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"Label": "eve@x.org"}, "preAssign, Label: Not members of the project: eve@x.org"),
        ({"Check": ["ada@x.org", "bob@x.org"]}, "preAssign, Check: No access to stage Check: bob@x.org"),
        ({"Label": ["bob@x.org", "Bob@x.org"]}, "preAssign, Label: Each person may be named once"),
    ],
)
def test_who_may_not_work_there_is_named(wanted, words):
    with pytest.raises(RedBrickInputError, match=words):
        Assignees(Project()).check(wanted)


class Growing(Project):
    """A project that is read when it is asked for, and kept; another stage was added since."""

    def __init__(self):
        self.read = 0

    @read_once
    def info(self):
        self.read += 1
        return SimpleNamespace(
            workflow=Workflow(STAGES if self.read == 1 else (*STAGES, Stage("QA", "manual-labeling")))
        )

    def members(self):
        access = {stage.name: True for stage in self.info.workflow.stages}
        return [Member(User("ada@x.org", "ada@x.org"), "LABELER", True, access)]


def test_a_stage_that_was_added_while_tasks_are_uploaded_is_known():
    project = Growing()
    assignees = Assignees(project)
    assert assignees.check({"Label": "ada@x.org"}) == {"Label": "ada@x.org"}
    assert assignees.check({"QA": "ada@x.org"}) == {"QA": "ada@x.org"}
    assert project.read == 2


def test_one_that_is_not_there_is_looked_for_once_more():
    project = Growing()
    assignees = Assignees(project)
    for _ in range(3):
        with pytest.raises(RedBrickInputError, match="'Nowhere' is not a label or review stage"):
            assignees.check({"Nowhere": "ada@x.org"})
    assert project.read == 2
