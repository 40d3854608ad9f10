/* A disk whose power can be cut, and that can be full. A process has it by LD_PRELOAD.
 *
 * Below the folder DISK_FOLDER every call that changes a file or a folder is carried out and then appended to the journal
 * DISK_JOURNAL. fsync and fdatasync only go to the journal: they are the instants that journal.rs needs to know in order to
 * say what a power cut would have left. With DISK_IGNORES_SYNC they do not even go there, as if they were never called.
 *
 * While the file DISK_FULL exists, no file below the folder can grow: ENOSPC.
 *
 * Calls that are not here (fopen, sendfile, mmap for writing) change a file unseen. journal.rs compares what it has seen
 * with what is there, so a test fails when something begins to use one of them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, LINK, SYNC_FOLDER, MKDIR, RMDIR };

#define FILES_MAX 65536

/* The function of libc that one of ours wraps. */
#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static const char *folder, *full;
static size_t folder_length;
static int journal = -1, ignores_sync;
static unsigned char watched[FILES_MAX];
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("DISK_JOURNAL");
    if (!path || !getenv("DISK_FOLDER") || !getenv("DISK_FULL")) return;
    /* Copies: PostgreSQL writes its processes' titles over the variables. */
    folder = strdup(getenv("DISK_FOLDER"));
    full = strdup(getenv("DISK_FULL"));
    ignores_sync = getenv("DISK_IGNORES_SYNC") != NULL;
    folder_length = strlen(folder);
    journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (journal < 0) abort();
}

/* A call and its record are one step: of this process's threads, and of other processes. */
static void enter(void) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pthread_mutex_lock(&turn);
    while (fcntl(journal, F_SETLKW, &whole) != 0)
        if (errno != EINTR) abort();
}

static void leave(void) {
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    int before = errno;
    fcntl(journal, F_SETLK, &whole);
    pthread_mutex_unlock(&turn);
    errno = before;
}

static int is_below(const char *path) {
    return journal >= 0 && strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || !path[folder_length]);
}

/* A path from the root. PostgreSQL works in its folder, and names files from there. */
static const char *whole(const char *path, char *buffer) {
    if (journal < 0 || *path == '/' || !getcwd(buffer, PATH_MAX)) return path;
    size_t length = strlen(buffer);
    if (strcmp(path, ".") == 0) return buffer;
    if (strncmp(path, "./", 2) == 0) path += 2;
    return snprintf(buffer + length, PATH_MAX - length, "/%s", path) < (int)(PATH_MAX - length) ? buffer : path;
}

static int is_watched(int file) { return file >= 0 && file < FILES_MAX && watched[file]; }

static void record(enum kind kind, uint64_t file, uint64_t at, const void *bytes, size_t length) {
    struct __attribute__((packed)) { uint8_t kind; uint64_t file, at; uint32_t length; } head = {kind, file, at, (uint32_t)length};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)bytes, length}};
    int before = errno;
    if (REAL(writev)(journal, parts, 2) != (ssize_t)(sizeof head + length)) abort();
    errno = before;
}

/* A name in the folder, as the journal has it. */
static void record_name(enum kind kind, uint64_t file, const char *path) {
    const char *name = path + folder_length;
    while (*name == '/') name++;
    record(kind, file, 0, name, strlen(name));
}

static void record_names(enum kind kind, const char *from, const char *to) {
    char both[2 * PATH_MAX];
    int length = snprintf(both, sizeof both, "%s%c%s", from + folder_length + 1, '\n', to + folder_length + 1);
    record(kind, 0, 0, both, (size_t)length);
}

static struct stat state(int file) {
    struct stat found;
    if (fstat(file, &found) != 0) abort();
    return found;
}

/* How many of these bytes there is room for; -1 with ENOSPC where there is none. */
static ssize_t room(int file, off_t at, size_t length) {
    off_t size = state(file).st_size;
    if (length == 0 || at + (off_t)length <= size || access(full, F_OK) != 0) return (ssize_t)length;
    if (at < size) return size - at;
    errno = ENOSPC;
    return -1;
}

static int opened(int file, const char *path, int existed, int flags) {
    if (file < 0 || file >= FILES_MAX) return file;
    watched[file] = 1;
    if (!existed && (flags & O_CREAT)) record_name(CREATE, state(file).st_ino, path);
    if (existed && (flags & O_TRUNC)) record(TRUNCATE, state(file).st_ino, 0, NULL, 0);
    return file;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                                        \
        va_end(more);                                                                                                  \
        char buffer[PATH_MAX];                                                                                         \
        path = whole(path, buffer);                                                                                    \
        if (!is_below(path)) return REAL(name)(path, flags, mode);                                                     \
        enter();                                                                                                       \
        int existed = access(path, F_OK) == 0;                                                                         \
        int file = opened(REAL(name)(path, flags, mode), path, existed, flags);                                        \
        leave();                                                                                                       \
        return file;                                                                                                   \
    }
OPEN(open)
OPEN(open64)

int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
int creat(const char *path, mode_t mode) { return open(path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

int close(int file) {
    if (is_watched(file)) watched[file] = 0;
    return REAL(close)(file);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    if (!is_watched(file)) return REAL(pwrite)(file, bytes, length, at);
    enter();
    ssize_t written = room(file, at, length);
    if (written >= 0) written = REAL(pwrite)(file, bytes, (size_t)written, at);
    if (written > 0) record(WRITE, state(file).st_ino, (uint64_t)at, bytes, (size_t)written);
    leave();
    return written;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) { return pwrite(file, bytes, length, at); }

ssize_t write(int file, const void *bytes, size_t length) {
    if (!is_watched(file)) return REAL(write)(file, bytes, length);
    enter();
    off_t at = fcntl(file, F_GETFL) & O_APPEND ? state(file).st_size : lseek(file, 0, SEEK_CUR);
    ssize_t written = room(file, at, length);
    if (written >= 0) written = REAL(write)(file, bytes, (size_t)written);
    if (written > 0) record(WRITE, state(file).st_ino, (uint64_t)at, bytes, (size_t)written);
    leave();
    return written;
}

/* Of several parts the first is written: a caller must bear a short write. */
ssize_t writev(int file, const struct iovec *parts, int count) {
    if (!is_watched(file)) return REAL(writev)(file, parts, count);
    for (; count > 1 && parts->iov_len == 0; parts++) count--;
    return count > 0 ? write(file, parts->iov_base, parts->iov_len) : 0;
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
    if (!is_watched(file)) return REAL(pwritev)(file, parts, count, at);
    for (; count > 1 && parts->iov_len == 0; parts++) count--;
    return count > 0 ? pwrite(file, parts->iov_base, parts->iov_len, at) : 0;
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at) { return pwritev(file, parts, count, at); }

int ftruncate(int file, off_t size) {
    if (!is_watched(file)) return REAL(ftruncate)(file, size);
    enter();
    int done = REAL(ftruncate)(file, size);
    if (done == 0) record(TRUNCATE, state(file).st_ino, (uint64_t)size, NULL, 0);
    leave();
    return done;
}

int ftruncate64(int file, off64_t size) { return ftruncate(file, size); }

/* Room that is claimed ahead, where there is some, is zeros at the end. */
int posix_fallocate(int file, off_t at, off_t length) {
    if (!is_watched(file)) return REAL(posix_fallocate)(file, at, length);
    if (access(full, F_OK) == 0) return ENOSPC;
    return at + length > state(file).st_size && ftruncate(file, at + length) != 0 ? errno : 0;
}

int posix_fallocate64(int file, off64_t at, off64_t length) { return posix_fallocate(file, at, length); }

int fallocate(int file, int mode, off_t at, off_t length) {
    if (!is_watched(file)) return REAL(fallocate)(file, mode, at, length);
    errno = mode ? EOPNOTSUPP : posix_fallocate(file, at, length);
    return errno ? -1 : 0;
}

int fallocate64(int file, int mode, off64_t at, off64_t length) { return fallocate(file, mode, at, length); }

int fsync(int file) {
    if (!is_watched(file)) return REAL(fsync)(file);
    if (ignores_sync) return 0;
    enter();
    struct stat found = state(file);
    if (S_ISDIR(found.st_mode)) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length < 0) abort();
        path[length] = '\0';
        record_name(SYNC_FOLDER, 0, path);
    } else {
        record(SYNC, found.st_ino, 0, NULL, 0);
    }
    leave();
    return 0;
}

int fdatasync(int file) { return is_watched(file) ? fsync(file) : REAL(fdatasync)(file); }

int rename(const char *from, const char *to) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    from = whole(from, from_buffer), to = whole(to, to_buffer);
    if (!is_below(from) || !is_below(to)) return REAL(rename)(from, to);
    enter();
    int done = REAL(rename)(from, to);
    if (done == 0) record_names(RENAME, from, to);
    leave();
    return done;
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char buffer[PATH_MAX];
    if (to_folder == AT_FDCWD) to = whole(to, buffer);
    if (!is_below(to)) return REAL(linkat)(from_folder, from, to_folder, to, flags);
    enter();
    int done = REAL(linkat)(from_folder, from, to_folder, to, flags);
    struct stat found;
    if (done == 0 && lstat(to, &found) == 0) record_name(LINK, found.st_ino, to);
    leave();
    return done;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

#define NAMED(name, kind, parameters, arguments)                                                                       \
    int name parameters {                                                                                              \
        char buffer[PATH_MAX];                                                                                         \
        path = whole(path, buffer);                                                                                    \
        if (!is_below(path)) return REAL(name) arguments;                                                              \
        enter();                                                                                                       \
        int done = REAL(name) arguments;                                                                               \
        if (done == 0) record_name(kind, 0, path);                                                                     \
        leave();                                                                                                       \
        return done;                                                                                                   \
    }
NAMED(unlink, UNLINK, (const char *path), (path))
NAMED(rmdir, RMDIR, (const char *path), (path))
NAMED(mkdir, MKDIR, (const char *path, mode_t mode), (path, mode))
