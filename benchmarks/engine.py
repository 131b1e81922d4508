"""How long localcloud takes to be ready, and what its engine adds to each step.

    python benchmarks/engine.py --steps 10 --rounds 5

Ready: from starting the process to the first answered request. Engine overhead: a pipeline of chained processing jobs
that each run `true`; what the execution took beyond the jobs themselves (CreationTime to ProcessingEndTime), per step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bench"


def definition(steps: int) -> str:
    """A chain of processing jobs, each of which depends on the one before."""
    return json.dumps(
        {
            "Version": "2020-12-01",
            "Parameters": [],
            "Steps": [
                {
                    "Name": f"Step{number}",
                    "Type": "Processing",
                    "DependsOn": [f"Step{number - 1}"] if number else [],
                    "Arguments": {
                        "AppSpecification": {
                            "ImageUri": f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/bench:1",
                            "ContainerEntrypoint": ["true"],
                        },
                        "ProcessingResources": {
                            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
                        },
                        "RoleArn": ROLE,
                    },
                }
                for number in range(steps)
            ],
        }
    )


def overhead_per_step(client: Any, steps: int) -> tuple[float, float]:
    """Seconds per step that the engine added, and that the step's own job took."""
    arn = client.start_pipeline_execution(PipelineName="bench", ClientRequestToken=f"{time.time_ns():032d}")[
        "PipelineExecutionArn"
    ]
    while (execution := client.describe_pipeline_execution(PipelineExecutionArn=arn))[
        "PipelineExecutionStatus"
    ] == "Executing":
        time.sleep(0.05)
    if execution["PipelineExecutionStatus"] != "Succeeded":
        raise SystemExit(f"the pipeline ended {execution['PipelineExecutionStatus']}: {execution.get('FailureReason')}")
    jobs = 0.0
    ends = []
    for step in client.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]:
        name = step["Metadata"]["ProcessingJob"]["Arn"].rsplit("/", 1)[1]
        job = client.describe_processing_job(ProcessingJobName=name)
        jobs += (job["ProcessingEndTime"] - job["CreationTime"]).total_seconds()
        ends.append(step["EndTime"])
    whole = (max(ends) - execution["CreationTime"]).total_seconds()
    return (whole - jobs) / steps, jobs / steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures localcloud's start and its engine's overhead.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    import boto3

    from localcloud import control

    ready, added, job = [], [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as home:
            begin = time.perf_counter()
            info = control.up(Path(home), port=0)
            ready.append(time.perf_counter() - begin)
            try:
                client = boto3.client(
                    "sagemaker", endpoint_url=info.url, region_name="us-east-1",
                    aws_access_key_id=ACCOUNT, aws_secret_access_key=info.secret,
                )  # fmt: skip
                client.create_pipeline(
                    PipelineName="bench", PipelineDefinition=definition(options.steps), RoleArn=ROLE,
                    ClientRequestToken="0" * 32,
                )  # fmt: skip
                overhead, own = overhead_per_step(client, options.steps)
                added.append(overhead)
                job.append(own)
            finally:
                control.down(Path(home))
    for name, values in (("ready, s", ready), ("engine overhead per step, s", added), ("the job itself, s", job)):
        print(f"{name:28s} median {statistics.median(values):.3f}  min {min(values):.3f}  max {max(values):.3f}")


if __name__ == "__main__":
    main()
