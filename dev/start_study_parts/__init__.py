"""The parts of dev/start_study.py: what is compared (`arms`), how it is trained (`training`), and what is written (`report`)."""
