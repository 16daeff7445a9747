# The commands of the house. `make test` is what CI runs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
TARGET_DIR = $(abspath $(or $(CARGO_TARGET_DIR),target))
COMMIT = $(shell git describe --always --dirty --abbrev=12 2>/dev/null)

.PHONY: build test lint fmt test-clients test-cluster test-suites test-differential test-foreign-client test-fencing simulate model mutants bench deny docs

# The release binary, which knows its commit.
build:
	SLUICE_COMMIT='$(COMMIT)' $(CARGO) build --release --locked --bin sluice

# Everything: format, lints, all crates' tests, the release binary against other people's clients.
# Installs what that needs. The last line is the count over all suites.
test:
	.ci/test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fmt:
	$(CARGO) fmt --all

# The release binary against other people's clients, alone.
test-clients: build
	SLUICE_BIN='$(TARGET_DIR)/release/sluice' loadtest/clients/run

# A cluster's failures at their full length: a writer that stands still for 30 s, etcd down for a minute.
test-cluster: build
	SLUICE_CLUSTER_LONG=1 SLUICE_BIN='$(TARGET_DIR)/release/sluice' loadtest/clients/run cluster

# Other projects' own suites against the release binary; each test is checked against a list.
test-suites: build
	SLUICE_BIN='$(TARGET_DIR)/release/sluice' loadtest/suites/run $(SUITES)

# The load harness with librdkafka's clients, which is built from its sources for that.
test-foreign-client:
	$(CARGO) clippy -p sluice-loadtest --features librdkafka --all-targets --locked -- -D warnings
	$(CARGO) test -p sluice --features librdkafka --test foreign_client --locked

# The same requests to Apache Kafka and to Sluice, the answers compared (docs/kafka-compatibility.md).
test-differential: build
	SLUICE_BIN='$(TARGET_DIR)/release/sluice' loadtest/differential/run

# The storage engine under faults of all kinds, a seed a run (docs/simulation.md). FROM is the first.
SEEDS ?= 300
FROM ?= 1
simulate:
	$(CARGO) build --release --locked -p sluice-sim
	'$(TARGET_DIR)/release/sluice-sim' --seeds '$(SEEDS)' --from '$(FROM)'

# How volumes change hands, every order of steps; larger than `cargo test -p sluice-ownership` explores: minutes, gigabytes.
model:
	$(CARGO) run --release --locked -p sluice-ownership

# Breaks the code on purpose, in one place at a time, and shows that the simulation finds it.
mutants:
	loadtest/sim/mutants/run

# Two owners of one volume on real SCSI and NVMe reservations, in a virtual machine that it fetches.
test-fencing:
	loadtest/fencing/run

bench:
	$(CARGO) bench -p sluice-wire --locked

# Bans, licences and sources of dependencies. Building cargo-deny, the first time, takes minutes.
deny:
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked --version $(CARGO_DENY_VERSION)
	$(CARGO) deny check bans licenses sources

# What is made from the code: the reference of the configuration, and the APIs served.
docs:
	$(CARGO) run --quiet --locked -- config reference > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(CARGO) run --quiet --locked -- apis > docs/kafka-apis.md.new
	mv docs/kafka-apis.md.new docs/kafka-apis.md
