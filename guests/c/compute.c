/*
 * Compute kernels for the benchmark. `compute NAME N` prints a line, runs kernel NAME N times, and prints a line with a checksum,
 * which must be the same on every machine.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Integer and memory: a sieve of Eratosthenes. */
static uint64_t sieve(void)
{
	static uint8_t composite[1 << 18];
	uint64_t sum = 0;

	memset(composite, 0, sizeof composite);
	for (uint32_t i = 2; i < sizeof composite; i++) {
		if (composite[i])
			continue;
		sum += i;
		for (uint64_t j = (uint64_t)i * i; j < sizeof composite; j += i)
			composite[j] = 1;
	}
	return sum;
}

/* Branches and byte loads: CRC-32 by table. */
static uint64_t crc(void)
{
	static uint32_t table[256];
	static uint8_t data[1 << 16];
	uint32_t value = ~0u;

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++)
			c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
		table[i] = c;
	}
	for (uint32_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + (i >> 8));
	for (uint32_t i = 0; i < sizeof data; i++)
		value = table[(value ^ data[i]) & 0xff] ^ (value >> 8);
	return ~value;
}

/* Calls, returns and indirect calls: sorting with a comparison function. */
static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint64_t sort(void)
{
	static uint32_t data[1 << 14];
	const uint32_t count = sizeof data / sizeof *data;
	uint32_t seed = 1;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		data[i] = seed = seed * 1664525u + 1013904223u;
	qsort(data, count, sizeof *data, compare);
	for (uint32_t i = 0; i < count; i++)
		sum = sum * 31 + data[i];
	return sum;
}

/* Scalar double precision: an orbit. */
static uint64_t orbit(void)
{
	double x = 1, y = 0, vx = 0, vy = 1;
	uint64_t bits;

	for (int i = 0; i < 20000; i++) {
		double r2 = x * x + y * y, r3 = r2 * __builtin_sqrt(r2);

		vx -= x / r3 * 1e-3;
		vy -= y / r3 * 1e-3;
		x += vx * 1e-3;
		y += vy * 1e-3;
	}
	x += y;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

/* Packed single precision: a matrix product, vectorized by the compiler. */
static uint64_t matrix(void)
{
	enum { SIZE = 64 };
	static float a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
	float sum = 0;
	uint32_t bits;

	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++) {
			a[i][j] = (float)(i + j);
			b[i][j] = (float)(i - j);
			c[i][j] = 0;
		}
	for (int i = 0; i < SIZE; i++)
		for (int k = 0; k < SIZE; k++)
			for (int j = 0; j < SIZE; j++)
				c[i][j] += a[i][k] * b[k][j];
	for (int i = 0; i < SIZE; i++)
		sum += c[i][SIZE - 1 - i];
	memcpy(&bits, &sum, sizeof bits);
	return bits;
}

static const struct {
	const char *name;
	uint64_t (*run)(void);
} kernels[] = {
	{ "sieve", sieve }, { "crc", crc }, { "sort", sort }, { "orbit", orbit }, { "matrix", matrix },
};

int main(int argc, char **argv)
{
	long rounds = argc > 2 ? atol(argv[2]) : 1;

	for (size_t i = 0; argc > 1 && i < sizeof kernels / sizeof *kernels; i++) {
		uint64_t sum = 0;

		if (strcmp(kernels[i].name, argv[1]) != 0)
			continue;
		printf("compute: %s start %ld\n", argv[1], rounds);
		fflush(stdout);
		for (long round = 0; round < rounds; round++)
			sum = sum * 1000003 + kernels[i].run();
		printf("compute: %s end %016llx\n", argv[1], (unsigned long long)sum);
		fflush(stdout);
		return 0;
	}
	fprintf(stderr, "usage: compute sieve|crc|sort|orbit|matrix [rounds]\n");
	return 2;
}
