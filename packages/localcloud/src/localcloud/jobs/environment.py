"""What a job sees in its environment: the container contract's variables and nothing of the host's."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.jobs.layout import Layout

HOST = "algo-1"
"""The first host of a job, as SageMaker names it."""
MASTER_PORT = 7777
"""Where the hosts of a job meet: a constant of the SDK's drivers (scripts/environment.py) and of the toolkit."""

_INPUT, _OUTPUT, _MODEL = "/opt/ml/input", "/opt/ml/output", "/opt/ml/model"


def cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> int:
    """NVIDIA devices of this machine."""
    return sum(1 for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdigit())


def base_environment(
    ctx: Context, layout: Layout, *, isolated: bool, role: str = "", machines: int = 1
) -> dict[str, str]:
    """PATH, HOME, threads, and the way to localcloud as `role`; isolated: no AWS credentials and no model hub.

    The CPUs of this machine are shared by the `machines` that a job has.
    """
    seen = layout.seen
    environment = {
        "PATH": ":".join(
            [f"{seen}/python/bin", str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
        ),
        "VIRTUAL_ENV": f"{seen}/python",
        "HOME": str(seen),
        "TMPDIR": str(seen / "tmp"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": str(max(1, cpus() // machines)),
        # Jobs share this machine with each other and with their user: threads that spin while waiting would stall all.
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "AWS_REGION": ctx.region,
        "AWS_DEFAULT_REGION": ctx.region,
        # torchrun's default port is the same for every job on this machine.
        "PET_MASTER_PORT": str(_free_port()),
    }
    if isolated:
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    else:
        environment |= {
            "AWS_ENDPOINT_URL": ctx.cloud.url,
            **ctx.cloud.keys.environment(ctx.cloud.keys.role(ctx.account, role)),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    return environment


def resource_config(instance_type: str, host: str, hosts: list[str]) -> dict[str, Any]:
    """resourceconfig.json of a training job on one of its hosts."""
    return {
        "current_host": host,
        "current_instance_type": instance_type,
        "current_group_name": "homogeneousCluster",
        "hosts": hosts,
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": hosts}
        ],
        "network_interface_name": "lo" if sys.platform.startswith("linux") else "lo0",
    }


def training_environment(
    job: dict[str, Any], channels: dict[str, dict[str, Any]], resources: dict[str, Any]
) -> dict[str, str]:
    """The SM_* variables of the SageMaker training toolkit, with `/opt/ml` paths (the caller maps them)."""
    hyperparameters = {key: _decoded(value) for key, value in (job.get("HyperParameters") or {}).items()}
    user = {key: value for key, value in hyperparameters.items() if not key.startswith("sagemaker_")}
    program = str(hyperparameters.get("sagemaker_program") or "")
    host, hosts = resources["current_host"], resources["hosts"]
    values: dict[str, Any] = {
        "SM_MODEL_DIR": _MODEL,
        "SM_INPUT_DIR": _INPUT,
        "SM_INPUT_DATA_DIR": f"{_INPUT}/data",
        "SM_INPUT_CONFIG_DIR": f"{_INPUT}/config",
        "SM_OUTPUT_DIR": _OUTPUT,
        "SM_OUTPUT_FAILURE": f"{_OUTPUT}/failure",
        "SM_OUTPUT_DATA_DIR": f"{_OUTPUT}/data",
        "SM_OUTPUT_INTERMEDIATE_DIR": f"{_OUTPUT}/intermediate",
        "SM_CHANNELS": sorted(channels),
        "SM_HPS": user,
        "SM_CURRENT_HOST": host,
        "SM_HOSTS": hosts,
        "SM_HOST_COUNT": len(hosts),
        "SM_CURRENT_HOST_RANK": hosts.index(host),
        "SM_CURRENT_INSTANCE_TYPE": resources["current_instance_type"],
        "SM_CURRENT_INSTANCE_GROUP": resources["current_group_name"],
        "SM_NETWORK_INTERFACE_NAME": resources["network_interface_name"],
        "SM_MASTER_ADDR": HOST,
        "SM_MASTER_PORT": MASTER_PORT,
        "SM_NUM_CPUS": cpus(),
        "SM_NUM_GPUS": gpus(),
        "SM_NUM_NEURONS": 0,
        "SM_LOG_LEVEL": 20,
        "SM_RESOURCE_CONFIG": resources,
        "SM_INPUT_DATA_CONFIG": channels,
        "SM_USER_ARGS": command_line(user),
        "SM_USER_ENTRY_POINT": program,
        "SM_MODULE_NAME": program.removesuffix(".py"),
        "SM_MODULE_DIR": str(hyperparameters.get("sagemaker_submit_directory") or ""),
    }
    values |= {f"SM_CHANNEL_{name.upper()}": f"{_INPUT}/data/{name}" for name in channels}
    values |= {f"SM_HP_{key.replace('-', '_').upper()}": value for key, value in user.items()}
    values["SM_TRAINING_ENV"] = {
        "channel_input_dirs": {name: f"{_INPUT}/data/{name}" for name in channels},
        "current_host": host,
        "current_instance_type": resources["current_instance_type"],
        "hosts": hosts,
        "hyperparameters": user,
        "input_data_config": channels,
        "input_config_dir": f"{_INPUT}/config",
        "input_dir": _INPUT,
        "job_name": job["TrainingJobName"],
        "model_dir": _MODEL,
        "module_name": program.removesuffix(".py"),
        "network_interface_name": resources["network_interface_name"],
        "num_cpus": cpus(),
        "num_gpus": gpus(),
        "output_data_dir": f"{_OUTPUT}/data",
        "output_dir": _OUTPUT,
        "resource_config": resources,
        "user_entry_point": program,
    }
    # A null is the toolkit's empty string; strings are not quoted.
    environment = {key: "" if value is None else _encoded(value) for key, value in values.items()}
    environment["TRAINING_JOB_NAME"] = job["TrainingJobName"]
    environment["TRAINING_JOB_ARN"] = job["TrainingJobArn"]
    return environment


def command_line(hyperparameters: dict[str, Any]) -> list[str]:
    """Hyperparameters as the toolkit passes them: `--key value`, or `-k value` for a one-letter key."""
    arguments: list[str] = []
    for key, value in sorted(hyperparameters.items()):
        arguments += [f"-{key}" if len(key) == 1 else f"--{key}", "" if value is None else _encoded(value)]
    return arguments


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _encoded(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
