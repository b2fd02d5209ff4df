"""Synthetic head CT studies."""
