"""Measure what a frozen encoder has learnt: features, and linear, layer-wise and nearest-neighbour probes."""
