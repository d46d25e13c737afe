//! CPUID: the processor's own, without what guests do not have, and with what they do.

use super::Exit;
use crate::controls::Controls;
use alloc::vec::Vec;
use spec::vmx::SecondaryControls;
use spec::x86::Cr4;
use spec::x86::cpuid::{Feature, Register, leaf};

/// What no guest has although the processor does.
const WITHHELD: &[Feature] = &[
    Feature::VMX,
    Feature::SMX,
    Feature::MONITOR,
    Feature::DTES64,
    Feature::DS_CPL,
    Feature::DS,
    Feature::EIST,
    Feature::TM2,
    Feature::PDCM,
    Feature::SDBG,
    Feature::TSC_DEADLINE,
    Feature::MTRR,
    Feature::MCE,
    Feature::MCA,
    Feature::ACPI,
    Feature::TM,
    Feature::PBE,
    Feature::SGX,
    Feature::HLE,
    Feature::RTM,
    Feature::MPX,
    Feature::PQM,
    Feature::PQE,
    Feature::INTEL_PT,
    Feature::TSC_ADJUST,
    Feature::PKU,
    Feature::OSPKE,
    Feature::PKS,
    Feature::WAITPKG,
    Feature::CET_SS,
    Feature::LA57,
    Feature::KL,
    Feature::BUS_LOCK_DETECT,
    Feature::ENQCMD,
    Feature::UINTR,
];

/// CPUID.(7,0):EDX: IA32_CORE_CAPABILITIES.
const CORE_CAPABILITIES: u32 = 1 << 30;

/// Leaves in the range for hypervisors: who we are.
const SIGNATURE: &[u8; 12] = b"VanderpoolVP";

pub(super) fn handle(exit: &mut Exit<'_>) {
    let (leaf, subleaf) = (exit.vcpu.registers[0] as u32, exit.vcpu.registers[1] as u32);
    let values = answer(exit, leaf, subleaf);
    for (register, value) in [0, 3, 1, 2].into_iter().zip(values) {
        exit.vcpu.registers[register] = value.into();
    }
    exit.advance();
}

/// EAX, EBX, ECX, EDX.
fn answer(exit: &Exit<'_>, number: u32, subleaf: u32) -> [u32; 4] {
    let mut values = exit.host.cpuid(number, subleaf);
    exit.vcpu.withheld.apply(&mut values, number, subleaf);
    let [a, b, c, d] = &mut values;
    let count = u32::from(exit.vcpu.vm.configuration.vcpus);
    let id = exit.vcpu.index as u32;
    match (number, subleaf) {
        (leaf::VERSION, _) => {
            *b = *b & 0xff00 | count << 16 | id << 24;
            let osxsave = exit.vcpu.cr4(exit.vmcs) & Cr4::OSXSAVE != 0;
            set(c, Feature::OSXSAVE, osxsave);
            set(c, Feature::HYPERVISOR, true);
            set(d, Feature::HTT, count > 1);
        }
        (leaf::EXTENDED_FEATURES, 0) => *d &= !CORE_CAPABILITIES,
        // The local APIC's timer counts nanoseconds: that is the crystal, and the time-stamp counter's ratio to it.
        (leaf::TSC, _) if *a != 0 && *b != 0 && *c != 0 => {
            let tsc = u64::from(*c) * u64::from(*b) / u64::from(*a);
            // Small, as kernels multiply it with the crystal's kHz in 32 bits.
            values = [1000, (tsc / 1_000_000) as u32, 1_000_000_000, 0];
        }
        // XSAVES and its supervisor components need a control that we do not set.
        (leaf::XSAVE, 1) => {
            *a &= 7;
            (*c, *d) = (0, 0);
        }
        (leaf::THERMAL | leaf::MONITOR | leaf::PERFMON, _) => values = [0; 4],
        (leaf::TOPOLOGY | leaf::TOPOLOGY_V2, level) => {
            let bits = count.next_power_of_two().trailing_zeros();
            values = match level {
                0 => [0, 1, 0x100, id],
                1 => [bits, count, 0x201, id],
                _ => [0, 0, level, id],
            };
        }
        (leaf::HYPERVISOR, _) => {
            let word = |at: usize| {
                u32::from_le_bytes([SIGNATURE[at], SIGNATURE[at + 1], SIGNATURE[at + 2], SIGNATURE[at + 3]])
            };
            values = [leaf::HYPERVISOR, word(0), word(4), word(8)];
        }
        (0x12 | 0x14 | 0x18..=0x1e, _) => values = [0; 4],
        _ => {}
    }
    values
}

fn set(register: &mut u32, feature: Feature, on: bool) {
    let bit = 1 << feature.place().bit;
    *register = if on { *register | bit } else { *register & !bit };
}

/// The bits that guests do not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld(Vec<(u32, u32, [u32; 4])>);

impl Withheld {
    /// With these controls.
    #[must_use]
    pub fn new(controls: &Controls) -> Self {
        let mut withheld = Self(Vec::new());
        WITHHELD.iter().for_each(|feature| withheld.add(*feature));
        if !controls.has(SecondaryControls::ENABLE_INVPCID) {
            withheld.add(Feature::INVPCID);
        }
        if !controls.has(SecondaryControls::ENABLE_RDTSCP) {
            withheld.add(Feature::RDPID);
            withheld.add(Feature::RDTSCP);
        }
        withheld
    }

    fn add(&mut self, feature: Feature) {
        let place = feature.place();
        let register = match place.register {
            Register::Eax => 0,
            Register::Ebx => 1,
            Register::Ecx => 2,
            Register::Edx => 3,
        };
        let found = self.0.iter_mut().find(|(leaf, subleaf, _)| (*leaf, *subleaf) == (place.leaf, place.subleaf));
        let mut bits = [0; 4];
        bits[register] = 1 << place.bit;
        match found {
            Some((.., before)) => before[register] |= bits[register],
            None => self.0.push((place.leaf, place.subleaf, bits)),
        }
    }

    fn apply(&self, values: &mut [u32; 4], number: u32, subleaf: u32) {
        for (_, _, bits) in self.0.iter().filter(|(leaf, sub, _)| (*leaf, *sub) == (number, subleaf)) {
            values.iter_mut().zip(bits).for_each(|(value, bits)| *value &= !bits);
        }
    }
}
