"""Which machines have local NVMe disks: no EBS volume, so no key for one and no size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from localcloud.errors import validation
from localcloud.jobs.capacity import pools_of

# Of the instance types that SageMaker's API names; a `d` behind the generation says so in EC2's naming, the accelerated
# families have none.
_LOCAL = re.compile(
    r"ml\.([cmrx]\d+[a-z]*d[a-z]*|i\d\w*|dl\d\w*|g4dn|gr?[5-9]e?|p3dn|p4d|p4de|p5e?n?|p6e?-\w+|trn\d\w*)\."
)
_M5D = {"": 75, "x": 150, "2x": 300, "4x": 600, "8x": 1200, "12x": 1800, "16x": 2400, "24x": 3600}
_G5 = {"x": 250, "2x": 450, "4x": 600, "8x": 900, "12x": 3800, "16x": 1900, "24x": 3800, "48x": 7600}
_SIZES: Mapping[str, Mapping[str, int]] = {
    "g4dn": {"x": 125, "2x": 225, "4x": 225, "8x": 900, "12x": 900, "16x": 900},
    "g5": _G5,
    "g6": {"x": 250, "2x": 450, "4x": 600, "8x": 900, "12x": 3760, "16x": 1880, "24x": 3760, "48x": 7520},
    "g6e": _G5,
    "p5": {"4x": 3840},
    "r5d": _M5D,
}
"""Family -> size without `large` -> GB of its local disks together (EC2, "Instance store volumes"), of the types that a
processing job may have."""


def has_local_disks(instance_type: str) -> bool:
    """Whether `ml.<family>.<size>` has NVMe disks instead of EBS volumes."""
    return _LOCAL.match(instance_type) is not None


def check_cluster(member: str, cluster: Mapping[str, Any]) -> None:
    """ValidationException when a job's machines can't have the volume key that is asked for."""
    places = [cluster, *(cluster.get("InstanceGroups") or []), *(cluster.get("InstancePreferences") or [])]
    local = [place["InstanceType"] for place in places if has_local_disks(place.get("InstanceType") or "")]
    if cluster.get("VolumeKmsKeyId") and local:
        raise validation(
            f"{member}.VolumeKmsKeyId can't be requested with instance type {', '.join(local)}: its local storage is "
            "encrypted by a hardware module on the instance"
        )


def check_size(member: str, cluster: Mapping[str, Any]) -> None:
    """ValidationException when a processing job asks for a larger volume than its machine's own disks are."""
    wanted = cluster["VolumeSizeInGB"]
    for place in (cluster, *(cluster.get("InstancePreferences") or [])):
        kind = place.get("InstanceType") or ""
        _, family, size = [*kind.split("."), "", ""][:3]
        most = _SIZES.get(family, {}).get(size.removesuffix("large"))
        if most is not None and wanted > most:
            raise validation(
                f"{member}.VolumeSizeInGB {wanted} is greater than the total size of the local instance storage of "
                f"{kind}: {most}"
            )


def check_variants(request: Mapping[str, Any]) -> None:
    """ValidationException when an endpoint configuration asks for a key or a size that its machines can't have."""
    for variant in request["ProductionVariants"]:
        name, kind = variant["VariantName"], next(filter(has_local_disks, pools_of(variant)), None)
        if not kind:
            continue
        if request.get("KmsKeyId"):
            raise validation(
                f"KmsKeyId can't be requested with instance type {kind} (variant {name}): its local storage is "
                "encrypted by a hardware module on the instance"
            )
        if variant.get("VolumeSizeInGB"):
            raise validation(
                f"Variant {name}: VolumeSizeInGB can't be set with instance type {kind}: its storage is fixed"
            )
