"""The sequence family: Decision Transformer, ChibiT and every other initializer."""
