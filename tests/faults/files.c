/* Calls on files. Each fails if point.c selects it, and otherwise makes the system call. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "point.h"

static int open_at(int folder, const char *path, int flags, va_list arguments) {
    int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, int) : 0;
    if (fails_path("open", path)) return -1;
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...) {        \
        va_list arguments;                              \
        va_start(arguments, flags);                     \
        int fd = open_at(AT_FDCWD, path, flags, arguments); \
        va_end(arguments);                              \
        return fd;                                      \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                    \
    int name(int folder, const char *path, int flags, ...) { \
        va_list arguments;                              \
        va_start(arguments, flags);                     \
        int fd = open_at(folder, path, flags, arguments); \
        va_end(arguments);                              \
        return fd;                                      \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t read(int fd, void *bytes, size_t count) {
    return fails_fd("read", fd) ? -1 : syscall(SYS_read, fd, bytes, count);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    return fails_fd("pread", fd) ? -1 : syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t readv(int fd, const struct iovec *parts, int count) {
    return fails_fd("readv", fd) ? -1 : syscall(SYS_readv, fd, parts, count);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return fails_fd("write", fd) ? -1 : syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return fails_fd("pwrite", fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails_fd("writev", fd) ? -1 : syscall(SYS_writev, fd, parts, count);
}

off64_t lseek64(int fd, off64_t offset, int whence) {
    return fails_fd("lseek", fd) ? -1 : syscall(SYS_lseek, fd, offset, whence);
}

int fsync(int fd) {
    return fails_fd("fsync", fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    return fails_fd("fdatasync", fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate64(int fd, off64_t length) {
    return fails_fd("ftruncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}

int flock(int fd, int operation) {
    return fails_fd("flock", fd) ? -1 : (int)syscall(SYS_flock, fd, operation);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *to) {
    /* Rust's standard library calls with null to learn whether the system has this call. The compiler believes the
     * declaration, which forbids null, so the pointer is volatile. */
    const char *volatile given = path;
    int failed = !given ? 0 : *given ? fails_path("statx", given) : fails_fd("statx", folder);
    return failed ? -1 : (int)syscall(SYS_statx, folder, path, flags, mask, to);
}

int rename(const char *from, const char *to) {
    return fails_path("rename", to) ? -1 : (int)syscall(SYS_rename, from, to);
}

int link(const char *from, const char *to) {
    return fails_path("link", to) ? -1 : (int)syscall(SYS_link, from, to);
}

int unlink(const char *path) {
    return fails_path("unlink", path) ? -1 : (int)syscall(SYS_unlink, path);
}

int mkdir(const char *path, mode_t mode) {
    return fails_path("mkdir", path) ? -1 : (int)syscall(SYS_mkdir, path, mode);
}

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *start, size_t count, unsigned flags) {
    return fails_fd("copy_file_range", to) ? -1 : syscall(SYS_copy_file_range, from, at, to, start, count, flags);
}

/* Only mappings of files: memory.c has the others. */
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    if (fd >= 0 && fails_fd("mmap", fd)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

DIR *opendir(const char *path) {
    static DIR *(*next)(const char *);
    if (!next) next = dlsym(RTLD_NEXT, "opendir");
    return fails_path("opendir", path) ? NULL : next(path);
}

struct dirent64 *readdir64(DIR *folder) {
    static struct dirent64 *(*next)(DIR *);
    if (!next) next = dlsym(RTLD_NEXT, "readdir64");
    return fails_fd("readdir", dirfd(folder)) ? NULL : next(folder);
}
