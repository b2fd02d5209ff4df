"""Files on disk: atomic writes, artefacts with their manifests, and rules for what may be deleted."""
