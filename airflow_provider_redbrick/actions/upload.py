"""Create tasks, once per name.

1. Names are looked up first; a task whose name exists is not created again.
2. Everything that can fail without a side effect is checked before the first upload: items, labels, assignees.
3. Files are uploaded once per task, even if the creation request is repeated.
4. After a lost answer, the name is looked up to determine whether the task was created.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.actions.task_specs import NewTask, listed
from airflow_provider_redbrick.actions.upload_items import Items, check_names
from airflow_provider_redbrick.annotations.conversion import convert_all
from airflow_provider_redbrick.annotations.masks import labels_map
from airflow_provider_redbrick.annotations.snapshot import content_hash
from airflow_provider_redbrick.assignments.assign import check_people
from airflow_provider_redbrick.client.operations.account import REDBRICK_STORAGE
from airflow_provider_redbrick.client.operations.project import forget
from airflow_provider_redbrick.client.operations.uploads import Datapoint, file_name
from airflow_provider_redbrick.engine.executor import apply_all
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
    """Creates tasks that are not there yet.

    :param converter: makes labels ready to be sent; also knows how files are found.
    :param storage_id: where the items are already, of tasks that do not say so themselves; None to bring files into
        RedBrick's own storage.
    :param is_ground_truth: put tasks straight into ground truth, where their descriptions say nothing of it.
    :param may_open: raises for the name of a file that must not be opened.
    """

    project: RedBrickProject
    converter: Converter
    storage_id: str | None = None
    is_ground_truth: bool = False
    may_open: Callable[[str], None] | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)

    @cached_property
    def assignees(self) -> Assignees:
        """The assignees that tasks may have."""
        return Assignees(self.project)

    def run(self, given: Iterable[NewTask | Outcome]) -> Iterator[Outcome]:
        """Create tasks and yield exactly one outcome for each.

        :param given: descriptions with distinct names, and the outcomes of invalid descriptions.
        """
        at_a_time = self.project.client.max_concurrency
        store = Items(self.project.imports, self.converter.open_file, at_a_time=at_a_time, may_open=self.may_open)
        with store as items:
            for chunk in in_chunks(given, CHUNK):
                yield from (one for one in chunk if isinstance(one, Outcome))
                yield from self._bring_in([one for one in chunk if isinstance(one, NewTask)], items)

    def _bring_in(self, chunk: Sequence[NewTask], items: Items) -> Iterator[Outcome]:
        """Create the tasks that do not exist yet."""
        if not chunk:
            return
        missing: list[NewTask] = []
        found = find_ids_by_name(self.project, [new.name for new in chunk], self.breaker)
        for new in chunk:
            task_ids = found[new.name]
            if isinstance(task_ids, str):
                yield new.failure(task_ids)
            elif task_ids:
                yield already_done(task_ids[0], THERE, name=new.name)
            else:
                missing.append(new)
        steps = list(self._plan(missing, items))
        yield from (step for step in steps if isinstance(step, Outcome))
        yield from apply_all(self.project, [step for step in steps if isinstance(step, Creation)])

    def _plan(self, chunk: Sequence[NewTask], items: Items) -> Iterator[Creation | Outcome]:
        """Validate and convert tasks; yield a creation or a failure for each."""
        ready: dict[str, tuple[_Ready, dict[str, Any]]] = {}
        for new in chunk:
            if self.breaker.is_open:
                yield new.failure(NOT_ATTEMPTED)
                continue
            try:
                one = self._ready(new, items)
                ready[new.name] = one, new.to_import(one.masked.body, one.called)
            except RedBrickInputError as error:
                yield new.failure(f"{str(error).rstrip('.')}. {_NOTHING_SENT}")
            except RedBrickAPIError as error:
                self.breaker.record(error)
                yield new.failure(f"It could not be checked: {str(error).rstrip('.')}. {_NOTHING_SENT}")
        tasks = [(name, task) for name, (_, task) in ready.items()]
        converted = convert_all(self.project.client, tasks, layout=True)
        for name, stored in converted.items():
            one, task = ready[name]
            problem = stored if isinstance(stored, str) else _strange(stored, one, task)
            if problem is not None:
                yield one.new.failure(f"It {problem.rstrip('.')}. {_NOTHING_SENT}")
            elif not isinstance(stored, str):
                yield Creation(one.new, self._maker(one, stored, items), self.breaker, one.detail)

    def _storage_of(self, new: NewTask) -> str | None:
        """Return the storage that has a task's items; None if they are files to upload.

        :raises RedBrickInputError: if the description and the operator name different storages.
        """
        if None not in {new.storage_id, self.storage_id} and new.storage_id != self.storage_id:
            raise RedBrickInputError(f"its storageId is {new.storage_id}, but the operator's is {self.storage_id}")
        return new.storage_id or self.storage_id

    def _ready(self, new: NewTask, items: Items) -> _Ready:
        """Check what can be checked of a task before its labels are converted.

        :raises RedBrickInputError: when it cannot be created.
        """
        is_ground_truth = self.is_ground_truth if new.is_ground_truth is None else new.is_ground_truth
        if is_ground_truth and not new.says_labels:
            raise RedBrickInputError("ground truth needs labels, if only an empty list of them")
        pre_assign = self.assignees.check(new.pre_assign)
        files = new.files
        called = {name: name for name in files}
        storage_id = self._storage_of(new)
        if storage_id is None:
            items.check(files)
            called = {name: f"{i}/{file_name(name)}" for i, name in enumerate(files)}
        else:
            check_names(files)
        problem = new.misplaced
        if problem is not None:
            raise RedBrickInputError(problem)
        masked = self.converter.take_masks(new.name, new.body, copies=new.copies)
        stray = next((mask for mask in masked.masks if mask.file is None), None)
        if stray is not None:
            raise RedBrickInputError(f"series {stray.series}: there is no mask file {stray.stored!r}")
        return _Ready(new, masked, called, pre_assign, storage_id, is_ground_truth=is_ground_truth)

    def _maker(self, one: _Ready, stored: Mapping[str, Any], items: Items) -> Callable[[], Datapoint]:
        new, project = one.new, self.project

        @cache
        def datapoint() -> Datapoint:
            files = new.files
            kept = {name: name for name in files} if one.storage_id else items.store(files, task_name=new.name)
            path_of = {called: kept[name] for name, called in one.called.items()}
            masks = labels_map(one.masked.masks, project.files, new.name)
            labels = (stored.get("labels") or []) if new.says_labels else None
            heat_maps = [{**entry, "item": path_of[entry["item"]]} for entry in stored.get("heatMaps") or ()]
            return Datapoint(
                name=new.name,
                storage_id=one.storage_id or REDBRICK_STORAGE,
                items=[path_of[item] for item in stored["items"]],
                layout={**stored, "heatMaps": heat_maps or None},
                labels=project.files.label_variables(labels, masks, task_id=new.name),
                is_ground_truth=one.is_ground_truth,
                metadata=new.metadata,
                pre_assign=one.pre_assign,
                priority=new.priority,
            )

        return datapoint


@dataclass(frozen=True)
class _Ready:
    """A task that nothing speaks against.

    :param called: what the conversion is told its items are called.
    :param storage_id: the storage that has its items already, if one has.
    """

    new: NewTask
    masked: Masked
    called: Mapping[str, str]
    pre_assign: PreAssign | None
    storage_id: str | None
    is_ground_truth: bool

    @property
    def detail(self) -> dict[str, str]:
        """What the report says of the task once it is created."""
        if not self.new.says_labels:
            return {}
        return {"labels_sha256": content_hash(self.new.body, self.masked.digests)}


def _strange(stored: Mapping[str, Any], one: _Ready, task: Mapping[str, Any]) -> str | None:
    """Return why the items of a converted task are wrong; None if they are not."""
    known = set(one.called.values())
    entries = stored.get("heatMaps") or ()
    items = [*(stored.get("items") or ()), *(entry.get("item") for entry in entries)]
    if not stored.get("items") or not known.issuperset(items):
        return "could not be checked: RedBrick made something else of its items"
    return _divided(stored, [listed(series["items"]) for series in task["series"]])


def _divided(stored: Mapping[str, Any], given: Sequence[Sequence[str]]) -> str | None:
    """Return how the items of a converted task differ from those of its series."""
    items, infos = stored["items"], stored.get("seriesInfo") or ()
    missing = {item for series in given for item in series}.difference(items)
    if missing:
        count = len({item for series in given for item in series})
        return f"cannot be sent: RedBrick's conversion lost items: {count} given, {count - len(missing)} converted"
    if len(infos) != len(given) and not (len(given) == 1 and not infos):
        return f"cannot be sent: RedBrick's conversion lost series: {len(given)} given, {len(infos)} converted"
    for index, (info, series) in enumerate(zip(infos, given, strict=False)):
        places = info.get("itemsIndices") or ()
        found = {items[place] for place in places if place < len(items)}
        if found != set(series):
            return (
                f"cannot be sent: RedBrick's conversion gave series {index} other items: {len(set(series))} given, "
                f"{len(found.intersection(series))} converted"
            )
    return None


THERE = "a task with this name is there already"
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
        found = project.find_by_name([self.new.name])[self.new.name]
        if not found:
            return None
        if all(isinstance(error, RedBrickRefusedError) for error in errors):
            # No answer was lost, so another client created the task first.
            return already_done(found[0], THERE, name=self.new.name)
        return done(found[0], name=self.new.name, **self.detail)

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not created."""
        return self.new.failure(reason)


PreAssign = Mapping[str, "str | Sequence[str]"]
"""By stage, one email or several."""


@dataclass(frozen=True)
class Assignees:
    """Validate assignees; the project's members are read on first use.

    :param project: the project.
    """

    project: RedBrickProject
    _missing: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def check(self, wanted: PreAssign | None) -> PreAssign | None:
        """Return the assignees with each email as the project spells it.

        :raises RedBrickInputError: for a stage without assignees, or a member who may not work in it.
        """
        if not wanted:
            return None
        return {stage: self._spelled(self._stage(stage), emails) for stage, emails in wanted.items()}

    def _spelled(self, stage: Stage, emails: str | Sequence[str]) -> str | list[str]:
        given = [emails] if isinstance(emails, str) else emails
        try:
            people = list(check_people(self._members, stage, given))
        except RedBrickInputError as error:
            raise RedBrickInputError(f"preAssign, {stage.name}: {error}") from None
        return people[0] if isinstance(emails, str) else people

    def _stage(self, name: str) -> Stage:
        stages = self._stages()
        if name not in stages and name not in self._missing:
            # It may have been added since the project was read, and people with it.
            self._missing.add(name)
            forget(self.project)
            vars(self).pop("_members", None)
            stages = self._stages()
        if name not in stages:
            raise RedBrickInputError(
                f"preAssign: {name!r} is no label or review stage of the project; those are: {', '.join(stages)}."
            )
        return stages[name]

    def _stages(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.project.info.workflow.stages if stage.is_label or stage.is_review}

    @cached_property
    def _members(self) -> list[Member]:
        return self.project.members()
