"""Netlist passes: what is changed between synthesis and placement, and after it."""
