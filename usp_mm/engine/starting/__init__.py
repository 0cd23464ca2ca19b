"""From a config to a Runner that is ready: loading, building, `--fast`, and where the training starts."""
