// Models of the Lattice ECP5 cells that yosys leaves empty, in the modes that its synthesis uses.
// A cell in another mode instantiates a module that does not exist, so reading the netlist fails.

// Block RAM (Lattice FPGA-TN-02204): 512 rows of four bytes of nine bits, with two ports. Each port
// may have an output register, which obeys the clock and OCE, but not CE.
// * Widths 1, 2 and 4 do not use the ninth bit of a byte.
// * In widths 18 and 36 the low address bits are byte enables.
// * In width 36 port A only writes and port B only reads, and each uses the data pins of both.
// If one port reads an address that the other writes in the same cycle, the data are undefined. The
// model then returns the complement, so that the tests of a design that uses such data fail.
module DP16KD(
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
        DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
        DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
        DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
        DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18;
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG";
    parameter REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000";
    parameter CSDECODE_B = "0b000";
    parameter CLKAMUX = "CLKA";
    parameter CLKBMUX = "CLKB";
    parameter WRITEMODE_A = "NORMAL";
    parameter WRITEMODE_B = "NORMAL";
    parameter GSR = "ENABLED";
    parameter [319:0]
        INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0,
        INITVAL_04 = 0, INITVAL_05 = 0, INITVAL_06 = 0, INITVAL_07 = 0,
        INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0,
        INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0,
        INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0,
        INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0,
        INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0,
        INITVAL_1C = 0, INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F = 0,
        INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0,
        INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0,
        INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0,
        INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0,
        INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0,
        INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0, INITVAL_37 = 0,
        INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0,
        INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0;

    // A parameter holds sixteen half rows of 18 bits, each in 20 bits.
    localparam [64*320-1:0] INIT = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C,
        INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
        INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34,
        INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
        INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C,
        INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
        INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
        INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
        INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C,
        INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
        INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14,
        INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
        INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C,
        INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
        INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00
    };
    reg [35:0] memory [0:511];
    integer k;
    initial
        for (k = 0; k < 512; k = k + 1)
            memory[k] = {INIT[40*k + 20 +: 18], INIT[40*k +: 18]};

    function [5:0] offset(input integer width, input [13:0] address);
        case (width)
            1: offset = 9 * address[4:3] + address[2:0];
            2: offset = 9 * address[4:3] + 2 * address[2:1];
            4: offset = 9 * address[4:3] + 4 * address[2];
            9: offset = 9 * address[4:3];
            18: offset = 18 * address[4];
            default: offset = 0;
        endcase
    endfunction

    function [35:0] enabled(input integer width, input [13:0] address);
        case (width)
            18: enabled = {{9{address[1]}}, {9{address[0]}}};
            36: enabled = {{9{address[3]}}, {9{address[2]}}, {9{address[1]}}, {9{address[0]}}};
            default: enabled = (36'd1 << width) - 36'd1;
        endcase
    endfunction

    wire [35:0] data_a = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
        DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
        DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0
    };
    wire [35:0] data_b = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
        DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0
    };
    wire [13:0] address_a = {
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
    };
    wire [13:0] address_b = {
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
    };
    wire [8:0] row_a = address_a[13:5], row_b = address_b[13:5];
    wire [5:0] offset_a = offset(DATA_WIDTH_A, address_a), offset_b = offset(DATA_WIDTH_B, address_b);

    wire clock_a = CLKAMUX == "INV" ? ~CLKA : CLKA;
    wire clock_b = CLKBMUX == "INV" ? ~CLKB : CLKB;
    wire active_a = CEA && {CSA2, CSA1, CSA0} == 0;
    wire active_b = CEB && {CSB2, CSB1, CSB0} == 0;
    wire write_a = active_a && WEA && !(RESETMODE == "SYNC" && RSTA);
    wire write_b = active_b && WEB && !(RESETMODE == "SYNC" && RSTB) && DATA_WIDTH_B != 36;
    wire [35:0] mask_a = write_a ? enabled(DATA_WIDTH_A, address_a) << offset_a : 36'd0;
    wire [35:0] mask_b = write_b ? enabled(DATA_WIDTH_B, address_b) << offset_b : 36'd0;
    wire [35:0] new_a = data_a << offset_a, new_b = data_b << offset_b;

    always @(posedge clock_a)
        for (k = 0; k < 36; k = k + 1)
            if (mask_a[k])
                memory[row_a][k] <= new_a[k];
    always @(posedge clock_b)
        for (k = 0; k < 36; k = k + 1)
            if (mask_b[k])
                memory[row_b][k] <= new_b[k];

    // Ports that use opposite clock edges do not collide; the model treats them as if they did,
    // because no design here uses both edges.
    wire same_row = row_a == row_b;
    wire [35:0] old_a = memory[row_a] ^ (same_row ? mask_b : 36'd0);
    wire [35:0] old_b = memory[row_b] ^ (same_row ? mask_a : 36'd0);
    wire [35:0] through_a = WRITEMODE_A == "WRITETHROUGH" ? (old_a & ~mask_a) | (new_a & mask_a) : old_a;
    wire [35:0] through_b = WRITEMODE_B == "WRITETHROUGH" ? (old_b & ~mask_b) | (new_b & mask_b) : old_b;
    wire read_a = active_a && !(WEA && WRITEMODE_A == "NORMAL") && DATA_WIDTH_A != 36;
    wire read_b = active_b && !(WEB && WRITEMODE_B == "NORMAL");
    wire [35:0] shifted_a = through_a >> offset_a, shifted_b = through_b >> offset_b;
    wire [35:0] next_a = shifted_a & ((36'd1 << DATA_WIDTH_A) - 36'd1);
    wire [35:0] next_b = shifted_b & ((37'd1 << DATA_WIDTH_B) - 37'd1);

    reg [17:0] q_a = 0;
    reg [35:0] q_b = 0;
    reg [17:0] late_a = 0;
    reg [35:0] late_b = 0;
    generate
        if (RESETMODE == "ASYNC") begin
            always @(posedge clock_a, posedge RSTA)
                if (RSTA) q_a <= 0;
                else if (read_a) q_a <= next_a[17:0];
            always @(posedge clock_b, posedge RSTB)
                if (RSTB) q_b <= 0;
                else if (read_b) q_b <= next_b;
        end else begin
            always @(posedge clock_a)
                if (RSTA) q_a <= 0;
                else if (read_a) q_a <= next_a[17:0];
            always @(posedge clock_b)
                if (RSTB) q_b <= 0;
                else if (read_b) q_b <= next_b;
        end
        if (RESETMODE == "ASYNC") begin
            always @(posedge clock_a, posedge RSTA)
                if (RSTA) late_a <= 0;
                else if (OCEA) late_a <= q_a;
            always @(posedge clock_b, posedge RSTB)
                if (RSTB) late_b <= 0;
                else if (OCEB) late_b <= q_b;
        end else begin
            always @(posedge clock_a)
                if (OCEA) late_a <= RSTA ? 18'd0 : q_a;
            always @(posedge clock_b)
                if (OCEB) late_b <= RSTB ? 36'd0 : q_b;
        end
        if (DATA_WIDTH_B == 36 && REGMODE_A != REGMODE_B)
            DP16KD_with_half_an_output_register stop();
        if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000")
            DP16KD_with_chip_select stop();
    endgenerate

    wire [17:0] port_a = REGMODE_A == "OUTREG" ? late_a : q_a;
    wire [35:0] port_b = REGMODE_B == "OUTREG" ? late_b : q_b;
    wire [17:0] out_a = DATA_WIDTH_B == 36 ? port_b[17:0] : port_a;
    wire [17:0] out_b = DATA_WIDTH_B == 36 ? port_b[35:18] : port_b[17:0];
    assign {
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
        DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0
    } = out_a;
    assign {
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
        DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
    } = out_b;
endmodule

// Multiplier (Lattice FPGA-TN-02205), without registers or with the one behind the product.
module MULT18X18D #(
    parameter REG_OUTPUT_CLK = "NONE"
) (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK0, CE0, RST0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24,
        P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12,
        P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0,
    output SIGNEDP
);
    wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    wire signed [35:0] wide_a = {{18{SIGNEDA & A17}}, a};
    wire signed [35:0] wide_b = {{18{SIGNEDB & B17}}, b};
    wire signed [35:0] product = wide_a * wide_b;
    reg [35:0] late = 0;
    always @(posedge CLK0)
        if (CE0) late <= RST0 ? 36'd0 : product;
    generate
        if (REG_OUTPUT_CLK != "NONE" && REG_OUTPUT_CLK != "CLK0")
            MULT18X18D_with_another_clock stop();
    endgenerate
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24,
        P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12,
        P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = REG_OUTPUT_CLK == "CLK0" ? late : product;
    assign SIGNEDP = SIGNEDA | SIGNEDB;
endmodule
