"""Reading many tasks by id, several a request: one aliased root field each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.answers import identifier, reading
from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickNotFoundError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.api.scope import Scope

    Parse = Callable[[Mapping[str, Any]], Any]

TASKS_PER_READ = 25
"""Tasks a request, when each brings much: labels, items, events."""


def read_aliased(
    scope: Scope,
    document: Callable[[int], str],
    task_ids: Sequence[str],
    parse: Parse,
    *,
    per_request: int = TASKS_PER_READ,
) -> dict[str, Any]:
    """Return for each id what ``parse`` makes of its task, or the error that says why there is nothing.

    What fails for one task is that task's answer, after a second look.

    :param document: writes the document for so many tasks, with variables ``id0`` .. and aliases ``t0`` ...
    """
    answers: dict[str, Any] = {}
    for chunk in in_chunks(dict.fromkeys(task_ids), per_request):
        found = _read_chunk(scope, document, chunk, parse)
        unread = [i for i, answer in found.items() if isinstance(answer, RedBrickRefusedError)]
        if unread and len(unread) < len(chunk):
            found.update(_read_chunk(scope, document, unread, parse))
        answers.update(found)
    return answers


def _read_chunk(scope: Scope, document: Callable[[int], str], chunk: Sequence[str], parse: Parse) -> dict[str, Any]:
    variables: dict[str, Any] = dict(scope.ids)
    variables.update((f"id{i}", task_id) for i, task_id in enumerate(chunk))
    answer = scope.client.transport.execute_partial(document(len(chunk)), variables, task_ids=chunk)
    general = [issue.message for issue in answer.issues if issue.root is None]
    if general or answer.data is None:
        words = "; ".join(general or [issue.message for issue in answer.issues])
        raise RedBrickRefusedError(f"RedBrick answered with an error: {words}", operation="task", task_ids=chunk)
    failed = {issue.root: issue.message for issue in answer.issues}
    found: dict[str, Any] = {}
    for i, task_id in enumerate(chunk):
        data = answer.data.get(f"t{i}")
        if f"t{i}" in failed:
            words = f"RedBrick answered with an error: {failed[f't{i}']}"
            found[task_id] = RedBrickRefusedError(words, operation="task", task_ids=[task_id])
        elif data is None:
            words = "There is no such task in this project."
            found[task_id] = RedBrickNotFoundError(words, operation="task", task_ids=[task_id])
        else:
            found[task_id] = _parsed(task_id, data, parse)
    return found


def _parsed(task_id: str, data: Mapping[str, Any], parse: Parse) -> Any:
    """Read one task's answer; one that makes no sense, or is of another, is its failure, not its neighbours'."""
    try:
        with reading("task", task_ids=[task_id]):
            told = identifier(data["taskId"])
            if told != task_id.lower():
                raise ValueError(f"it is about task {told}")
            return parse(data)
    except RedBrickAnswerError as error:
        return error
