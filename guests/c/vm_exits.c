/*
 * The cost of a virtual machine under Linux's KVM: `vm_exits NAME N` prints a line, runs a guest whose loop does NAME N times, and prints
 * a line. `cpuid` is an exit that the kernel handles, `out` one that comes to this program, `loop` computes without any; `here` is the
 * same loop in this program.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_SIZE 0x200000
#define CODE 0x8000

/* RSI times; RDI, R8 and what is at RDI are the loop's. */
#define LOOP                                   \
	"	imulq $0x5851f42d, %r8, %r8\n" \
	"	addq %rsi, %r8\n"              \
	"	movl %r8d, %eax\n"             \
	"	shrl $22, %eax\n"              \
	"	addq (%rdi,%rax,8), %r8\n"     \
	"	movq %r8, (%rdi,%rax,8)\n"     \
	"	decq %rsi\n"

__asm__(".pushsection .text\n"
	"cpuid_begin:\n"
	"1:	xorl %eax, %eax\n"
	"	cpuid\n"
	"	decq %rsi\n"
	"	jnz 1b\n"
	"	hlt\n"
	"out_begin:\n"
	"1:	outb %al, $0x10\n"
	"	decq %rsi\n"
	"	jnz 1b\n"
	"	hlt\n"
	"loop_begin:\n"
	"1:" LOOP
	"	jnz 1b\n"
	"	hlt\n"
	"loop_end:\n"
	"here:\n"
	"	movl $1, %r8d\n"
	"1:" LOOP
	"	jnz 1b\n"
	"	ret\n"
	".popsection\n");
extern const char cpuid_begin[], out_begin[], loop_begin[], loop_end[];
void here(uint64_t *table, long n);

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void guest(const char *code, long n)
{
	const struct kvm_segment segment = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1,
	};
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsi = (uint64_t)n, .rdi = 0x9000, .r8 = 1 };
	struct kvm_sregs sregs;
	uint64_t entry;
	int kvm = open("/dev/kvm", O_RDWR);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	uint8_t *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE, .userspace_addr = (uintptr_t)memory };

	if (vm < 0 || memory == MAP_FAILED)
		fail("kvm");
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	memcpy(memory + CODE, code, (size_t)(loop_end - code));
	/* The first 2 MiB, one to one. */
	entry = 0x2003, memcpy(memory + 0x1000, &entry, 8);
	entry = 0x3003, memcpy(memory + 0x2000, &entry, 8);
	entry = 0x83, memcpy(memory + 0x3000, &entry, 8);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		fail("KVM_SET_USER_MEMORY_REGION");
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	struct kvm_run *run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (vcpu < 0 || run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		fail("vcpu");
	sregs.cs = segment;
	sregs.ds = segment;
	sregs.ds.type = 3;
	sregs.ds.selector = 16;
	sregs.ds.l = 0;
	sregs.ds.db = 1;
	sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
	sregs.cr3 = 0x1000;
	sregs.cr4 = 0x20;
	sregs.cr0 = 0x80000011;
	sregs.efer = 0x500;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		fail("registers");
	do {
		if (ioctl(vcpu, KVM_RUN, 0) < 0)
			fail("KVM_RUN");
	} while (run->exit_reason == KVM_EXIT_IO);
	if (run->exit_reason != KVM_EXIT_HLT) {
		printf("vm_exits: exit reason %u\n", run->exit_reason);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static uint64_t table[1024];
	const char *name = argc > 1 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[2]) : 1;

	printf("vm_exits: %s start %ld\n", name, n);
	fflush(stdout);
	if (strcmp(name, "cpuid") == 0)
		guest(cpuid_begin, n);
	else if (strcmp(name, "out") == 0)
		guest(out_begin, n);
	else if (strcmp(name, "loop") == 0)
		guest(loop_begin, n);
	else if (strcmp(name, "here") == 0)
		here(table, n);
	else
		return 2;
	printf("vm_exits: %s end\n", name);
	fflush(stdout);
	return 0;
}
