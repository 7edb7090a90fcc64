"""The golden model, the simulated device, and what checks the hardware."""
