"""What the deploy function itself takes, from its first byte to its answer, against localcloud.

    python benchmarks/deploy.py --rounds 5

init: importing the function's module in a fresh process, what Lambda calls init. cold: the first invocation after it,
with boto3's import, its clients and all calls (create an endpoint; then update one). warm: a repeat in that process.
Wall seconds of whole processes on a shared machine; SageMaker's own work (starting servers) is not waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DRIVER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
begin = time.perf_counter(); import deploy; init = time.perf_counter() - begin
times = []
for event in json.load(sys.stdin):
    begin = time.perf_counter(); answer = deploy.handler(event); times.append(time.perf_counter() - begin)
    print(answer["action"], file=sys.stderr)
print(json.dumps({"init": init, "times": times}), file=sys.stderr)
"""


def ask(environment: dict[str, str], events: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of init and of each event, in a fresh process."""
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, str(ROOT / "lambdas")],
        input=json.dumps(events),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(result.stderr.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sys.path.insert(0, str(ROOT))
    from configuration.layers import load_config
    from pipelines.bootstrap import bootstrap
    from pipelines.publish import publish
    from tests.author.cloud import running
    from tests.lambdas.support import settings

    config = load_config(ROOT / "pipeline.yaml")
    with tempfile.TemporaryDirectory() as home, running(Path(home)) as session:
        bootstrap(config, session)
        publish(config, session)
        function = session.client("lambda").get_function_configuration(FunctionName="fmops-deploy")
        environment = {**function["Environment"]["Variables"], "MODEL_PACKAGE_GROUP": "bench"}
        session.client("sagemaker").create_model_package_group(ModelPackageGroupName="bench")
        arns = [register(session, config, number) for number in range(2)]
        seconds: dict[str, list[float]] = {"init": [], "cold create": [], "warm repeat": [], "cold update": []}
        for number in range(rounds):
            base = {"by": "command", **settings(f"bench-{number}", endpoint_traffic="canary", endpoint_step_percent=10)}
            create = ask(environment, [{**base, "model_package_arn": arns[0]}] * 2)
            wait(session, f"bench-{number}")
            update = ask(environment, [{**base, "model_package_arn": arns[1]}])
            wait(session, f"bench-{number}")
            seconds["init"] += [create["init"], update["init"]]
            seconds["cold create"].append(create["times"][0])
            seconds["warm repeat"].append(create["times"][1])
            seconds["cold update"].append(update["times"][0])
            session.client("sagemaker").delete_endpoint(EndpointName=f"bench-{number}")
    for name, values in seconds.items():
        print(f"{name:12} median {statistics.median(values):.3f} s, most {max(values):.3f} s")


def register(session: Any, config: Any, number: int) -> str:
    """A package whose model is two functions."""
    import io
    import tarfile

    from configuration.names import Names
    from tests.lambdas.conftest import IMAGE, INFERENCE

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (("version", str(number)), ("code/inference.py", INFERENCE)):
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    bucket, key = Names.of(config).artifacts_bucket, f"training/bench-{number}/output/model.tar.gz"
    session.client("s3").put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())
    specification = {
        "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/{key}"}],
        "SupportedContentTypes": ["application/json"],
        "SupportedResponseMIMETypes": ["application/json"],
    }
    answer = session.client("sagemaker").create_model_package(
        ModelPackageGroupName="bench", ModelApprovalStatus="Approved", InferenceSpecification=specification
    )
    return str(answer["ModelPackageArn"])


def wait(session: Any, endpoint: str) -> None:
    client = session.client("sagemaker")
    deadline = time.monotonic() + 120
    while client.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] != "InService":
        assert time.monotonic() < deadline
        time.sleep(0.2)


if __name__ == "__main__":
    main()
