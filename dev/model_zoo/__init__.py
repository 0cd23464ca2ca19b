"""What tools/make_model_zoo.py writes: the map of the paper's tables to configs, and the tables of results and configs."""
