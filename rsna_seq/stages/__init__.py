"""The corridor: one module a stage."""
