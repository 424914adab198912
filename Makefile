# make demo: hear it; make test: check it. Only Python 3.11 and pip are needed.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = out/demo
# Of training, and of the music that it learns.
MINUTES ?= 3
CHORALES ?= 20

.PHONY: demo studio test lint bench clean

# A mark, so that a broken installation is done again and a changed list is noticed.
$(VENV)/installed: requirements.txt requirements-nodeps.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps -r requirements-nodeps.txt
	touch $@

# The measures of the sound need two more packages; the rest works without them.
$(VENV)/installed-metrics: $(VENV)/installed requirements-metrics.txt requirements-metrics-nodeps.txt
	$(RUN) -m pip install --quiet -r requirements-metrics.txt
	$(RUN) -m pip install --quiet --no-deps -r requirements-metrics-nodeps.txt
	touch $@

# So does the page in the browser.
$(VENV)/installed-studio: $(VENV)/installed requirements-studio.txt
	$(RUN) -m pip install --quiet -r requirements-studio.txt
	touch $@

demo: $(VENV)/installed
	$(RUN) -m demo.chorales $(DEMO)/chorales --minutes $(CHORALES)
	$(RUN) train.py $(DEMO)/chorales --metadata metadata/demo.json --minutes $(MINUTES) --save-every 30
	$(RUN) predict.py metadata/demo.json demo/prompt.musicxml --seconds 20 -o $(DEMO)/continuation.wav --picture --force
	@echo "listen:  $(DEMO)/continuation.wav"
	@echo "look:    $(DEMO)/continuation.png"

studio: $(VENV)/installed-studio
	$(RUN) -m studio

# The tests open the page in a browser, where one is installed.
$(VENV)/installed-browser: $(VENV)/installed-studio requirements-browser.txt
	$(RUN) -m pip install --quiet -r requirements-browser.txt
	touch $@

test: $(VENV)/installed-metrics $(VENV)/installed-browser
	$(RUN) -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(VENV)/installed
	$(RUN) -m bench.speed

clean:
	rm -rf out .pytest_cache .ruff_cache
