"""MiniStack's private names, one test each: an upgrade that drops or changes one fails here with its name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localcloud import LocalCloud
from localcloud.home import ControlError
from localcloud.hooks import application, privates
from localcloud.hooks.patches import Patches
from localcloud.hooks.privates import PRIVATES, difference, shape_of


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """MiniStack reads its environment when it is imported: a cloud has to be the first to do that."""
    with LocalCloud(tmp_path_factory.mktemp("first")):
        pass


NAMES = [(module, name) for module, names in PRIVATES.items() for name in names]


def test_there_are_as_many_as_were_written_down() -> None:
    assert len(NAMES) == 153


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{module}.{name}" for module, name in NAMES])
def test_a_private_name_is_there_and_unchanged(module: str, name: str) -> None:
    assert difference(module, name, PRIVATES[module][name]) == ""


def test_what_is_gone_or_changed_is_named() -> None:
    assert difference("services.s3", "_no_such", "()") == "ministack.services.s3._no_such is gone"
    changed = difference("services.s3", "_buckets", "dict")
    assert changed == "ministack.services.s3._buckets is AccountScopedDict, not dict"
    changed = difference("services.s3", "_put_bucket_tagging", "(name)")
    assert changed == "ministack.services.s3._put_bucket_tagging is (name, body), not (name)"


def test_a_shape_is_parameters_or_a_type() -> None:
    def function(a: int, b: int = 1, *, c: int = 2) -> None: ...

    assert [shape_of(one) for one in (function, Patches, {}, 1.5)] == ["(a, b=, *, c=)", "class", "dict", "float"]


def test_a_ministack_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(privates.PRIVATES["services.s3"], "_no_such", "()")
    monkeypatch.setattr(application, "privates", privates)
    with pytest.raises(ControlError) as error:
        LocalCloud(tmp_path / "home").start()
    assert str(error.value).startswith("this MiniStack doesn't fit localcloud: ministack.services.s3._no_such is gone.")
    assert "pip install" in str(error.value)
    assert "DOCKER_HOST" not in os.environ
    monkeypatch.undo()
    with LocalCloud(tmp_path / "home") as cloud:
        assert cloud.url


def test_it_starts_where_there_is_no_docker_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)  # as it is after `pip install` of localcloud alone
    with LocalCloud(tmp_path / "home") as cloud:
        assert cloud.url


def values() -> dict[tuple[str, str], Any]:
    """What each name stands for now; a table's content, where it is one."""
    import importlib

    found: dict[tuple[str, str], Any] = {}
    for module, name in NAMES:
        owner: Any = importlib.import_module(f"ministack.{module}")
        for part in name.split("."):
            owner = getattr(owner, part)
        found[module, name] = dict(owner) if type(owner) is dict else owner
    return found


REPLACED = {
    ("app", "_run_init_scripts"),
    ("app", "_run_ready_scripts"),
    ("core.iam_evaluator", "is_root_access_key"),
    ("core.lambda_runtime", "Worker._spawn"),
    ("core.lambda_runtime", "Worker.invoke"),
    ("core.lambda_runtime", "subprocess"),
    ("core.responses", "_account_from_sts_session"),
    ("services.lambda_svc", "_layer_content_url"),
    ("services.lambda_svc", "_presigned_code_url"),
    ("services.cloudformation.changesets", "_evaluate_conditions"),
    ("services.cloudformation.engine", "_evaluate_conditions"),
    ("services.cloudformation.handlers", "_evaluate_conditions"),
    ("services.cloudformation.provisioners", "_RESOURCE_HANDLERS"),
    ("services.cloudformation.provisioners", "_cw_metric_alarm_record"),
    ("services.cloudformation.provisioners", "_s3_apply_configurations"),
    ("services.cloudformation.stacks", "_evaluate_conditions"),
    ("services.cloudformation.stacks", "_runs_on_worker_thread"),
    ("services.cloudwatch", "_dispatch_alarm_actions"),
    ("services.cloudwatch", "_evaluate_alarm"),
    ("services.cloudwatch", "_evaluate_all_alarms"),
    ("services.cloudwatch", "_evict_old_metrics"),
    ("services.cloudwatch", "_get_metric_data"),
    ("services.cloudwatch", "_get_metric_statistics"),
    ("services.cloudwatch", "_put_metric_alarm"),
    ("services.cloudwatch", "_set_alarm_state"),
    ("services.cloudwatch_logs", "get_state"),
    ("services.cloudwatch_logs", "_filter_log_events"),
    *(("services.tagging", name) for name in ("_COLLECTORS", "_WRITERS", "_REMOVERS")),
    ("services.eventbridge", "_invoke_target"),
    ("services.eventbridge", "_put_events"),
    ("services.eventbridge", "_rule_key"),
    ("services.eventbridge", "_dispatch_to_lambda"),
    ("services.lambda_svc", "invoke_async_with_retry"),
    ("services.sns", "_deliver_to_lambda"),
    ("services.lambda_svc", "_execute_function_docker"),
    ("services.lambda_svc", "_execute_function_warm"),
    ("services.iam", "handle_request"),
    ("services.s3", "_get_object_data"),
    ("services.sts", "handle_request"),
    ("services.sts", "is_root_access_key"),
    ("services.sts", "register_session"),
}
SETTINGS = {("core.persistence", "STATE_DIR")}
RENEWED = {("services.iam", "_aws_managed_policies")}
"""What MiniStack's reset makes anew, with other ids."""


def test_every_replacement_is_undone_at_the_end(tmp_path: Path) -> None:
    before = values()
    with LocalCloud(tmp_path / "home", clock_speed=4):
        during = values()
    after = values()
    assert {key for key in before if before[key] != during[key]} - SETTINGS == REPLACED
    assert {key for key in before if before[key] != after[key]} - SETTINGS - RENEWED == set()


def test_patches_are_undone_last_first() -> None:
    owner, table = SimpleNamespace(one=1), {"a": 1}
    patches = Patches()
    patches.put(owner, "one", 2)
    patches.put(owner, "one", 3)
    patches.put_item(table, "a", 2)
    patches.put_item(table, "b", 3)
    assert (owner.one, table) == (3, {"a": 2, "b": 3})
    patches.undo()
    assert (owner.one, table) == (1, {"a": 1})
