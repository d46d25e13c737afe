/*
 * What the kernel does for programs: `system NAME N` prints a line, does NAME N times, and prints a line.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void pipes(long n)
{
	int there[2], back[2];
	char byte = 0;

	if (pipe(there) || pipe(back))
		fail("pipe");
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		for (long i = 0; i < n; i++)
			if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1)
				_exit(1);
		_exit(0);
	}
	for (long i = 0; i < n; i++)
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			fail("pipe");
	waitpid(child, NULL, 0);
}

static void forks(long n)
{
	for (long i = 0; i < n; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		if (child < 0)
			fail("fork");
		waitpid(child, NULL, 0);
	}
}

static void execs(long n)
{
	for (long i = 0; i < n; i++) {
		pid_t child = fork();

		if (child == 0) {
			execl("/proc/self/exe", "system", "nothing", "0", NULL);
			_exit(1);
		}
		if (child < 0)
			fail("fork");
		waitpid(child, NULL, 0);
	}
}

static void faults(long n)
{
	enum { PAGES = 256 };

	for (long i = 0; i < n; i += PAGES) {
		char *memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			fail("mmap");
		madvise(memory, PAGES * 4096, MADV_NOHUGEPAGE);
		for (int page = 0; page < PAGES; page++)
			memory[page * 4096] = 1;
		munmap(memory, PAGES * 4096);
	}
}

static void switches(long n)
{
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	for (long i = 0; i < n; i++)
		sched_yield();
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(long n);
	} all[] = {
		{ "pipe", pipes }, { "fork", forks }, { "exec", execs }, { "faults", faults }, { "switch", switches },
	};
	long n = argc > 2 ? atol(argv[2]) : 1;

	for (size_t i = 0; argc > 1 && i < sizeof all / sizeof *all; i++) {
		if (strcmp(all[i].name, argv[1]) != 0)
			continue;
		printf("system: %s start %ld\n", argv[1], n);
		fflush(stdout);
		all[i].run(n);
		printf("system: %s end\n", argv[1]);
		fflush(stdout);
		return 0;
	}
	return argc > 1 && strcmp(argv[1], "nothing") == 0 ? 0 : 2;
}
