"""GraphQL documents and helper functions for the sandbox tests."""

from __future__ import annotations

import base64
import gzip
import json

import requests

ASSIGN = """mutation ($o: UUID!, $p: UUID!, $ids: [UUID!]!, $emails: [String!], $me: Boolean, $refresh: Boolean) {
    assignTasksMultipleUsers(orgId: $o, projectId: $p, taskIds: $ids, emails: $emails, currentUser: $me,
        refresh: $refresh) { taskId name stageName } }"""
PUT = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $s: String!, $f: Boolean!, $l: String, $path: String) {
    putManualLabelingTaskAndLabels(orgId: $o, projectId: $p, taskId: $t, stageName: $s, elapsedTimeMs: 0,
        finished: $f, labelsData: $l, labelsDataPath: $path) { ok } }"""
REVIEW = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $s: String!, $v: Boolean!, $c: String) {
    putExpertReviewTask(orgId: $o, projectId: $p, taskId: $t, stageName: $s, reviewVal: $v, elapsedTimeMs: 0,
        comment: $c) { ok } }"""
REOPEN = """mutation ($o: UUID!, $p: UUID!, $t: UUID!) {
    moveTaskToStart(orgId: $o, projectId: $p, taskId: $t) { ok } }"""
MOVE = """mutation ($o: UUID!, $p: UUID!, $ids: [UUID!]!, $s: String!) {
    moveTasks(orgId: $o, projectId: $p, taskIds: $ids, stageName: $s) { ok message } }"""
LIST = """query ($o: UUID!, $p: UUID!, $s: String, $q: String, $m: TasksFilter, $first: Int, $after: String) {
    genericTasks(orgId: $o, projectId: $p, stageName: $s, taskSearch: $q, manualLabelingFilters: $m,
        first: $first, after: $after) { entries { taskId currentStageName datapoint { name } } cursor } }"""
PAGED = """query ($o: UUID!, $p: UUID!, $s: String, $since: DateTime, $first: Int, $after: String) {
    tasksPaged(orgId: $o, projectId: $p, stageName: $s, cacheTime: $since, first: $first, after: $after) {
        count cursor cacheTime entries { taskId } } }"""
PRESIGN = """query ($o: UUID!, $p: UUID!, $files: [String!]!, $kind: String!, $enc: String) {
    presignUploads(orgId: $o, projectId: $p, files: $files, fileType: $kind, fileEncoding: $enc) {
        presignedUrl filePath fileName } }"""
BOX = {"category": "finding", "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}}


def ask(sandbox, document, **variables):
    """Send a document for the demo project (or project `p`) and return the whole response."""
    return sandbox.graphql(document, {"o": sandbox.org_id, "p": sandbox.project_id, **variables}, strict=False)


def data(sandbox, document, **variables):
    """Send a document that must succeed and return the value of its root field."""
    answer = ask(sandbox, document, **variables)
    assert "errors" not in answer, answer["errors"]
    (value,) = answer["data"].values()
    return value


def error(sandbox, document, **variables):
    """Send a document that must be refused and return the message."""
    answer = ask(sandbox, document, **variables)
    assert len(answer["errors"]) == 1, answer
    assert answer["errors"][0]["path"], answer
    return answer["errors"][0]["message"]


def claim(sandbox, *ids, **options):
    return data(sandbox, ASSIGN, ids=list(ids), me=True, **options)


def submit(sandbox, task_id, stage="Label", labels=(BOX,), **options):
    return data(sandbox, PUT, t=task_id, s=stage, f=True, l=json.dumps(list(labels)), **options)


def encoded(query, variables=None):
    """Encode a body as current clients do."""
    return base64.b64encode(gzip.compress(json.dumps({"query": query, "variables": variables}).encode()))


def post(sandbox, body, path="/graphql/", **headers):
    return requests.post(f"{sandbox.url}{path}", data=body, headers=headers, timeout=30)
