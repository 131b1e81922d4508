"""The templates: accepted by cfn-lint, deployable as they are, and granting only what is needed."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from configuration.code import shipped
from configuration.config import Config
from configuration.names import Names
from pipelines.bootstrap import foundation_parameters
from pipelines.publish import deployment_parameters
from tests.support.definitions import all_steps

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ["foundation.yaml", "bedrock.yaml", "deployment.yaml"]

FUNCTIONS = ("deploy", "gate", "card", "storage", "customize")
WORKERS = ("pipeline", "training", "endpoint", "bedrock", "bedrock-evaluation", *FUNCTIONS)

# AWS knows no resources for these calls; each is bounded in another way (namespace, or nothing to protect).
ANY_RESOURCE = {
    "bedrock:ListCustomModelDeployments",
    "bedrock:ListModelCustomizationJobs",
    "bedrock:ListProvisionedModelThroughputs",
    "application-autoscaling:DescribeScalableTargets",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "sagemaker:ListInferenceComponents",
}


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short tags: `!Sub x` -> {"!Sub": "x"}."""


def _tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {f"!{suffix}": loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {f"!{suffix}": loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {f"!{suffix}": loader.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", _tag)


def template(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / "infrastructure" / name).read_text("utf-8"), Loader)
    return loaded


def resources(name: str, kind: str) -> dict[str, Any]:
    return {key: item["Properties"] for key, item in template(name)["Resources"].items() if item["Type"] == kind}


def statements(role: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every statement of a role's policies, those behind a condition too."""
    for policy in role["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            branches = statement["!If"][1:] if "!If" in statement else [statement]
            yield from (branch for branch in branches if "Sid" in branch)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_cfn_lint_accepts_both_with_its_informational_rules() -> None:
    paths = [f"infrastructure/{name}" for name in TEMPLATES]
    result = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


def test_no_role_may_do_everything_or_on_everything() -> None:
    roles = {**resources("foundation.yaml", "AWS::IAM::Role"), **resources("bedrock.yaml", "AWS::IAM::Role")}
    assert len(roles) == 10
    count = 0
    for name, role in roles.items():
        assert "ManagedPolicyArns" not in role, name
        for statement in statements(role):
            count += 1
            actions = as_list(statement["Action"])
            if statement["Effect"] == "Deny":
                assert "Approve" in statement["Sid"]
                continue
            assert not [action for action in actions if "*" in action], (name, statement["Sid"])
            if "*" in as_list(statement["Resource"]):
                assert set(actions) <= ANY_RESOURCE, (name, statement["Sid"])
            for resource in as_list(statement["Resource"]):
                text = resource.get("!Sub", "") if isinstance(resource, dict) else resource
                assert text in ("", "*") or "*:*" not in text
    assert count >= 35


def test_roles_are_passed_to_sagemaker_only_and_one_at_a_time() -> None:
    passed = {
        name: (statement["Resource"], statement["Condition"])
        for name, role in resources("foundation.yaml", "AWS::IAM::Role").items()
        for statement in statements(role)
        if "iam:PassRole" in as_list(statement["Action"])
    }
    only = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert passed == {
        "PipelineRole": ({"!GetAtt": "TrainingRole.Arn"}, only),
        "DeployRole": ({"!GetAtt": "EndpointRole.Arn"}, only),
    }


def people(name: str) -> list[dict[str, Any]]:
    """The statements of a policy for people."""
    policy = resources("foundation.yaml", "AWS::IAM::ManagedPolicy")[name]
    found: list[dict[str, Any]] = policy["PolicyDocument"]["Statement"]
    return found


def allowed(found: list[dict[str, Any]]) -> set[str]:
    return {action for statement in found for action in as_list(statement["Action"])}


def test_who_starts_runs_approves_nothing_and_who_approves_starts_nothing() -> None:
    operator, reviewer = allowed(people("OperatorPolicy")), allowed(people("ReviewerPolicy"))
    assert "sagemaker:StartPipelineExecution" in operator - reviewer
    assert "sagemaker:UpdateModelPackage" in reviewer - operator
    assert not {action for action in operator if "Endpoint" in action or action == "lambda:InvokeFunction"}
    changes = ("Create", "Update", "Delete", "Put", "Start", "Stop", "InvokeF", "Pass", "Add", "Set")
    changing = {action for action in reviewer if action.split(":")[1].startswith(changes)}
    # The deploy function deploys what is approved, and nothing else.
    assert changing == {"sagemaker:UpdateModelPackage", "lambda:InvokeFunction"}
    [decide] = [item for item in people("ReviewerPolicy") if "sagemaker:UpdateModelPackage" in as_list(item["Action"])]
    assert list(decide["Condition"]["StringEquals"]) == ["sagemaker:ModelApprovalStatus"]
    for statement in (*people("OperatorPolicy"), *people("ReviewerPolicy")):
        assert statement["Effect"] == "Allow"
        assert not [action for action in as_list(statement["Action"]) if "*" in action]
        if "*" in as_list(statement["Resource"]):
            assert {action.split(":")[1][:4] for action in as_list(statement["Action"])} <= {
                "List",
                "Quer",
                "Desc",
                "GetP",
            }


def test_a_run_may_approve_only_where_pipeline_yaml_says_so(config: Config) -> None:
    """Where the deny stands: the roles that a run acts with, unless registry.approval is Approved."""
    denied = {
        name: statement
        for name, role in resources("foundation.yaml", "AWS::IAM::Role").items()
        for statement in statements(role)
        if statement["Effect"] == "Deny"
    }
    assert set(denied) == {"PipelineRole", "CardRole"}
    for statement in denied.values():
        assert "Approved" in as_list(statement["Condition"]["StringEquals"]["sagemaker:ModelApprovalStatus"])
    assert foundation_parameters(config)["ApprovalByRuns"] == "false"
    registry = config.registry.model_copy(update={"approval": "Approved"})
    assert foundation_parameters(config.model_copy(update={"registry": registry}))["ApprovalByRuns"] == "true"


def test_sagemaker_may_assume_roles_for_this_account_only() -> None:
    roles = resources("foundation.yaml", "AWS::IAM::Role")
    for name in ("PipelineRole", "TrainingRole", "EndpointRole"):
        [statement] = roles[name]["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
        assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"!Ref": "AWS::AccountId"}}
        assert "aws:SourceArn" in statement["Condition"]["ArnLike"]


def test_buckets_are_encrypted_versioned_private_and_cleaned() -> None:
    buckets = resources("foundation.yaml", "AWS::S3::Bucket")
    policies = resources("foundation.yaml", "AWS::S3::BucketPolicy")
    assert len(buckets) == len(policies) == 3
    for name, bucket in buckets.items():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": {"!GetAtt": "Key.Arn"},
        }
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        rules = {rule["Id"] for rule in bucket["LifecycleConfiguration"]["Rules"]}
        assert {"incomplete-uploads", "old-versions"} <= rules
        assert ("checkpoints" in rules) == (name == "ModelArtifactsBucket")
        [deny] = policies[f"{name}Policy"]["PolicyDocument"]["Statement"]
        assert (deny["Effect"], deny["Action"]) == ("Deny", "s3:*")
        assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    [key] = resources("foundation.yaml", "AWS::KMS::Key").values()
    assert key["EnableKeyRotation"] is True


def test_what_holds_data_survives_its_stack() -> None:
    for item in template("foundation.yaml")["Resources"].values():
        if item["Type"] in ("AWS::S3::Bucket", "AWS::KMS::Key"):
            assert (item["DeletionPolicy"], item["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_names_are_the_contracts(config: Config) -> None:
    names = Names.of(config)

    def filled(text: str) -> str:
        for key, value in (
            ("Prefix", names.prefix),
            ("AWS::AccountId", names.account_id),
            ("AWS::Region", names.region),
        ):
            text = text.replace(f"${{{key}}}", value)
        return text

    buckets = {filled(item["BucketName"]["!Sub"]) for item in resources("foundation.yaml", "AWS::S3::Bucket").values()}
    assert buckets == {names.training_data_bucket, names.artifacts_bucket, names.results_bucket}
    roles = {
        filled(item["RoleName"]["!Sub"])
        for name in ("foundation.yaml", "bedrock.yaml")
        for item in resources(name, "AWS::IAM::Role").values()
    }
    assert roles == {f"fmops-{purpose}" for purpose in WORKERS}
    functions = resources("deployment.yaml", "AWS::Lambda::Function").values()
    assert {filled(item["FunctionName"]["!Sub"]) for item in functions} == {f"fmops-{name}" for name in FUNCTIONS}
    for item in functions:
        module, _, handler = item["Handler"].partition(".")
        assert f"def {handler}(" in (ROOT / "lambdas" / f"{module}.py").read_text("utf-8")


def test_the_code_gives_the_templates_their_parameters(config: Config) -> None:
    given = {
        "foundation.yaml": foundation_parameters(config),
        "deployment.yaml": deployment_parameters(config, shipped("lambdas")),
    }
    for name, values in given.items():
        parameters = template(name)["Parameters"]
        assert set(values) <= set(parameters)
        assert {key for key, item in parameters.items() if "Default" not in item} <= set(values)
    repositories = given["foundation.yaml"]["ImageRepositoryArns"].split(",")
    assert [repository.rpartition("/")[2] for repository in repositories] == [
        "djl-inference",
        "huggingface-pytorch-inference",
        "huggingface-pytorch-training",
    ]


def test_foreign_buckets_are_readable_and_nothing_else_of_them(config: Config) -> None:
    assert foundation_parameters(config)["ReadObjectArns"] == ""
    model = config.model.model_copy(update={"base": "s3://models-of-others/llama/8b"})
    elsewhere = foundation_parameters(config.model_copy(update={"model": model}))
    assert elsewhere["ReadBucketArns"] == "arn:aws:s3:::models-of-others"
    assert elsewhere["ReadObjectArns"] == "arn:aws:s3:::models-of-others/llama/8b/*"
    training = config.training.model_copy(update={"start_from": "s3://models-of-others/v3/model.tar.gz"})
    version = foundation_parameters(config.model_copy(update={"training": training}))
    assert version["ReadObjectArns"] == "arn:aws:s3:::models-of-others/v3/model.tar.gz*"


def test_the_training_role_may_use_the_mlflow_that_is_named(config: Config) -> None:
    server = "arn:aws:sagemaker:us-east-1:111122223333:mlflow-tracking-server/ours"
    for uri, arn in ((server, server), ("https://mlflow.example.com", ""), (None, "")):
        training = config.training.model_copy(update={"mlflow_tracking_uri": uri})
        assert foundation_parameters(config.model_copy(update={"training": training}))["MlflowArn"] == arn
    role = template("foundation.yaml")["Resources"]["TrainingRole"]["Properties"]
    [choice] = [
        statement["!If"]
        for statement in role["Policies"][0]["PolicyDocument"]["Statement"]
        if "!If" in statement and statement["!If"][0] == "TracksInMlflow"
    ]
    _, allowed, otherwise = choice
    assert allowed["Resource"] == {"!Ref": "MlflowArn"}
    assert "*" not in "".join(allowed["Action"])
    assert otherwise == {"!Ref": "AWS::NoValue"}


BUCKETS = {"TrainingDataBucket": "data", "ModelArtifactsBucket": "artifacts", "EvaluationResultsBucket": "results"}

PURPOSES = {"training-data": "data", "model-artifacts": "artifacts", "evaluation-results": "results"}


def places_of(role: str, action: str) -> list[str]:
    """The patterns of `<bucket>/<key>` on which a role may do something, by the templates' names of buckets."""
    found = []
    roles = {**resources("foundation.yaml", "AWS::IAM::Role"), **resources("bedrock.yaml", "AWS::IAM::Role")}
    for statement in statements(roles[role]):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        places = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        if action in actions:
            texts = [place.get("!Sub") or place.get("!GetAtt", "") for place in places if isinstance(place, dict)]
            for purpose, short in PURPOSES.items():
                bucket = f"arn:${{AWS::Partition}}:s3:::${{Prefix}}-{purpose}-${{AWS::AccountId}}-${{AWS::Region}}"
                texts = [text.replace(bucket, short) for text in texts]
            for name, short in BUCKETS.items():
                found += [text.replace(f"${{{name}.Arn}}", short).replace(f"{name}.Arn", short) for text in texts]
    return [place for place in found if place.partition("/")[0] in BUCKETS.values()]


def place_of(value: Any, steps: dict[str, Any], config: Config) -> list[str]:
    """`<bucket>/<key>` of an S3 URI in a definition; what only the run knows is a `run`."""
    names = Names.of(config)
    short = {names.training_data_bucket: "data", names.artifacts_bucket: "artifacts", names.results_bucket: "results"}
    if isinstance(value, dict) and "Std:Join" in value:
        value = "".join(part if isinstance(part, str) else "run" for part in value["Std:Join"]["Values"])
    if isinstance(value, str):
        bucket, _, key = value.removeprefix("s3://").partition("/")
        return [f"{short[bucket]}/{key}"]
    get = value["Get"]
    known = {
        "Parameters.InputDataUri": ["data/raw/"],
        "Parameters.BaseModel": ["artifacts/base-models/x/"],
        "Steps.Train.ModelArtifacts.S3ModelArtifacts": ["artifacts/training/run/output/model.tar.gz"],
        "Steps.Inputs.OutputParameters['base_model']": ["data/outlines/digest/"],  # lambdas/outline.py
        "Steps.CustomizeBedrock.OutputParameters['customization_uri']": [
            "results/run/customization/customization.json"
        ],
        # lambdas/champion.py: a version's archive, or the code that stands for none
        "Steps.Champion.OutputParameters['uri']": ["artifacts/training/run/output/model.tar.gz", "artifacts/code/x/"],
    }
    if get in known:
        return known[get]
    match = re.fullmatch(r"Steps\.(\w+)\.ProcessingOutputConfig\.Outputs\['(\w+)'\]\.S3Output\.S3Uri", get)
    assert match, get
    outputs = steps[match[1]]["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    [uri] = [output["S3Output"]["S3Uri"] for output in outputs if output["OutputName"] == match[2]]
    return place_of(uri, steps, config)


def test_jobs_may_read_what_they_are_given_and_write_where_they_are_told(
    config: Config, definition: dict[str, Any]
) -> None:
    """SageMaker copies with the job's role; localcloud asks nobody, so that a missing right would show on AWS alone."""
    steps = {step["Name"]: step for step in all_steps(definition)}
    asked = 0
    for name, step in steps.items():
        role = "BedrockEvaluationRole" if name == "EvaluateBedrock" else "TrainingRole"
        reads, writes = (places_of(role, action) for action in ("s3:GetObject", "s3:PutObject"))
        request = step["Arguments"]
        given = [item["S3Input"]["S3Uri"] for item in request.get("ProcessingInputs", [])]
        given += [item["DataSource"]["S3DataSource"]["S3Uri"] for item in request.get("InputDataConfig", [])]
        told = [item["S3Output"]["S3Uri"] for item in request.get("ProcessingOutputConfig", {}).get("Outputs", [])]
        for values, patterns in ((given, reads), (told, writes)):
            for place in (place for value in values for place in place_of(value, steps, config)):
                asked += 1
                whole = place + "x" if place.endswith("/") else f"{place}/x" if values is told else place
                assert any(fnmatch.fnmatchcase(f"{whole}", one) or fnmatch.fnmatchcase(f"{whole}/x", one) for one in
                           patterns), (name, place)  # fmt: skip
    assert asked > 25


def test_who_asks_for_what_may_not_be_there_may_list_the_bucket() -> None:
    """Else S3 answers AccessDenied, and a log or an outline that isn't there yet would end the run."""
    for role, buckets in (
        ("GateRole", {"artifacts"}),
        ("StorageRole", {"data", "artifacts"}),
        ("DeployRole", {"artifacts"}),
    ):
        assert buckets <= set(places_of(role, "s3:ListBucket")), role
