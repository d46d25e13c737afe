//! Runs one instruction on our processor: 64-bit mode, CPL 3, the same memory at the same linear addresses as the host's.

use crate::state::{CODE, Fault, Outcome, SCRATCH, SCRATCH_SIZE, START, State, TAKEN};
use iced_x86::CpuidFeature;
use processor::run::Activity;
use processor::segment::{self, Segment};
use processor::trap::Trap;
use processor::x87::LEGACY_X87_SIZE;
use processor::{Bus, CodeCache, Cpu, GuestRam, MemoryMap, MemoryRegion};
use std::sync::Arc;

/// RAM offsets of code, scratch memory, and the supervisor's tables.
const CODE_RAM: u64 = 0x10_0000;
const SCRATCH_RAM: u64 = 0x20_0000;
const PAGE_TABLES: u64 = 0x1000;
const SYSTEM: u64 = 0x8000;
/// Where the supervisor's page is, in the half of addresses that no user instruction reaches.
const SYSTEM_LINEAR: u64 = 0xffff_8000_0000_0000;
const GDT: u64 = 0;
const TSS: u64 = 0x100;
const IDT: u64 = 0x200;
const HANDLERS: u64 = 0x800;
const STACK_TOP: u64 = 0xff0;

/// A board with nothing on it.
struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, _: u64, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn write(&mut self, _: u64, _: u64, _: u8, _: u64) {}
    fn io_read(&mut self, _: u64, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn io_write(&mut self, _: u64, _: u16, _: u8, _: u32) {}
    fn end_of_interrupt(&mut self, _: u64, _: u8) {}
    fn acknowledge_external(&mut self, _: u64) -> u8 {
        0
    }
    fn send_interrupt(&mut self, _: u64, _: processor::apic::InterruptMessage) {}
    fn needs_service(&self) -> bool {
        false
    }
}

/// Our processor, set up for user-mode code.
pub struct Ours {
    cpu: Cpu,
    code: CodeCache,
    ram: Arc<GuestRam>,
}

impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").finish_non_exhaustive()
    }
}

impl Ours {
    /// A processor with everything enabled.
    pub fn new(announced: impl Fn(CpuidFeature) -> bool) -> Self {
        let ram = Arc::new(GuestRam::new(4 << 20));
        let regions = vec![MemoryRegion { base: 0, length: 4 << 20, offset: 0, writable: true }];
        let mut cpu = Cpu::new(0, ram.clone(), Arc::new(MemoryMap { regions }), Box::new(Nothing));
        build_memory(&ram);
        cpu.cr0 = 0x8005_0033;
        cpu.cr3 = PAGE_TABLES;
        // PAE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE, and the page tables' own.
        cpu.cr4 = 0x20 | 0x600 | 0x1_0000 | 0x4_0000;
        cpu.efer = 0xd01;
        cpu.xcr0 = 7;
        let rights = |kind: u32| segment::PRESENT | segment::NON_SYSTEM | segment::ACCESSED | 3 << 5 | kind;
        cpu.segs = [Segment { selector: 0, base: 0, limit: u32::MAX, access: segment::UNUSABLE }; 8];
        cpu.segs[segment::CS] = Segment {
            selector: 0x33,
            base: 0,
            limit: u32::MAX,
            access: rights(segment::CODE | segment::WRITABLE | segment::LONG | segment::GRANULARITY),
        };
        cpu.segs[segment::SS] = Segment {
            selector: 0x2b,
            base: 0,
            limit: u32::MAX,
            access: rights(segment::WRITABLE | segment::BIG | segment::GRANULARITY),
        };
        cpu.gdtr.base = SYSTEM_LINEAR + GDT;
        cpu.gdtr.limit = 0xff;
        cpu.idtr.base = SYSTEM_LINEAR + IDT;
        cpu.idtr.limit = 0x1ff;
        cpu.tr = Segment { selector: 0x40, base: SYSTEM_LINEAR + TSS, limit: 0x67, access: segment::PRESENT | 11 };
        cpu.set_cpl(3);
        cpu.mode_changed();
        Self { cpu, code: CodeCache::new(announced), ram }
    }

    /// Places the instruction.
    pub fn set_code(&mut self, bytes: &[u8]) {
        self.ram.write(CODE_RAM + (START - CODE), bytes);
        self.code.drop_written(&self.ram);
    }

    /// Places a run of instructions for [`Ours::run_block`]: wherever it may end, an undefined instruction stands.
    pub fn set_run(&mut self, bytes: &[u8]) {
        self.set_code(bytes);
        for at in [START + bytes.len() as u64, TAKEN[0], TAKEN[1]] {
            self.ram.write(CODE_RAM + (at - CODE), &[0x0f, 0x0b]);
        }
        self.code.drop_written(&self.ram);
    }

    /// Runs a run of instructions of `length` bytes as the machine does, in blocks.
    pub fn run_block(&mut self, state: &State, length: usize) -> Outcome {
        self.prepare(state);
        let until = self.cpu.now() + 1000;
        self.cpu.run(&mut self.code, until);
        let mut outcome = self.outcome();
        let rip = outcome.state.rip;
        if outcome.fault.is_some_and(|f| f.vector == 6) && (rip == START + length as u64 || TAKEN.contains(&rip)) {
            outcome.fault = None;
            if TAKEN.contains(&rip) {
                outcome.state.rip = TAKEN[0];
            }
        }
        outcome
    }

    /// Fills the scratch memory.
    pub fn set_memory(&mut self, bytes: &[u8; SCRATCH_SIZE]) {
        self.ram.write(SCRATCH_RAM, bytes);
    }

    /// The scratch memory.
    pub fn memory(&self, bytes: &mut [u8; SCRATCH_SIZE]) {
        self.ram.read(SCRATCH_RAM, bytes);
    }

    fn prepare(&mut self, state: &State) {
        let cpu = &mut self.cpu;
        if cpu.cpl != 3 {
            return_to_user(cpu);
        }
        cpu.regs[..16].copy_from_slice(&state.gpr);
        cpu.rip = START;
        cpu.set_rflags(state.rflags);
        let mut x87 = [0; LEGACY_X87_SIZE];
        x87.copy_from_slice(&state.xsave[..LEGACY_X87_SIZE]);
        cpu.x87.restore_legacy(&x87, true);
        cpu.mxcsr = state.mxcsr();
        for n in 0..16 {
            for quad in 0..4 {
                cpu.ymm[n][quad] = state.u64(State::vector(n, quad));
            }
        }
        cpu.trap = Trap::Continue;
        cpu.cr2 = 0;
        cpu.fault_address = 0;
    }

    /// Runs the instruction, on its own.
    pub fn run(&mut self, state: &State) -> Outcome {
        self.prepare(state);
        let cpu = &mut self.cpu;
        let mut steps = 0;
        loop {
            cpu.attention = 0;
            cpu.step(&mut self.code);
            steps += 1;
            // A string instruction may take several steps.
            if cpu.rip != START || cpu.cpl != 3 || !matches!(cpu.trap, Trap::Continue) || steps > 1000 {
                break;
            }
        }
        self.outcome()
    }

    fn outcome(&mut self) -> Outcome {
        let cpu = &mut self.cpu;
        let mut state = State::new();
        state.gpr.copy_from_slice(&cpu.regs[..16]);
        state.rip = cpu.rip;
        state.rflags = cpu.rflags();
        let mut fault = None;
        if cpu.cpl == 0 {
            let vector = (cpu.rip.wrapping_sub(SYSTEM_LINEAR + HANDLERS) / 16) as u8;
            let has_error = matches!(vector, 8 | 10..=14 | 17 | 21);
            let frame = SYSTEM + (cpu.regs[4].wrapping_sub(SYSTEM_LINEAR) & 0xfff);
            let word = |i: u64| self.ram.load::<8>((frame + 8 * i) & 0xfff | SYSTEM);
            let at = u64::from(has_error);
            fault = Some(Fault {
                vector,
                error: if has_error { word(0) as u32 } else { 0 },
                address: if vector == 14 { cpu.cr2 } else { 0 },
            });
            state.rip = word(at);
            state.rflags = word(at + 2);
            state.gpr[4] = word(at + 3);
            // The handler halted.
            cpu.activity = Activity::Active;
            cpu.attention = 0;
        }
        let mut x87 = [0; LEGACY_X87_SIZE];
        cpu.x87.save_legacy(&mut x87, true);
        state.xsave[..LEGACY_X87_SIZE].copy_from_slice(&x87);
        state.set_u32(24, cpu.mxcsr);
        for n in 0..16 {
            for quad in 0..4 {
                state.set_u64(State::vector(n, quad), cpu.ymm[n][quad]);
            }
        }
        if fault.is_none() && TAKEN.contains(&state.rip) {
            state.rip = TAKEN[0];
        }
        Outcome { state, fault }
    }
}

/// Undoes the delivery of an exception.
fn return_to_user(cpu: &mut Cpu) {
    let rights = segment::PRESENT | segment::NON_SYSTEM | segment::ACCESSED | 3 << 5;
    cpu.segs[segment::CS].selector = 0x33;
    cpu.segs[segment::CS].access = rights | segment::CODE | segment::WRITABLE | segment::LONG | segment::GRANULARITY;
    cpu.segs[segment::SS] = Segment {
        selector: 0x2b,
        base: 0,
        limit: u32::MAX,
        access: rights | segment::WRITABLE | segment::BIG | segment::GRANULARITY,
    };
    cpu.set_cpl(3);
    cpu.mode_changed();
}

/// Page tables, descriptor tables and the task state.
fn build_memory(ram: &GuestRam) {
    let (user, supervisor) = (7, 3);
    let [pml4, pdpt, pd, code_pt, scratch_pt, high_pdpt, high_pd] =
        [0, 1, 2, 3, 4, 5, 6].map(|i| PAGE_TABLES + i * 0x1000);
    let store = |at: u64, value: u64| ram.store::<8>(at, value);
    store(pml4, pdpt | user);
    store(pdpt, pd | user);
    let index = |linear: u64, level: u32| linear >> (12 + 9 * level) & 511;
    store(pd + 8 * index(CODE, 1), code_pt | user);
    store(pd + 8 * index(SCRATCH, 1), scratch_pt | user);
    store(code_pt + 8 * index(CODE, 0), CODE_RAM | user);
    for page in 0..(SCRATCH_SIZE as u64).div_ceil(4096) {
        store(scratch_pt + 8 * (index(SCRATCH, 0) + page), (SCRATCH_RAM + page * 4096) | user);
    }
    // The supervisor's half: one page of tables, mapped by the last table, which lies in the system page's neighbour.
    store(pml4 + 8 * 256, high_pdpt | supervisor);
    store(high_pdpt, high_pd | supervisor);
    let high_pt = SYSTEM + 0x1000;
    store(high_pd, high_pt | supervisor);
    store(high_pt, SYSTEM | supervisor);
    // GDT: 0x10 kernel code, 0x18 kernel data, 0x2b user data, 0x33 user code, 0x40 TSS.
    store(SYSTEM + GDT + 0x10, 0x00af_9b00_0000_ffff);
    store(SYSTEM + GDT + 0x18, 0x00cf_9300_0000_ffff);
    store(SYSTEM + GDT + 0x28, 0x00cf_f300_0000_ffff);
    store(SYSTEM + GDT + 0x30, 0x00af_fb00_0000_ffff);
    let base = SYSTEM_LINEAR + TSS;
    store(SYSTEM + GDT + 0x40, 0x67 | (base & 0xff_ffff) << 16 | 0x8b << 40 | (base >> 24 & 0xff) << 56);
    store(SYSTEM + GDT + 0x48, base >> 32);
    store(SYSTEM + TSS + 4, SYSTEM_LINEAR + STACK_TOP);
    // The I/O permission map lies beyond the limit: no port is allowed.
    store(SYSTEM + TSS + 0x60, 0x68 << 48);
    // Handlers halt.
    ram.write(SYSTEM + HANDLERS, &[0xf4; 512]);
    for vector in 0..32 {
        let handler = SYSTEM_LINEAR + HANDLERS + 16 * vector;
        // INT3 and INTO may be raised by user code.
        let kind = if vector == 3 || vector == 4 { 0xee } else { 0x8e };
        let gate = SYSTEM + IDT + 16 * vector;
        store(gate, handler & 0xffff | 0x10 << 16 | kind << 40 | (handler >> 16 & 0xffff) << 48);
        store(gate + 8, handler >> 32);
    }
}
