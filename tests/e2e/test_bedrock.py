"""The Bedrock branch from raw rows to an answer, on localcloud: a tiny model really trains, serves and is scored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import House, start_house
from tests.support.command import ROOT
from tests.support.tiny_model import make_tiny_model

STEPS = {"Inputs", "Prepare", "ChooseMethod", "CustomizeBedrock", "EvaluateBedrock", "QualityGateBedrock",
         "RegisterBedrock", "DescribeBedrock", "ApprovedAlreadyBedrock"}  # fmt: skip
SETTINGS = {"method": "full", "merge": "true", "max_steps": "3", "batch_size": "4", "learning_rate": "0.0001",
            "evaluations_per_run": "1", "checkpoints_per_run": "1", "max_seq_length": "128", "seed": "1"}  # fmt: skip


@pytest.fixture(scope="module")
def bedrock_house(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("bedrock-house")
    texts = [text for row in rows[:60] for text in row.values()]
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    trainer = [
        sys.executable,
        str(ROOT / "pipelines" / "local_trainer.py"),
        "--settings",
        str(folder / "settings.json"),
    ]
    stand_in = {"model": str(make_tiny_model(folder / "stand-in", texts)), "train": trainer}
    (folder / "bedrock.json").write_text(json.dumps(stand_in))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALCLOUD_BEDROCK", str(folder / "bedrock.json"))
        found = start_house(folder, texts, clock_speed=20)
        yield found
        found.run("local", "down")


def test_from_rows_to_an_answer(bedrock_house: House, rows: list[dict[str, str]]) -> None:
    house = bedrock_house
    file = house.directory / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:200]))
    started = house.run(
        "start", "--data", str(file), "-p", "TrainingMethod=bedrock", "-p", "EvaluationRows=8", "-p", "FewShot=1",
        "-p", "MaxNewTokens=8", "-p", "BedrockEpochs=1", "--wait",
    ).stdout  # fmt: skip
    run = started.split("execution ")[1].split(".")[0]
    status = house.run("status", run).stdout
    assert {line.split()[0] for line in status.splitlines()[1:] if "Succeeded" in line} == STEPS, status
    report = house.run("report", run).stdout
    assert "exact_match" in report
    assert "validation_loss" not in report
    evaluation = json.loads(next(house.home.rglob(f"{run}/evaluation.json")).read_text())
    assert evaluation["training"]["method"] == "bedrock"
    assert evaluation["training"]["history"]
    assert set(evaluation["served"]) == {"candidate", "base", "base_few_shot"}

    bedrock = house.client("bedrock")
    assert bedrock.list_custom_model_deployments()["modelDeploymentSummaries"] == [], "it was hosted, and is no more"
    [package] = house.client("sagemaker").list_model_packages(ModelPackageGroupName="fmops-models")[
        "ModelPackageSummaryList"
    ]
    found = house.client("sagemaker").describe_model_package(ModelPackageName=package["ModelPackageArn"])
    [model] = bedrock.list_custom_models()["modelSummaries"]
    assert found["SourceUri"] == model["modelArn"]
    assert "InferenceSpecification" not in found
    card = json.loads(found["ModelCard"]["ModelCardContent"])
    assert card["model_overview"]["model_artifact"] == [model["modelArn"]]
    assert found["CustomerMetadataProperties"]["method"] == "bedrock"

    assert "fmops-endpoint-bedrock" in house.run("approve", "1", "--wait").stdout
    [deployment] = bedrock.list_custom_model_deployments()["modelDeploymentSummaries"]
    assert deployment["status"] == "Active"
    house.run("invoke", "turn on the lights", "--max-new-tokens", "4")
    house.run("invoke", "turn on the lights", "--max-new-tokens", "4", "--stream")
    shown = house.run("endpoint").stdout
    assert "in service   version 1" in shown
    assert "by the token" in shown
    scored = house.run(
        "evaluate", "--bedrock", deployment["customModelDeploymentArn"], "--data", str(file), "--max-rows", "4",
        "--output", str(house.directory / "scored"),
    ).stdout  # fmt: skip
    assert "exact_match" in scored
    assert "p99" in scored
    assert (house.directory / "scored" / "report.html").is_file()
    house.run("undeploy", "--wait")
    assert bedrock.list_custom_model_deployments()["modelDeploymentSummaries"] == []


REFUSED = {
    "BedrockBaseModel=anthropic.claude-3-haiku-20240307-v1:0:200k": "end of life",
    "BedrockBaseModel=amazon.nova-premier-v1:0": "belongs to no family whose jobs are known",
    "BedrockEpochs=9": "allowed: a whole number from 1 to 5",
    "BedrockBatchSize=8": "has no such hyperparameter",
    "BedrockBaseModel=meta.llama3-3-70b-instruct-v1:0:128k": "These can be:",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_bedrock_would_refuse_is_refused_before_the_run(bedrock_house: House, given: str) -> None:
    done: Any = bedrock_house.run(
        "start",
        "-p",
        "TrainingMethod=bedrock",
        "-p",
        given,
        expect=2 if given.split("=")[0] != "BedrockBaseModel" or "premier" in given else 1,
    )
    assert REFUSED[given] in done.stderr
