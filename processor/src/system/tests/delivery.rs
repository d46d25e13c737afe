use crate::apic::{DeliveryMode, InterruptMessage, Shorthand};
use crate::flags;
use crate::run::{Activity, RunExit};
use crate::testing::{IDT, Machine};

/// Reads `count` values of `size` bytes from the top of the stack.
fn stack(machine: &Machine, size: usize, count: u64) -> Vec<u64> {
    (0..count).map(|i| machine.load(machine.cpu.regs[4] + i * size as u64, size)).collect()
}

#[test]
fn real_mode_interrupt_pushes_flags_cs_ip_and_iret_returns() {
    let mut machine = Machine::real();
    machine.cpu.set_rflags(flags::IF | 2);
    machine.write(4 * 0x21, &[0x34, 0x12, 0x00, 0x00]);
    machine.execute(&[0xcd, 0x21], 1); // int 0x21
    assert_eq!(machine.at(), (0, 0x1234));
    assert_eq!(stack(&machine, 2, 3), [0x8002, 0, 0x202]);
    assert_eq!(machine.cpu.rflags & flags::IF, 0);
    machine.execute(&[0xcf], 1); // iret
    assert_eq!((machine.at(), machine.cpu.regs[4]), ((0, 0x8002), 0x7000));
    assert_ne!(machine.cpu.rflags & flags::IF, 0);
}

#[test]
fn real_mode_fault_pushes_no_error_code_and_its_own_ip() {
    let mut machine = Machine::real();
    machine.write(4 * 13, &[0x00, 0x90, 0x00, 0x00]);
    machine.cpu.regs[3] = 0xffff;
    machine.execute(&[0x8b, 0x07], 1); // mov ax, [bx]: crosses the limit
    assert_eq!((machine.at(), stack(&machine, 2, 2)), ((0, 0x9000), vec![0x8000, 0]));
}

#[test]
fn execution_past_the_limit_faults_even_where_another_segment_ran_code() {
    let mut machine = Machine::real();
    machine.write(4 * 13, &[0x00, 0x90, 0x00, 0x00]);
    machine.write(0x9000, &[0xf4]);
    machine.write(0xfff0, &[0x90; 16]);
    // 1000:0000, which is linear 10000, jumps to 0:fff0.
    machine.write(0x8000, &[0xea, 0, 0, 0, 0x10]);
    machine.write(0x1_0000, &[0xea, 0xf0, 0xff, 0, 0]);
    machine.run_to_halt(1000);
    assert_eq!((machine.at(), stack(&machine, 2, 2)), ((0, 0x9001), vec![0, 0]));
}

#[test]
fn protected_fault_pushes_error_code_and_rf() {
    let mut machine = Machine::protected();
    machine.idt(13, 8, 0x9000, 0x8e);
    machine.cpu.set_rflags(flags::IF | 2);
    machine.execute(&[0x66, 0xb8, 0x40, 0x00, 0x8e, 0xd8], 2); // mov ax, 0x40; mov ds, ax: beyond the GDT
    assert_eq!(machine.at(), (8, 0x9000));
    assert_eq!(stack(&machine, 4, 4), [0x40, 0x8004, 8, 0x1_0202]);
    assert_eq!(machine.cpu.rflags & flags::IF, 0);
}

#[test]
fn trap_gate_leaves_if() {
    let mut machine = Machine::protected();
    machine.idt(0x80, 8, 0x9000, 0x8f);
    machine.cpu.set_rflags(flags::IF | 2);
    machine.execute(&[0xcd, 0x80], 1);
    assert_eq!(machine.at(), (8, 0x9000));
    assert_ne!(machine.cpu.rflags & flags::IF, 0);
    assert_eq!(stack(&machine, 4, 3), [0x8002, 8, 0x202], "a software interrupt sets no RF");
}

#[test]
fn gate_dpl_guards_software_interrupts_with_an_idt_error_code() {
    let mut machine = Machine::long();
    machine.idt(0x30, 8, 0x9000, 0x8e);
    machine.idt(13, 8, 0x9100, 0x8e);
    set_tss64(&mut machine);
    machine.flat(3);
    machine.cpu.rip = 0x8000;
    machine.execute(&[0xcd, 0x30], 1);
    assert_eq!(machine.at(), (8, 0x9100));
    assert_eq!(stack(&machine, 8, 2), [0x30 * 8 + 2, 0x8000]);
}

#[test]
fn absent_gate_is_np_with_ext_for_hardware() {
    let mut machine = Machine::long();
    machine.idt(0x40, 8, 0x9000, 0x0e);
    machine.idt(11, 8, 0x9200, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.set_rflags(flags::IF | 2);
    interrupt(&mut machine, 0x40);
    machine.execute(&[0x90, 0x90], 0);
    machine.steps(1);
    assert_eq!(machine.at().0, 8);
    assert_eq!(stack(&machine, 8, 1), [0x40 * 8 + 3]);
}

pub(super) fn set_tss64(machine: &mut Machine) {
    const TSS: u64 = 0x3000;
    machine.store(TSS + 4, 8, 0x6000); // RSP0
    machine.store(TSS + 0x24, 8, 0x5008); // IST1, not aligned
    machine.store(TSS + 0x66, 2, 0x68); // no I/O bitmap
    machine.cpu.tr = crate::segment::Segment { selector: 0x30, base: TSS, limit: 0x67, access: 0x8b };
}

pub(super) fn interrupt(machine: &mut Machine, vector: u8) {
    machine.cpu.apic.set_virtual_wire();
    machine.cpu.accept(&InterruptMessage {
        destination: 0,
        logical: false,
        delivery: DeliveryMode::Fixed,
        vector,
        level_triggered: false,
        shorthand: Shorthand::None,
    });
}

#[test]
fn long_mode_interrupt_from_user_takes_rsp0_and_iretq_returns() {
    let mut machine = Machine::long();
    set_tss64(&mut machine);
    machine.idt(0x80, 8, 0x9000, 0xee);
    machine.flat(3);
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[4] = 0x7004;
    machine.execute(&[0xcd, 0x80], 1);
    assert_eq!((machine.at(), machine.cpu.cpl), ((8, 0x9000), 0));
    assert_eq!(machine.cpu.segs[2].selector, 0, "SS is null at CPL 0");
    assert_eq!(machine.cpu.regs[4], 0x6000 - 40);
    assert_eq!(stack(&machine, 8, 5), [0x8002, 0x1b, 2, 0x7004, 0x23]);
    machine.execute(&[0x48, 0xcf], 1); // iretq
    assert_eq!((machine.at(), machine.cpu.cpl, machine.cpu.regs[4]), ((0x1b, 0x8002), 3, 0x7004));
    assert_eq!(machine.cpu.segs[2].selector, 0x23);
}

#[test]
fn ist_is_aligned_and_used_at_the_same_level() {
    let mut machine = Machine::long();
    set_tss64(&mut machine);
    machine.idt(3, 8, 0x9000, 0x8e);
    let low = machine.load(IDT + 16 * 3, 8) | 1 << 32;
    machine.store(IDT + 16 * 3, 8, low);
    machine.cpu.rip = 0x8000;
    machine.execute(&[0xcc], 1);
    assert_eq!((machine.at(), machine.cpu.regs[4]), ((8, 0x9000), 0x5000 - 40));
    assert_eq!(stack(&machine, 8, 4)[3], 0x7000);
}

#[test]
fn fault_in_delivery_makes_double_then_triple_fault() {
    let mut machine = Machine::protected();
    machine.idt(8, 8, 0x9000, 0x8e);
    machine.execute(&[0x0f, 0x0b], 1); // ud2: gate 6 is empty (#GP), gate 13 too (double fault)
    assert_eq!(machine.at(), (8, 0x9000));
    assert_eq!(stack(&machine, 4, 2), [0, 0x8000]);
    let mut machine = Machine::protected();
    machine.cpu.idtr.limit = 0;
    machine.execute(&[0x0f, 0x0b], 1);
    assert_eq!(machine.cpu.activity, Activity::Shutdown);
}

#[test]
fn page_fault_sets_cr2_and_error_code() {
    let mut machine = Machine::long();
    machine.idt(14, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[3] = 0x40_0123;
    machine.execute(&[0x89, 0x03], 1); // mov [rbx], eax
    assert_eq!((machine.at(), machine.cpu.cr2), ((8, 0x9000), 0x40_0123));
    assert_eq!(stack(&machine, 8, 2), [2, 0x8000]);
}

#[test]
fn interrupt_waits_for_the_instruction_after_sti() {
    let mut machine = Machine::long();
    machine.idt(0x40, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    interrupt(&mut machine, 0x40);
    machine.write(0x8000, &[0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4]); // sti; inc eax; inc eax; hlt
    machine.write(0x9000, &[0xf4]);
    machine.run_to_halt(100);
    assert_eq!(machine.cpu.regs[0], 1);
    assert_eq!(stack(&machine, 8, 1), [0x8003]);
}

#[test]
fn hlt_is_left_by_an_interrupt_with_the_next_rip() {
    let mut machine = Machine::long();
    machine.idt(0x40, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0xfb, 0xf4]); // sti; hlt
    machine.write(0x9000, &[0xfa, 0xf4]);
    assert_eq!(machine.run_to_halt(100), Activity::Halted);
    assert!(!machine.cpu.has_work());
    interrupt(&mut machine, 0x40);
    assert!(machine.cpu.has_work());
    machine.run_to_halt(100);
    assert_eq!((machine.at(), stack(&machine, 8, 1)), ((8, 0x9002), vec![0x8002]));
}

#[test]
fn second_nmi_waits_for_iret() {
    let mut machine = Machine::long();
    machine.idt(2, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0x90, 0xf4]);
    machine.write(0x9000, &[0xff, 0xc0, 0x90, 0x48, 0xcf]); // inc eax; nop; iretq
    machine.cpu.events.nmi = true;
    machine.steps(1);
    machine.cpu.events.nmi = true;
    machine.steps(1);
    assert_eq!(machine.cpu.regs[0], 1);
    assert!(machine.cpu.events.nmi, "still blocked");
    machine.run_to_halt(100);
    assert_eq!(machine.cpu.regs[0], 2);
}

#[test]
fn apic_timer_interrupts_at_its_time() {
    let mut machine = Machine::long();
    machine.idt(0x50, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.set_rflags(flags::IF | 2);
    machine.write(0x8000, &[0xff, 0xc0, 0xeb, 0xfc]); // inc eax; jmp back
    machine.write(0x9000, &[0xfa, 0xf4]);
    machine.cpu.apic.set_virtual_wire();
    let moment = machine.cpu.moment();
    machine.cpu.apic.write(0x320, 4, 0x50, moment);
    machine.cpu.apic.write(0x3e0, 4, 0xb, moment);
    machine.cpu.apic.write(0x380, 4, 10, moment); // 100 ns
    machine.run_to_halt(1000);
    assert_eq!((machine.at(), machine.cpu.regs[0]), ((8, 0x9002), 50));
}

#[test]
fn single_step_traps_after_the_instruction() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0xff, 0xc0, 0xff, 0xc0]);
    machine.write(0x9000, &[0xf4]);
    machine.cpu.set_rflags(flags::TF | 2);
    machine.run_to_halt(100);
    assert_eq!((machine.cpu.regs[0], machine.cpu.dr[6] & 0x4000), (1, 0x4000));
    assert_eq!(stack(&machine, 8, 3), [0x8002, 8, 0x102]);
}

#[test]
fn execution_breakpoint_faults_before_and_rf_passes_it() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0xff, 0xc0, 0xff, 0xc0, 0xf4]);
    machine.write(0x9000, &[0x48, 0x81, 0x4c, 0x24, 0x10, 0, 0, 1, 0, 0x48, 0xcf]); // or qword [rsp+16], RF; iretq
    machine.cpu.set_debug_register(0, 0x8002);
    machine.cpu.set_debug_register(7, 1);
    machine.run_to_halt(100);
    assert_eq!((machine.at(), machine.cpu.regs[0]), ((8, 0x8005), 2));
    assert_eq!(machine.cpu.dr[6] & 0x400f, 1);
    assert_eq!(machine.cpu.rflags & flags::RF, 0);
}

#[test]
fn data_breakpoint_traps_after_the_store() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[3] = 0xa000;
    machine.write(0x8000, &[0x89, 0x03, 0xff, 0xc0, 0xf4]); // mov [rbx], eax; inc eax; hlt
    machine.write(0x9000, &[0xf4]);
    machine.cpu.set_debug_register(1, 0xa002);
    machine.cpu.set_debug_register(7, 1 << 2 | 1 << 20 | 1 << 22); // L1, write, 2 bytes
    machine.run_to_halt(100);
    assert_eq!(stack(&machine, 8, 1), [0x8002]);
    assert_eq!(machine.cpu.dr[6] & 0xf, 2);
}

#[test]
fn a_store_that_faults_hits_no_data_breakpoint() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9100, 0x8e);
    machine.idt(14, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[3] = 0x40_0120;
    machine.write(0x8000, &[0x89, 0x03]); // mov [rbx], eax
    machine.write(0x9000, &[0xff, 0xc0, 0xf4]); // inc eax; hlt
    machine.cpu.set_debug_register(0, 0x40_0120);
    machine.cpu.set_debug_register(7, 1 | 1 << 16); // L0, write, 1 byte
    machine.run_to_halt(100);
    assert_eq!((machine.at(), machine.cpu.dr[6] & 0xf), ((8, 0x9003), 0));
}

#[test]
fn general_detect_faults_on_debug_register_access() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.set_debug_register(7, 1 << 13);
    machine.execute(&[0x0f, 0x21, 0xc0], 1); // mov rax, dr0
    assert_eq!(machine.at(), (8, 0x9000));
    assert_eq!(machine.cpu.dr[6] & 1 << 13, 1 << 13);
    assert_eq!(machine.cpu.dr[7] & 1 << 13, 0);
}

#[test]
fn init_and_startup_bring_a_processor_to_its_page() {
    let mut machine = Machine::long();
    let message = |delivery, vector| InterruptMessage {
        destination: 0,
        logical: false,
        delivery,
        vector,
        level_triggered: false,
        shorthand: Shorthand::None,
    };
    machine.cpu.apic.set_base(0xfee0_0800, 46, true).unwrap(); // not the bootstrap processor
    machine.cpu.accept(&message(DeliveryMode::StartUp, 0x12));
    assert_eq!(machine.cpu.events.startup, None, "not waiting for one");
    machine.cpu.accept(&message(DeliveryMode::Init, 0));
    machine.steps(1);
    assert_eq!(machine.cpu.activity, Activity::WaitForSipi);
    machine.write(0x9a000, &[0xf4]);
    machine.cpu.accept(&message(DeliveryMode::StartUp, 0x9a));
    machine.run_to_halt(10);
    assert_eq!((machine.at(), machine.cpu.mode), ((0x9a00, 1), crate::cpu::Mode::Real));
}

#[test]
fn branch_single_step_traps_after_branches_only() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0xff, 0xc0, 0xff, 0xc0, 0xeb, 0x10]); // inc eax; inc eax; jmp 0x8016
    machine.write(0x9000, &[0xf4]);
    assert!(machine.cpu.write_msr(0x1d9, 2));
    machine.cpu.set_rflags(flags::TF | 2);
    machine.run_to_halt(100);
    assert_eq!((machine.cpu.regs[0], stack(&machine, 8, 1)), (2, vec![0x8016]));
    assert_eq!(machine.cpu.read_msr(0x1d9), Some(0), "BTF is cleared");
}

#[test]
fn breakpoint_held_back_by_mov_ss_is_reported_by_int1_once() {
    let mut machine = Machine::long();
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[3] = 0xa000;
    machine.store(0xa000, 2, 0x10);
    machine.write(0x8000, &[0x8e, 0x13, 0xf1, 0xf4]); // mov ss, [rbx]; int1; hlt
    machine.write(0x9000, &[0xff, 0xc0, 0x48, 0xcf]); // inc eax; iretq
    machine.cpu.set_debug_register(0, 0xa000);
    machine.cpu.set_debug_register(7, 1 | 3 << 16 | 1 << 18); // L0, read or write, 2 bytes
    machine.run_to_halt(100);
    assert_eq!((machine.at(), machine.cpu.regs[0], machine.cpu.dr[6] & 0xf), ((8, 0x8004), 1, 1));
}

/// Runs for 100 microseconds of virtual time, which the processor must not exceed by much, nor leave before.
fn run_100_us(machine: &mut Machine) {
    let until = machine.cpu.now() + 100_000;
    assert_eq!(machine.cpu.run(&mut machine.code, until), RunExit::Deadline);
    assert!(machine.cpu.now() < until + 1000, "{} after {until}", machine.cpu.now());
}

/// A user program whose stack is misaligned, about to push with alignment checks on; the handlers of #AC and #NP are its own.
fn misaligned_user() -> Machine {
    let mut machine = Machine::protected();
    machine.flat(3);
    machine.cpu.cr0 |= 1 << 18;
    machine.cpu.set_rflags(flags::AC | 2);
    machine.cpu.regs[4] = 0x7001;
    machine.idt(11, 0x1b, 0x9000, 0xee);
    machine.idt(17, 0x1b, 0x9000, 0xee);
    machine.cpu.mode_changed();
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0x50]); // push eax
    machine.write(0x9000, &[0xf4]);
    machine
}

#[test]
fn an_alignment_check_that_delivers_itself_without_end_takes_time() {
    let mut machine = misaligned_user();
    run_100_us(&mut machine);
    assert_eq!((machine.at(), machine.cpu.regs[4]), ((0x1b, 0x8000), 0x7001), "nothing is delivered");
    // Once the cause is gone, the event that waited is delivered.
    machine.cpu.cr0 &= !(1 << 18);
    machine.cpu.mode_changed();
    machine.steps(1);
    assert_eq!((machine.load(machine.cpu.regs[4], 4), machine.load(0x7001 - 16 + 8 - 4, 4)), (0, 0x8000));
}

#[test]
fn a_benign_and_a_contributory_exception_may_alternate_without_end() {
    let mut machine = misaligned_user();
    machine.idt(17, 0x1b, 0x9000, 0x6e); // not present: #NP, whose delivery raises #AC
    run_100_us(&mut machine);
    assert_eq!(machine.at(), (0x1b, 0x8000));
}

#[test]
fn a_data_breakpoint_on_the_stack_of_debug_exceptions_takes_time() {
    let mut machine = Machine::long();
    set_tss64(&mut machine);
    machine.store(0x3000 + 0x24, 8, 0x6000); // IST1
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.store(IDT + 16 + 4, 1, 1);
    machine.write(0x9000, &[0xf4]);
    machine.cpu.dr[0] = 0x6000 - 8;
    machine.cpu.dr[7] = 0x400 | 1 | 0xd << 16; // writes of 4 bytes
    machine.cpu.rip = 0x8000;
    machine.write(0x8000, &[0xf1]); // int1
    machine.cpu.mode_changed();
    run_100_us(&mut machine);
    assert_eq!((machine.cpu.rip, machine.cpu.regs[4]), (0x9000, 0x6000 - 40));
}

#[test]
fn an_instruction_breakpoint_on_its_own_handler_takes_time() {
    let mut machine = Machine::long();
    set_tss64(&mut machine);
    machine.store(0x3000 + 0x24, 8, 0x6000);
    machine.idt(1, 8, 0x9000, 0x8e);
    machine.store(IDT + 16 + 4, 1, 1);
    machine.write(0x9000, &[0xf4]);
    machine.cpu.dr[0] = 0x9000;
    machine.cpu.dr[7] = 0x401;
    machine.cpu.rip = 0x9000;
    machine.cpu.mode_changed();
    machine.cpu.attention |= crate::run::attention::DEBUG;
    run_100_us(&mut machine);
    assert_eq!((machine.cpu.rip, machine.cpu.activity), (0x9000, Activity::Active));
}

#[test]
fn a_protection_fault_is_not_taken_for_an_earlier_access_that_was_not_canonical() {
    let mut machine = Machine::long();
    machine.idt(12, 8, 0x9000, 0x8e);
    machine.idt(13, 8, 0x9100, 0x8e);
    // Left by an access whose fault nobody delivered.
    machine.cpu.non_canonical = true;
    machine.store(0x7000, 8, 0xfff0_0000_0000); // a selector beyond the GDT
    machine.cpu.regs[6] = 0x7000;
    machine.execute(&[0xff, 0x1e], 1); // call far [rsi]
    assert_eq!(machine.at(), (8, 0x9100));
}
