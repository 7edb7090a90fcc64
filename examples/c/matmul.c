/* A ternary matrix product on a Tritloom device behind a serial port, in C alone.
 *
 *   tritloom generate --board icebreaker -o build             writes build/tritloom.h
 *   tritloom pack weights.npz --board icebreaker --name layer -o build
 *   cc -std=c99 -Wall -I build examples/c/matmul.c -o matmul
 *   stty -F /dev/ttyUSB1 3000000                              the baud rate of the board
 *   ./matmul /dev/ttyUSB1 build/layer.bin activations.bin
 *
 * activations.bin holds LAYER_IN_FEATURES signed bytes for each token. The program prints
 * LAYER_OUT_FEATURES sums a token, one a line. It keeps one command unanswered at a time, which is
 * the simplest driver; a faster one keeps up to TRITLOOM_WINDOW. A command whose response does not
 * come is sent again with the same seq: the device executes it only once.
 *
 * Tokens take the banks of the device in turn. With two banks, a token is loaded and its RUN is
 * accepted before the results of the token before it are read, so the device computes meanwhile.
 */

#define _DEFAULT_SOURCE /* cfmakeraw */
#define _DARWIN_C_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "layer.h"
#include "tritloom.h"

#ifdef TRITLOOM_PORT
#include TRITLOOM_PORT /* another way to the device: port_open, port_send, port_receive, port_close */
#else
#include "serial_port.h"
#endif

#define TRIES 5
#ifndef TIMEOUT_MS
#define TIMEOUT_MS 2000
#endif
#define LAYER_INDEX 0
#define BASE_WORD 0
#define TOKEN 0

static uint32_t session, seq;
static struct tritloom_response response; /* its payload is in `received` */
static uint8_t received[TRITLOOM_PACKET_BYTES];

static void fail(const char *message)
{
    fprintf(stderr, "matmul: %s\n", message);
    exit(1);
}

/* Receive one whole response; 0 if none comes in time. */
static int receive(void)
{
    size_t bytes;
    while ((bytes = port_receive(received, sizeof received, TIMEOUT_MS)) != 0) {
        if (tritloom_parse(&response, received, bytes))
            return 1;
    }
    return 0;
}

/* A command without payload. */
static struct tritloom_command plain(uint32_t opcode, uint32_t index, uint32_t count,
                                     uint32_t address)
{
    struct tritloom_command command = {0};
    command.opcode = opcode;
    command.index = index;
    command.count = count;
    command.address = address;
    return command;
}

/* Execute a command; its response is then in `response`. */
static void execute(struct tritloom_command command)
{
    uint8_t packet[TRITLOOM_PACKET_BYTES];
    size_t length;
    int attempt;
    if (command.opcode != TRITLOOM_OP_RESET) {
        command.acknowledged = seq; /* every earlier response has arrived */
        seq = (seq + 1) & 0xFFFF;
    }
    command.seq = seq;
    command.session = session;
    length = tritloom_request(packet, &command);
    if (length == 0)
        fail("a payload is too long");
    for (attempt = 0; attempt < TRIES; attempt++) {
        port_send(packet, length);
        while (receive()) {
            if (response.session != session || response.seq != seq
                || response.opcode != command.opcode)
                continue; /* a late response to an older command */
            if (response.status == TRITLOOM_STATUS_MEMORY_ERROR)
                fail("the weight memory could not read a word; run this again");
            if (response.status != TRITLOOM_STATUS_OK) {
                fprintf(stderr, "matmul: opcode %u: status %u\n", (unsigned)command.opcode,
                        (unsigned)response.status);
                exit(1);
            }
            return;
        }
    }
    fail("no response; check the port and its settings");
}

static void start_session(void)
{
    static const uint8_t layout[] = TRITLOOM_LAYOUT_DIGEST;
    uint32_t number = (uint32_t)time(NULL) * 2654435761u ^ (uint32_t)getpid();
    do { /* with another number if the device's session has this one already */
        session = number++ & 0xFFFFFFFFu >> (32 - TRITLOOM_REQUEST_SESSION_BITS);
        seq = TRITLOOM_FIRST_SEQ - 1;
        execute(plain(TRITLOOM_OP_RESET, 0, 0, 0));
        if (response.value != TRITLOOM_PROTOCOL_VERSION)
            fail("the device speaks another version of the protocol; build its bitstream again");
    } while (session == 0 || response.expected != TRITLOOM_FIRST_SEQ);
    execute(plain(TRITLOOM_OP_IDENTIFY, 0, TRITLOOM_IDENTITY_LAYOUT_DIGEST_BYTES,
                  TRITLOOM_IDENTITY_LAYOUT_DIGEST_OFFSET));
    if (response.bytes != sizeof layout || memcmp(response.payload, layout, sizeof layout) != 0)
        fail("the device has another configuration than tritloom.h");
}

/* Read a file that holds one item of `bytes` bytes or, up to `most`, more; sets their number. */
static uint8_t *read_file(const char *path, size_t bytes, size_t most, size_t *items)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    long size = 0;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    *items = size > 0 ? (size_t)size / bytes : 0;
    if (*items != 0 && *items <= most && *items * bytes == (size_t)size)
        data = malloc((size_t)size);
    if (data == NULL || fseek(file, 0, SEEK_SET) != 0
        || fread(data, bytes, *items, file) != *items) {
        fprintf(stderr, "matmul: %s must have %s%zu bytes\n", path,
                most == 1 ? "" : "a multiple of ", bytes);
        exit(1);
    }
    fclose(file);
    return data;
}

/* Define the layer, write its words and commit them. */
static void load_layer(const uint8_t *image)
{
    uint8_t place[TRITLOOM_LAYER_BYTES];
    size_t most = TRITLOOM_MAX_PAYLOAD / TRITLOOM_WORD_BYTES; /* words in a packet */
    size_t word, words;
    struct tritloom_command command;
    most -= most % TRITLOOM_ALIGN; /* whole blocks, but for the end of the layer */
    tritloom_put(place + TRITLOOM_LAYER_BASE_OFFSET, BASE_WORD, TRITLOOM_LAYER_BASE_BYTES);
    tritloom_put(place + TRITLOOM_LAYER_TILES_OFFSET, LAYER_TILES, TRITLOOM_LAYER_TILES_BYTES);
    tritloom_put(place + TRITLOOM_LAYER_ROW_GROUPS_OFFSET, LAYER_ROW_GROUPS,
                 TRITLOOM_LAYER_ROW_GROUPS_BYTES);
    command = plain(TRITLOOM_OP_DEFINE, LAYER_INDEX, LAYER_GROUP_TILES, 0);
    command.payload = place;
    command.bytes = sizeof place;
    execute(command);
    for (word = 0; word < LAYER_WORDS; word += words) {
        words = LAYER_WORDS - word < most ? LAYER_WORDS - word : most;
        command = plain(TRITLOOM_OP_WRITE, LAYER_INDEX, 0, (uint32_t)word);
        command.payload = image + word * TRITLOOM_WORD_BYTES;
        command.bytes = words * TRITLOOM_WORD_BYTES;
        execute(command);
    }
    execute(plain(TRITLOOM_OP_COMMIT, LAYER_INDEX, 0, LAYER_CRC32));
}

/* Load the activations of one token into a bank, zeros behind each group up to whole tiles. */
static void load_activations(const uint8_t *activations, uint32_t bank)
{
    static uint8_t padded[LAYER_TILES * TRITLOOM_LANES]; /* a multiple of fill */
    size_t most = TRITLOOM_MAX_PAYLOAD / TRITLOOM_FILL * TRITLOOM_FILL;
    size_t at, bytes, group;
    for (group = 0; group < LAYER_GROUPS; group++)
        memcpy(padded + group * (sizeof padded / LAYER_GROUPS),
               activations + group * LAYER_GROUP_FEATURES, LAYER_GROUP_FEATURES);
    for (at = 0; at < sizeof padded; at += bytes) {
        struct tritloom_command command =
            plain(TRITLOOM_OP_LOAD, TOKEN, 0, (uint32_t)(at / TRITLOOM_FILL));
        bytes = sizeof padded - at < most ? sizeof padded - at : most;
        command.activation_bank = bank;
        command.payload = padded + at;
        command.bytes = bytes;
        execute(command);
    }
}

#ifdef TRITLOOM_OP_SCALES
/* Scales of 1 for the token's activations in a bank, one for each group of the device: the packed
 * layer has scales of 1, too, so the results are its sums. */
static void load_scales(uint32_t bank)
{
    enum {
        GROUP_TILES = LAYER_GROUP_TILES ? LAYER_GROUP_TILES : TRITLOOM_MOST_GROUP_TILES,
        SCALES = (LAYER_TILES + GROUP_TILES - 1) / GROUP_TILES,
        MOST = TRITLOOM_MAX_PAYLOAD / TRITLOOM_SCALE_BYTES /* in a packet */
    };
    static uint8_t payload[SCALES * TRITLOOM_SCALE_BYTES];
    size_t at, count;
    for (at = 0; at < SCALES; at++)
        tritloom_put_scale(payload, at, 1);
    for (at = 0; at < SCALES; at += count) {
        struct tritloom_command command = plain(TRITLOOM_OP_SCALES, TOKEN, 0, (uint32_t)at);
        count = SCALES - at < MOST ? SCALES - at : MOST;
        command.activation_bank = bank;
        command.payload = payload + at * TRITLOOM_SCALE_BYTES;
        command.bytes = count * TRITLOOM_SCALE_BYTES;
        execute(command);
    }
}
#endif

/* Compute the layer. The device accepts it at once; its results tell when it is done. */
static void run(uint32_t activation_bank, uint32_t result_bank)
{
    struct tritloom_command command = plain(TRITLOOM_OP_RUN, LAYER_INDEX, 1, 0);
    command.activation_bank = activation_bank;
    command.result_bank = result_bank;
    execute(command);
}

/* Print the sums of one group of inputs, whose rows begin at a row group. */
static void print_group(uint32_t bank, uint32_t row_group)
{
    size_t most = TRITLOOM_MAX_PAYLOAD / TRITLOOM_ACC_BYTES / TRITLOOM_ROWS * TRITLOOM_ROWS;
    size_t at, count, n;
    for (at = 0; at < LAYER_OUT_FEATURES; at += count) {
        struct tritloom_command command;
        count = LAYER_OUT_FEATURES - at < most ? LAYER_OUT_FEATURES - at : most;
        command =
            plain(TRITLOOM_OP_RESULTS, TOKEN, (uint32_t)count,
                  row_group + (uint32_t)(at / TRITLOOM_ROWS));
        command.result_bank = bank;
        execute(command);
        for (n = 0; n < count; n++)
            printf("%ld\n", (long)tritloom_result(response.payload, n));
    }
}

/* Print the sums in a bank, those of the first group of inputs first. A RESULTS command begins at a
   whole group of rows. A device with scales adds up the groups of a row. */
static void print_results(uint32_t bank)
{
    size_t group, groups = LAYER_GROUPS;
#ifdef TRITLOOM_SCALE
    groups = 1;
#endif
    for (group = 0; group < groups; group++)
        print_group(bank, (uint32_t)(group * LAYER_ROW_GROUPS));
}

int main(int argc, char **argv)
{
    static const uint8_t layer_layout[] = LAYER_LAYOUT_DIGEST;
    static const uint8_t layout[] = TRITLOOM_LAYOUT_DIGEST;
    uint8_t *image, *activations;
    size_t images, tokens, token;
    if (argc != 4)
        fail("usage: matmul PORT IMAGE ACTIVATIONS");
    if (memcmp(layer_layout, layout, sizeof layout) != 0)
        fail("layer.h was packed for another configuration than tritloom.h");
    image = read_file(argv[2], LAYER_IMAGE_BYTES, 1, &images);
    activations = read_file(argv[3], LAYER_IN_FEATURES, SIZE_MAX, &tokens);
    port_open(argv[1]);
    start_session();
    load_layer(image);
#ifdef TRITLOOM_OP_SCALES
    load_scales(0);
    if (TRITLOOM_BANKS != 1)
        load_scales(1);
#endif
    for (token = 0; token < tokens; token++) {
        uint32_t bank = (uint32_t)(token % TRITLOOM_BANKS);
        load_activations(activations + token * LAYER_IN_FEATURES, bank);
        if (token != 0 && TRITLOOM_BANKS == 1)
            print_results(bank); /* the next RUN overwrites them */
        run(bank, bank);
        if (token != 0 && TRITLOOM_BANKS != 1)
            print_results((uint32_t)((token - 1) % TRITLOOM_BANKS));
    }
    print_results((uint32_t)((tokens - 1) % TRITLOOM_BANKS));
    free(activations);
    free(image);
    port_close();
    return 0;
}
