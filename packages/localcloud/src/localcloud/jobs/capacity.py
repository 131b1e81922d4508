"""Lists of instance types in order: what AWS refuses, and which type is selected here, where each has capacity.

    {"InstancePreferences": [{"InstanceType": "ml.g5.2xlarge"}, {"InstanceType": "ml.g6.2xlarge"}], "InstanceCount": 1}
    {"InstancePools": [{"InstanceType": "ml.m5.large", "Priority": 2}, {"InstanceType": "ml.c5.large", "Priority": 1}]}

So a job runs on ml.g5.2xlarge, and a variant's instances are ml.c5.large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from localcloud.errors import validation

_SELECTED = ("SelectedInstanceType", "SelectedInstanceCount")
_ALONE = ("InstanceType", "InstanceGroups", "InstancePlacementConfig")


def check_preferences(member: str, cluster: Mapping[str, Any], *, spot: bool = False) -> None:
    """ValidationException for a job's cluster whose InstancePreferences AWS would not take."""
    for given in _SELECTED:
        if given in cluster:
            raise validation(f"{member}.{given} is read-only and isn't accepted in requests.")
    preferences = cluster.get("InstancePreferences")
    if preferences is None:
        return
    for other in _ALONE:
        if cluster.get(other):
            raise validation(f"{member}.InstancePreferences and {member}.{other} are mutually exclusive.")
    if spot:
        raise validation(f"{member}.InstancePreferences and EnableManagedSpotTraining are mutually exclusive.")
    if cluster.get("KeepAlivePeriodInSeconds"):
        raise validation(f"{member}: localcloud refuses InstancePreferences with KeepAlivePeriodInSeconds")
    _check_types(member, preferences)
    _check_counts(member, cluster, preferences)
    if any(preference.get("TrainingPlanArns") for preference in preferences):
        if cluster.get("TrainingPlanArn"):
            raise validation(f"{member}.TrainingPlanArn and TrainingPlanArns of a preference are mutually exclusive.")
        raise validation(f"{member}: TrainingPlanArns is not supported by localcloud, which has no training plans")


def _check_types(member: str, places: Iterable[Mapping[str, Any]]) -> None:
    types = [place["InstanceType"] for place in places]
    twice = sorted({kind for kind in types if types.count(kind) > 1})
    if twice:
        raise validation(f"{member}: an instance type can appear only once in a list: {', '.join(twice)}.")


def _check_counts(member: str, cluster: Mapping[str, Any], preferences: list[Mapping[str, Any]]) -> None:
    """One count for all or one for each."""
    counts = [preference.get("InstanceCount") for preference in preferences]
    if cluster.get("InstanceCount") is not None:
        if any(count is not None for count in counts):
            raise validation(
                f"{member}: InstanceCount is set both for the job and per preference; set it in one place."
            )
    elif None in counts:
        raise validation(
            f"{member}: InstanceCount must be set either once for the job or on every member of InstancePreferences."
        )
    elif 0 in counts:
        raise validation(f"{member}: a preference with InstanceCount 0 is refused by localcloud; set it to 1 or more")


def selected(cluster: Mapping[str, Any]) -> tuple[str, int]:
    """(instance type, number) that a job's cluster runs on: the first of its preferences, or what it names, if any."""
    first = (cluster.get("InstancePreferences") or [cluster])[0]
    return first.get("InstanceType", ""), first.get("InstanceCount", cluster.get("InstanceCount", 1))


def note_selection(cluster: dict[str, Any]) -> None:
    """Let Describe say which of the preferences was selected."""
    if cluster.get("InstancePreferences"):
        cluster |= dict(zip(_SELECTED, selected(cluster), strict=True))


def check_pools(variant: Mapping[str, Any]) -> None:
    """ValidationException for a production variant whose InstancePools AWS would not take, or localcloud can't host."""
    name, pools = variant["VariantName"], variant.get("InstancePools")
    if pools is None:
        return
    if variant.get("InstanceType"):
        raise validation(f"Variant {name}: InstancePools and InstanceType are mutually exclusive.")
    _check_types(f"Variant {name}", pools)
    priorities = [pool["Priority"] for pool in pools]
    if len(set(priorities)) < len(priorities):
        raise validation(f"Variant {name}: each of InstancePools needs a Priority of its own.")
    if any(pool.get("ModelNameOverride") for pool in pools):
        raise validation(f"Variant {name}: ModelNameOverride is not supported by localcloud")
    if not variant.get("ModelName"):
        raise validation(f"Variant {name}: InstancePools without ModelName is not supported by localcloud")


def pools_of(variant: Mapping[str, Any]) -> list[str]:
    """The instance types of a variant, the one of the highest priority (the lowest number) first; [] if serverless."""
    pools = sorted(variant.get("InstancePools") or [], key=lambda pool: int(pool["Priority"]))
    return [pool["InstanceType"] for pool in (pools or [variant]) if pool.get("InstanceType")]
