"""What models and runs cost and how they converge, and models under noise."""
