"""Read many tasks by id, several per request, using aliases.

Design notes on reading tasks by id:

1. A document has one root field per task (``t0``, ``t1``, ...), so one request answers for up to ``per_request``
   tasks.
2. An error that names an alias is the result of that task alone. An error without an alias fails the whole request.
3. Tasks that failed while others of their request succeeded are requested once more before the error is final.
4. An answer with another task's id, or of an unexpected shape, is an error of that task and not of its neighbors.
"""

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
"""Tasks per request if the selection is large: labels, items, events."""


def read_aliased(
    scope: Scope,
    document: Callable[[int], str],
    task_ids: Sequence[str],
    parse: Parse,
    *,
    per_request: int = TASKS_PER_READ,
) -> dict[str, Any]:
    """Read tasks by id and parse each answer.

    Tasks that fail while others of the same request succeed are requested once more.

    :param scope: the project that the tasks are in.
    :param document: returns the document for a number of tasks, with variables ``id0``, ``id1``, ... and aliases
        ``t0``, ``t1``, ...
    :param task_ids: the tasks to read; duplicates are read once.
    :param parse: converts the API's object of one task.
    :param per_request: the maximum number of tasks per request.
    :return: by task id, the result of ``parse`` or the :class:`RedBrickAPIError` that says why there is none.
    :raises RedBrickAPIError: if a request fails as a whole.
    """
    answers: dict[str, Any] = {}
    for chunk in in_chunks(dict.fromkeys(task_ids), per_request):
        results = _read_chunk(scope, document, chunk, parse)
        refused = [task_id for task_id, answer in results.items() if isinstance(answer, RedBrickRefusedError)]
        if refused and len(refused) < len(chunk):
            results.update(_read_chunk(scope, document, refused, parse))
        answers.update(results)
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
    results: dict[str, Any] = {}
    for i, task_id in enumerate(chunk):
        data = answer.data.get(f"t{i}")
        if f"t{i}" in failed:
            words = f"RedBrick answered with an error: {failed[f't{i}']}"
            results[task_id] = RedBrickRefusedError(words, operation="task", task_ids=[task_id])
        elif data is None:
            words = "There is no such task in this project."
            results[task_id] = RedBrickNotFoundError(words, operation="task", task_ids=[task_id])
        else:
            results[task_id] = _parsed(task_id, data, parse)
    return results


def _parsed(task_id: str, data: Mapping[str, Any], parse: Parse) -> Any:
    """Parse one task's answer; return an error if it is malformed or another task's."""
    try:
        with reading("task", task_ids=[task_id]):
            answered_id = identifier(data["taskId"])
            if answered_id != task_id.lower():
                raise ValueError(f"it is about task {answered_id}")
            return parse(data)
    except RedBrickAnswerError as error:
        return error
