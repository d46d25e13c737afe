//! Delivery of interrupts and exceptions (SDM vol. 3A, chapter 6; 21.1.3, 21.2 and 21.3 for real and virtual-8086 mode).

use super::event::{Event, EventKind, Shadow};
use super::intercept::TaskSwitchSource;
use super::segments::Found;
use crate::cpu::{Cpu, Mode, RSP};
use crate::flags;
use crate::observe::Happening;
use crate::segment::{CS, DS, ES, FS, GS, SS, Segment};
use crate::trap::{Exec, Trap};
use spec::x86::control_registers::Cr4;
use spec::x86::descriptors::{AccessRights, Selector, system_type};
use spec::x86::exceptions::{Class, Contribution, Vector};
use spec::x86::gates::Gate;
use spec::x86::rflags::Rflags;
use spec::x86::tss::{tss32, tss64};

use Vector::GeneralProtection as GP;

/// What a fault that comes while another event is delivered turns into (SDM vol. 3A, table 6-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escalation {
    /// The new exception is delivered on its own.
    Serial,
    /// A double fault.
    Double,
    /// Shutdown.
    Triple,
}

/// Applies the rule: `first` was being delivered when the exception `second` was found.
pub(crate) fn escalate(first: Event, second: u8) -> Escalation {
    let contribution = |vector| Vector::from_number(vector).map_or(Contribution::Benign, Vector::contribution);
    let first = match first.kind {
        EventKind::HardwareException => contribution(first.vector),
        _ => Contribution::Benign,
    };
    match (first, contribution(second)) {
        (Contribution::DoubleFault, Contribution::Contributory | Contribution::PageFault) => Escalation::Triple,
        (Contribution::Contributory, Contribution::Contributory)
        | (Contribution::PageFault, Contribution::Contributory | Contribution::PageFault) => Escalation::Double,
        _ => Escalation::Serial,
    }
}

impl Cpu {
    /// Delivers an event through the interrupt table of the mode. On `Err` nothing but memory below the stack pointer changed, and
    /// [`Cpu::trap`] says what went wrong.
    pub(crate) fn deliver(&mut self, event: Event) -> Exec {
        self.observe(Happening::Delivering(event));
        let exact = std::mem::replace(&mut self.exact, true);
        self.events.delivering = Some(event);
        let done = match self.mode {
            Mode::Real => self.deliver_real(event),
            Mode::Virtual8086 => match self.redirected(event) {
                Ok(true) => self.deliver_to_v86_program(event),
                Ok(false) => self.deliver_protected(event),
                Err(why) => Err(why),
            },
            _ => self.deliver_protected(event),
        };
        self.exact = exact;
        if done.is_ok() {
            self.events.shadow = Shadow::None;
            self.events.interrupted = true;
            self.history.forget_deliveries();
        } else {
            self.delivery_failed(event);
        }
        // A VM exit wants to know what was being delivered; it clears this itself.
        if done.is_ok() || self.trap != Trap::VmExit {
            self.events.delivering = None;
        }
        done
    }

    /// The RIP that delivery pushes.
    fn return_rip(&self, event: Event) -> u64 {
        self.cut_rip(self.rip.wrapping_add(u64::from(event.length)))
    }

    /// The flags that delivery pushes: RF is set for faults, so that a restarted instruction meets no breakpoint again.
    fn pushed_flags(&self, event: Event) -> u64 {
        let fault = event.kind == EventKind::HardwareException
            && Vector::from_number(event.vector).is_none_or(|vector| vector.class() == Class::Fault);
        self.rflags() | if fault { Rflags::RF } else { 0 }
    }

    fn deliver_real(&mut self, event: Event) -> Exec {
        let at = u32::from(event.vector) * 4;
        if at + 3 > u32::from(self.idtr.limit) {
            return Err(self.idt_fault(GP, event.vector));
        }
        let entry = self.system_load::<4>(self.idtr.base.wrapping_add(u64::from(at)))?;
        let return_rip = self.return_rip(event);
        let mut stack = self.current_stack();
        stack.push(self, 2, self.rflags())?;
        stack.push(self, 2, u64::from(self.segs[CS].selector))?;
        stack.push(self, 2, return_rip)?;
        self.commit_stack_pointer(&stack);
        self.segs[CS] = self.paragraph_segment(CS, (entry >> 16) as u16);
        self.rip = entry & 0xffff;
        self.mode_changed();
        self.set_rflags(self.rflags() & !(flags::IF | flags::TF | flags::AC | flags::RF));
        Ok(())
    }

    /// Whether INT n in virtual-8086 mode goes to the program's own handler: CR4.VME and a clear bit in the redirection bitmap of
    /// the TSS. #GP(0) when it may do neither (SDM vol. 3A, table 21-2).
    fn redirected(&mut self, event: Event) -> Exec<bool> {
        if event.kind != EventKind::SoftwareInterrupt {
            return Ok(false);
        }
        if self.cr4 & Cr4::VME != 0 {
            let map = u32::from(self.system_load::<2>(self.tr.base + u64::from(tss32::IO_MAP_BASE))? as u16);
            let at = map.wrapping_sub(32) + u32::from(event.vector >> 3);
            if map >= 32 && at <= self.tr.limit {
                let byte = self.system_load::<1>(self.tr.base + u64::from(at))?;
                if byte >> (event.vector & 7) & 1 == 0 {
                    return Ok(true);
                }
            }
        }
        if Rflags(self.rflags).iopl() < 3 {
            return Err(self.general_protection(0));
        }
        Ok(false)
    }

    /// INT n as an 8086 does it, through the table at linear address 0.
    fn deliver_to_v86_program(&mut self, event: Event) -> Exec {
        let entry = self.load::<4>(u64::from(event.vector) * 4)?;
        let mut image = self.rflags();
        let virtual_flag = Rflags(image).iopl() < 3;
        if virtual_flag {
            let interrupts = if image & flags::VIF != 0 { flags::IF } else { 0 };
            image = image & !flags::IF | flags::IOPL | interrupts;
        }
        let return_rip = self.return_rip(event);
        let mut stack = self.current_stack();
        stack.push(self, 2, image)?;
        stack.push(self, 2, u64::from(self.segs[CS].selector))?;
        stack.push(self, 2, return_rip)?;
        self.commit_stack_pointer(&stack);
        self.segs[CS] = Segment::virtual_8086((entry >> 16) as u16);
        self.rip = entry & 0xffff;
        self.mode_changed();
        let cleared = flags::TF | flags::NT | flags::RF | if virtual_flag { flags::VIF } else { flags::IF };
        self.set_rflags(self.rflags() & !cleared);
        Ok(())
    }

    fn deliver_protected(&mut self, event: Event) -> Exec {
        let long = self.long_mode();
        let size = if long { 16 } else { 8 };
        let at = u32::from(event.vector) * size;
        if at + size - 1 > u32::from(self.idtr.limit) {
            return Err(self.idt_fault(GP, event.vector));
        }
        let linear = self.idtr.base.wrapping_add(u64::from(at));
        let gate = Gate {
            low: self.system_load::<8>(linear)?,
            high: if long { self.system_load::<8>(linear.wrapping_add(8))? } else { 0 },
        };
        let kind = gate.gate_type();
        let push_size = match kind {
            system_type::INTERRUPT_GATE | system_type::TRAP_GATE if long => 8,
            system_type::INTERRUPT_GATE | system_type::TRAP_GATE => 4,
            system_type::INTERRUPT_GATE_16 | system_type::TRAP_GATE_16 if !long => 2,
            system_type::TASK_GATE if !long => 0,
            _ => return Err(self.idt_fault(GP, event.vector)),
        };
        if !gate.is_system() || event.is_software() && gate.dpl() < self.cpl {
            return Err(self.idt_fault(GP, event.vector));
        }
        if !gate.is_present() {
            return Err(self.idt_fault(Vector::SegmentNotPresent, event.vector));
        }
        if push_size == 0 {
            let return_rip = self.return_rip(event);
            return self.task_switch(None, gate.selector(), TaskSwitchSource::Gate, return_rip, event.error);
        }
        let offset = match push_size {
            2 => u64::from(gate.offset_16()),
            4 => u64::from(gate.offset_32()),
            _ => gate.offset_64(),
        };
        let clear_if = matches!(kind, system_type::INTERRUPT_GATE | system_type::INTERRUPT_GATE_16);
        let found = self.handler_segment(gate.selector())?;
        if long {
            self.enter_long_handler(event, gate, found, offset, clear_if)
        } else {
            self.enter_handler(event, gate, found, offset, push_size, clear_if)
        }
    }

    /// The handler's code segment, checked.
    fn handler_segment(&mut self, selector: u16) -> Exec<Found> {
        if Selector(selector).is_null() {
            let error = self.external_bit();
            return Err(self.general_protection(error));
        }
        let found = self.need_descriptor(selector, GP)?;
        let access = found.descriptor.access();
        let right_width = !self.long_mode() || access.has(AccessRights::L) && !access.has(AccessRights::DB);
        if !access.is_code() || access.dpl() > self.cpl || !right_width {
            return Err(self.selector_fault(GP, selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        Ok(found)
    }

    /// RFLAGS inside the handler.
    fn handler_flags(&self, clear_if: bool) -> u64 {
        let cleared = flags::TF | flags::NT | flags::RF | flags::VM | if clear_if { flags::IF } else { 0 };
        self.rflags() & !cleared
    }

    fn enter_handler(&mut self, event: Event, gate: Gate, found: Found, offset: u64, size: u8, clear_if: bool) -> Exec {
        let access = found.descriptor.access();
        let from_v86 = self.mode == Mode::Virtual8086;
        let inner = !access.is_conforming() && access.dpl() < self.cpl;
        if from_v86 && (!inner || access.dpl() != 0) {
            return Err(self.selector_fault(GP, gate.selector()));
        }
        let cpl = if inner { access.dpl() } else { self.cpl };
        let return_rip = self.return_rip(event);
        let image = self.pushed_flags(event);
        let (old_ss, old_rsp) = (u64::from(self.segs[SS].selector), self.regs[RSP]);
        let mut stack = if inner { None } else { Some(self.current_stack()) };
        let mut new_ss = None;
        if inner {
            let (segment, inner_stack) = self.inner_stack(cpl)?;
            (new_ss, stack) = (Some(segment), Some(inner_stack));
        }
        let Some(mut stack) = stack else { return Ok(()) };
        let rip = self.check_target_offset(found.descriptor, offset)?;
        if from_v86 {
            for register in [GS, FS, DS, ES] {
                stack.push(self, size, u64::from(self.segs[register].selector))?;
            }
        }
        if inner {
            stack.push(self, size, old_ss)?;
            stack.push(self, size, old_rsp)?;
        }
        stack.push(self, size, image)?;
        stack.push(self, size, u64::from(self.segs[CS].selector))?;
        stack.push(self, size, return_rip)?;
        if let Some(error) = event.error {
            stack.push(self, size, u64::from(error))?;
        }
        let descriptor = self.mark_accessed(found)?;
        let switch = self.event_shadow_stack(cpl, 0)?;
        let shadow = self.shadow_call(self.code_place(return_rip), cpl, false, switch)?;
        self.commit_shadow(shadow);
        let flags = self.handler_flags(clear_if);
        if let Some(segment) = new_ss {
            self.segs[SS] = segment;
        }
        if from_v86 {
            for register in [GS, FS, DS, ES] {
                self.segs[register] = Segment::null(0, 0);
            }
        }
        self.commit_stack_pointer(&stack);
        self.set_rflags(flags);
        self.commit_code_segment(gate.selector(), descriptor, cpl);
        self.rip = rip;
        self.track_far(cpl);
        Ok(())
    }

    fn enter_long_handler(&mut self, event: Event, gate: Gate, found: Found, offset: u64, clear_if: bool) -> Exec {
        let access = found.descriptor.access();
        let inner = !access.is_conforming() && access.dpl() < self.cpl;
        let cpl = if inner { access.dpl() } else { self.cpl };
        let return_rip = self.return_rip(event);
        let image = self.pushed_flags(event);
        let pointer = if gate.ist() != 0 {
            self.tss_pointer(tss64::IST1 + 8 * (u16::from(gate.ist()) - 1))?
        } else if inner {
            self.tss_pointer(tss64::RSP0 + 8 * u16::from(cpl))?
        } else {
            self.regs[RSP]
        };
        let mut stack = self.long_stack(pointer & !0xf, cpl);
        let rip = self.check_target_offset(found.descriptor, offset)?;
        stack.push(self, 8, u64::from(self.segs[SS].selector))?;
        stack.push(self, 8, self.regs[RSP])?;
        stack.push(self, 8, image)?;
        stack.push(self, 8, u64::from(self.segs[CS].selector))?;
        stack.push(self, 8, return_rip)?;
        if let Some(error) = event.error {
            stack.push(self, 8, u64::from(error))?;
        }
        let descriptor = self.mark_accessed(found)?;
        let switch = self.event_shadow_stack(cpl, gate.ist())?;
        let shadow = self.shadow_call(self.code_place(return_rip), cpl, true, switch)?;
        self.commit_shadow(shadow);
        let flags = self.handler_flags(clear_if);
        if inner {
            self.segs[SS] = Segment::null(u16::from(cpl), cpl);
        }
        self.commit_stack_pointer(&stack);
        self.set_rflags(flags);
        self.commit_code_segment(gate.selector(), descriptor, cpl);
        self.rip = rip;
        self.track_far(cpl);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_fault_table() {
        let first = |vector| Event::exception(vector, Some(0));
        let (de, pf, gp, ud, df) = (0, 14, 13, 6, 8);
        assert_eq!(escalate(first(gp), gp), Escalation::Double);
        assert_eq!(escalate(first(de), pf), Escalation::Serial);
        assert_eq!(escalate(first(pf), pf), Escalation::Double);
        assert_eq!(escalate(first(pf), gp), Escalation::Double);
        assert_eq!(escalate(first(gp), pf), Escalation::Serial);
        assert_eq!(escalate(first(ud), gp), Escalation::Serial);
        assert_eq!(escalate(first(df), gp), Escalation::Triple);
        assert_eq!(escalate(first(df), pf), Escalation::Triple);
        assert_eq!(escalate(first(df), ud), Escalation::Serial);
        assert_eq!(escalate(Event::external(13), gp), Escalation::Serial);
    }
}
