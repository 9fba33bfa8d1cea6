# Every target does its own set-up; `make` alone lists them.
GO ?= go
# What `ublk-loop version` prints. The checkout may belong to another user: git and Go's stamp of the commit then refuse.
VERSION ?= $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
# Where "make install" puts things, and where programs are built.
DESTDIR ?=
PREFIX ?= /usr/local
BIN ?= bin

.PHONY: help build build-snapshotter build-csi install install-snapshotter packages demo demo-cow demo-container demo-sandboxes test test-full soak test-unit mutants bench bench-check bench-many bench-cipher lint vet fuzz abi clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/ublk-loop: one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ublk-loop ./cmd/ublk-loop

build-snapshotter: ## bin/ublk-loop-snapshotter: containerd's part, with containerd's modules
	CGO_ENABLED=0 $(GO) -C cmd/ublk-loop-snapshotter build -trimpath -buildvcs=false -ldflags '-s -w' -o $(abspath $(BIN))/ublk-loop-snapshotter .

install: build ## install program, manual, units and completions (DESTDIR=, PREFIX=/usr/local)
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' BIN='$(BIN)' scripts/install.sh main

install-snapshotter: build-snapshotter ## install the program and the unit for containerd
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' BIN='$(BIN)' scripts/install.sh snapshotter

packages: ## bin/packages: .deb, .rpm, .apk, an archive, their checksums and modules (ARCHES='amd64 arm64', MAINTAINER=)
	ARCHES='$(ARCHES)' MAINTAINER='$(MAINTAINER)' scripts/packages.sh

build-csi: ## bin/ublk-loop-csi: the driver of volumes for Kubernetes
	CGO_ENABLED=0 $(GO) -C cmd/ublk-loop-csi build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(abspath $(BIN))/ublk-loop-csi .

demo: build ## attach a real image, mount it, write and verify, detach; on this machine's ublk or in a VM
	scripts/demo.sh

demo-cow: build ## 20 sandboxes with a disk each over one image, with time and sizes; on this machine's ublk or in a VM
	scripts/demo-cow.sh

demo-container: build ## containers with their root from one image; on this machine's ublk or in a VM
	scripts/demo-container.sh

demo-sandboxes: build ## N=200 containers with a disk each over one image: time, memory and disk of each (RUNTIME=runc, KERNEL=uml, CLOCK=)
	scripts/demo-sandboxes.sh '$(or $(N),200)' '$(or $(RUNTIME),runc)' $(KERNEL)

test: ## all tests, each on the kernel where it says most; minutes
	scripts/test.sh

test-full: ## every test on every kernel, and with the race detector; hours (TESTFLAGS='--kernel 6.12 --resume')
	scripts/test.sh --tier full $(TESTFLAGS)

soak: ## kill everything 100 times in each way, a thousand devices, minutes without memory; hours
	scripts/test.sh --tier soak $(TESTFLAGS)

test-unit: ## the tests that need no ublk
	scripts/test.sh --unit

mutants: ## put N=200 small faults into the source, one at a time, and list those that no test notices (SEED=, JOBS=, TIER=)
	$(GO) run ./scripts/mutants $(if $(N),-n $(N)) $(if $(SEED),-seed $(SEED)) $(if $(JOBS),-jobs $(JOBS)) $(if $(TIER),-tier $(TIER))

bench: ## measure beside the kernel's loop driver (FULL=1, PEERS=1; scripts/bench.sh --help)
	scripts/bench.sh

bench-check: ## fail where we have become slower than scripts/bench/ratios.json
	scripts/bench.sh --check

bench-many: build ## many devices in one server beside a server each
	scripts/bench-many.sh

bench-cipher: ## GB/s of the cipher beside openssl's, one core
	$(GO) test -run '^$$' -bench OpenSSL -benchtime 1x ./transfer/xts

lint: ## linters, formatting, shell scripts
	scripts/lint.sh

vet: ## go vet for amd64 and arm64
	GOARCH=amd64 $(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...

fuzz: ## fuzz each parser for FUZZTIME
	scripts/fuzz.sh $(FUZZTIME)

abi: ## regenerate the golden files of the kernel's structures
	scripts/gen-abi.sh

clean: ## remove what was built here; the cache of kernels and tools stays
	rm -rf bin
