/* For: timing one program from before it is spawned to after it is reaped, and its peak memory.
 * Owns: the child, in a process group of its own, and the watchdog that kills it.
 * Never: polls, and never grows: with posix_spawn a child's peak starts at its parent's, so this must stay the
 *        smallest process of all.
 *
 * usage: timer SECONDS STDERR_FILE PROGRAM [ARG...]
 * prints "NANOSECONDS PEAK_KIB STATUS"; status is the exit code, 128 + signal, or "hang" when the watchdog bit.
 * The peak is that of the largest process in the tree that was waited for, not a sum (getrusage(2)). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void wake(int signal)
{
	(void)signal;
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		dprintf(2, "usage: timer SECONDS STDERR_FILE PROGRAM [ARG...]\n");
		return 2;
	}
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&files, 2, argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);

	/* Without SA_RESTART, so that the alarm ends wait4 with EINTR. */
	struct sigaction action = { .sa_handler = wake };
	sigaction(SIGALRM, &action, NULL);
	alarm(atoi(argv[1]));

	pid_t pid;
	long long begin = now();
	int error = posix_spawn(&pid, argv[3], &files, &attributes, argv + 3, environ);
	if (error) {
		dprintf(2, "timer: spawning %s: %s\n", argv[3], strerror(error));
		return 2;
	}
	int status;
	struct rusage usage;
	int hang = wait4(pid, &status, 0, &usage) < 0 && errno == EINTR;
	long long end = now();
	if (hang) {
		kill(-pid, SIGKILL);
		wait4(pid, &status, 0, &usage);
		dprintf(1, "%lld %ld hang\n", end - begin, usage.ru_maxrss);
		return 0;
	}
	dprintf(1, "%lld %ld %d\n", end - begin, usage.ru_maxrss,
		WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
