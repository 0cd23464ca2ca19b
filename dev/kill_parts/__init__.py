"""The parts of dev/kill.py."""
