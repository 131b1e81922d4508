"""Deployments, Provisioned Throughput, imports, tags: real states, and what is refused."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.bedrock.custom_models import DEPLOYMENTS, MODELS, THROUGHPUTS
from localcloud.bedrock.imports import IMPORT_JOBS, IMPORTED
from localcloud.context import Context
from localcloud_bedrock.conftest import ACCOUNT, LLAMA, MICRO, ROLE, Bedrock, code, status, until


def custom_model(bedrock: Bedrock, name: str, base: str = f"{MICRO}:128k", region: str = "us-east-1") -> str:
    """A custom model as a job leaves one, without its weights."""
    identifier = f"{abs(hash(name)):012d}"[:12]
    arn = f"arn:aws:bedrock:{region}:{ACCOUNT}:custom-model/{base}/{identifier}"
    doc: dict[str, Any] = {
        "modelArn": arn,
        "modelName": name,
        "baseModelArn": f"arn:aws:bedrock:{region}::foundation-model/{base}",
        "creationTime": time.time(),
        "modelStatus": "Active",
        "_base": base,
    }
    MODELS.create(Context(ACCOUNT, region, bedrock.cloud.cloud), doc, None)
    return arn


def test_a_deployment_becomes_active_moves_and_goes(bedrock: Bedrock) -> None:
    first, second = custom_model(bedrock, "first"), custom_model(bedrock, "second")
    other = custom_model(bedrock, "other", "amazon.nova-lite-v1:0:300k")
    request = {"modelDeploymentName": "d", "modelArn": first, "clientRequestToken": "once"}
    arn = bedrock().create_custom_model_deployment(**request)["customModelDeploymentArn"]
    assert bedrock().create_custom_model_deployment(**request)["customModelDeploymentArn"] == arn

    def look() -> dict[str, Any]:
        found: dict[str, Any] = bedrock().get_custom_model_deployment(customModelDeploymentIdentifier="d")
        return found

    seen = {look()["status"]}
    until(look, lambda found: found["status"] == "Active")
    assert seen <= {"Creating", "Active"}
    with pytest.raises(ClientError, match="already in use") as caught:
        bedrock().create_custom_model_deployment(modelDeploymentName="d", modelArn=first)
    assert code(caught) == "ValidationException", "the operation knows no ConflictException"
    with pytest.raises(ClientError, match="same base model"):
        bedrock().update_custom_model_deployment(customModelDeploymentIdentifier="d", modelArn=other)
    bedrock().update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=second)
    found = until(look, lambda found: found["updateDetails"]["updateStatus"] == "UpdateCompleted")
    assert (found["modelArn"], found["status"]) == (second, "Active")
    listed = bedrock().list_custom_model_deployments(modelArnEquals=second)["modelDeploymentSummaries"]
    assert [one["customModelDeploymentName"] for one in listed] == ["d"]
    assert bedrock().list_custom_model_deployments(modelArnEquals=first)["modelDeploymentSummaries"] == []
    bedrock().delete_custom_model(modelIdentifier=first)
    bedrock().delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    with pytest.raises(ClientError) as caught:
        look()
    assert (code(caught), status(caught)) == ("ResourceNotFoundException", 404)


@pytest.mark.parametrize(
    ("base", "region", "said"),
    [
        (f"{LLAMA}:128k", "us-west-2", "Use Provisioned Throughput"),
        ("meta.llama3-3-70b-instruct-v1:0:128k", "us-west-2", ""),
        (f"{MICRO}:128k", "eu-west-1", "in us-east-1 and us-west-2 only"),
    ],
)
def test_where_what_can_be_deployed(bedrock: Bedrock, base: str, region: str, said: str) -> None:
    arn = custom_model(bedrock, f"in-{region}-{base[:12]}-{len(base)}", base, region)
    client = bedrock("bedrock", region)
    name = f"d{len(base)}"
    if not said:
        assert client.create_custom_model_deployment(modelDeploymentName=name, modelArn=arn)
        return
    with pytest.raises(ClientError, match=said) as caught:
        client.create_custom_model_deployment(modelDeploymentName=name, modelArn=arn)
    assert code(caught) == "ValidationException"


def test_throughput_with_and_without_a_commitment(bedrock: Bedrock) -> None:
    model = custom_model(bedrock, "bought")
    create = bedrock().create_provisioned_model_throughput
    arn = create(modelUnits=1, provisionedModelName="free", modelId=model)["provisionedModelArn"]
    create(modelUnits=2, provisionedModelName="bound", modelId=f"{MICRO}:24k", commitmentDuration="OneMonth")

    def look(name: str) -> dict[str, Any]:
        found: dict[str, Any] = bedrock().get_provisioned_model_throughput(provisionedModelId=name)
        return found

    for name in (arn, "bound"):
        until(lambda name=name: look(name), lambda found: found["status"] == "InService")  # type: ignore[misc]
    assert look(arn)["foundationModelArn"].endswith(f"{MICRO}:128k")
    bound = look("bound")
    assert (bound["commitmentExpirationTime"] - bound["creationTime"]).days == 30
    with pytest.raises(ClientError, match="commitment OneMonth") as caught:
        bedrock().delete_provisioned_model_throughput(provisionedModelId="bound")
    assert code(caught) == "ConflictException"
    ctx = Context(ACCOUNT, "us-east-1", bedrock.cloud.cloud)
    THROUGHPUTS.change(ctx, THROUGHPUTS.find(ctx, "bound"), lambda doc: doc.update(commitmentExpirationTime=1.0))
    bedrock().delete_provisioned_model_throughput(provisionedModelId="bound")
    with pytest.raises(ClientError, match="same base model"):
        bedrock().update_provisioned_model_throughput(provisionedModelId=arn, desiredModelId=f"{MICRO}:24k")
    bedrock().update_provisioned_model_throughput(
        provisionedModelId=arn, desiredProvisionedModelName="moved", desiredModelId=f"{MICRO}:128k"
    )
    base = f"arn:aws:bedrock:us-east-1::foundation-model/{MICRO}:128k"
    until(lambda: look("moved"), lambda found: found["modelArn"] == base)
    listed = bedrock().list_provisioned_model_throughputs()["provisionedModelSummaries"]
    assert [one["provisionedModelName"] for one in listed] == ["moved"]
    bedrock().delete_provisioned_model_throughput(provisionedModelId="moved")


@pytest.mark.parametrize("model", [MICRO, "anthropic.claude-sonnet-4-5-20250929-v1:0"])
def test_what_throughput_can_not_be_bought_for(bedrock: Bedrock, model: str) -> None:
    with pytest.raises(ClientError, match="can't be bought") as caught:
        bedrock().create_provisioned_model_throughput(modelUnits=1, provisionedModelName="n", modelId=model)
    assert code(caught) == "ValidationException"


def test_tags_come_and_go(bedrock: Bedrock) -> None:
    arn = custom_model(bedrock, "tagged")
    tags = [{"key": f"k{number}", "value": "v"} for number in range(50)]
    bedrock().tag_resource(resourceARN=arn, tags=tags)
    with pytest.raises(ClientError) as caught:
        bedrock().tag_resource(resourceARN=arn, tags=[{"key": "more", "value": ""}])
    assert code(caught) == "TooManyTagsException"
    bedrock().untag_resource(resourceARN=arn, tagKeys=["k0", "absent"])
    bedrock().tag_resource(resourceARN=arn, tags=[{"key": "k1", "value": "new"}])
    found = {tag["key"]: tag["value"] for tag in bedrock().list_tags_for_resource(resourceARN=arn)["tags"]}
    assert (len(found), found["k1"]) == (49, "new")
    with pytest.raises(ClientError) as caught:
        bedrock().list_tags_for_resource(resourceARN=arn[:-1] + "z")
    assert code(caught) == "ResourceNotFoundException"


def test_lists_come_in_pages(bedrock: Bedrock) -> None:
    names = [f"page{number}" for number in range(3)]
    for name in names:
        custom_model(bedrock, name)
    first = bedrock().list_custom_models(nameContains="page", maxResults=2, sortOrder="Ascending")
    rest = bedrock().list_custom_models(
        nameContains="page", maxResults=2, sortOrder="Ascending", nextToken=first["nextToken"]
    )
    assert [one["modelName"] for one in first["modelSummaries"] + rest["modelSummaries"]] == names
    assert "nextToken" not in rest
    with pytest.raises(ClientError, match="nextToken"):
        bedrock().list_custom_models(nextToken=first["nextToken"])
    now = datetime.datetime.now(datetime.UTC)
    for times, count in (({"creationTimeAfter": now}, 0), ({"creationTimeBefore": now}, 3)):
        assert len(bedrock().list_custom_models(nameContains="page", **times)["modelSummaries"]) == count


def imported(bedrock: Bedrock, name: str, files: dict[str, bytes], region: str = "us-east-1") -> dict[str, Any]:
    for key, body in files.items():
        bedrock.put(f"{name}/{key}", body)
    client = bedrock("bedrock", region)
    client.create_model_import_job(
        jobName=name,
        importedModelName=name,
        roleArn=ROLE,
        modelDataSource={"s3DataSource": {"s3Uri": f"s3://data/{name}/"}},
    )
    return until(lambda: client.get_model_import_job(jobIdentifier=name), lambda found: found["status"] != "InProgress")


def changed(files: dict[str, bytes], **config: Any) -> dict[str, bytes]:
    return {**files, "config.json": json.dumps({**json.loads(files["config.json"]), **config}).encode()}


@pytest.fixture
def files(tiny: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny.iterdir()}


def test_an_import_of_whole_weights(bedrock: Bedrock, files: dict[str, bytes]) -> None:
    job = imported(bedrock, "whole", files)
    assert job["status"] == "Completed", job.get("failureMessage")
    model = bedrock().get_imported_model(modelIdentifier="whole")
    assert (model["modelArn"], model["modelArchitecture"]) == (job["importedModelArn"], "llama")
    assert model["instructSupported"] is True
    assert [one["modelName"] for one in bedrock().list_imported_models()["modelSummaries"]] == ["whole"]
    with pytest.raises(ClientError) as caught:
        imported(bedrock, "whole", files)
    assert code(caught) == "ConflictException"
    bedrock().delete_imported_model(modelIdentifier="whole")
    assert bedrock().list_imported_models()["modelSummaries"] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter", "merge it into its base model"),
        ("no-weights", "*.safetensors is missing"),
        ("no-tokenizer", "tokenizer_config.json is missing"),
        ("architecture", "GemmaForCausalLM is not supported"),
        ("long", "at most 131072"),
        ("cut", "is not whole"),
        ("pickle", "is not a safetensors file"),
        ("shards", "Parts of the weights are missing: model-2.safetensors"),
    ],
)
def test_an_import_fails_with_the_reason(bedrock: Bedrock, files: dict[str, bytes], name: str, said: str) -> None:
    weights = files["model.safetensors"]
    given = {
        "adapter": {**files, "adapter_config.json": b"{}"},
        "no-weights": {key: body for key, body in files.items() if key != "model.safetensors"},
        "no-tokenizer": {key: body for key, body in files.items() if key != "tokenizer_config.json"},
        "architecture": changed(files, architectures=["GemmaForCausalLM"]),
        "long": changed(files, max_position_embeddings=1 << 20),
        "cut": {**files, "model.safetensors": weights[:-1]},
        "pickle": {**files, "model.safetensors": b"PK" * 500},
        "shards": {
            **files,
            "model.safetensors.index.json": json.dumps({"weight_map": {"x": "model-2.safetensors"}}).encode(),
        },
    }[name]
    job = imported(bedrock, name, given)
    assert job["status"] == "Failed"
    assert said in job["failureMessage"]


def test_where_imports_are_not(bedrock: Bedrock, files: dict[str, bytes]) -> None:
    with pytest.raises(ClientError, match="not in eu-west-1"):
        imported(bedrock, "europe", {"config.json": b"{}"}, "eu-west-1")
    with pytest.raises(ClientError, match="Nothing lies under"):
        imported(bedrock, "empty", {})


def test_quotas_of_a_new_account(bedrock: Bedrock) -> None:
    ctx = Context(ACCOUNT, "us-east-2", bedrock.cloud.cloud)

    def refused(call: Callable[[], Any], said: str) -> None:
        with pytest.raises(ClientError, match=said) as caught:
            call()
        assert code(caught) == "ServiceQuotaExceededException"

    def import_(name: str) -> Callable[[], Any]:
        source = {"s3DataSource": {"s3Uri": "s3://data/quota/"}}
        create = bedrock("bedrock", "us-east-2").create_model_import_job
        return lambda: create(jobName=name, importedModelName=name, roleArn=ROLE, modelDataSource=source)

    bedrock.put("quota/config.json", "{}")
    job = {"jobArn": f"arn:aws:bedrock:us-east-2:{ACCOUNT}:model-import-job/{'a' * 12}", "jobName": "under-way"}
    IMPORT_JOBS.create(ctx, {**job, "importedModelName": "m", "status": "InProgress"}, None)
    refused(import_("second"), "1 model import jobs in progress; its quota is 1")
    IMPORT_JOBS.change(ctx, job, lambda doc: doc.update(status="Failed"))
    for letter in "abc":
        arn = f"arn:aws:bedrock:us-east-2:{ACCOUNT}:imported-model/{letter * 12}"
        IMPORTED.create(ctx, {"modelArn": arn, "modelName": letter}, None)
    refused(import_("fourth"), "3 imported models; its quota is 3")

    model = custom_model(bedrock, "quota", region="us-east-1")
    ctx = Context(ACCOUNT, "us-east-1", bedrock.cloud.cloud)
    for letter in "ab":
        arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model-deployment/{letter * 12}"
        doc = {"customModelDeploymentArn": arn, "modelDeploymentName": letter, "modelArn": model, "createdAt": 1.0}
        DEPLOYMENTS.create(ctx, {**doc, "_ready": time.time() + 3600}, None)
    create = bedrock().create_custom_model_deployment
    refused(lambda: create(modelDeploymentName="c", modelArn=model), "2 custom model deployments in progress")
