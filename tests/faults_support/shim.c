/* Faults on purpose: preloaded into a process, it counts the calls that change files below FAULT_ROOT and lets some of them go wrong.
 *
 * FAULT_ROOT   folder whose files are watched
 * FAULT_AT     number of the first call that goes wrong, from 1; 0 or absent: none
 * FAULT_FOR    calls that go wrong from there on (1 if absent)
 * FAULT_KIND   kill (before the call), full (ENOSPC), io (EIO), short (half of a write, then ENOSPC for the calls after it)
 * FAULT_COUNT  file that gets the number of watched calls when the process exits
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int below_root(const char *path) {
    const char *root = getenv("FAULT_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static int watched_fd(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return below_root(path);
}

static int watched_at(int dir, const char *path) {
    if (!path) return 0;
    if (path[0] == '/') return below_root(path);
    if (dir != AT_FDCWD) return watched_fd(dir);
    char here[PATH_MAX];
    return getcwd(here, sizeof here) && below_root(here);
}

enum fault { NONE, FAIL, SHORT };

/* Counts one call; kills, or says how the call goes wrong, with errno set. */
static enum fault fault(void) {
    long now = atomic_fetch_add(&calls, 1) + 1;
    const char *at = getenv("FAULT_AT"), *lasts = getenv("FAULT_FOR"), *kind = getenv("FAULT_KIND");
    long first = at ? atol(at) : 0, count = lasts ? atol(lasts) : 1;
    if (!first || !kind || now < first || now >= first + count) return NONE;
    if (!strcmp(kind, "kill")) raise(SIGKILL);
    errno = strcmp(kind, "io") ? ENOSPC : EIO;
    return !strcmp(kind, "short") && now == first ? SHORT : FAIL;
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAULT_COUNT");
    if (!path) return;
    FILE *out = fopen(path, "w");
    if (!out) return;
    fprintf(out, "%ld\n", (long)calls);
    fclose(out);
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!watched_fd(fd)) return REAL(write)(fd, bytes, count);
    switch (fault()) {
    case FAIL: return -1;
    case SHORT: return count > 1 ? REAL(write)(fd, bytes, count / 2) : -1;
    default: return REAL(write)(fd, bytes, count);
    }
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (watched_fd(fd) && fault() != NONE) return -1;
    return REAL(writev)(fd, parts, count);
}

#define ON_FD(type, name, parameters, fd, arguments)            \
    type name parameters {                                      \
        if (watched_fd(fd) && fault() != NONE) return -1;       \
        return REAL(name) arguments;                            \
    }
#define ON_PATH(type, name, parameters, dir, path, arguments)        \
    type name parameters {                                           \
        if (watched_at(dir, path) && fault() != NONE) return -1;     \
        return REAL(name) arguments;                                 \
    }

ON_FD(int, fsync, (int fd), fd, (fd))
ON_FD(int, fdatasync, (int fd), fd, (fd))
ON_FD(int, ftruncate, (int fd, off_t length), fd, (fd, length))
ON_FD(int, ftruncate64, (int fd, off64_t length), fd, (fd, length))
ON_FD(ssize_t, copy_file_range, (int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags), out, (in, from, out, to, n, flags))
ON_FD(ssize_t, sendfile, (int out, int in, off_t *from, size_t n), out, (out, in, from, n))
ON_FD(ssize_t, sendfile64, (int out, int in, off64_t *from, size_t n), out, (out, in, from, n))
ON_PATH(int, rename, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(int, link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(int, linkat, (int d, const char *from, int e, const char *to, int flags), e, to, (d, from, e, to, flags))
ON_PATH(int, renameat2, (int d, const char *from, int e, const char *to, unsigned flags), e, to, (d, from, e, to, flags))
ON_PATH(int, unlinkat, (int d, const char *path, int flags), d, path, (d, path, flags))
ON_PATH(int, rmdir, (const char *path), AT_FDCWD, path, (path))
ON_PATH(int, unlink, (const char *path), AT_FDCWD, path, (path))
ON_PATH(int, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))

#define OPEN(name)                                                                                                   \
    int name(const char *path, int flags, ...) {                                                                     \
        va_list more;                                                                                                \
        va_start(more, flags);                                                                                       \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;                                                  \
        va_end(more);                                                                                                \
        if ((flags & O_ACCMODE) != O_RDONLY && watched_at(AT_FDCWD, path) && fault() != NONE) return -1;             \
        return REAL(name)(path, flags, mode);                                                                        \
    }
OPEN(open)
OPEN(open64)
