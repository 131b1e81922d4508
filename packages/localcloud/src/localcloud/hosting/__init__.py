"""Endpoints as SageMaker hosts them, without Docker: model server processes behind InvokeEndpoint."""
