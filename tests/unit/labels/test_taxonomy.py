"""Labels that name things by id alone get the taxonomy's names."""

from __future__ import annotations

from airflow_provider_redbrick.labels.taxonomy import with_names

ATTRIBUTES = [
    {"name": "sure", "attrId": 0, "attrType": "BOOL"},
    {"name": "grade", "attrId": 1, "attrType": "SELECT", "options": [{"name": "low", "optionId": 4}]},
    {
        "name": "signs",
        "attrId": 2,
        "attrType": "MULTISELECT",
        "options": [{"name": "a", "optionId": 0}, {"name": "b", "optionId": 1}],
    },
]
TAXONOMY = {
    "isNew": True,
    "objectTypes": [{"category": "finding", "classId": 7, "attributes": ATTRIBUTES}],
    "studyClassify": [{"name": "quality", "attrId": 0, "attrType": "TEXT"}],
}


def test_categories_attributes_and_options_are_named():
    label = {
        "classid": 7,
        "attributes": [{"attrid": 0, "value": True}, {"attrid": 1, "optionid": 4}, {"attrid": 2, "optionid": [1, 0]}],
    }
    (named,) = with_names([label], TAXONOMY)
    assert named["category"] == "finding"
    assert [(each["name"], each["value"]) for each in named["attributes"]] == [
        ("sure", True),
        ("grade", "low"),
        ("signs", ["b", "a"]),
    ]
    assert "category" not in label, "what was given stays as it was"


def test_each_level_of_classification_has_its_own_attributes():
    (named,) = with_names([{"studyclassify": True, "attributes": [{"attrid": 0, "value": "fine"}]}], TAXONOMY)
    assert named["attributes"][0]["name"] == "quality"


def test_with_names_unknown_ids_are_unchanged():
    labels = [
        {"classid": 99, "category": "old", "attributes": [{"attrid": 5, "name": "x", "value": 1}]},
        {"attributes": None, "category": "plain"},
    ]
    assert with_names(labels, TAXONOMY) == labels
    assert with_names(labels, {"isNew": False}) == labels
    assert with_names(labels, {}) == labels
