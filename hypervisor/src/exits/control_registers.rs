//! Accesses to CR0, CR3, CR4 and CR8 that the guest does not do itself (SDM Vol. 3C, table 28-3).

use super::Exit;
use crate::vcpu::modes::Refused;
use crate::vmcs::field;
use spec::vmx::qualification::cr_access as access;
use spec::x86::{Cr0, Efer};

pub(super) fn handle(exit: &mut Exit<'_>) {
    let qualification = exit.qualification();
    let register = (qualification >> access::GPR_SHIFT & 15) as usize;
    let kind = qualification >> access::TYPE_SHIFT & 3;
    let result = match (kind, qualification & 15) {
        (access::MOV_TO_CR, 0) => set_cr0(exit, exit.register(register)),
        (access::MOV_TO_CR, 4) => {
            let value = wide(exit, exit.register(register));
            exit.vcpu.set_cr4(exit.vmcs, value)
        }
        (access::MOV_TO_CR, 3) => {
            set_cr3(exit, exit.register(register));
            Ok(())
        }
        (access::MOV_TO_CR, 8) => set_cr8(exit, exit.register(register)),
        (access::MOV_FROM_CR, 3) => {
            let paged_for = exit.vcpu.pages_for_guest(exit.vmcs);
            let cr3 = if paged_for { exit.vcpu.shadow.cr3 } else { exit.vmcs.get(field::GUEST_CR3) };
            exit.set_register(register, cr3);
            Ok(())
        }
        (access::MOV_FROM_CR, 8) => {
            exit.set_register(register, u64::from(exit.vcpu.apic.task_priority() >> 4));
            Ok(())
        }
        (access::CLTS, _) => set_cr0(exit, exit.vcpu.cr0(exit.vmcs) & !Cr0::TS),
        (access::LMSW, _) => {
            // PE can be set so, not cleared.
            let low = Cr0::PE | Cr0::MP | Cr0::EM | Cr0::TS;
            let cr0 = exit.vcpu.cr0(exit.vmcs);
            let source = qualification >> access::LMSW_SOURCE_SHIFT;
            set_cr0(exit, cr0 & !(low & !Cr0::PE) | source & low)
        }
        _ => Err(Refused::Fault),
    };
    match result {
        Ok(()) => exit.advance(),
        Err(Refused::Fault) => exit.general_protection(),
        Err(Refused::Mode) => {
            let why = "it goes into real-address mode, which needs \"unrestricted guest\", and the processor does not have it";
            exit.vcpu.give_up(exit.host, why.into());
        }
    }
}

/// Outside 64-bit mode the upper half of a register is not an operand.
fn wide(exit: &Exit<'_>, value: u64) -> u64 {
    if exit.vmcs.get(field::GUEST_EFER).has(Efer::LMA) { value } else { value & 0xffff_ffff }
}

fn set_cr0(exit: &mut Exit<'_>, value: u64) -> Result<(), Refused> {
    let value = wide(exit, value);
    if value >> 32 != 0 {
        return Err(Refused::Fault);
    }
    exit.vcpu.set_cr0(exit.vmcs, value & Cr0::ALL | Cr0::ET)
}

fn set_cr3(exit: &mut Exit<'_>, value: u64) {
    if exit.vcpu.pages_for_guest(exit.vmcs) {
        exit.vcpu.shadow.cr3 = wide(exit, value);
    } else {
        // Without "CR3-load exiting" 0 this is all there is; bit 63 asks to keep translations, which is never wrong to ignore.
        exit.vmcs.set(field::GUEST_CR3, wide(exit, value) & !(1 << 63));
    }
}

fn set_cr8(exit: &mut Exit<'_>, value: u64) -> Result<(), Refused> {
    if value > 15 {
        return Err(Refused::Fault);
    }
    exit.vcpu.apic.set_task_priority((value as u8) << 4);
    Ok(())
}
