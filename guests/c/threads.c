/*
 * Threads that share memory in every way the processor orders for them: locked instructions of all sizes and alignments, locks made of
 * them, fences, message passing, code that another thread changes, pages that come and go. `threads N SECONDS` runs N threads through all of
 * it again and again, for so long; it prints a line for each kind with the count of what was done, and exits with 0 if everything was right.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST 64
/* What one thread does of one kind in one round. */
#define ROUND 20000
#define SMALL_ROUND 2000
/* Locks across cache lines stop all processors, and some hosts punish them: one access in so many. */
#define SELDOM 50

static int count;
static int failures;
static pthread_barrier_t barrier;

static void failed(const char *name, const char *what, uint64_t expected, uint64_t found)
{
	printf("FAIL %s: %s: expected %#llx, found %#llx\n", name, what, (unsigned long long)expected,
	       (unsigned long long)found);
	fflush(stdout);
	__atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST);
}

static void expect(const char *name, const char *what, uint64_t expected, uint64_t found)
{
	if (expected != found)
		failed(name, what, expected, found);
}

/* Everybody waits for everybody. One is told that it is the one. */
static int meet(void)
{
	return pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD;
}

/* Two pages for accesses at any alignment: those at SPLIT_PAGE reach over their border, those at SPLIT_LINE over that of a cache line. */
static uint8_t shared[8192] __attribute__((aligned(4096)));
#define SPLIT_LINE 61
#define SPLIT_PAGE 4093

/* Counters of every size and alignment, changed by every locked instruction that adds. */
static void counters(int me)
{
	uint64_t *aligned = (void *)(shared + 128), *line = (void *)(shared + SPLIT_LINE), *page = (void *)(shared + SPLIT_PAGE);
	uint32_t *four = (void *)(shared + 256);
	uint16_t *two = (void *)(shared + 262);
	uint8_t *one = shared + 265;

	(void)me;
	for (int i = 0; i < ROUND; i++) {
		uint64_t add = 1, old, new;

		__asm__ volatile("lock xaddq %0, %1" : "+r"(add), "+m"(*aligned) : : "memory", "cc");
		__asm__ volatile("lock incl %0" : "+m"(*four) : : "memory", "cc");
		__asm__ volatile("lock addw $3, %0" : "+m"(*two) : : "memory", "cc");
		__asm__ volatile("lock subb $1, %0" : "+m"(*one) : : "memory", "cc");
		if (i % SELDOM)
			continue;
		old = *line;
		do {
			new = old + 0x100000001ull;
			__asm__ volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*line) : "r"(new) : "memory", "cc");
		} while (old + 0x100000001ull != new);
		if (i % (8 * SELDOM) == 0)
			__asm__ volatile("lock addq %1, %0" : "+m"(*page) : "r"(0x1000000000001ull) : "memory", "cc");
	}
	if (meet()) {
		uint64_t all = (uint64_t)count * ROUND, lines = (uint64_t)count * (ROUND / SELDOM);

		expect("counters", "xadd", all, *aligned);
		expect("counters", "inc", (uint32_t)all, *four);
		expect("counters", "add of 2 bytes", (uint16_t)(3 * all), *two);
		expect("counters", "sub of 1 byte", (uint8_t)-all, *one);
		expect("counters", "cmpxchg across lines", 0x100000001ull * lines, *line);
		expect("counters", "add across pages", 0x1000000000001ull * (lines / 8), *page);
		memset(shared, 0, sizeof shared);
	}
}

/* 16 bytes whose halves belong together. */
static void pairs(int me)
{
	static struct {
		uint64_t low, high;
	} pair __attribute__((aligned(16)));

	(void)me;
	for (int i = 0; i < ROUND; i++) {
		uint64_t low = pair.low, high = pair.high;
		uint8_t done;

		do {
			__asm__ volatile("lock cmpxchg16b %1\n\tsete %0"
					 : "=q"(done), "+m"(pair), "+a"(low), "+d"(high)
					 : "b"(low + 1), "c"(high + 3)
					 : "memory", "cc");
			/* What it gives was there at one time. */
			if (!done && high != 3 * low)
				failed("pairs", "halves of one value", 3 * low, high);
		} while (!done);
	}
	if (meet()) {
		expect("pairs", "low half", (uint64_t)count * ROUND, pair.low);
		expect("pairs", "high half", 3 * (uint64_t)count * ROUND, pair.high);
		pair.low = pair.high = 0;
	}
}

/* Plain counters behind locks of two kinds. */
static void locks(int me)
{
	static volatile uint32_t exchanged, bit;
	static volatile uint64_t behind_exchanged, behind_bit;

	(void)me;
	for (int i = 0; i < SMALL_ROUND; i++) {
		uint32_t value;
		uint8_t was;

		for (int turns = 0;; turns++) {
			value = 1;
			__asm__ volatile("xchgl %0, %1" : "+r"(value), "+m"(exchanged) : : "memory");
			if (!value)
				break;
			__asm__ volatile("pause");
			if (turns % 100 == 99)
				sched_yield();
		}
		behind_exchanged++;
		__asm__ volatile("movl $0, %0" : "=m"(exchanged) : : "memory");
		for (int turns = 0;; turns++) {
			__asm__ volatile("lock btsl $7, %1\n\tsetc %0" : "=q"(was), "+m"(bit) : : "memory", "cc");
			if (!was)
				break;
			__asm__ volatile("pause");
			if (turns % 100 == 99)
				sched_yield();
		}
		behind_bit++;
		__asm__ volatile("lock btrl $7, %0" : "+m"(bit) : : "memory", "cc");
	}
	if (meet()) {
		expect("locks", "behind xchg", (uint64_t)count * SMALL_ROUND, behind_exchanged);
		expect("locks", "behind bts", (uint64_t)count * SMALL_ROUND, behind_bit);
		behind_exchanged = behind_bit = 0;
	}
}

/* Store, fence, load of the other's: two threads cannot both have missed the other's store. */
static struct {
	volatile uint64_t written;
	uint8_t apart[120];
	uint64_t seen[SMALL_ROUND];
	uint8_t apart_too[128];
} sides[2] __attribute__((aligned(128)));

static uint64_t both_missed;

static void store_buffers(int me)
{
	if (me < 2) {
		for (uint64_t i = 1; i <= SMALL_ROUND; i++) {
			uint64_t other;

			sides[me].written = i;
			switch (i % 4) {
			case 0:
				__asm__ volatile("mfence" : : : "memory");
				break;
			case 1:
				__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
				break;
			case 2: {
				uint64_t value = i;
				__asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(sides[me].written) : : "memory");
				break;
			}
			default: {
				uint32_t a = 0, b, c = 0, d;
				__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
			}
			}
			other = sides[1 - me].written;
			sides[me].seen[i - 1] = other;
			/* Often in step, which is where it matters. */
			for (int turns = 0; sides[1 - me].written < i && turns < 200; turns++)
				__asm__ volatile("pause" : : : "memory");
		}
	}
	if (meet()) {
		/* Thread 0 in its step i saw less than j, and thread 1 in its step j less than i: then both missed the other's. */
		for (uint64_t i = 1; i <= SMALL_ROUND; i++) {
			uint64_t j = sides[0].seen[i - 1] + 1;

			if (j <= SMALL_ROUND && sides[1].seen[j - 1] < i) {
				failed("store buffers", "one sees the other", i, sides[1].seen[j - 1]);
				both_missed++;
			}
		}
		sides[0].written = sides[1].written = 0;
	}
}

/* Data, then a flag: whoever sees the flag sees the data. Also with stores that go past the cache, and a fence. */
static void messages(int me)
{
	static volatile uint64_t data[64], flag;

	if (me == 0) {
		for (uint64_t i = 1; i <= ROUND; i++) {
			if (i % 2) {
				data[8] = i;
			} else {
				__asm__ volatile("movntiq %1, %0\n\tsfence" : "=m"(data[8]) : "r"(i) : "memory");
			}
			flag = i;
		}
	} else {
		for (uint64_t last = 0, turns = 0; last < ROUND; turns++) {
			uint64_t seen = flag, value = data[8];

			if (value < seen)
				failed("messages", "data behind the flag", seen, value);
			if (seen < last)
				failed("messages", "the flag only grows", last, seen);
			if (seen == last && turns % 64 == 0)
				sched_yield();
			last = seen;
		}
	}
	if (meet())
		data[8] = flag = 0;
}

/* One thread changes an immediate operand; the others, having seen that it did and serialized, execute it. */
static void changed_code(int me)
{
	static uint8_t *code;
	static volatile uint32_t ready, done[MOST];

	if (me == 0) {
		code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (code == MAP_FAILED) {
			failed("changed code", "memory", 0, 1);
			exit(1);
		}
		/* mov $0, %eax; ret */
		memcpy(code, "\xb8\0\0\0\0\xc3", 6);
	}
	meet();
	for (uint32_t i = 1; i <= SMALL_ROUND / 4; i++) {
		if (me == 0) {
			/* As in the kernel, somebody may be executing it meanwhile: it changes as a whole. */
			__atomic_store_n((uint32_t *)(code + 1), i, __ATOMIC_SEQ_CST);
			ready = i;
			for (int other = 1; other < count; other++)
				while (done[other] < i)
					sched_yield();
		} else {
			uint32_t a = 0, b, c = 0, d, value;

			while (ready < i) {
				value = ((uint32_t (*)(void))code)();
				if (value > i)
					failed("changed code", "not what comes later", i, value);
				sched_yield();
			}
			__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
			value = ((uint32_t (*)(void))code)();
			expect("changed code", "the new operand", i, value);
			done[me] = i;
		}
	}
	if (meet()) {
		munmap(code, 4096);
		memset((void *)done, 0, sizeof done);
		ready = 0;
	}
	meet();
}

/* Pages that are given back and touched again by everybody, with the TLB shootdowns that this takes. */
static void pages(int me)
{
	static uint8_t *area;
	const size_t size = 64 << 12;

	if (me == 0)
		area = mmap(NULL, size * MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	meet();
	for (int i = 0; i < 20; i++) {
		uint64_t *mine = (void *)(area + size * (size_t)me);

		for (size_t at = 0; at < size / 8; at += 512) {
			expect("pages", "a page is zero at first", 0, mine[at]);
			mine[at] = ((uint64_t)me << 32) + at + 1;
		}
		for (size_t at = 0; at < size / 8; at += 512)
			expect("pages", "and keeps its value", ((uint64_t)me << 32) + at + 1, mine[at]);
		if (i % 4 == 3)
			mprotect(mine, size, PROT_READ);
		madvise(mine, size, MADV_DONTNEED);
		if (i % 4 == 3)
			mprotect(mine, size, PROT_READ | PROT_WRITE);
	}
	if (meet())
		munmap(area, size * MOST);
	meet();
}

/* Threads that sleep and wake each other. */
static void wakes(int me)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
	static int turn;

	for (int i = 0; i < 50; i++) {
		pthread_mutex_lock(&mutex);
		while (turn % count != me)
			pthread_cond_wait(&turned, &mutex);
		turn++;
		pthread_cond_broadcast(&turned);
		pthread_mutex_unlock(&mutex);
	}
	if (meet()) {
		expect("wakes", "turns", (uint64_t)count * 50, (uint64_t)turn);
		turn = 0;
	}
	meet();
}

static const struct {
	const char *name;
	void (*run)(int);
} kinds[] = {
	{ "counters", counters },	{ "pairs", pairs },	      { "locks", locks },
	{ "store buffers", store_buffers }, { "messages", messages }, { "changed code", changed_code },
	{ "pages", pages },		{ "wakes", wakes },
};

static volatile int ending;
static double limit;
static uint64_t rounds;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void *work(void *argument)
{
	const int me = (int)(intptr_t)argument;
	const double start = now();

	for (;;) {
		for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
			meet();
			kinds[kind].run(me);
		}
		if (meet()) {
			rounds++;
			ending = now() - start >= limit || failures > 20;
		}
		meet();
		if (ending)
			return NULL;
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[MOST];

	if (argc != 3 || (count = atoi(argv[1])) < 2 || count > MOST) {
		fprintf(stderr, "usage: threads N SECONDS, with 2 to %d threads\n", MOST);
		return 2;
	}
	limit = atof(argv[2]);
	pthread_barrier_init(&barrier, NULL, (unsigned)count);
	for (int i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("threads: %llu rounds of %d threads, %d failures\n", (unsigned long long)rounds, count, failures);
	return failures != 0;
}
