//! IRET (SDM vol. 2, IRET; vol. 3A, 6.12.1, 6.14.3, 21.2.2 and 21.3).

use super::intercept::TaskSwitchSource;
use crate::cpu::{Cpu, Mode, RSP};
use crate::decode::{Op, Table};
use crate::segment::{CS, DS, ES, FS, GS, SS, Segment};
use crate::trap::Exec;
use crate::{branch, flags};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;
use spec::x86::descriptors::Selector;
use spec::x86::rflags::Rflags;

pub(super) fn register(table: &mut Table) {
    for (code, size) in [(Code::Iretw, 2), (Code::Iretd, 4), (Code::Iretq, 8)] {
        table.end(code, branch!(iret)).sized(size);
    }
}

/// Flags that any return may change.
const ALWAYS: u64 = Rflags::STATUS | Rflags::TF | Rflags::DF | Rflags::NT | Rflags::RF | Rflags::AC | Rflags::ID;

fn iret(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.drain_stores();
    // Events are rechecked when NMI blocking ends, which must be at an exact instruction.
    let blocked = cpu.unblock_nmi_by_iret()?;
    let done = match cpu.mode {
        Mode::Real => iret_real(cpu, op.size),
        Mode::Virtual8086 => iret_from_v86(cpu, op.size),
        Mode::Protected | Mode::Compatibility | Mode::Long64 => iret_protected(cpu, op),
    };
    cpu.iret_ended(done.is_ok(), blocked);
    done
}

impl Cpu {
    /// The flags after popping `image`, of `size` bytes, with `changeable` the bits that may change.
    fn merge_flags(&mut self, image: u64, size: u8, changeable: u64) {
        let changeable = if size == 2 { changeable & 0xffff } else { changeable };
        let flags = self.rflags() & !changeable | image & changeable;
        self.events.loaded_rf = flags & Rflags::RF != 0;
        self.set_rflags(flags);
    }

    /// Bits of RFLAGS that a return from privilege level `cpl` may change.
    fn returnable_flags(&self, cpl: u8) -> u64 {
        let mut bits = ALWAYS;
        if cpl <= Rflags(self.rflags).iopl() {
            bits |= Rflags::IF;
        }
        if cpl == 0 {
            bits |= Rflags::IOPL | Rflags::VIF | Rflags::VIP;
        }
        bits
    }
}

fn iret_real(cpu: &mut Cpu, size: u8) -> Exec {
    let mut stack = cpu.current_stack();
    let offset = stack.pop(cpu, size)?;
    let selector = stack.pop(cpu, size)? as u16;
    let image = stack.pop(cpu, size)?;
    let segment = cpu.paragraph_segment(CS, selector);
    if offset > u64::from(segment.limit) {
        return Err(cpu.general_protection(0));
    }
    cpu.commit_stack_pointer(&stack);
    cpu.segs[CS] = segment;
    cpu.rip = offset;
    cpu.mode_changed();
    cpu.merge_flags(image, size, ALWAYS | Rflags::IF | Rflags::IOPL);
    Ok(())
}

fn iret_from_v86(cpu: &mut Cpu, size: u8) -> Exec {
    let privileged = Rflags(cpu.rflags).iopl() == 3;
    let virtual_flag = !privileged && cpu.cr4 & Cr4::VME != 0 && size == 2;
    if !privileged && !virtual_flag {
        return Err(cpu.general_protection(0));
    }
    let mut stack = cpu.current_stack();
    let offset = stack.pop(cpu, size)?;
    let selector = stack.pop(cpu, size)? as u16;
    let image = stack.pop(cpu, size)?;
    if offset > 0xffff {
        return Err(cpu.general_protection(0));
    }
    if virtual_flag && (image & flags::TF != 0 || image & flags::IF != 0 && cpu.rflags & flags::VIP != 0) {
        return Err(cpu.general_protection(0));
    }
    cpu.commit_stack_pointer(&stack);
    cpu.segs[CS] = Segment::virtual_8086(selector);
    cpu.rip = offset;
    cpu.mode_changed();
    if virtual_flag {
        let vif = if image & flags::IF != 0 { flags::VIF } else { 0 };
        cpu.rflags = cpu.rflags & !flags::VIF | vif;
        cpu.merge_flags(image, size, ALWAYS);
    } else {
        cpu.merge_flags(image, size, ALWAYS | Rflags::IF);
    }
    Ok(())
}

fn iret_protected(cpu: &mut Cpu, op: &Op) -> Exec {
    let size = op.size;
    if cpu.rflags & flags::NT != 0 {
        if cpu.long_mode() {
            return Err(cpu.general_protection(0));
        }
        let next = cpu.next_rip(op);
        let link = cpu.system_load::<2>(cpu.tr.base)? as u16;
        return cpu.task_switch(Some(op), link, TaskSwitchSource::Iret, next, None);
    }
    let mut stack = cpu.current_stack();
    let offset = stack.pop(cpu, size)?;
    let selector = stack.pop(cpu, size)? as u16;
    let image = stack.pop(cpu, size)?;
    let old_cpl = cpu.cpl;
    if image & flags::VM != 0 && size == 4 && old_cpl == 0 && !cpu.long_mode() {
        let esp = stack.pop(cpu, 4)?;
        let mut selectors = [0; 5];
        for selector in &mut selectors {
            *selector = stack.pop(cpu, 4)? as u16;
        }
        if offset > 0xffff {
            return Err(cpu.general_protection(0));
        }
        cpu.shadow_return_to_v86()?;
        cpu.regs[RSP] = esp;
        for (register, selector) in [SS, ES, DS, FS, GS].into_iter().zip(selectors) {
            cpu.segs[register] = Segment::virtual_8086(selector);
        }
        cpu.segs[CS] = Segment::virtual_8086(selector);
        cpu.cpl = 3;
        cpu.rip = offset;
        cpu.events.loaded_rf = image & flags::RF != 0;
        cpu.set_rflags(image);
        cpu.mode_changed();
        return Ok(());
    }
    let code = cpu.check_return_target(selector)?;
    let cpl = Selector(selector).rpl();
    let changeable = cpu.returnable_flags(old_cpl);
    let with_stack = cpl != old_cpl || cpu.mode == Mode::Long64;
    if !with_stack {
        let rip = cpu.check_target_offset(code.found.descriptor, offset)?;
        let descriptor = cpu.mark_accessed(code.found)?;
        let shadow = cpu.shadow_return(cpu.return_place(&code, rip), cpl, true)?;
        cpu.commit_shadow(shadow);
        cpu.commit_stack_pointer(&stack);
        cpu.commit_code_segment(selector, descriptor, cpl);
        cpu.rip = rip;
        cpu.merge_flags(image, size, changeable);
        return Ok(());
    }
    let pointer = stack.pop(cpu, size)?;
    let stack_selector = stack.pop(cpu, size)? as u16;
    let segment = cpu.check_return_stack(stack_selector, &code)?;
    let rip = cpu.check_target_offset(code.found.descriptor, offset)?;
    let descriptor = cpu.mark_accessed(code.found)?;
    let shadow = cpu.shadow_return(cpu.return_place(&code, rip), cpl, true)?;
    cpu.commit_shadow(shadow);
    cpu.segs[SS] = segment;
    cpu.commit_code_segment(selector, descriptor, cpl);
    cpu.commit_returned_pointer(pointer, size);
    if cpl != old_cpl {
        cpu.drop_inner_segments();
    }
    cpu.rip = rip;
    cpu.merge_flags(image, size, changeable);
    Ok(())
}

impl Cpu {
    /// IRET ends the blocking of NMIs, even when it faults later. Gives what [`Cpu::iret_ended`] wants.
    pub(crate) fn unblock_nmi_by_iret(&mut self) -> Exec<bool> {
        let blocked = self.vmx_iret_unblocks_nmi();
        if blocked {
            self.require_exact()?;
            self.vmx_unblock_nmi();
            self.vmx.iret_unblocked_nmi = true;
            self.recheck_events();
        }
        Ok(blocked)
    }

    /// IRET completed or did not. Only when it must be run again alone is NMI blocking back where it was.
    fn iret_ended(&mut self, completed: bool, was_blocked: bool) {
        if completed {
            self.vmx.iret_unblocked_nmi = false;
        } else if self.trap.is_retry() {
            self.vmx.iret_unblocked_nmi = false;
            self.vmx_reblock_nmi(was_blocked);
        }
    }
}
