/* takeover_spawn.c: starts a successor of this process and watches it until it serves. */
#include "proxy/takeover_spawn.h"

#include "proxy/poller.h"

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void spawn_init(struct spawned *spawned)
{
    ssize_t length = readlink("/proc/self/exe", spawned->program, sizeof spawned->program - 1);
    spawned->program[length > 0 ? length : 0] = '\0';
    spawned->pid = 0;
    spawned->pidfd = -1;
}

/* Signals that this process blocks or ignores are as usual in the new one. */
static int spawn(pid_t *pid, const char *program, const char *config_path)
{
    char *argv[] = {(char *)"pgshunt", (char *)"-c", (char *)config_path, (char *)"--takeover",
                    NULL};
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    poller_descriptors_shared(true);
    int failed =
        posix_spawn(pid, program, NULL, &attributes, argv, environ); /* back after exec() */
    poller_descriptors_shared(false);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

bool spawn_successor(struct spawned *spawned, const char *config_path, char *error, size_t size)
{
    int failed = spawn(&spawned->pid, spawned->program, config_path);
    if (failed) {
        snprintf(error, size, "cannot start %.100s: %s", spawned->program, strerror(failed));
        return false;
    }
    spawned->pidfd = pidfd_open(spawned->pid, 0);
    return true;
}

void spawn_ended(struct spawned *spawned, char *text, size_t size)
{
    int status = 0;
    waitpid(spawned->pid, &status, 0);
    if (WIFEXITED(status))
        snprintf(text, size, "the new process ended with exit code %d; its log says why",
                 WEXITSTATUS(status));
    else
        snprintf(text, size, "the new process was ended by signal %d", WTERMSIG(status));
    spawn_forget(spawned);
}

void spawn_forget(struct spawned *spawned)
{
    if (spawned->pidfd >= 0)
        close(spawned->pidfd);
    spawned->pidfd = -1;
}
