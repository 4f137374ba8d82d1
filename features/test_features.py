"""Runs every scenario."""

from pytest_bdd import scenarios

scenarios(".")
