"""The part of LMI's `djl_python` that a model's own `model.py` imports: the decorators of its formatters.

Runs in the model server of an LMI image (lmi_server.py), which puts this folder's parent on the path. Semantics: DJL
Serving 0.36, engines/python/setup/djl_python/{input_parser,output_formatter}.py.
"""
