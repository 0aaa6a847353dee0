// What all the libraries share: counts of calls, and the device's memory.
#include "fake.h"
#include <pthread.h>
#include <stdio.h>

enum { NAMES = 4096, BLOCKS = 1 << 16, TEXT = 1 << 21 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char *name; long count; } table[NAMES];
static int names = 0;
static int is_recording = 0;

static struct { void *place; size_t bytes; } blocks[BLOCKS];
static int held = 0;
static size_t now = 0, peak = 0, device_bytes = (size_t)24 << 30;

static void add(const char *name) {
    int i = 0;
    while (i < names && strcmp(table[i].name, name)) i++;
    if (i == NAMES) return;
    if (i == names) {
        table[i].name = strdup(name);
        table[names++].count = 0;
    }
    table[i].count++;
}

static void add_with(const char *prefix, const char *name) {
    char text[2048];
    snprintf(text, sizeof text, "%s %s", prefix, name);
    add(text);
}

int called(const char *name) {
    pthread_mutex_lock(&lock);
    if (is_recording)
        add_with("recorded", name);
    else
        add(name);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int called_outside_recordings(const char *name) {
    if (!recording()) return called(name);
    pthread_mutex_lock(&lock);
    add_with("illegal", name);
    pthread_mutex_unlock(&lock);
    return NOT_WHILE_RECORDING;
}

void record(int on) { is_recording = on; }
int recording(void) { return is_recording; }

int take_memory(void **place, size_t bytes) {
    pthread_mutex_lock(&lock);
    int full = held == BLOCKS || now + bytes > device_bytes || posix_memalign(place, 512, bytes ? bytes : 512);
    if (!full) {
        blocks[held].place = *place;
        blocks[held++].bytes = bytes;
        now += bytes;
        if (now > peak) peak = now;
    }
    pthread_mutex_unlock(&lock);
    return full ? OUT_OF_MEMORY : SUCCESS;
}

void give_back_memory(void *place) {
    pthread_mutex_lock(&lock);
    for (int i = held - 1; i >= 0; i--)
        if (blocks[i].place == place) {
            now -= blocks[i].bytes;
            blocks[i] = blocks[--held];
            free(place);
            break;
        }
    pthread_mutex_unlock(&lock);
}

int on_device(const void *place) {
    pthread_mutex_lock(&lock);
    int found = 0;
    for (int i = 0; i < held && !found; i++)
        found = (const char *)place >= (char *)blocks[i].place &&
                (const char *)place < (char *)blocks[i].place + blocks[i].bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

size_t all_device_bytes(void) { return device_bytes; }
size_t free_device_bytes(void) { return device_bytes - now; }
void set_device_bytes(size_t bytes) { device_bytes = bytes; }
size_t bytes_now(void) { return now; }
size_t bytes_peak(void) { return peak; }

const char *counts(void) {
    static char text[TEXT];
    pthread_mutex_lock(&lock);
    size_t at = (size_t)sprintf(text, "{");
    for (int i = 0; i < names && at + 4096 < TEXT; i++)
        at += (size_t)sprintf(text + at, "%s\"%s\": %ld", i ? ", " : "", table[i].name, table[i].count);
    sprintf(text + at, "}");
    pthread_mutex_unlock(&lock);
    return text;
}

void forget_counts(void) {
    pthread_mutex_lock(&lock);
    while (names) free(table[--names].name);
    peak = now;
    pthread_mutex_unlock(&lock);
}
