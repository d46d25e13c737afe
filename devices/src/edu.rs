//! `edu`: QEMU's PCI device for learning to write drivers (QEMU's `docs/specs/edu`).
//!
//! BAR 0 is 1 MiB of memory: identification, an inversion, a factorial that takes its time, interrupts raised and
//! acknowledged by hand, and a DMA engine with a buffer of 4 KiB inside the device. Registers below 0x80 take accesses of
//! 4 bytes, the others of 4 or 8; any other read gives all ones, any other write is ignored.
//!
//! QEMU's model is a conventional PCI function, ours one of PCI Express with a function-level reset, so that it can be assigned to guests.
//! Where QEMU's model says nothing of time, ours takes virtual time, so that a driver which does not wait sees it.

use crate::device::{Device, Region};
use crate::pci::config::{BarKind, ConfigSpace, Identity};
use crate::pci::core::{FunctionCore, FunctionCoreState, InterruptPorts};
use crate::pci::{PciFunction, Window, decode, encode};
use crate::ports::{Clock, Dma, Nanoseconds};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Size of BAR 0.
pub const BAR_SIZE: u64 = 1 << 20;
/// Where the DMA engine finds the device's own buffer.
pub const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer.
pub const BUFFER_SIZE: u64 = 4096;
/// The addresses that the DMA engine can emit unless told otherwise: 28 bits.
pub const DEFAULT_DMA_MASK: u64 = (1 << 28) - 1;

/// Register offsets.
pub mod register {
    /// Identification, read only.
    pub const IDENTIFICATION: u64 = 0x00;
    /// Reads as the complement of what was written.
    pub const LIVENESS: u64 = 0x04;
    /// Takes a number; becomes its factorial, modulo 2^32, when [`STATUS`] is no longer computing.
    pub const FACTORIAL: u64 = 0x08;
    /// Status: bit 0 computing, bit 7 interrupt when done.
    pub const STATUS: u64 = 0x20;
    /// What raised the interrupt, read only.
    pub const INTERRUPT_STATUS: u64 = 0x24;
    /// Sets bits of the interrupt status, write only.
    pub const INTERRUPT_RAISE: u64 = 0x60;
    /// Clears bits of the interrupt status, write only.
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
    /// DMA source.
    pub const DMA_SOURCE: u64 = 0x80;
    /// DMA destination.
    pub const DMA_DESTINATION: u64 = 0x88;
    /// DMA length in bytes.
    pub const DMA_COUNT: u64 = 0x90;
    /// DMA command: bit 0 run, bit 1 from the device to memory, bit 2 interrupt when done.
    pub const DMA_COMMAND: u64 = 0x98;
}

/// Version 1.0, then what the documentation calls "00edu".
const IDENTIFICATION: u64 = 0x0100_00ed;
const COMPUTING: u32 = 1 << 0;
const INTERRUPT_WHEN_COMPUTED: u32 = 1 << 7;
const FACTORIAL_DONE: u32 = 1 << 0;
const DMA_DONE: u32 = 1 << 8;
const DMA_RUN: u64 = 1 << 0;
const DMA_TO_MEMORY: u64 = 1 << 1;
const DMA_INTERRUPT: u64 = 1 << 2;

/// A factorial takes this long, and [`MULTIPLICATION_TIME`] for each multiplication.
const FACTORIAL_TIME: Nanoseconds = 1000;
const MULTIPLICATION_TIME: Nanoseconds = 10;
/// A transfer takes this long, and [`BYTE_TIME`] for each byte of at most a buffer.
const TRANSFER_TIME: Nanoseconds = 100_000;
const BYTE_TIME: Nanoseconds = 10;

/// Saved state of [`Edu`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EduState {
    pub core: FunctionCoreState,
    pub liveness: u32,
    pub factorial: u32,
    pub status: u32,
    pub interrupts: u32,
    pub source: u64,
    pub destination: u64,
    pub count: u64,
    pub command: u64,
    pub buffer: Vec<u8>,
    pub computed_at: Option<Nanoseconds>,
    pub transferred_at: Option<Nanoseconds>,
}

/// The function.
pub struct Edu {
    core: FunctionCore,
    dma: Box<dyn Dma>,
    clock: Box<dyn Clock>,
    dma_mask: u64,
    liveness: u32,
    factorial: u32,
    status: u32,
    interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    buffer: Vec<u8>,
    /// When the factorial is ready.
    computed_at: Option<Nanoseconds>,
    /// When the transfer takes place.
    transferred_at: Option<Nanoseconds>,
}

impl Edu {
    /// A function of vendor 1234, device 11E8. It interrupts by MSI or INTA#; addresses of its DMA are cut to `dma_mask`.
    pub fn new(dma_mask: u64, dma: Box<dyn Dma>, clock: Box<dyn Clock>, interrupts: InterruptPorts) -> Self {
        let identity = Identity {
            vendor: 0x1234,
            device: 0x11e8,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            revision: 0x10,
            class: 0x00_ff00,
            multifunction: false,
        };
        let mut config = ConfigSpace::integrated_endpoint(identity, true);
        config.set_interrupt_pin(1);
        config.add_bar(0, BarKind::Memory32 { prefetchable: false }, BAR_SIZE);
        let mut core = FunctionCore::new(config, interrupts);
        core.add_msi(1, false);
        Self {
            core,
            dma,
            clock,
            dma_mask,
            liveness: 0,
            factorial: 0,
            status: 0,
            interrupts: 0,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            buffer: vec![0; BUFFER_SIZE as usize],
            computed_at: None,
            transferred_at: None,
        }
    }

    fn raise(&mut self, bits: u32) {
        self.interrupts |= bits;
        if self.interrupts != 0 && self.core.msi_enabled() {
            self.core.signal(0);
        }
        self.core.set_intx(self.interrupts != 0);
    }

    fn acknowledge(&mut self, bits: u32) {
        self.interrupts &= !bits;
        self.core.set_intx(self.interrupts != 0);
    }

    fn set_alarm(&self) {
        self.clock.set_alarm([self.computed_at, self.transferred_at].into_iter().flatten().min());
    }

    fn compute(&mut self, number: u32) {
        if self.status & COMPUTING != 0 {
            return;
        }
        self.factorial = number;
        self.status |= COMPUTING;
        let time = FACTORIAL_TIME + MULTIPLICATION_TIME * Nanoseconds::from(number);
        self.computed_at = Some(self.clock.now().saturating_add(time));
        self.set_alarm();
    }

    fn computed(&mut self) {
        self.factorial = factorial(self.factorial);
        self.status &= !COMPUTING;
        if self.status & INTERRUPT_WHEN_COMPUTED != 0 {
            self.raise(FACTORIAL_DONE);
        }
    }

    fn start_transfer(&mut self, command: u64) {
        self.command = command;
        let time = TRANSFER_TIME + BYTE_TIME * self.count.min(BUFFER_SIZE);
        self.transferred_at = Some(self.clock.now().saturating_add(time));
        self.set_alarm();
    }

    /// The transfer. One that leaves the buffer, or that the bus refuses, moves nothing and is done all the same.
    fn transferred(&mut self) {
        let to_memory = self.command & DMA_TO_MEMORY != 0;
        let (inside, outside) =
            if to_memory { (self.source, self.destination) } else { (self.destination, self.source) };
        let start = inside.wrapping_sub(BUFFER);
        let end = start.checked_add(self.count).filter(|&end| end <= BUFFER_SIZE);
        if let Some(end) = end.filter(|_| self.core.config.bus_master()) {
            let part = &mut self.buffer[start as usize..end as usize];
            let address = outside & self.dma_mask;
            let _ = if to_memory { self.dma.write(address, part) } else { self.dma.read(address, part) };
        }
        self.command &= !DMA_RUN;
        if self.command & DMA_INTERRUPT != 0 {
            self.raise(DMA_DONE);
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> EduState {
        let Self {
            core,
            dma: _,
            clock: _,
            dma_mask: _,
            liveness,
            factorial,
            status,
            interrupts,
            source,
            destination,
            count,
            command,
            buffer,
            computed_at,
            transferred_at,
        } = self;
        EduState {
            core: core.save(),
            liveness: *liveness,
            factorial: *factorial,
            status: *status,
            interrupts: *interrupts,
            source: *source,
            destination: *destination,
            count: *count,
            command: *command,
            buffer: buffer.clone(),
            computed_at: *computed_at,
            transferred_at: *transferred_at,
        }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &EduState) {
        let EduState {
            core,
            liveness,
            factorial,
            status,
            interrupts,
            source,
            destination,
            count,
            command,
            buffer,
            computed_at,
            transferred_at,
        } = state;
        (self.liveness, self.factorial, self.status) = (*liveness, *factorial, *status);
        (self.source, self.destination, self.count, self.command) = (*source, *destination, *count, *command);
        self.buffer.clone_from(buffer);
        self.buffer.resize(BUFFER_SIZE as usize, 0);
        (self.computed_at, self.transferred_at) = (*computed_at, *transferred_at);
        self.interrupts = *interrupts;
        self.core.restore(core);
        self.set_alarm();
    }
}

/// `number`! modulo 2^32: 34! is a multiple of it, so nothing larger needs to be multiplied.
fn factorial(number: u32) -> u32 {
    if number >= 34 { 0 } else { (1..=number).fold(1, u32::wrapping_mul) }
}

/// Registers of this many bytes at this offset exist.
fn accepted(offset: u64, size: u8) -> bool {
    size == 4 || size == 8 && offset >= register::DMA_SOURCE
}

impl Device for Edu {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        let ones = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        if region != 0 || !accepted(offset, size) {
            return ones;
        }
        let value = match offset {
            register::IDENTIFICATION => IDENTIFICATION,
            register::LIVENESS => self.liveness.into(),
            register::FACTORIAL => self.factorial.into(),
            register::STATUS => self.status.into(),
            register::INTERRUPT_STATUS => self.interrupts.into(),
            register::DMA_SOURCE => self.source,
            register::DMA_DESTINATION => self.destination,
            register::DMA_COUNT => self.count,
            register::DMA_COMMAND => self.command,
            _ => ones,
        };
        value & ones
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        if region != 0 || !accepted(offset, size) {
            return;
        }
        let value = if size == 4 { value & 0xffff_ffff } else { value };
        let running = self.command & DMA_RUN != 0;
        match offset {
            register::LIVENESS => self.liveness = !(value as u32),
            register::FACTORIAL => self.compute(value as u32),
            register::STATUS => {
                self.status = self.status & !INTERRUPT_WHEN_COMPUTED | value as u32 & INTERRUPT_WHEN_COMPUTED;
            }
            register::INTERRUPT_RAISE => self.raise(value as u32),
            register::INTERRUPT_ACKNOWLEDGE => self.acknowledge(value as u32),
            register::DMA_SOURCE if !running => self.source = value,
            register::DMA_DESTINATION if !running => self.destination = value,
            register::DMA_COUNT if !running => self.count = value,
            register::DMA_COMMAND if !running && value & DMA_RUN != 0 => self.start_transfer(value),
            _ => {}
        }
    }

    fn alarm(&mut self, now: Nanoseconds) {
        if self.computed_at.is_some_and(|at| at <= now) {
            self.computed_at = None;
            self.computed();
        }
        if self.transferred_at.is_some_and(|at| at <= now) {
            self.transferred_at = None;
            self.transferred();
        }
        self.set_alarm();
    }

    fn reset(&mut self) {
        (self.liveness, self.factorial, self.status, self.interrupts) = (0, 0, 0, 0);
        (self.source, self.destination, self.count, self.command) = (0, 0, 0, 0);
        self.buffer.fill(0);
        (self.computed_at, self.transferred_at) = (None, None);
        self.set_alarm();
        self.core.reset();
    }
}

impl PciFunction for Edu {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.core.config_read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        let change = self.core.config_write(offset, size, value);
        if change.function_level_reset {
            self.reset();
            return true;
        }
        change.windows
    }

    fn windows(&self) -> Vec<Window> {
        self.core.windows()
    }

    fn save_encoded(&self) -> Vec<u8> {
        encode(&self.save())
    }

    fn restore_encoded(&mut self, state: &[u8]) -> bool {
        decode(state).map(|state| self.restore(&state)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeClock, RecordingMsi, RecordingPin, VecDma};

    struct Bench {
        edu: Edu,
        dma: VecDma,
        clock: FakeClock,
        pin: RecordingPin,
        msi: RecordingMsi,
    }

    impl Bench {
        fn new() -> Self {
            let (dma, clock, pin, msi) =
                (VecDma::new(0x2_0000), FakeClock::new(), RecordingPin::new(), RecordingMsi::new());
            let ports = InterruptPorts { pin: Box::new(pin.clone()), msi: Box::new(msi.clone()) };
            let mut edu = Edu::new(DEFAULT_DMA_MASK, Box::new(dma.clone()), Box::new(clock.clone()), ports);
            // Memory space and bus mastering.
            edu.config_write(4, 2, 6);
            Self { edu, dma, clock, pin, msi }
        }

        fn get(&mut self, register: u64) -> u64 {
            self.edu.read(0, register, 4)
        }

        fn set(&mut self, register: u64, value: u64) {
            self.edu.write(0, register, 4, value);
        }

        fn pass(&mut self, time: Nanoseconds) {
            let until = self.clock.now() + time;
            self.clock.run(&mut self.edu, until, 8);
        }

        fn transfer(&mut self, source: u64, destination: u64, count: u64, command: u64) {
            self.set(register::DMA_SOURCE, source);
            self.set(register::DMA_DESTINATION, destination);
            self.set(register::DMA_COUNT, count);
            self.set(register::DMA_COMMAND, command | DMA_RUN);
            assert_eq!(self.get(register::DMA_COMMAND) & DMA_RUN, 1, "a transfer takes time");
            self.pass(TRANSFER_TIME + BYTE_TIME * BUFFER_SIZE);
            assert_eq!(self.get(register::DMA_COMMAND) & DMA_RUN, 0);
        }

        fn capability(&mut self, id: u32) -> u16 {
            let mut at = self.edu.config_read(0x34, 1) as u16;
            while self.edu.config_read(at, 1) != id {
                at = self.edu.config_read(at + 1, 1) as u16;
                assert_ne!(at, 0, "no capability {id:#x}");
            }
            at
        }

        fn enable_msi(&mut self) {
            let at = self.capability(5);
            self.edu.config_write(at + 4, 4, 0xfee0_0000);
            self.edu.config_write(at + 12, 2, 0x41);
            self.edu.config_write(at + 2, 2, 1);
        }
    }

    #[test]
    fn is_1234_11e8_with_one_mebibyte() {
        let mut bench = Bench::new();
        assert_eq!(bench.edu.config_read(0, 4), 0x11e8_1234);
        bench.edu.config_write(0x10, 4, u32::MAX);
        assert_eq!(bench.edu.config_read(0x10, 4), 0xfff0_0000);
        assert_eq!(bench.get(register::IDENTIFICATION), 0x0100_00ed);
    }

    #[test]
    fn liveness_is_the_complement() {
        let mut bench = Bench::new();
        bench.set(register::LIVENESS, 0x1234_5678);
        assert_eq!(bench.get(register::LIVENESS), 0xedcb_a987);
    }

    #[test]
    fn low_registers_take_4_bytes_only() {
        let mut bench = Bench::new();
        bench.edu.write(0, register::LIVENESS, 8, 1);
        bench.edu.write(0, register::LIVENESS, 2, 1);
        assert_eq!(bench.get(register::LIVENESS), 0);
        assert_eq!(bench.edu.read(0, register::IDENTIFICATION, 1), 0xff);
        bench.edu.write(0, register::DMA_SOURCE, 8, 0x1_0000_0001);
        assert_eq!(bench.edu.read(0, register::DMA_SOURCE, 8), 0x1_0000_0001);
    }

    #[test]
    fn a_factorial_is_there_when_its_time_has_passed() {
        let mut bench = Bench::new();
        bench.set(register::FACTORIAL, 10);
        assert_eq!(bench.get(register::STATUS), 1);
        bench.set(register::FACTORIAL, 3);
        assert_eq!(bench.get(register::FACTORIAL), 10, "a number written while computing is ignored");
        bench.pass(FACTORIAL_TIME + 10 * MULTIPLICATION_TIME - 1);
        assert_eq!(bench.get(register::STATUS), 1);
        bench.pass(1);
        assert_eq!((bench.get(register::STATUS), bench.get(register::FACTORIAL)), (0, 3_628_800));
        assert!(!bench.pin.level(), "no interrupt was asked for");
    }

    #[test]
    fn factorials_are_taken_modulo_2_to_the_32() {
        let expected = |n: u64| (1..=n).fold(1u64, |product, n| (product * n) & 0xffff_ffff) as u32;
        for number in [0, 1, 12, 13, 20, 33, 34, 35, 1000] {
            assert_eq!(factorial(number), expected(number.into()), "{number}");
        }
        assert_ne!(factorial(33), 0);
    }

    #[test]
    fn a_factorial_interrupts_if_asked_to() {
        let mut bench = Bench::new();
        bench.set(register::STATUS, 0x81);
        assert_eq!(bench.get(register::STATUS), 0x80, "computing is read only");
        bench.set(register::FACTORIAL, 4);
        bench.pass(1_000_000);
        assert_eq!((bench.get(register::INTERRUPT_STATUS), bench.pin.level()), (1, true));
        bench.set(register::INTERRUPT_ACKNOWLEDGE, 1);
        assert_eq!((bench.get(register::INTERRUPT_STATUS), bench.pin.level()), (0, false));
    }

    #[test]
    fn the_wire_stays_until_every_bit_is_acknowledged() {
        let mut bench = Bench::new();
        bench.set(register::INTERRUPT_RAISE, 0x11);
        bench.set(register::INTERRUPT_RAISE, 0x100);
        bench.set(register::INTERRUPT_ACKNOWLEDGE, 0x11);
        assert_eq!((bench.get(register::INTERRUPT_STATUS), bench.pin.level()), (0x100, true));
        bench.set(register::INTERRUPT_ACKNOWLEDGE, 0x100);
        assert!(!bench.pin.level());
    }

    #[test]
    fn with_msi_each_raise_sends_a_message_and_the_wire_stays_low() {
        let mut bench = Bench::new();
        bench.enable_msi();
        bench.set(register::INTERRUPT_RAISE, 1);
        bench.set(register::INTERRUPT_RAISE, 1);
        assert_eq!(bench.msi.take(), [(0xfee0_0000, 0x41); 2]);
        assert!(!bench.pin.level());
    }

    #[test]
    fn dma_goes_both_ways() {
        let mut bench = Bench::new();
        bench.dma.put(0x1000, b"a hundred bytes");
        bench.transfer(0x1000, BUFFER + 8, 15, 0);
        bench.transfer(BUFFER + 8, 0x3000, 15, DMA_TO_MEMORY | DMA_INTERRUPT);
        assert_eq!(bench.dma.bytes(0x3000, 15), b"a hundred bytes");
        assert_eq!(bench.get(register::INTERRUPT_STATUS), 0x100);
    }

    #[test]
    fn dma_addresses_are_cut_to_the_mask() {
        let mut bench = Bench::new();
        bench.dma.put(0x1000, b"x");
        bench.transfer(0xf000_1000, BUFFER, 1, 0);
        bench.transfer(BUFFER, 0x2000, 1, DMA_TO_MEMORY);
        assert_eq!(bench.dma.bytes(0x2000, 1), b"x");
    }

    #[test]
    fn registers_of_a_running_transfer_do_not_change() {
        let mut bench = Bench::new();
        bench.set(register::DMA_COMMAND, DMA_RUN);
        bench.set(register::DMA_COUNT, 5);
        bench.set(register::DMA_COMMAND, DMA_RUN | DMA_INTERRUPT);
        assert_eq!((bench.get(register::DMA_COUNT), bench.get(register::DMA_COMMAND)), (0, 1));
    }

    #[test]
    fn transfers_outside_the_buffer_or_without_bus_mastering_move_nothing() {
        let mut bench = Bench::new();
        bench.dma.put(0x1000, &[7; 16]);
        for (destination, count) in [(BUFFER - 1, 2), (BUFFER + BUFFER_SIZE - 1, 2), (0, 4), (BUFFER, u64::MAX)] {
            bench.transfer(0x1000, destination, count, 0);
        }
        bench.edu.config_write(4, 2, 2);
        bench.transfer(0x1000, BUFFER, 16, 0);
        assert!(bench.edu.save().buffer.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_function_level_reset_ends_a_transfer_and_forgets_everything() {
        let mut bench = Bench::new();
        let new = EduState { core: bench.edu.save().core, ..Bench::new().edu.save() };
        bench.set(register::LIVENESS, 7);
        bench.set(register::DMA_SOURCE, 0x1000);
        bench.set(register::DMA_DESTINATION, BUFFER);
        bench.set(register::DMA_COUNT, 8);
        bench.set(register::DMA_COMMAND, DMA_RUN | DMA_INTERRUPT);
        let express = bench.capability(0x10);
        assert_eq!(bench.edu.config_read(express + 4, 4) >> 28 & 1, 1, "it is announced");
        assert!(bench.edu.config_write(express + 8, 2, 1 << 15));
        assert_eq!(bench.edu.config_read(4, 2), 0);
        bench.edu.config_write(4, 2, 6);
        bench.pass(TRANSFER_TIME * 2);
        assert_eq!(EduState { core: new.core.clone(), ..bench.edu.save() }, new);
        assert_eq!(bench.msi.take(), []);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let mut bench = Bench::new();
        bench.set(register::STATUS, 0x80);
        bench.set(register::FACTORIAL, 5);
        bench.set(register::DMA_COMMAND, DMA_RUN | DMA_INTERRUPT);
        let mut other = Bench::new();
        other.edu.restore(&bench.edu.save());
        assert_eq!(other.edu.save(), bench.edu.save());
        other.pass(1_000_000);
        assert_eq!((other.get(register::FACTORIAL), other.get(register::INTERRUPT_STATUS)), (120, 0x101));
        assert!(other.pin.level());
    }
}
