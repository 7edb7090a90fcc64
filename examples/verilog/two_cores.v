// Two accelerators of different configurations in one design.
//
//   tritloom generate --config a.json --name core_a -o build/a
//   tritloom generate --config b.json --name core_b --axi -o build/b
//
// Every module of a generated design begins with its name, so the two do not collide. core_a has
// the plain pin names and a reset that is high, core_b the names of AXI4-Stream and a reset that is
// low. The streams of both are brought out: bit 0 of valid and ready is core_a's, bit 1 core_b's.

module two_cores (
    input        clk,
    input        rst,
    input  [7:0] i_data,
    input        i_last,
    input  [1:0] i_valid,
    output [1:0] i_ready,
    output [7:0] a_data,
    output [7:0] b_data,
    output [1:0] o_last,
    output [1:0] o_valid,
    input  [1:0] o_ready
);
    core_a a (
        .clk(clk),
        .rst(rst),
        .i_data(i_data),
        .i_last(i_last),
        .i_valid(i_valid[0]),
        .i_ready(i_ready[0]),
        .o_data(a_data),
        .o_last(o_last[0]),
        .o_valid(o_valid[0]),
        .o_ready(o_ready[0]),
        .running(),
        .good(),
        .bad()
    );

    core_b b (
        .aclk(clk),
        .aresetn(~rst),
        .s_axis_tdata(i_data),
        .s_axis_tlast(i_last),
        .s_axis_tvalid(i_valid[1]),
        .s_axis_tready(i_ready[1]),
        .m_axis_tdata(b_data),
        .m_axis_tlast(o_last[1]),
        .m_axis_tvalid(o_valid[1]),
        .m_axis_tready(o_ready[1]),
        .running(),
        .good(),
        .bad()
    );
endmodule
