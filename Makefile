# `make demo` and `make test` do all the set-up; both may be run again and again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# files of tests are shared out among so many processes, each of which may want two cores and 4 GB; their threads,
# more than there are cores, do not spin while they wait for each other, which took a quarter of the time
WORKERS ?= 2
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test lint clean

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made $(SOURCES)
	$(PIP) -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) -e '.[test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/cpmae demo demo/bids
	$(BIN)/bids-cpmae demo/bids demo/out participant -w demo/work --device cpu --random-seed 2
	@echo
	@echo "Look at:"
	@echo "  demo/bids/sub-demo/anat/sub-demo_T1w.nii.gz                                the synthetic head as it was"
	@echo "  demo/out/sub-demo/anat/sub-demo_desc-refaced_T1w.nii.gz                    the same head with another face"
	@echo "  demo/out/sub-demo/anat/sub-demo_mod-T1w_desc-face_defacemask.nii.gz        what was replaced"
	@echo "  demo/out/desc-refacing_verdicts.tsv                                        the verdict"

test: $(VENV)/.tested
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint:
	$(PIP) ruff
	$(BIN)/ruff check bids_cpmae tests

clean:
	rm -rf $(VENV) demo build *.egg-info
