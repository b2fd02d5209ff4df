"""What lies on disk: atomic files, artefacts with their manifests, and the rule of what may be deleted."""
