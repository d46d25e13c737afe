//! RDMSR and WRMSR of what the guest does not have for itself.

use super::Exit;
use crate::apic::BASE;
use crate::memory::Page;
use crate::vcpu::SWITCHED_MSRS;
use crate::vmcs::field;
use core::sync::atomic::Ordering;
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

/// Fills an MSR bitmap (SDM Vol. 3C, 25.6.9): exits for all but those that are the guest's own.
pub fn bitmap(page: &Page, unrestricted: bool, pat: bool) {
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
    // The time, and what is known of side channels, may be read.
    for number in [msr::TSC, msr::ARCH_CAPABILITIES] {
        page.0[number as usize / 64].fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
    }
}

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
        // It neither moves nor is switched off.
        msr::APIC_BASE => value == apic_base(exit),
        msr::EFER => write_efer(exit, value),
        msr::PAT => exit.vcpu.controls.entry & EntryControls::LOAD_PAT == 0,
        _ => FIXED.into_iter().any(|(fixed, _)| fixed == number),
    };
    if valid { exit.advance() } else { exit.general_protection() }
}

fn apic_base(exit: &Exit<'_>) -> u64 {
    BASE | APIC_ENABLED | if exit.vcpu.index == 0 { FIRST_PROCESSOR } else { 0 }
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
