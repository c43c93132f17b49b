"""Formats and rules of a Juju controller's backup and restore. Nothing here imports Ansible."""
