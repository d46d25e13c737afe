//! RDMSR and WRMSR of what the guest does not have for itself.

use super::{Exit, memory};
use crate::apic::BASE;
use crate::memory::Page;
use crate::vcpu::SWITCHED_MSRS;
use crate::vmcs::field;
use core::ops::RangeInclusive;
use core::sync::atomic::Ordering;
use spec::apic::local_apic::offset;
use spec::vmx::EntryControls;
use spec::x86::{Cr0, Efer, msr};

/// In the VMCS, or commands that harm nobody: the guest reads and writes them itself.
const OWN: [u32; 8] = [
    msr::FS_BASE,
    msr::GS_BASE,
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::EFER,
    msr::PRED_CMD,
    msr::FLUSH_CMD,
];

/// Fills an MSR bitmap (SDM Vol. 3C, 25.6.9): exits for all but those that are the guest's own. `x2apic`: for a local APIC in that mode which
/// the processor virtualizes.
pub fn bitmap(page: &Page, unrestricted: bool, pat: bool, x2apic: bool) {
    page.0.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    // Without "unrestricted guest" the guest's EFER is not always the processor's.
    let efer = |number: &u32| *number != msr::EFER || unrestricted;
    let pat = pat.then_some(msr::PAT);
    for number in OWN.into_iter().filter(efer).chain(SWITCHED_MSRS).chain(pat) {
        // Reads of low and of high MSRs, then writes of them, 1 KiB each.
        let high = u32::from(number >= 0xc000_0000);
        let bit = (number & 0x1fff) as usize;
        for area in [high, 2 + high] {
            page.0[area as usize * 128 + bit / 64].fetch_and(!(1 << (bit % 64)), Ordering::Relaxed);
        }
    }
    if x2apic {
        let number = |register: u16| msr::X2APIC_FIRST + u32::from(register >> 4);
        // The timer's count is not in the page. What is written to other registers concerns us.
        let read = READABLE.iter().flat_map(|range| range.clone().step_by(0x10)).map(number);
        let written = [offset::TPR, offset::EOI, offset::SELF_IPI].map(number);
        for (area, number) in read.map(|number| (0, number)).chain(written.map(|number| (2, number))) {
            page.0[area * 128 + number as usize / 64].fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
        }
    }
    // The time, and what is known of side channels, may be read.
    for number in [msr::TSC, msr::ARCH_CAPABILITIES] {
        page.0[number as usize / 64].fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
    }
}

/// Registers of an x2APIC that are read from the virtual-APIC page.
const READABLE: [RangeInclusive<u16>; 6] = [
    offset::ID..=offset::VERSION,
    offset::TPR..=offset::TPR,
    offset::PPR..=offset::PPR,
    offset::LDR..=offset::LDR,
    offset::SVR..=offset::ESR,
    offset::LVT_TIMER..=offset::LVT_ERROR,
];

const X2APIC_ENABLED: u64 = 1 << 10;
const APIC_ENABLED: u64 = 1 << 11;
const FIRST_PROCESSOR: u64 = 1 << 8;

/// MSRs that are there with one value and ignore writes: microcode and platform information, and what is on by itself.
const FIXED: [(u32, u64); 4] =
    [(msr::BIOS_SIGN_ID, 0), (msr::PLATFORM_ID, 0), (msr::MISC_ENABLE, 1), (msr::DEBUGCTL, 0)];

pub(super) fn read(exit: &mut Exit<'_>) {
    let number = exit.vcpu.registers[1] as u32;
    let value = match number {
        msr::APIC_BASE => apic_base(exit),
        msr::EFER => exit.vcpu.efer(exit.vmcs),
        msr::PAT => exit.vmcs.get(field::GUEST_PAT),
        msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
            let now = exit.host.now();
            match exit.vcpu.apic.read_msr(x2apic_register(number), now).filter(|_| exit.vcpu.apic.is_x2apic()) {
                Some(value) => value,
                None => return exit.general_protection(),
            }
        }
        _ => match FIXED.into_iter().find(|(fixed, _)| *fixed == number) {
            Some((_, value)) => value,
            None => return exit.general_protection(),
        },
    };
    exit.vcpu.registers[0] = value & 0xffff_ffff;
    exit.vcpu.registers[2] = value >> 32;
    exit.advance();
}

pub(super) fn write(exit: &mut Exit<'_>) {
    let number = exit.vcpu.registers[1] as u32;
    let value = exit.edx_eax();
    let valid = match number {
        // It neither moves nor is switched off, nor does it leave x2APIC mode.
        msr::APIC_BASE if value == apic_base(exit) => true,
        msr::APIC_BASE if value == apic_base(exit) | X2APIC_ENABLED => {
            exit.vcpu.enter_x2apic(exit.vmcs);
            true
        }
        msr::APIC_BASE => false,
        msr::X2APIC_FIRST..=msr::X2APIC_LAST if exit.vcpu.apic.is_x2apic() => {
            let now = exit.host.now();
            let effect = exit.vcpu.apic.write_msr(x2apic_register(number), value, now);
            if let Some(effect) = effect {
                memory::apply(exit, effect);
            }
            effect.is_some()
        }
        msr::EFER => write_efer(exit, value),
        msr::PAT => exit.vcpu.controls.entry & EntryControls::LOAD_PAT == 0,
        _ => FIXED.into_iter().any(|(fixed, _)| fixed == number),
    };
    if valid { exit.advance() } else { exit.general_protection() }
}

/// The offset in the page of the x2APIC register that is this MSR.
fn x2apic_register(number: u32) -> u16 {
    ((number - msr::X2APIC_FIRST) << 4) as u16
}

fn apic_base(exit: &Exit<'_>) -> u64 {
    let x2apic = if exit.vcpu.apic.is_x2apic() { X2APIC_ENABLED } else { 0 };
    BASE | APIC_ENABLED | x2apic | if exit.vcpu.index == 0 { FIRST_PROCESSOR } else { 0 }
}

fn write_efer(exit: &mut Exit<'_>, value: u64) -> bool {
    let before = exit.vcpu.efer(exit.vmcs);
    let paging = exit.vcpu.cr0(exit.vmcs) & Cr0::PG != 0;
    let writable = Efer::SCE | Efer::LME | Efer::NXE;
    if value & !Efer::ALL != 0 || paging && (value ^ before) & Efer::LME != 0 {
        return false;
    }
    exit.vcpu.set_efer(exit.vmcs, before & !writable | value & writable);
    true
}
