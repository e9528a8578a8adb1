"""A list of tasks may name files in its own folder and in ``allowed_folders`` only."""

from __future__ import annotations

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fixtures import counts
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

SENT = ("createDatapoint", "itemsUploadPresign", "presignUploads", "putManualLabelingTaskAndLabels")
NAMES = ("absolute", "uri", "link", "folder_link")


def volume() -> bytes:
    data = np.zeros((3, 4, 5), np.uint8)
    data[1, 1, 1] = 1
    return gzip.compress(nib.Nifti1Image(data, np.eye(4)).to_bytes(), mtime=0)


@pytest.fixture
def folder(tmp_path):
    """The folder of a list, with an item, and links to a file outside of it."""
    folder, secrets = tmp_path / "inbox", tmp_path / "secrets"
    folder.mkdir()
    secrets.mkdir()
    (folder / "own.nii.gz").write_bytes(volume())
    (secrets / "secret.nii.gz").write_bytes(volume())
    (folder / "link.nii.gz").symlink_to("../secrets/secret.nii.gz")
    (folder / "dirlink").symlink_to(secrets)
    return folder


@pytest.fixture(params=NAMES)
def name(request, tmp_path):
    """A name in a list that leads to the outside file."""
    secret = tmp_path / "secrets" / "secret.nii.gz"
    names = (str(secret), f"file://{secret}", "link.nii.gz", "dirlink/secret.nii.gz")
    return dict(zip(NAMES, names, strict=True))[request.param]


@pytest.fixture
def sent(sandbox):
    """Return the number of requests that changed or stored data."""
    return lambda: sum(sandbox.stats()["root_fields"].get(field, 0) for field in SENT)


def item(name: str) -> dict:
    return {"name": "new", "items": ["own.nii.gz", name]}


def heat_map(name: str) -> dict:
    return {"name": "new", "series": [{"items": "own.nii.gz", "heatMaps": [{"name": "risk", "item": name}]}]}


def mask(name: str) -> dict:
    return {"name": "new", "series": [{"items": "own.nii.gz", "segmentations": name, "segmentMap": {"1": "lesion"}}]}


def masks(name: str) -> dict:
    segment_map = {"1": {"category": "lesion", "mask": name}}
    return {"name": "new", "series": [{"items": "own.nii.gz", "binaryMask": True, "segmentMap": segment_map}]}


REFUSED = r"leads out of the folder of .* and into none of allowed_folders"


@pytest.fixture
def attempt(run, new_run, sent):
    """Check that an operator refuses a name and sends nothing, and succeeds with the folder allowed."""

    def both(make, allowed: str, **options) -> None:
        with pytest.raises(RedBrickTasksFailedError, match=REFUSED):
            run.try_once(make(**options))
        assert sent() == 0
        made = make(**options, allowed_folders=["/nowhere", allowed])
        assert new_run().try_once(made)["counts"] == counts(done=1)

    return both


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("scheme", ["", "file://"])
class TestLocal:
    @pytest.mark.parametrize("describe", [item, heat_map, mask, masks])
    def test_tasks_path_files_need_allowed_folder(self, attempt, folder, name, scheme, describe):
        (folder / "tasks.jsonl").write_text(json.dumps(describe(name)))
        allowed, path = f"{scheme}{folder.parent}/secrets", f"{scheme}{folder}/tasks.jsonl"
        attempt(RedBrickUploadTasksOperator, allowed, task_id="upload", tasks_path=path)

    @pytest.mark.parametrize("describe", [mask, masks])
    def test_labels_path_masks_need_allowed_folder(self, sandbox, attempt, folder, name, scheme, describe):  # noqa: PLR0917
        (task_id,) = sandbox.seed_tasks(1)
        (folder / "labels.jsonl").write_text(json.dumps({**describe(name), "taskId": task_id}))
        allowed, path = str(folder.parent / "secrets"), f"{scheme}{folder}/labels.jsonl"
        attempt(RedBrickPutLabelsOperator, allowed, task_id="put", stage_name="Label", labels_path=path)

    def test_link_within_list_folder_is_followed(self, run, folder, scheme):
        """Kubernetes volumes contain such links."""
        (folder / "..data").mkdir()
        (folder / "..data" / "a.dcm").write_bytes(b"x")
        (folder / "a.dcm").symlink_to("..data/a.dcm")
        (folder / "tasks.jsonl").write_text(json.dumps(item("a.dcm")))
        made = RedBrickUploadTasksOperator(task_id="upload", tasks_path=f"{scheme}{folder}/tasks.jsonl")
        assert run.try_once(made)["counts"] == counts(done=1)


@pytest.mark.usefixtures("sandbox")
def test_files_named_in_dag_are_unrestricted(run, folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    made = RedBrickUploadTasksOperator(task_id="upload", tasks=[mask(name)])
    assert run.try_once(made)["counts"] == counts(done=1)


@pytest.mark.usefixtures("sandbox")
def test_other_bucket_needs_allowed_folder(attempt):
    attach(protocol="memory", conn_id="box", fs=MemoryFileSystem())
    for path in ("scans/day/own.nii.gz", "private/a.nii.gz"):
        (ObjectStoragePath("memory://box@scans").parent / path).parent.mkdir(parents=True, exist_ok=True)
        ObjectStoragePath(f"memory://box@{path}").write_bytes(volume())
    listed = json.dumps(item("memory://box@private/a.nii.gz")).encode()
    ObjectStoragePath("memory://box@scans/day/tasks.jsonl").write_bytes(listed)
    where = "memory://box@scans/day/tasks.jsonl"
    attempt(RedBrickUploadTasksOperator, "memory://box@private", task_id="upload", tasks_path=where)


@pytest.mark.parametrize("make", [RedBrickUploadTasksOperator, RedBrickPutLabelsOperator])
def test_allowed_folders_template_is_rendered_and_checked_first(sandbox, run, make, tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"name": "a", "items": "a.dcm"}')
    putting = {"labels_path": str(path), "stage_name": "Label"}
    where = putting if make is RedBrickPutLabelsOperator else {"tasks_path": str(path)}
    made = make(task_id="t", allowed_folders=["/in/{{ ds }}", "{{ folder }}"], **where)
    made.render_template_fields({"ds": "2024-05-01", "folder": "relative"})
    before = sandbox.stats()["requests"]
    with pytest.raises(RedBrickInputError, match=r"allowed_folders\[1\] must be an absolute path or a URI"):
        run.try_once(made)
    assert made.allowed_folders == ["/in/2024-05-01", "relative"]
    assert sandbox.stats()["requests"] == before


@pytest.mark.parametrize("make", [RedBrickUploadTasksOperator, RedBrickPutLabelsOperator])
def test_allowed_folders_in_partial_are_used(make):
    path = "tasks_path" if make is RedBrickUploadTasksOperator else "labels_path"
    mapped = make.partial(task_id="t", allowed_folders=["/in"]).expand(**{path: ["/a", "/b"]})
    assert mapped.partial_kwargs["allowed_folders"] == ["/in"]
