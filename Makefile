# make demo: hear it; make test: check it. Only Python 3.11 and pip are needed.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = out/demo
# Of the continuation that the README shows, too.
SEED ?= 1
# Optimizer steps of the training, and minutes of the music that it learns. Two slow cores need three minutes for them.
STEPS ?= 1000
CHORALES ?= 20
# What plays the sound; PLAYER= plays nothing.
PLAYER ?= $(shell command -v afplay || command -v paplay || command -v aplay)
PROMPT = demo/prompt.musicxml

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

# Where nothing can be played (no sound card), the demo goes on without a word.
play = -@test -z "$(PLAYER)" || ($(PLAYER) $(1) >/dev/null 2>&1 &)

demo: $(VENV)/installed
	@mkdir -p $(DEMO)
	@echo "1. The model of this repository goes on with eight bars of Bach, played by a piano"
	$(RUN) predict.py metadata/chorales.json $(PROMPT) --seconds 20 --seed $(SEED) -o $(DEMO)/shipped.wav --picture --force
	@echo "   listen:  $(DEMO)/shipped.wav (the prompt, then 20 s of the model; it joins them without a step)"
	@echo "   look:    $(DEMO)/shipped.png (the prompt left of the dashed line)"
	$(call play,$(DEMO)/shipped.wav)
	@echo "2. A model of your own: $(CHORALES) minutes of chorales, $(STEPS) steps (1 to 3 minutes), then the same prompt"
	$(RUN) -m demo.chorales $(DEMO)/chorales --minutes $(CHORALES)
	$(RUN) train.py $(DEMO)/chorales --metadata metadata/demo.json --steps $(STEPS) --save-every 60 --no-preview
	$(RUN) predict.py metadata/demo.json $(PROMPT) --seconds 20 --seed $(SEED) -o $(DEMO)/continuation.wav --picture --force
	@echo "   listen:  $(DEMO)/continuation.wav"
	@echo "   look:    $(DEMO)/continuation.png"
	$(call play,$(DEMO)/continuation.wav)
	@echo "Listen for: in the first, which has learned for 12 minutes, the piano and the beat of the prompt go on; after"
	@echo "1000 steps chords stand for longer, and the piano may turn into an organ. Next:"
	@echo "   more steps, from where it stopped:   $(RUN) train.py $(DEMO)/chorales --metadata metadata/demo.json --steps 4000"
	@echo "   another continuation:                $(RUN) predict.py metadata/chorales.json $(PROMPT) --seed 8 -o another.wav"
	@echo "   your own recordings:                 $(RUN) train.py FOLDER"
	@echo "   a page in the browser:               make studio"

studio: $(VENV)/installed-studio
	$(RUN) -m studio

# The tests open the page in a browser, where one is installed.
$(VENV)/installed-browser: $(VENV)/installed-studio requirements-browser.txt
	$(RUN) -m pip install --quiet -r requirements-browser.txt
	touch $@

test: $(VENV)/installed-metrics $(VENV)/installed-browser
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(VENV)/installed
	$(RUN) -m bench.speed

clean:
	rm -rf out .pytest_cache .ruff_cache
