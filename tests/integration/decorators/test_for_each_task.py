"""Tests of the TaskFlow decorators on a running sandbox."""

from __future__ import annotations

import pendulum
import pytest
from airflow.sdk import DAG, task
from fixtures import counts
from label_samples import BOX

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

LABELS = {"series": [{"boundingBoxes": [BOX]}]}
PUT = "putManualLabelingTaskAndLabels"


@pytest.fixture
def dag():
    with DAG("decorated", schedule=None, start_date=pendulum.datetime(2026, 1, 1), params={"cutoff": 3}) as made:
        yield made


def execute(run, operator, **context):
    """Render and run an operator as Airflow does; return its manifest."""
    run.context = {"ds": "2026-03-14", "params": {"cutoff": 3}, **context}
    operator.render_template_fields({**run.context})
    return run.try_once(operator)


def test_decorators_are_registered_and_create_their_operators(dag):
    @task.redbrick_prelabel(stage_name="Label", limit=5)
    def label(scan): ...

    @task.redbrick_auto_review(stage_name="Review_1")
    def review(scan): ...

    first, second = label().operator, review().operator
    assert isinstance(first, RedBrickPrelabelOperator)
    assert isinstance(second, RedBrickAutoReviewOperator)
    assert (first.task_id, first.stage_name, first.limit) == ("label", "Label", 5)
    assert (second.task_id, second.stage_name) == ("review", "Review_1")
    assert first.operator_name == "@task.redbrick_prelabel"
    assert second.operator_name == "@task.redbrick_auto_review"
    assert set(RedBrickPrelabelOperator.template_fields) < set(first.template_fields)
    assert set(RedBrickAutoReviewOperator.template_fields) < set(second.template_fields)


@pytest.mark.parametrize("multiple_outputs", [False, True])
def test_multiple_outputs_leaves_out_fields_without_a_value(sandbox, run, dag, multiple_outputs):
    sandbox.seed_tasks(1)

    @task.redbrick_prelabel(stage_name="Label", multiple_outputs=multiple_outputs)
    def label(scan):
        return LABELS

    assert ("report" in execute(run, label().operator)) is not multiple_outputs


def test_decorator_without_parentheses_creates_the_operator(dag):
    @task.redbrick_prelabel
    def label(scan): ...

    assert label().operator.task_id == "label"


def test_execute_calls_the_function_for_each_task(sandbox, run, dag):
    ids = sandbox.seed_tasks(3)
    seen = []

    @task.redbrick_prelabel(stage_name="Label")
    def label(task) -> dict:
        seen.append(task.task_id)
        return LABELS

    operator = label().operator
    assert execute(run, operator)["counts"] == counts(done=3)
    assert sorted(seen) == sorted(ids)
    assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)


def test_return_type_does_not_set_multiple_outputs(dag):
    def label(scan) -> dict[str, list]: ...

    assert not task.redbrick_prelabel(stage_name="Label")(label)().operator.multiple_outputs
    assert task.redbrick_prelabel(stage_name="Label", multiple_outputs=True)(label)().operator.multiple_outputs


def test_auto_review_applies_the_decisions_of_the_function(sandbox, run, dag):
    good, bad = sandbox.seed_tasks(2, stage="Review_1")

    @task.redbrick_auto_review(stage_name="Review_1")
    def review(scan, wrong):
        return Review.reject("Blurred.") if scan.task_id == wrong else Review.accept()

    assert execute(run, review(wrong=bad).operator)["counts"] == counts(done=2)
    assert sandbox.stage_of(good) == "END"
    assert sandbox.stage_of(bad) == "Label"


class TestArguments:
    def seen(self, sandbox, run, function, *args, **kwargs):
        """Return the arguments that a function receives in addition to the task."""
        sandbox.seed_tasks(1)
        found = []
        decorated = task.redbrick_prelabel(stage_name="Label")(function(found))
        assert execute(run, decorated(*args, **kwargs).operator, ti_name="mine")["counts"] == counts(skipped=1)
        return found

    def test_arguments_from_call_are_rendered(self, sandbox, run, dag):
        def function(found):
            def label(scan, cutoff, model="small", *, day):
                found.append((cutoff, model, day))

            return label

        assert self.seen(sandbox, run, function, 0.5, day="{{ ds }}") == [(0.5, "small", "2026-03-14")]

    def test_argument_named_labels_is_rendered(self, sandbox, run, dag):
        def function(found):
            def label(scan, labels):
                found.append(labels)

            return label

        assert self.seen(sandbox, run, function, labels=["{{ ds }}"]) == [["2026-03-14"]]

    def test_arguments_from_context_are_passed(self, sandbox, run, dag):
        def function(found):
            def label(task, ds, params=None):
                found.append((ds, params["cutoff"]))

            return label

        assert self.seen(sandbox, run, function) == [("2026-03-14", 3)]

    def test_var_keyword_receives_the_context(self, sandbox, run, dag):
        def function(found):
            def label(task, **context):
                found.append((task.name != "", context["ds"], context["cutoff"], "task" in context))

            return label

        assert self.seen(sandbox, run, function, cutoff=1) == [(True, "2026-03-14", 1, False)]

    def test_upstream_output_as_argument_sets_dependency(self, dag):
        @task
        def cutoff():
            return 0.5

        @task.redbrick_prelabel(stage_name="Label")
        def label(scan, cutoff): ...

        label(cutoff())
        assert dag.get_task("label").upstream_task_ids == {"cutoff"}

    def test_wrong_arguments_raise_when_the_dag_is_parsed(self, dag):
        @task.redbrick_prelabel(stage_name="Label")
        def label(scan, cutoff): ...

        with pytest.raises(TypeError, match="cutoff"):
            label()
        with pytest.raises(TypeError, match="cut_off"):
            label(1, cut_off=2)
        with pytest.raises(TypeError, match="scan"):
            label(1, scan=2)


class TestTaskSelection:
    def test_task_ids_in_call_select_tasks(self, sandbox, run, dag):
        ids = sandbox.seed_tasks(3)

        @task.redbrick_prelabel(stage_name="Label")
        def label(scan):
            return LABELS

        assert execute(run, label(task_ids=ids[:2]).operator)["counts"] == counts(done=2)
        assert sandbox.applied(PUT) == dict.fromkeys(ids[:2], 1)

    def test_task_ids_in_decorator_and_call_are_refused(self, dag):
        @task.redbrick_prelabel(stage_name="Label", task_ids=["one"])
        def label(scan): ...

        with pytest.raises(RedBrickInputError, match="task_ids are given both"):
            label(task_ids=["two"])

    def test_task_ids_can_be_mapped(self, sandbox, run, new_run, dag):
        ids = sandbox.seed_tasks(4)

        @task.redbrick_prelabel(stage_name="Label")
        def label(scan, model):
            assert model == "small"
            return LABELS

        mapped = label.partial(model="small").expand(task_ids=[ids[:2], ids[2:]]).operator
        for chunk in (ids[:2], ids[2:]):
            one = mapped.unmap({"op_kwargs": {"task_ids": chunk}})
            assert execute(new_run(), one)["task_ids"] == chunk

    def test_arguments_can_be_mapped(self, dag):
        @task.redbrick_prelabel(stage_name="Label")
        def label(scan, model): ...

        mapped = label.override(limit=7).expand(model=["small", "large"]).operator
        one = mapped.unmap({"op_kwargs": {"model": "large"}})
        assert (one.op_kwargs, one.limit, one.stage_name) == ({"model": "large"}, 7, "Label")

    def test_override_changes_operator_parameters(self, dag):
        @task.redbrick_prelabel(stage_name="Label")
        def label(scan): ...

        one = label.override(task_id="other", stage_name="Second")().operator
        assert (one.task_id, one.stage_name) == ("other", "Second")


class TestRefused:
    @pytest.mark.parametrize(
        "function",
        [lambda: None, lambda *, scan: None, lambda *tasks: None, lambda **context: None, lambda ti, ds: None],
        ids=["nothing", "keyword only", "any number", "context only", "Airflow's own"],
    )
    def test_function_without_task_parameter_is_refused(self, function):
        with pytest.raises(RedBrickInputError, match="takes no RedBrick task"):
            task.redbrick_prelabel(stage_name="Label")(function)

    def test_async_function_is_refused(self):
        async def label(scan): ...

        with pytest.raises(RedBrickInputError, match="label must not be async"):
            task.redbrick_prelabel(stage_name="Label")(label)

    def test_function_with_task_ids_parameter_is_refused(self):
        with pytest.raises(RedBrickInputError, match="task_ids"):
            task.redbrick_prelabel(stage_name="Label")(lambda scan, task_ids: None)

    @pytest.mark.parametrize(("name", "parameter"), [("prelabel", "labeler"), ("auto_review", "reviewer")])
    def test_second_callable_is_refused(self, dag, name, parameter):
        decorator = getattr(task, f"redbrick_{name}")
        with pytest.raises(RedBrickInputError, match=f"The decorated function is the {parameter}"):
            decorator(stage_name="Label", **{parameter: print})
        decorated = decorator(stage_name="Label")(lambda scan: None).override(task_id="one", **{parameter: print})
        with pytest.raises(RedBrickInputError, match=f"The decorated function is the {parameter}"):
            decorated()
