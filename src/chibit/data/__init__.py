"""Trajectories, stores, samplers and corpora."""
