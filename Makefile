# The targets; `make help` lists them. CI runs `make test` and nothing else.
GO ?= go
# Linters are pinned in tools.mod, apart from the module's own dependencies.
LINT = $(GO) tool -modfile=tools.mod golangci-lint

.PHONY: help deps build test test-long lint example image dist bench bench-rust mutants vuln clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what tests need (as root on Debian), or name what is missing
	@./scripts/deps

build: ## bin/copse, static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/copse ./cmd/copse

test: deps ## everything CI runs: linters, architecture, tests under the race detector, corpus, generator
	@./scripts/test

test-long: deps ## the long forms: 1,000 kills, long fuzzing, the large random runs
	COPSE_LONG=1 $(GO) test -count=1 -timeout 120m ./...
	./scripts/fuzz 2m

lint: ## gofmt, go vet, golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt these files'; exit 1; }
	$(GO) vet ./...
	$(LINT) run ./...

example: deps ## run the sample SaaS on the whole chain, and attack it
	$(GO) run ./examples/payments/chain

image: ## the container image "copse", by buildah, podman or docker
	@./scripts/image

dist: ## the archives of a release, in dist/
	@./scripts/dist

bench: ## the figures of docs/performance.md, as ratios in one run
	$(GO) test -run '^$$' -bench . -benchtime 1s -timeout 60m ./bench/ ./internal/engine/ ./cmd/copse-lambda/

bench-rust: ## the engine against Cedar's own crate; needs cargo
	cd bench/rust && cargo build --release --locked
	$(GO) test -tags rust -run '^$$' -bench AgainstRust -benchtime 1s -timeout 30m ./bench/

mutants: ## break each isolation law on purpose and see its test fail
	@./scripts/mutants

vuln: ## known vulnerabilities in dependencies; needs the vulnerability database
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

clean: ## remove what the other targets made
	rm -rf bin
