# The verbs. Everything else is in scripts/ and `cargo xtask`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

RUSTUP_TOOLCHAIN := $(shell scripts/toolchain)
ifneq ($(.SHELLSTATUS),0)
$(error no Rust toolchain to build with)
endif
ifneq ($(RUSTUP_TOOLCHAIN),)
export RUSTUP_TOOLCHAIN
endif
# The property tests draw the same cases every time, so that a change is judged by what it changes.
# `make test PROPTEST_RNG_SEED=$$RANDOM` draws others.
export PROPTEST_RNG_SEED ?= 1
# Python modules of the tests, where scripts/setup had to put them here.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run test test-all lint check bench size fuzz dist setup

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: ## build, and take a real file through the main job (FILE=path for one of yours)
	@scripts/run-tour $(FILE)

test: lint ## everything that needs no heavy part; lists first what it installs
	cargo test --workspace --locked
	scripts/test-python
	scripts/check-docs
	scripts/readme-tour
	python3 scripts/test_oci_image.py

test-all: setup ## the heavy part: every feature, long tests, fuzzing, the release
	scripts/test-all

lint: setup ## format, clippy with warnings denied, the house rules, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask clippy-files --check
	cargo xtask rooms
	cargo xtask secrets
	cargo xtask size
	scripts/deny

check: ## only what the compiler says
	cargo check --workspace --all-targets --locked

bench: setup ## the table of measurements, with ratios (needs wrk: apt-get install wrk)
	cargo build --release --locked -p lastkey
	cargo xtask bench

size: ## long functions and files, against the list that may only get shorter
	cargo xtask size

fuzz: ## each fuzz target for FUZZ_SECONDS (600)
	scripts/fuzz

dist: ## release binaries, OCI image, SBOM and checksums in dist/
	scripts/dist

setup: ## installs what the tests need beyond Rust; lists it first
	scripts/setup
