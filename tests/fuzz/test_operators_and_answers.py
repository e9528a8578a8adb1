"""Every operator and sensor against a server of which any answer may be anything."""

from __future__ import annotations

import shutil

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from fixtures import Run
from fuzz.meddler import Meddling
from fuzz.promises import promises, refuse_unsendable
from fuzz.replies import REPLIES
from fuzz.values import CHANGES, fuzzed
from fuzz.works import WORKS
from hypothesis import event, given
from hypothesis import strategies as st

MEDDLINGS = st.lists(st.builds(Meddling, st.integers(0, 14), CHANGES | CHANGES | CHANGES | REPLIES), max_size=4)


@pytest.mark.parametrize("kind", list(WORKS))
@fuzzed(8)
@given(meddlings=MEDDLINGS)
def test_whatever_the_server_answers(meddler, tmp_path, kind, meddlings):
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    meddler.sandbox.reset()
    operator = WORKS[kind](meddler.sandbox, tmp_path)
    meddler.begin(meddlings)
    run = Run()
    with promises(AirflowSensorTimeout) as watch:
        result = run.try_once(operator)
        refuse_unsendable(result)
        watch.tell(result)
    event(f"{type(watch.error).__name__} {str(watch.error)[:90]}")
    event(f"asked {len(meddler.documents)}")
    for manifest in run.xcoms.values():
        refuse_unsendable(manifest)
    watch.tell(operator, operator.hook, operator.hook.client, *vars(operator.hook.client).values())
    watch.tell(run.xcoms, {name: getattr(operator, name) for name in operator.template_fields})
    watch.tell(*(path.read_text(errors="replace") for path in tmp_path.rglob("*.jsonl")))
    watch.check()
