"""ListFoundationModels, GetFoundationModel, GetFoundationModelAvailability."""

from __future__ import annotations

import datetime
from typing import Any

from localcloud.bedrock import catalogue
from localcloud.bedrock.catalogue import Offer
from localcloud.bedrock.configuration import configuration
from localcloud.context import Context, Handler, Request, Response


def list_models(ctx: Context, request: Request) -> Response:
    today = configuration().today()
    found = [offer for offer in catalogue.offers(ctx.region) if offer.model.status(today) != "EOL"]
    details = [_details(offer, ctx.region, today) for offer in found]
    wanted = {
        "byCustomizationType": "customizationsSupported",
        "byOutputModality": "outputModalities",
        "byInferenceType": "inferenceTypesSupported",
    }
    for member, list_ in wanted.items():
        if request.get(member):
            details = [detail for detail in details if request[member] in detail[list_]]
    if request.get("byProvider"):
        details = [detail for detail in details if detail["providerName"].lower() == request["byProvider"].lower()]
    return {"modelSummaries": details}


def get(ctx: Context, request: Request) -> Response:
    today = configuration().today()
    offer = catalogue.find(request["modelIdentifier"], ctx.region, today)
    return {"modelDetails": _details(offer, ctx.region, today)}


def availability(ctx: Context, request: Request) -> Response:
    """Whether a model can be used in the Region. Access needn't be asked for here: it is always granted."""
    wanted = request["modelId"]
    known = any(wanted in (model.id, model.tuned, *model.bought) for model in catalogue.FOUNDATIONS)
    here = any(offer.id == wanted for offer in catalogue.offers(ctx.region))
    if here or not known:
        catalogue.find(wanted, ctx.region, configuration().today())
    return {
        "modelId": wanted,
        "agreementAvailability": {"status": "AVAILABLE"},
        "authorizationStatus": "AUTHORIZED",
        "entitlementAvailability": "AVAILABLE",
        "regionAvailability": "AVAILABLE" if here else "NOT_AVAILABLE",
    }


def _details(offer: Offer, region: str, today: datetime.date) -> dict[str, Any]:
    model = offer.model
    lifecycle: dict[str, Any] = {"status": model.status(today)}
    if model.lifecycle is not None:
        dates = {
            "legacyTime": model.lifecycle.legacy,
            "endOfLifeTime": model.lifecycle.end,
            "publicExtendedAccessTime": model.lifecycle.extended,
        }
        lifecycle |= {name: _moment(day) for name, day in dates.items() if day is not None}
    return {
        "modelArn": offer.arn(region),
        "modelId": offer.id,
        "modelName": model.name,
        "providerName": model.provider,
        "inputModalities": list(model.inputs),
        "outputModalities": ["TEXT"],
        "responseStreamingSupported": True,
        "customizationsSupported": offer.customizations(region, today),
        "inferenceTypesSupported": offer.inference_types(region),
        "modelLifecycle": lifecycle,
    }


def _moment(day: datetime.date) -> float:
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()


OPERATIONS: dict[str, Handler] = {
    "ListFoundationModels": list_models,
    "GetFoundationModel": get,
    "GetFoundationModelAvailability": availability,
}
