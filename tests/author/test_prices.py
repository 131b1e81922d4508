"""What an instance costs: AWS's Price List API answers (stubbed in botocore, so that requests are checked)."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from common.list_prices import LIST_PRICES
from pipelines.prices import hourly

KIND = "ml.g5.xlarge"


def product(*prices: str) -> str:
    """An entry of the price list, with one dimension for each price."""
    dimensions = {f"d{number}": {"pricePerUnit": {"USD": price}} for number, price in enumerate(prices)}
    return json.dumps({"terms": {"OnDemand": {"term": {"priceDimensions": dimensions}}}})


class PricedSession(boto3.Session):
    """A session whose pricing client answers from a stub."""

    def __init__(self) -> None:
        super().__init__(region_name="eu-central-1", aws_access_key_id="1", aws_secret_access_key="2")
        self.asked_region: str | None = None
        self._pricing = super().client("pricing", region_name="us-east-1")
        self.stub = Stubber(self._pricing)

    def client(self, service_name: str, region_name: str | None = None, **_: Any) -> Any:
        assert service_name == "pricing"
        self.asked_region = region_name
        return self._pricing


def expected(region: str) -> dict[str, Any]:
    wanted = {"regionCode": region, "instanceName": KIND, "component": "Hosting"}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    return {"ServiceCode": "AmazonSageMaker", "Filters": filters, "MaxResults": 10}


@pytest.fixture
def session() -> PricedSession:
    return PricedSession()


def test_the_region_s_own_price_comes_before_the_table(session: PricedSession) -> None:
    answer = {"PriceList": [product("0.0000000000", "1.9900000000"), product("1.7600000000"), product()]}
    session.stub.add_response("get_products", answer, expected("eu-central-1"))
    with session.stub:
        assert hourly(session, "eu-central-1", KIND, local=False) == 1.76
    assert session.asked_region == "us-east-1", "the API answers in few regions only"
    assert LIST_PRICES[KIND] != 1.76


def test_what_the_api_does_not_know_is_in_the_table(session: PricedSession) -> None:
    session.stub.add_response("get_products", {"PriceList": []}, expected("eu-west-1"))
    with session.stub:
        assert hourly(session, "eu-west-1", KIND, local=False) == LIST_PRICES[KIND]


def test_a_reader_that_may_not_ask_gets_the_table(session: PricedSession) -> None:
    session.stub.add_client_error("get_products", "AccessDeniedException", expected_params=expected("eu-west-2"))
    with session.stub:
        assert hourly(session, "eu-west-2", KIND, local=False) == LIST_PRICES[KIND]


def test_on_this_machine_nobody_is_asked(session: PricedSession) -> None:
    with session.stub:
        assert hourly(session, "us-east-1", KIND, local=True) == LIST_PRICES[KIND]
        assert hourly(session, "us-east-1", "ml.unheard.of", local=True) is None
    assert session.asked_region is None
