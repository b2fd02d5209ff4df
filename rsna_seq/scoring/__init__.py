"""Metrics, baselines and intervals: how well probabilities fit the labels."""
