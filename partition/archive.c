/* archive.c: rows brought to a file: compressed, on the disk, read back, and named only then. */
#include "partition/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEVEL 3
#define PIECE (1 << 17)
#define SAME_NAME_MAX 99
#define HEX_SIZE (2 * EVP_MAX_MD_SIZE + 1)

static bool fails(struct db_error *error, const char *what, const char *path, const char *why)
{
    *error = (struct db_error){.text = ""};
    snprintf(error->text, sizeof error->text, "%s %.350s: %s", what, path, why);
    return false;
}

static bool fails_file(const struct archive *archive, struct db_error *error, const char *what,
                       const char *name, const char *why)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", archive->path, name);
    return fails(error, what, path, why);
}

/* ---- folders and names ---- */

/* A name of a file: what has no place in one is %2F and the like, and none is hidden, "." or "..". */
static const char *file_name(struct arena *arena, const char *name)
{
    char *made = arena_alloc(arena, 3 * strlen(name) + 1), *to = made;
    for (const char *at = name; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '/' || c == '%' || c < ' ' || c == 127 || (c == '.' && at == name))
            to += sprintf(to, "%%%02X", c);
        else
            *to++ = *at;
    }
    *to = '\0';
    return made;
}

/* The folder, made where it is missing; -1: error. `path`: PATH_MAX bytes. */
static int open_folder(struct arena *arena, const char *directory, const char *folder, char *path,
                       struct db_error *error)
{
    int above = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (above < 0) {
        fails(error, "cannot open directory", directory, strerror(errno));
        snprintf(error->hint, sizeof error->hint,
                 "make it, on the host that maintains partitions, writable for who does so");
        return -1;
    }
    const char *name = file_name(arena, folder);
    snprintf(path, PATH_MAX, "%s/%s", directory, name);
    int made = mkdirat(above, name, 0700);
    bool there = (made == 0 && fsync(above) == 0) || (made != 0 && errno == EEXIST);
    int fd = there ? openat(above, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        fails(error, made != 0 ? "cannot make folder" : "cannot open folder", path,
              strerror(errno));
    close(above);
    return fd;
}

bool archive_probe(const char *directory, const char *folder, struct db_error *error)
{
    char path[PATH_MAX];
    struct arena arena;
    arena_init(&arena);
    int fd = open_folder(&arena, directory, folder, path, error);
    bool good = fd >= 0 && (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0 ||
                            fails(error, "cannot write to folder", path, strerror(errno)));
    if (fd >= 0)
        close(fd);
    arena_free(&arena);
    return good;
}

/* Whose archive has the name; a manifest that cannot be read is anybody's. */
static bool is_ours(const struct archive *archive, const char *manifest)
{
    int fd = openat(archive->folder, manifest, O_RDONLY | O_CLOEXEC);
    json_t *json = fd >= 0 ? json_loadfd(fd, 0, NULL) : NULL;
    const char *identity = json_string_value(json_object_get(json, "identity"));
    bool ours = identity && strcmp(identity, archive->identity) == 0;
    json_decref(json);
    if (fd >= 0)
        close(fd);
    return ours;
}

static bool is_there(const struct archive *archive, const char *name)
{
    struct stat stat;
    return fstatat(archive->folder, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

/* The manifest gets its name ahead of the file: a file without one is somebody else's. */
static bool find_name(struct archive *archive, const char *name, const char *extension)
{
    struct arena *arena = archive->arena;
    const char *base = file_name(arena, name);
    for (int i = 1; i <= SAME_NAME_MAX; i++) {
        const char *used = i == 1 ? base : arena_printf(arena, "%s_%d", base, i);
        archive->file = arena_printf(arena, "%s.%s", used, extension);
        archive->manifest = arena_printf(arena, "%s.json", used);
        archive->temporary = arena_printf(arena, ".%s.tmp", archive->file);
        archive->manifest_temporary = arena_printf(arena, ".%s.tmp", archive->manifest);
        if (is_ours(archive, archive->manifest) ||
            (!is_there(archive, archive->manifest) && !is_there(archive, archive->file)))
            return true;
    }
    return false;
}

/* ---- writing ---- */

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

static bool cannot_write(const struct archive *archive, struct db_error *error)
{
    return fails_file(archive, error, "cannot write", archive->temporary, strerror(errno));
}

static bool start_packer(struct archive *archive)
{
    archive->packer = ZSTD_createCCtx();
    archive->digest = EVP_MD_CTX_new();
    archive->packed_size = ZSTD_CStreamOutSize();
    archive->packed = malloc(archive->packed_size);
    return archive->packer && archive->digest && archive->packed &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(archive->packer, ZSTD_c_compressionLevel, LEVEL)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(archive->packer, ZSTD_c_checksumFlag, 1)) &&
           EVP_DigestInit_ex(archive->digest, EVP_sha256(), NULL) == 1;
}

bool archive_begin(struct archive *archive, struct arena *arena, const char *directory,
                   const char *folder, const char *name, const char *extension,
                   const char *identity, struct db_error *error)
{
    char path[PATH_MAX] = "";
    *archive = (struct archive){.arena = arena, .identity = identity, .folder = -1, .fd = -1};
    archive->folder = open_folder(arena, directory, folder, path, error);
    archive->path = arena_strdup(arena, path);
    if (archive->folder < 0)
        return false;
    if (flock(archive->folder, LOCK_EX | LOCK_NB) != 0)
        return fails(error, "cannot lock folder", path, "another process archives there");
    if (!find_name(archive, name, extension))
        return fails_file(archive, error, "cannot name", archive->file,
                          "there are too many archives of that name");
    archive->fd =
        openat(archive->folder, archive->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (archive->fd < 0)
        return cannot_write(archive, error);
    return start_packer(archive) ||
           fails_file(archive, error, "cannot compress", archive->temporary, "out of memory");
}

/* With `end`, until all that the packer keeps is in the file. */
static bool pack(struct archive *archive, const char *bytes, size_t length,
                 ZSTD_EndDirective directive, struct db_error *error)
{
    ZSTD_inBuffer in = {.src = bytes, .size = length};
    for (;;) {
        ZSTD_outBuffer out = {.dst = archive->packed, .size = archive->packed_size};
        size_t left = ZSTD_compressStream2(archive->packer, &out, &in, directive);
        if (ZSTD_isError(left))
            return fails_file(archive, error, "cannot compress", archive->temporary,
                              ZSTD_getErrorName(left));
        if (!write_all(archive->fd, archive->packed, out.pos))
            return cannot_write(archive, error);
        if (directive == ZSTD_e_end ? left == 0 : in.pos == in.size)
            return true;
    }
}

bool archive_put(struct archive *archive, const char *bytes, size_t length, struct db_error *error)
{
    archive->bytes += (int64_t)length;
    return (EVP_DigestUpdate(archive->digest, bytes, length) == 1 ||
            fails_file(archive, error, "cannot digest", archive->temporary, "out of memory")) &&
           pack(archive, bytes, length, ZSTD_e_continue, error);
}

/* ---- reading back ---- */

struct reading {
    ZSTD_DCtx *unpacker;
    EVP_MD_CTX *content, *file; /* digests */
    int64_t bytes, packed;
    size_t state;      /* what the unpacker said last: 0: at a frame's end */
    const char *wrong; /* what could not be done */
};

static bool unpack(struct reading *reading, const char *bytes, size_t length, char *out_bytes)
{
    ZSTD_inBuffer in = {.src = bytes, .size = length};
    reading->packed += (int64_t)length;
    if (EVP_DigestUpdate(reading->file, bytes, length) != 1)
        return false;
    do {
        ZSTD_outBuffer out = {.dst = out_bytes, .size = PIECE};
        reading->state = ZSTD_decompressStream(reading->unpacker, &out, &in);
        if (ZSTD_isError(reading->state) ||
            EVP_DigestUpdate(reading->content, out_bytes, out.pos) != 1)
            return false;
        reading->bytes += (int64_t)out.pos;
        if (out.pos < out.size && in.pos == in.size)
            return true;
    } while (true);
}

static bool read_file(struct reading *reading, int fd, char *buffers)
{
    ssize_t length;
    while ((length = read(fd, buffers, PIECE)) != 0) {
        if (length < 0 && errno == EINTR)
            continue;
        reading->wrong = length < 0 ? strerror(errno) : NULL;
        if (length < 0 || !unpack(reading, buffers, (size_t)length, buffers + PIECE))
            return false;
    }
    return reading->state == 0;
}

static bool hex_of(EVP_MD_CTX *digest, char hex[HEX_SIZE])
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (EVP_DigestFinal_ex(digest, bytes, &length) != 1)
        return false;
    for (unsigned i = 0; i < length; i++)
        sprintf(hex + (size_t)2 * i, "%02x", bytes[i]);
    return true;
}

/* Whether what is on the disk is what was put; from the disk, as far as the system lets us. */
static bool read_back(struct archive *archive, struct reading *reading, char hex[HEX_SIZE])
{
    char put[HEX_SIZE] = "", found[HEX_SIZE] = "";
    char *buffers = malloc((size_t)2 * PIECE);
    posix_fadvise(archive->fd, 0, 0, POSIX_FADV_DONTNEED);
    reading->unpacker = ZSTD_createDCtx();
    reading->content = EVP_MD_CTX_new();
    reading->file = EVP_MD_CTX_new();
    bool same = buffers && reading->unpacker && reading->content && reading->file &&
                EVP_DigestInit_ex(reading->content, EVP_sha256(), NULL) == 1 &&
                EVP_DigestInit_ex(reading->file, EVP_sha256(), NULL) == 1 &&
                lseek(archive->fd, 0, SEEK_SET) == 0 && read_file(reading, archive->fd, buffers) &&
                hex_of(archive->digest, put) && hex_of(reading->content, found) &&
                hex_of(reading->file, hex) && strcmp(put, found) == 0 &&
                reading->bytes == archive->bytes;
    free(buffers);
    ZSTD_freeDCtx(reading->unpacker);
    EVP_MD_CTX_free(reading->content);
    EVP_MD_CTX_free(reading->file);
    return same;
}

/* ---- the end ---- */

static bool write_manifest(struct archive *archive, const json_t *manifest)
{
    char *text = json_dumps(manifest, JSON_INDENT(2));
    int fd = openat(archive->folder, archive->manifest_temporary,
                    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool good = text && fd >= 0 && write_all(fd, text, strlen(text)) && write_all(fd, "\n", 1) &&
                fsync(fd) == 0;
    int why = errno;
    if (fd >= 0 && close(fd) != 0 && good) {
        good = false;
        why = errno;
    }
    free(text);
    errno = why;
    return good;
}

static bool give_name(const struct archive *archive, const char *temporary, const char *name)
{
    return renameat(archive->folder, temporary, archive->folder, name) == 0 &&
           fsync(archive->folder) == 0;
}

bool archive_finish(struct archive *archive, json_t *manifest, struct db_error *error)
{
    char hex[HEX_SIZE] = "";
    struct reading reading = {.state = 1};
    if (!pack(archive, NULL, 0, ZSTD_e_end, error))
        return false;
    if (fsync(archive->fd) != 0)
        return cannot_write(archive, error);
    if (!read_back(archive, &reading, hex))
        return fails_file(archive, error, "cannot read back", archive->temporary,
                          reading.wrong ? reading.wrong : "it is not what was written");
    json_object_set_new(manifest, "identity", json_string(archive->identity));
    json_object_set_new(manifest, "file", json_string(archive->file));
    json_object_set_new(manifest, "bytes", json_integer(archive->bytes));
    json_object_set_new(manifest, "file_bytes", json_integer(reading.packed));
    json_object_set_new(manifest, "file_sha256", json_string(hex));
    if (!write_manifest(archive, manifest) ||
        !give_name(archive, archive->manifest_temporary, archive->manifest))
        return fails_file(archive, error, "cannot write", archive->manifest, strerror(errno));
    if (!give_name(archive, archive->temporary, archive->file))
        return fails_file(archive, error, "cannot write", archive->file, strerror(errno));
    archive->temporary = NULL;
    return true;
}

void archive_end(struct archive *archive)
{
    if (archive->fd >= 0) {
        close(archive->fd);
        if (archive->temporary) {
            unlinkat(archive->folder, archive->temporary, 0);
            unlinkat(archive->folder, archive->manifest_temporary, 0);
        }
    }
    if (archive->folder >= 0)
        close(archive->folder); /* and its lock */
    ZSTD_freeCCtx(archive->packer);
    EVP_MD_CTX_free(archive->digest);
    free(archive->packed);
}
