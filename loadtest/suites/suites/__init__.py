"""Runs other projects' own test suites against a server of ours, and scores them by lists."""
