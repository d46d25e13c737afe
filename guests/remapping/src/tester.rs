//! A `dma-tester`.

use bare::device;
use spec::dma_tester::{Control, DEVICE, Flags, START, STOP, State, VENDOR, engine, engine_register, register};
use spec::pci::capability::{EXTENDED_FIRST, ats, extended_id, id, pasid, pri};
use spec::pci::config::{self, Command};

/// The PCI configuration window, where q35 has it.
const ECAM: u64 = 0xb000_0000;
/// Time-stamp counts that a transfer may take.
const PATIENCE: u64 = 100_000_000;

/// A transfer.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Where to read.
    pub from: u64,
    /// Where to write.
    pub to: u64,
    /// Bytes.
    pub length: u32,
    /// [`Flags`] besides the PASID's.
    pub flags: u32,
    /// The PASID.
    pub pasid: Option<u32>,
}

impl Program {
    /// A copy by untranslated addresses.
    #[must_use]
    pub const fn copy(from: u64, to: u64, length: u32) -> Self {
        Self { from, to, length, flags: 0, pasid: None }
    }
}

/// A function.
#[derive(Clone, Copy, Debug)]
pub struct Tester {
    /// Its source id.
    pub source: u16,
    registers: u64,
    vectors: u64,
}

impl Tester {
    /// The `n`-th function on bus 0, with everything enabled.
    #[must_use]
    pub fn find(n: usize) -> Option<Tester> {
        let wanted = u32::from(VENDOR) | u32::from(DEVICE) << 16;
        let source = (0..256u16).filter(|source| device::read32(configuration(*source)) == wanted).nth(n)?;
        let space = configuration(source);
        let bar = |n: u64| u64::from(device::read32(space + u64::from(config::BAR0) + 4 * n) & !0xf);
        let tester = Tester { source, registers: bar(0), vectors: bar(2) };
        device::write16(space + u64::from(config::COMMAND), Command::MEMORY | Command::BUS_MASTER);
        for (id, offset, bits) in [
            (extended_id::PASID, pasid::CONTROL, pasid::ENABLE | pasid::EXECUTE | pasid::PRIVILEGED),
            (extended_id::ATS, ats::CONTROL, ats::ENABLE),
            (extended_id::PRI, pri::CONTROL, pri::ENABLE),
        ] {
            device::write16(extended(space, id)? + u64::from(offset), bits);
        }
        // Enable MSI-X: bit 15 of message control.
        device::write16(capability(space, id::MSI_X)? + 2, 1 << 15);
        Some(tester)
    }

    /// The message of vector `n`.
    pub fn set_message(&self, n: u64, address: u64, data: u32) {
        let entry = self.vectors + 16 * n;
        device::write32(entry, address as u32);
        device::write32(entry + 4, (address >> 32) as u32);
        device::write32(entry + 8, data);
        device::write32(entry + 12, 0);
    }

    /// A register of the whole function.
    #[must_use]
    pub fn read(&self, register: u64) -> u32 {
        device::read32(self.registers + register)
    }

    /// The address of one of its registers.
    #[must_use]
    pub fn address(&self, register: u64) -> u64 {
        self.registers + register
    }

    /// Writes a register of the whole function.
    pub fn write(&self, register: u64, value: u32) {
        device::write32(self.registers + register, value);
    }

    /// A register of engine `n`.
    #[must_use]
    pub fn engine(&self, n: u64, offset: u64) -> u32 {
        self.read(engine_register(n, offset))
    }

    /// Addresses have 32 bits, or 64.
    pub fn set_narrow(&self, on: bool) {
        self.write(register::CONTROL, if on { Control::NARROW } else { 0 });
    }

    /// Starts `runs` runs of engine `n`, `delay` nanoseconds before each.
    pub fn start(&self, n: u64, program: &Program, runs: u32, delay: u32) {
        let at = |offset| self.registers + engine_register(n, offset);
        device::write32(at(engine::COMMAND), STOP);
        device::write64(at(engine::SOURCE), program.from);
        device::write64(at(engine::DESTINATION), program.to);
        device::write32(at(engine::LENGTH), program.length);
        device::write32(at(engine::PASID), program.pasid.unwrap_or(0));
        let flags = program.flags | if program.pasid.is_some() { Flags::PASID } else { 0 };
        device::write32(at(engine::FLAGS), flags);
        device::write32(at(engine::RUNS), runs);
        device::write32(at(engine::DELAY), delay);
        device::write32(at(engine::COMMAND), START);
    }

    /// Waits until engine `n` is not busy, calling `meanwhile`; gives the failure's number, 0 for none.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait(&self, n: u64, mut meanwhile: impl FnMut()) -> Result<u32, &'static str> {
        let start = bare::cpu::timestamp();
        loop {
            let status = self.engine(n, engine::STATUS);
            if status & 0xf == State::Done as u32 || status & 0xf == State::Failed as u32 {
                return Ok(status >> 8);
            }
            meanwhile();
            if bare::cpu::timestamp().wrapping_sub(start) > PATIENCE {
                return Err("an engine is never done");
            }
        }
    }

    /// Makes a transfer with engine 0; gives the failure's number, 0 for none.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn run(&self, program: &Program) -> Result<u32, &'static str> {
        self.start(0, program, 1, 0);
        self.wait(0, || ())
    }
}

fn configuration(source: u16) -> u64 {
    ECAM + (u64::from(source) << 12)
}

fn capability(space: u64, wanted: u8) -> Option<u64> {
    let byte = |at: u64| device::read32(space + (at & !3)) >> (8 * (at & 3)) & 0xff;
    let mut at = u64::from(byte(config::CAPABILITIES.into()));
    while at != 0 {
        if byte(at) == u32::from(wanted) {
            return Some(space + at);
        }
        at = byte(at + 1).into();
    }
    None
}

fn extended(space: u64, wanted: u16) -> Option<u64> {
    let mut at = u64::from(EXTENDED_FIRST);
    while at != 0 {
        let header = device::read32(space + at);
        if header as u16 == wanted {
            return Some(space + at);
        }
        at = (header >> 20).into();
    }
    None
}
