"""The parts of dev/few_labels.py: what is compared (`arms`), how it is scored (`scores`), and what is written (`report`)."""
