"""The model card of a model package, held against the schema that SageMaker publishes for it.

Source: "View the details of a model version", the section "Model package model card schema" (version 0.1.0). A
package's card is smaller than a ModelCard: `model_overview` knows only who made the model and its artifacts, and no
level takes a member that isn't listed. Where the published text can't be what is checked (`maxContains` without
`contains`, `maxItems` inside `items`, an `objective_function` that describes members without `properties`), the bound
that it evidently means is checked: that is the stricter reading.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from localcloud.errors import AwsError, validation

MAX_PROBLEMS = 5
Schema = dict[str, Any]


def check(card: dict[str, Any]) -> None:
    """AwsError ValidationException when `ModelCardContent` is not JSON or doesn't follow the schema."""
    content = card.get("ModelCardContent")
    if content is None:
        return
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise validation("ModelCardContent is not valid JSON.") from None
    problems = sorted(_validator().iter_errors(parsed), key=lambda error: list(map(str, error.absolute_path)))
    if problems:
        told = "; ".join(_told(error) for error in problems[:MAX_PROBLEMS])
        raise validation(f"Model card content does not follow the model package model card schema: {told}")


def refuse_archived(doc: dict[str, Any]) -> None:
    """No more changes to an archived card: API reference of ModelPackageModelCard, ModelCardStatus."""
    if doc.get("ModelCard", {}).get("ModelCardStatus") == "Archived":
        raise AwsError("ValidationException", "Model Card is in Archived state.")


def _told(error: Any) -> str:
    place = "/".join(str(part) for part in error.absolute_path) or "(root)"
    return f"#/{place}: {error.message[:200]}" if place != "(root)" else f"#: {error.message[:200]}"


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(schema())


def _text(longest: int, shortest: int = 0) -> Schema:
    return {"type": "string", "maxLength": longest, **({"minLength": shortest} if shortest else {})}


def _list(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, **({"maxItems": most} if most else {})}


def _closed(required: tuple[str, ...] = (), **members: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": members,
        **({"required": list(required)} if required else {}),
    }


def _open(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def schema() -> Schema:
    """The schema as JSON Schema, draft 7."""
    return _closed(
        model_overview=_closed(model_creator=_text(1024), model_artifact=_list(_text(1024), 15)),
        intended_uses=_closed(
            purpose_of_model=_text(2048),
            intended_uses=_text(2048),
            factors_affecting_model_efficiency=_text(2048),
            risk_rating={"type": "string", "enum": ["High", "Medium", "Low", "Unknown"]},
            explanations_for_risk_rating=_text(2048),
        ),
        business_details=_closed(
            business_problem=_text(2048), business_stakeholders=_text(2048), line_of_business=_text(2048)
        ),
        training_details=_closed(
            objective_function=_closed(
                function=_closed(
                    function={"type": "string", "enum": ["Maximize", "Minimize"]}, facet=_text(63), condition=_text(63)
                ),
                notes=_text(1024),
            ),
            training_observations=_text(1024),
            training_job_details=_training_job(),
        ),
        evaluation_details=_list(
            _closed(
                ("name",),
                name=_text(63, 1),
                evaluation_observation=_text(2096),
                evaluation_job_arn=_text(256),
                datasets=_list(_text(1024), 10),
                metadata=_open(_text(1024)),
                metric_groups=_list(
                    _closed(("name", "metric_data"), name=_text(63, 1), metric_data=_list({"anyOf": _metrics()}))
                ),
            )
        ),
        additional_information=_closed(
            ethical_considerations=_text(2048),
            caveats_and_recommendations=_text(2048),
            custom_details=_open(_text(1024)),
        ),
    )


def _training_job() -> Schema:
    metric = _closed(("name", "value"), name=_text(255, 1), notes=_text(1024), value={"type": "number"})
    parameter = _closed(("name", "value"), name=_text(255, 1), value=_text(255, 1))
    return _closed(
        training_arn=_text(1024),
        training_datasets=_list(_text(1024), 15),
        training_environment=_closed(container_image=_list(_text(1024), 15)),
        training_metrics=_list(metric, 50),
        user_provided_training_metrics=_list(metric, 50),
        hyper_parameters=_list(parameter, 100),
        user_provided_hyper_parameters=_list(parameter, 100),
    )


def _metrics() -> list[Schema]:
    """One metric: a single value, a line, bars or a matrix."""
    number: Schema = {"type": "number"}
    axis, axes = _text(63), _list(_text(63))
    pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    row = {"type": "array", "items": number, "minItems": 1, "maxItems": 20}
    kinds: list[tuple[list[str], Schema, Schema, Schema]] = [
        (["number", "string", "boolean"], {"anyOf": [number, _text(63), {"type": "boolean"}]}, axis, axis),
        (["linear_graph"], {"type": "array", "items": pair, "minItems": 1}, axis, axis),
        (["bar_chart"], {"type": "array", "items": number, "minItems": 1}, axes, axis),
        (["matrix"], {"type": "array", "items": row, "minItems": 1, "maxItems": 20}, axes, axes),
    ]
    return [
        _closed(
            ("name", "type", "value"),
            name=_text(255, 1),
            notes=_text(1024),
            type={"type": "string", "enum": names},
            value=value,
            x_axis_name=x_axis,
            y_axis_name=y_axis,
        )
        for names, value, x_axis, y_axis in kinds
    ]
