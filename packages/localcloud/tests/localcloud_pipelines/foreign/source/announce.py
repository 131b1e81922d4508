"""Lambda: say which version was registered, and leave a note in S3 through the same endpoint."""

import json

import boto3


def handler(event, context):
    package = boto3.client("sagemaker").describe_model_package(ModelPackageName=event["model_package_arn"])
    version = package["ModelPackageVersion"]
    boto3.client("s3").put_object(
        Bucket=event["bucket"], Key="announcement.json", Body=json.dumps({"version": version, "depth": event["depth"]})
    )
    return {"statusCode": 200, "version": version, "text": f"version {version}"}
