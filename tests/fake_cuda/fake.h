// A CUDA without a GPU: device memory is the host's, kernels compute nothing, and what was called is counted.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NOT_WHILE_RECORDING = 900 };

// Counts a call that is legal at any time; returns SUCCESS.
int called(const char *name);

// Counts a call that CUDA refuses while a stream is being recorded in global mode; returns what CUDA would.
int called_outside_recordings(const char *name);

// Begins and ends a recording; while one is on, calls are counted as recorded.
void record(int on);
int recording(void);

// Device memory as CUDA aligns it; OUT_OF_MEMORY beyond what `set_device_bytes` allows.
int take_memory(void **place, size_t bytes);
void give_back_memory(void *place);
int on_device(const void *place);
size_t free_device_bytes(void);
size_t all_device_bytes(void);

// For the process that measures: counts as JSON since the last `forget_counts`, and bytes of device memory.
const char *counts(void);
void forget_counts(void);
size_t bytes_now(void);
size_t bytes_peak(void);
void set_device_bytes(size_t bytes);
