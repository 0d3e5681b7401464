# make demo    the main job on real data in napari (DEMO=headless: on a virtual display)
# make test    all tests, on every core (JOBS=1: one after another)
# make campaign      bad input, kills, full disks, long runs: nothing may be lost (GROUPS=images,
#              SAMPLE=10, CASE="images/1 x 1")
# make test-clients    our files, opened by other programs, which go into .venv-clients
# make test-exchange   our models, tested and run by other programs, in .venv-bioimageio
# make lint    style, types, import contracts, declared dependencies and dead code
# make docs    the site, into site/
# make dist    wheel, source distribution, and the weights for non-commercial research
# make bench-scale   a large OME-Zarr on 1 and 2 workers, one of them killed (SIZE=)
# make bench   speed and memory
# make bench-speed    the first version and this one in turns; make bench-busy beside
#              two programs that never pause
# make bench-quality DATA="folder folder"    the whole report on one-shot quality: tables,
#              more boxes, calibration, contact sheet (MODELS=, CLASSES=, PROMPTS=, QUERIES=)
# make bench-finetuning DATA="folder folder"    fine-tuning from five boxes (PARTIAL="--boxes 1,5")
# make bench-methods DATA=folder    ablations of the methods (STEPS=, DRAWS=, FOLD_STEPS=, SETS=)
# make bench-uncertainty DATA="folder folder"     following the uncertainty against
#              prompting at random (DRAWS=)
# make bench-corrections DATA="folder folder"     a simulated user who corrects by clicks
#              (CLICKS=0,1,2,5,10,20)
#
# Everything is installed into .venv, in the tested versions of constraints.txt.

PYTHON ?= python3
DEMO ?=
OUTPUT ?= demo-output
DATA ?=
SETS ?= yeast_phase,dsb_grey_cytology,ecoli_brightfield,ecoli_phase,t98g_phase,worms_brightfield,wbc_rapid_stain,stomata_crops,maize_root_confocal,isbi2012_membrane,glas_glands,ocdc_he_tumour,prostate_glands,prostate_tumour,ihc_lymphocytes,emps_sem_spheres
TASKS ?=
STEPS ?= 60
DRAWS ?=
FOLD_STEPS ?= 20
MODELS ?= forest,otsu,panet,svp-attention,svp,svp-research
CLASSES ?=
ONLY = $(if $(CLASSES),--classes "$(CLASSES)")
PROMPTS ?= 5
QUERIES ?= 12
SIZE ?= 16384
PARTIAL ?=
JOBS ?= auto
GROUPS ?=
SAMPLE ?= 1
CASE ?=

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install -qq -c constraints.txt
CLIENTS_PIP := $(patsubst .venv/%,.venv-clients/%,$(PY)) -m pip \
    --disable-pip-version-check install -qq
STAMPS := .venv/.stamps
PACKAGE_FILES := pyproject.toml constraints.txt hatch_build.py napari.yaml

export DEMO PYTHON CASE

.PHONY: demo test test-clients test-exchange campaign lint docs bench bench-speed bench-busy bench-quality bench-methods bench-finetuning bench-tags bench-uncertainty bench-corrections bench-scale dist clean
.DEFAULT_GOAL := test

demo: $(STAMPS)/app $(STAMPS)/nuclei
	$(PY) -m napari_svpseg.cli.main demo --output $(OUTPUT)

# One thread a process: the tests already fill the cores.
test: $(STAMPS)/dev
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile

test-clients: $(STAMPS)/dev $(STAMPS)/clients
	$(PY) -m pytest tests/clients

test-exchange: $(STAMPS)/dev $(STAMPS)/exchange
	$(PY) -m pytest tests/clients/test_exchange.py

campaign: $(STAMPS)/dev
	$(PY) -m tests.campaign --sample $(SAMPLE) $(if $(GROUPS),--groups $(GROUPS)) \
	    $(if $(CASE),--case "$$CASE")

lint: $(STAMPS)/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/vulture

docs: $(STAMPS)/dev
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet docs site

bench: $(STAMPS)/dev
	set -e; for file in benchmarks/bench_*.py; do $(PY) $$file; done

CLICKS = 0,1,2,5,10,20
bench-corrections: $(STAMPS)/dev
	$(if $(DATA),,$(error Name the data folders: make bench-corrections DATA="a b"))
	mkdir -p bench-output
	$(PY) benchmarks/corrections.py $(DATA) --clicks $(CLICKS) --png bench-output/corrections.png

# The first version, from its own wheel; its libraries are those of this one.
OLD = 47f8950
bench-output/$(OLD)/site: | $(STAMPS)/dev
	mkdir -p bench-output/$(OLD)/source
	git archive $(OLD) | tar x -C bench-output/$(OLD)/source
	$(PY) -m pip wheel -qq --no-deps --no-build-isolation -w bench-output/$(OLD) ./bench-output/$(OLD)/source
	$(PY) -m pip install -qq --no-deps --target $@ bench-output/$(OLD)/*.whl

bench-speed: bench-output/$(OLD)/site
	$(PY) benchmarks/versions.py $< --json bench-output/speed.json

bench-busy: bench-output/$(OLD)/site
	$(PY) benchmarks/versions.py $< --loops 2 --json bench-output/busy.json

bench-quality: $(STAMPS)/dev
	$(if $(DATA),,$(error Name the data folders: make bench-quality DATA="a b"))
	mkdir -p bench-output
	$(BIN)/svpseg benchmark $(DATA) --models $(MODELS) --prompts $(PROMPTS) \
	    --queries $(QUERIES) $(ONLY) --json bench-output/oneshot.json --resume
	$(PY) benchmarks/more_boxes.py $(DATA) $(ONLY) --models svp,forest \
	    --json bench-output/more-boxes.json > bench-output/more-boxes.md
	cat bench-output/more-boxes.md
	$(PY) benchmarks/calibration.py $(DATA) --prompts 2 --max-queries 2
	$(PY) benchmarks/oneshot.py $(DATA) $(ONLY) --models svp,forest --sheet bench-output/sheet.png

bench-finetuning: $(STAMPS)/dev
	$(if $(DATA),,$(error Name the data folders: make bench-finetuning DATA="a b"))
	$(PY) benchmarks/finetuning.py $(DATA) --resume --curve $(PARTIAL)

bench-methods: $(STAMPS)/dev
	$(if $(DATA),,$(error Name the folder that holds the data sets: make bench-methods DATA=folder))
	$(PY) benchmarks/methods.py $(DATA) --sets $(SETS) --steps $(STEPS) $(if $(TASKS),--tasks $(TASKS))
	$(PY) benchmarks/founding.py $(DATA) --sets $(SETS) --draws $(or $(DRAWS),1)
	$(PY) benchmarks/kato_hotta.py $(DATA) --steps $(FOLD_STEPS) --json bench-output/kato-hotta.json
	$(PY) benchmarks/claims.py

bench-tags: $(STAMPS)/dev
	$(if $(DATA),,$(error Name the folder of the data sets: make bench-tags DATA=folder))
	$(PY) benchmarks/tag_training.py $(DATA) --output bench-output/tag-training.json

bench-uncertainty: $(STAMPS)/dev
	$(if $(DATA),,$(error Name the data folders: make bench-uncertainty DATA="a b"))
	$(PY) benchmarks/uncertainty.py $(DATA) --prompts $(or $(DRAWS),2) --resume

bench-scale: $(STAMPS)/dev
	$(PY) benchmarks/scale.py --size $(SIZE) --json bench-output/scale.json

# The licence of the research weights forbids commercial use, so no wheel holds them:
# "svpseg models import" takes the zip.
dist: $(STAMPS)/dev
	$(PY) -m build --no-isolation
	$(BIN)/svpseg models export svp-research -o dist/svp-research.zip

clean:
	rm -rf build dist site demo-output bench-output .pytest_cache .mypy_cache .ruff_cache

# ------------------------------------------------------------------ installing
$(STAMPS)/venv:
	sh scripts/system_packages.sh
	@$(PYTHON) -c "import sys; sys.exit((sys.version_info < (3, 11)) and \"Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12\")"
	$(PYTHON) -m venv .venv
	$(PY) -m pip --disable-pip-version-check install -qq --upgrade pip
	mkdir -p $(STAMPS)
	touch $@

# torch by itself: whatever build of this version the machine offers will serve
$(STAMPS)/torch: $(STAMPS)/venv constraints.txt
	@echo "Installing PyTorch (large; once)"
	$(PIP) torch==2.13.0
	touch $@

$(STAMPS)/app: $(STAMPS)/torch $(PACKAGE_FILES)
	@echo "Installing napari-svpseg and napari"
	$(PIP) hatchling hatch-vcs editables
	$(PIP) --no-build-isolation -e ".[all]"
	touch $@

# ome-zarr by itself: for files on this machine its cloud clients are not needed
$(STAMPS)/dev: $(STAMPS)/app
	@echo "Installing what the tests need"
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PIP) --no-deps ome-zarr
	touch $@

# other programs: in an environment of their own, as they choose versions too. Of
# cellpose only the readers of files are used, and of python-bioformats its Java.
$(STAMPS)/clients: $(STAMPS)/dev scripts/client_programs.sh
	sh scripts/client_programs.sh
	$(PYTHON) -m venv .venv-clients
	$(CLIENTS_PIP) napari napari-ome-zarr bioio bioio-ome-zarr bioio-ome-tiff ngff-zarr \
	    ome-zarr-models neuroglancer geopandas scikit-image opencv-python-headless \
	    natsort tqdm roifile fastremap fill-voids
	$(CLIENTS_PIP) --no-deps cellpose python-bioformats
	touch $@

# bioimageio.spec 0.5.12 fails with pydantic 2.14: findings/bioimageio_spec_attachments_pydantic.sh
$(STAMPS)/exchange: $(STAMPS)/dev
	$(PYTHON) -m venv .venv-bioimageio
	$(patsubst .venv-clients/%,.venv-bioimageio/%,$(CLIENTS_PIP)) bioimageio.core \
	    "pydantic<2.13" onnxruntime opencv-python-headless
	touch $@

# the package is never imported: it ships a real image of nuclei with labels
$(STAMPS)/nuclei: $(STAMPS)/venv constraints.txt
	$(PIP) --no-deps --only-binary :all: stardist || \
		echo "No image of nuclei for this Python: the demo shows the other one."
	touch $@
