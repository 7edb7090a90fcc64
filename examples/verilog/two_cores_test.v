// Asks both cores of two_cores.v who they are, and prints their responses in hexadecimal.
//
//   iverilog -g2005 -o test build/a/core_a.v build/b/core_b.v two_cores.v two_cores_test.v && vvp test
//
// A command is a header of 16 bytes, its payload and the CRC-32 of both, all little end first.

module two_cores_test;
    localparam [7:0] RESET = 1, IDENTIFY = 2;
    localparam [31:0] SESSION = 32'h1234_5678;
    localparam HEADER_BYTES = 16, CRC_BYTES = 4;
    localparam IDENTITY_BYTES = 24; // magic, version, size of the JSON, two digests

    reg clk = 0, rst = 1;
    reg [7:0] i_data = 0;
    reg i_last = 0;
    reg [1:0] i_valid = 0;
    wire [1:0] i_ready, o_last, o_valid;
    wire [7:0] a_data, b_data;

    two_cores dut (
        .clk(clk),
        .rst(rst),
        .i_data(i_data),
        .i_last(i_last),
        .i_valid(i_valid),
        .i_ready(i_ready),
        .a_data(a_data),
        .b_data(b_data),
        .o_last(o_last),
        .o_valid(o_valid),
        .o_ready(2'b11)
    );

    always #5 clk = ~clk;

    // One step of the CRC-32 of IEEE 802.3, low bit first.
    function [31:0] crc_step(input [31:0] crc, input [7:0] data);
        integer n;
        begin
            crc_step = crc ^ {24'd0, data};
            for (n = 0; n < 8; n = n + 1)
                crc_step = crc_step[0] ? (crc_step >> 1) ^ 32'hEDB8_8320 : crc_step >> 1;
        end
    endfunction

    // Offers one byte to a core until it is taken. Inputs change at the falling edge.
    task send_byte(input core, input [7:0] data, input last);
        reg taken;
        begin
            i_data = data;
            i_last = last;
            i_valid[core] = 1;
            taken = 0;
            while (!taken) begin
                #4 taken = i_ready[core]; // just before the rising edge
                @(negedge clk);
            end
            i_valid[core] = 0;
        end
    endtask

    // Sends a command without payload.
    task send(input core, input [7:0] opcode, input [15:0] seq, input [15:0] count);
        reg [127:0] header;
        reg [31:0] crc;
        reg [15:0] length;
        integer n;
        begin
            length = HEADER_BYTES + CRC_BYTES;
            header = {32'd0, count, 8'd0, opcode, SESSION, seq, length};
            crc = 32'hFFFF_FFFF;
            for (n = 0; n < HEADER_BYTES; n = n + 1) begin
                send_byte(core, header[8*n+:8], 1'b0);
                crc = crc_step(crc, header[8*n+:8]);
            end
            crc = ~crc;
            for (n = 0; n < CRC_BYTES; n = n + 1)
                send_byte(core, crc[8*n+:8], n == CRC_BYTES - 1);
        end
    endtask

    // Prints a core's response on one line.
    task receive(input core);
        reg last;
        begin
            $write("core_%s: ", core ? "b" : "a");
            last = 0;
            while (!last) begin
                #4; // just before the rising edge
                if (o_valid[core]) begin
                    $write("%02x", core ? b_data : a_data);
                    last = o_last[core];
                end
                @(negedge clk);
            end
            $write("\n");
        end
    endtask

    integer core;
    initial begin
        @(negedge clk) rst = 0;
        for (core = 0; core < 2; core = core + 1) begin
            send(core[0], RESET, 16'd0, 16'd0);
            receive(core[0]);
            send(core[0], IDENTIFY, 16'd1, IDENTITY_BYTES);
            receive(core[0]);
        end
        $finish;
    end

    initial #2_000_000 begin
        $write("no response in time\n");
        $finish;
    end
endmodule
