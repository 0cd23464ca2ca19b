"""Whole trainings made of this package's commands: `usp train FOLDER`, and what the quickstart shares with it."""
