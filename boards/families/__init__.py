"""FPGA families, one file each: parts, cells, RAM, PLL and the open tools."""
