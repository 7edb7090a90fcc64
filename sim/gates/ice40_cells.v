// Models of the Lattice iCE40 cells whose model of yosys cannot be made a netlist.

// SPRAM of an UltraPlus (Lattice FPGA-TN-02022): 16,384 words of 16 bits behind one port, in the mode
// that our design uses: powered, and never asleep or in standby. Without CHIPSELECT it holds its
// output. After a write the output is undefined; the model then returns the complement of the word
// before it, so that the tests of a design that uses such data fail.
module SB_SPRAM256KA(
    input [13:0] ADDRESS,
    input [15:0] DATAIN,
    input [3:0] MASKWREN,
    input WREN, CHIPSELECT, CLOCK, STANDBY, SLEEP, POWEROFF,
    output reg [15:0] DATAOUT
);
    reg [15:0] words [0:16383];
    wire on = !STANDBY && !SLEEP && POWEROFF;
    wire [15:0] mask = {{4{MASKWREN[3]}}, {4{MASKWREN[2]}}, {4{MASKWREN[1]}}, {4{MASKWREN[0]}}};

    always @(posedge CLOCK)
        if (on && CHIPSELECT) begin
            if (WREN) begin
                words[ADDRESS] <= (words[ADDRESS] & ~mask) | (DATAIN & mask);
                DATAOUT <= ~DATAOUT;
            end else
                DATAOUT <= words[ADDRESS];
        end
endmodule
