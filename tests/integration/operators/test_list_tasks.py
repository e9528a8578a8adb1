"""Listing tasks, on a running server."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

ALICE, BOB = "alice@example.com", "bob@example.com"


def operator(**options) -> RedBrickListTasksOperator:
    return RedBrickListTasksOperator(task_id="list_tasks", **options)


class TestShape:
    def test_flat(self, sandbox, run):
        ids = sandbox.seed_tasks(7)
        assert sorted(run.try_once(operator(stage_name="Label"))) == sorted(ids)

    @pytest.mark.parametrize(("size", "lengths"), [(3, [3, 3, 1]), (7, [7]), ("100", [7]), (1, [1] * 7)])
    def test_chunks(self, sandbox, run, size, lengths):
        ids = sandbox.seed_tasks(7)
        chunks = run.try_once(operator(stage_name="Label", chunk_size=size))
        assert [len(chunk) for chunk in chunks] == lengths
        assert sorted(task_id for chunk in chunks for task_id in chunk) == sorted(ids)

    def test_nothing_is_an_empty_list(self, sandbox, run):
        assert run.try_once(operator(stage_name="Label")) == []
        assert run.try_once(operator(stage_name="Label", chunk_size=5)) == []

    def test_more_than_a_page(self, sandbox, run):
        ids = sandbox.seed_tasks(450)
        assert sorted(run.try_once(operator())) == sorted(ids)
        assert sandbox.stats()["root_fields"]["genericTasks"] == 3

    def test_the_limit(self, sandbox, run, caplog, capsys):
        sandbox.seed_tasks(5)
        with caplog.at_level("WARNING"):
            assert len(run.try_once(operator(limit="5", chunk_size=2))) == 3
            printed = "".join(capsys.readouterr())
            assert "stops at limit=5" in caplog.text + printed
            caplog.clear()
            assert len(run.try_once(operator(limit=6))) == 5
            printed = "".join(capsys.readouterr())
            assert "limit" not in caplog.text + printed

    def test_no_limit(self, sandbox, run):
        sandbox.seed_tasks(5)
        assert len(run.try_once(operator(limit=None))) == 5


class TestFilters:
    def test_stage(self, sandbox, run):
        label, review = sandbox.seed_tasks(2), sandbox.seed_tasks(3, stage="Review_1")
        assert set(run.try_once(operator(stage_name="Label"))) == set(label)
        assert set(run.try_once(operator(stage_name="Review_1"))) == set(review)
        assert set(run.try_once(operator())) == {*label, *review}

    @pytest.mark.parametrize("name", ["Ground Truth", "ground truth", "Output", "END"])
    def test_ground_truth_by_all_its_names(self, sandbox, run, name):
        sandbox.seed_tasks(2)
        ids = sandbox.seed_tasks(3, ground_truth=True)
        assert set(run.try_once(operator(stage_name=name))) == set(ids)

    def test_ground_truth_of_another_name(self, sandbox, run):
        project = sandbox.add_project(
            [
                {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "QA"}},
                {"stageName": "QA", "brickName": "manual-labeling", "routing": {"nextStageName": "Finished"}},
                {"stageName": "Finished", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
            ]
        )
        ids = sandbox.seed_tasks(3, ground_truth=True, project_id=project)
        for name in ("Ground Truth", "Finished", "END"):
            assert set(run.try_once(operator(stage_name=name, project_id=project))) == set(ids)

    @pytest.mark.parametrize("state", ["ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM"])
    def test_state(self, sandbox, run, state):
        sandbox.seed_tasks(2)
        others = {"ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM"} - {state}
        for other in others:
            sandbox.seed_tasks(1, assignee=ALICE, state=other)
        ids = sandbox.seed_tasks(2, assignee=BOB, state=state)
        assert set(run.try_once(operator(stage_name="Label", state=state))) == set(ids)

    def test_unassigned(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        sandbox.seed_tasks(2, assignee=ALICE)
        sandbox.seed_tasks(1, state="PROBLEM")
        assert set(run.try_once(operator(stage_name="Label", state="UNASSIGNED"))) == set(ids)

    def test_unassigned_anywhere_is_not_ground_truth(self, sandbox, run):
        ids = [*sandbox.seed_tasks(1), *sandbox.seed_tasks(1, stage="Review_1")]
        sandbox.seed_tasks(2, ground_truth=True)
        assert set(run.try_once(operator(state="UNASSIGNED"))) == set(ids)

    def test_assignee(self, sandbox, run):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(2, assignee=ALICE)
        ids = sandbox.seed_tasks(2, assignee=BOB)
        staged = sandbox.seed_tasks(1, assignee=BOB, state="STAGED")
        assert set(run.try_once(operator(stage_name="Label", assignee=BOB))) == {*ids, *staged}
        assert run.try_once(operator(stage_name="Label", assignee=BOB, state="STAGED")) == staged

    def test_me_is_the_api_key(self, sandbox, run):
        sandbox.seed_tasks(2, assignee=ALICE)
        ids = sandbox.seed_tasks(2, assignee="API key")
        assert set(run.try_once(operator(assignee="me"))) == set(ids)

    def test_name(self, sandbox, run):
        sandbox.seed_tasks(2, prefix="brain")
        ids = sandbox.seed_tasks(2, prefix="lung")
        assert set(run.try_once(operator(name="lung-"))) == set(ids)
        assert run.try_once(operator(name="ung")) == []
        assert run.try_once(operator(name="Lung")) == []

    def test_a_name_is_no_id(self, sandbox, run):
        """The server searches ids too; the tasks would go on to a mapped prelabel."""
        ids = sandbox.seed_tasks(30)
        begins = ids[0][0]
        (named,) = sandbox.seed_tasks(1, prefix=begins)
        assert run.try_once(operator(name=begins)) == [named]
        assert run.try_once(operator(name=begins, limit=1)) == [named]
        assert run.try_once(operator(name=ids[0])) == []

    def test_a_name_in_quotes(self, sandbox, run):
        sandbox.seed_tasks(2, prefix="8")
        (quoted,) = sandbox.seed_tasks(1, prefix='"8"')
        assert run.try_once(operator(name='"8"')) == [quoted]
        assert run.try_once(operator(name='"8')) == [quoted]
        assert run.try_once(operator(name='"8-000001"')) == []

    def test_tasks_on_their_way_out_are_left_out(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        sandbox.settings(transition_ms=60_000)
        gone = sandbox.humans("Label", 1)["task_ids"]
        assert set(run.try_once(operator(stage_name="Label"))) == set(ids) - set(gone)

    def test_a_task_that_moves_while_it_is_listed_is_listed_once(self, sandbox, run, seen_twice):
        ids = [*sandbox.seed_tasks(30, priority=0.5), *sandbox.seed_tasks(30)]
        chunks = run.try_once(operator(stage_name="Label", chunk_size=7))
        assert sorted(task_id for chunk in chunks for task_id in chunk) == sorted(ids)
        listed = run.try_once(operator(stage_name="Label", limit=60))
        assert sorted(listed) == sorted(ids)
        assert len(seen_twice) == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"state": "DONE"}, "state must be one of 'UNASSIGNED'"),
            ({"state": "UNASSIGNED", "assignee": BOB}, "An UNASSIGNED task has no assignee"),
            ({"assignee": ""}, "assignee must not be empty"),
            ({"name": " "}, "name must not be empty"),
            ({"project_id": ""}, "project_id must not be empty"),
            ({"org_id": " "}, "org_id must not be empty"),
            ({"limit": 0}, "limit must be a whole number of at least 1"),
            ({"limit": "many"}, "limit must be a whole number"),
            ({"chunk_size": 0}, "chunk_size must be a whole number of at least 1"),
            ({"chunk_size": 2.5}, "chunk_size must be a whole number"),
        ],
    )
    def test_before_any_request(self, sandbox, run, options, words):
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(operator(**options))
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("name", ["Lable", "label", ""])
    def test_a_wrong_stage_is_not_an_empty_one(self, sandbox, run, name):
        sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match=r"Input, Label, Review_1|must not be empty"):
            run.try_once(operator(stage_name=name))
        assert "genericTasks" not in sandbox.stats()["root_fields"]


class TestPages:
    @pytest.mark.parametrize("fault", ["http_500", "gql_error", "gql_partial", "html"])
    def test_a_page_that_fails_is_an_error_and_not_the_end(self, sandbox, run, fault):
        sandbox.seed_tasks(450)
        sandbox.fault_once(fault, "genericTasks", skip=1, times=20)
        with pytest.raises(RedBrickAPIError):
            run.try_once(operator())

    @pytest.mark.parametrize("fault", ["http_503", "drop_before", "drop_after", "rate_limit", "rate_limit_after"])
    def test_a_page_that_is_lost_once_is_asked_for_again(self, sandbox, run, fault):
        ids = sandbox.seed_tasks(450)
        sandbox.fault_once(fault, "genericTasks", skip=1)
        listed = run.try_once(operator())
        assert sorted(listed) == sorted(ids)

    def test_an_empty_page_with_a_cursor_goes_on(self, sandbox, run):
        ids = sandbox.seed_tasks(450)
        sandbox.fault_once("empty_page", "genericTasks", skip=1)
        assert sorted(run.try_once(operator())) == sorted(ids)
        assert sandbox.stats()["root_fields"]["genericTasks"] == 4

    def test_an_empty_first_page_with_a_cursor_goes_on(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        sandbox.fault_once("empty_page", "genericTasks")
        assert sorted(run.try_once(operator())) == sorted(ids)

    def test_pages_get_as_small_as_the_server_wants(self, sandbox, run):
        ids = sandbox.seed_tasks(120)
        sandbox.settings(max_page=50)
        assert sorted(run.try_once(operator())) == sorted(ids)

    def test_the_limit_does_not_fetch_more_than_it_needs(self, sandbox, run):
        sandbox.seed_tasks(450)
        run.try_once(operator(limit=200))
        assert sandbox.stats()["root_fields"]["genericTasks"] == 1
