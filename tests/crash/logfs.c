/*
 * A file system that writes down, in one order, what a power cut could undo
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * logfs FOLDER LOG MOUNTPOINT: what is in FOLDER is seen at MOUNTPOINT.  LOG
 * gets an entry for each change and each sync, before it is answered; one
 * request after the other is served.  tests/crash/powercut.py reads it.
 */

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

typedef struct Entry {
    uint64_t time_ns;
    uint64_t file;              /* inode */
    uint64_t offset;            /* or size */
    uint32_t size;              /* of what follows: data, or names */
    char kind;
} __attribute__((packed)) Entry;

static int root_fd, log_fd;

static const char *below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static uint64_t inode_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

static void note(char kind, uint64_t file, uint64_t offset, const void *data,
                 size_t size)
{
    struct timespec ts;
    Entry entry = {
        .file = file, .offset = offset, .size = size, .kind = kind,
    };
    struct iovec parts[] = {
        { &entry, sizeof(entry) }, { (void *)data, size },
    };

    clock_gettime(CLOCK_REALTIME, &ts);
    entry.time_ns = ts.tv_sec * 1000000000ull + ts.tv_nsec;
    if (writev(log_fd, parts, 2) != (ssize_t)(sizeof(entry) + size)) {
        perror("logfs: log");
        abort();
    }
}

/* Returns 0 or -errno, and notes a change of names that has come to pass */
static int named(int ret, char kind, uint64_t file, const char *from,
                 const char *to)
{
    char text[8192];
    int size;

    if (ret < 0) {
        return -errno;
    }
    size = snprintf(text, sizeof(text), "%s%c%s", from, '\n', to);
    note(kind, file, 0, text, size);
    return 0;
}

static int result(int ret)
{
    return ret < 0 ? -errno : 0;
}

/* Names and attributes are always asked for anew */
static void *fs_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
    (void)conn;
    config->use_ino = 1;
    config->hard_remove = 1;
    config->attr_timeout = config->entry_timeout = 0;
    return NULL;
}

static int fs_getattr(const char *path, struct stat *st,
                      struct fuse_file_info *fi)
{
    return result(fi ? fstat(fi->fh, st)
                     : fstatat(root_fd, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill,
                      off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
    int fd = openat(root_fd, below(path), O_RDONLY | O_DIRECTORY);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;

    (void)offset, (void)fi, (void)flags;
    if (!dir) {
        return -errno;
    }
    while ((found = readdir(dir))) {
        fill(buf, found->d_name, NULL, 0, 0);
    }
    closedir(dir);
    return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
    int fd = openat(root_fd, below(path),
                    fi->flags & ~(O_DIRECT | O_APPEND | O_CREAT | O_TRUNC));

    fi->fh = fd;
    return result(fd);
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    int fd = openat(root_fd, below(path),
                    (fi->flags & ~(O_DIRECT | O_APPEND | O_TRUNC)) | O_CREAT |
                    O_EXCL, mode);

    fi->fh = fd;
    return named(fd, 'c', inode_of(fd), path, "");
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    close(fi->fh);
    return 0;
}

static int fs_read(const char *path, char *buf, size_t size, off_t offset,
                   struct fuse_file_info *fi)
{
    ssize_t got = pread(fi->fh, buf, size, offset);

    (void)path;
    return got < 0 ? -errno : got;
}

static int fs_write(const char *path, const char *buf, size_t size,
                    off_t offset, struct fuse_file_info *fi)
{
    ssize_t done = pwrite(fi->fh, buf, size, offset);

    (void)path;
    if (done < 0) {
        return -errno;
    }
    note('w', inode_of(fi->fh), offset, buf, done);
    return done;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    int fd = fi ? (int)fi->fh : openat(root_fd, below(path), O_WRONLY);
    int ret = result(fd < 0 ? fd : ftruncate(fd, size));

    if (ret == 0) {
        note('t', inode_of(fd), size, NULL, 0);
    }
    if (!fi && fd >= 0) {
        close(fd);
    }
    return ret;
}

/* Data and metadata are one here; the folder below needs no sync */
static int fs_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    (void)path, (void)data_only;
    note('s', inode_of(fi->fh), 0, NULL, 0);
    return 0;
}

static int fs_fsyncdir(const char *path, int data_only,
                       struct fuse_file_info *fi)
{
    (void)data_only, (void)fi;
    return named(0, 'd', 0, path, "");
}

static int fs_unlink(const char *path)
{
    return named(unlinkat(root_fd, below(path), 0), 'u', 0, path, "");
}

static int fs_rename(const char *from, const char *to, unsigned flags)
{
    if (flags) {
        return -EINVAL;
    }
    return named(renameat(root_fd, below(from), root_fd, below(to)), 'r', 0,
                 from, to);
}

static int fs_mkdir(const char *path, mode_t mode)
{
    return result(mkdirat(root_fd, below(path), mode));
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    (void)fi;
    return result(fchmodat(root_fd, below(path), mode, 0));
}

static int fs_chown(const char *path, uid_t uid, gid_t gid,
                    struct fuse_file_info *fi)
{
    (void)fi;
    return result(fchownat(root_fd, below(path), uid, gid, 0));
}

static int fs_utimens(const char *path, const struct timespec times[2],
                      struct fuse_file_info *fi)
{
    (void)fi;
    return result(utimensat(root_fd, below(path), times, 0));
}

static const struct fuse_operations operations = {
    .init = fs_init,
    .getattr = fs_getattr,
    .readdir = fs_readdir,
    .open = fs_open,
    .create = fs_create,
    .release = fs_release,
    .read = fs_read,
    .write = fs_write,
    .truncate = fs_truncate,
    .fsync = fs_fsync,
    .fsyncdir = fs_fsyncdir,
    .unlink = fs_unlink,
    .rename = fs_rename,
    .mkdir = fs_mkdir,
    .chmod = fs_chmod,
    .chown = fs_chown,
    .utimens = fs_utimens,
};

int main(int argc, char **argv)
{
    /* In the foreground, one thread */
    char *options[] = {
        argv[0], "-f", "-s", "-ofsname=logfs", argc == 4 ? argv[3] : "", NULL,
    };

    if (argc != 4) {
        fprintf(stderr, "usage: logfs FOLDER LOG MOUNTPOINT\n");
        return 2;
    }
    root_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
    log_fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (root_fd < 0 || log_fd < 0) {
        perror("logfs");
        return 1;
    }
    return fuse_main(5, options, &operations, NULL);
}
