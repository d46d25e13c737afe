/*
 * A small client of Linux's KVM: runs guests of a few instructions each and checks everything they do and every exit they make.
 * Prints a line `PASS name` or `FAIL name: why` for each, and exits with 0 when all passed.
 *
 * The guests' code is in this file, between the labels NAME_begin and NAME_end. It is copied to guest-physical CODE.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_SIZE 0x200000
#define CODE 0x8000
/* Nothing is mapped here: accesses are KVM_EXIT_MMIO. */
#define MMIO 0x40000000
#define RESULTS 0x6000

struct vm {
	int vm, vcpu;
	uint8_t *memory;
	struct kvm_run *run;
};

static int kvm;
static const char *current;
static int failures;

static __attribute__((format(printf, 1, 2), noreturn)) void die(const char *format, ...)
{
	va_list arguments;

	printf("FAIL %s: ", current);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(1);
}

#define EXPECT(condition, format, ...)                                                  \
	do {                                                                            \
		if (!(condition))                                                       \
			die("line %d: " #condition ": " format, __LINE__, __VA_ARGS__); \
	} while (0)

static int control(int fd, unsigned long request, void *argument, const char *name)
{
	int result = ioctl(fd, request, argument);

	if (result < 0)
		die("%s: %s", name, strerror(errno));
	return result;
}
#define CONTROL(fd, request, argument) control(fd, request, (void *)(uintptr_t)(argument), #request)

static struct vm create(const void *begin, const void *end, int irqchip)
{
	struct vm vm;
	long run_size;

	vm.vm = CONTROL(kvm, KVM_CREATE_VM, 0);
	CONTROL(vm.vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	if (irqchip)
		CONTROL(vm.vm, KVM_CREATE_IRQCHIP, 0);
	vm.memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(vm.memory != MAP_FAILED, "%s", strerror(errno));
	memcpy(vm.memory + CODE, begin, (size_t)((const char *)end - (const char *)begin));
	struct kvm_userspace_memory_region region = {
		.slot = 0, .guest_phys_addr = 0, .memory_size = MEMORY_SIZE, .userspace_addr = (uintptr_t)vm.memory,
	};
	CONTROL(vm.vm, KVM_SET_USER_MEMORY_REGION, &region);
	vm.vcpu = CONTROL(vm.vm, KVM_CREATE_VCPU, 0);
	run_size = CONTROL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm.run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu, 0);
	EXPECT(vm.run != MAP_FAILED, "%s", strerror(errno));
	return vm;
}

static struct kvm_regs registers(struct vm *vm)
{
	struct kvm_regs regs;

	CONTROL(vm->vcpu, KVM_GET_REGS, &regs);
	return regs;
}

/* Runs until the next exit, which must be for this reason. */
static void run_to(struct vm *vm, uint32_t reason)
{
	if (ioctl(vm->vcpu, KVM_RUN, 0) < 0)
		die("KVM_RUN: %s", strerror(errno));
	if (vm->run->exit_reason != reason) {
		struct kvm_regs regs = registers(vm);

		die("exit reason %u, not %u (hardware reason %#llx, suberror %u, rip %#llx, rax %#llx, rcx %#llx)", vm->run->exit_reason,
		    reason, (unsigned long long)vm->run->hw.hardware_exit_reason, vm->run->internal.suberror,
		    (unsigned long long)regs.rip, (unsigned long long)regs.rax, (unsigned long long)regs.rcx);
	}
}

static uint8_t *io_data(struct vm *vm)
{
	return (uint8_t *)vm->run + vm->run->io.data_offset;
}

/* The next exit must be an OUT of `size` bytes to `port`; gives the value. */
static uint32_t expect_out(struct vm *vm, uint16_t port, uint8_t size)
{
	uint32_t value = 0;

	run_to(vm, KVM_EXIT_IO);
	EXPECT(vm->run->io.direction == KVM_EXIT_IO_OUT && vm->run->io.port == port && vm->run->io.size == size &&
		       vm->run->io.count == 1, "port %#x size %u count %u", vm->run->io.port, vm->run->io.size, vm->run->io.count);
	memcpy(&value, io_data(vm), size);
	return value;
}

/* The next exit must be an IN of `size` bytes from `port`, which reads `value`. */
static void expect_in(struct vm *vm, uint16_t port, uint8_t size, uint32_t value)
{
	run_to(vm, KVM_EXIT_IO);
	EXPECT(vm->run->io.direction == KVM_EXIT_IO_IN && vm->run->io.port == port && vm->run->io.size == size, "port %#x size %u",
	       vm->run->io.port, vm->run->io.size);
	memcpy(io_data(vm), &value, size);
}

static uint64_t expect_mmio(struct vm *vm, int is_write, uint64_t address, uint32_t size, uint64_t answer)
{
	uint64_t value = 0;

	run_to(vm, KVM_EXIT_MMIO);
	EXPECT(vm->run->mmio.is_write == is_write && vm->run->mmio.phys_addr == address && vm->run->mmio.len == size,
	       "write %u address %#llx size %u", vm->run->mmio.is_write, (unsigned long long)vm->run->mmio.phys_addr, vm->run->mmio.len);
	if (is_write)
		memcpy(&value, vm->run->mmio.data, size);
	else
		memcpy(vm->run->mmio.data, &answer, size);
	return value;
}

static uint32_t result32(struct vm *vm, unsigned index)
{
	uint32_t value;

	memcpy(&value, vm->memory + RESULTS + 4 * index, 4);
	return value;
}

static uint64_t result64(struct vm *vm, unsigned index)
{
	uint64_t value;

	memcpy(&value, vm->memory + RESULTS + 8 * index, 8);
	return value;
}

/* --- Real mode: ports, string I/O, an interrupt through the IVT, 32-bit operands, HLT. --- */
asm(".pushsection .rodata\n"
    ".code16\n"
    "real_begin:\n"
    "	movb $0x52, %al\n"
    "	outb %al, $0x10\n"
    "	inb $0x11, %al\n"
    "	addb $3, %al\n"
    "	movb %al, 0x6000\n"
    /* The IVT entry of vector 0x21 points to the handler. */
    "	movw $(real_handler - real_begin + 0x8000), 0x84\n"
    "	movw $0, 0x86\n"
    "	movw $0x1234, %ax\n"
    "	int $0x21\n"
    "	movw %ax, 0x6004\n"
    "	movw $(real_text - real_begin + 0x8000), %si\n"
    "	movw $4, %cx\n"
    "	movw $0x20, %dx\n"
    "	cld\n"
    "	rep outsb\n"
    /* 32-bit operands and addresses. */
    "	movl $0x12345678, %eax\n"
    "	mull %eax\n"
    "	movl %edx, 0x6008\n"
    "	pushfw\n"
    "	popw %ax\n"
    "	movw %ax, 0x600c\n"
    "	hlt\n"
    "	movw $0xbeef, 0x6010\n"
    "	hlt\n"
    "real_handler:\n"
    "	addw $0x1111, %ax\n"
    "	iretw\n"
    "real_text: .ascii \"real\"\n"
    "real_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char real_begin[], real_end[];

static void real_mode(void)
{
	struct vm vm = create(real_begin, real_end, 0);
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsp = 0x7000 };
	char text[5] = "";

	CONTROL(vm.vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	CONTROL(vm.vcpu, KVM_SET_SREGS, &sregs);
	CONTROL(vm.vcpu, KVM_SET_REGS, &regs);

	EXPECT(expect_out(&vm, 0x10, 1) == 'R', "%s", "");
	expect_in(&vm, 0x11, 1, 0x40);
	for (unsigned have = 0; have < 4; have += vm.run->io.count) {
		run_to(&vm, KVM_EXIT_IO);
		EXPECT(vm.run->io.port == 0x20 && vm.run->io.size == 1 && have + vm.run->io.count <= 4, "port %#x", vm.run->io.port);
		memcpy(text + have, io_data(&vm), vm.run->io.count);
	}
	EXPECT(strcmp(text, "real") == 0, "%s", text);
	run_to(&vm, KVM_EXIT_HLT);
	EXPECT((result32(&vm, 0) & 0xff) == 0x43, "%#x", result32(&vm, 0));
	EXPECT((result32(&vm, 1) & 0xffff) == 0x2345, "%#x", result32(&vm, 1));
	EXPECT(result32(&vm, 2) == 0x14b66dc, "%#x", result32(&vm, 2));
	/* MUL set CF and OF, for the upper half is not zero. */
	EXPECT((result32(&vm, 3) & 0x801) == 0x801, "%#x", result32(&vm, 3));
	/* HLT without an irqchip comes back to the client; running again goes on after it. */
	run_to(&vm, KVM_EXIT_HLT);
	EXPECT((result32(&vm, 4) & 0xffff) == 0xbeef, "%#x", result32(&vm, 4));
}

/* --- Long mode with page tables of its own. --- */
asm(".pushsection .rodata\n"
    "long_begin:\n"
    "	movl $0x10000, %esp\n"
    "	lidt long_idt_pointer(%rip)\n"
    /* CPUID: a leaf that the client made. */
    "	movl $0x40000000, %eax\n"
    "	xorl %ecx, %ecx\n"
    "	cpuid\n"
    "	movl %ebx, 0x6000\n"
    "	movl %ecx, 0x6004\n"
    "	movl %edx, 0x6008\n"
    /* Ports. */
    "	movl $0xcafebabe, %eax\n"
    "	movw $0x5678, %dx\n"
    "	outl %eax, %dx\n"
    "	inl %dx, %eax\n"
    "	movl %eax, 0x600c\n"
    /* MMIO of every size, both ways. */
    "	movabs $0x1122334455667788, %rax\n"
    "	movl $0x40000000, %ebx\n"
    "	movb %al, (%rbx)\n"
    "	movw %ax, 2(%rbx)\n"
    "	movl %eax, 4(%rbx)\n"
    "	movq %rax, 8(%rbx)\n"
    "	movq 16(%rbx), %rcx\n"
    "	movq %rcx, 0x6010\n"
    "	movzbl 24(%rbx), %ecx\n"
    "	movq %rcx, 0x6018\n"
    /* A second linear address of the same page. */
    "	movabs $0x8000006000, %rdx\n"
    "	movq 0x10(%rdx), %rcx\n"
    "	movq %rcx, 0x6020\n"
    /* EFER through RDMSR. */
    "	movl $0xc0000080, %ecx\n"
    "	rdmsr\n"
    "	movl %eax, 0x6028\n"
    /* SSE state. */
    "	movl $7, %eax\n"
    "	cvtsi2sd %eax, %xmm0\n"
    "	mulsd %xmm0, %xmm0\n"
    "	cvtsd2si %xmm0, %rax\n"
    "	movq %rax, 0x6030\n"
    /* Exceptions: #UD, #DE, #PF, each counted by its handler. */
    "	ud2\n"
    "	xorl %eax, %eax\n"
    "	xorl %edx, %edx\n"
    "	xorl %ecx, %ecx\n"
    "	divl %ecx\n"
    "	movabs $0x10000000000, %rax\n"
    "	movl (%rax), %ecx\n"
    "	movq %cr2, %rax\n"
    "	movq %rax, 0x6038\n"
    /* A change of a page-table entry and INVLPG: the same address now reads another page. */
    "	movabs $0x8000006000, %rdx\n"
    "	movl $0x7003, 0x14030\n"
    "	invlpg (%rdx)\n"
    "	movl $0x55aa, 0x7010\n"
    "	movl 0x10(%rdx), %ecx\n"
    "	movl %ecx, 0x6040\n"
    /* An interrupt that the client injects. */
    "	sti\n"
    "	hlt\n"
    "	cli\n"
    "	hlt\n"
    "long_ud:\n"
    "	incl 0x6050\n"
    "	addq $2, (%rsp)\n"
    "	iretq\n"
    "long_de:\n"
    "	incl 0x6054\n"
    "	addq $2, (%rsp)\n"
    "	iretq\n"
    "long_pf:\n"
    "	incl 0x6058\n"
    "	popq 0x6060\n"
    "	addq $2, (%rsp)\n"
    "	iretq\n"
    "long_irq:\n"
    "	incl 0x605c\n"
    "	iretq\n"
    "	.balign 8\n"
    "long_idt_pointer:\n"
    "	.word 0xfff\n"
    "	.quad 0x5000\n"
    "long_end:\n"
    ".popsection\n");
extern const char long_begin[], long_end[], long_ud[], long_de[], long_pf[], long_irq[];

#define PAGE_TABLES 0x10000

static void put64(struct vm *vm, uint32_t address, uint64_t value)
{
	memcpy(vm->memory + address, &value, 8);
}

static void gate(struct vm *vm, unsigned vector, const char *begin, const char *handler)
{
	uint64_t offset = CODE + (uint64_t)(handler - begin);

	put64(vm, 0x5000 + 16 * vector, (offset & 0xffff) | 0x8u << 16 | 0x8e00ull << 32 | (offset >> 16 & 0xffff) << 48);
	put64(vm, 0x5000 + 16 * vector + 8, offset >> 32);
}

/*
 * 64-bit mode: the first 2 MiB one to one, MMIO one to one, and the 4 KiB page RESULTS once more at 0x80_0000_6000. The IDT is at
 * 0x5000, the GDT at 0x4000.
 */
static void enter_long_mode(struct vm *vm)
{
	const struct kvm_segment code = {
		.base = 0, .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1,
	};
	struct kvm_segment data = code;
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsp = 0x7000 };

	put64(vm, 0x10000, 0x11003);
	put64(vm, 0x10000 + 8, 0x12003);
	put64(vm, 0x11000, 0x13003);
	put64(vm, 0x11000 + 8, MMIO | 0x83);
	put64(vm, 0x13000, 0x83);
	put64(vm, 0x12000, 0x15003);
	put64(vm, 0x15000, 0x14003);
	put64(vm, 0x14000 + 8 * 6, RESULTS | 3);
	put64(vm, 0x4008, 0x00af9b000000ffff);
	put64(vm, 0x4010, 0x00cf93000000ffff);

	CONTROL(vm->vcpu, KVM_GET_SREGS, &sregs);
	data.type = 3;
	data.selector = 16;
	data.l = 0;
	data.db = 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt.base = 0x4000;
	sregs.gdt.limit = 23;
	sregs.cr3 = PAGE_TABLES;
	sregs.cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
	sregs.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	sregs.efer = 0x500; /* LMA, LME */
	CONTROL(vm->vcpu, KVM_SET_SREGS, &sregs);
	CONTROL(vm->vcpu, KVM_SET_REGS, &regs);
}

/* The CPUID of the host as KVM supports it, with the leaf 0x40000000 replaced by a signature. */
static void set_cpuid(struct vm *vm)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[128];
	} cpuid;
	int found = 0;

	cpuid.head.nent = 128;
	CONTROL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	for (uint32_t i = 0; i < cpuid.head.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &cpuid.head.entries[i];

		if (entry->function != 0x40000000)
			continue;
		entry->eax = 0x40000000;
		memcpy(&entry->ebx, "Vand", 4);
		memcpy(&entry->ecx, "erpo", 4);
		memcpy(&entry->edx, "ol  ", 4);
		found = 1;
	}
	EXPECT(found, "%u leaves", cpuid.head.nent);
	CONTROL(vm->vcpu, KVM_SET_CPUID2, &cpuid);
}

static void long_mode(void)
{
	struct vm vm = create(long_begin, long_end, 0);
	struct kvm_interrupt interrupt = { .irq = 0x20 };

	set_cpuid(&vm);
	enter_long_mode(&vm);
	gate(&vm, 0, long_begin, long_de);
	gate(&vm, 6, long_begin, long_ud);
	gate(&vm, 14, long_begin, long_pf);
	gate(&vm, 0x20, long_begin, long_irq);

	EXPECT(expect_out(&vm, 0x5678, 4) == 0xcafebabe, "%s", "");
	EXPECT(memcmp(vm.memory + RESULTS, "Vanderpool  ", 12) == 0, "%.12s", vm.memory + RESULTS);
	expect_in(&vm, 0x5678, 4, 0x01020304);
	EXPECT(expect_mmio(&vm, 1, MMIO, 1, 0) == 0x88, "%s", "");
	EXPECT(result32(&vm, 3) == 0x01020304, "%#x", result32(&vm, 3));
	EXPECT(expect_mmio(&vm, 1, MMIO + 2, 2, 0) == 0x7788, "%s", "");
	EXPECT(expect_mmio(&vm, 1, MMIO + 4, 4, 0) == 0x55667788, "%s", "");
	EXPECT(expect_mmio(&vm, 1, MMIO + 8, 8, 0) == 0x1122334455667788, "%s", "");
	expect_mmio(&vm, 0, MMIO + 16, 8, 0x99aabbccddeeff00);
	expect_mmio(&vm, 0, MMIO + 24, 1, 0xa5);
	/* The guest halts with interrupts enabled. */
	run_to(&vm, KVM_EXIT_HLT);
	EXPECT(result64(&vm, 2) == 0x99aabbccddeeff00, "%#llx", (unsigned long long)result64(&vm, 2));
	EXPECT(result64(&vm, 3) == 0xa5, "%#llx", (unsigned long long)result64(&vm, 3));
	EXPECT(result64(&vm, 4) == 0x99aabbccddeeff00, "%#llx", (unsigned long long)result64(&vm, 4));
	EXPECT((result32(&vm, 10) & 0x500) == 0x500, "EFER %#x", result32(&vm, 10));
	EXPECT(result64(&vm, 6) == 49, "%llu", (unsigned long long)result64(&vm, 6));
	EXPECT(result64(&vm, 7) == 0x10000000000, "CR2 %#llx", (unsigned long long)result64(&vm, 7));
	EXPECT(result32(&vm, 16) == 0x55aa, "%#x", result32(&vm, 16));
	EXPECT(result32(&vm, 20) == 1 && result32(&vm, 21) == 1 && result32(&vm, 22) == 1, "#UD %u, #DE %u, #PF %u", result32(&vm, 20),
	       result32(&vm, 21), result32(&vm, 22));
	EXPECT(result64(&vm, 12) == 0, "page-fault error code %#llx", (unsigned long long)result64(&vm, 12));
	EXPECT(result32(&vm, 23) == 0, "%u interrupts before the injection", result32(&vm, 23));
	CONTROL(vm.vcpu, KVM_INTERRUPT, &interrupt);
	run_to(&vm, KVM_EXIT_HLT);
	EXPECT(result32(&vm, 23) == 1, "%u interrupts", result32(&vm, 23));
}

/* --- An interrupt window: the client asks to be told when the guest can take an interrupt. --- */
asm(".pushsection .rodata\n"
    "window_begin:\n"
    "	lidt window_idt_pointer(%rip)\n"
    "	movl $0x10000, %esp\n"
    "	outb %al, $0x30\n"
    "	incl 0x6000\n"
    "	sti\n"
    "	nop\n"
    "	cli\n"
    "	incl 0x6008\n"
    "	hlt\n"
    "window_irq:\n"
    "	incl 0x6004\n"
    "	iretq\n"
    "window_idt_pointer:\n"
    "	.word 0xfff\n"
    "	.quad 0x5000\n"
    "window_end:\n"
    ".popsection\n");
extern const char window_begin[], window_end[], window_irq[];

static void interrupt_window(void)
{
	struct vm vm = create(window_begin, window_end, 0);
	struct kvm_interrupt interrupt = { .irq = 0x21 };

	enter_long_mode(&vm);
	gate(&vm, 0x21, window_begin, window_irq);
	expect_out(&vm, 0x30, 1);
	EXPECT(!vm.run->ready_for_interrupt_injection, "%s", "IF is clear");
	vm.run->request_interrupt_window = 1;
	run_to(&vm, KVM_EXIT_IRQ_WINDOW_OPEN);
	EXPECT(result32(&vm, 0) == 1 && result32(&vm, 2) == 0, "%u, %u", result32(&vm, 0), result32(&vm, 2));
	EXPECT(vm.run->if_flag, "%s", "IF is set");
	vm.run->request_interrupt_window = 0;
	CONTROL(vm.vcpu, KVM_INTERRUPT, &interrupt);
	run_to(&vm, KVM_EXIT_HLT);
	EXPECT(result32(&vm, 1) == 1 && result32(&vm, 2) == 1, "%u interrupts, %u", result32(&vm, 1), result32(&vm, 2));
}

/* --- Single steps, seen by the client. --- */
asm(".pushsection .rodata\n"
    "step_begin:\n"
    "	movl $1, %eax\n"
    "	addl $2, %eax\n"
    "	imull $5, %eax, %eax\n"
    "	hlt\n"
    "step_end:\n"
    ".popsection\n");
extern const char step_begin[], step_end[];

static void single_step(void)
{
	static const struct {
		uint64_t rip, rax;
	} expected[] = { { CODE + 5, 1 }, { CODE + 8, 3 }, { CODE + 11, 15 } };
	struct vm vm = create(step_begin, step_end, 0);
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };

	enter_long_mode(&vm);
	CONTROL(vm.vcpu, KVM_SET_GUEST_DEBUG, &debug);
	for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++) {
		run_to(&vm, KVM_EXIT_DEBUG);
		struct kvm_regs regs = registers(&vm);

		EXPECT(regs.rip == expected[i].rip && regs.rax == expected[i].rax, "step %u: rip %#llx rax %#llx", i,
		       (unsigned long long)regs.rip, (unsigned long long)regs.rax);
	}
	debug.control = 0;
	CONTROL(vm.vcpu, KVM_SET_GUEST_DEBUG, &debug);
	run_to(&vm, KVM_EXIT_HLT);
}

/* --- KVM's own local APIC: its timer interrupts the halted guest; the task priority holds an interrupt back. --- */
asm(".pushsection .rodata\n"
    "apic_begin:\n"
    "	lidt apic_idt_pointer(%rip)\n"
    "	movl $0x10000, %esp\n"
    "	movl $0xfee00000, %ebx\n"
    "	movl 0x20(%rbx), %eax\n"
    "	movl %eax, 0x6000\n"
    "	movl $0x1ff, 0xf0(%rbx)\n"  /* enabled, spurious vector 0xff */
    "	movl $0x41, 0x320(%rbx)\n"  /* timer: one shot, vector 0x41 */
    "	movl $0xb, 0x3e0(%rbx)\n"   /* divide by 1 */
    "	movl $10000, 0x380(%rbx)\n"
    "	sti\n"
    "1:	hlt\n"
    "	cmpl $0, 0x6004\n"
    "	je 1b\n"
    /* A self-IPI of a class not above the task priority waits until CR8 falls. */
    "	movl $5, %eax\n"
    "	movq %rax, %cr8\n"
    "	movl $0x40052, 0x300(%rbx)\n"
    "	nop\n"
    "	movl 0x6008, %eax\n"
    "	movl %eax, 0x600c\n"
    "	xorl %eax, %eax\n"
    "	movq %rax, %cr8\n"
    "	nop\n"
    "	movl 0x6008, %eax\n"
    "	movl %eax, 0x6010\n"
    "	outb %al, $0x31\n"
    "	hlt\n"
    "apic_timer:\n"
    "	incl 0x6004\n"
    "	movl $0, 0xb0(%rbx)\n"
    "	iretq\n"
    "apic_ipi:\n"
    "	incl 0x6008\n"
    "	movl $0, 0xb0(%rbx)\n"
    "	iretq\n"
    "apic_idt_pointer:\n"
    "	.word 0xfff\n"
    "	.quad 0x5000\n"
    "apic_end:\n"
    ".popsection\n");
extern const char apic_begin[], apic_end[], apic_timer[], apic_ipi[];

static void kernel_apic(void)
{
	struct vm vm = create(apic_begin, apic_end, 1);

	set_cpuid(&vm);
	enter_long_mode(&vm);
	put64(&vm, 0x11000 + 8 * 3, 0xc0000000 | 0x83); /* the APIC's page, one to one */
	gate(&vm, 0x41, apic_begin, apic_timer);
	gate(&vm, 0x52, apic_begin, apic_ipi);
	EXPECT(expect_out(&vm, 0x31, 1) == 1, "%s", "");
	EXPECT(result32(&vm, 0) == 0, "APIC id %#x", result32(&vm, 0));
	EXPECT(result32(&vm, 1) == 1, "%u timer interrupts", result32(&vm, 1));
	EXPECT(result32(&vm, 3) == 0, "%u interrupts through the task priority", result32(&vm, 3));
	EXPECT(result32(&vm, 4) == 1, "%u interrupts after it fell", result32(&vm, 4));
}

/* --- A write to read-only memory and the log of dirty pages. --- */
asm(".pushsection .rodata\n"
    "dirty_begin:\n"
    "	movl $1, 0x20000\n"
    "	movl $1, 0x22008\n"
    "	outb %al, $0x32\n"
    "	movl $1, 0x21000\n"
    "	hlt\n"
    "dirty_end:\n"
    ".popsection\n");
extern const char dirty_begin[], dirty_end[];

static uint64_t dirty_pages(struct vm *vm)
{
	static uint64_t bitmap[MEMORY_SIZE / 4096 / 64];
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };

	CONTROL(vm->vm, KVM_GET_DIRTY_LOG, &log);
	return bitmap[0] >> 32 & 7;
}

static void dirty_log(void)
{
	struct vm vm = create(dirty_begin, dirty_end, 0);
	struct kvm_userspace_memory_region region = {
		.slot = 0, .flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = MEMORY_SIZE, .userspace_addr = (uintptr_t)vm.memory,
	};
	uint64_t pages;

	enter_long_mode(&vm);
	CONTROL(vm.vm, KVM_SET_USER_MEMORY_REGION, &region);
	dirty_pages(&vm);
	expect_out(&vm, 0x32, 1);
	pages = dirty_pages(&vm);
	EXPECT(pages == 5, "%#llx", (unsigned long long)pages);
	run_to(&vm, KVM_EXIT_HLT);
	pages = dirty_pages(&vm);
	EXPECT(pages == 2, "%#llx", (unsigned long long)pages);
}

/* --- A triple fault is KVM_EXIT_SHUTDOWN. --- */
asm(".pushsection .rodata\n"
    "triple_begin:\n"
    "	lidt triple_idt_pointer(%rip)\n"
    "	ud2\n"
    "triple_idt_pointer:\n"
    "	.word 0\n"
    "	.quad 0\n"
    "triple_end:\n"
    ".popsection\n");
extern const char triple_begin[], triple_end[];

static void triple_fault(void)
{
	struct vm vm = create(triple_begin, triple_end, 0);

	enter_long_mode(&vm);
	run_to(&vm, KVM_EXIT_SHUTDOWN);
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "real_mode", real_mode },	    { "long_mode", long_mode },	  { "interrupt_window", interrupt_window },
	{ "single_step", single_step },	    { "kernel_apic", kernel_apic }, { "dirty_log", dirty_log },
	{ "triple_fault", triple_fault },
};

#include <sys/wait.h>

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	current = "open";
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm: %s", strerror(errno));
	current = "api_version";
	EXPECT(CONTROL(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION, "%d", KVM_API_VERSION);
	for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
		int status;

		if (argc > 1 && strcmp(argv[1], tests[i].name) != 0)
			continue;
		current = tests[i].name;
		/* A process for each: what one leaves behind does not reach the next. */
		pid_t child = fork();

		if (child == 0) {
			tests[i].run();
			printf("PASS %s\n", tests[i].name);
			exit(0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			failures++;
	}
	printf("kvm_client: %d failed\n", failures);
	return failures != 0;
}
