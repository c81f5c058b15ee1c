"""A policy as it is deployed: to act with, on disk, as a card, as ONNX."""
