# make all     set up .venv, then train, evaluate, tabulate and report; CONFIG="protocol=smoke data_dir=../data" changes what
# make test    the same set-up, then the linters and the tests, WORKERS=2 at once; make test-all: the slow ones too
# make gpu-check  on a machine with a GPU, at most 8 minutes: its tests, its speed, and a table of predicted against
#                 measured; GPU_PYTHON=python3 takes a Python that has PyTorch and pytest, and builds and fetches nothing
# make gpu_packages  what such a Python lacks, gathered on a machine with a network; GPU_VERSION=3.12 is that Python's
# make ui      browse the runs with MLflow on this machine
# PYTHON=/path/to/python3 names the interpreter to build .venv with (3.11 or later).
# An active environment (conda, venv) that has the packages is used as it is, and so is a .venv that is a link to another.

CORES ?= all
CONFIG ?=
PORT ?= 5000
WORKERS ?= 2

# Neither MLflow nor the programs it starts may report usage to their makers.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

# What CONFIG says of a key, or the default; a protocol's results go to a folder of its name.
configured = $(or $(patsubst $(1)=%,%,$(filter $(1)=%,$(CONFIG))),$(2))
FOLDER = $(call configured,results_dir,results)/$(basename $(notdir $(call configured,protocol,quick)))

# The environment of all commands: the active one if it has the packages, or else .venv; only a .venv that is a folder of
# this checkout is ever built or emptied.
HAS_PACKAGES := import importlib.util as u, sys; sys.exit(None in map(u.find_spec, ["torch", "mlflow", "snakemake", "pytest"]))
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
ifneq ($(ACTIVE),)
ACTIVE := $(shell '$(ACTIVE)/bin/python' -c '$(HAS_PACKAGES)' 2>/dev/null && echo '$(ACTIVE)')
endif
ENVIRONMENT := $(or $(ACTIVE),$(CURDIR)/.venv)
LINKED := $(shell test -L .venv && echo linked)
READY := $(if $(filter-out $(CURDIR)/.venv,$(ACTIVE)),,$(if $(LINKED),linked,.venv/installed))
IN_VENV := PATH="$(ENVIRONMENT)/bin:$$PATH"
# A file of tests shares what is costly to make, so that all of it goes to one worker; long files first.
PYTEST := pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: all test test-all lint gpu-check ui linked
.DELETE_ON_ERROR:

all: $(READY)
	@$(IN_VENV) snakemake --cores $(CORES) all $(if $(CONFIG),--config $(CONFIG))
	@$(IN_VENV) snakemake --quiet all --report $(FOLDER)/report.html $(if $(CONFIG),--config $(CONFIG))
	@echo "Report   $(FOLDER)/report.html: one file, open it in a browser"

test: lint
	$(IN_VENV) $(PYTEST)

test-all: lint
	$(IN_VENV) $(PYTEST) -m ""

lint: $(READY)
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) snakefmt --check Snakefile workflows
	$(IN_VENV) snakemake --lint
	$(IN_VENV) basedpyright

# What `make gpu-check` measures, each call under its LIMIT_S in seconds; one that a GPU fails stops no other.
GPU_RESULTS := results/reference/speed
gpu_speed = $(GPU_RESULTS)/cuda-$(1).json
GPU_SPEED := $(foreach name,128-64-bf16 128-64-bf16-batch64 stack-1 stack-2 stack-4 stack-8 data recompute,$(call \
    gpu_speed,$(name)))
BF16_PAPER := --precision bf16 --hidden-channels 128,64,64,64 --repeats 3
TRACED = --captured --trace $(GPU_TRACES)/$(@F:.json=.trace.json)
$(call gpu_speed,128-64-bf16): OPTIONS = $(BF16_PAPER) $(TRACED)
$(call gpu_speed,128-64-bf16): LIMIT_S := 75
$(call gpu_speed,128-64-bf16-batch64): OPTIONS = $(BF16_PAPER) --batch-size 64 $(TRACED)
$(call gpu_speed,128-64-bf16-batch64): LIMIT_S := 40
$(call gpu_speed,stack-1): OPTIONS := --what cohort --precision bf16 --stack 1
$(call gpu_speed,stack-1): LIMIT_S := 20
$(call gpu_speed,stack-2): OPTIONS := --what cohort --precision bf16 --stack 2
$(call gpu_speed,stack-4): OPTIONS := --what cohort --precision bf16 --stack 4
$(call gpu_speed,stack-4): LIMIT_S := 35
$(call gpu_speed,stack-8): OPTIONS := --what cohort --precision bf16 --stack 8
$(call gpu_speed,stack-8): LIMIT_S := 45
$(call gpu_speed,data): OPTIONS := --what data --batch-size 64 $(BF16_PAPER)
$(call gpu_speed,data): LIMIT_S := 20
$(call gpu_speed,recompute): OPTIONS := --precision bf16 --hidden-channels 128,128,128,128 --frame-size 128 \
    --context 10 --horizon 20 --repeats 2 --recompute
$(call gpu_speed,recompute): LIMIT_S := 40

# More to measure, by name: in other precisions, without deterministic algorithms, with norms, and the roll-out alone.
GPU_MORE := $(foreach name,128-64-fp32 128-64-tf32 128-64-bf16-any-order 128-64-bf16-channel inference,$(call \
    gpu_speed,$(name)))
$(call gpu_speed,128-64-fp32): OPTIONS := $(BF16_PAPER) --precision fp32
$(call gpu_speed,128-64-tf32): OPTIONS := $(BF16_PAPER) --precision tf32
$(call gpu_speed,128-64-bf16-any-order): OPTIONS := $(BF16_PAPER) --any-order
$(call gpu_speed,128-64-bf16-channel): OPTIONS := $(BF16_PAPER) --norm channel
$(call gpu_speed,inference): OPTIONS := --what inference $(BF16_PAPER)

GPU_VERSION ?= 3.12
GPU_PACKAGES := annotated-types av beartype joblib lpips pyarrow pydantic pydantic-core scikit-learn threadpoolctl \
    typing-inspection
GPU_READY := $(if $(GPU_PYTHON),,$(READY))
GPU_TRACES ?= gpu_traces
LIMIT_S = 30
GPU_RUN = $(if $(GPU_PYTHON),PYTHONPATH="$(CURDIR):$(CURDIR)/gpu_packages" MLFLOW_TRACKING_URI=off,$(IN_VENV)) \
    timeout $(LIMIT_S) $(or $(GPU_PYTHON),python) -m

.PHONY: $(GPU_SPEED) $(GPU_MORE) gpu-tests gpu-table
$(GPU_SPEED) $(GPU_MORE): $(GPU_READY)
	$(if $(findstring --trace,$(OPTIONS)),mkdir -p $(GPU_TRACES))
	$(GPU_RUN) benchmark speed --device cuda $(OPTIONS) --json $@

# Files are named, since to collect all tests takes a minute.
gpu-tests: LIMIT_S = 165
gpu-tests: $(GPU_READY)
	$(GPU_RUN) pytest -q -m gpu $$(grep -rl --include 'test_*.py' 'mark[.]gpu' tests | LC_ALL=C sort)

gpu-table: LIMIT_S = 10
gpu-table: $(GPU_READY)
	$(GPU_RUN) benchmark speed --predicted

gpu-check: $(GPU_READY)
	$(MAKE) --keep-going --jobs 1 gpu-tests $(GPU_SPEED) gpu-table

# Versions are those of the lock. The folder goes to the machine with the checkout.
gpu_packages: requirements.lock
	rm -rf $@
	$(or $(PYTHON),python3) -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target $@ \
	    --python-version $(GPU_VERSION) $(foreach tag,2_28 2_17,--platform manylinux_$(tag)_x86_64) --platform manylinux2014_x86_64 \
	    $$(grep -oE "^($$(echo $(GPU_PACKAGES) | tr ' ' '|'))==[^ ]+" requirements.lock)

# `mlflow ui` itself does not read MLFLOW_TRACKING_URI, and what stands in a command line (a password) everyone can read;
# its job runner, eight idle processes, serves nothing here. It builds no environment: whoever only looks would wait.
PAGES := from benchmark.reporting.terminal.closing import print_pages; print_pages($(PORT))
ui: export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
ui:
	@if ! test -x '$(ENVIRONMENT)/bin/mlflow'; then \
	    echo "error: $(ENVIRONMENT) has no MLflow, and this builds nothing: activate an environment that has it, or let" \
	         "\`make .venv/installed\` build .venv (about 4 minutes and 6 GB)" >&2; exit 1; \
	fi
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) echo "The runs are on $$(echo "$$MLFLOW_TRACKING_URI" | sed 's,//.*@,//,; s,[?].*,,'): open that in a browser." ;; \
	*) export MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"; \
	   test ! -d benchmark || $(IN_VENV) python -c '$(PAGES)'; \
	   $(IN_VENV) exec mlflow ui --host 127.0.0.1 --port $(PORT) ;; \
	esac

# What a link points to belongs to somebody else: it is used, never built, emptied or added to.
linked:
	@if ! .venv/bin/python -c '$(HAS_PACKAGES)' 2>/dev/null; then \
	    echo "error: .venv is a link to $$(readlink .venv), which lacks packages and is not built anew through the link:" \
	         "install requirements.lock there yourself, or remove the link and \`make\` builds .venv here" >&2; exit 1; \
	fi

# Built anew from nothing, so that a broken-off installation leaves no half-written package behind.
.venv/locked: requirements.lock
	@set -e; found=; \
	if [ -L .venv ]; then \
	    echo "error: .venv is a link to $$(readlink .venv): \`venv --clear\` would empty that; remove the link, and make" \
	         "builds .venv here" >&2; exit 1; \
	fi; \
	for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	    if "$$python" -c '$(SUITABLE)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "error: no Python >= 3.11 with the venv module found: install one (Debian: apt-get install python3-venv)" \
	         "or name it with PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Installing requirements.lock into .venv with $$found: about 4 minutes and 6 GB."; \
	"$$found" -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Needs uv (`pip install uv`); keeps the versions that are locked where pyproject.toml allows them.
.PHONY: lock
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --custom-compile-command "make lock" --output-file requirements.lock
