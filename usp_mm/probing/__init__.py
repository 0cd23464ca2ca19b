"""What a frozen encoder knows: its features, and linear, layer-wise and nearest-neighbour probes."""
