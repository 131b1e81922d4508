"""What an instance behind an endpoint costs an hour: the Price List API on AWS, a short table without an account."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from common.list_prices import LIST_PRICES

if TYPE_CHECKING:
    import boto3

API_REGION = "us-east-1"


@functools.lru_cache(maxsize=64)
def hourly(session: boto3.Session, region: str, instance_type: str, *, local: bool) -> float | None:
    """US dollars an hour for one instance of an endpoint; None when neither the API nor the table knows it."""
    if local:
        return LIST_PRICES.get(instance_type)
    return _asked(session, region, instance_type) or LIST_PRICES.get(instance_type)


def _asked(session: boto3.Session, region: str, instance_type: str) -> float | None:
    from botocore.exceptions import BotoCoreError, ClientError

    wanted = {"regionCode": region, "instanceName": instance_type, "component": "Hosting"}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    try:
        answer = session.client("pricing", region_name=API_REGION).get_products(
            ServiceCode="AmazonSageMaker", Filters=filters, MaxResults=10
        )
    except (BotoCoreError, ClientError):
        return None  # a reader's role often may not ask
    prices = [price for item in answer["PriceList"] if (price := _price(json.loads(item)))]
    return min(prices, default=None)


def _price(product: dict[str, Any]) -> float | None:
    """The on-demand price in one entry of the price list."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            amount = float(dimension["pricePerUnit"].get("USD", 0))
            if amount > 0:
                return amount
    return None
