"""cocotb benches of an emitted design, and what runs them."""
