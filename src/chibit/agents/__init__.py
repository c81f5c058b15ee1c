"""Agents: what learns; each yields a policy."""
