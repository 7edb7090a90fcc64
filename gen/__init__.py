"""The tool: from a configuration to Verilog, bitstreams and reports."""
