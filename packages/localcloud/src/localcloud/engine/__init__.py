"""The pipeline engine: runs an upserted definition, from its JSON alone.

`definition` parses and checks, `expressions` and `conditions` evaluate, `cache` and `retry` decide, `steps` does one
step's work through the same API that an outside caller uses, `runner` drives one execution.
"""
