"""Customization jobs: what is refused, how they train, what they leave in S3, how they end."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_bedrock.conftest import (
    ACCOUNT,
    ANSWER,
    HAIKU,
    LLAMA,
    MICRO,
    Bedrock,
    code,
    conversations,
    until,
)

ASK = [{"role": "user", "content": [{"text": "turn it on"}]}]


@pytest.fixture(scope="module")
def queue(bedrock: Bedrock) -> str:
    """A queue that gets Bedrock's events."""
    sqs, events = bedrock("sqs"), bedrock("events")
    url: str = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.bedrock"], "detail-type": ["Model Customization Job State Change"]}
    events.put_rule(Name="told", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="told", Targets=[{"Id": "1", "Arn": arn}])
    return url


def told(bedrock: Bedrock, queue: str, count: int) -> list[dict[str, Any]]:
    """The next events, oldest first."""
    found: list[dict[str, Any]] = []

    def look() -> dict[str, Any]:
        answer = bedrock("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            bedrock("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            found.append(json.loads(message["Body"]))
        return {"count": len(found), "found": found}

    until(look, lambda seen: seen["count"] >= count)
    return found


def test_a_job_trains_writes_its_files_and_makes_a_model_that_answers(bedrock: Bedrock, queue: str) -> None:
    validation = bedrock.put("good/validation.jsonl", conversations(8))
    arn = bedrock.job(
        "good",
        conversations(),
        hyperParameters={"epochCount": "3"},
        validationDataConfig={"validators": [{"s3Uri": validation}]},
        jobTags=[{"key": "a", "value": "job"}],
        customModelTags=[{"key": "a", "value": "model"}],
    )
    assert arn.startswith(f"arn:aws:bedrock:us-east-1:{ACCOUNT}:model-customization-job/{MICRO}:128k/")
    job = bedrock.ended(arn)
    assert job["status"] == "Completed", job.get("failureMessage")
    assert {part["status"] for part in job["statusDetails"].values()} == {"Completed"}
    assert job["hyperParameters"] == {"epochCount": "3"}
    assert job["baseModelArn"] == f"arn:aws:bedrock:us-east-1::foundation-model/{MICRO}:128k"

    folder = f"output/model-customization-job-{arn.rpartition('/')[2]}"
    rows = list(
        csv.DictReader(io.StringIO(bedrock.object(f"{folder}/training_artifacts/step_wise_training_metrics.csv")))
    )
    assert list(rows[0]) == ["step_number", "epoch_number", "training_loss", "perplexity"]
    assert [int(row["step_number"]) for row in rows] == list(range(60))
    assert float(rows[-1]["epoch_number"]) == 3
    assert float(rows[-1]["training_loss"]) < 0.2 < 3 < float(rows[0]["training_loss"])
    assert float(rows[-1]["perplexity"]) == pytest.approx(math.exp(float(rows[-1]["training_loss"])))
    assert job["trainingMetrics"]["trainingLoss"] == pytest.approx(float(rows[-1]["training_loss"]))
    place = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
    [last] = csv.DictReader(io.StringIO(bedrock.object(f"{folder}/{place}")))
    assert list(last) == ["step_number", "epoch_number", "validation_loss", "perplexity"]
    assert job["validationMetrics"] == [{"validationLoss": pytest.approx(float(last["validation_loss"]))}]

    model = bedrock().get_custom_model(modelIdentifier="good-model")
    assert model["modelArn"] == job["outputModelArn"]
    assert (model["modelStatus"], model["jobArn"]) == ("Active", arn)
    for resource, value in ((arn, "job"), (model["modelArn"], "model")):
        assert bedrock().list_tags_for_resource(resourceARN=resource)["tags"] == [{"key": "a", "value": value}]
    [listed] = bedrock().list_custom_models(nameContains="good")["modelSummaries"]
    assert listed["modelArn"] == model["modelArn"]

    details = [event["detail"] for event in told(bedrock, queue, 2)]
    assert [detail["jobStatus"] for detail in details] == ["InProgress", "Completed"]
    assert details[1]["jobArn"] == arn
    assert details[1]["outputModelArn"] == model["modelArn"]
    assert {"version", "creationTime", "lastModifiedTime", "endTime", "trainingDataConfig"} <= set(details[1])

    deployment = bedrock().create_custom_model_deployment(modelDeploymentName="good", modelArn=model["modelArn"])
    serving = deployment["customModelDeploymentArn"]
    until(
        lambda: bedrock().get_custom_model_deployment(customModelDeploymentIdentifier=serving),
        lambda found: found["status"] == "Active",
    )
    greedy = {"temperature": 0.0, "maxTokens": 30}
    tuned = bedrock.runtime.converse(modelId=serving, messages=ASK, inferenceConfig=greedy)
    assert tuned["output"]["message"]["content"][0]["text"].strip() == ANSWER
    assert tuned["stopReason"] == "end_turn"
    base = bedrock.runtime.converse(modelId=MICRO, messages=ASK, inferenceConfig=greedy)
    assert base["output"]["message"]["content"][0]["text"].strip() != ANSWER

    with pytest.raises(ClientError) as caught:
        bedrock().delete_custom_model(modelIdentifier="good-model")
    assert code(caught) == "ConflictException"
    with pytest.raises(ClientError, match="can't be invoked by itself") as caught:
        bedrock.runtime.invoke_model(modelId=model["modelArn"].replace(":0:128k", ""), body=b"{}")
    assert code(caught) == "ValidationException"
    bedrock().delete_custom_model_deployment(customModelDeploymentIdentifier="good")
    bedrock().delete_custom_model(modelIdentifier=model["modelArn"])
    with pytest.raises(ClientError) as caught:
        bedrock().get_custom_model(modelIdentifier="good-model")
    assert code(caught) == "ResourceNotFoundException"


def test_the_same_request_is_one_job(bedrock: Bedrock) -> None:
    token = {"clientRequestToken": "again"}
    arn = bedrock.job("twice", "not json\n", **token)
    assert bedrock.job("twice", "not json\n", **token) == arn
    with pytest.raises(ClientError) as caught:
        bedrock.job("thrice", "not json\n", **token)
    assert code(caught) == "ConflictException"
    assert bedrock.ended(arn)["status"] == "Failed"
    with pytest.raises(ClientError, match="already in use") as caught:
        bedrock.job("twice", "not json\n")
    assert code(caught) == "ConflictException"
    bedrock.job("other", "not json\n", customModelName="twice-model")  # the failed job's model name is free
    found = bedrock().list_model_customization_jobs(nameContains="twice")["modelCustomizationJobSummaries"]
    assert [job["jobArn"] for job in found] == [arn]


@pytest.mark.parametrize(
    ("changes", "region", "error", "said"),
    [
        ({"hyperParameters": {"batchSize": "1"}}, "us-east-1", "ValidationException", "batchSize are not supported"),
        ({"hyperParameters": {"epochCount": "6"}}, "us-east-1", "ValidationException", "from 1 to 5"),
        ({"hyperParameters": {"epochCount": "2.5"}}, "us-east-1", "ValidationException", "a whole number"),
        ({"hyperParameters": {"learningRate": "0.1"}}, "us-east-1", "ValidationException", "from 1e-06 to 0.0001"),
        ({}, "us-west-2", "ValidationException", "model identifier is invalid"),
        (
            {"baseModelIdentifier": MICRO},
            "us-east-1",
            "ValidationException",
            "contextual id amazon.nova-micro-v1:0:128k",
        ),
        ({"baseModelIdentifier": f"{MICRO}:24k"}, "us-east-1", "ValidationException", "contextual id"),
        ({"customizationType": "CONTINUED_PRE_TRAINING"}, "us-east-1", "ValidationException", "CONTINUED_PRE_TRAINING"),
        ({"customizationType": "DISTILLATION"}, "us-east-1", "NotImplemented", "DISTILLATION"),
        (
            {"baseModelIdentifier": "amazon.titan-text-express-v1:0:8k"},
            "us-east-1",
            "ResourceNotFoundException",
            "end of its life",
        ),
        (
            {"baseModelIdentifier": "anthropic.claude-3-haiku-20240307-v1:0:200k"},
            "us-west-2",
            "ResourceNotFoundException",
            "end of its life",
        ),
        ({"baseModelIdentifier": HAIKU}, "us-east-1", "ValidationException", "can't be customized"),
        (
            {"trainingDataConfig": {"s3Uri": "s3://data/absent.jsonl"}},
            "us-east-1",
            "ValidationException",
            "absent.jsonl",
        ),
        ({"outputDataConfig": {"s3Uri": "s3://no-bucket/x"}}, "us-east-1", "ValidationException", "no-bucket"),
        ({"jobTags": [{"key": f"k{n}", "value": ""} for n in range(51)]}, "us-east-1", "TooManyTagsException", "51"),
        ({"jobName": "a b"}, "us-east-1", "ValidationException", "jobName"),
    ],
)
def test_what_a_job_is_refused_for(
    bedrock: Bedrock, changes: dict[str, Any], region: str, error: str, said: str
) -> None:
    with pytest.raises(ClientError, match=said) as caught:
        bedrock.job("refused", conversations(), region, **changes)
    assert code(caught) == error
    assert (
        bedrock("bedrock", region).list_model_customization_jobs(nameContains="refused")[
            "modelCustomizationJobSummaries"
        ]
        == []
    )


def test_a_role_has_to_trust_bedrock(bedrock: Bedrock) -> None:
    for service in ("sagemaker", "bedrock"):
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        role = bedrock("iam").create_role(RoleName=service, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        if service == "bedrock":
            bedrock.job("trusted", "not json\n", roleArn=role)
        else:
            with pytest.raises(ClientError, match=r"bedrock\.amazonaws\.com"):
                bedrock.job("trusted", "not json\n", roleArn=role)


@pytest.mark.parametrize(
    ("name", "data", "changes", "said"),
    [
        ("few", conversations(7), {}, "7 records; at least 8"),
        ("format", conversations(8) + '{"prompt": "a"}\n', {}, "line 9: schemaVersion must be"),
        ("word", conversations(8, "User: hi"), {}, "'User:' is reserved"),
        (
            "trainer",
            conversations(),
            {"hyperParameters": {"learningRateWarmupSteps": "98"}},
            "the loss is not a number",
        ),
        ("silent", conversations(), {"hyperParameters": {"learningRateWarmupSteps": "97"}}, "no history.json"),
    ],
)
def test_a_job_fails_with_the_reason(
    bedrock: Bedrock, name: str, data: str, changes: dict[str, Any], said: str
) -> None:
    job = bedrock.ended(bedrock.job(f"bad-{name}", data, **changes))
    assert job["status"] == "Failed"
    assert said in job["failureMessage"]
    assert "Failed" in {part["status"] for part in job["statusDetails"].values()}
    assert "outputModelArn" not in job


def test_a_job_stops_with_its_trainer(bedrock: Bedrock) -> None:
    marks = bedrock.cloud.home / "bedrock"
    (marks / "waiting").unlink(missing_ok=True)
    arn = bedrock.job("halted", conversations(), hyperParameters={"learningRateWarmupSteps": "99"})
    until(lambda: {"there": (marks / "waiting").exists()}, lambda seen: seen["there"])
    bedrock().stop_model_customization_job(jobIdentifier="halted")
    assert bedrock.ended(arn)["status"] == "Stopped"
    assert list((marks / "jobs").iterdir()) == []
    with pytest.raises(ClientError) as caught:
        bedrock().stop_model_customization_job(jobIdentifier=arn)
    assert code(caught) == "ConflictException"


def test_llama_takes_pairs_and_its_own_hyperparameters(bedrock: Bedrock) -> None:
    pairs = '{"prompt": "turn it on", "completion": ""}\n'
    changes = {"baseModelIdentifier": f"{LLAMA}:128k", "hyperParameters": {"epochCount": "1", "batchSize": "1"}}
    job = bedrock.ended(bedrock.job("pairs", pairs, "us-west-2", **changes), "us-west-2")
    assert "not empty" in job["failureMessage"]
    with pytest.raises(ClientError, match="from 1 to 1"):
        bedrock.job("batch", pairs, "us-west-2", **{**changes, "hyperParameters": {"batchSize": "2"}})
