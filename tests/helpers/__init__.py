"""What the tests make and launch: small worlds of data, configs, checkpoints and servers, one module each."""
