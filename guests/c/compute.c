/*
 * Compute kernels for the benchmark. `compute NAME N` prints a line, runs kernel NAME N times, and prints a line with a checksum,
 * which must be the same on every machine.
 */
#include <immintrin.h>
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

/* Double precision, many independent results: bodies that attract each other. */
static uint64_t bodies(void)
{
	enum { COUNT = 16 };
	double x[COUNT], y[COUNT], vx[COUNT], vy[COUNT], sum = 0;
	uint64_t bits;

	for (int i = 0; i < COUNT; i++) {
		x[i] = i * 0.5 - 4;
		y[i] = (i * 7 % COUNT) * 0.25;
		vx[i] = vy[i] = 0;
	}
	for (int step = 0; step < 100; step++) {
		for (int i = 0; i < COUNT; i++)
			for (int j = 0; j < COUNT; j++) {
				double dx = x[j] - x[i], dy = y[j] - y[i], r2 = dx * dx + dy * dy + 0.01;
				double pull = 1e-3 / (r2 * __builtin_sqrt(r2));

				vx[i] += dx * pull;
				vy[i] += dy * pull;
			}
		for (int i = 0; i < COUNT; i++) {
			x[i] += vx[i] * 1e-3;
			y[i] += vy[i] * 1e-3;
		}
	}
	for (int i = 0; i < COUNT; i++)
		sum += x[i] * y[i];
	memcpy(&bits, &sum, sizeof bits);
	return bits;
}

/* Double precision in memory: heat that spreads over a plane. */
static uint64_t heat(void)
{
	enum { SIZE = 96 };
	static double plane[2][SIZE][SIZE];
	uint64_t bits;

	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++)
			plane[0][i][j] = plane[1][i][j] = (i * 31 + j * 17) % 64;
	for (int step = 0; step < 20; step++) {
		double (*from)[SIZE] = plane[step & 1], (*to)[SIZE] = plane[~step & 1];

		for (int i = 1; i < SIZE - 1; i++)
			for (int j = 1; j < SIZE - 1; j++)
				to[i][j] = from[i][j] * 0.5 +
					   (from[i - 1][j] + from[i + 1][j] + from[i][j - 1] + from[i][j + 1]) * 0.125;
	}
	memcpy(&bits, &plane[0][SIZE / 2][SIZE / 2], sizeof bits);
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

/* 256-bit vectors: polynomials by fused multiply-add, and a shuffle. */
__attribute__((target("avx2,fma"))) static uint64_t avx(void)
{
	__m256d x = _mm256_set_pd(0.1, 0.2, 0.3, 0.4), sum = _mm256_setzero_pd();
	const __m256d a = _mm256_set1_pd(0.75), b = _mm256_set1_pd(-0.5), c = _mm256_set1_pd(0.25);
	__m256i bits = _mm256_set1_epi64x(0);
	uint64_t parts[4];

	for (int i = 0; i < 20000; i++) {
		x = _mm256_fmadd_pd(_mm256_fmadd_pd(x, a, b), x, c);
		sum = _mm256_add_pd(sum, _mm256_permute4x64_pd(x, 0x39));
		bits = _mm256_xor_si256(_mm256_slli_epi64(bits, 1), _mm256_castpd_si256(sum));
	}
	_mm256_storeu_si256((__m256i *)parts, bits);
	return parts[0] ^ parts[1] ^ parts[2] ^ parts[3];
}

/* x87: the orbit again, in extended precision. */
static uint64_t x87(void)
{
	long double x = 1, y = 0, vx = 0, vy = 1;
	uint64_t bits;

	for (int i = 0; i < 5000; i++) {
		long double r2 = x * x + y * y, r3 = r2 * __builtin_sqrtl(r2);

		vx -= x / r3 * 1e-3L;
		vy -= y / r3 * 1e-3L;
		x += vx * 1e-3L;
		y += vy * 1e-3L;
	}
	x += y;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

/* Rotates and logic: the compression function of SHA-256, with constants of our own. */
static uint64_t sha(void)
{
	uint32_t h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, w[64];

	for (uint32_t block = 0; block < 500; block++) {
		uint32_t s[8];

		for (uint32_t i = 0; i < 16; i++)
			w[i] = block * 16 + i;
#define ROTATE(v, n) ((v) >> (n) | (v) << (32 - (n)))
		for (int i = 16; i < 64; i++)
			w[i] = w[i - 16] + (ROTATE(w[i - 15], 7) ^ ROTATE(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
			       (ROTATE(w[i - 2], 17) ^ ROTATE(w[i - 2], 19) ^ w[i - 2] >> 10);
		memcpy(s, h, sizeof s);
		for (uint32_t i = 0; i < 64; i++) {
			uint32_t t1 = s[7] + (ROTATE(s[4], 6) ^ ROTATE(s[4], 11) ^ ROTATE(s[4], 25)) +
				      ((s[4] & s[5]) ^ (~s[4] & s[6])) + i * 0x9e3779b9u + w[i];
			uint32_t t2 = (ROTATE(s[0], 2) ^ ROTATE(s[0], 13) ^ ROTATE(s[0], 22)) +
				      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

			for (int k = 7; k > 0; k--)
				s[k] = s[k - 1];
			s[4] += t1;
			s[0] = t1 + t2;
		}
		for (int i = 0; i < 8; i++)
			h[i] += s[i];
	}
	return (uint64_t)h[0] << 32 | h[7];
}

/* Indirect jumps: an interpreter of byte code that adds up the digits of numbers. */
static uint64_t vm(void)
{
	enum { PUSH, ADD, MODULO, DIVIDE, DUPLICATE, SWAP, JUMP_IF, DECREMENT, STORE, LOAD, END };
	static const uint8_t code[] = {
		PUSH, 0, STORE, 0, PUSH, 200, STORE, 1,
		/* 8: n = i * i */
		LOAD, 1, LOAD, 1, ADD, PUSH, 77, ADD, STORE, 2,
		/* 18: sum += n % 10; n /= 10 */
		LOAD, 2, PUSH, 10, MODULO, LOAD, 0, ADD, STORE, 0, LOAD, 2, PUSH, 10, DIVIDE, DUPLICATE, STORE, 2, JUMP_IF, 18,
		LOAD, 1, DECREMENT, DUPLICATE, STORE, 1, JUMP_IF, 8, END,
	};
	uint64_t stack[16], variables[4] = { 0 }, sum = 0;

	for (int round = 0; round < 20; round++) {
		const uint8_t *at = code;
		uint64_t *top = stack;

		for (;;) {
			switch (*at++) {
			case PUSH: *top++ = *at++; continue;
			case ADD: top--; top[-1] += *top; continue;
			case MODULO: top--; top[-1] = (uint32_t)top[-1] % (uint32_t)*top; continue;
			case DIVIDE: top--; top[-1] = (uint32_t)top[-1] / (uint32_t)*top; continue;
			case DUPLICATE: *top = top[-1]; top++; continue;
			case SWAP: { uint64_t other = top[-1]; top[-1] = top[-2]; top[-2] = other; continue; }
			case JUMP_IF: at = *--top ? code + *at : at + 1; continue;
			case DECREMENT: top[-1]--; continue;
			case STORE: variables[*at++] = *--top; continue;
			case LOAD: *top++ = variables[*at++]; continue;
			default: break;
			}
			break;
		}
		sum += variables[0];
	}
	return sum;
}

/* Hash table and strings. */
static uint64_t hash(void)
{
	static char keys[1024][16];
	static uint16_t table[4096];
	uint64_t found = 0;

	memset(table, 0, sizeof table);
	for (unsigned i = 0; i < 1024; i++) {
		snprintf(keys[i], sizeof keys[i], "key%u", i * 7919);
		uint32_t h = 2166136261u;
		for (const char *c = keys[i]; *c; c++)
			h = (h ^ (uint8_t)*c) * 16777619u;
		while (table[h & 4095])
			h++;
		table[h & 4095] = (uint16_t)(i + 1);
	}
	for (unsigned i = 0; i < 4096; i++)
		if (table[i])
			found += strlen(keys[table[i] - 1]) * (strcmp(keys[table[i] - 1], "key5") > 0) + i;
	return found;
}

static uint8_t area[2][1 << 20];

/* The C library's memcpy, whatever it makes of the processor. */
static uint64_t copy(void)
{
	area[0][5] = 7;
	memcpy(area[1], area[0], sizeof area[0]);
	__asm__ volatile("" ::: "memory");
	return area[1][5];
}

/* REP MOVSB and REP STOSQ. */
static uint64_t string(void)
{
	void *to = area[1], *from = area[0];
	uint64_t count = sizeof area[0];

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) :: "memory");
	to = area[0];
	count = sizeof area[0] / 8;
	__asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(0x0102030405060708) : "memory");
	return area[0][5] + area[1][6];
}

static const struct {
	const char *name;
	uint64_t (*run)(void);
} kernels[] = {
	{ "sieve", sieve }, { "crc", crc }, { "sort", sort }, { "hash", hash }, { "vm", vm }, { "sha", sha }, { "orbit", orbit },
	{ "bodies", bodies }, { "heat", heat },
	{ "matrix", matrix }, { "avx", avx }, { "x87", x87 }, { "copy", copy }, { "string", string },
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
	fprintf(stderr, "usage: compute sieve|crc|sort|hash|vm|sha|orbit|bodies|heat|matrix|avx|x87|copy|string [rounds]\n");
	return 2;
}
