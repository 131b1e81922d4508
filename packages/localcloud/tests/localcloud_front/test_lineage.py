"""ML lineage with boto3: what real jobs, packages, models and endpoints leave in the graph, and what users add."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud, control
from localcloud_front.conftest import ACCOUNT, REGION, Clients, free_port
from localcloud_front.test_autoscaling import eventually, refused
from localcloud_front.test_control import kill
from localcloud_front.test_delegate import bucket

ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
PREPARE_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/prepare:1"
TRAIN_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/train:1"
SERVE_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/serve:1"
RAW, CLEAN, CODE = "s3://flow/raw", "s3://flow/clean", "s3://flow/code"
PREPARE = """
import pathlib
rows = pathlib.Path("/opt/ml/processing/input/raw/rows.txt").read_text()
out = pathlib.Path("/opt/ml/processing/output/clean")
out.mkdir(parents=True, exist_ok=True)
(out / "rows.txt").write_text(rows.upper())
"""
TRAIN = """
import os, pathlib
rows = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "rows.txt").read_text()
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
(model / "code").mkdir()
(model / "code" / "inference.py").write_text("def model_fn(d): return 0\\ndef predict_fn(r, m): return r\\n")
(model / "weights.txt").write_text(rows)
"""


class Flow:
    """Raw data -> processing job -> training job -> package version -> model -> endpoint, step by step."""

    def __init__(self, aws: Clients, endpoint: str = "chat") -> None:
        self.aws, self.endpoint, self.sagemaker = aws, endpoint, aws("sagemaker")
        self.model_data = self.package = ""

    def prepare(self, job: str = "prepare") -> None:
        self.aws("s3").put_object(Bucket="flow", Key="raw/rows.txt", Body=b"one two")
        self.aws("s3").put_object(Bucket="flow", Key="code/prepare.py", Body=PREPARE.encode())
        self.aws("s3").put_object(Bucket="flow", Key="code/train.py", Body=TRAIN.encode())

        def source(name: str, uri: str) -> dict[str, Any]:
            where = {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/input/{name}", "S3DataType": "S3Prefix"}
            return {"InputName": name, "S3Input": {**where, "S3InputMode": "File"}}

        result = {"S3Uri": CLEAN, "LocalPath": "/opt/ml/processing/output/clean", "S3UploadMode": "EndOfJob"}
        script = "/opt/ml/processing/input/code/prepare.py"
        cluster = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
        self.sagemaker.create_processing_job(
            ProcessingJobName=job,
            AppSpecification={"ImageUri": PREPARE_IMAGE, "ContainerEntrypoint": ["python3", script]},
            RoleArn=ROLE,
            ProcessingInputs=[source("raw", RAW), source("code", CODE)],
            ProcessingOutputConfig={"Outputs": [{"OutputName": "clean", "S3Output": result}]},
            ProcessingResources={"ClusterConfig": cluster},
        )
        self._ends("ProcessingJob", lambda: self.sagemaker.describe_processing_job(ProcessingJobName=job))

    def train(self, job: str = "train") -> None:
        def channel(name: str, uri: str) -> dict[str, Any]:
            source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
            return {"ChannelName": name, "DataSource": {"S3DataSource": source}}

        self.sagemaker.create_training_job(
            TrainingJobName=job,
            AlgorithmSpecification={
                "TrainingImage": TRAIN_IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
            },
            RoleArn=ROLE,
            HyperParameters={"epochs": "3"},
            InputDataConfig=[channel("train", CLEAN), channel("code", CODE)],
            OutputDataConfig={"S3OutputPath": "s3://flow/models"},
            ResourceConfig={"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
            StoppingCondition={"MaxRuntimeInSeconds": 600},
        )
        done = self._ends("TrainingJob", lambda: self.sagemaker.describe_training_job(TrainingJobName=job))
        self.model_data = done["ModelArtifacts"]["S3ModelArtifacts"]

    def _ends(self, noun: str, describe: Callable[[], Any]) -> dict[str, Any]:
        found: dict[str, Any] = eventually(lambda: describe() if describe()[f"{noun}Status"] != "InProgress" else None)
        assert found[f"{noun}Status"] == "Completed", found
        return found

    def register(self) -> None:
        self.sagemaker.create_model_package_group(ModelPackageGroupName="Chat")
        container = {"Image": SERVE_IMAGE, "ModelDataUrl": self.model_data}
        self.package = self.sagemaker.create_model_package(
            ModelPackageGroupName="Chat",
            InferenceSpecification={
                "Containers": [container],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]

    def approve(self) -> None:
        self.sagemaker.update_model_package(
            ModelPackageArn=self.package, ModelApprovalStatus="Approved", ApprovalDescription="good"
        )

    def deploy(self) -> None:
        self.sagemaker.create_model(
            ModelName="chat-1", PrimaryContainer={"ModelPackageName": self.package}, ExecutionRoleArn=ROLE
        )
        variant = {"VariantName": "v", "ModelName": "chat-1", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName="chat-1", ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=self.endpoint, EndpointConfigName="chat-1")
        describe = self.sagemaker.describe_endpoint
        eventually(lambda: describe(EndpointName=self.endpoint)["EndpointStatus"] == "InService")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with LocalCloud(tmp_path_factory.mktemp("home")) as cloud:
        clients = Clients(cloud)
        yield clients
        clients.close()


@pytest.fixture(scope="module")
def flow(aws: Clients) -> Flow:
    bucket(aws, "flow")
    made = Flow(aws)
    made.prepare()
    made.train()
    made.register()
    made.approve()
    made.deploy()
    return made


def artifact(aws: Clients, uri: str) -> str:
    (found,) = aws("sagemaker").list_artifacts(SourceUri=uri)["ArtifactSummaries"]
    arn: str = found["ArtifactArn"]
    return arn


def context(aws: Clients, uri: str) -> str:
    (found,) = aws("sagemaker").list_contexts(SourceUri=uri)["ContextSummaries"]
    arn: str = found["ContextArn"]
    return arn


def query(aws: Clients, start: str, direction: str, **more: Any) -> list[tuple[str, str]]:
    """(type, name or source URI) of what is reached."""
    client = aws("sagemaker")
    vertices = client.query_lineage(StartArns=[start], Direction=direction, **more)["Vertices"]
    found = []
    for vertex in vertices:
        name = vertex["Arn"].rpartition("/")[2]
        if vertex["LineageType"] == "Artifact":
            name = client.describe_artifact(ArtifactArn=vertex["Arn"])["Source"]["SourceUri"]
        found.append((vertex["Type"], name))
    return found


def endpoint_arn(name: str = "chat") -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}"


def test_an_endpoint_leads_up_to_the_raw_data(aws: Clients, flow: Flow) -> None:
    start = context(aws, endpoint_arn())
    found = query(aws, start, "Ascendants")
    kinds = [kind for kind, _ in found]
    assert kinds[0] == "ModelDeployment"
    chain = [
        ("Model", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/chat-1"),
        ("Model", flow.package),
        ("Model", flow.model_data),
        ("TrainingJob", "train-aws-training-job"),
        ("DataSet", CLEAN),
        ("ProcessingJob", "prepare-aws-processing-job"),
        ("DataSet", RAW),
    ]
    assert set(chain) <= set(found)
    assert {("Image", image) for image in (PREPARE_IMAGE, TRAIN_IMAGE, SERVE_IMAGE)} <= set(found)
    assert [found.index(step) for step in chain] == sorted(found.index(step) for step in chain)
    assert "Approval" in kinds
    assert "Endpoint" not in kinds
    data = query(aws, start, "Ascendants", IncludeEdges=False, Filters={"Types": ["DataSet"]})
    assert {name for _, name in data} == {RAW, CLEAN, CODE}


def test_the_raw_data_leads_down_to_the_endpoint(aws: Clients, flow: Flow) -> None:
    found = query(aws, artifact(aws, RAW), "Descendants")
    assert ("Endpoint", "chat-aws-endpoint") in found
    assert ("ModelGroup", "Chat-aws-model-package-group") in found
    assert ("Model", flow.package) in found
    only = {"LineageTypes": ["Context"], "Types": ["Endpoint"]}
    assert query(aws, artifact(aws, RAW), "Descendants", IncludeEdges=False, Filters=only) == [
        ("Endpoint", "chat-aws-endpoint")
    ]


def test_edges_come_with_what_is_on_the_way(aws: Clients, flow: Flow) -> None:
    client = aws("sagemaker")
    start = artifact(aws, flow.model_data)
    asked = {"StartArns": [start], "Direction": "Ascendants", "Filters": {"Types": ["ProcessingJob"]}}
    answer = client.query_lineage(**asked)
    assert [vertex["Type"] for vertex in answer["Vertices"]] == ["TrainingJob", "DataSet", "ProcessingJob"]
    train, clean, prepare = (vertex["Arn"] for vertex in answer["Vertices"])
    found = {(edge["SourceArn"], edge["DestinationArn"]): edge["AssociationType"] for edge in answer["Edges"]}
    assert found == {(prepare, clean): "Produced", (clean, train): "ContributedTo", (train, start): "Produced"}
    assert "Edges" not in client.query_lineage(**asked, IncludeEdges=False)


def test_depth_pages_and_directions(aws: Clients, flow: Flow) -> None:
    client = aws("sagemaker")
    start = artifact(aws, flow.model_data)
    near = query(aws, start, "Both", MaxDepth=1)
    assert {kind for kind, _ in near} == {"TrainingJob", "Model"}
    whole = client.query_lineage(StartArns=[start], Direction="Both")
    vertices: list[Any] = []
    edges: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = client.query_lineage(StartArns=[start], Direction="Both", MaxResults=4, **more)
        assert len(page["Vertices"]) <= 4
        vertices += page["Vertices"]
        edges += page["Edges"]
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}
    assert vertices == whole["Vertices"]
    assert sorted(map(str, edges)) == sorted(map(str, whole["Edges"]))
    assert len(vertices) > 8
    absent = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:artifact/{'0' * 32}"
    assert refused(lambda: client.query_lineage(StartArns=[absent]))[0] == "ResourceNotFound"


def test_jobs_are_trial_components(aws: Clients, flow: Flow) -> None:
    client = aws("sagemaker")
    found = client.describe_trial_component(TrialComponentName="train-aws-training-job")
    job = client.describe_training_job(TrainingJobName="train")
    assert found["Source"] == {"SourceArn": job["TrainingJobArn"], "SourceType": "SageMakerTrainingJob"}
    assert found["Status"] == {"PrimaryStatus": "Completed"}
    assert found["InputArtifacts"]["train"] == {"Value": CLEAN}
    assert found["OutputArtifacts"]["SageMaker.ModelArtifact"] == {"Value": flow.model_data}
    assert found["Parameters"]["epochs"] == {"StringValue": "3"}
    assert found["StartTime"] <= found["EndTime"]
    (listed,) = client.list_trial_components(SourceArn=job["TrainingJobArn"])["TrialComponentSummaries"]
    assert listed["TrialComponentArn"] == found["TrialComponentArn"]
    assert refused(lambda: client.describe_trial_component(TrialComponentName="none"))[0] == "ResourceNotFound"
    _, message = refused(lambda: client.list_trial_components(TrialName="t"))
    assert "TrialName is not supported" in message


def test_a_package_is_in_its_group_with_every_decision(aws: Clients, flow: Flow) -> None:
    client = aws("sagemaker")
    package = artifact(aws, flow.package)
    described = client.describe_artifact(ArtifactArn=package)
    assert (described["ArtifactName"], described["ArtifactType"]) == ("Chat-1-aws-model-package", "Model")
    decided = client.list_associations(SourceArn=package, DestinationType="Approval", SortOrder="Ascending")
    names = [one["DestinationName"] for one in decided["AssociationSummaries"]]
    assert [name.split("-")[2] for name in names] == ["PendingManualApproval", "Approved"]
    approval = client.describe_action(ActionName=names[1])
    assert (approval["Source"]["SourceUri"], approval["Status"]) == (flow.package, "Completed")
    assert approval["Description"] == "good"
    (group,) = client.list_associations(SourceArn=package, DestinationType="ModelGroup")["AssociationSummaries"]
    assert (group["DestinationName"], group["AssociationType"]) == ("Chat-aws-model-package-group", "AssociatedWith")


def test_a_deployment_completes_fails_and_leaves_the_endpoint_what_it_serves(aws: Clients, flow: Flow) -> None:
    client = aws("sagemaker")
    (done,) = client.list_actions(SourceUri=endpoint_arn(), ActionType="ModelDeployment")["ActionSummaries"]
    assert done["Status"] == "Completed"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        content = b"raise RuntimeError('never starts')"
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    aws("s3").put_object(Bucket="flow", Key="broken.tar.gz", Body=data.getvalue())
    container = {"Image": SERVE_IMAGE, "ModelDataUrl": "s3://flow/broken.tar.gz"}
    client.create_model(ModelName="broken", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "broken", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName="broken", ProductionVariants=[variant])
    client.update_endpoint(EndpointName="chat", EndpointConfigName="broken")

    def deployments() -> dict[str, str]:
        found = client.list_actions(SourceUri=endpoint_arn(), ActionType="ModelDeployment")["ActionSummaries"]
        actions = [client.describe_action(ActionName=one["ActionName"]) for one in found]
        return {one["Properties"]["EndpointConfigName"]: one["Status"] for one in actions}

    eventually(lambda: deployments() == {"chat-1": "Completed", "broken": "Failed"}, 120)
    start = context(aws, endpoint_arn())
    models = query(aws, start, "Ascendants", IncludeEdges=False, Filters={"Types": ["Model"]})
    assert "s3://flow/broken.tar.gz" not in [name for _, name in models]
    assert client.describe_context(ContextName="chat-aws-endpoint")["Properties"] == {"EndpointStatus": "InService"}


def test_artifacts_are_made_found_changed_and_deleted(aws: Clients) -> None:
    client = aws("sagemaker")
    request = {
        "ArtifactName": "words",
        "ArtifactType": "Dictionary",
        "Source": {"SourceUri": "s3://mine/words"},
        "Properties": {"a": "1", "b": "2"},
        "Tags": [{"Key": "team", "Value": "x"}],
    }
    arn = client.create_artifact(**request)["ArtifactArn"]
    assert client.list_tags(ResourceArn=arn)["Tags"] == request["Tags"]
    code, message = refused(lambda: client.create_artifact(**request))
    assert (code, arn in message) == ("ValidationException", True)
    typed = {"SourceUri": "s3://mine/words", "SourceTypes": [{"SourceIdType": "S3ETag", "Value": "e"}]}
    other = client.create_artifact(**{**request, "Source": typed})["ArtifactArn"]
    found = client.list_artifacts(SourceUri="s3://mine/words", SortOrder="Ascending")["ArtifactSummaries"]
    assert [one["ArtifactArn"] for one in found] == [arn, other]
    assert client.list_artifacts(ArtifactType="Dictionary", MaxResults=1)["NextToken"]
    client.update_artifact(
        ArtifactArn=arn, ArtifactName="more", Properties={"b": "3", "c": "4"}, PropertiesToRemove=["a"]
    )
    changed = client.describe_artifact(ArtifactArn=arn)
    assert (changed["ArtifactName"], changed["Properties"]) == ("more", {"b": "3", "c": "4"})
    assert client.delete_artifact(Source=typed)["ArtifactArn"] == other
    client.delete_artifact(ArtifactArn=arn)
    assert refused(lambda: client.describe_artifact(ArtifactArn=arn))[0] == "ResourceNotFound"
    assert refused(lambda: client.delete_artifact())[0] == "ValidationException"


def test_contexts_actions_and_associations_of_a_user(aws: Clients) -> None:
    client = aws("sagemaker")
    source = {"SourceUri": "https://wiki/review", "SourceType": "URL"}
    review = client.create_action(ActionName="Review", ActionType="Review", Source=source, Status="InProgress")[
        "ActionArn"
    ]
    project = client.create_context(ContextName="Project", ContextType="Project", Source=source)["ContextArn"]
    words = client.create_artifact(ArtifactType="Words", Source={"SourceUri": "s3://mine/w"})["ArtifactArn"]
    assert review == f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:action/Review"
    assert refused(lambda: client.create_action(ActionName="review", ActionType="x", Source=source))[0] == (
        "ValidationException"
    )
    client.update_action(ActionName="Review", Status="Completed", Description="read")
    client.update_context(ContextName="Project", Description="ours", Properties={"p": "1"})
    assert client.describe_action(ActionName=review)["Status"] == "Completed"
    assert client.describe_context(ContextName="Project")["Description"] == "ours"
    assert [one["ActionName"] for one in client.list_actions(ActionType="Review")["ActionSummaries"]] == ["Review"]
    assert [one["ContextArn"] for one in client.list_contexts(ContextType="Project")["ContextSummaries"]] == [project]

    client.add_association(SourceArn=words, DestinationArn=review, AssociationType="ContributedTo")
    client.add_association(SourceArn=review, DestinationArn=project)
    assert refused(lambda: client.add_association(SourceArn=review, DestinationArn=project))[0] == "ValidationException"
    assert refused(lambda: client.add_association(SourceArn=review, DestinationArn=review))[0] == "ValidationException"
    nowhere = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:context/nowhere"
    assert refused(lambda: client.add_association(SourceArn=words, DestinationArn=nowhere))[0] == "ResourceNotFound"
    (found,) = client.list_associations(SourceArn=words)["AssociationSummaries"]
    assert (found["SourceType"], found["DestinationType"], found["DestinationName"]) == ("Words", "Review", "Review")
    assert found["AssociationType"] == "ContributedTo"
    listed = client.list_associations(DestinationArn=project, SourceType="Review")["AssociationSummaries"]
    assert [one["SourceArn"] for one in listed] == [review]
    assert query(aws, words, "Descendants") == [("Review", "Review"), ("Project", "Project")]
    filters = {"Properties": {"p": "1"}}
    assert query(aws, words, "Descendants", IncludeEdges=False, Filters=filters) == [("Project", "Project")]

    code, message = refused(lambda: client.delete_action(ActionName="Review"))
    assert (code, "has associations" in message) == ("ValidationException", True)
    client.delete_association(SourceArn=words, DestinationArn=review)
    client.delete_association(SourceArn=review, DestinationArn=project)
    with pytest.raises(ClientError, match="no association"):
        client.delete_association(SourceArn=review, DestinationArn=project)
    client.delete_action(ActionName="Review")
    client.delete_context(ContextName="Project")
    assert refused(lambda: client.describe_context(ContextName="Project"))[0] == "ResourceNotFound"


def test_a_failed_job_has_inputs_and_no_outputs(aws: Clients, flow: Flow) -> None:
    client = aws("sagemaker")
    aws("s3").put_object(Bucket="flow", Key="bad/train.py", Body=b"raise SystemExit(3)")
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://flow/bad", "S3DataDistributionType": "FullyReplicated"}
    client.create_training_job(
        TrainingJobName="fails",
        AlgorithmSpecification={
            "TrainingImage": TRAIN_IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
        },
        RoleArn=ROLE,
        InputDataConfig=[{"ChannelName": "code", "DataSource": {"S3DataSource": source}}],
        OutputDataConfig={"S3OutputPath": "s3://flow/models"},
        ResourceConfig={"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    name = "fails-aws-training-job"

    def component() -> dict[str, Any]:
        found: dict[str, Any] = client.describe_trial_component(TrialComponentName=name)
        return found

    eventually(lambda: component()["Status"]["PrimaryStatus"] == "Failed")
    assert component()["Status"]["Message"]
    arn = component()["TrialComponentArn"]
    assert query(aws, arn, "Descendants") == []
    assert ("DataSet", "s3://flow/bad") in query(aws, arn, "Ascendants")


def test_the_graph_survives_a_kill(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    info = control.up(home, port, parent=os.getpid())
    aws = Clients(info)
    client = aws("sagemaker")
    try:
        one = client.create_artifact(ArtifactType="A", Source={"SourceUri": "s3://a"})["ArtifactArn"]
        two = client.create_artifact(ArtifactType="B", Source={"SourceUri": "s3://b"})["ArtifactArn"]
        client.add_association(SourceArn=one, DestinationArn=two, AssociationType="DerivedFrom")
        kill(info)
        control.up(home, port, parent=os.getpid())
        assert query(aws, one, "Descendants") == [("B", "s3://b")]
    finally:
        aws.close()
        control.down(home)
