"""Parallel work on this machine, in spawned processes."""
