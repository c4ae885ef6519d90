# Holdfast. The two commands are "make run" and "make test"; "make help" lists all.

ARGS    ?=
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO      := CGO_ENABLED=0 go
BIN     := bin
FUZZ    ?= 60s
CUTS    ?= 10000
NODE    := testdata/node

.DEFAULT_GOAL := help
.PHONY: help build run test prove peers conform lint unit house fuzz outage needs clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## the programs, into bin/
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ ./cmd/holdfast ./cmd/hubsim ./cmd/bench

run: build ## the story: gateway, cloud and devices on this machine, an outage with a kill, the account (ARGS="--quick --once")
	$(BIN)/bench outage --bin $(BIN) $(ARGS)

test: needs lint unit house fuzz outage ## everything that is checked before a change lands
	@echo "make test: all passed"

prove: build ## the long proofs: outages with kills and silence; CUTS power cuts in each of three models; cuts under a real file system
	$(BIN)/bench outage --bin $(BIN) --prove --once $(ARGS)
	$(BIN)/bench outage --bin $(BIN) --silent --outage 40s --duration 80s --drain-kills 1 --once
	$(BIN)/bench ack --bin $(BIN)
	HOLDFAST_TEST_CUTS=$(CUTS) go test -count=1 -v -timeout 3h -run '^TestPowerCuts|^TestOneBit' ./storage
	@scripts/need mkfs.ext4 e2fsprogs "the disk whose power is cut has a file system"
	$(BIN)/bench powercut

peers: build ## install the brokers that Holdfast is measured against, and measure
	@scripts/peers
	$(BIN)/bench peers --bin $(BIN) $(ARGS)

conform: ## what MQTT 3.1.1 and 5 ask of a server, as a table: Holdfast beside plain mochi and mosquitto
	@PATH=$$PATH:/usr/sbin scripts/need mosquitto mosquitto "a column of the table"
	go test -count=1 -v -run '^TestTable$$' ./hub/mqtt/conform

lint:
	@echo "== gofmt, vet, staticcheck"
	@test -z "$$(gofmt -l cmd hal hub storage | tee /dev/stderr)" || { echo "run gofmt -w on the files above"; exit 1; }
	go vet -tags house ./...
	go tool staticcheck -tags house ./...

unit: ## all Go tests, with the race detector
	@echo "== unit tests"
	go test -race ./...

house: build ## the whole gateway with real clients: Microsoft's Node SDK, mosquitto_pub and _sub
	@echo "== the house: real clients"
	go test -count=1 -tags house -run '^TestHouse' ./cmd/holdfast ./hub/iothub/hubtest

fuzz: ## every byte that a client may send, for FUZZ (60s)
	@echo "== fuzzing the packet path for $(FUZZ)"
	go test -run '^$$' -fuzz '^FuzzPackets$$' -fuzztime $(FUZZ) ./hub/mqtt

outage: build ## the short form of the proof
	@echo "== an outage with a kill in it"
	$(BIN)/bench outage --bin $(BIN) --quick --once
	$(BIN)/bench ack --bin $(BIN) --for 3s

needs:
	@scripts/need gcc gcc "the race detector needs a C compiler"
	@scripts/need node nodejs "Microsoft's device SDK, a client of the tests, runs on it"
	@scripts/need npm npm "it fetches that SDK"
	@scripts/need mosquitto_pub mosquitto-clients "ordinary MQTT clients of the tests"
	@if [ ! -d $(NODE)/node_modules ] || [ $(NODE)/package-lock.json -nt $(NODE)/node_modules ]; then \
		echo "fetching Microsoft's Node SDK with npm ci (tests only)"; \
		cd $(NODE) && npm ci --no-audit --no-fund --loglevel=error && touch node_modules; fi

clean: ## what was built
	rm -rf $(BIN)
