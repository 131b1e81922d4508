"""ML Lineage Tracking: entities, associations, queries. What is recorded by itself is in lineage_recorder.py."""

from __future__ import annotations

from localcloud.context import Handler
from localcloud.sagemaker import lineage_associations, lineage_components, lineage_entities, lineage_query

OPERATIONS: dict[str, Handler] = {
    **lineage_entities.OPERATIONS,
    **lineage_associations.OPERATIONS,
    **lineage_components.OPERATIONS,
    **lineage_query.OPERATIONS,
}
