"""GraphQL documents, one per operation, named as in the API.

The server's schema is not published. Selections contain only fields that are used, and that the public SDK requests
at the same place.
"""

from __future__ import annotations

from typing import NamedTuple

_USER = "userId email"

_STAGE = """
stageName brickName
routing {
  ... on NoRouting { placeholder }
  ... on NextRouting { nextStageName }
  ... on MultiRouting { stageNames }
  ... on BooleanRouting { passed failed }
  ... on FeedbackRouting { feedbackStageName }
}
"""

_LISTED_TASK = f"""
taskId currentStageName createdAt updatedAt priority
datapoint {{ dpId name metaData }}
currentStageSubTask {{
  ... on LabelingTask {{ state assignedTo {{ {_USER} }} assignedAt progressSavedAt }}
}}
"""

_TASK_PLACE = f"""
taskId currentStageName createdAt updatedAt
datapoint {{ name }}
currentStageSubTask {{ ... on LabelingTask {{ state assignedTo {{ {_USER} }} }} }}
"""

_TASK_STATE = f"""
taskId currentStageName updatedAt
datapoint {{ name seriesInfo {{ itemsIndices }} }}
currentStageSubTask {{ ... on LabelingTask {{ state assignedTo {{ {_USER} }} }} }}
latestTaskData {{
  tdId createdAt createdByEntity {{ {_USER} }}
  labelsMap(presigned: false) {{ seriesIndex labelName }}
}}
"""

_TASK_LABELS = f"""
taskId
latestTaskData {{
  createdByEntity {{ {_USER} }}
  labelsData(interpolate: true)
  labelsDataPath(presigned: false)
  labelsMap(presigned: false) {{ labelName }}
}}
"""

_TASK_FULL = f"""
taskId currentStageName updatedAt priority
datapoint {{
  dpId name metaData
  items(presigned: false)
  itemsPresigned: items(presigned: true)
  seriesInfo {{ name itemsIndices dataType metaData imageHeaders }}
}}
currentStageSubTask {{ ... on LabelingTask {{ state assignedTo {{ {_USER} }} }} }}
latestTaskData {{
  tdId createdAt createdByEntity {{ {_USER} }}
  labelsData(interpolate: true)
  labelsDataPath(presigned: true)
  labelsMap(presigned: false) {{ seriesIndex imageIndex labelName }}
}}
"""

_TASK_TO_EXPORT = f"""
taskId currentStageName createdAt updatedAt priority
datapoint {{
  name metaData
  items(presigned: false)
  seriesInfo {{ name itemsIndices metaData imageHeaders }}
  heatMaps {{ seriesIndex name item preset dataRange opacityPoints opacityPoints3d rgbPoints }}
  transforms {{ seriesIndex transform }}
  centerline {{ seriesIndex name centerline }}
  storageMethod {{ storageId }}
}}
latestTaskData {{
  tdId createdAt createdByEntity {{ {_USER} }}
  labelsData(interpolate: true)
  labelsDataPath(presigned: true)
  labelsMap(presigned: false) {{ seriesIndex imageIndex labelName }}
  labelsMapPresigned: labelsMap(presigned: true) {{ labelName }}
}}
"""

_TASK_EVENTS = """
taskId currentStageName
genericEvents {
  __typename
  ... on TaskEvent {
    createdAt updatedBy
    outputEvent { currentStageName nextStageName outputBool extraData }
  }
}
"""

_TASK_HOLDERS = f"""
taskId currentStageName
genericEvents {{
  __typename
  ... on TaskStateChanges {{
    createdAt stageName updatedBy assignedToBeforeEntity {{ {_USER} }} assignedToAfterEntity {{ {_USER} }}
  }}
}}
"""

ME = "query me { me { userId } }"

ORGANIZATION = "query organization($orgId: UUID!) { organization(orgId: $orgId) { orgId name } }"

_ATTRIBUTE = "name attrType attrId archived options { name optionId archived } minValue maxValue"

_TAXONOMY = f"""
taxonomy {{
  name isNew
  studyClassify {{ {_ATTRIBUTE} }}
  seriesClassify {{ {_ATTRIBUTE} }}
  instanceClassify {{ {_ATTRIBUTE} }}
  objectTypes {{ category classId labelType archived parents attributes {{ {_ATTRIBUTE} }} }}
}}
"""

_PROJECT = f"orgId projectId name status projectUrl consensusSettings {{ enabled }} stages {{ {_STAGE} }}"


def _project(selection: str) -> str:
    return f"""query project($orgId: UUID!, $projectId: UUID!) {{
  project(orgId: $orgId, projectId: $projectId) {{ {selection} }}
}}"""


PROJECT = _project(_PROJECT)

# Large and rarely needed.
TAXONOMY = _project(_TAXONOMY)

PROJECT_WITH_TAXONOMY = _project(_PROJECT + _TAXONOMY)

PROJECT_MEMBERS = f"""query projectMembers($orgId: UUID!, $projectId: UUID!) {{
  projectMembers(orgId: $orgId, projectId: $projectId) {{
    member {{ user {{ {_USER} }} active }} role stageAccess {{ stageName access }}
  }}
}}"""


def _tasks_paged(selection: str) -> str:
    return f"""query tasksPaged(
  $orgId: UUID!, $projectId: UUID!, $stageName: String, $cacheTime: DateTime, $first: Int, $after: String
) {{
  tasksPaged(
    orgId: $orgId, projectId: $projectId, stageName: $stageName, cacheTime: $cacheTime, first: $first, after: $after
  ) {{ entries {{ {selection} }} cursor cacheTime }}
}}"""


# All stored data of a stage's tasks.
TASKS_TO_EXPORT = _tasks_paged(_TASK_TO_EXPORT)

# Only what a watermark needs: ids and the time of the last change.
TASKS_CHANGED = _tasks_paged("taskId currentStageName createdAt updatedAt")

GENERIC_TASKS = f"""query genericTasks(
  $orgId: UUID!, $projectId: UUID!, $stageName: String, $taskSearch: String,
  $manualLabelingFilters: TasksFilter, $first: Int, $after: String
) {{
  genericTasks(
    orgId: $orgId, projectId: $projectId, stageName: $stageName, taskSearch: $taskSearch,
    manualLabelingFilters: $manualLabelingFilters, first: $first, after: $after
  ) {{ entries {{ {_LISTED_TASK} }} cursor }}
}}"""

VALIDATE_AND_CONVERT_TO_IMPORT_FORMAT = """query validateAndConvertToImportFormat(
  $original: String!, $convert: Boolean, $storageId: UUID
) {
  validateAndConvertToImportFormat(original: $original, convert: $convert, storageId: $storageId) {
    isValid error converted
  }
}"""

PRESIGN_UPLOADS = """query presignUploads(
  $orgId: UUID!, $projectId: UUID!, $files: [String!]!, $fileType: String!, $fileEncoding: String
) {
  presignUploads(
    orgId: $orgId, projectId: $projectId, files: $files, fileType: $fileType, fileEncoding: $fileEncoding
  ) { presignedUrl filePath fileName }
}"""

ITEMS_UPLOAD_PRESIGN = """query itemsUploadPresign(
  $orgId: UUID!, $projectId: UUID!, $files: [String]!, $fileType: [String]!
) {
  itemsUploadPresign(orgId: $orgId, projectId: $projectId, files: $files, fileType: $fileType) {
    items { presignedUrl filePath }
  }
}"""

ASSIGN_TASKS_MULTIPLE_USERS = """mutation assignTasksMultipleUsers(
  $orgId: UUID!, $projectId: UUID!, $taskIds: [UUID!]!, $emails: [String!], $currentUser: Boolean, $refresh: Boolean
) {
  assignTasksMultipleUsers(
    orgId: $orgId, projectId: $projectId, taskIds: $taskIds,
    emails: $emails, currentUser: $currentUser, refresh: $refresh
  ) { taskId stageName }
}"""

PUT_MANUAL_LABELING_TASK_AND_LABELS = """mutation putManualLabelingTaskAndLabels(
  $orgId: UUID!, $projectId: UUID!, $stageName: String!, $taskId: UUID!, $elapsedTimeMs: Int!, $finished: Boolean!,
  $labelsData: String, $labelsDataPath: String, $labelsMap: [LabelMapInput]
) {
  putManualLabelingTaskAndLabels(
    orgId: $orgId, projectId: $projectId, stageName: $stageName, taskId: $taskId, elapsedTimeMs: $elapsedTimeMs,
    finished: $finished, labelsData: $labelsData, labelsDataPath: $labelsDataPath, labelsMap: $labelsMap
  ) { ok }
}"""

PUT_LABELS = """mutation putLabels(
  $orgId: UUID!, $projectId: UUID!, $taskId: UUID!, $labelsData: String, $labelsDataPath: String,
  $labelsMap: [LabelMapInput], $finalize: Boolean, $timeSpentMs: Int, $extraData: JSONString
) {
  putLabels(
    orgId: $orgId, projectId: $projectId, taskId: $taskId, labelsData: $labelsData, labelsDataPath: $labelsDataPath,
    labelsMap: $labelsMap, finalize: $finalize, timeSpentMs: $timeSpentMs, extraData: $extraData
  ) { ok message }
}"""

PUT_MANUAL_LABELING_TASK = """mutation putManualLabelingTask(
  $orgId: UUID!, $projectId: UUID!, $stageName: String!, $taskId: UUID!
) {
  putManualLabelingTask(orgId: $orgId, projectId: $projectId, stageName: $stageName, taskId: $taskId) { ok }
}"""

PUT_EXPERT_REVIEW_TASK = """mutation putExpertReviewTask(
  $orgId: UUID!, $projectId: UUID!, $stageName: String!, $taskId: UUID!, $reviewVal: Boolean!,
  $comment: String, $elapsedTimeMs: Int!
) {
  putExpertReviewTask(
    orgId: $orgId, projectId: $projectId, stageName: $stageName, taskId: $taskId, reviewVal: $reviewVal,
    comment: $comment, elapsedTimeMs: $elapsedTimeMs
  ) { ok }
}"""

# Operations of the API's first generation, for remote-labeling stages.

STAGE = """query stage($orgId: UUID!, $projectId: UUID!, $stageName: String!) {
  stage(orgId: $orgId, projectId: $projectId, stageName: $stageName) {
    outputType outputTaxonomyName outputTaxonomyVersion
  }
}"""

STAGE_STAT = """query stageStat($orgId: UUID!, $projectId: UUID!, $stageName: String!) {
  stageStat(orgId: $orgId, projectId: $projectId, stageName: $stageName) { currentTaskCount }
}"""

STAGE_TAXONOMY = """query taxonomy($orgId: UUID!, $name: String!, $version: Int!) {
  taxonomy(orgId: $orgId, name: $name, version: $version) {
    categories { name children { name children { name children { name children { name } } } } }
  }
}"""

TASKS_TO_LABEL_REMOTE = """query tasksToLabelRemote(
  $orgId: UUID!, $projectId: UUID!, $stageName: String!, $numTasks: Int!
) {
  tasksToLabelRemote(orgId: $orgId, projectId: $projectId, stageName: $stageName, numTasks: $numTasks) { taskId }
}"""

PUT_STAGE_LABELS = """mutation putLabels(
  $orgId: UUID!, $projectId: UUID!, $dpId: UUID!, $stageName: String!, $subName: String!, $labels: [LabelInput]!,
  $taxonomyName: String!, $taxonomyVersion: Int!, $tdType: TaskDataType!
) {
  putLabels(
    orgId: $orgId, projectId: $projectId, dpId: $dpId, stageName: $stageName, subName: $subName, labels: $labels,
    taxonomyName: $taxonomyName, taxonomyVersion: $taxonomyVersion, tdType: $tdType
  ) { ok }
}"""

PUT_REMOTE_LABELING_TASK = """mutation putRemoteLabelingTask($finishedTask: RemoteLabelingTaskInput!) {
  putRemoteLabelingTask(finishedTask: $finishedTask) { ok }
}"""

# Operations of the current API.

CREATE_DATAPOINT = """mutation createDatapoint(
  $orgId: UUID!, $projectId: UUID!, $name: String!, $storageId: UUID!, $items: [String!]!,
  $seriesInfo: [SeriesInfoInput!], $heatMaps: [HeatMapInput!], $transforms: [TransformInput!],
  $centerline: [CenterlineInput!], $labelsData: String, $labelsDataPath: String, $labelsMap: [LabelMapInput],
  $metaData: String, $isGroundTruth: Boolean!, $preAssign: String, $priority: Float
) {
  createDatapoint(
    orgId: $orgId, projectId: $projectId, name: $name, storageId: $storageId, items: $items,
    seriesInfo: $seriesInfo, heatMaps: $heatMaps, transforms: $transforms,
    centerline: $centerline, labelsData: $labelsData, labelsDataPath: $labelsDataPath, labelsMap: $labelsMap,
    metaData: $metaData, isGroundTruth: $isGroundTruth, preAssign: $preAssign, priority: $priority
  ) { dpId taskId taskIds }
}"""

MOVE_TASK_TO_START = """mutation moveTaskToStart($orgId: UUID!, $projectId: UUID!, $taskId: UUID!) {
  moveTaskToStart(orgId: $orgId, projectId: $projectId, taskId: $taskId) { ok }
}"""


class AliasedRead(NamedTuple):
    """A query that repeats one root field under aliases, each with its own value of one argument.

    :param alias: prefix of the aliases: ``t`` for ``t0``, ``t1``, ...
    :param root: the root field.
    :param argument: the argument that differs.
    :param variable: prefix of its variables: ``id`` for ``id0``, ``id1``, ...
    :param kind: the type of these variables; none may be null.
    :param selection: the fields to read.
    :param options: further arguments, the same for all.
    """

    alias: str
    root: str
    argument: str
    variable: str
    kind: str
    selection: str
    options: str = ""


_TASK = ("t", "task", "taskId", "id", "UUID")

TASK_PLACES = AliasedRead(*_TASK, _TASK_PLACE)
"""Read the stage, state and assignee of tasks."""

TASK_STATES = AliasedRead(*_TASK, _TASK_STATE)
"""Also read who labeled the tasks last."""

TASKS_WITH_LABELS = AliasedRead(*_TASK, _TASK_LABELS)
"""Read the current labels of tasks, or the path of their file."""

TASKS_IN_FULL = AliasedRead(*_TASK, _TASK_FULL)
"""Read all that a callable is given: items' URLs and current labels too."""

TASKS_TO_EXPORT_BY_ID = AliasedRead(*_TASK, _TASK_TO_EXPORT)
"""Read by id what :data:`TASKS_TO_EXPORT` lists."""

TASK_EVENTS = AliasedRead(*_TASK, _TASK_EVENTS)
"""Read which stage the tasks left, when, and who did it."""

TASK_HOLDERS = AliasedRead(*_TASK, _TASK_HOLDERS)
"""Read the history of the tasks' assignees."""

TASK_COUNTS = AliasedRead("c", "tasksPaged", "stageName", "stage", "String", "count", "first: 0")
"""Count the tasks of stages, with variables ``stage0``, ``stage1``, ..."""

TASKS_BY_NAME = AliasedRead(
    "n", "genericTasks", "taskSearch", "name", "String", "entries { taskId datapoint { name } } cursor", "first: 10"
)
"""Look up exact task names, with variables ``name0``, ``name1``, ... (names in quotes)."""
