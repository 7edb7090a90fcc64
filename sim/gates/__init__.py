"""Gate level: models of FPGA cells, and netlists that run in place of the RTL."""
