"""Read a job's CloudWatch log as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.aws import client
from pipelines.executions import Job

if TYPE_CHECKING:
    import boto3


class LogTail:
    """Reads each line of a job's log once, in order, over all its streams."""

    def __init__(self, session: boto3.Session, job: Job) -> None:
        self._client = client(session, "logs")
        self._job = job
        self._tokens: dict[str, str] = {}

    def read(self) -> list[str]:
        """The lines that came since the last call; none while the job has not logged yet."""
        lines: list[str] = []
        for stream in self._streams():
            while True:
                request = {"logGroupName": self._job.log_group, "logStreamName": stream, "startFromHead": True}
                if stream in self._tokens:
                    request["nextToken"] = self._tokens[stream]
                answer = self._client.get_log_events(**request)
                lines += [event["message"] for event in answer["events"]]
                unchanged = answer["nextForwardToken"] == self._tokens.get(stream)
                self._tokens[stream] = answer["nextForwardToken"]
                if unchanged or not answer["events"]:
                    break
        return lines

    def _streams(self) -> list[str]:
        try:
            answer = self._client.describe_log_streams(
                logGroupName=self._job.log_group, logStreamNamePrefix=self._job.name + "/"
            )
        except self._client.exceptions.ResourceNotFoundException:
            return []
        return [stream["logStreamName"] for stream in answer["logStreams"]]
