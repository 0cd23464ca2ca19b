"""Write checkpoints that are whole whenever the run is killed, and find the newest and the best of them."""
