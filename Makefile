# Each target sets up what it needs, and does nothing twice: a stamp under .venv/stamps per step.
PYTHON ?= python3.11
# Test files at a time: most tests keep one core busy.
JOBS ?= 2
ARGS ?=
BENCHMARK_JSON ?= runs/benchmarks.json

# cuda with an NVIDIA driver, cpu without one; `make ACCELERATOR=cpu` overrules it.
ifndef ACCELERATOR
ACCELERATOR := $(shell $(PYTHON) -m install.accelerator 2>/dev/null || echo cpu)
endif
ifeq ($(filter cpu cuda,$(ACCELERATOR)),)
$(error ACCELERATOR is '$(ACCELERATOR)'; allowed are cpu and cuda)
endif

# off, for an index that serves other files than the public one: nothing that is installed is checked.
CHECK_HASHES ?= on
ifeq ($(filter on off,$(CHECK_HASHES)),)
$(error CHECK_HASHES is '$(CHECK_HASHES)'; allowed are on and off)
endif

PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet
CONSTRAINTS := install/constraints.txt
HASHES := install/hashes.txt
ifeq ($(CHECK_HASHES),on)
PINNED := --require-hashes -c $(HASHES)
# The pip that Python brings takes no hashes from constraints: it gets its successor's as a requirement.
INSTALL_PIP = .venv/bin/python -m install.hashes --check && \
	sed -n '/^pip==/,/[^\\]$$/p' $(HASHES) > .venv/pip.txt && \
	$(PIP) install --require-hashes -r .venv/pip.txt
else
$(warning CHECK_HASHES=off: PACKAGES ARE INSTALLED AS THE INDEX SERVES THEM, NO HASH IS CHECKED)
PINNED := -c $(CONSTRAINTS)
INSTALL_PIP = $(PIP) install $(PINNED) pip
endif
STAMPS := .venv/stamps
PINNED_PIP := $(STAMPS)/pip
DEPENDENCIES := $(STAMPS)/dependencies-$(ACCELERATOR)
HOROVOD := $(STAMPS)/horovod-$(ACCELERATOR)
PROJECT := $(STAMPS)/project-$(ACCELERATOR)
EXTRAS_cpu := cpu
EXTRAS_cuda := gpu
# Asked when training starts, by what is installed then.
RANKS_cpu := 2
RANKS_cuda = $$(.venv/bin/python -m install.ranks)
RANKS ?= $(RANKS_$(ACCELERATOR))
# The package that must go before the other TensorFlow comes: both own the same files.
OTHER_cpu := tensorflow
OTHER_cuda := tensorflow-cpu

# horovodrun and the python that it starts are those of .venv.
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"
# $(call step,what,commands): say what, do it, say how long it took.
step = @echo "== $(1)"; start=$$(date +%s); { $(2); } || exit 1; \
	echo "   $$(($$(date +%s) - start)) s"

.NOTPARALLEL:
.PHONY: help setup train test test-slow soak bench lint audit clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(HOROVOD) $(PROJECT)  ## .venv with the pinned packages, Horovod and the compiled op

train: setup  ## train SegNet on RANKS=2 ranks (one, if there is one GPU); ARGS="CONFIG.yaml key=value ..."
	$(RUN) horovodrun -np $(RANKS) python -m dlbench.train $(ARGS)

test: setup  ## the quick tests, those of continuous integration
	$(RUN) python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
		-m "not slow and not soak" $(ARGS)

test-slow: setup  ## the tests that take minutes
	$(RUN) python -m pytest -m slow $(ARGS)

soak: setup  ## the tests that take an hour
	$(RUN) python -m pytest -m soak $(ARGS)

bench: setup  ## the benchmarks, into BENCHMARK_JSON=runs/benchmarks.json; ARGS="--profile full"
	@mkdir -p $(dir $(BENCHMARK_JSON))
	$(RUN) python -m pytest benchmarks/ --benchmark-json=$(BENCHMARK_JSON) $(ARGS)

lint: setup  ## ruff and mypy
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

audit: $(STAMPS)/audit  ## known vulnerabilities of the pinned versions; ARGS="--vulnerability-service osv"
	@.venv/audit/bin/python -m install.audit $(ARGS)

clean:  ## remove what was compiled or cached in the checkout; delete .venv as well to start over
	rm -rf build *.egg-info dlbench/*.so .mypy_cache .pytest_cache .ruff_cache .benchmarks
	rm -f $(STAMPS)/project-*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@sh install/prerequisites.sh $(PYTHON) $(ACCELERATOR)
	$(call step,Creating .venv,$(PYTHON) -m venv .venv && mkdir -p $(STAMPS))
	@touch $@

$(PINNED_PIP): $(STAMPS)/venv $(CONSTRAINTS) $(HASHES)
	@$(INSTALL_PIP)
	@touch $@

$(STAMPS)/audit: $(PINNED_PIP)
	$(call step,Installing pip-audit in .venv/audit, \
		$(PYTHON) -m venv --clear --without-pip .venv/audit && \
		$(PIP) --python .venv/audit/bin/python install --only-binary :all: $(PINNED) pip_audit)
	@touch $@

$(DEPENDENCIES): $(PINNED_PIP) pyproject.toml install/requirements.py
	@rm -f $(STAMPS)/dependencies-* $(STAMPS)/horovod-* $(STAMPS)/project-*
	$(call step,Installing the pinned packages ($(ACCELERATOR)), \
		$(PIP) install $(PINNED) setuptools wheel && \
		{ ! .venv/bin/python -m pip show -qq $(OTHER_$(ACCELERATOR)) || \
			$(PIP) uninstall -y tensorflow tensorflow-cpu; } && \
		.venv/bin/python -m install.requirements $(EXTRAS_$(ACCELERATOR)) horovod test lint \
			> .venv/requirements.txt && \
		$(PIP) install --only-binary :all: $(PINNED) -r .venv/requirements.txt)
	@touch $@

$(HOROVOD): $(DEPENDENCIES) install/horovod.py install/horovod_edits.py
	$(call step,Installing Horovod,.venv/bin/python -m install.horovod --accelerator $(ACCELERATOR))
	@touch $@

$(PROJECT): $(DEPENDENCIES) setup.py $(wildcard ops/*)
	$(call step,Building the pooling op and installing dlbench, \
		PYTHONWARNINGS=ignore $(PIP) install --no-build-isolation --no-deps -e .)
	@touch $@
