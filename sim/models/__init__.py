"""Models of chips outside the FPGA, which a simulation puts at an accelerator's pads."""
