"""Continue a run from a checkpoint as if it had never stopped, under the settings of its own config."""
