"""The parts of dev/start_study.py: what is compared (`arms`), how it trains (`training`), and what is written (`report`)."""
