/*
 * The cost of a system call: `getpid N` prints a line, calls getpid N times, and prints a line. Whoever watches the
 * console takes the time between the two.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long calls = argc > 1 ? atol(argv[1]) : 100000;

	printf("getpid: start %ld\n", calls);
	fflush(stdout);
	for (long i = 0; i < calls; i++)
		syscall(SYS_getpid);
	printf("getpid: end\n");
	fflush(stdout);
	return 0;
}
