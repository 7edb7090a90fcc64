"""Devices without a board: the reference device in NumPy, and the simulated FPGA."""
