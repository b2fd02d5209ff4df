"""``predict``: unseen studies and a finished run."""
