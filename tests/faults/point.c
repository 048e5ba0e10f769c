/* Calls that can fail (points), and the choice of the one that fails. The environment selects it:
 *
 *   FAULTS_LOG    a file that receives a line per call: the call, a space, and its object
 *   FAULTS_ROOT   a folder; paths below it are logged relative to it
 *   FAULTS_POINT  such a line: the calls of this point are counted from 1
 *   FAULTS_FIRST, FAULTS_TIMES   the first call that fails, and the number of calls that fail
 *   FAULTS_ERRNO  the error of these calls
 *
 * Everything here calls the kernel directly, because the functions of libc lead back to this library.
 */

#define _GNU_SOURCE
#include "point.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { HEX_DIGITS = 16 };

static int log_fd = -1;
static const char *root = "", *point = "";
static long first = 1, times = 0;
static int error = 0;
static atomic_long count = 0;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

__attribute__((constructor)) static void start(void) {
    const char *log = getenv("FAULTS_LOG");
    if (!log) return;
    root = setting("FAULTS_ROOT", "/nowhere");
    first = atol(setting("FAULTS_FIRST", "1"));
    times = atol(setting("FAULTS_TIMES", "0"));
    error = atoi(setting("FAULTS_ERRNO", "0"));
    point = setting("FAULTS_POINT", "");
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}

void log_text(const char *text, size_t length) {
    if (log_fd >= 0) syscall(SYS_write, log_fd, text, length);
}

int fails(const char *call, const char *object) {
    if (log_fd < 0) return 0;
    int saved = errno;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line - 1, "%s %s", call, object);
    int is_point = strcmp(line, point) == 0;
    long number = is_point ? atomic_fetch_add(&count, 1) + 1 : 0;
    int failed = is_point && number >= first && number - first < times;
    line[length] = '\n';
    if (failed) log_text("FAILED ", 7);
    log_text(line, (size_t)length + 1);
    errno = failed ? error : saved;
    return failed;
}

/* Names that differ in each run, or of which there are many: what follows these beginnings, up to one of the characters
 * in `end`, becomes an asterisk. */
static const struct {
    const char *beginning, *end;
} VARIABLE[] = {
    {"/proc/", "/"}, {"/.tmp", "/"}, {"/tmp/#", ""}, {"/etc/ssl/certs/", ""}, {"/usr/share/ca-certificates/", ""},
};

/* Copies a path. Variable names become equal, and so do 16 hexadecimal digits. */
static void generalize(const char *path, char *to, size_t size) {
    size_t prefix = strlen(root), out = 0;
    if (strncmp(path, root, prefix) == 0 && path[prefix] == '/') path += prefix + 1;
    while (*path && out + 1 < size) {
        int is_replaced = 0;
        for (size_t i = 0; i < sizeof VARIABLE / sizeof *VARIABLE; i++) {
            size_t length = strlen(VARIABLE[i].beginning);
            if (strncmp(path, VARIABLE[i].beginning, length) != 0) continue;
            out += (size_t)snprintf(to + out, size - out, "%s*", VARIABLE[i].beginning);
            path += length + strcspn(path + length, VARIABLE[i].end);
            is_replaced = 1;
            break;
        }
        if (is_replaced) continue;
        size_t digits = strspn(path, "0123456789abcdef");
        if (digits == HEX_DIGITS) {
            to[out++] = '*';
            path += digits;
            continue;
        }
        size_t run = digits ? digits : 1;
        for (; run && out + 1 < size; run--) to[out++] = *path++;
    }
    to[out] = 0;
}

/* Returns whether the dynamic loader reads this file, before the program runs. */
static int is_library(const char *path) {
    return strstr(path, ".so") || strncmp(path, "/etc/ld", 7) == 0;
}

int fails_path(const char *call, const char *path) {
    if (log_fd < 0 || is_library(path)) return 0;
    char object[PATH_MAX];
    generalize(path, object, sizeof object);
    return fails(call, object);
}

int fails_fd(const char *call, int fd) {
    if (log_fd < 0) return 0;
    if (fd == STDOUT_FILENO) return fails(call, "stdout");
    if (fd == STDERR_FILENO) return fails(call, "stderr");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, "socket:", 7) == 0) return fails(call, "socket");
    if (strncmp(path, "pipe:", 5) == 0) return fails(call, "pipe");
    /* Descriptors that wake a thread do not fail in practice. */
    if (strncmp(path, "anon_inode:", 11) == 0) return 0;
    return fails_path(call, path);
}
