"""Networks, their datasets and the training loop."""
