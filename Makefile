# Everything a newcomer types. `make drill` and `make test` set up all they need.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

SHAPE ?= single-2.9
DOCUMENTS ?= 20000
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))

.PHONY: help setup lab lab-down backup restore drill test lint unit hosts molecule torture bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: $(VENV)/.ready ## virtualenv, Debian packages, lab image

$(VENV)/.ready: requirements.txt requirements-dev.txt lab/packages.txt lab/setup.sh
	lab/setup.sh $(VENV)
	touch $@

lab: setup ## start a lab: SHAPE=single-2.9 | single-3.6 | ha-2.9, DOCUMENTS=20000
	$(PYTHON) -m lab up $(SHAPE) --documents $(DOCUMENTS)

lab-down: setup ## remove the lab's hosts and network
	$(PYTHON) -m lab down

backup: setup ## back up every controller of the inventory
	ansible-playbook playbooks/backup.yml

restore: setup ## restore ARCHIVE=… onto the host of group juju_restore_target
	ansible-playbook playbooks/restore.yml -e archive=$(or $(ARCHIVE),$(error name the archive: make restore ARCHIVE=backups/juju-backup-….tar.gz))

drill: setup ## lose a lab controller and bring it back at another address
	$(PYTHON) -m lab.drill --shape $(SHAPE) --documents $(DOCUMENTS)

test: lint unit hosts molecule ## all tests

lint: setup ## ruff, mypy, shellcheck, yamllint, ansible-lint
	ruff check
	ruff format --check
	mypy
	shellcheck lab/setup.sh .ci/run $(wildcard lab/overlay/usr/local/*/*)
	yamllint --strict .
	ansible-lint --offline --profile production

unit: setup ## unit, property, contract tests, and those on a real mongod
	pytest -n 4 --dist loadfile --cov --cov-branch

hosts: setup ## tests that need the lab's hosts, one after the other
	pytest tests/hosts

torture: setup ## the tests that try many times, at their full number (hours)
	JUJU_DR_TORTURE=full pytest -m torture tests

bench: setup ## figures against stated baselines, into bench/
	$(PYTHON) -m bench

molecule: setup $(addprefix molecule-,$(SCENARIOS)) ## the drills, one after the other

molecule-%:
	molecule test --scenario-name $*

clean: ## remove what setup and tests made (not the backups)
	-test -x $(PYTHON) && $(PYTHON) -m lab down
	rm -rf $(VENV) .lab .ansible .pytest_cache .mypy_cache .ruff_cache .hypothesis
