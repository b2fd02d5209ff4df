"""Where work runs: on this machine, in spawned processes."""
