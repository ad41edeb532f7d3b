# Everything a person or CI runs. `make tools` says what it installs; the other
# targets call it first, so that a fresh Debian 12 with a Rust toolchain needs
# nothing else.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test quick bench faults mutants fuzz fmt lint deny tools

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: ## the whole path: embedded server, real CAs, live MQTT devices cut and let in again
	@tests/bin/tools build openssl mosquitto
	@tests/bin/demo

test: ## format, lints, contract, tests, doc tests, documentation
	@tests/bin/tools all
	@tests/bin/test

quick: ## format, lints and unit tests of the rooms that changed, and what depends on them
	@tests/bin/tools build nats
	@tests/bin/quick

bench: ## first readings next to pgbench and the floors of this machine
	@tests/bin/tools build openssl postgres nats mosquitto
	@tests/bin/bench

faults: ## seeded faults against real servers, callers and devices; SEED=, LENGTH= (seconds), FAULTS=
	@tests/bin/tools build openssl postgres nats mosquitto
	@tests/bin/faults

mutants: ## known bugs, put back one at a time into a copy of the tree: each must be found; MUTANTS=, LIMIT= (seconds)
	@tests/bin/tools build openssl postgres nats mosquitto
	@tests/bin/mutants

fuzz: ## a million hostile inputs for each reader; INPUTS= and SEED= to change that
	@tests/bin/tools build
	@tests/bin/fuzz

fmt: ## format the Rust code
	cargo fmt --all

lint: ## clippy and buf, warnings are errors
	@tests/bin/tools build buf
	@tests/bin/test lint

deny: ## licences, sources and banned crates; advisories need a database from outside: for the operator
	@tests/bin/tools build deny
	@"$${CARGO_TARGET_DIR:-target}/tools/bin/cargo-deny" --locked --config deploy/deny.toml check bans licenses sources
	@echo 'Not checked: advisories. With the RustSec database in reach: cargo deny --config deploy/deny.toml check advisories'

tools: ## install what is missing
	@tests/bin/tools all
