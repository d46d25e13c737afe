//! EPT violations: accesses to devices' memory, and to memory that is not there.

use super::Exit;
use crate::apic::{BASE, Effect};
use crate::board::IO_APIC;
use crate::memory::PAGE;
use crate::mmio::{self, Operation, StringMove};
use crate::paging;
use crate::vmcs::{Segment, field};
use alloc::format;
use alloc::sync::Arc;
use spec::x86::{Cr0, Efer, Rflags};

pub(super) fn handle(exit: &mut Exit<'_>) {
    let address = exit.vmcs.get(field::GUEST_PHYSICAL_ADDRESS);
    // The first access to registers that are the guest's own from then on.
    if exit.vcpu.vm.map_registers(address) {
        return;
    }
    emulate(exit, address);
}

/// Does the instruction that accesses the device's memory at `address`.
pub(super) fn emulate(exit: &mut Exit<'_>, address: u64) {
    let rip = exit.vmcs.get(field::GUEST_RIP);
    if exit.vcpu.injection.is_some() {
        return exit.vcpu.give_up(exit.host, format!("event delivery reaches {address:#x}, where no memory is"));
    }
    let Some(decoded) = decode(exit) else {
        let why = format!(
            "an instruction at {rip:#x} accesses {address:#x}, where no memory is, in a way that is not emulated"
        );
        return exit.vcpu.give_up(exit.host, why);
    };
    match decoded.operation {
        Operation::Load { size, into } => {
            let value = read(exit, address, size);
            let before = exit.register(into.number());
            exit.set_register(into.number(), into.merge(before, value, size));
        }
        Operation::Store { size, value } => write(exit, address, size, value),
        Operation::Compute(computation) => {
            let value = read(exit, address, computation.size);
            let flags = exit.vmcs.get(field::GUEST_RFLAGS);
            let outcome = computation.perform(value, flags.0);
            if let Some(value) = outcome.memory {
                write(exit, address, computation.size, value);
            }
            if let Some((into, value)) = outcome.register {
                let before = exit.register(into.number());
                exit.set_register(into.number(), into.merge(before, value, computation.size));
            }
            exit.vmcs.set(field::GUEST_RFLAGS, Rflags(outcome.flags));
        }
        Operation::String(string) => {
            let Some(done) = element(exit, address, string) else {
                let why = format!("a string instruction at {rip:#x} leaves its memory");
                return exit.vcpu.give_up(exit.host, why);
            };
            if !done {
                return;
            }
        }
    }
    exit.advance_by(decoded.length);
}

/// Does one element of a string instruction; true when that was the last. One side is the device's memory at `address`; if the other is as
/// well, it is that of the access that exited which is known, and the guest is given up.
fn element(exit: &mut Exit<'_>, address: u64, string: StringMove) -> Option<bool> {
    const WRITE: u64 = 1 << 1;
    let width = |exit: &Exit<'_>, register: usize| exit.vcpu.registers[register] & string.width;
    let vm = Arc::clone(&exit.vcpu.vm);
    let size = usize::from(string.size);
    // APIC-access exits tell in other bits; their instructions read or write, and do not move within the page.
    let to_device = string.writes && (!string.reads || exit.qualification() & WRITE != 0);
    let value = if !string.reads {
        exit.vcpu.registers[0]
    } else if to_device {
        let linear = string.source.base(exit.vmcs).wrapping_add(width(exit, 6));
        let mut bytes = [0; 8];
        if !paging::read(exit.vmcs, &*vm.memory, linear, &mut bytes[..size]) {
            return None;
        }
        u64::from_le_bytes(bytes)
    } else {
        read(exit, address, string.size)
    };
    if to_device {
        write(exit, address, string.size, value);
    } else if string.writes {
        let linear = Segment::Es.base(exit.vmcs).wrapping_add(width(exit, 7));
        if !paging::write(exit.vmcs, &*vm.memory, linear, &value.to_le_bytes()[..size]) {
            return None;
        }
    } else {
        let mask = u64::MAX >> (64 - 8 * size);
        let rax = exit.vcpu.registers[0];
        exit.vcpu.registers[0] = if size == 4 { value & mask } else { rax & !mask | value & mask };
    }
    let down = exit.vmcs.get(field::GUEST_RFLAGS).has(Rflags::DF);
    let mut step = |register: usize, by: u64| {
        let before = exit.vcpu.registers[register];
        let after = before.wrapping_add(by) & string.width;
        // A 32-bit address clears the upper half, a 16-bit one leaves the rest.
        let kept = if string.width == 0xffff { before & !0xffff } else { 0 };
        exit.vcpu.registers[register] = kept | after;
    };
    let by = if down { u64::from(string.size).wrapping_neg() } else { string.size.into() };
    if string.reads {
        step(6, by);
    }
    if string.writes {
        step(7, by);
    }
    if !string.repeated {
        return Some(true);
    }
    step(1, u64::MAX);
    Some(width(exit, 1) == 0)
}

fn decode(exit: &Exit<'_>) -> Option<mmio::Decoded> {
    const LONG: u32 = 1 << 13;
    const DEFAULT_32: u32 = 1 << 14;
    let rights = exit.vmcs.get(field::GUEST_CS_ACCESS_RIGHTS);
    let long = exit.vmcs.get(field::GUEST_EFER).has(Efer::LMA) && rights & LONG != 0;
    let protected = exit.vmcs.get(field::GUEST_CR0).has(Cr0::PE);
    let bits = match (long, protected && rights & DEFAULT_32 != 0) {
        (true, _) => 64,
        (_, true) => 32,
        _ => 16,
    };
    let rip = exit.vmcs.get(field::GUEST_RIP);
    let start = if long { rip } else { exit.vmcs.get(field::GUEST_CS_BASE).wrapping_add(rip) & 0xffff_ffff };
    let mut code = [0; mmio::LONGEST];
    let memory = &*exit.vcpu.vm.memory;
    // The next page may not be there.
    let in_page = mmio::LONGEST.min((PAGE - start % PAGE) as usize);
    let length =
        [mmio::LONGEST, in_page].into_iter().find(|n| paging::read(exit.vmcs, memory, start, &mut code[..*n]))?;
    mmio::decode(&code[..length], bits, &exit.vcpu.registers, exit.vmcs.get(field::GUEST_RSP))
}

fn read(exit: &Exit<'_>, address: u64, size: u8) -> u64 {
    match address & !(PAGE - 1) {
        BASE if !exit.vcpu.apic.is_x2apic() => {
            u64::from(exit.vcpu.apic.read(address as u16, exit.host.now())) >> (8 * (address & 3))
        }
        IO_APIC => {
            let vm = Arc::clone(&exit.vcpu.vm);
            vm.with_board(exit.host, |board| board.read_io_apic(address & 0xfff, size))
        }
        _ => {
            let vm = Arc::clone(&exit.vcpu.vm);
            let now = exit.host.now();
            vm.with_board(exit.host, |board| board.read_memory(address, size, now))
        }
    }
}

fn write(exit: &mut Exit<'_>, address: u64, size: u8, value: u64) {
    let vm = Arc::clone(&exit.vcpu.vm);
    match address & !(PAGE - 1) {
        BASE if address & 0xf == 0 && !exit.vcpu.apic.is_x2apic() => {
            let now = exit.host.now();
            let effect = exit.vcpu.apic.write(address as u16 & 0xfff, value as u32, now);
            apply(exit, effect);
        }
        IO_APIC => {
            vm.with_board(exit.host, |board| board.write_io_apic(address & 0xfff, size, value));
            vm.routes_changed();
        }
        _ => {
            let now = exit.host.now();
            vm.with_board(exit.host, |board| board.write_memory(address, size, value, now));
        }
    }
}

/// Does what a write of the local APIC asks of others.
pub(super) fn apply(exit: &mut Exit<'_>, effect: Effect) {
    let vm = Arc::clone(&exit.vcpu.vm);
    match effect {
        Effect::None => {}
        Effect::Command(high, low) => vm.command(exit.host, exit.vcpu.index, high, low),
        Effect::Ended(vector) => vm.with_board(exit.host, |board| board.end_of_interrupt(vector)),
    }
}
