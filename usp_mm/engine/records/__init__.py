"""What a run writes down: logged numbers, trackers, floating-point operations, facts on the run and its VAE."""
