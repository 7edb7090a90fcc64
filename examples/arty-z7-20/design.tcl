# Block design for a Digilent Arty Z7-20: the processor, a Tritloom core, its weights in the DDR.
#
#   tritloom generate --config examples/arty-z7-20/config.json --axi -o build/arty
#   cd build/arty
#   vivado -mode batch -source ../../examples/arty-z7-20/design.tcl
#
# Packets go through an AXI4-Stream FIFO, whose registers are at FIFO_BASE. The core reads and writes
# the DDR through the port HP0, from WEIGHTS_BASE on; the configuration has this as `base`. Linux
# must leave that memory alone (docs/howto/arty-z7.md).
#
# Needs Digilent's board files, which have the settings of the DDR.

set PART xc7z020clg400-1
set BOARD_PART digilentinc.com:arty-z7-20:part0:*
set CLOCK_MHZ 100
set FIFO_BASE 0x43C00000
set FIFO_WORDS 2048
set PROJECT tritloom_arty

set boards [get_board_parts -quiet $BOARD_PART]
if {[llength $boards] == 0} {
    error "no board files of the Arty Z7-20; install Digilent's, and start Vivado again"
}
if {![file exists tritloom.v]} {
    error "tritloom.v is not here; run tritloom generate --axi, and Vivado in its folder"
}

create_project -force $PROJECT $PROJECT -part $PART
set_property board_part [lindex $boards end] [current_project]
add_files -norecurse tritloom.v
update_compile_order -fileset sources_1
create_bd_design system

# The processor: a master for registers, a port to the DDR for the weights, a clock.
create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps
apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 -config {
    make_external "FIXED_IO, DDR" apply_board_preset "1" Master "Disable" Slave "Disable"
} [get_bd_cells ps]
set_property -dict [list \
    CONFIG.PCW_USE_M_AXI_GP0 {1} \
    CONFIG.PCW_USE_S_AXI_HP0 {1} \
    CONFIG.PCW_S_AXI_HP0_DATA_WIDTH {64} \
    CONFIG.PCW_EN_CLK0_PORT {1} \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $CLOCK_MHZ \
] [get_bd_cells ps]

create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset

# The core: packets at s_axis and m_axis, the weights at m_axi.
create_bd_cell -type module -reference tritloom core

# Packets of 32-bit words. Both queues give a packet on only when it is whole.
create_bd_cell -type ip -vlnv xilinx.com:ip:axi_fifo_mm_s fifo
set_property -dict [list \
    CONFIG.C_USE_TX_CTRL {0} \
    CONFIG.C_USE_TX_CUT_THROUGH {0} \
    CONFIG.C_USE_RX_CUT_THROUGH {false} \
    CONFIG.C_HAS_AXIS_TKEEP {true} \
    CONFIG.C_TX_FIFO_DEPTH $FIFO_WORDS \
    CONFIG.C_RX_FIFO_DEPTH $FIFO_WORDS \
] [get_bd_cells fifo]

# SmartConnect makes AXI3 of the core's AXI4. A burst has at most 16 beats, so none is divided.
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect registers
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect weights
foreach name {registers weights} {
    set_property -dict [list CONFIG.NUM_SI {1} CONFIG.NUM_MI {1}] [get_bd_cells $name]
}

proc join_streams {from to} {
    connect_bd_intf_net [get_bd_intf_pins $from] [get_bd_intf_pins $to]
}
join_streams ps/M_AXI_GP0 registers/S00_AXI
join_streams registers/M00_AXI fifo/S_AXI
join_streams core/m_axi weights/S00_AXI
join_streams weights/M00_AXI ps/S_AXI_HP0
join_streams fifo/AXI_STR_TXD core/s_axis
join_streams core/m_axis fifo/AXI_STR_RXD

proc join_pins {from args} {
    foreach to $args {
        connect_bd_net [get_bd_pins $from] [get_bd_pins $to]
    }
}
join_pins ps/FCLK_CLK0 ps/M_AXI_GP0_ACLK ps/S_AXI_HP0_ACLK reset/slowest_sync_clk core/aclk \
    fifo/s_axi_aclk registers/aclk weights/aclk
join_pins ps/FCLK_RESET0_N reset/ext_reset_in
join_pins reset/peripheral_aresetn core/aresetn fifo/s_axi_aresetn registers/aresetn \
    weights/aresetn

assign_bd_address -offset $FIFO_BASE -range 64K -target_address_space [get_bd_addr_spaces ps/Data] \
    [get_bd_addr_segs fifo/S_AXI/Mem0]
assign_bd_address -offset 0x00000000 -range 512M \
    -target_address_space [get_bd_addr_spaces core/m_axi] \
    [get_bd_addr_segs ps/S_AXI_HP0/HP0_DDR_LOWOCM]

validate_bd_design
save_bd_design
make_wrapper -files [get_files system.bd] -top -import
set_property top system_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
if {[get_property SLACK [get_timing_paths -quiet]] < 0} {
    puts "timing is missed; lower CLOCK_MHZ, and clock_hz in the configuration"
}
write_hw_platform -fixed -include_bit -force $PROJECT.xsa
