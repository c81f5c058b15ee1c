"""Configuration, run time, schedules, checkpoints and run directories."""
