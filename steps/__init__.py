"""One file, one step, one builder. `pipelines/finetuning.py` puts them together."""
