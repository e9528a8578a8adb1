"""Create tasks, once per name.

Task names are unique in a project, and a request may succeed although its answer is lost. Therefore:

1. Names are looked up first; a task whose name exists is not created again.
2. Everything that can fail without a side effect is checked before the first upload: items, labels, assignees.
3. Files are uploaded once per task, even if the creation request is repeated.
4. After a lost answer, the name is looked up to determine whether the task was created. If no answer was lost and the
   name exists, another client created the task.
5. Each description gets exactly one outcome. While RedBrick does not answer, further tasks fail without a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.actions.task_specs import NewTask, listed
from airflow_provider_redbrick.actions.upload_items import Items, check_names
from airflow_provider_redbrick.annotations.conversion import convert_all
from airflow_provider_redbrick.annotations.masks import labels_map
from airflow_provider_redbrick.annotations.snapshot import content_hash
from airflow_provider_redbrick.assignments.assign import check_people
from airflow_provider_redbrick.assignments.settlement import settled
from airflow_provider_redbrick.client.operations.account import REDBRICK_STORAGE
from airflow_provider_redbrick.client.operations.project import forget
from airflow_provider_redbrick.client.operations.uploads import Datapoint, file_name
from airflow_provider_redbrick.engine.executor import apply_all
from airflow_provider_redbrick.engine.ledger import Ledger, ledger_of
from airflow_provider_redbrick.engine.mutations import Mutation
from airflow_provider_redbrick.engine.outcomes import Outcome, already_done, done
from airflow_provider_redbrick.engine.task_reader import CHUNK, NOT_ATTEMPTED, CircuitBreaker, find_ids_by_name
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_redbrick.annotations.conversion import Converter
    from airflow_provider_redbrick.annotations.masks import Masked
    from airflow_provider_redbrick.client.models.task import Member
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


_NOTHING_SENT = "Nothing was sent"


@dataclass(frozen=True)
class Uploading:
    """Create tasks that do not exist yet.

    :param project: the project.
    :param converter: validates and converts labels, and opens files.
    :param storage_id: the default external storage of items; None to upload files to RedBrick's own storage.
    :param is_ground_truth: the default for descriptions that do not specify it: create tasks in ground truth.
    :param may_open: raises for a file name that must not be opened.
    :param breaker: stops requests while RedBrick does not answer.
    """

    project: RedBrickProject
    converter: Converter
    storage_id: str | None = None
    is_ground_truth: bool = False
    may_open: Callable[[str], None] | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)

    @cached_property
    def assignees(self) -> Assignees:
        """Validates the assignees of tasks."""
        return Assignees(self.project)

    def run(self, descriptions: Iterable[NewTask | Outcome]) -> Iterator[Outcome]:
        """Create tasks and yield exactly one outcome for each.

        :param given: descriptions with distinct names, and the outcomes of invalid descriptions.
        """
        max_concurrency = self.project.client.max_concurrency
        store = Items(
            self.project.imports, self.converter.open_file, max_concurrency=max_concurrency, may_open=self.may_open
        )
        ledger = ledger_of(self.project.client)
        with store as items:
            outcomes = self._create_all(descriptions, items, ledger)
            yield from settled(self.project, outcomes, ledger, stop=Event())

    def _create_all(self, descriptions: Iterable[NewTask | Outcome], items: Items, ledger: Ledger) -> Iterator[Outcome]:
        """Create tasks in chunks."""
        for chunk in in_chunks(descriptions, CHUNK):
            yield from (entry for entry in chunk if isinstance(entry, Outcome))
            yield from self._create_missing([entry for entry in chunk if isinstance(entry, NewTask)], items, ledger)

    def _create_missing(self, chunk: Sequence[NewTask], items: Items, ledger: Ledger) -> Iterator[Outcome]:
        """Create the tasks that do not exist yet."""
        if not chunk:
            return
        missing: list[NewTask] = []
        task_ids_by_name = find_ids_by_name(self.project, [new.name for new in chunk], self.breaker)
        for new in chunk:
            task_ids = task_ids_by_name[new.name]
            if isinstance(task_ids, str):
                yield new.failure(task_ids)
            elif task_ids:
                yield already_done(task_ids[0], ALREADY_EXISTS, name=new.name)
            else:
                missing.append(new)
        steps = list(self._plan(missing, items))
        yield from (step for step in steps if isinstance(step, Outcome))
        yield from apply_all(self.project, [step for step in steps if isinstance(step, Creation)], ledger=ledger)

    def _plan(self, chunk: Sequence[NewTask], items: Items) -> Iterator[Creation | Outcome]:
        """Validate and convert tasks; yield a creation or a failure for each."""
        ready: dict[str, tuple[_ValidatedTask, dict[str, Any]]] = {}
        for new in chunk:
            if self.breaker.is_open:
                yield new.failure(NOT_ATTEMPTED)
                continue
            try:
                validated = self._validate(new, items)
                ready[new.name] = validated, new.to_import(validated.masked.body, validated.item_names)
            except RedBrickInputError as error:
                yield new.failure(f"{str(error).rstrip('.')}. {_NOTHING_SENT}")
            except RedBrickAPIError as error:
                self.breaker.record(error)
                yield new.failure(f"It could not be checked: {str(error).rstrip('.')}. {_NOTHING_SENT}")
        tasks = [(name, task) for name, (_, task) in ready.items()]
        converted = convert_all(self.project.client, tasks, layout=True)
        for name, stored in converted.items():
            validated, task = ready[name]
            problem = stored if isinstance(stored, str) else _items_problem(stored, validated, task)
            if problem is not None:
                yield validated.new.failure(f"It {problem.rstrip('.')}. {_NOTHING_SENT}")
            elif not isinstance(stored, str):
                yield Creation(
                    validated.new, self._datapoint_factory(validated, stored, items), self.breaker, validated.detail
                )

    def _storage_of(self, new: NewTask) -> str | None:
        """Return the storage that has a task's items; None if they are files to upload.

        :raises RedBrickInputError: if the description and the operator name different storages.
        """
        if None not in {new.storage_id, self.storage_id} and new.storage_id != self.storage_id:
            raise RedBrickInputError(f"its storageId is {new.storage_id}, but the operator's is {self.storage_id}")
        return new.storage_id or self.storage_id

    def _validate(self, new: NewTask, items: Items) -> _ValidatedTask:
        """Check what can be checked of a task before its labels are converted.

        :raises RedBrickInputError: if the task cannot be created.
        """
        is_ground_truth = self.is_ground_truth if new.is_ground_truth is None else new.is_ground_truth
        if is_ground_truth and not new.specifies_labels:
            raise RedBrickInputError("ground truth needs labels; an empty list is sufficient")
        pre_assign = self.assignees.check(new.pre_assign)
        files = new.files
        item_names = {name: name for name in files}
        storage_id = self._storage_of(new)
        if storage_id is None:
            items.check(files)
            item_names = {name: f"{i}/{file_name(name)}" for i, name in enumerate(files)}
        else:
            check_names(files)
        problem = new.misplaced
        if problem is not None:
            raise RedBrickInputError(problem)
        masked = self.converter.take_masks(new.name, new.body, copies=new.copies)
        missing_mask = next((mask for mask in masked.masks if mask.file is None), None)
        if missing_mask is not None:
            raise RedBrickInputError(f"series {missing_mask.series}: there is no mask file {missing_mask.stored!r}")
        return _ValidatedTask(new, masked, item_names, pre_assign, storage_id, is_ground_truth=is_ground_truth)

    def _datapoint_factory(
        self, validated: _ValidatedTask, stored: Mapping[str, Any], items: Items
    ) -> Callable[[], Datapoint]:
        new, project = validated.new, self.project

        @cache
        def datapoint() -> Datapoint:
            files = new.files
            stored_paths = (
                {name: name for name in files} if validated.storage_id else items.store(files, task_name=new.name)
            )
            path_of = {item_name: stored_paths[name] for name, item_name in validated.item_names.items()}
            masks = labels_map(validated.masked.masks, project.files, new.name)
            labels = (stored.get("labels") or []) if new.specifies_labels else None
            heat_maps = [{**entry, "item": path_of[entry["item"]]} for entry in stored.get("heatMaps") or ()]
            return Datapoint(
                name=new.name,
                storage_id=validated.storage_id or REDBRICK_STORAGE,
                items=[path_of[item] for item in stored["items"]],
                layout={**stored, "heatMaps": heat_maps or None},
                labels=project.files.label_variables(labels, masks, task_id=new.name),
                is_ground_truth=validated.is_ground_truth,
                metadata=new.metadata,
                pre_assign=validated.pre_assign,
                priority=new.priority,
            )

        return datapoint


@dataclass(frozen=True)
class _ValidatedTask:
    """A validated task.

    :param new: the task's description.
    :param masked: its labels and their masks.
    :param item_names: the name of each item in the conversion.
    :param pre_assign: the validated assignees by stage.
    :param storage_id: the external storage that holds its items; None to upload them.
    :param is_ground_truth: whether the task is created in ground truth.
    """

    new: NewTask
    masked: Masked
    item_names: Mapping[str, str]
    pre_assign: PreAssign | None
    storage_id: str | None
    is_ground_truth: bool

    @property
    def detail(self) -> dict[str, str]:
        """The report fields of the created task."""
        if not self.new.specifies_labels:
            return {}
        return {"labels_sha256": content_hash(self.new.body, self.masked.digests)}


def _items_problem(stored: Mapping[str, Any], validated: _ValidatedTask, task: Mapping[str, Any]) -> str | None:
    """Return an error message if the items of a converted task are wrong."""
    item_names = set(validated.item_names.values())
    entries = stored.get("heatMaps") or ()
    items = [*(stored.get("items") or ()), *(entry.get("item") for entry in entries)]
    if not stored.get("items") or not item_names.issuperset(items):
        return "could not be checked: RedBrick's conversion changed its items"
    return _series_items_problem(stored, [listed(series["items"]) for series in task["series"]])


def _series_items_problem(stored: Mapping[str, Any], series_items: Sequence[Sequence[str]]) -> str | None:
    """Return an error message if a converted task's items differ from the series'."""
    items, infos = stored["items"], stored.get("seriesInfo") or ()
    missing = {item for series in series_items for item in series}.difference(items)
    if missing:
        count = len({item for series in series_items for item in series})
        return f"cannot be sent: RedBrick's conversion lost items ({count} given, {count - len(missing)} converted)"
    if len(infos) != len(series_items) and not (len(series_items) == 1 and not infos):
        return f"cannot be sent: RedBrick's conversion lost series ({len(series_items)} given, {len(infos)} converted)"
    for index, (info, series) in enumerate(zip(infos, series_items, strict=False)):
        indices = info.get("itemsIndices") or ()
        converted_items = {items[index_in_items] for index_in_items in indices if index_in_items < len(items)}
        if converted_items != set(series):
            return (
                f"cannot be sent: RedBrick's conversion changed the items of series {index} ({len(set(series))} given, "
                f"{len(converted_items.intersection(series))} converted)"
            )
    return None


ALREADY_EXISTS = "a task with this name already exists"
_NOT_CREATED = "The task was not created"


@dataclass(frozen=True)
class Creation(Mutation):
    """Create a task; after a lost answer, its name shows whether it was created.

    :param new: the task's description.
    :param datapoint: uploads the task's files on the first call only, and returns the task.
    :param breaker: refuses further attempts while RedBrick does not answer.
    :param detail: the report fields of a created task.
    """

    new: NewTask
    datapoint: Callable[[], Datapoint]
    breaker: CircuitBreaker
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The task's name."""
        return self.new.name

    def record_success(self, ledger: Ledger, outcome: Outcome) -> None:
        """Record that a read must find the task before the operator returns.

        :param ledger: the ledger of the run.
        :param outcome: the outcome of the creation, with the task's id.
        """
        ledger.wrote(outcome.task_id, lambda _task: True)

    @property
    def not_applied_message(self) -> str:
        """The message for a lookup that finds no such task."""
        return "Its name was looked up afterwards and no task has it"

    def attempt(self, project: RedBrickProject) -> Outcome:
        """Upload the task's files and create it."""
        if self.breaker.is_open:
            return self.failure(NOT_ATTEMPTED)
        try:
            datapoint = self.datapoint()
        except RedBrickInputError as error:
            return self.failure(f"{error}. {_NOT_CREATED}")
        except RedBrickAPIError as error:
            self.breaker.record(error)
            return self.failure(f"{error} {_NOT_CREATED}")
        self.breaker.record(None)
        created = project.imports.create(datapoint)
        copies = {"task_ids": list(created.task_ids)} if len(created.task_ids) > 1 else {}
        return done(created.task_ids[0], name=self.new.name, dp_id=created.dp_id, **copies, **self.detail)

    def verify(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Look up the task's name; return None if no task has it.

        :param project: the project.
        :param errors: the errors of the attempts to create it.
        """
        task_ids = project.find_by_name([self.new.name])[self.new.name]
        if not task_ids:
            return None
        if all(isinstance(error, RedBrickRefusedError) for error in errors):
            # No answer was lost, so another client created the task first.
            return already_done(task_ids[0], ALREADY_EXISTS, name=self.new.name)
        return done(task_ids[0], name=self.new.name, **self.detail)

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not created."""
        return self.new.failure(reason)


PreAssign = Mapping[str, "str | Sequence[str]"]
"""One email or several, by stage."""


@dataclass(frozen=True)
class Assignees:
    """Validate assignees; the project's members are read on first use.

    :param project: the project.
    """

    project: RedBrickProject
    _missing: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def check(self, wanted: PreAssign | None) -> PreAssign | None:
        """Return the assignees with each email in the project's spelling.

        :param wanted: by stage, one email or several; None for no assignees.
        :raises RedBrickInputError: if a stage does not exist, or a member has no access to it.
        """
        if not wanted:
            return None
        return {stage: self._normalized(self._stage(stage), emails) for stage, emails in wanted.items()}

    def _normalized(self, stage: Stage, emails: str | Sequence[str]) -> str | list[str]:
        requested = [emails] if isinstance(emails, str) else emails
        try:
            members = list(check_people(self._members, stage, requested))
        except RedBrickInputError as error:
            raise RedBrickInputError(f"preAssign, {stage.name}: {error}") from None
        return members[0] if isinstance(emails, str) else members

    def _stage(self, name: str) -> Stage:
        stages = self._stages()
        if name not in stages and name not in self._missing:
            # The stage, and members with access to it, may have been added since the project was read.
            self._missing.add(name)
            forget(self.project)
            vars(self).pop("_members", None)
            stages = self._stages()
        if name not in stages:
            raise RedBrickInputError(
                f"preAssign: {name!r} is not a label or review stage of the project. "
                f"Its stages are {', '.join(stages)}."
            )
        return stages[name]

    def _stages(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.project.info.workflow.stages if stage.is_label or stage.is_review}

    @cached_property
    def _members(self) -> list[Member]:
        return self.project.members()
