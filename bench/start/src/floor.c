// The floor: only the system calls that a container of the bundle's kind needs, in one program that knows it beforehand. Nothing
// is read, checked or resolved safely, no state is kept, and the filter is there, compiled.
//
// floor ROOT FILTER WORD...: each word is one of
//   cgroup:NAME:DIRECTORY   made, joined, shown inside as /sys/fs/cgroup/NAME, and removed
//   set:FILE=VALUE          a limit
//   mask:PATH, ro:PATH      hidden, read-only

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRY(call) do { if ((call) < 0) die(#call); } while (0)
#define USUAL (MS_NOSUID | MS_NOEXEC | MS_NODEV)

static struct sock_filter filter[4096];
static unsigned short filter_length;

static void die(const char *what) {
    perror(what);
    _exit(125);
}

static void put(const char *path, const char *value) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0) die(path);
    close(fd);
}

static const char *after(const char *word, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(word, prefix, length) == 0 ? word + length : NULL;
}

static void bind_read_only(const char *from, const char *to) {
    TRY(mount(from, to, NULL, MS_BIND | MS_REC, NULL));
    TRY(mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | USUAL, NULL));
}

static void load(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, filter, sizeof filter);
    if (fd < 0 || length < 0) die(path);
    filter_length = length / sizeof filter[0];
    close(fd);
}

static void make_devices(void) {
    static const struct { const char *path; int major, minor; } devices[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
        TRY(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    TRY(symlink("/proc/self/fd", "dev/fd"));
    TRY(symlink("/proc/self/fd/0", "dev/stdin"));
    TRY(symlink("/proc/self/fd/1", "dev/stdout"));
    TRY(symlink("/proc/self/fd/2", "dev/stderr"));
    TRY(symlink("pts/ptmx", "dev/ptmx"));
}

static void make_mounts(void) {
    TRY(mount("proc", "proc", "proc", USUAL, NULL));
    TRY(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    TRY(mkdir("dev/pts", 0755));
    TRY(mkdir("dev/shm", 0755));
    TRY(mkdir("dev/mqueue", 0755));
    TRY(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    TRY(mount("tmpfs", "dev/shm", "tmpfs", USUAL, "mode=1777,size=65536k"));
    TRY(mount("mqueue", "dev/mqueue", "mqueue", USUAL, NULL));
    TRY(mount("sysfs", "sys", "sysfs", USUAL | MS_RDONLY, NULL));
    TRY(mount("tmpfs", "sys/fs/cgroup", "tmpfs", USUAL, "mode=755"));
    TRY(mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=65536k"));
    make_devices();
}

static void show_cgroup(const char *words) {
    char to[256] = "sys/fs/cgroup/";
    const char *directory = strchr(words, ':') + 1;
    strncat(to, words, directory - 1 - words);
    TRY(mkdir(to, 0755));
    bind_read_only(directory, to);
}

static void cover(const char *path, int hide) {
    struct stat found;
    const char *inside = path + 1;
    if (stat(inside, &found) < 0) return;
    if (!hide) bind_read_only(inside, inside);
    else if (S_ISDIR(found.st_mode)) TRY(mount("tmpfs", inside, "tmpfs", USUAL | MS_RDONLY, "size=4k"));
    else TRY(mount("dev/null", inside, NULL, MS_BIND, NULL));
}

static void confine(void) {
    struct rlimit none = {0, 0}, files = {1024, 1024};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct nothing[2] = {{0}};
    struct sock_fprog program = {filter_length, filter};
    TRY(setrlimit(RLIMIT_CORE, &none));
    TRY(setrlimit(RLIMIT_NOFILE, &files));
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        TRY(prctl(PR_CAPBSET_DROP, capability));
    TRY(syscall(SYS_capset, &header, nothing));
    TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void become(char **words, const char *root) {
    char path[4096];
    for (char **word = words; *word; word++) {
        const char *cgroup = after(*word, "cgroup:");
        if (!cgroup) continue;
        // By the file for threads, where there is one: then the kernel waits for nobody.
        snprintf(path, sizeof path, "%s/tasks", strchr(cgroup, ':') + 1);
        if (access(path, W_OK) < 0)
            snprintf(path, sizeof path, "%s/cgroup.procs", strchr(cgroup, ':') + 1);
        put(path, "0");
    }
    TRY(unshare(CLONE_NEWCGROUP));
    TRY(setsid());
    put("/proc/self/oom_score_adj", "500");
    put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    TRY(sethostname("bench", 5));
    TRY(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
    TRY(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
    TRY(chdir(root));
    make_mounts();
    const char *rest;
    for (char **word = words; *word; word++) {
        if ((rest = after(*word, "cgroup:"))) show_cgroup(rest);
        if ((rest = after(*word, "mask:"))) cover(rest, 1);
        if ((rest = after(*word, "ro:"))) cover(rest, 0);
    }
    TRY(mount(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | USUAL, NULL));
    TRY(mount(NULL, root, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
    TRY(syscall(SYS_pivot_root, ".", "."));
    TRY(umount2(".", MNT_DETACH));
    TRY(chdir("/"));
    confine();
    char *arguments[] = {"/true", NULL}, *environment[] = {"PATH=/", NULL};
    execve(arguments[0], arguments, environment);
    die("execve");
}

int main(int count, char **all) {
    if (count < 3) return 125;
    char **words = all + 3;
    load(all[2]);
    for (char **word = words; *word; word++) {
        const char *rest = after(*word, "cgroup:");
        if (rest) TRY(mkdir(strchr(rest, ':') + 1, 0755));
        if ((rest = after(*word, "set:"))) {
            const char *value = strchr(rest, '=');
            char *file = strndup(rest, value - rest);
            put(file, value + 1);
            free(file);
        }
    }
    struct clone_args arguments = {
        .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
        .exit_signal = SIGCHLD,
    };
    int status = 0;
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) become(words, all[1]);
    TRY(child);
    TRY(waitpid(child, &status, 0));
    for (char **word = words; *word; word++) {
        const char *cgroup = after(*word, "cgroup:");
        if (cgroup) TRY(rmdir(strchr(cgroup, ':') + 1));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
