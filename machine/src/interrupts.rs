//! Which wire reaches which interrupt input: ISA interrupts, PCI interrupts through PIRQs, the HPET's own.

use crate::ports::Line;
use chipset::lpc::InterruptLevels;
use devices::ioapic::IoApic;
use devices::pic::DualPic;
use serde::{Deserialize, Serialize};

/// The state of the wires into the 8259 pair and the I/O APIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptWires {
    isa: u16,
    hpet_legacy: u16,
    io_apic: u32,
    pci: InterruptLevels,
    /// The HPET stands in for IRQ 0 and 8.
    hpet_replaces: bool,
}

impl InterruptWires {
    /// Takes a change of `line` (not one of the PCI wires).
    pub fn set(&mut self, line: Line, level: bool) {
        fn put(mask: u32, bit: u8, level: bool) -> u32 {
            if level { mask | 1 << bit } else { mask & !(1 << bit) }
        }
        match line {
            Line::Isa(n) => self.isa = put(self.isa.into(), n & 15, level) as u16,
            Line::HpetLegacy(n) => self.hpet_legacy = put(self.hpet_legacy.into(), n & 15, level) as u16,
            Line::IoApic(n) => self.io_apic = put(self.io_apic, n & 31, level),
            Line::Pci(..) | Line::PicOutput | Line::Reset => {}
        }
    }

    /// The PCI wires have changed.
    pub fn set_pci(&mut self, levels: InterruptLevels) {
        self.pci = levels;
    }

    /// Whether the HPET stands in for IRQ 0 and 8.
    pub fn set_hpet_replaces(&mut self, replaces: bool) {
        self.hpet_replaces = replaces;
    }

    /// Drives every input of both controllers.
    pub fn drive(&self, pic: &mut DualPic, io_apic: &mut IoApic) {
        const REPLACED: u16 = 1 << 0 | 1 << 8;
        let devices = if self.hpet_replaces { self.isa & !REPLACED | self.hpet_legacy & REPLACED } else { self.isa };
        let isa = devices | self.pci.isa;
        for irq in (0..16u8).filter(|irq| *irq != 2) {
            pic.set_line(irq, isa >> irq & 1 != 0);
        }
        // The I/O APIC has PIRQs on inputs of their own, and as on QEMU's boards on those of the ISA interrupts to which they are routed.
        let mut inputs = self.io_apic | u32::from(isa) & !1 & !(1 << 2) | u32::from(self.pci.pirq) << 16;
        inputs |= u32::from(devices & 1) << 2;
        for input in 0..24u8 {
            io_apic.set_line(input, inputs >> input & 1 != 0);
        }
    }
}
