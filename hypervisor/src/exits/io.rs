//! IN, OUT, INS and OUTS.

use super::Exit;
use crate::paging;
use crate::vmcs::field;
use alloc::sync::Arc;
use spec::vmx::qualification::io;
use spec::x86::Rflags;

/// Elements of a string instruction that are done before the guest's vCPU is looked at again.
const AT_ONCE: u64 = 256;

pub(super) fn handle(exit: &mut Exit<'_>) {
    let qualification = exit.qualification();
    let size = (qualification & 7) as u8 + 1;
    let port = (qualification >> io::PORT_SHIFT) as u16;
    if qualification & io::STRING != 0 {
        return string(exit, qualification, port, size);
    }
    let mask = u64::MAX >> (64 - 8 * u32::from(size));
    let rax = exit.vcpu.registers[0];
    if qualification & io::IN != 0 {
        let value = input(exit, port, size) & mask;
        // A 32-bit result clears the upper half, shorter ones leave the rest.
        exit.vcpu.registers[0] = if size == 4 { value } else { rax & !mask | value };
    } else {
        output(exit, port, size, rax & mask);
    }
    exit.advance();
}

fn input(exit: &Exit<'_>, port: u16, size: u8) -> u64 {
    let vm = Arc::clone(&exit.vcpu.vm);
    let now = exit.host.now();
    vm.with_board(exit.host, |board| board.input(port, size, now))
}

fn output(exit: &Exit<'_>, port: u16, size: u8, value: u64) {
    let vm = Arc::clone(&exit.vcpu.vm);
    let now = exit.host.now();
    vm.with_board(exit.host, |board| board.output(port, size, value, now));
}

/// INS and OUTS. The VMCS has the linear address of the first element; the registers follow the address size.
fn string(exit: &mut Exit<'_>, qualification: u64, port: u16, size: u8) {
    let is_in = qualification & io::IN != 0;
    let repeated = qualification & io::REP != 0;
    let width = address_width(exit);
    let linear = exit.vmcs.get(field::GUEST_LINEAR_ADDRESS);
    let down = exit.vmcs.get(field::GUEST_RFLAGS).has(Rflags::DF);
    let pointer = if is_in { 7 } else { 6 };
    let count = if repeated { exit.vcpu.registers[1] & width } else { 1 };
    let vm = Arc::clone(&exit.vcpu.vm);
    let mut done = 0;
    while done < count.min(AT_ONCE) {
        let step = done.wrapping_mul(size.into());
        let at = if down { linear.wrapping_sub(step) } else { linear.wrapping_add(step) };
        let mut bytes = [0; 8];
        let data = &mut bytes[..usize::from(size)];
        let reached = if is_in {
            data.copy_from_slice(&input(exit, port, size).to_le_bytes()[..usize::from(size)]);
            paging::write(exit.vmcs, &*vm.memory, at, data)
        } else {
            let read = paging::read(exit.vmcs, &*vm.memory, at, data);
            if read {
                output(exit, port, size, u64::from_le_bytes(bytes));
            }
            read
        };
        if !reached {
            // The first element was checked by the processor; a later page may be missing.
            exit.vcpu.give_up(exit.host, "a string I/O instruction leaves its memory".into());
            return;
        }
        done += 1;
    }
    let moved = done.wrapping_mul(size.into());
    let before = exit.vcpu.registers[pointer];
    let after = if down { before.wrapping_sub(moved) } else { before.wrapping_add(moved) };
    exit.vcpu.registers[pointer] = before & !width | after & width;
    if repeated {
        let rcx = exit.vcpu.registers[1];
        exit.vcpu.registers[1] = rcx & !width | (count - done) & width;
    }
    if done == count {
        exit.advance();
    }
}

/// The mask of the address size: from the instruction information where there is one, and it always is on processors with EPT.
fn address_width(exit: &Exit<'_>) -> u64 {
    let info = exit.vmcs.read(spec::vmx::VmcsField::EXIT_INSTRUCTION_INFO);
    match info >> 7 & 7 {
        0 => 0xffff,
        1 => 0xffff_ffff,
        _ => u64::MAX,
    }
}
