"""The loops: pre-training and offline training."""
