"""What `tritloom generate` writes: Verilog, manifest, C header, diagram."""
