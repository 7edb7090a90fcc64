/* A ternary matrix product on a Tritloom device behind a serial port, in C alone.
 *
 *   tritloom generate --board icebreaker -o build             writes build/tritloom.h
 *   tritloom pack weights.npz --board icebreaker --name layer -o build
 *   cc -std=c99 -Wall -I build examples/c/matmul.c -o matmul
 *   stty -F /dev/ttyUSB1 3000000                              the baud rate of the board
 *   ./matmul /dev/ttyUSB1 build/layer.bin activations.bin
 *
 * activations.bin holds LAYER_IN_FEATURES signed bytes. The program prints LAYER_OUT_FEATURES
 * sums, one a line. It keeps one command unanswered at a time, which is the simplest driver; a
 * faster one keeps up to TRITLOOM_WINDOW. A command whose response does not come is sent again
 * with the same seq: the device executes it only once.
 */

#define _DEFAULT_SOURCE /* cfmakeraw */
#define _DARWIN_C_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "layer.h"
#include "tritloom.h"

#define TRIES 5
#define TIMEOUT_MS 2000
#define LAYER_INDEX 0
#define BASE_WORD 0
#define TOKEN 0

static int port;
static uint32_t session, seq;
static uint8_t response[TRITLOOM_PACKET_BYTES];
static size_t response_bytes;

static void fail(const char *message)
{
    fprintf(stderr, "matmul: %s\n", message);
    exit(1);
}

static void open_port(const char *path)
{
    struct termios settings;
    port = open(path, O_RDWR | O_NOCTTY);
    if (port < 0 || tcgetattr(port, &settings) != 0) {
        perror(path);
        exit(1);
    }
    cfmakeraw(&settings); /* bytes pass as they are; the speed stays */
    if (tcsetattr(port, TCSANOW, &settings) != 0) {
        perror(path);
        exit(1);
    }
}

static void send_bytes(const uint8_t *data, size_t bytes)
{
    while (bytes != 0) {
        ssize_t written = write(port, data, bytes);
        if (written < 0 && errno != EINTR)
            fail("cannot write to the port");
        if (written > 0) {
            data += written;
            bytes -= (size_t)written;
        }
    }
}

/* Receive one whole packet into `response`; 0 if none comes in time. */
static int receive(void)
{
    static uint8_t inside[TRITLOOM_FRAME_BYTES];
    static size_t used;
    struct pollfd ready = {0, POLLIN, 0};
    uint8_t byte;
    ready.fd = port;
    while (poll(&ready, 1, TIMEOUT_MS) > 0) {
        if (read(port, &byte, 1) != 1)
            fail("the port is gone");
        if (byte != 0) {
            if (used < sizeof inside)
                inside[used++] = byte;
            continue;
        }
        response_bytes = tritloom_unframe(response, inside, used);
        used = 0;
        if (response_bytes != 0 && tritloom_sound(response, response_bytes))
            return 1;
    }
    return 0;
}

static uint32_t field(size_t offset, int bytes)
{
    return tritloom_get(response + offset, bytes);
}

#define FIELD(name) field(TRITLOOM_RESPONSE_##name##_OFFSET, TRITLOOM_RESPONSE_##name##_BYTES)

/* Execute a command; its response is then in `response`. */
static void command(uint32_t opcode, uint32_t index, uint32_t count, uint32_t address,
                    const uint8_t *payload, size_t bytes)
{
    uint8_t packet[TRITLOOM_PACKET_BYTES], frame[TRITLOOM_FRAME_BYTES];
    size_t length, framed;
    int attempt;
    if (opcode != TRITLOOM_OP_RESET)
        seq = (seq + 1) & 0xFFFF;
    length = tritloom_request(packet, session, seq, opcode, index, count, address, payload, bytes);
    if (length == 0)
        fail("a payload is too long");
    framed = tritloom_frame(frame, packet, length);
    for (attempt = 0; attempt < TRIES; attempt++) {
        send_bytes(frame, framed);
        while (receive()) {
            if (FIELD(SESSION) != session || FIELD(SEQ) != seq || FIELD(OPCODE) != opcode)
                continue; /* a late response to an older command */
            if (FIELD(STATUS) != TRITLOOM_STATUS_OK) {
                fprintf(stderr, "matmul: opcode %u: status %u\n", (unsigned)opcode,
                        (unsigned)FIELD(STATUS));
                exit(1);
            }
            return;
        }
    }
    fail("no response; check the port and its baud rate");
}

static void start_session(void)
{
    static const uint8_t layout[] = TRITLOOM_LAYOUT_DIGEST;
    session = (uint32_t)time(NULL) * 2654435761u ^ (uint32_t)getpid();
    command(TRITLOOM_OP_RESET, 0, 0, 0, NULL, 0);
    if (FIELD(VALUE) != TRITLOOM_PROTOCOL_VERSION)
        fail("the device speaks another version of the protocol");
    command(TRITLOOM_OP_IDENTIFY, 0, TRITLOOM_IDENTITY_LAYOUT_DIGEST_BYTES,
            TRITLOOM_IDENTITY_LAYOUT_DIGEST_OFFSET, NULL, 0);
    if (memcmp(response + TRITLOOM_HEADER_BYTES, layout, sizeof layout) != 0)
        fail("the device has another configuration than tritloom.h");
}

static uint8_t *read_file(const char *path, size_t bytes)
{
    uint8_t *data = malloc(bytes + 1);
    FILE *file = fopen(path, "rb");
    if (data == NULL || file == NULL || fread(data, 1, bytes + 1, file) != bytes) {
        fprintf(stderr, "matmul: %s must have %zu bytes\n", path, bytes);
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
    tritloom_put(place + TRITLOOM_LAYER_BASE_OFFSET, BASE_WORD, TRITLOOM_LAYER_BASE_BYTES);
    tritloom_put(place + TRITLOOM_LAYER_TILES_OFFSET, LAYER_TILES, TRITLOOM_LAYER_TILES_BYTES);
    tritloom_put(place + TRITLOOM_LAYER_ROW_GROUPS_OFFSET, LAYER_ROW_GROUPS,
                 TRITLOOM_LAYER_ROW_GROUPS_BYTES);
    command(TRITLOOM_OP_DEFINE, LAYER_INDEX, 0, 0, place, sizeof place);
    for (word = 0; word < LAYER_WORDS; word += words) {
        words = LAYER_WORDS - word < most ? LAYER_WORDS - word : most;
        command(TRITLOOM_OP_WRITE, LAYER_INDEX, 0, (uint32_t)word,
                image + word * TRITLOOM_WORD_BYTES, words * TRITLOOM_WORD_BYTES);
    }
    command(TRITLOOM_OP_COMMIT, LAYER_INDEX, 0, LAYER_CRC32, NULL, 0);
}

/* Load the activations of one token, zeros behind them up to whole tiles. */
static void load_activations(const uint8_t *activations)
{
    size_t total = (size_t)LAYER_TILES * TRITLOOM_LANES; /* a multiple of fill */
    size_t most = TRITLOOM_MAX_PAYLOAD / TRITLOOM_FILL * TRITLOOM_FILL;
    size_t at, bytes;
    uint8_t *padded = calloc(total, 1);
    if (padded == NULL)
        fail("no memory");
    memcpy(padded, activations, LAYER_IN_FEATURES);
    for (at = 0; at < total; at += bytes) {
        bytes = total - at < most ? total - at : most;
        command(TRITLOOM_OP_LOAD, TOKEN, 0, (uint32_t)(at / TRITLOOM_FILL), padded + at, bytes);
    }
    free(padded);
}

/* Print the sums. A RESULTS command begins at a whole group of rows. */
static void print_results(void)
{
    size_t most = TRITLOOM_MAX_PAYLOAD / TRITLOOM_ACC_BYTES / TRITLOOM_ROWS * TRITLOOM_ROWS;
    size_t at, count, n;
    for (at = 0; at < LAYER_OUT_FEATURES; at += count) {
        count = LAYER_OUT_FEATURES - at < most ? LAYER_OUT_FEATURES - at : most;
        command(TRITLOOM_OP_RESULTS, TOKEN, (uint32_t)count, (uint32_t)(at / TRITLOOM_ROWS), NULL,
                0);
        for (n = 0; n < count; n++)
            printf("%ld\n", (long)tritloom_result(response + TRITLOOM_HEADER_BYTES, n));
    }
}

int main(int argc, char **argv)
{
    static const uint8_t layer_layout[] = LAYER_LAYOUT_DIGEST;
    static const uint8_t layout[] = TRITLOOM_LAYOUT_DIGEST;
    uint8_t *image, *activations;
    if (argc != 4)
        fail("usage: matmul PORT IMAGE ACTIVATIONS");
    if (memcmp(layer_layout, layout, sizeof layout) != 0)
        fail("layer.h was packed for another configuration than tritloom.h");
    image = read_file(argv[2], LAYER_IMAGE_BYTES);
    activations = read_file(argv[3], LAYER_IN_FEATURES);
    open_port(argv[1]);
    start_session();
    load_layer(image);
    load_activations(activations);
    command(TRITLOOM_OP_RUN, LAYER_INDEX, 1, 0, NULL, 0);
    print_results();
    free(activations);
    free(image);
    close(port);
    return 0;
}
