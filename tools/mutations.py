"""The mutations of tools/mutants.py: what a bug would look like, where it would stand, and which tests must notice.

Each old text occurs exactly once in its file (tests/tools/test_mutants.py): when the code changes, change it here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One semantic change. `tests` are pytest's arguments: the narrowest ones that must fail with it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


GATE = ("tests/evaluation/test_decision.py",)
PLAN = ("tests/lambdas/test_plan.py",)
DEPLOY = "tests/lambdas/test_deploy.py"
DECISIONS = "tests/lambdas/test_decisions.py"
CARD = "tests/lambdas/test_card.py"
LOSS = "tests/training/test_loss.py"
SPLITS = "tests/preparation/test_splits.py"
ARCHIVE = ("tests/evaluation/test_archive.py",)
CACHING = "packages/localcloud/tests/localcloud_pipelines/test_caching.py"

MUTATIONS = (
    Mutation(
        "gate: the value decides, not its bound",
        "evaluation/decision.py",
        "holds = chances[index] < level and",
        "holds = chances[index] < 0.5 and",
        GATE,
    ),
    Mutation(
        "gate: each rule is tested as if it were alone",
        "evaluation/decision.py",
        "level = levels[index] / left",
        "level = levels[index]",
        GATE,
    ),
    Mutation(
        "settings: the package comes before the input",
        "lambdas/settings.py",
        "for source in (event, metadata, defaults)",
        "for source in (metadata, event, defaults)",
        PLAN,
    ),
    Mutation(
        "settings: a real-time endpoint may scale to zero",
        "common/endpoint_dials.py",
        'instances == 0 and mode not in ("adapter", "asynchronous")',
        'instances == 0 and mode == "serverless"',
        PLAN,
    ),
    Mutation(
        "canary: its size is always 50%",
        "lambdas/plan.py",
        'routing["CanarySize"] = _capacity(percent)',
        'routing["CanarySize"] = _capacity(50)',
        PLAN,
    ),
    Mutation(
        "canary: linear steps below SageMaker's 10%",
        "common/endpoint_dials.py",
        'least = {"linear": 10, "rolling": 5}',
        'least = {"linear": 1, "rolling": 5}',
        PLAN,
    ),
    Mutation(
        "plan: every request is captured",
        "lambdas/plan.py",
        '"InitialSamplingPercentage": settings["data_capture_percentage"]',
        '"InitialSamplingPercentage": 100',
        PLAN,
    ),
    Mutation(
        "plan: a key for disks that hardware encrypts",
        "lambdas/plan.py",
        'mode != "serverless" and not has_local_storage(settings["endpoint_instance_type"])',
        'mode != "serverless"',
        PLAN,
    ),
    Mutation(
        "card: a repeat adds the adapter again",
        "lambdas/card.py",
        "if SPECIFICATION not in known and",
        "if",
        (f"{CARD}::test_a_repeat_changes_nothing",),
    ),
    Mutation(
        "card: metadata longer than the API takes",
        "lambdas/card.py",
        '" ", str(value))[:MAX_VALUE]',
        '" ", str(value))',
        (f"{CARD}::test_metadata_is_what_the_api_allows",),
    ),
    Mutation(
        "ledger: a write that overwrites others",
        "lambdas/ledger.py",
        'condition = {"IfMatch": tag} if tag else',
        "condition = {} if tag else",
        (f"{DEPLOY}::test_a_lost_race_at_the_log_is_run_again",),
    ),
    Mutation(
        "ledger: an earlier approval overtakes a later one",
        "lambdas/starting.py",
        'item["approved"] > entry["approved"]',
        'item["approved"] < entry["approved"]',
        (f"{DEPLOY}::test_created_unchanged_updated",),
    ),
    Mutation(
        "ledger: the oldest queued deployment wins",
        "lambdas/settling.py",
        "newest = max(",
        "newest = min(",
        (f"{DEPLOY}::test_what_comes_while_the_endpoint_changes_waits_and_the_newest_wins",),
    ),
    Mutation(
        "ledger: nothing is pruned",
        "lambdas/removal.py",
        'ways_back = in_state(log, "replaced")[-KEPT_BESIDE:]',
        'ways_back = in_state(log, "replaced")',
        (f"{DEPLOY}::test_old_configurations_and_models_are_pruned_but_for_the_way_back",),
    ),
    Mutation(
        "account: credentials of another account are taken",
        "pipelines/aws.py",
        "if account != config.aws.account_id:",
        "if not account:",
        ("tests/author/test_aws.py",),
    ),
    Mutation(
        "prices: the API is not asked",
        "pipelines/prices.py",
        "return _asked(session, region, instance_type) or LIST_PRICES",
        "return LIST_PRICES",
        ("tests/author/test_prices.py",),
    ),
    Mutation(
        "patience: one step, whatever the rollout",
        "pipelines/deployments.py",
        'if rollout.traffic in ("linear", "rolling") else 1',
        "if not rollout.traffic else 1",
        ("tests/author/test_endpoint.py",),
    ),
    Mutation(
        "stage: the oldest for the newest",
        "pipelines/endpoint.py",
        'variant.get("VariantStatus") or [])[-1:]',
        'variant.get("VariantStatus") or [])[:1]',
        ("tests/author/test_endpoint.py",),
    ),
    Mutation(
        "cache: hyperparameters don't count",
        "packages/localcloud/src/localcloud/engine/cache.py",
        '        "HyperParameters",\n',
        "",
        (f"{CACHING}::test_the_attributes_that_count",),
    ),
    Mutation(
        "cache: results never grow old",
        "packages/localcloud/src/localcloud/engine/cache.py",
        'now - float(entry["Time"]) > duration_seconds(expire_after)',
        "duration_seconds(expire_after) < 0",
        (f"{CACHING}::test_a_cached_result_has_its_scope_and_its_age",),
    ),
    Mutation(
        "code: a renamed file keeps the hash",
        "configuration/code.py",
        "for part in (name.encode(), files[name]):",
        "for part in (files[name],):",
        ("tests/author/test_code.py",),
    ),
    Mutation(
        "dedup: every row counts as new",
        "preparation/splits.py",
        "fresh = ~self.contains(distinct)",
        "fresh = np.ones(len(distinct), dtype=bool)",
        (f"{SPLITS}::test_the_digest_set_is_a_set", f"{SPLITS}::test_exact_duplicates_are_dropped_and_counted"),
    ),
    Mutation(
        "splits: test and validation change places",
        "preparation/splits.py",
        "return int(self.test / whole * 2**64),",
        "return int(self.validation / whole * 2**64),",
        (f"{SPLITS}::test_shares_are_kept_within_chance",),
    ),
    Mutation(
        "splits: a prompt of two groups crosses",
        "preparation/writing.py",
        "found = np.flatnonzero(kept & there)",
        "found = np.flatnonzero(kept & ~kept)",
        (f"{SPLITS}::test_a_group_never_crosses_and_neither_does_its_prompt",),
    ),
    Mutation(
        "masks: rows of a batch see each other",
        "training/segment_attention.py",
        "own = torch.arange(start, start + length).clamp(max=end - 1)",
        "own = torch.arange(start - 1, start - 1 + length).clamp(max=end - 1)",
        (f"{LOSS}::test_a_row_does_not_see_another",),
    ),
    Mutation(
        "masks: the loss is one token late",
        "training/packing.py",
        'columns.append(np.flatnonzero(row["learned"]) - 1 - prefix + start)',
        'columns.append(np.flatnonzero(row["learned"]) - prefix + start)',
        (f"{LOSS}::test_only_completion_positions_reach_the_loss",),
    ),
    Mutation(
        "packing: positions run on over rows",
        "training/packing.py",
        "positions.append(np.arange(prefix, prefix + len(own)))",
        "positions.append(np.arange(start, end))",
        (f"{LOSS}::test_packed_loss_and_gradients_equal_one_by_one",),
    ),
    Mutation(
        "archive: a path leads out of the target",
        "common/archive.py",
        'or ".." in path.parts',
        "or not path.parts",
        ARCHIVE,
    ),
    Mutation(
        "archive: links are unpacked",
        "common/archive.py",
        "if not member.isfile():",
        "if member.isdev():",
        ARCHIVE,
    ),
    Mutation(
        "intervals: the gain is over the worse base",
        "evaluation/intervals.py",
        "max(bases, key=lambda model: sign",
        "min(bases, key=lambda model: sign",
        ("tests/evaluation/test_intervals.py",),
    ),
    Mutation(
        "intervals: rows of a group count as independent",
        "evaluation/intervals.py",
        "np.unique(range(rows) if groups is None else groups, return_inverse=True)",
        "np.unique(range(rows), return_inverse=True)",
        ("tests/evaluation/test_intervals.py",),
    ),
    Mutation(
        "labels: what wrong answers add to the error is left out",
        "evaluation/labels.py",
        "errors[named] -= f1[answer[named]] / size[answer[named]]",
        "errors[named] -= 0",
        ("tests/evaluation/test_labels.py",),
    ),
    Mutation(
        "custom metrics: nan is a value as any other",
        "common/custom_metrics.py",
        "if not math.isfinite(value) or (",
        "if (",
        ("tests/common/test_custom_metrics.py",),
    ),
    Mutation(
        "judge: a verdict counts in one order, too",
        "evaluation/judge.py",
        "agreed = said[0] == said[1]",
        "agreed = True",
        ("tests/evaluation/test_judge.py::test_a_judge_that_likes_what_stands_first_decides_nothing",),
    ),
    Mutation(
        "prepare: what follows an array is passed over",
        "preparation/json_stream.py",
        "if rest := self._peek():",
        "if (rest := self._peek()) and not shape:",
        ("tests/preparation/test_forms.py::test_nothing_behind_the_rows_vanishes",),
    ),
    Mutation(
        "preferences: the likelier answer counts as the other",
        "evaluation/results.py",
        "float(chosen < rejected)",
        "float(chosen > rejected)",
        ("tests/evaluation/test_kinds.py::test_alike_is_half_a_preference",),
    ),
    Mutation(
        "texts: the tokens between two windows count twice",
        "evaluation/passes.py",
        "for start in range(0, len(document) - 1, size - 1)",
        "for start in range(0, len(document) - 1, size - 2)",
        ("tests/evaluation/test_kinds.py::test_texts_are_measured_by_every_token_in_trainings_windows",),
    ),
    Mutation(
        "prepare: one answer of a whole conversation is enough",
        "preparation/preferences.py",
        "if prompt != other:",
        "if not prompt:",
        ("tests/preparation/test_kinds.py::test_a_preference_that_is_none_is_kept_with_its_reason",),
    ),
    Mutation(
        "deploy: an edit of a version deploys it",
        "lambdas/deploy.py",
        'if "ModelApprovalStatus" not in changed:',
        "if not changed:",
        (f"{DECISIONS}::test_editing_any_field_of_any_version_deploys_nothing",),
    ),
    Mutation(
        "digests: what was swapped is deployed",
        "lambdas/digests.py",
        "if now.get(name) != recorded.get(name):",
        "if name not in now:",
        (f"{DECISIONS}::test_what_else_is_pinned",),
    ),
    Mutation(
        "rollback: a rejected version comes back",
        "lambdas/rollback.py",
        '    if reason:\n        raise Refused(f"Version {version} is no way back: {reason}.")',
        "    if not reason:\n        pass",
        (f"{DECISIONS}::test_the_way_back_asks_the_registry",),
    ),
    Mutation(
        "storage: new rows of the same size are a cache hit",
        "lambdas/aws.py",
        '[item["ETag"], item["Size"]]',
        '[item["Size"]]',
        ("tests/lambdas/test_storage.py::test_every_change_under_the_inputs_is_another_run",),
    ),
    Mutation(
        "ledger: an approval is lost with what overtook it",
        "lambdas/ledger.py",
        'or states[item["overtaken_by"]] == "failed"',
        'or states[item["overtaken_by"]] == "replaced"',
        ("tests/lambdas/test_settling.py",),
    ),
    Mutation(
        "tokens: another request gets the first one's answer",
        "packages/localcloud/src/localcloud/tokens.py",
        "if kept != asked(request, member):",
        "if kept is None:",
        ("packages/localcloud/tests/localcloud_pipelines/test_names.py",),
    ),
    Mutation(
        "tagging: an ARN in another case has the tags",
        "packages/localcloud/src/localcloud/sagemaker/tagging.py",
        "any(value == arn for key",
        "any(str(value).lower() == arn.lower() for key",
        ("packages/localcloud/tests/localcloud_pipelines/test_names.py",),
    ),
)
