# `make help` lists the commands.  Each sets up what it needs, once.
#
#   PYTHON=python3.12   the interpreter to build with (default: the first of 3.10 .. 3.13 that runs)
#   TORCH=...           the torch to install, with any option that pip takes after a requirement
#   DEMO_MINUTES=3      a shorter demo
#   FUZZ_MINUTES=5      shorter fuzzing
#   PEERS=...           options of `make bench-peers`, as PEERS='--sizes micro --peers learner torchrl'
#   RESULTS=...         options of `make results`, as RESULTS='--minutes 10 --presets twm awm --jobs 2'
#   CHAOS_FAULTS=1000 CHAOS_CHUNKS=100000   a smaller campaign
#   WORKERS=2           how many processes run tests side by side (default: two per core, at most 8: many tests wait)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

TORCH ?= torch==2.13.0
DEMO_MINUTES ?= 15
FUZZ_MINUTES ?= 120
RESULTS ?=
PEERS ?=
CHAOS_FAULTS ?= 1000
CHAOS_CHUNKS ?= 100000
FLEET_MINUTES ?= 10
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 4 ? 2 * n : 8)))

VENV := .venv
BIN := $(VENV)/bin
MADE = $(VENV)/.made$(if $(filter yes,$(SOURCED)),-beside-ros)
ROBOT_PYTHONS := 3.10 3.12 3.14
OLD_RUNTIMES := .venv-ort117 .venv-ort123
OLD_RUNTIME_117 := onnxruntime==1.17.3 'numpy<2'
OLD_RUNTIME_123 := onnxruntime==1.23.2
RUN := MUJOCO_GL=egl LP_NUM_THREADS=0
TEST := $(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile # a file's tests share what they set up

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

# A ROS 2 that is sourced is used instead of the wheels.  It was built for one Python and numpy 1,
# so that Python makes the venv, sees its packages, and numpy stays below 2.
SOURCED := $(shell [ -n "$${AMENT_PREFIX_PATH:-}$${ROS_DISTRO:-}" ] && python3 -c 'import rclpy' 2>/dev/null && echo yes)
ifeq ($(SOURCED),yes)
PYTHON ?= python3
VENV_FLAGS := --system-site-packages
EXTRAS := robot,train,data,objects,sim,atari,dev
CONSTRAINTS := $(VENV)/constraints.txt
STRICT := --strict-skips
else
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.10; do \
    "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
    && { command -v "$$p"; break; }; done)
VENV_FLAGS :=
EXTRAS := robot,train,data,objects,sim,atari,ros,dev
CONSTRAINTS := constraints.txt
STRICT := $(if $(filter x86_64,$(shell uname -m)),--strict-skips) # no ROS wheels elsewhere
endif

# The interpreter of version $(1), on PATH or kept by pyenv; empty where there is none.
define find_python
$(shell python$(1) -c 'import sys; print(sys.executable)' 2>/dev/null \
    || { v=$$(pyenv versions --bare 2>/dev/null | grep -E '^$(subst .,\.,$(1))\.[0-9]+$$' | tail -n 1); \
         [ -n "$$v" ] && echo "$$(pyenv prefix "$$v")/bin/python"; })
endef

say = @printf '\n== %s\n' "$(1)"

.PHONY: help demo test check lint format bench bench-peers results chaos fleet fuzz docs robot-test setup robot-setup clean $(OLD_RUNTIMES)

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: setup ## run the whole loop: robot, ROS 2, trainer, new policies (DEMO_MINUTES=15)
	$(RUN) $(BIN)/wm demo --minutes $(DEMO_MINUTES)

test: setup robot-setup ## set up, check, and run every test that needs no hours and no GPU
	$(call say,documentation - a broken link or reference fails - beside the checks of the sources)
	@$(MKDOCS) build --quiet --strict & docs=$$!; $(MAKE) --no-print-directory lint && wait $$docs
	$(call say,every test but the slow ones - $(WORKERS) files at a time)
	$(TEST) $(SIDE_BY_SIDE) $(STRICT) -m "not slow and not gpu" --durations=20

check: setup lint ## check format, style, types and imports, and run the quick tests
	$(TEST) -q $(SIDE_BY_SIDE) -m "not ros and not mujoco and not long and not slow and not gpu"

lint: setup ## check format, style, types and imports
	$(call say,format - style - types - imports)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## rewrite the sources in the style of the project
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure how fast simulator, replay and learner are
	$(RUN) $(BIN)/wm bench sim
	$(RUN) $(BIN)/wm bench replay
	$(RUN) $(BIN)/wm bench learner

bench-peers: setup .venv-peers/.installed ## measure an update beside sheeprl's and torchrl's (PEERS='--sizes micro')
	$(RUN) .venv-peers/bin/python -m benchmarks.peers $(PEERS)

results: setup ## train every preset for the same CPU time and write down its returns (takes hours, resumes)
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.results $(RESULTS)
	$(BIN)/python -m benchmarks.results --page

chaos: setup ## break robots, service, disks and network on purpose, and account for every step (CHAOS_FAULTS=1000)
	$(RUN) $(BIN)/python -m benchmarks.chaos --faults $(CHAOS_FAULTS) --chunks $(CHAOS_CHUNKS)

fleet: setup ## how many robots one service takes in before acknowledgements lag (FLEET_MINUTES=10)
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fleet --minutes $(FLEET_MINUTES)

fuzz: setup ## feed every decoder of network and files with changed inputs for hours (FUZZ_MINUTES=120)
	$(RUN) $(BIN)/python -m tests.fuzz.run --minutes $(FUZZ_MINUTES)

docs: setup ## serve the documentation site on http://127.0.0.1:8000
	$(MKDOCS) serve

robot-test: setup robot-setup ## run the tests of what runs on the robot, on every Python that is here
	$(TEST) $(SIDE_BY_SIDE) -m "not slow and not gpu" tests/wm_core/contract tests/wm_core/format tests/wm_core/link tests/wm_core/robot tests/wm_ros

clean: ## delete the environments and every cache; runs/ stays
	rm -rf $(VENV) .venv-peers $(ROBOT_PYTHONS:%=.venv-robot-%) $(OLD_RUNTIMES) *.egg-info build install log site
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------ environments

setup: $(VENV)/.installed $(VENV)/.renders ## make .venv with everything in it, and nothing else

$(MADE):
	$(call say,making $(VENV) with $(PYTHON))
	@[ -n "$(PYTHON)" ] || { echo "no Python 3.10 .. 3.13 found: install one or say make PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || $(call apt,python3-venv)
	"$(PYTHON)" -m venv --clear $(VENV_FLAGS) $(VENV)
	@touch $@

# torch by itself and first, so that a build chosen with TORCH is never replaced by another.
$(VENV)/.installed: $(MADE) setup.py constraints.txt pyproject.toml
ifeq ($(SOURCED),yes)
	$(call say,ROS 2 $${ROS_DISTRO:-} is sourced: no wheels of it; numpy below 2)
	{ grep -vE '^(numpy|ml-dtypes|pytest|setuptools|empy|lark|colcon-|ros-)' constraints.txt; echo 'numpy<2'; } > $(CONSTRAINTS)
endif
	$(call say,installing $(TORCH))
	$(BIN)/python -m pip install $(TORCH)
	$(call say,installing the package with its extras $(EXTRAS))
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	@touch $@

GL_PACKAGES := libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri
RENDERS := $(RUN) $(BIN)/python -c 'import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()' 2>/dev/null

$(VENV)/.renders: $(VENV)/.installed
	$(call say,headless rendering)
	@$(RENDERS) || $(call apt,$(GL_PACKAGES))
	@$(RENDERS) || { echo "MuJoCo cannot render through EGL; it needs: $(GL_PACKAGES)"; exit 1; }
	@echo "MuJoCo renders through EGL"; touch $@

# Install Debian packages as root or by sudo; otherwise one line names them.
define apt
{ if [ "$$(id -u)" = 0 ]; then as=""; elif sudo -n true 2>/dev/null; then as="sudo"; \
  else echo "please install: $(1)"; exit 1; fi; \
  command -v apt-get >/dev/null || { echo "please install what Debian calls: $(1)"; exit 1; }; \
  $$as apt-get update && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(1); }
endef

# What the robot's side is tested with: other Pythons without torch, and old onnxruntimes.
# Where an interpreter is absent, its tests are skipped and say so.  Both at once, for pip uses one
# processor; the Pythons one after the other, for all of them build this folder's package.
robot-setup:
	@$(MAKE) --no-print-directory $(OLD_RUNTIMES:%=%/.installed) & runtimes=$$!; \
	$(MAKE) --no-print-directory $(ROBOT_PYTHONS:%=.venv-robot-%/.installed) && wait $$runtimes

.venv-robot-%/.installed: setup.py constraints.txt
	@python="$(call find_python,$*)"; \
	if [ -z "$$python" ]; then printf '\n== no Python %s here: its tests will be skipped\n' $*; exit 0; fi; \
	printf '\n== making .venv-robot-%s: the robot without torch\n' $*; \
	{ [ -x .venv-robot-$*/bin/pip ] || "$$python" -m venv .venv-robot-$*; } && \
	.venv-robot-$*/bin/python -m pip install --no-compile -c constraints.txt -e '.[robot,ros]' pytest && touch $@

# Other people's DreamerV3, in an environment of their own that sees what $(VENV) holds: one torch for all.
.venv-peers/.installed: $(VENV)/.installed benchmarks/peers/requirements.txt
	$(call say,making .venv-peers for what make bench-peers measures)
	$(BIN)/python -m venv --clear .venv-peers
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_of_ours.pth"
	.venv-peers/bin/python -m pip install --no-deps -r benchmarks/peers/requirements.txt && touch $@

.venv-ort117/.installed .venv-ort123/.installed: .venv-ort%/.installed: constraints.txt
	@python="$(firstword $(foreach v,3.11 3.10 3.12,$(call find_python,$(v))))"; \
	if [ -z "$$python" ]; then printf '\n== no Python 3.10 .. 3.12 here: no test with an old onnxruntime\n'; exit 0; fi; \
	printf '\n== making .venv-ort%s: an old onnxruntime\n' $*; \
	{ [ -x .venv-ort$*/bin/pip ] || "$$python" -m venv .venv-ort$*; } && \
	.venv-ort$*/bin/python -m pip install --no-compile $(OLD_RUNTIME_$*) 'pydantic>=2.7' && touch $@

.venv-ort117 .venv-ort123: .venv-ort%: .venv-ort%/.installed
