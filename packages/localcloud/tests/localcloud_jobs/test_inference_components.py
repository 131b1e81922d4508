"""Inference components: copies, scale to zero, adapters over a base, updates, what is refused, a restart."""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

from localcloud import sagemaker
from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, IMAGE, REGION, ROLE, Bench, open_cloud, until
from localcloud_jobs.test_endpoints import archive, invoke, settled
from localcloud_jobs.traffic import Traffic

HANDLER = """
import json, os, pathlib
def model_fn(model_dir):
    adapter = os.environ.get("SAGEMAKER_ADAPTER_DIR")
    return {
        "word": pathlib.Path(model_dir, "word.txt").read_text(),
        "adapter": adapter,
        "literal": "/opt/ml/adapters",
        "tone": pathlib.Path(adapter, "tone.txt").read_text() if adapter else None,
        "pid": os.getpid(),
    }
def predict_fn(data, model):
    if data["inputs"] == "die":
        os._exit(9)
    return model
"""
NEEDS = {"MinMemoryRequiredInMb": 128}
WEIGHTS = struct.pack("<Q", 2) + b"{}"
CONFIG = json.dumps({"peft_type": "LORA", "r": 8})


def serve(bench: Bench) -> dict[str, Any]:
    """Endpoint `house`, which hosts components."""
    variants = [
        {
            "VariantName": "All",
            "InstanceType": "ml.g5.2xlarge",
            "InitialInstanceCount": 1,
            "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2},
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
    ]
    bench.call("CreateEndpointConfig", EndpointConfigName="house", ProductionVariants=variants, ExecutionRoleArn=ROLE)
    bench.call("CreateEndpoint", EndpointName="house", EndpointConfigName="house")
    return settled(bench, "house")


def make_model(bench: Bench, word: str, handler: str = HANDLER) -> str:
    uri = bench.put(f"models/{word}/model.tar.gz", archive({"word.txt": word, "code/inference.py": handler}))
    container = {"Image": IMAGE, "ModelDataUrl": uri}
    bench.call("CreateModel", ModelName=word, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    return word


def base(bench: Bench, name: str, model: str, copies: int = 1) -> dict[str, Any]:
    """A base component; no copies at all are had by scaling it down, as nobody may create one without."""
    bench.call(
        "CreateInferenceComponent",
        InferenceComponentName=name,
        EndpointName="house",
        VariantName="All",
        Specification={"ModelName": model, "ComputeResourceRequirements": NEEDS},
        RuntimeConfig={"CopyCount": copies or 1},
        Tags=[{"Key": "team", "Value": "a"}],
    )
    found = component(bench, name)
    if not copies:
        nothing = {"CopyCount": 0}
        bench.call("UpdateInferenceComponentRuntimeConfig", InferenceComponentName=name, DesiredRuntimeConfig=nothing)
        found = component(bench, name)
        assert found["RuntimeConfig"]["CurrentCopyCount"] == 0
    return found


def adapter(bench: Bench, name: str, url: str, over: str = "base") -> dict[str, Any]:
    specification = {"BaseInferenceComponentName": over, "Container": {"ArtifactUrl": url}}
    bench.call(
        "CreateInferenceComponent", InferenceComponentName=name, EndpointName="house", Specification=specification
    )
    return component(bench, name)


def put_adapter(bench: Bench, tone: str) -> str:
    files = {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS, "tone.txt": tone}
    return bench.put(f"adapters/{tone}.tar.gz", archive(files))


def component(bench: Bench, name: str) -> dict[str, Any]:
    """Wait until a component is settled."""
    found: dict[str, Any] = until(
        lambda: bench.call("DescribeInferenceComponent", InferenceComponentName=name),
        lambda item: item["InferenceComponentStatus"] in ("InService", "Failed"),
    )
    return found


def ask(bench: Bench, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(invoke(bench, "house", {"inputs": "x"}, InferenceComponentName=name)["Body"])
    return answer


def scale(bench: Bench, name: str, count: int) -> dict[str, Any]:
    bench.call(
        "UpdateInferenceComponentRuntimeConfig",
        InferenceComponentName=name,
        DesiredRuntimeConfig={"CopyCount": count},
    )
    return component(bench, name)


def gone(bench: Bench) -> None:
    until(lambda: bench.call("ListInferenceComponents")["InferenceComponents"], lambda found: found == [])


def values(bench: Bench, metric: str, name: str) -> list[float]:
    with bench.delegate.lock:
        return [
            value
            for space, found, value, dimensions in bench.delegate.metrics
            if (space, found, dimensions) == ("AWS/SageMaker", metric, {"InferenceComponentName": name})
        ]


def test_an_endpoint_hosts_components_with_copies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "2")
    endpoint = serve(bench)
    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["ProductionVariants"][0]["ManagedInstanceScaling"]["MinInstanceCount"] == 0
    make_model(bench, "one")
    found = base(bench, "base", "one", copies=2)
    assert found["InferenceComponentStatus"] == "InService", found
    assert found["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
    assert found["Specification"] == {"ModelName": "one", "ComputeResourceRequirements": NEEDS}
    assert found["EndpointArn"] == endpoint["EndpointArn"]
    assert bench.call("ListTags", ResourceArn=found["InferenceComponentArn"])["Tags"][0]["Key"] == "team"
    answer = invoke(bench, "house", {"inputs": "x"}, InferenceComponentName="base")
    assert answer["InvokedProductionVariant"] == "All"
    assert len({ask(bench, "base")["pid"] for _ in range(40)}) == 2
    with pytest.raises(AwsError, match="Inference Component Name header is required") as raised:
        invoke(bench, "house", {"inputs": "x"})
    assert raised.value.code == "ValidationError"
    with pytest.raises(AwsError, match="Inference Component other of endpoint house not found"):
        ask(bench, "other")
    until(lambda: values(bench, "Invocations", "base"), lambda found: found == [1.0] * 41)
    assert values(bench, "InvocationsPerCopy", "base") == [0.5] * 41
    until(lambda: values(bench, "ConcurrentRequestsPerCopy", "base"), lambda found: 1.0 in found and 0.0 in found)

    def streams() -> list[str]:
        with bench.delegate.lock:
            return [stream for group, stream in bench.delegate.logs if group.endswith("/InferenceComponents/base")]

    until(streams, lambda found: len(found) == 2)


def test_components_are_listed_and_leave_before_their_endpoint(bench: Bench) -> None:
    serve(bench)
    make_model(bench, "one")
    base(bench, "base", "one")
    base(bench, "zero", "one", copies=0)
    names = [item["InferenceComponentName"] for item in bench.call("ListInferenceComponents")["InferenceComponents"]]
    assert names == ["zero", "base"]
    wanted = {"EndpointNameEquals": "house", "NameContains": "as", "StatusEquals": "InService", "SortBy": "Name"}
    (item,) = bench.call("ListInferenceComponents", **wanted)["InferenceComponents"]
    assert (item["InferenceComponentName"], item["VariantName"]) == ("base", "All")
    assert bench.call("ListInferenceComponents", EndpointNameEquals="other")["InferenceComponents"] == []
    with pytest.raises(AwsError, match=r"with inference components base, zero\. Delete them first"):
        bench.call("DeleteEndpoint", EndpointName="house")
    pid = ask(bench, "base")["pid"]
    for name in ("base", "zero"):
        bench.call("DeleteInferenceComponent", InferenceComponentName=name)
    gone(bench)
    assert not Path(f"/proc/{pid}").exists()
    assert list((bench.cloud.home / "inference-components").iterdir()) == []
    bench.call("DeleteEndpoint", EndpointName="house")
    until(lambda: bench.call("ListEndpoints")["Endpoints"], lambda found: found == [])


def test_copies_scale_from_zero_to_many_and_back(bench: Bench) -> None:
    serve(bench)
    make_model(bench, "one")
    base(bench, "base", "one", copies=0)
    with pytest.raises(AwsError, match="Inference Component has no capacity to process this request") as raised:
        ask(bench, "base")
    assert raised.value.code == "ValidationError"
    until(lambda: values(bench, "NoCapacityInvocationFailures", "base"), lambda found: found == [1.0])
    with pytest.raises(AwsError, match="no capacity"):
        bench.call(
            "InvokeEndpointWithResponseStream",
            "sagemaker-runtime",
            EndpointName="house",
            InferenceComponentName="base",
            Body=b"{}",
        )
    assert scale(bench, "base", 1)["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    with Traffic(bench, "base", ask=lambda bench, name: str(ask(bench, name)["word"])) as traffic:
        assert scale(bench, "base", 3)["RuntimeConfig"] == {"DesiredCopyCount": 3, "CurrentCopyCount": 3}
        met: set[int] = set()  # however busy the machine is, each copy gets requests
        until(lambda: met.add(ask(bench, "base")["pid"]) or len(met), lambda count: count == 3)
        assert scale(bench, "base", 1)["RuntimeConfig"]["CurrentCopyCount"] == 1
        traffic.more()
    assert scale(bench, "base", 0)["InferenceComponentStatus"] == "InService"
    with pytest.raises(AwsError, match="no capacity"):
        ask(bench, "base")
    with pytest.raises(AwsError) as raised:
        scale(bench, "base", 9)
    assert raised.value.code == "ResourceLimitExceeded"


def test_an_update_replaces_copies_without_losing_a_request(bench: Bench) -> None:
    serve(bench)
    for word in ("one", "two"):
        make_model(bench, word)
    base(bench, "base", "one", copies=2)
    bench.delegate.alarms["errors"] = "OK"
    one = {"Type": "COPY_COUNT", "Value": 1}
    rolling: dict[str, Any] = {
        "RollingUpdatePolicy": {"MaximumBatchSize": one, "WaitIntervalInSeconds": 1},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
    }
    with Traffic(bench, "base", ask=lambda bench, name: str(ask(bench, name)["word"])) as traffic:
        bench.call("UpdateInferenceComponent", InferenceComponentName="base", Specification={"ModelName": "two"})
        with pytest.raises(AwsError, match="in-progress inference component"):
            bench.call("DeleteInferenceComponent", InferenceComponentName="base")
        found = component(bench, "base")
        assert set(traffic.more()) == {"two"}
        assert found["Specification"]["ModelName"] == "two"
        assert found["Specification"]["ComputeResourceRequirements"] == NEEDS
        container = {"Image": IMAGE, "ArtifactUrl": "s3://data/models/one/model.tar.gz"}
        request = {"InferenceComponentName": "base", "Specification": {"Container": container}}
        bench.call("UpdateInferenceComponent", DeploymentConfig=rolling, **request)
        found = component(bench, "base")
        assert set(traffic.more()) == {"one"}
        assert found["LastDeploymentConfig"] == rolling
        assert found["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == IMAGE
        assert "ModelName" not in found["Specification"]
        # A batch that raises an alarm is rolled back.
        request["Specification"] = {"ModelName": "two"}
        watched = rolling | {"RollingUpdatePolicy": {"MaximumBatchSize": one, "WaitIntervalInSeconds": 600}}
        bench.call("UpdateInferenceComponent", DeploymentConfig=watched, **request)
        until(lambda: traffic.words[-20:], lambda last: "two" in last)
        bench.delegate.alarms["errors"] = "ALARM"
        found = component(bench, "base")
        assert set(traffic.more()) == {"one"}
    assert "[errors] while baking with 50% of the traffic" in found["FailureReason"]
    assert found["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
    assert "ModelName" not in found["Specification"]
    both = {"RollingUpdatePolicy": {"MaximumBatchSize": one | {"Value": 2}, "WaitIntervalInSeconds": 1}}
    with pytest.raises(AwsError, match="between 5% to 50%"):
        bench.call("UpdateInferenceComponent", DeploymentConfig=both, **request)


def test_adapters_are_served_over_their_base(bench: Bench) -> None:
    serve(bench)
    for word in ("one", "two"):
        make_model(bench, word)
    base(bench, "base", "one", copies=2)
    found = adapter(bench, "kind", put_adapter(bench, "kind"))
    assert found["InferenceComponentStatus"] == "InService", found
    assert found["VariantName"] == "All"
    assert "RuntimeConfig" not in found
    assert found["Specification"]["BaseInferenceComponentName"] == "base"
    for key, data in (("adapter_config.json", CONFIG), ("adapter_model.safetensors", WEIGHTS), ("tone.txt", "rude")):
        bench.put(f"prefix/{key}", data)
    adapter(bench, "rude", "s3://data/prefix/")
    for name in ("kind", "rude"):
        answer = ask(bench, name)
        assert (answer["word"], answer["tone"]) == ("one", name)
        assert answer["adapter"].endswith(f"/opt/ml/adapters/{name}")
        # Paths that the code spells out are the same as the environment's.
        assert f"{answer['literal']}/{name}" == answer["adapter"]
    assert ask(bench, "base")["adapter"] is None
    with pytest.raises(AwsError, match="is the base of the adapter inference components kind, rude"):
        bench.call("DeleteInferenceComponent", InferenceComponentName="base")
    with pytest.raises(AwsError, match="has no copies of its own"):
        scale(bench, "kind", 2)

    # A base that changes takes its adapters along, and nobody waits.
    with Traffic(bench, "kind", callers=2, ask=lambda bench, name: str(ask(bench, name)["word"])) as traffic:
        bench.call("UpdateInferenceComponent", InferenceComponentName="base", Specification={"ModelName": "two"})
        component(bench, "base")
        assert set(traffic.more()) == {"two"}
        url = put_adapter(bench, "kinder")
        specification = {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": url}}
        bench.call("UpdateInferenceComponent", InferenceComponentName="kind", Specification=specification)
        assert component(bench, "kind")["Specification"]["Container"] == {"ArtifactUrl": url}
        assert ask(bench, "kind")["tone"] == "kinder"
    scale(bench, "base", 0)
    with pytest.raises(AwsError, match="no capacity"):
        ask(bench, "kind")
    scale(bench, "base", 1)
    assert ask(bench, "kind")["tone"] == "kinder"
    for name in ("kind", "rude"):
        bench.call("DeleteInferenceComponent", InferenceComponentName=name)
    until(lambda: len(bench.call("ListInferenceComponents")["InferenceComponents"]), lambda left: left == 1)
    assert ask(bench, "base")["word"] == "two"
    bench.call("DeleteInferenceComponent", InferenceComponentName="base")
    gone(bench)


NOT_ADAPTERS: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no config": ({"adapter_model.safetensors": WEIGHTS}, "there is no adapter_config.json at its top"),
    "no rank": ({"adapter_config.json": '{"r": 0}', "adapter_model.safetensors": WEIGHTS}, "no rank r greater than 0"),
    "no json": ({"adapter_config.json": "{", "adapter_model.safetensors": WEIGHTS}, "is not JSON"),
    "no weights": ({"adapter_config.json": CONFIG}, "there is no adapter_model.safetensors at its top"),
    "damaged": ({"adapter_config.json": CONFIG, "adapter_model.safetensors": b"12345678901"}, "not a safetensors file"),
}


def test_what_is_no_adapter_fails_with_its_reason(bench: Bench) -> None:
    serve(bench)
    make_model(bench, "one")
    base(bench, "base", "one", copies=0)
    for number, (files, reason) in enumerate(NOT_ADAPTERS.values()):
        url = bench.put(f"bad/{number}.tar.gz", archive(files))
        found = adapter(bench, f"bad-{number}", url)
        assert found["InferenceComponentStatus"] == "Failed"
        assert reason in found["FailureReason"]
        assert url in found["FailureReason"]
    assert "neither a .tar.gz" in adapter(bench, "odd", "s3://data/bad/0.zip")["FailureReason"]
    assert "No S3 objects found" in adapter(bench, "none", "s3://data/nothing/")["FailureReason"]
    with pytest.raises(AwsError, match="Inference Component odd is Failed"):
        ask(bench, "odd")
    for item in bench.call("ListInferenceComponents", StatusEquals="Failed")["InferenceComponents"]:
        bench.call("DeleteInferenceComponent", InferenceComponentName=item["InferenceComponentName"])
    until(lambda: len(bench.call("ListInferenceComponents")["InferenceComponents"]), lambda left: left == 1)


def test_a_component_that_does_not_start_says_why(bench: Bench) -> None:
    serve(bench)
    make_model(bench, "bad", "def model_fn(model_dir): raise RuntimeError('bad weights')")
    found = base(bench, "broken", "bad")
    assert found["InferenceComponentStatus"] == "Failed"
    assert "The primary container for inference component broken did not pass the ping" in found["FailureReason"]
    assert "bad weights" in found["FailureReason"]
    assert found["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 0}
    with pytest.raises(AwsError, match="is Failed"):
        scale(bench, "broken", 2)
    with pytest.raises(AwsError, match="is Failed, not InService"):
        adapter(bench, "kind", put_adapter(bench, "kind"), over="broken")
    make_model(bench, "one")
    base(bench, "base", "one")
    bench.call("UpdateInferenceComponent", InferenceComponentName="base", Specification={"ModelName": "bad"})
    found = component(bench, "base")
    assert found["InferenceComponentStatus"] == "InService"
    assert "bad weights" in found["FailureReason"]
    assert found["Specification"]["ModelName"] == "one"
    assert ask(bench, "base")["word"] == "one"


def test_an_update_that_cannot_go_back_says_so_and_serves(bench: Bench) -> None:
    serve(bench)
    for word in ("one", "two"):
        make_model(bench, word)
    base(bench, "base", "one", copies=2)
    bench.delegate.alarms["errors"] = "OK"
    code = next((bench.cloud.home / "inference-components" / "base").glob("*/All/opt/ml/model/code/inference.py"))
    half = {"Type": "CAPACITY_PERCENT", "Value": 50}

    def break_the_old_copies_in_the_second_batch() -> None:
        # The first batch is over when one of the old copies has left.
        if len(list(code.parents[4].glob("instances/*"))) == 1 and code.exists():
            code.unlink()
            bench.delegate.alarms["errors"] = "ALARM"

    bench.delegate.on_look = break_the_old_copies_in_the_second_batch
    bench.call(
        "UpdateInferenceComponent",
        InferenceComponentName="base",
        Specification={"ModelName": "two"},
        DeploymentConfig={
            "RollingUpdatePolicy": {"MaximumBatchSize": half, "WaitIntervalInSeconds": 1},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
        },
    )
    found = component(bench, "base")
    assert found["InferenceComponentStatus"] == "Failed"
    assert "Going back failed" in found["FailureReason"]
    assert {ask(bench, "base")["word"] for _ in range(40)} == {"one", "two"}
    bench.call("DeleteInferenceComponent", InferenceComponentName="base")
    gone(bench)
    assert list((bench.cloud.home / "inference-components").iterdir()) == []


def test_what_cannot_be_a_component_is_refused(bench: Bench) -> None:
    make_model(bench, "one")
    variant = {"VariantName": "All", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    with pytest.raises(AwsError, match="ExecutionRoleArn is required"):
        bench.call("CreateEndpointConfig", EndpointConfigName="x", ProductionVariants=[variant])
    mixed = [variant, variant | {"VariantName": "B", "ModelName": "one"}]
    with pytest.raises(AwsError, match="can't be mixed"):
        bench.call("CreateEndpointConfig", EndpointConfigName="x", ProductionVariants=mixed, ExecutionRoleArn=ROLE)
    serve(bench)
    base(bench, "base", "one", copies=0)
    needs, url = {"ComputeResourceRequirements": NEEDS}, {"ArtifactUrl": "s3://data/a.tar.gz"}
    model = {"ModelName": "one", **needs}
    over: dict[str, Any] = {"BaseInferenceComponentName": "base", "Container": url}
    copies = {"RuntimeConfig": {"CopyCount": 1}}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"Specification": {"ModelName": "one"}, **copies}, "ComputeResourceRequirements is required"),
        ({"Specification": model}, "RuntimeConfig is required"),
        ({"Specification": needs, **copies}, "either ModelName or Container"),
        ({"Specification": {**needs, "Container": url}, **copies}, "Container.Image is required"),
        ({"Specification": model | {"ModelName": "none"}, **copies}, "Could not find model"),
        ({"Specification": over, **copies}, "RuntimeConfig can't be given"),
        ({"Specification": over | needs}, "ComputeResourceRequirements can't be given"),
        ({"Specification": over | {"BaseInferenceComponentName": "none"}}, "Could not find inference component"),
        ({"Specification": over | {"Container": {"Image": IMAGE}}}, "must have ArtifactUrl and no more"),
        ({"Specifications": [model], **copies}, "Specifications is not supported"),
        ({"Specification": model, "VariantName": "B", **copies}, "has no variant B"),
        ({"Specification": model, "RuntimeConfig": {"CopyCount": 9}}, "is 8 Copies"),
        ({"Specification": model, "RuntimeConfig": {"CopyCount": 0}}, "copy count an integer larger than 0"),
        ({"Specification": model, "EndpointName": "none", **copies}, "Could not find endpoint"),
    ]
    for request, message in refused:
        with pytest.raises(AwsError, match=message):
            bench.call("CreateInferenceComponent", **{"InferenceComponentName": "x", "EndpointName": "house"} | request)
    with pytest.raises(AwsError, match="already existing"):
        base(bench, "base", "one")
    capacity = [{"VariantName": "All", "DesiredInstanceCount": 2}]
    with pytest.raises(AwsError, match="instances are not scaled by localcloud"):
        bench.call("UpdateEndpointWeightsAndCapacities", EndpointName="house", DesiredWeightsAndCapacities=capacity)
    plain = [variant | {"ModelName": "one"}]
    bench.call("CreateEndpointConfig", EndpointConfigName="plain", ProductionVariants=plain)
    with pytest.raises(AwsError, match="can't be updated between"):
        bench.call("UpdateEndpoint", EndpointName="house", EndpointConfigName="plain")
    bench.call("CreateEndpoint", EndpointName="plain", EndpointConfigName="plain")
    settled(bench, "plain")
    with pytest.raises(AwsError, match="header is not allowed"):
        invoke(bench, "plain", {"inputs": "x"}, InferenceComponentName="base")
    with pytest.raises(AwsError, match="can't host inference components"):
        bench.call(
            "CreateInferenceComponent",
            **{"InferenceComponentName": "x", "EndpointName": "plain", "Specification": model, **copies},
        )


def test_an_endpoint_is_updated_around_its_components(bench: Bench) -> None:
    serve(bench)
    make_model(bench, "one")
    base(bench, "base", "one")
    variant = {"VariantName": "All", "InstanceType": "ml.g5.4xlarge", "InitialInstanceCount": 1}
    bench.call("CreateEndpointConfig", EndpointConfigName="b", ProductionVariants=[variant], ExecutionRoleArn=ROLE)
    with Traffic(bench, "base", callers=1, ask=lambda bench, name: str(ask(bench, name)["word"])) as traffic:
        bench.call("UpdateEndpoint", EndpointName="house", EndpointConfigName="b")
        endpoint = settled(bench, "house")
        traffic.more(5)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "b")


KILLED = """
import sys, time
from pathlib import Path
from localcloud.context import Context
from localcloud_jobs import conftest, test_inference_components as t
cloud = conftest.open_cloud(Path(sys.argv[1]))
bench = conftest.Bench(Context(conftest.ACCOUNT, conftest.REGION, cloud), cloud.delegate)
t.serve(bench)
t.make_model(bench, "one")
t.make_model(bench, "two")
t.base(bench, "base", "one", copies=2)
t.adapter(bench, "kind", t.put_adapter(bench, "kind"))
t.base(bench, "moving", "one", copies=2)
size = {"Type": "COPY_COUNT", "Value": 1}
bench.call("UpdateInferenceComponent", InferenceComponentName="moving", Specification={"ModelName": "two"},
           DeploymentConfig={"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 20}})
conftest.until(lambda: t.ask(bench, "moving")["word"], lambda word: word == "two")
print("ready", flush=True)
time.sleep(600)
"""


def test_components_come_back_after_a_kill(tmp_path: Path) -> None:
    from localcloud_jobs.test_supervision import start_cloud_process

    process, _ = start_cloud_process(tmp_path / "home", "", KILLED)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    cloud = open_cloud(tmp_path / "home")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    sagemaker.resume(cloud)
    for name in ("base", "kind", "moving"):
        status = bench.call("DescribeInferenceComponent", InferenceComponentName=name)["InferenceComponentStatus"]
        # An adapter waits for its base: nothing may say that it is in service before it answers.
        assert status in (("Updating",) if name == "kind" else ("Updating", "InService"))
    assert settled(bench, "house")["EndpointStatus"] == "InService"
    for name in ("base", "kind"):
        assert component(bench, name)["InferenceComponentStatus"] == "InService"
    assert len({ask(bench, "base")["pid"] for _ in range(40)}) == 2
    answer = ask(bench, "kind")
    assert (answer["word"], answer["tone"]) == ("one", "kind")
    # The update that was under way began again, and is over.
    until(lambda: component(bench, "moving")["Specification"]["ModelName"], lambda model: model == "two")
    assert {ask(bench, "moving")["word"] for _ in range(20)} == {"two"}
    end(cloud)
    cloud.store.close()
