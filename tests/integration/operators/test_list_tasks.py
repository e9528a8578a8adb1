"""``RedBrickListTasksOperator``, with a running sandbox."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

ALICE, BOB = "alice@example.com", "bob@example.com"


def operator(**options) -> RedBrickListTasksOperator:
    return RedBrickListTasksOperator(task_id="list_tasks", **options)


class TestShape:
    def test_list_without_chunk_size_is_flat(self, sandbox, run):
        ids = sandbox.seed_tasks(7)
        assert sorted(run.try_once(operator(stage_name="Label"))) == sorted(ids)

    @pytest.mark.parametrize(("size", "lengths"), [(3, [3, 3, 1]), (7, [7]), ("100", [7]), (1, [1] * 7)])
    def test_list_with_chunk_size_is_chunked(self, sandbox, run, size, lengths):
        ids = sandbox.seed_tasks(7)
        chunks = run.try_once(operator(stage_name="Label", chunk_size=size))
        assert [len(chunk) for chunk in chunks] == lengths
        assert sorted(task_id for chunk in chunks for task_id in chunk) == sorted(ids)

    def test_list_of_empty_stage_is_empty(self, sandbox, run):
        assert run.try_once(operator(stage_name="Label")) == []
        assert run.try_once(operator(stage_name="Label", chunk_size=5)) == []

    def test_list_reads_all_pages(self, sandbox, run):
        ids = sandbox.seed_tasks(450)
        assert sorted(run.try_once(operator())) == sorted(ids)
        assert sandbox.stats()["root_fields"]["genericTasks"] == 3

    def test_list_stops_at_limit_with_warning(self, sandbox, run, caplog, capsys):
        sandbox.seed_tasks(5)
        with caplog.at_level("WARNING"):
            assert len(run.try_once(operator(limit="5", chunk_size=2))) == 3
            printed = "".join(capsys.readouterr())
            assert "stops at limit=5" in caplog.text + printed
            caplog.clear()
            assert len(run.try_once(operator(limit=6))) == 5
            printed = "".join(capsys.readouterr())
            assert "limit" not in caplog.text + printed

    def test_list_without_limit_returns_all(self, sandbox, run):
        sandbox.seed_tasks(5)
        assert len(run.try_once(operator(limit=None))) == 5


class TestFilters:
    def test_filter_by_stage(self, sandbox, run):
        label, review = sandbox.seed_tasks(2), sandbox.seed_tasks(3, stage="Review_1")
        assert set(run.try_once(operator(stage_name="Label"))) == set(label)
        assert set(run.try_once(operator(stage_name="Review_1"))) == set(review)
        assert set(run.try_once(operator())) == {*label, *review}

    @pytest.mark.parametrize("name", ["Ground Truth", "ground truth", "Output", "END"])
    def test_filter_by_every_name_of_ground_truth(self, sandbox, run, name):
        sandbox.seed_tasks(2)
        ids = sandbox.seed_tasks(3, ground_truth=True)
        assert set(run.try_once(operator(stage_name=name))) == set(ids)

    def test_filter_by_renamed_ground_truth(self, sandbox, run):
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
    def test_filter_by_state(self, sandbox, run, state):
        sandbox.seed_tasks(2)
        others = {"ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM"} - {state}
        for other in others:
            sandbox.seed_tasks(1, assignee=ALICE, state=other)
        ids = sandbox.seed_tasks(2, assignee=BOB, state=state)
        assert set(run.try_once(operator(stage_name="Label", state=state))) == set(ids)

    def test_filter_unassigned(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        sandbox.seed_tasks(2, assignee=ALICE)
        sandbox.seed_tasks(1, state="PROBLEM")
        assert set(run.try_once(operator(stage_name="Label", state="UNASSIGNED"))) == set(ids)

    def test_filter_unassigned_excludes_ground_truth(self, sandbox, run):
        ids = [*sandbox.seed_tasks(1), *sandbox.seed_tasks(1, stage="Review_1")]
        sandbox.seed_tasks(2, ground_truth=True)
        assert set(run.try_once(operator(state="UNASSIGNED"))) == set(ids)

    def test_filter_by_assignee(self, sandbox, run):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(2, assignee=ALICE)
        ids = sandbox.seed_tasks(2, assignee=BOB)
        staged = sandbox.seed_tasks(1, assignee=BOB, state="STAGED")
        assert set(run.try_once(operator(stage_name="Label", assignee=BOB))) == {*ids, *staged}
        assert run.try_once(operator(stage_name="Label", assignee=BOB, state="STAGED")) == staged

    def test_filter_by_me_matches_api_key(self, sandbox, run):
        sandbox.seed_tasks(2, assignee=ALICE)
        ids = sandbox.seed_tasks(2, assignee="API key")
        assert set(run.try_once(operator(assignee="me"))) == set(ids)

    def test_filter_by_name_prefix(self, sandbox, run):
        sandbox.seed_tasks(2, prefix="brain")
        ids = sandbox.seed_tasks(2, prefix="lung")
        assert set(run.try_once(operator(name="lung-"))) == set(ids)
        assert run.try_once(operator(name="ung")) == []
        assert run.try_once(operator(name="Lung")) == []

    def test_filter_by_name_does_not_match_ids(self, sandbox, run):
        """The server's search also matches ids; a wrong match would be passed to a mapped prelabel."""
        ids = sandbox.seed_tasks(30)
        begins = ids[0][0]
        (named,) = sandbox.seed_tasks(1, prefix=begins)
        assert run.try_once(operator(name=begins)) == [named]
        assert run.try_once(operator(name=begins, limit=1)) == [named]
        assert run.try_once(operator(name=ids[0])) == []

    def test_filter_by_quoted_name(self, sandbox, run):
        sandbox.seed_tasks(2, prefix="8")
        (quoted,) = sandbox.seed_tasks(1, prefix='"8"')
        assert run.try_once(operator(name='"8"')) == [quoted]
        assert run.try_once(operator(name='"8')) == [quoted]
        assert run.try_once(operator(name='"8-000001"')) == []

    def test_list_skips_tasks_in_transition(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        sandbox.settings(transition_ms=60_000)
        gone = sandbox.humans("Label", 1)["task_ids"]
        assert set(run.try_once(operator(stage_name="Label"))) == set(ids) - set(gone)

    def test_task_moved_during_listing_is_listed_once(self, sandbox, run, seen_twice):
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
    def test_invalid_parameters_send_no_request(self, sandbox, run, options, words):
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(operator(**options))
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("name", ["Lable", "label", ""])
    def test_unknown_stage_is_refused(self, sandbox, run, name):
        sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match=r"Input, Label, Review_1|must not be empty"):
            run.try_once(operator(stage_name=name))
        assert "genericTasks" not in sandbox.stats()["root_fields"]


class TestPages:
    @pytest.mark.parametrize("fault", ["http_500", "gql_error", "gql_partial", "html"])
    def test_failed_page_raises(self, sandbox, run, fault):
        sandbox.seed_tasks(450)
        sandbox.fault_once(fault, "genericTasks", skip=1, times=20)
        with pytest.raises(RedBrickAPIError):
            run.try_once(operator())

    @pytest.mark.parametrize("fault", ["http_503", "drop_before", "drop_after", "rate_limit", "rate_limit_after"])
    def test_lost_page_is_retried(self, sandbox, run, fault):
        ids = sandbox.seed_tasks(450)
        sandbox.fault_once(fault, "genericTasks", skip=1)
        listed = run.try_once(operator())
        assert sorted(listed) == sorted(ids)

    def test_empty_page_with_cursor_continues(self, sandbox, run):
        ids = sandbox.seed_tasks(450)
        sandbox.fault_once("empty_page", "genericTasks", skip=1)
        assert sorted(run.try_once(operator())) == sorted(ids)
        assert sandbox.stats()["root_fields"]["genericTasks"] == 4

    def test_empty_first_page_with_cursor_continues(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        sandbox.fault_once("empty_page", "genericTasks")
        assert sorted(run.try_once(operator())) == sorted(ids)

    def test_list_shrinks_page_size_on_demand(self, sandbox, run):
        ids = sandbox.seed_tasks(120)
        sandbox.behavior(max_page=50)
        assert sorted(run.try_once(operator())) == sorted(ids)

    def test_list_with_limit_fetches_no_extra_page(self, sandbox, run):
        sandbox.seed_tasks(450)
        run.try_once(operator(limit=200))
        assert sandbox.stats()["root_fields"]["genericTasks"] == 1
