/* The port of examples/c/matmul.c on a Zynq: packets through the registers of an AXI4-Stream FIFO.
 *
 *   cc -std=c99 -Wall -I build/arty -I build '-DTRITLOOM_PORT="../arty-z7-20/fifo_port.h"' \
 *      examples/c/matmul.c -o matmul
 *   ./matmul /dev/mem@0x43C00000 build/layer.bin activations.bin
 *
 * The path is a file that holds the registers, and where they begin in it: /dev/mem and their
 * address, or /dev/uio0, which begins with them. The registers are those of AMD's AXI4-Stream FIFO
 * (product guide PG080).
 */

#ifndef FIFO_PORT_H
#define FIFO_PORT_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FIFO_ISR 0x00  /* interrupt status; a 1 clears its bit */
#define FIFO_TDFR 0x08 /* resets the queue of commands */
#define FIFO_TDFV 0x0C /* words that it has room for */
#define FIFO_TDFD 0x10 /* a word of a command */
#define FIFO_TLR 0x14  /* bytes of the command, which sends it */
#define FIFO_RDFR 0x18 /* resets the queue of responses */
#define FIFO_RDFO 0x1C /* words in it, 0 until a response is whole */
#define FIFO_RDFD 0x20 /* a word of a response */
#define FIFO_RLR 0x24  /* bytes of the response that is read next */
#define FIFO_RESET 0xA5u
#define FIFO_LENGTH 0x7FFFFFu /* the bits of FIFO_RLR that hold the length */
#define FIFO_SPAN 0x1000u     /* bytes that are mapped */

#ifdef FIFO_REGISTERS
#include FIFO_REGISTERS /* other registers, for tests: fifo_open, fifo_close, fifo_read, fifo_write */
#else
static volatile uint32_t *fifo_registers;

static void fifo_open(const char *path)
{
    char name[256];
    const char *at = strchr(path, '@');
    size_t length = at ? (size_t)(at - path) : strlen(path);
    off_t address = at ? (off_t)strtoull(at + 1, NULL, 0) : 0;
    void *mapped;
    int file;
    if (length >= sizeof name) {
        fprintf(stderr, "matmul: the path is too long: %s\n", path);
        exit(1);
    }
    memcpy(name, path, length);
    name[length] = 0;
    file = open(name, O_RDWR | O_SYNC); /* O_SYNC: /dev/mem then maps the registers uncached */
    if (file < 0) {
        perror(name);
        exit(1);
    }
    mapped = mmap(NULL, FIFO_SPAN, PROT_READ | PROT_WRITE, MAP_SHARED, file, address);
    if (mapped == MAP_FAILED) {
        perror(name);
        exit(1);
    }
    close(file);
    fifo_registers = mapped;
}

static void fifo_close(void)
{
    munmap((void *)fifo_registers, FIFO_SPAN);
}

static uint32_t fifo_read(unsigned offset)
{
    return fifo_registers[offset / 4];
}

static void fifo_write(unsigned offset, uint32_t value)
{
    fifo_registers[offset / 4] = value;
}
#endif

static long fifo_elapsed_ms(const struct timespec *since)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void port_open(const char *path)
{
    fifo_open(path);
    fifo_write(FIFO_TDFR, FIFO_RESET);
    fifo_write(FIFO_RDFR, FIFO_RESET);
    fifo_write(FIFO_ISR, 0xFFFFFFFFu);
}

static void port_close(void)
{
    fifo_close();
}

static void port_send(const uint8_t *packet, size_t bytes)
{
    struct timespec begin;
    size_t at;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    while (fifo_read(FIFO_TDFV) < (bytes + 3) / 4) {
        if (fifo_elapsed_ms(&begin) > 1000) {
            fprintf(stderr, "matmul: the FIFO takes no words; is the bitstream loaded, and the "
                            "address that of the FIFO?\n");
            exit(1);
        }
    }
    for (at = 0; at < bytes; at += 4) {
        uint32_t word = 0;
        size_t n;
        for (n = 0; n < 4 && at + n < bytes; n++)
            word |= (uint32_t)packet[at + n] << (8 * n);
        fifo_write(FIFO_TDFD, word);
    }
    fifo_write(FIFO_TLR, (uint32_t)bytes);
}

/* The bytes of the next packet; 0 if none comes in time. */
static size_t port_receive(uint8_t *packet, size_t most, int timeout_ms)
{
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        size_t bytes, at, n;
        if (fifo_read(FIFO_RDFO) == 0)
            continue;
        bytes = fifo_read(FIFO_RLR) & FIFO_LENGTH;
        if (bytes == 0 || bytes > most) { /* of no device of this header */
            fifo_write(FIFO_RDFR, FIFO_RESET);
            continue;
        }
        for (at = 0; at < bytes; at += 4) {
            uint32_t word = fifo_read(FIFO_RDFD);
            for (n = 0; n < 4 && at + n < bytes; n++)
                packet[at + n] = (uint8_t)(word >> (8 * n));
        }
        return bytes;
    } while (fifo_elapsed_ms(&begin) < timeout_ms);
    return 0;
}

#endif
