"""Requests are refused in AWS's words, with every broken constraint at once."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud.protocol import service_model
from localcloud.shapes import _compiled, check_request, shape_response

SAGEMAKER = service_model("sagemaker")


def refused(operation: str, params: Any) -> AwsError:
    with pytest.raises(AwsError) as caught:
        check_request(SAGEMAKER.operation_model(operation).input_shape, params)
    return caught.value


def test_every_problem_is_named_at_once_in_awss_words() -> None:
    error = refused(
        "CreateTrainingJob",
        {
            "TrainingJobName": "a b",
            "AlgorithmSpecification": {"TrainingInputMode": "Carrier pigeon"},
            "OutputDataConfig": {"S3OutputPath": "s3://b/k"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": -1, "VolumeSizeInGB": 1},
            "HyperParameters": {"key": "x" * 2501},
            "InputDataConfig": [],
            "Tags": [{"Key": "", "Value": "v"}],
        },
    )
    assert error.code == "ValidationException"
    assert error.message.startswith("7 validation errors detected: ")
    for part in (
        "Value 'a b' at 'trainingJobName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        "Value null at 'roleArn' failed to satisfy constraint: Member must not be null",
        "Value 'Carrier pigeon' at 'algorithmSpecification.trainingInputMode' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Pipe, File, FastFile]",
        "Value '-1' at 'resourceConfig.instanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 0",
        "Map value must satisfy constraint: [Member must have length less than or equal to 2500]",
        "Value '[]' at 'inputDataConfig' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
        "Value '' at 'tags.1.member.key' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
    ):
        assert part in error.message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"HyperParameters": {"epochs": 3}}, "NUMBER_VALUE cannot be converted to String at 'hyperParameters.epochs'"),
        ({"EnableNetworkIsolation": "true"}, "STRING_VALUE cannot be converted to Boolean"),
        ({"ResourceConfig": {"InstanceCount": "1"}}, "STRING_VALUE cannot be converted to Integer"),
        ({"ResourceConfig": {"InstanceCount": 1.5}}, "NUMBER_VALUE cannot be converted to Integer"),
        ({"ResourceConfig": {"InstanceCount": True}}, "BOOLEAN_VALUE cannot be converted to Integer"),
        ({"InputDataConfig": {}}, "Start of structure or map found where not expected"),
        ({"ResourceConfig": []}, "Start of list found where not expected"),
        ("text", "STRING_VALUE cannot be converted to structure"),
    ],
)
def test_a_wrong_type_is_a_serialization_error(params: Any, message: str) -> None:
    error = refused("CreateTrainingJob", params)
    assert error.code == "SerializationException"
    assert message in error.message


def test_an_unknown_member_is_refused_with_its_place() -> None:
    error = refused("CreateTrainingJob", {"ResourceConfig": {"InstanceCounts": 1}})
    assert error.code == "ValidationException"
    assert "Unknown parameter at 'resourceConfig': 'InstanceCounts'" in error.message
    assert "InstanceCount," in error.message


def test_what_is_right_arrives_converted() -> None:
    shape = SAGEMAKER.operation_model("ListTrainingJobs").input_shape
    params = {"CreationTimeAfter": "2026-01-02T03:04:05Z", "MaxResults": 5.0, "NextToken": None}
    assert check_request(shape, params) == {"CreationTimeAfter": 1767323045.0, "MaxResults": 5}


def test_every_pattern_of_the_model_can_be_read_and_matches_whole_values() -> None:
    patterns = {
        SAGEMAKER.shape_for(name).metadata["pattern"]
        for name in SAGEMAKER.shape_names
        if "pattern" in SAGEMAKER.shape_for(name).metadata
    }
    assert len(patterns) > 200
    assert [pattern for pattern in patterns if _compiled(pattern) is None] == []
    name = _compiled("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
    assert name.fullmatch("a-1")
    assert not name.fullmatch("a-1!")
    metadata = _compiled(r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,256}")
    assert metadata.fullmatch("größe = 1")
    assert not metadata.fullmatch("a;b")


def test_an_answer_is_cut_to_its_shape() -> None:
    shape = SAGEMAKER.operation_model("DescribeModelPackageGroup").output_shape
    created = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    answer = {"ModelPackageGroupName": "g", "_private": 1, "Unknown": 2, "CreationTime": created, "CreatedBy": None}
    assert shape_response(shape, answer) == {"ModelPackageGroupName": "g", "CreationTime": 1767225600.0}
    with pytest.raises(TypeError, match=r"response\.ModelPackageGroupName"):
        shape_response(shape, {"ModelPackageGroupName": 3})
