use crate::cpu::Mode;
use crate::flags;
use crate::memory::paging::Kind;
use crate::testing::{CODE32, DATA, GDT, Machine};

fn long() -> Machine {
    let mut machine = Machine::long();
    machine.cpu.rip = 0x8000;
    machine.idt(13, 8, 0x9000, 0x8e);
    machine.idt(6, 8, 0x9100, 0x8e);
    machine
}

/// MOV to a control register from RAX.
fn mov_to_cr(machine: &mut Machine, cr: u8, value: u64) -> bool {
    machine.cpu.regs[0] = value;
    machine.execute(&[0x0f, 0x22, 0xc0 | cr << 3], 1);
    machine.cpu.rip == 0x8003
}

#[test]
fn execute_disable_can_be_taken_away() {
    const MISC_ENABLE: u32 = 0x1a0;
    const EFER: u32 = 0xc000_0080;
    let mut machine = long();
    assert!(wrmsr(&mut machine, EFER, 0xd01));
    let nx = |machine: &mut Machine| {
        machine.cpu.regs[0] = 0x8000_0001;
        machine.cpu.rip = 0x8000;
        machine.execute(&[0x0f, 0xa2], 1); // cpuid
        machine.cpu.regs[2] >> 20 & 1 != 0
    };
    assert!(nx(&mut machine));
    let before = machine.cpu.msrs.misc_enable;
    assert!(wrmsr(&mut machine, MISC_ENABLE, before | 1 << 34));
    assert!(!nx(&mut machine));
    assert!(!wrmsr(&mut machine, EFER, 0xd01), "NXE is reserved");
    // XD is a reserved bit: the page with the code cannot be used.
    let entry = crate::testing::PAGE_TABLES + 0x2000;
    machine.store(entry, 8, machine.load(entry, 8) | 1 << 63);
    machine.cpu.tlb.flush_all();
    assert!(machine.cpu.translate(0x9000, Kind::Read, 0).is_err());
    machine.cpu.msrs.misc_enable = before;
    assert!(machine.cpu.translate(0x9000, Kind::Read, 0).is_ok());
}

fn wrmsr(machine: &mut Machine, number: u32, value: u64) -> bool {
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[1] = u64::from(number);
    machine.cpu.regs[0] = value & 0xffff_ffff;
    machine.cpu.regs[2] = value >> 32;
    machine.execute(&[0x0f, 0x30], 1);
    machine.cpu.rip == 0x8002
}

#[test]
fn inconsistent_cr0_is_gp() {
    let pg_pe = 0x8000_0011;
    for (value, allowed) in [
        (pg_pe, true),
        (pg_pe | 1 << 30, true),
        (pg_pe | 1 << 29, false), // NW without CD
        (pg_pe & !1, false),      // PG without PE
        (pg_pe | 1 << 32, false),
        (0x11, false), // PG off in 64-bit mode
    ] {
        assert_eq!(mov_to_cr(&mut long(), 0, value), allowed, "{value:#x}");
    }
}

#[test]
fn cr4_is_checked() {
    for (value, allowed) in [
        (0x20, true),
        (0x00, false),           // PAE off in long mode
        (0x20 | 1 << 12, false), // LA57 changed in long mode
        (0x20 | 1 << 17, true),  // PCIDE with a PCID of 0
        (0x20 | 1 << 22, true),  // PKE
        (0x20 | 1 << 23, false), // CET is not there
        (0x20 | 1 << 63, false),
    ] {
        assert_eq!(mov_to_cr(&mut long(), 4, value), allowed, "{value:#x}");
    }
    let mut machine = long();
    machine.cpu.cr3 |= 8;
    assert!(!mov_to_cr(&mut machine, 4, 0x20 | 1 << 17), "PCIDE with a PCID");
}

#[test]
fn cr3_bit_63_needs_pcids() {
    assert!(!mov_to_cr(&mut long(), 3, 1 << 63 | crate::testing::PAGE_TABLES));
    let mut machine = long();
    machine.cpu.cr4 |= 1 << 17;
    let cr3 = machine.cpu.cr3;
    assert!(mov_to_cr(&mut machine, 3, 1 << 63 | cr3 | 5));
    assert_eq!(machine.cpu.cr3, cr3 | 5);
    assert!(!mov_to_cr(&mut long(), 3, 1 << 46));
}

#[test]
fn cr8_is_the_task_priority() {
    let mut machine = long();
    machine.cpu.regs[0] = 9;
    machine.execute(&[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3], 2); // mov cr8, rax; mov rbx, cr8
    assert_eq!((machine.cpu.apic.task_priority(), machine.cpu.regs[3]), (0x90, 9));
    machine.cpu.regs[0] = 16;
    machine.execute(&[0x44, 0x0f, 0x22, 0xc0], 1);
    assert_eq!(machine.at(), (8, 0x9000));
}

#[test]
fn cr1_and_cr5_are_undefined() {
    for cr in [1, 5, 7] {
        let mut machine = long();
        mov_to_cr(&mut machine, cr, 0);
        assert_eq!(machine.at(), (8, 0x9100));
    }
}

#[test]
fn real_mode_enters_protected_mode_by_lgdt_and_cr0() {
    let mut machine = Machine::real();
    machine.gdt(&[0, CODE32, DATA]);
    machine.write(0xa000, &[0x17, 0, 0, 0x10, 0, 0]); // limit 0x17, base 0x1000
    let program = [
        0x0f, 0x01, 0x16, 0x00, 0xa0, // lgdt [0xa000]
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x0c, 0x01, // or al, 1
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0x66, 0xea, 0x15, 0x80, 0, 0, 8, 0, // jmp 8:0x8015
        0x66, 0xb8, 0x10, 0x00, // mov ax, 0x10
        0x8e, 0xd8, // mov ds, ax
        0xf4,
    ];
    machine.write(0x8000, &program);
    machine.run_to_halt(100);
    assert_eq!((machine.mode(), machine.at()), (Mode::Protected, (8, 0x801c)));
    assert_eq!((machine.cpu.gdtr.base, machine.cpu.gdtr.limit), (GDT, 0x17));
    assert_eq!(machine.cpu.segs[3].limit, u32::MAX);
}

#[test]
fn msr_writes_are_checked() {
    for (number, value, allowed) in [
        (0xc000_0080, 0xd01, true),
        (0xc000_0080, 0xc01, false), // LME changed while paging
        (0xc000_0080, 0xd03, false), // reserved bit
        (0xc000_0082, 1 << 63, false),
        (0xc000_0100, 0xffff_8000_0000_0000, true),
        (0x277, 0x0007_0406_0007_0406, true),
        (0x277, 2, false),
        (0x3a, 5, false), // locked
        (0x10, 12345, true),
        (0x1b, 0xfee0_0d00, true),
        (0x1b, 0xfee0_0500, false),
        (0x48, 1, true),
        (0x48, 8, false),
        (0xda0, 0, true),
        (0xda0, 1 << 8, false),
        (0x10a, 0, false), // read-only
        (0x12345, 0, false),
        (0x808, 0, false), // not in x2APIC mode
    ] {
        assert_eq!(wrmsr(&mut long(), number, value), allowed, "{number:#x} {value:#x}");
    }
}

#[test]
fn tsc_counts_two_a_nanosecond_and_follows_its_adjustment() {
    let mut machine = long();
    assert!(wrmsr(&mut machine, 0x3b, 1_000_000));
    let at = machine.cpu.now();
    machine.execute(&[0x0f, 0x31], 1); // rdtsc
    assert_eq!(machine.cpu.regs[0] | machine.cpu.regs[2] << 32, at * 2 + 1_000_000);
    assert!(wrmsr(&mut machine, 0x10, 0));
    assert_eq!(machine.cpu.tsc(), 2, "one instruction ago it was 0");
}

#[test]
fn cpuid_shows_osxsave_as_it_is() {
    let mut machine = long();
    machine.cpu.cr4 |= 1 << 18;
    machine.cpu.regs[0] = 1;
    machine.execute(&[0x0f, 0xa2], 1);
    assert_eq!(machine.cpu.regs[0], 0x606a6);
    assert_ne!(machine.cpu.regs[1] & 1 << 27, 0);
}

#[test]
fn xsetbv_checks_dependencies() {
    for (value, allowed) in [(1u64, true), (3, true), (7, true), (0x207, true), (5, false), (2, false), (0x27, false)] {
        let mut machine = long();
        machine.cpu.cr4 |= 1 << 18;
        (machine.cpu.regs[0], machine.cpu.regs[2]) = (value, 0);
        machine.execute(&[0x0f, 0x01, 0xd1], 1);
        assert_eq!(machine.cpu.rip == 0x8003, allowed, "{value:#x}");
    }
}

fn with_avx() -> Machine {
    let mut machine = long();
    machine.cpu.cr4 |= 1 << 18 | 1 << 9;
    machine.cpu.xcr0 = 0x207;
    machine.cpu.mode_changed();
    machine.cpu.ymm[15] = [1, 2, 3, 4];
    machine.cpu.mxcsr = 0x1fa0;
    machine.cpu.pkru = 0x5555_5554;
    machine.cpu.regs[0] = u64::MAX;
    machine.cpu.regs[2] = u64::MAX;
    machine.cpu.regs[3] = 0xa000;
    machine
}

#[test]
fn xsave_standard_and_compacted_restore_what_they_saved() {
    // xsave64, xsavec64, xsaves64 [rbx] with xrstor64 or xrstors64.
    for (save, restore, compacted) in [
        ([0x48, 0x0f, 0xae, 0x23], [0x48, 0x0f, 0xae, 0x2b], false),
        ([0x48, 0x0f, 0xc7, 0x23], [0x48, 0x0f, 0xae, 0x2b], true),
        ([0x48, 0x0f, 0xc7, 0x2b], [0x48, 0x0f, 0xc7, 0x1b], true),
    ] {
        let mut machine = with_avx();
        machine.execute(&save, 1);
        assert_eq!(machine.cpu.rip, 0x8004, "{save:x?}");
        assert_eq!(machine.load(0xa208, 8) >> 63 != 0, compacted);
        let pkru_at = if compacted { 0xa000 + 832 } else { 0xa000 + 2688 };
        assert_eq!(machine.load(pkru_at, 4), 0x5555_5554);
        let (ymm, mxcsr, x87) = (machine.cpu.ymm, machine.cpu.mxcsr, machine.cpu.x87.clone());
        machine.cpu.ymm = [[9; 4]; 16];
        machine.cpu.mxcsr = 0x1f80;
        machine.cpu.pkru = 0;
        machine.cpu.x87 = crate::x87::X87::initial();
        machine.execute(&restore, 1);
        assert_eq!(machine.cpu.rip, 0x8008, "{restore:x?}");
        assert_eq!((machine.cpu.ymm, machine.cpu.mxcsr, machine.cpu.pkru), (ymm, mxcsr, 0x5555_5554));
        assert_eq!(machine.cpu.x87, x87);
    }
}

#[test]
fn xrstor_rejects_bad_headers() {
    for (offset, value) in [(512, 1u64 << 5), (520, 1), (528, 1), (520, 1 << 63 | 1 << 5), (24, 0x1_0000)] {
        let mut machine = with_avx();
        machine.execute(&[0x48, 0x0f, 0xae, 0x23], 1);
        machine.store(0xa000 + offset, 8, value);
        machine.execute(&[0x48, 0x0f, 0xae, 0x2b], 1);
        assert_eq!(machine.at(), (8, 0x9000), "{offset} {value:#x}");
    }
}

#[test]
fn popf_in_user_mode_keeps_if_and_iopl() {
    let mut machine = Machine::long();
    machine.flat(3);
    machine.cpu.rip = 0x8000;
    machine.cpu.set_rflags(flags::IF | 2);
    machine.cpu.regs[0] = 0x3000 | flags::DF | flags::VIF;
    machine.execute(&[0x50, 0x9d], 2); // push rax; popf
    assert_eq!(machine.cpu.rflags(), flags::IF | flags::DF | 2);
}

#[test]
fn monitored_store_ends_mwait() {
    let mut machine = long();
    machine.cpu.regs[0] = 0xa000;
    machine.cpu.regs[1] = 0;
    machine.cpu.regs[2] = 0;
    machine.write(0x8000, &[0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0xff, 0xc3, 0xf4]); // monitor; mwait; inc ebx; hlt
    machine.run_to_halt(100);
    assert_eq!((machine.cpu.regs[3], machine.cpu.has_work()), (0, false));
    machine.store(0xa020, 4, 1);
    assert!(machine.cpu.has_work());
    machine.run_to_halt(100);
    assert_eq!(machine.cpu.regs[3], 1);
}

#[test]
fn local_apic_registers_are_memory() {
    let mut machine = Machine::protected();
    machine.execute(&[0xa1, 0x30, 0, 0xe0, 0xfe], 1); // mov eax, [0xfee00030]
    assert_eq!(machine.cpu.regs[0], 0x0106_0015);
    machine.cpu.regs[0] = 0x1ff;
    machine.execute(&[0xa3, 0xf0, 0, 0xe0, 0xfe], 1);
    assert!(machine.cpu.apic.is_software_enabled());
    machine.cpu.regs[0] = 0x000c_4500; // INIT to all but self
    machine.execute(&[0xa3, 0x00, 0x03, 0xe0, 0xfe], 1);
    assert_eq!(machine.bus.log().messages.len(), 1);
}

#[test]
fn monitor_goes_through_its_segment_outside_64_bit_mode() {
    let mut machine = Machine::protected();
    machine.cpu.segs[crate::segment::DS].base = 0x4000;
    machine.cpu.segs[crate::segment::FS].base = 0x1_0000;
    (machine.cpu.regs[0], machine.cpu.regs[1]) = (0x40, 0);
    machine.execute(&[0x0f, 0x01, 0xc8], 1); // monitor
    assert_eq!(machine.cpu.monitor.line, 0x4040);
    machine.execute(&[0x64, 0x0f, 0x01, 0xc8], 1); // monitor with FS
    assert_eq!(machine.cpu.monitor.line, 0x1_0040);
    machine.cpu.segs[crate::segment::DS].limit = 0x20;
    machine.idt(13, 8, 0x9000, 0x8e);
    machine.execute(&[0x0f, 0x01, 0xc8], 1);
    assert_eq!(machine.cpu.rip, 0x9000, "#GP: beyond the limit");
}

#[test]
fn between_iterations_rf_is_saved_and_a_breakpoint_counts_once() {
    let mut machine = Machine::protected();
    machine.idt(0x61, 8, 0x9000, 0x8e);
    machine.cpu.set_rflags(flags::IF | 2);
    (machine.cpu.regs[1], machine.cpu.regs[7]) = (3, 0x6000);
    machine.cpu.attention |= crate::run::attention::DEBUG;
    machine.cpu.dr[7] = 0x401; // a breakpoint elsewhere: one iteration at a time
    machine.execute(&[0xf3, 0xaa, 0x90], 1); // rep stosb
    assert_eq!(machine.cpu.regs[1], 2);
    super::delivery::interrupt(&mut machine, 0x61);
    machine.steps(1);
    assert_eq!(machine.load(0x7000 - 4, 4) & flags::RF, flags::RF, "the flags pushed");
    // A breakpoint on the instruction itself.
    let mut machine = Machine::protected();
    machine.idt(1, 8, 0x9000, 0x8e);
    (machine.cpu.regs[1], machine.cpu.regs[7]) = (3, 0x6000);
    machine.cpu.set_rflags(flags::RF | 2);
    (machine.cpu.dr[0], machine.cpu.dr[7]) = (0x8000, 0x401);
    machine.cpu.attention |= crate::run::attention::DEBUG;
    machine.execute(&[0xf3, 0xaa, 0x90], 4);
    assert_eq!((machine.cpu.regs[1], machine.cpu.rip), (0, 0x8003));
    assert_eq!(machine.cpu.rflags & flags::RF, 0);
}

#[test]
fn a_loop_under_a_breakpoint_elsewhere_ends_with_its_turn() {
    let mut machine = Machine::protected();
    machine.cpu.dr[7] = 0x401;
    machine.cpu.attention |= crate::run::attention::DEBUG;
    machine.write(0x8000, &[0xeb, 0xfe]); // jmp $
    let until = machine.cpu.now() + 100;
    assert_eq!(machine.cpu.run(&mut machine.code, until), crate::run::RunExit::Deadline);
    assert_eq!(machine.cpu.now(), until);
}
