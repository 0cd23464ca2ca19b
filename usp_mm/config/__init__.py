"""What users set: finding configs by name, the values of `--cfg-options`, and options that several commands share."""
