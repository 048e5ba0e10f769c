/* The test allocator: libc's, with failures. An allocation of at least FAULTS_SIZE bytes is a point, named after a hash
 * of its call stack. Its log line is followed by a line `stack HASH SIZE ADDRESS ...`, whose addresses are offsets in
 * the program. Without FAULTS_SIZE, none is a point. With FAULTS_EVERY=N, every N-th allocation of at least 256
 * bytes fails once. Smaller ones never fail, because Rust's standard library allocates a thread's handle without the
 * program's allocator, and aborts.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "point.h"

enum { FRAMES = 40, SKIPPED = 3, SLOWER = 50, SMALLEST = 256 };

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static size_t least = SIZE_MAX;
static long every = 0;
static atomic_long allocations = 0;
static uintptr_t program_start = 0, program_end = 0;
/* Flags of this thread: it runs code of this library; its last allocation failed. */
static __thread int inside = 1, failed_before = 0;
/* The size and the point of this thread's last failure: the program repeats an allocation from another place. */
static __thread size_t failed_size = 0;
static __thread char failed_name[32];
static atomic_int started = 0;

static int find_program(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    program_start = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && end > program_end) program_end = end;
    }
    return 1;
}

__attribute__((constructor)) static void start(void) {
    const char *size = getenv("FAULTS_SIZE"), *period = getenv("FAULTS_EVERY");
    void *frames[1];
    /* The first call loads a library. */
    backtrace(frames, 1);
    dl_iterate_phdr(find_program, NULL);
    if (size) least = (size_t)atoll(size);
    if (period) every = atol(period);
    atomic_store(&started, 1);
}

/* Returns whether the point of the current call stack fails. */
static int stack_fails(size_t size) {
    void *frames[FRAMES];
    int count = backtrace(frames, FRAMES);
    char line[64 + FRAMES * 20], name[32];
    uint64_t hash = 14695981039346656037u;
    for (int i = SKIPPED; i < count; i++) {
        uintptr_t frame = (uintptr_t)frames[i];
        if (frame < program_start || frame >= program_end) continue;
        hash = (hash ^ (frame - program_start)) * 1099511628211u;
    }
    snprintf(name, sizeof name, "%08x", (unsigned)(hash >> 32));
    if (failed_before && size == failed_size) memcpy(name, failed_name, sizeof name);
    int failed = fails("allocate", name);
    if (failed) {
        failed_size = size;
        memcpy(failed_name, name, sizeof name);
    }
    int length = snprintf(line, sizeof line, "stack %s %zu", name, size);
    for (int i = SKIPPED; i < count; i++) {
        uintptr_t frame = (uintptr_t)frames[i];
        if (frame < program_start || frame >= program_end) continue;
        length += snprintf(line + length, sizeof line - (size_t)length, " %zx", frame - program_start);
    }
    line[length++] = '\n';
    log_text(line, (size_t)length);
    return failed;
}

/* Returns whether an allocation fails. */
static int allocation_fails(size_t size) {
    static __thread int ready = 0;
    if (!atomic_load_explicit(&started, memory_order_relaxed)) return 0;
    if (!ready) ready = 1, inside = 0;
    if (inside) return 0;
    inside = 1;
    int failed = 0;
    if (every && size >= SMALLEST && atomic_fetch_add(&allocations, 1) % every == every - 1) failed = 1;
    if (!failed && size >= least) failed = stack_fails(size);
    failed_before = failed;
    if (failed) errno = ENOMEM;
    inside = 0;
    return failed;
}

void *malloc(size_t size) {
    return allocation_fails(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return allocation_fails(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return allocation_fails(size) ? NULL : __libc_realloc(old, size);
}

int posix_memalign(void **to, size_t alignment, size_t size) {
    if (allocation_fails(size)) return ENOMEM;
    *to = __libc_memalign(alignment, size);
    return *to ? 0 : ENOMEM;
}

/* Shortens the waits between the attempts to allocate, so that a run with a permanent failure is quick. */
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wait, struct timespec *rest) {
    struct timespec less = *wait;
    if (failed_before && !flags) less = (struct timespec){wait->tv_sec / SLOWER, wait->tv_nsec / SLOWER};
    return syscall(SYS_clock_nanosleep, clock, flags, &less, rest) < 0 ? errno : 0;
}
