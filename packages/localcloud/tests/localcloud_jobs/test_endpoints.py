"""Endpoints as real model servers: creation, invocation, failure, crash, update, deletion, restart, data capture."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, IMAGE, REGION, ROLE, Bench, open_cloud, until

HANDLER = """
import json, os, pathlib, time
def model_fn(model_dir):
    return pathlib.Path(model_dir, "word.txt").read_text()
def input_fn(data, content_type):
    request = json.loads(data)
    if "inputs" not in request:
        raise ValueError("the request has no 'inputs'")
    return request
def predict_fn(request, model):
    if request["inputs"] == "crash":
        raise RuntimeError("boom\\nsecond line")
    if request["inputs"] == "die":
        os._exit(9)
    if request["inputs"] == "where":
        return {"pid": os.getpid(), "env": dict(os.environ)}
    time.sleep(request.get("sleep", 0))
    if "gate" in request:
        pathlib.Path(request["gate"] + "-reached").touch()
        while not os.path.exists(request["gate"]):
            time.sleep(0.01)
    return [{"generated_text": model + " " + request["inputs"]}]
"""


def archive(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_model(bench: Bench, name: str, word: str, handler: str = HANDLER, **container: Any) -> str:
    uri = bench.put(f"models/{name}/model.tar.gz", archive({"word.txt": word, "code/inference.py": handler}))
    primary = {"Image": IMAGE, "ModelDataUrl": uri, **container}
    bench.call("CreateModel", ModelName=name, PrimaryContainer=primary, ExecutionRoleArn=ROLE)
    return name


def make_config(bench: Bench, name: str, models: dict[str, str], **more: Any) -> str:
    variants = [
        {"VariantName": variant, "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        for variant, model in models.items()
    ]
    bench.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=variants, **more)
    return name


def settled(bench: Bench, name: str) -> dict[str, Any]:
    return until(
        lambda: bench.call("DescribeEndpoint", EndpointName=name),
        lambda endpoint: endpoint["EndpointStatus"] in ("InService", "Failed"),
    )


def make_endpoint(bench: Bench, name: str, word: str = "hello", handler: str = HANDLER, **more: Any) -> dict[str, Any]:
    make_model(bench, f"{name}-model", word, handler)
    make_config(bench, f"{name}-config", {"AllTraffic": f"{name}-model"}, **more)
    bench.call("CreateEndpoint", EndpointName=name, EndpointConfigName=f"{name}-config")
    return settled(bench, name)


def invoke(bench: Bench, name: str, request: Any, **more: Any) -> dict[str, Any]:
    return bench.call(
        "InvokeEndpoint",
        "sagemaker-runtime",
        EndpointName=name,
        Body=json.dumps(request).encode(),
        ContentType="application/json",
        **more,
    )


def test_an_endpoint_serves_refuses_and_survives_its_model(bench: Bench) -> None:
    endpoint = make_endpoint(bench, "chat")
    assert endpoint["EndpointStatus"] == "InService", endpoint
    variant = endpoint["ProductionVariants"][0]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (1.0, 1)

    answer = invoke(bench, "chat", {"inputs": "world"})
    assert json.loads(answer["Body"]) == [{"generated_text": "hello world"}]
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"

    with pytest.raises(AwsError) as bad:
        invoke(bench, "chat", {"prompt": "x"})
    assert (bad.value.code, bad.value.status) == ("ModelError", 424)
    assert bad.value.extra["OriginalStatusCode"] == 400
    assert json.loads(bad.value.extra["OriginalMessage"]) == {"error": "the request has no 'inputs'"}
    assert ":log-group:/aws/sagemaker/Endpoints/chat:log-stream:AllTraffic/" in bad.value.extra["LogStreamArn"]

    with pytest.raises(AwsError) as boom:
        invoke(bench, "chat", {"inputs": "crash"})
    assert boom.value.extra["OriginalStatusCode"] == 500
    assert json.loads(boom.value.extra["OriginalMessage"]) == {"error": "RuntimeError: boom"}
    assert json.loads(invoke(bench, "chat", {"inputs": "again"})["Body"])[0]["generated_text"] == "hello again"

    until(
        lambda: [line for (_, _), lines in list(bench.delegate.logs.items()) for line in lines],
        lambda lines: "RuntimeError: boom" in lines and any(line.startswith("serving inference.py") for line in lines),
    )
    points = until(lambda: list(bench.delegate.metrics), lambda found: len(found) >= 16)
    sums: dict[str, float] = {}
    for namespace, name, value, dimensions in points:
        assert (namespace, dimensions) == ("AWS/SageMaker", {"EndpointName": "chat", "VariantName": "AllTraffic"})
        sums[name] = sums.get(name, 0) + value
    assert sums["Invocations"] == 4
    assert sums["Invocation4XXErrors"] == sums["Invocation5XXErrors"] == 1
    assert sums["ModelLatency"] > 0
    events = until(
        lambda: [detail for kind, detail in list(bench.delegate.events) if kind == "SageMaker Endpoint State Change"],
        lambda found: len(found) >= 2,
    )
    assert [detail["EndpointStatus"] for detail in events] == ["CREATING", "IN_SERVICE"]


def test_a_server_that_dies_is_started_again(bench: Bench) -> None:
    make_endpoint(bench, "mortal")
    before = json.loads(invoke(bench, "mortal", {"inputs": "where"})["Body"])["pid"]
    with pytest.raises(AwsError) as down:
        invoke(bench, "mortal", {"inputs": "die"})
    assert down.value.code == "ServiceUnavailable"

    def again() -> int | None:
        try:
            pid: int = json.loads(invoke(bench, "mortal", {"inputs": "where"})["Body"])["pid"]
        except AwsError as error:
            return None if error.code == "ServiceUnavailable" else -1
        return pid

    assert until(again, lambda pid: pid is not None) not in (before, -1)
    assert bench.call("DescribeEndpoint", EndpointName="mortal")["EndpointStatus"] == "InService"


BROKEN = [
    ("def model_fn(model_dir):\n    raise OSError('no weights here')", "no weights here"),
    ("x = 1", "inference.py has no model_fn(model_dir)"),
    ("import no_such_package", "No module named 'no_such_package'"),
]


@pytest.mark.parametrize(("handler", "reason"), BROKEN)
def test_a_model_that_does_not_load_fails_the_endpoint_with_its_reason(bench: Bench, handler: str, reason: str) -> None:
    endpoint = make_endpoint(bench, "broken", handler=handler)
    assert endpoint["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in endpoint["FailureReason"]
    assert reason in endpoint["FailureReason"]
    with pytest.raises(AwsError, match="it is Failed"):
        bench.call("UpdateEndpoint", EndpointName="broken", EndpointConfigName="broken-config")
    with pytest.raises(AwsError) as raised:
        invoke(bench, "broken", {"inputs": "x"})
    assert raised.value.code == "ValidationError"
    bench.call("DeleteEndpoint", EndpointName="broken")
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: found == [])


def test_absent_model_data_fails_the_endpoint(bench: Bench) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://data/none/model.tar.gz"}
    bench.call("CreateModel", ModelName="ghost", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    make_config(bench, "ghost", {"AllTraffic": "ghost"})
    bench.call("CreateEndpoint", EndpointName="ghost", EndpointConfigName="ghost")
    assert "s3://data/none/model.tar.gz" in settled(bench, "ghost")["FailureReason"]


def test_an_update_switches_without_losing_a_request(bench: Bench) -> None:
    make_endpoint(bench, "live", word="one")
    make_model(bench, "two", "two")
    make_config(bench, "live-two", {"AllTraffic": "two"})
    answers: list[str] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                answer = invoke(bench, "live", {"inputs": "!", "sleep": 0.02})
                answers.append(json.loads(answer["Body"])[0]["generated_text"])
            except BaseException as error:
                failures.append(error)

    callers = [threading.Thread(target=load) for _ in range(3)]
    for caller in callers:
        caller.start()
    until(lambda: len(answers), lambda count: count > 5)
    bench.call("UpdateEndpoint", EndpointName="live", EndpointConfigName="live-two")
    with pytest.raises(AwsError, match="in-progress endpoint"):
        bench.call("UpdateEndpoint", EndpointName="live", EndpointConfigName="live-two")
    updating = bench.call("DescribeEndpoint", EndpointName="live")
    assert updating["EndpointConfigName"] == "live-config"
    assert updating["PendingDeploymentSummary"]["EndpointConfigName"] == "live-two"
    endpoint = settled(bench, "live")
    assert endpoint["EndpointConfigName"] == "live-two"
    assert "PendingDeploymentSummary" not in endpoint
    count = len(answers)
    until(lambda: len(answers), lambda now: now > count + 10)
    stop.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert set(answers) == {"one !", "two !"}
    assert answers[-1] == "two !"


def test_an_update_that_fails_leaves_the_old_one_serving(bench: Bench) -> None:
    make_endpoint(bench, "steady", word="old")
    make_model(bench, "bad", "x", "def model_fn(model_dir): raise RuntimeError('bad weights')")
    make_config(bench, "bad", {"AllTraffic": "bad"})
    bench.call("UpdateEndpoint", EndpointName="steady", EndpointConfigName="bad")
    endpoint = settled(bench, "steady")
    assert endpoint["EndpointConfigName"] == "steady-config"
    assert "bad weights" in endpoint["FailureReason"]
    assert json.loads(invoke(bench, "steady", {"inputs": "?"})["Body"])[0]["generated_text"] == "old ?"


def test_ping_answers_while_predictions_run_at_the_same_time(bench: Bench) -> None:
    make_endpoint(bench, "busy")
    with_sleep: list[dict[str, Any]] = []
    callers = [
        threading.Thread(target=lambda: with_sleep.append(invoke(bench, "busy", {"inputs": "a", "sleep": 0.5})))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    quick = invoke(bench, "busy", {"inputs": "b"})
    assert json.loads(quick["Body"])[0]["generated_text"] == "hello b"
    assert len(with_sleep) == 0
    for caller in callers:
        caller.join()
    assert len(with_sleep) == 3


def test_variants_share_traffic_and_can_be_named(bench: Bench) -> None:
    make_model(bench, "a", "a")
    make_model(bench, "b", "b")
    make_config(bench, "both", {"A": "a", "B": "b"})
    bench.call("CreateEndpoint", EndpointName="both", EndpointConfigName="both")
    assert settled(bench, "both")["EndpointStatus"] == "InService"
    assert {invoke(bench, "both", {"inputs": ""})["InvokedProductionVariant"] for _ in range(40)} == {"A", "B"}
    assert json.loads(invoke(bench, "both", {"inputs": ""}, TargetVariant="B")["Body"])[0]["generated_text"] == "b "
    bench.call(
        "UpdateEndpointWeightsAndCapacities",
        EndpointName="both",
        DesiredWeightsAndCapacities=[{"VariantName": "A", "DesiredWeight": 0}],
    )
    assert {invoke(bench, "both", {"inputs": ""})["InvokedProductionVariant"] for _ in range(20)} == {"B"}
    with pytest.raises(AwsError, match="Variant C was not found"):
        invoke(bench, "both", {"inputs": ""}, TargetVariant="C")


CAPTURE: dict[str, Any] = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://data/capture",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
}


def captured(bench: Bench) -> list[dict[str, Any]]:
    files = sorted((bench.delegate.root / ACCOUNT / "data" / "capture").rglob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_captured_data_is_what_sagemaker_writes(bench: Bench) -> None:
    endpoint = make_endpoint(bench, "seen", DataCaptureConfig=CAPTURE)
    summary = endpoint["DataCaptureConfig"]
    assert (summary["CaptureStatus"], summary["CurrentSamplingPercentage"]) == ("Started", 100)
    invoke(bench, "seen", {"inputs": "x"}, InferenceId="id-1")
    bench.call(
        "InvokeEndpoint",
        "sagemaker-runtime",
        EndpointName="seen",
        Body=b'{"inputs": "y"}',
        ContentType="application/octet-stream",
    )
    records = until(lambda: captured(bench), lambda found: len(found) == 2)
    first = next(record for record in records if record["eventMetadata"].get("inferenceId") == "id-1")
    assert first["eventVersion"] == "0"
    assert first["captureData"]["endpointInput"] == {
        "observedContentType": "application/json",
        "mode": "INPUT",
        "data": '{"inputs": "x"}',
        "encoding": "JSON",
    }
    assert json.loads(first["captureData"]["endpointOutput"]["data"]) == [{"generated_text": "hello x"}]
    other = next(record for record in records if record is not first)
    assert other["captureData"]["endpointInput"]["encoding"] == "BASE64"
    assert base64.b64decode(other["captureData"]["endpointInput"]["data"]) == b'{"inputs": "y"}'
    paths = [path for path in bench.delegate.writes if path.startswith("capture/")]
    shape = r"capture/seen/AllTraffic/\d{4}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{3}-[0-9a-f-]{36}\.jsonl"
    assert all(re.fullmatch(shape, path) for path in paths), paths


def test_nothing_captured_is_lost_at_a_stop_and_endpoints_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localcloud.context import Context
    from localcloud.sagemaker import endpoints

    monkeypatch.setenv("LOCALCLOUD_CAPTURE_SECONDS", "3600")
    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    make_endpoint(bench, "back", DataCaptureConfig=CAPTURE)
    seen = json.loads(invoke(bench, "back", {"inputs": "where"})["Body"])
    assert captured(bench) == []
    end(cloud)
    assert len(captured(bench)) == 1
    cloud.store.close()
    assert not Path(f"/proc/{seen['pid']}").exists()

    again = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, again), again.delegate)  # type: ignore[arg-type]
    endpoints.resume(again)
    assert bench.call("DescribeEndpoint", EndpointName="back")["EndpointStatus"] in ("Updating", "InService")
    assert settled(bench, "back")["EndpointStatus"] == "InService"
    assert json.loads(invoke(bench, "back", {"inputs": "x"})["Body"])[0]["generated_text"] == "hello x"
    bench.call("DeleteEndpoint", EndpointName="back")
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: found == [])
    assert len(captured(bench)) == 2
    assert not (again.home / "endpoints" / "back").exists()
    with pytest.raises(AwsError, match="Could not find endpoint"):
        bench.call("DescribeEndpoint", EndpointName="back")
    end(again)
    again.store.close()


def test_additional_sources_are_mounted_and_paths_in_the_environment_are_mapped(bench: Bench) -> None:
    bench.put("base/config.json", '{"path": "/opt/ml/model"}')
    bench.put("base/weights/w.bin", "w")
    handler = """
import json, os, pathlib
def model_fn(model_dir):
    base = pathlib.Path(os.environ["BASE"])
    return {"config": (base / "config.json").read_text(), "w": (base / "weights/w.bin").read_text(), "base": str(base)}
def predict_fn(data, model):
    return model
"""
    make_model(
        bench,
        "adapter",
        "",
        handler,
        Environment={
            "BASE": "/opt/ml/additional-model-data-sources/base",
            "SAGEMAKER_PROGRAM": "",
            "SAGEMAKER_SUBMIT_DIRECTORY": "",
        },
        AdditionalModelDataSources=[
            {
                "ChannelName": "base",
                "S3DataSource": {"S3Uri": "s3://data/base/", "S3DataType": "S3Prefix", "CompressionType": "None"},
            }
        ],
    )
    make_config(bench, "adapter", {"AllTraffic": "adapter"})
    bench.call("CreateEndpoint", EndpointName="adapter", EndpointConfigName="adapter")
    assert settled(bench, "adapter")["EndpointStatus"] == "InService"
    seen = json.loads(invoke(bench, "adapter", {})["Body"])
    assert seen["config"] == '{"path": "/opt/ml/model"}'
    assert seen["w"] == "w"
    assert seen["base"].startswith(str(bench.cloud.home.resolve() / "endpoints" / "adapter"))


def test_a_scikit_learn_model_from_a_plain_prefix_answers_csv(bench: Bench, tmp_path: Path) -> None:
    import joblib
    from sklearn.linear_model import LinearRegression

    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]), tmp_path / "model.joblib")
    bench.put("plain/model.joblib", (tmp_path / "model.joblib").read_bytes())
    bench.put("plain/code/serve.py", "import joblib\ndef model_fn(d, context): return joblib.load(d + '/model.joblib')")
    source = {"S3Uri": "s3://data/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {
        "Image": IMAGE,
        "ModelDataSource": {"S3DataSource": source},
        "Environment": {"SAGEMAKER_PROGRAM": "serve.py"},
    }
    bench.call("CreateModel", ModelName="line", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    make_config(bench, "line", {"AllTraffic": "line"})
    bench.call("CreateEndpoint", EndpointName="line", EndpointConfigName="line")
    assert settled(bench, "line")["EndpointStatus"] == "InService"
    answer = bench.call(
        "InvokeEndpoint",
        "sagemaker-runtime",
        EndpointName="line",
        Body=b"2\n3\n",
        ContentType="text/csv",
        Accept="text/csv",
    )
    assert [round(float(row), 6) for row in answer["Body"].decode().split()] == [5.0, 7.0]
    with pytest.raises(AwsError) as raised:
        bench.call(
            "InvokeEndpoint", "sagemaker-runtime", EndpointName="line", Body=b"\x00", ContentType="application/x-npy"
        )
    assert raised.value.extra["OriginalStatusCode"] == 415


def test_what_cannot_be_hosted_is_refused_by_name(bench: Bench) -> None:
    make_model(bench, "m", "m")
    variant = {"VariantName": "A", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    with pytest.raises(AwsError, match="ShadowProductionVariants is not supported"):
        bench.call(
            "CreateEndpointConfig",
            EndpointConfigName="x",
            ProductionVariants=[variant],
            ShadowProductionVariants=[{**variant, "VariantName": "B"}],
        )
    with pytest.raises(AwsError, match="Could not find model"):
        bench.call(
            "CreateEndpointConfig", EndpointConfigName="x", ProductionVariants=[{**variant, "ModelName": "none"}]
        )
    with pytest.raises(AwsError, match="Could not find endpoint configuration"):
        bench.call("CreateEndpoint", EndpointName="x", EndpointConfigName="none")
    make_config(bench, "once", {"A": "m"})
    with pytest.raises(AwsError, match="Cannot create already existing endpoint configuration"):
        make_config(bench, "once", {"A": "m"})
    with pytest.raises(AwsError, match=r"Endpoint none of account .* not found") as raised:
        invoke(bench, "none", {})
    assert raised.value.code == "ValidationError"


def test_a_server_ends_when_localcloud_is_killed(tmp_path: Path) -> None:
    from localcloud_jobs.test_supervision import start_cloud_process

    cloud, lines = start_cloud_process(tmp_path / "home", "endpoint")
    pid = int(next(line.split()[1] for line in lines if line.startswith("pid")))
    assert Path(f"/proc/{pid}").exists()
    os.kill(cloud.pid, signal.SIGKILL)
    cloud.wait()
    until(Path(f"/proc/{pid}").exists, lambda there: not there)
