//! The processor: any bytes as code on a small machine, in each operating mode, run twice: in blocks as always, and
//! instruction by instruction. Both must end in the same state.

use crate::input::Input;
use processor::apic::InterruptMessage;
use processor::decode::announced::announces;
use processor::decode::cache::CodeCache;
use processor::memory::map::{MemoryMap, MemoryRegion};
use processor::memory::ram::GuestRam;
use processor::models::Model;
use processor::segment::{self, Segment};
use processor::{Bus, Cpu, RunExit};
use std::sync::Arc;

/// RAM of the machine, from address 0.
pub const MEMORY: u64 = 1 << 18;
/// Where execution begins.
pub const CODE: u64 = 0x1_0000;
/// Where every exception leads in protected modes: the second half of the input.
const HANDLER: u64 = 0x1_8000;
/// Top of the stack.
pub const STACK: u64 = 0x3_0000;
const GDT: u64 = 0x800;
const TSS: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TABLES: u64 = 0x8000;
/// Instructions, or nanoseconds, that one input may take.
const BUDGET: u64 = 500;

/// A descriptor table: flat code and data of 32 bits, code of 64 bits, privilege level 0 before 3, and the task-state segment at `tss`.
pub(crate) const fn descriptors(tss: u64) -> [u64; 9] {
    [
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00af_9b00_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x0000_8b00_0000_0067 | tss << 16,
        0,
    ]
}

/// A board without devices: ports and memory beyond RAM read as a function of their address.
pub(crate) struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, _now: u64, address: u64, size: u8) -> u64 {
        address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 8 * u32::from(size))
    }
    fn write(&mut self, _now: u64, _address: u64, _size: u8, _value: u64) {}
    fn io_read(&mut self, _now: u64, port: u16, size: u8) -> u32 {
        u32::from(port).wrapping_mul(0x9e37_79b9) >> (32 - 8 * u32::from(size))
    }
    fn io_write(&mut self, _now: u64, _port: u16, _size: u8, _value: u32) {}
    fn send_interrupt(&mut self, _now: u64, _message: InterruptMessage) {}
    fn end_of_interrupt(&mut self, _now: u64, _vector: u8) {}
    fn acknowledge_external(&mut self, _now: u64) -> u8 {
        0x20
    }
    fn needs_service(&self) -> bool {
        false
    }
}

/// A processor with its RAM.
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    /// RAM.
    pub ram: Arc<GuestRam>,
    code: CodeCache,
}

/// The mode in which execution begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Real-address mode.
    Real,
    /// Protected mode, 32-bit, without paging.
    Protected,
    /// 64-bit mode at this privilege level.
    Long(u8),
}

/// What is compared between two runs.
#[derive(Debug, PartialEq)]
struct Outcome {
    registers: [u64; 16],
    rip: u64,
    rflags: u64,
    segments: [Segment; 6],
    control: [u64; 5],
    vectors: [[u64; 4]; 16],
    mxcsr: u32,
    now: u64,
    memory: u64,
}

impl Machine {
    /// A machine that stands at [`CODE`] in mode `start`, with descriptor tables, page tables and a handler for exceptions.
    pub fn new(start: Start) -> Self {
        Self::with_model(start, Model::default_model())
    }

    /// The same with a processor of `model`.
    pub fn with_model(start: Start, model: Model) -> Self {
        let ram = Arc::new(GuestRam::new(MEMORY));
        let region = MemoryRegion { base: 0, length: MEMORY, offset: 0, writable: true };
        let map = Arc::new(MemoryMap { regions: vec![region] });
        let cpu = Cpu::new(0, Arc::clone(&ram), map, Box::new(Nothing));
        let model = Arc::new(model);
        let cpu = cpu.with_model(Arc::clone(&model), 1);
        let code = CodeCache::new(|feature| announces(&model, feature));
        let mut machine = Self { cpu, ram, code };
        machine.write_tables(start);
        machine.enter(start);
        machine
    }

    fn write_tables(&mut self, start: Start) {
        for (index, descriptor) in (0..).zip(descriptors(TSS)) {
            self.ram.write(GDT + 8 * index, &descriptor.to_le_bytes());
        }
        // RSP0 of the 64-bit TSS; 32-bit code starts at privilege level 0 and needs no other stack.
        self.ram.write(TSS + 4, &(STACK - 0x4000).to_le_bytes());
        for vector in 0..256 {
            match start {
                Start::Real => self.ram.write(4 * vector, &(HANDLER as u32 / 16 * 0x1_0000).to_le_bytes()),
                Start::Protected => {
                    let gate = HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48;
                    self.ram.write(IDT + 8 * vector, &gate.to_le_bytes());
                }
                Start::Long(_) => {
                    let gate = HANDLER & 0xffff | 0x18 << 16 | 0xee00 << 32 | (HANDLER >> 16) << 48;
                    self.ram.write(IDT + 16 * vector, &gate.to_le_bytes());
                }
            }
        }
        // Identity map of 1 GiB in pages of 2 MiB, for all privilege levels.
        self.ram.write(TABLES, &(TABLES + 0x1007).to_le_bytes());
        self.ram.write(TABLES + 0x1000, &(TABLES + 0x2007).to_le_bytes());
        for index in 0..512 {
            self.ram.write(TABLES + 0x2000 + 8 * index, &(index << 21 | 0xe7).to_le_bytes());
        }
    }

    fn enter(&mut self, start: Start) {
        let cpu = &mut self.cpu;
        cpu.regs[4] = STACK;
        cpu.rip = CODE;
        let data = segment::PRESENT | segment::NON_SYSTEM | segment::WRITABLE | segment::ACCESSED;
        let big = segment::BIG | segment::GRANULARITY;
        let flat = |selector, access| Segment { selector, base: 0, limit: u32::MAX, access };
        match start {
            Start::Real => {
                for index in 0..6 {
                    cpu.segs[index] = Segment::real(0x1000);
                }
                cpu.segs[segment::CS].access |= segment::CODE;
                cpu.regs[4] = 0xfff0;
                cpu.rip = 0;
            }
            Start::Protected => {
                for index in 0..6 {
                    cpu.segs[index] = flat(0x10, data | big);
                }
                cpu.segs[segment::CS] = flat(8, data | segment::CODE | big);
                cpu.cr0 = 0x11;
            }
            Start::Long(level) => {
                let (level, privilege) = (u16::from(level), u32::from(level) << 5);
                for index in 0..6 {
                    cpu.segs[index] = flat(if level == 3 { 0x2b } else { 0x10 }, data | big | privilege);
                }
                let access = data | segment::CODE | segment::LONG | segment::GRANULARITY | privilege;
                cpu.segs[segment::CS] = flat(if level == 3 { 0x23 } else { 0x18 }, access);
                cpu.cr3 = TABLES;
                cpu.cr4 = 0x4_0620;
                cpu.xcr0 = 7;
                cpu.efer = 0xd01;
                cpu.cr0 = 0x8001_0033;
            }
        }
        if start != Start::Real {
            cpu.gdtr.base = GDT;
            cpu.gdtr.limit = 71;
            cpu.idtr.base = IDT;
            cpu.idtr.limit = 0xfff;
            cpu.tr = Segment { selector: 0x38, base: TSS, limit: 0x67, access: segment::PRESENT | 11 };
        }
        if let Start::Long(level) = start {
            cpu.set_cpl(level);
        }
        cpu.mode_changed();
        cpu.fpu_state_changed();
    }

    /// Runs for `budget` nanoseconds, `step` at a time.
    pub fn run(&mut self, budget: u64, step: u64) {
        let end = self.cpu.now() + budget;
        while self.cpu.now() < end {
            let until = (self.cpu.now() + step).min(end);
            match self.cpu.run(&mut self.code, until) {
                RunExit::Deadline | RunExit::Service | RunExit::Yield => {}
                RunExit::Idle | RunExit::TripleFault | RunExit::Debug | RunExit::Kicked => break,
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let cpu = &self.cpu;
        let mut memory = 0_u64;
        self.ram.for_each_page(|address, page| {
            for (index, chunk) in (0_u64..).zip(page.chunks_exact(8)) {
                let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
                if word != 0 {
                    let place = (address + index) | 1;
                    memory = memory.rotate_left(5) ^ word.wrapping_mul(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                }
            }
        });
        Outcome {
            registers: core::array::from_fn(|index| cpu.regs[index]),
            rip: cpu.rip,
            rflags: cpu.rflags(),
            segments: core::array::from_fn(|index| cpu.segs[index]),
            control: [cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.efer],
            vectors: cpu.ymm,
            mxcsr: cpu.mxcsr,
            now: cpu.now(),
            memory,
        }
    }
}

/// One byte for the mode, 16 for registers, the rest is code; its second half is the exception handler.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let start = match input.byte() % 4 {
        0 => Start::Real,
        1 => Start::Protected,
        2 => Start::Long(0),
        _ => Start::Long(3),
    };
    let registers = input.bytes(16);
    let code = input.rest();
    let code = &code[..code.len().min(0x8000)];
    let (main, handler) = code.split_at(code.len() / 2);
    let execute = |step: u64| {
        let mut machine = Machine::new(start);
        machine.ram.write(CODE, main);
        machine.ram.write(HANDLER, handler);
        for (index, &byte) in registers.iter().enumerate().filter(|&(index, _)| index != 4) {
            // Addresses in RAM, small numbers, and large ones.
            machine.cpu.regs[index] = match byte >> 6 {
                0 => u64::from(byte),
                1 => u64::from(byte) << 12,
                2 => u64::from(byte) << 56 | u64::from(byte),
                _ => 0_u64.wrapping_sub(u64::from(byte)),
            };
        }
        machine.run(BUDGET, step);
        machine.outcome()
    };
    assert_eq!(execute(BUDGET), execute(1), "blocks and single instructions end differently");
}

/// Some code for each mode.
pub fn seeds() -> Vec<Vec<u8>> {
    let codes: [&[u8]; 5] = [
        b"\x48\x01\xd8\x50\x5b\xff\xc0\x0f\xa2\x0f\x31\x75\xf0",
        b"\xf3\xa4\xf3\xab\x0f\x58\xc1\xc5\xf4\x58\xc2\xd9\xe8\xd9\xeb\xde\xc9\xeb\xee",
        b"\x0f\x20\xc0\x0f\x22\xd8\x0f\x01\xf8\x0f\x05\x0f\x07\x0f\x34\x0f\x35\xcf",
        b"\xcd\x80\x9c\x9d\x0f\x30\x0f\x32\xe6\x80\xec\xf4\x0f\x0b\xcc",
        b"\xea\x00\x00\x00\x10\x9a\x00\x00\x01\x00\x08\x00\xcb\x8e\xd8\x0f\xb2\x00\x0f\x00\xd8",
    ];
    codes
        .iter()
        .zip([2, 3, 2, 1, 0])
        .map(|(code, mode)| {
            let mut data = vec![mode];
            data.extend([0x41, 0x42, 3, 4, 0, 0x43, 0x44, 0x45, 8, 9, 0x8a, 0xcb, 12, 13, 14, 15]);
            data.extend(code.iter().chain(code.iter()));
            data
        })
        .collect()
}
