//! For tests: a processor with a flat memory and a bus that remembers.

use crate::apic::InterruptMessage;
use crate::bus::Bus;
use crate::cpu::{Cpu, Mode};
use crate::decode::cache::CodeCache;
use crate::memory::map::{MemoryMap, MemoryRegion};
use crate::memory::ram::GuestRam;
use crate::models::Model;
use crate::run::{Activity, RunExit};
use crate::segment::{CS, Segment};
use std::sync::{Arc, Mutex};

/// What happened on the test bus.
#[derive(Debug, Default)]
pub struct BusLog {
    /// Port writes: port, size, value.
    pub port_writes: Vec<(u16, u8, u32)>,
    /// Messages sent.
    pub messages: Vec<InterruptMessage>,
    /// End-of-interrupt broadcasts.
    pub ends: Vec<u8>,
    /// What port reads give.
    pub port_value: u32,
    /// The 8259's vector.
    pub external_vector: u8,
}

/// A bus where ports are remembered and nothing else is.
#[derive(Debug, Clone, Default)]
pub struct TestBus(pub Arc<Mutex<BusLog>>);

impl TestBus {
    /// The log.
    pub fn log(&self) -> std::sync::MutexGuard<'_, BusLog> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Bus for TestBus {
    fn read(&mut self, _now: u64, _address: u64, size: u8) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
    }
    fn write(&mut self, _now: u64, _address: u64, _size: u8, _value: u64) {}
    fn io_read(&mut self, _now: u64, _port: u16, _size: u8) -> u32 {
        self.log().port_value
    }
    fn io_write(&mut self, _now: u64, port: u16, size: u8, value: u32) {
        self.log().port_writes.push((port, size, value));
    }
    fn send_interrupt(&mut self, _now: u64, message: InterruptMessage) {
        self.log().messages.push(message);
    }
    fn end_of_interrupt(&mut self, _now: u64, vector: u8) {
        self.log().ends.push(vector);
    }
    fn acknowledge_external(&mut self, _now: u64) -> u8 {
        self.log().external_vector
    }
    fn needs_service(&self) -> bool {
        false
    }
}

/// A processor under test.
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    /// Its decoded code.
    pub code: CodeCache,
    /// Its bus.
    pub bus: TestBus,
}

/// Bytes of RAM.
const MEMORY: u64 = 2 << 20;
/// Where [`Machine::gdt`] puts the global descriptor table.
pub const GDT: u64 = 0x1000;
/// Where [`Machine::idt`] puts the interrupt descriptor table.
pub const IDT: u64 = 0x2000;
/// Where the modes' page tables are.
pub const PAGE_TABLES: u64 = 0x10_0000;
/// Flat 64-bit code, DPL 0.
pub const CODE64: u64 = 0x00af_9b00_0000_ffff;
/// Flat 32-bit code, DPL 0.
pub const CODE32: u64 = 0x00cf_9b00_0000_ffff;
/// Flat data, DPL 0.
pub const DATA: u64 = 0x00cf_9300_0000_ffff;
/// Added to a descriptor or gate: DPL 3.
pub const DPL3: u64 = 3 << 45;

impl Machine {
    /// A processor of the default model in real mode, CS:IP 0:0x8000, SS:SP 0:0x7000.
    pub fn real() -> Self {
        Self::with_model(Model::default_model())
    }

    /// The same of another model.
    pub fn with_model(model: Model) -> Self {
        let ram = Arc::new(GuestRam::new(MEMORY));
        let map =
            Arc::new(MemoryMap { regions: vec![MemoryRegion { base: 0, length: MEMORY, offset: 0, writable: true }] });
        let bus = TestBus::default();
        let model = Arc::new(model);
        let code = CodeCache::new(|extension| crate::decode::announced::announces(&model, extension));
        let mut cpu = Cpu::new(0, ram, map, Box::new(bus.clone())).with_model(model, 1);
        cpu.segs[CS] = Segment { access: cpu.segs[CS].access, ..Segment::real(0) };
        cpu.rip = 0x8000;
        cpu.regs[4] = 0x7000;
        cpu.mode_changed();
        Self { cpu, code, bus }
    }

    /// 32-bit protected mode without paging: GDT entries 8 code, 0x10 data, 0x1b user code, 0x23 user data; more with [`Machine::gdt`].
    pub fn protected() -> Self {
        let mut machine = Self::real();
        machine.gdt(&[0, CODE32, DATA, CODE32 | DPL3, DATA | DPL3]);
        machine.cpu.cr0 |= 1;
        machine.flat(0);
        machine
    }

    /// 64-bit mode, low 2 MiB mapped for everyone, with the descriptors of [`Machine::protected`] (code is 64-bit) and 32-bit user code at 0x2b.
    pub fn long() -> Self {
        Self::long_with(Model::default_model())
    }

    /// As [`Machine::long`], with a CPU model.
    pub fn long_with(model: Model) -> Self {
        let mut machine = Self::with_model(model);
        machine.gdt(&[0, CODE64, DATA, CODE64 | DPL3, DATA | DPL3, CODE32 | DPL3]);
        machine.store(PAGE_TABLES, 8, (PAGE_TABLES + 0x1000) | 7);
        machine.store(PAGE_TABLES + 0x1000, 8, (PAGE_TABLES + 0x2000) | 7);
        machine.store(PAGE_TABLES + 0x2000, 8, 0x87);
        machine.cpu.cr3 = PAGE_TABLES;
        machine.cpu.cr4 = 0x20;
        machine.cpu.efer = 0xd01;
        machine.cpu.cr0 = 0x8000_0011;
        machine.flat(0);
        machine
    }

    /// Loads the flat segments of privilege level `cpl` from the GDT.
    pub fn flat(&mut self, cpl: u8) {
        let (code, data) = if cpl == 0 { (8u16, 0x10u16) } else { (0x1b, 0x23) };
        for register in 0..6 {
            let selector = if register == CS { code } else { data };
            let descriptor = self.load(GDT + u64::from(selector & !7), 8);
            self.cpu.segs[register] = Segment::of(selector, spec::x86::descriptors::Descriptor(descriptor | 1 << 40));
        }
        self.cpu.cpl = cpl;
        self.cpu.mode_changed();
    }

    /// Writes the global descriptor table.
    pub fn gdt(&mut self, descriptors: &[u64]) {
        for (index, descriptor) in (0u64..).zip(descriptors) {
            self.store(GDT + 8 * index, 8, *descriptor);
        }
        self.cpu.gdtr = crate::cpu::TableRegister { base: GDT, limit: (8 * descriptors.len() - 1) as u16 };
    }

    /// Points a gate of the interrupt descriptor table at `offset` in the segment `selector`; `kind` is the byte of type, DPL and P.
    pub fn idt(&mut self, vector: u8, selector: u16, offset: u64, kind: u8) {
        let low = offset & 0xffff | u64::from(selector) << 16 | u64::from(kind) << 40 | (offset >> 16 & 0xffff) << 48;
        self.cpu.idtr = crate::cpu::TableRegister { base: IDT, limit: 0xfff };
        if self.cpu.long_mode() {
            self.store(IDT + 16 * u64::from(vector), 8, low);
            self.store(IDT + 16 * u64::from(vector) + 8, 8, offset >> 32);
        } else {
            self.store(IDT + 8 * u64::from(vector), 8, low);
        }
    }

    /// A TSS descriptor's low half.
    pub fn tss_descriptor(base: u64, limit: u64, kind: u64) -> u64 {
        limit & 0xffff | (base & 0xff_ffff) << 16 | kind << 40 | (base >> 24 & 0xff) << 56
    }

    /// Stores bytes at a physical address.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.cpu.ram.write(address, bytes);
        self.code.drop_written(&self.cpu.ram);
    }

    /// Stores a little-endian value.
    pub fn store(&mut self, address: u64, size: usize, value: u64) {
        self.write(address, &value.to_le_bytes()[..size]);
    }

    /// Loads a little-endian value.
    pub fn load(&self, address: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.cpu.ram.read(address, &mut bytes[..size]);
        u64::from_le_bytes(bytes)
    }

    /// Puts `code` at the current CS:RIP and executes `count` instructions.
    pub fn execute(&mut self, code: &[u8], count: usize) {
        let at = self.cpu.code_linear();
        self.write(at, code);
        self.steps(count);
    }

    /// Executes `count` instructions, with events before each.
    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let until = self.cpu.now() + 1;
            let exit = self.cpu.run(&mut self.code, until);
            debug_assert!(matches!(exit, RunExit::Deadline | RunExit::Idle | RunExit::TripleFault), "{exit:?}");
        }
    }

    /// Runs until HLT or a triple fault, at most `limit` instructions; says how it ended.
    pub fn run_to_halt(&mut self, limit: u64) -> Activity {
        let until = self.cpu.now() + limit;
        self.cpu.run(&mut self.code, until);
        self.cpu.activity
    }

    /// Selector and RIP.
    pub fn at(&self) -> (u16, u64) {
        (self.cpu.segs[CS].selector, self.cpu.rip)
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.cpu.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_as_named() {
        assert_eq!(Machine::real().mode(), Mode::Real);
        assert_eq!(Machine::protected().mode(), Mode::Protected);
        let mut machine = Machine::long();
        assert_eq!(machine.mode(), Mode::Long64);
        machine.cpu.rip = 0x8000;
        machine.execute(&[0x48, 0xff, 0xc0, 0xf4], 2); // inc rax; hlt
        assert_eq!((machine.cpu.regs[0], machine.cpu.activity), (1, Activity::Halted));
    }
}
