"""Tests that the sandbox's schema accepts every document."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphql import OperationDefinitionNode, OperationType, VariableNode, build_schema, parse, validate

import redbrick_sandbox
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.operations.task_reads import render_aliased
from airflow_provider_redbrick.client.transport.graphql import describe

SCHEMA = build_schema((Path(redbrick_sandbox.__file__).parent / "schema.graphql").read_text())

CONSTANTS = {
    name: value for name, value in vars(queries).items() if isinstance(value, str) and name.isupper() and name[0] != "_"
}
ALIASED = {name: value for name, value in vars(queries).items() if isinstance(value, queries.AliasedRead)}
RENDERED = {f"{name}({n})": render_aliased(query, n) for name, query in ALIASED.items() for n in (1, 2, 25)}
ALL = {**CONSTANTS, **RENDERED}


def test_documents_are_found():
    assert {"ME", "PROJECT", "GENERIC_TASKS", "PUT_EXPERT_REVIEW_TASK"} <= set(CONSTANTS)
    assert {"TASK_STATES", "TASKS_IN_FULL", "TASK_EVENTS", "TASK_COUNTS", "TASKS_BY_NAME"} <= set(ALIASED)


NO_VARIABLES = {queries.ME}
# Documents with a variant selection or an older form, with their operation.
PART_OF = {
    "TAXONOMY": "project",
    "PROJECT_WITH_TAXONOMY": "project",
    "TASKS_TO_EXPORT": "tasksPaged",
    "TASKS_CHANGED": "tasksPaged",
    "STAGE_TAXONOMY": "taxonomy",
    "PUT_STAGE_LABELS": "putLabels",
}


def operation_of(text) -> OperationDefinitionNode:
    (operation,) = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    return operation


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_document_requests_only_fields_of_the_schema(text):
    assert validate(SCHEMA, parse(text)) == []


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_document_has_one_operation_named_like_its_root_field(text):
    operation = operation_of(text)
    roots = {field.name.value for field in operation.selection_set.selections}
    assert roots == {operation.name.value}
    assert describe(text) == (operation.name.value, operation.operation is OperationType.MUTATION)


@pytest.mark.parametrize("text", CONSTANTS.values(), ids=CONSTANTS)
def test_document_constant_is_named_like_the_operation(text):
    name = next(key for key, value in CONSTANTS.items() if value == text)
    assert operation_of(text).name.value.lower() == PART_OF.get(name, name.replace("_", "")).lower()


@pytest.mark.parametrize("text", RENDERED.values(), ids=RENDERED)
def test_aliases_and_variables_have_the_same_numbers(text):
    operation = operation_of(text)
    aliases = [field.alias.value for field in operation.selection_set.selections]
    letter = aliases[0][0]
    variable = {"n": "name", "t": "id", "c": "stage"}[letter]
    assert aliases == [f"{letter}{i}" for i in range(len(aliases))]
    given = [variable_of(field) for field in operation.selection_set.selections]
    assert given == [f"{variable}{i}" for i in range(len(aliases))]


def variable_of(field) -> str:
    ours = [a.value.name.value for a in field.arguments if a.name.value in {"taskId", "taskSearch", "stageName"}]
    assert len(ours) == 1
    return ours[0]


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_document_uses_every_variable(text):
    operation = operation_of(text)
    declared = {definition.variable.name.value for definition in operation.variable_definitions or ()}
    used = {
        argument.value.name.value
        for field in operation.selection_set.selections
        for argument in field.arguments or ()
        if isinstance(argument.value, VariableNode)
    }
    assert bool(declared) is (text not in NO_VARIABLES)
    assert declared == used
