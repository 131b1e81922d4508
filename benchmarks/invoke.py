"""What localcloud adds to an invocation, over calling the model server behind it directly.

    python benchmarks/invoke.py --requests 500

A trivial model (it returns its input). Sequential requests over one kept-alive connection each way, alternating, from
this process: once through InvokeEndpoint as the AWS SDK sends it (signed, over plain http.client so that the SDK's own
time does not count), once to the port of the model server. The addition is the median of the one minus the other.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

ACCOUNT, REGION = "111122223333", "eu-west-1"
HANDLER = "def model_fn(model_dir):\n    return str\ndef predict_fn(data, model):\n    return data\n"


def deploy(url: str, secret: str) -> None:
    import boto3

    clients = {
        name: boto3.client(
            name, endpoint_url=url, region_name=REGION, aws_access_key_id=ACCOUNT, aws_secret_access_key=secret
        )
        for name in ("s3", "sagemaker")
    }
    s3, sagemaker = clients["s3"], clients["sagemaker"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(HANDLER)
        tar.addfile(info, io.BytesIO(HANDLER.encode()))
    s3.create_bucket(Bucket="bench", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="bench", Key="model.tar.gz", Body=out.getvalue())
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/bench:1"
    sagemaker.create_model(
        ModelName="bench",
        PrimaryContainer={"Image": image, "ModelDataUrl": "s3://bench/model.tar.gz"},
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/bench",
    )
    variant = {"VariantName": "all", "ModelName": "bench", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="bench", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="bench", EndpointConfigName="bench")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="bench", WaiterConfig={"Delay": 1})
    for client in clients.values():
        client.close()


def signature(url: str, secret: str, body: bytes) -> dict[str, str]:
    """The headers of a signed invocation; good for five minutes."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {"Content-Type": "application/json"}
    request = AWSRequest("POST", f"{url}/endpoints/bench/invocations", headers, body)
    SigV4Auth(Credentials(ACCOUNT, secret), "sagemaker", REGION).add_auth(request)
    return dict(request.headers.items())


def timed(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> float:
    """Milliseconds from sending the request to the end of the answer."""
    started = time.perf_counter()
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    data = response.read()
    if response.status != 200 or data != body:
        raise SystemExit(f"{path}: {response.status} {data[:200]!r}")
    return (time.perf_counter() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()

    from localcloud import control

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        info = control.up(home, 0)
        try:
            deploy(info.url, info.secret)
            (port_file,) = home.glob("endpoints/bench/*/all/port")
            front = http.client.HTTPConnection("127.0.0.1", urlsplit(info.url).port)
            server = http.client.HTTPConnection("127.0.0.1", int(port_file.read_text()))
            body = json.dumps({"inputs": "x" * 200}).encode()
            signed = signature(info.url, info.secret, body)
            through, direct = [], []
            for _ in range(options.requests):
                through.append(timed(front, "/endpoints/bench/invocations", body, signed))
                direct.append(timed(server, "/invocations", body, {"Content-Type": "application/json"}))
        finally:
            control.down(home)
    added = statistics.median(through) - statistics.median(direct)
    high = [sorted(values)[int(len(values) * 0.95)] for values in (through, direct)]
    print("| | median ms | 95% ms |\n|---|---|---|")
    print(f"| InvokeEndpoint | {statistics.median(through):.2f} | {high[0]:.2f} |")
    print(f"| model server alone | {statistics.median(direct):.2f} | {high[1]:.2f} |")
    print(f"| added by localcloud | {added:.2f} | |")


if __name__ == "__main__":
    main()
