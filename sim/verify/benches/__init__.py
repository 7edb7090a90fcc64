"""cocotb benches of an emitted accelerator; `tritloom.sim.verify.run.BENCHES` has their order."""
