//! Far JMP, CALL and RET (SDM vol. 2; vol. 3A, 5.8).

use super::intercept::TaskSwitchSource;
use super::segments::Found;
use super::stack::Stack;
use crate::cet::CodePlace;
use crate::cpu::{Cpu, Mode, RSP};
use crate::decode::{Op, Table};
use crate::segment::{CS, SS, Segment};
use crate::trap::Exec;
use crate::{branch, flags};
use iced_x86::Code;
use spec::x86::descriptors::{AccessRights, Descriptor, Selector, system_type};
use spec::x86::exceptions::Vector;
use spec::x86::gates::Gate;
use spec::x86::tss::{tss16, tss32, tss64};

use Vector::GeneralProtection as GP;

pub(super) fn register(table: &mut Table) {
    for (code, size) in [(Code::Jmp_ptr1616, 2), (Code::Jmp_ptr1632, 4)] {
        table.end(code, branch!(jump_immediate)).sized(size);
    }
    for (code, size) in [(Code::Jmp_m1616, 2), (Code::Jmp_m1632, 4), (Code::Jmp_m1664, 8)] {
        table.end(code, branch!(jump_memory)).sized(size);
    }
    for (code, size) in [(Code::Call_ptr1616, 2), (Code::Call_ptr1632, 4)] {
        table.end(code, branch!(call_immediate)).sized(size);
    }
    for (code, size) in [(Code::Call_m1616, 2), (Code::Call_m1632, 4), (Code::Call_m1664, 8)] {
        table.end(code, branch!(call_memory)).sized(size);
    }
    for (code, size) in [
        (Code::Retfw, 2),
        (Code::Retfd, 4),
        (Code::Retfq, 8),
        (Code::Retfw_imm16, 2),
        (Code::Retfd_imm16, 4),
        (Code::Retfq_imm16, 8),
    ] {
        table.end(code, branch!(far_return)).sized(size);
    }
}

fn jump_immediate(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.far_jump(op, (op.imm >> 32) as u16, op.imm & 0xffff_ffff)
}

fn jump_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    let (selector, offset) = cpu.load_far_pointer(op)?;
    cpu.far_jump(op, selector, offset)
}

fn call_immediate(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.far_call(op, (op.imm >> 32) as u16, op.imm & 0xffff_ffff)
}

fn call_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    let (selector, offset) = cpu.load_far_pointer(op)?;
    cpu.far_call(op, selector, offset)
}

/// A code segment to go to, checked but for the offset.
#[derive(Clone, Copy)]
pub(crate) struct CodeTarget {
    pub selector: u16,
    pub found: Found,
}

impl CodeTarget {
    fn access(&self) -> AccessRights {
        self.found.descriptor.access()
    }
}

/// A gate, and the code segment it leads to.
struct GateTarget {
    gate: Gate,
    /// Operand size of what is pushed: 2, 4 or 8 bytes.
    size: u8,
    code: CodeTarget,
    offset: u64,
}

impl Cpu {
    /// The far pointer in memory: offset of `op.size` bytes, then the selector.
    pub(super) fn load_far_pointer(&mut self, op: &Op) -> Exec<(u16, u64)> {
        let linear = self.linear(op, u64::from(op.size) + 2, false)?;
        let offset = match op.size {
            2 => self.load::<2>(linear)?,
            4 => self.load::<4>(linear)?,
            _ => self.load::<8>(linear)?,
        };
        let selector = self.load::<2>(linear.wrapping_add(u64::from(op.size)))?;
        Ok((selector as u16, offset))
    }

    /// Checks the offset against a code segment: canonical for 64-bit code, else within the limit.
    pub(crate) fn check_target_offset(&mut self, descriptor: Descriptor, offset: u64) -> Exec<u64> {
        let long = self.long_mode() && descriptor.access().has(AccessRights::L);
        let fits = if long { self.is_canonical(offset) } else { offset & 0xffff_ffff <= u64::from(descriptor.limit()) };
        if !fits {
            let error = self.external_bit();
            return Err(self.general_protection(error));
        }
        Ok(if long { offset } else { offset & 0xffff_ffff })
    }

    /// The descriptor is that of 64-bit code.
    pub(crate) fn is_long_code(&self, descriptor: Descriptor) -> bool {
        self.long_mode() && descriptor.access().has(AccessRights::L)
    }

    /// The current code segment at `rip`, as shadow stacks hold it.
    pub(crate) fn code_place(&self, rip: u64) -> CodePlace {
        let segment = self.segs[CS];
        let long = self.mode == Mode::Long64;
        let linear = if long { rip } else { segment.base.wrapping_add(rip) & 0xffff_ffff };
        CodePlace { selector: segment.selector, linear, long }
    }

    /// The code at `rip` that a return to `code` leads to, as shadow stacks hold it.
    pub(crate) fn return_place(&self, code: &CodeTarget, rip: u64) -> CodePlace {
        let descriptor = code.found.descriptor;
        let long = self.is_long_code(descriptor);
        let linear = if long { rip } else { u64::from(descriptor.base()).wrapping_add(rip) & 0xffff_ffff };
        CodePlace { selector: code.selector, linear, long }
    }

    /// #GP when a code segment of IA-32e mode has both L and D set.
    pub(crate) fn check_long_bits(&mut self, selector: u16, access: AccessRights) -> Exec {
        if self.long_mode() && access.has(AccessRights::L | AccessRights::DB) {
            return Err(self.selector_fault(GP, selector));
        }
        Ok(())
    }

    /// Checks for a transfer straight to a code segment at the same privilege.
    fn check_direct_target(&mut self, code: CodeTarget) -> Exec {
        let (access, rpl) = (code.access(), Selector(code.selector).rpl());
        let allowed =
            if access.is_conforming() { access.dpl() <= self.cpl } else { access.dpl() == self.cpl && rpl <= self.cpl };
        self.check_long_bits(code.selector, access)?;
        if !allowed {
            return Err(self.selector_fault(GP, code.selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, code.selector));
        }
        Ok(())
    }

    /// A far jump or call in real-address or virtual-8086 mode has this new CS; the offset is checked against its limit.
    fn paragraph_target(&mut self, selector: u16, offset: u64) -> Exec<Segment> {
        let segment = self.paragraph_segment(CS, selector);
        if offset > u64::from(segment.limit) {
            return Err(self.general_protection(0));
        }
        Ok(segment)
    }

    fn far_jump(&mut self, op: &Op, selector: u16, offset: u64) -> Exec {
        if self.paragraphs() {
            self.segs[CS] = self.paragraph_target(selector, offset)?;
            self.rip = offset;
            self.mode_changed();
            return Ok(());
        }
        if Selector(selector).is_null() {
            return Err(self.general_protection(0));
        }
        let found = self.need_descriptor(selector, GP)?;
        let access = found.descriptor.access();
        if access.is_code() {
            let code = CodeTarget { selector, found };
            self.check_direct_target(code)?;
            let rip = self.check_target_offset(found.descriptor, offset)?;
            self.check_shadow_jump(self.is_long_code(found.descriptor))?;
            let descriptor = self.mark_accessed(found)?;
            self.commit_code_segment(selector, descriptor, self.cpl);
            self.rip = rip;
            self.track_far(self.cpl);
            return Ok(());
        }
        if access.is_code_or_data() {
            return Err(self.selector_fault(GP, selector));
        }
        match self.gate_or_task(selector, found)? {
            None => self.switch_through(op, selector, found, TaskSwitchSource::Jump),
            Some(target) => {
                let access = target.code.access();
                let same = access.is_conforming() || access.dpl() == self.cpl;
                if !same {
                    return Err(self.selector_fault(GP, target.code.selector));
                }
                self.check_gate_code_present(&target)?;
                let rip = self.check_target_offset(target.code.found.descriptor, target.offset)?;
                self.check_shadow_jump(self.is_long_code(target.code.found.descriptor))?;
                let descriptor = self.mark_accessed(target.code.found)?;
                self.commit_code_segment(target.code.selector, descriptor, self.cpl);
                self.rip = rip;
                self.track_far(self.cpl);
                Ok(())
            }
        }
    }

    /// What a system descriptor leads to: a code segment through a call gate, or (`None`) a task. Privilege, type and presence of
    /// gate or TSS are checked.
    fn gate_or_task(&mut self, selector: u16, found: Found) -> Exec<Option<GateTarget>> {
        let access = found.descriptor.access();
        let privilege = self.cpl.max(Selector(selector).rpl());
        let long = self.long_mode();
        let size = match access.segment_type() {
            system_type::CALL_GATE if long => 8,
            system_type::CALL_GATE => 4,
            system_type::CALL_GATE_16 if !long => 2,
            system_type::TASK_GATE | system_type::TSS_16_AVAILABLE | system_type::TSS_AVAILABLE if !long => 0,
            _ => return Err(self.selector_fault(GP, selector)),
        };
        if access.dpl() < privilege {
            return Err(self.selector_fault(GP, selector));
        }
        let mut gate = Gate { low: found.descriptor.0, high: 0 };
        if size == 8 {
            match self.find_upper_half(selector)? {
                Some(high) => gate.high = high,
                None => return Err(self.selector_fault(GP, selector)),
            }
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        if size == 0 {
            return Ok(None);
        }
        let target = gate.selector();
        if Selector(target).is_null() {
            return Err(self.general_protection(0));
        }
        let code = CodeTarget { selector: target, found: self.need_descriptor(target, GP)? };
        let code_access = code.access();
        let right_width = !long || (code_access.has(AccessRights::L) && !code_access.has(AccessRights::DB));
        if !code_access.is_code() || code_access.dpl() > self.cpl || !right_width {
            return Err(self.selector_fault(GP, target));
        }
        let offset = match size {
            2 => u64::from(gate.offset_16()),
            4 => u64::from(gate.offset_32()),
            _ => gate.offset_64(),
        };
        Ok(Some(GateTarget { gate, size, code, offset }))
    }

    fn check_gate_code_present(&mut self, target: &GateTarget) -> Exec {
        if target.code.access().has(AccessRights::P) {
            return Ok(());
        }
        Err(self.selector_fault(Vector::SegmentNotPresent, target.code.selector))
    }

    /// JMP or CALL to a task gate or a TSS.
    fn switch_through(&mut self, op: &Op, selector: u16, found: Found, source: TaskSwitchSource) -> Exec {
        let next = self.next_rip(op);
        if found.descriptor.access().segment_type() == system_type::TASK_GATE {
            let target = Gate { low: found.descriptor.0, high: 0 }.selector();
            return self.task_switch(Some(op), target, source, next, None);
        }
        self.task_switch(Some(op), selector, source, next, None)
    }

    fn far_call(&mut self, op: &Op, selector: u16, offset: u64) -> Exec {
        let (size, next) = (op.size, self.next_rip(op));
        let old_cs = u64::from(self.segs[CS].selector);
        if self.paragraphs() {
            let segment = self.paragraph_target(selector, offset)?;
            let mut stack = self.current_stack();
            stack.push(self, size, old_cs)?;
            stack.push(self, size, next)?;
            self.commit_stack_pointer(&stack);
            self.segs[CS] = segment;
            self.rip = offset;
            self.mode_changed();
            return Ok(());
        }
        if Selector(selector).is_null() {
            return Err(self.general_protection(0));
        }
        let found = self.need_descriptor(selector, GP)?;
        let access = found.descriptor.access();
        if access.is_code() {
            self.check_direct_target(CodeTarget { selector, found })?;
            return self.call_same_level(CodeTarget { selector, found }, offset, size, next);
        }
        if access.is_code_or_data() {
            return Err(self.selector_fault(GP, selector));
        }
        let Some(target) = self.gate_or_task(selector, found)? else {
            return self.switch_through(op, selector, found, TaskSwitchSource::Call);
        };
        self.check_gate_code_present(&target)?;
        if target.code.access().is_conforming() || target.code.access().dpl() == self.cpl {
            return self.call_same_level(target.code, target.offset, target.size, next);
        }
        self.call_inner_level(&target, next)
    }

    fn call_same_level(&mut self, code: CodeTarget, offset: u64, size: u8, next: u64) -> Exec {
        let rip = self.check_target_offset(code.found.descriptor, offset)?;
        let mut stack = self.current_stack();
        stack.push(self, size, u64::from(self.segs[CS].selector))?;
        stack.push(self, size, next)?;
        let descriptor = self.mark_accessed(code.found)?;
        let long = self.is_long_code(code.found.descriptor);
        let shadow = self.shadow_call(self.code_place(next), self.cpl, long, None)?;
        self.commit_shadow(shadow);
        self.commit_stack_pointer(&stack);
        self.commit_code_segment(code.selector, descriptor, self.cpl);
        self.rip = rip;
        self.track_far(self.cpl);
        Ok(())
    }

    /// A call through a gate to more privileged code: on that level's stack.
    fn call_inner_level(&mut self, target: &GateTarget, next: u64) -> Exec {
        let cpl = target.code.access().dpl();
        let size = target.size;
        let (old_ss, old_rsp) = (u64::from(self.segs[SS].selector), self.regs[RSP]);
        let (segment, mut stack) = self.inner_stack(cpl)?;
        let rip = self.check_target_offset(target.code.found.descriptor, target.offset)?;
        let mut parameters = [0; 31];
        let count = if size == 8 { 0 } else { usize::from(target.gate.parameter_count()) };
        let mut caller = self.current_stack();
        for parameter in &mut parameters[..count] {
            *parameter = caller.pop(self, size)?;
        }
        stack.push(self, size, old_ss)?;
        stack.push(self, size, old_rsp)?;
        for &parameter in parameters[..count].iter().rev() {
            stack.push(self, size, parameter)?;
        }
        stack.push(self, size, u64::from(self.segs[CS].selector))?;
        stack.push(self, size, next)?;
        let descriptor = self.mark_accessed(target.code.found)?;
        let long = self.is_long_code(target.code.found.descriptor);
        let shadow = self.shadow_call(self.code_place(next), cpl, long, Some(self.inner_shadow_stack(cpl)))?;
        self.commit_shadow(shadow);
        self.segs[SS] = segment;
        self.commit_stack_pointer(&stack);
        self.commit_code_segment(target.code.selector, descriptor, cpl);
        self.rip = rip;
        self.track_far(cpl);
        Ok(())
    }

    /// The stack for privilege level `cpl` from the task-state segment: SS's contents and the stack.
    pub(crate) fn inner_stack(&mut self, cpl: u8) -> Exec<(Segment, Stack)> {
        let tr = self.tr;
        let level = u16::from(cpl);
        if self.long_mode() {
            let rsp = self.tss_pointer(tss64::RSP0 + 8 * level)?;
            return Ok((Segment::null(level, cpl), self.long_stack(rsp, cpl)));
        }
        let wide = tr.kind() & 8 != 0;
        let (at, pointer_size) = if wide { (tss32::ESP0 + 8 * level, 4) } else { (tss16::SP0 + 4 * level, 2) };
        if u32::from(at) + pointer_size + 1 > tr.limit {
            return Err(self.selector_fault(Vector::InvalidTss, tr.selector));
        }
        let linear = tr.base.wrapping_add(u64::from(at));
        let pointer = if wide { self.system_load::<4>(linear)? } else { self.system_load::<2>(linear)? };
        let selector = self.system_load::<2>(linear.wrapping_add(u64::from(pointer_size)))? as u16;
        if Selector(selector).is_null() {
            return Err(self.selector_fault(Vector::InvalidTss, selector));
        }
        let segment = self.stack_segment_for(selector, cpl, Vector::InvalidTss)?;
        Ok((segment, self.legacy_stack(segment, pointer, cpl)))
    }

    /// A stack pointer in the 64-bit TSS.
    pub(crate) fn tss_pointer(&mut self, at: u16) -> Exec<u64> {
        let tr = self.tr;
        if u32::from(at) + 7 > tr.limit {
            return Err(self.selector_fault(Vector::InvalidTss, tr.selector));
        }
        let rsp = self.system_load::<8>(tr.base.wrapping_add(u64::from(at)))?;
        if self.is_canonical(rsp) {
            return Ok(rsp);
        }
        let error = self.external_bit();
        Err(self.stack_fault(error))
    }

    /// Checks the code segment that a far return or IRET goes to.
    pub(crate) fn check_return_target(&mut self, selector: u16) -> Exec<CodeTarget> {
        if Selector(selector).is_null() {
            return Err(self.general_protection(0));
        }
        let found = self.need_descriptor(selector, GP)?;
        let (access, rpl) = (found.descriptor.access(), Selector(selector).rpl());
        let allowed = if access.is_conforming() { access.dpl() <= rpl } else { access.dpl() == rpl };
        if !access.is_code() || rpl < self.cpl || !allowed {
            return Err(self.selector_fault(GP, selector));
        }
        self.check_long_bits(selector, access)?;
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        Ok(CodeTarget { selector, found })
    }

    /// Checks the stack segment popped by a return to `code`, at the privilege level of its selector.
    pub(crate) fn check_return_stack(&mut self, selector: u16, code: &CodeTarget) -> Exec<Segment> {
        let cpl = Selector(code.selector).rpl();
        if Selector(selector).is_null() {
            let to_long = self.long_mode() && code.found.descriptor.access().has(AccessRights::L);
            if to_long && cpl < 3 && Selector(selector).rpl() == cpl {
                return Ok(Segment::null(selector, cpl));
            }
            return Err(self.general_protection(0));
        }
        self.stack_segment_for(selector, cpl, GP)
    }

    /// Sets RSP to `pointer` as a return does: only SP if the new stack segment is a 16-bit one.
    pub(crate) fn commit_returned_pointer(&mut self, pointer: u64, size: u8) {
        let mask = self.stack_mask();
        let pointer = match size {
            2 => pointer & 0xffff,
            4 => pointer & 0xffff_ffff,
            _ => pointer,
        };
        self.regs[RSP] = match mask {
            0xffff => self.regs[RSP] & !0xffff | pointer & 0xffff,
            _ => pointer & mask,
        };
    }
}

fn far_return(cpu: &mut Cpu, op: &Op) -> Exec {
    let (size, extra) = (op.size, op.imm & 0xffff);
    let mut stack = cpu.current_stack();
    let offset = stack.pop(cpu, size)?;
    let selector = stack.pop(cpu, size)? as u16;
    if cpu.paragraphs() {
        let segment = cpu.paragraph_target(selector, offset)?;
        stack.skip(extra);
        cpu.commit_stack_pointer(&stack);
        cpu.segs[CS] = segment;
        cpu.rip = offset;
        cpu.mode_changed();
        return Ok(());
    }
    let code = cpu.check_return_target(selector)?;
    let cpl = Selector(selector).rpl();
    stack.skip(extra);
    if cpl == cpu.cpl {
        let rip = cpu.check_target_offset(code.found.descriptor, offset)?;
        let descriptor = cpu.mark_accessed(code.found)?;
        let shadow = cpu.shadow_return(cpu.return_place(&code, rip), cpl, false)?;
        cpu.commit_shadow(shadow);
        cpu.commit_stack_pointer(&stack);
        cpu.commit_code_segment(selector, descriptor, cpl);
        cpu.rip = rip;
        return Ok(());
    }
    let pointer = stack.pop(cpu, size)?;
    let stack_selector = stack.pop(cpu, size)? as u16;
    let segment = cpu.check_return_stack(stack_selector, &code)?;
    let rip = cpu.check_target_offset(code.found.descriptor, offset)?;
    let descriptor = cpu.mark_accessed(code.found)?;
    let shadow = cpu.shadow_return(cpu.return_place(&code, rip), cpl, false)?;
    cpu.commit_shadow(shadow);
    cpu.segs[SS] = segment;
    cpu.commit_code_segment(selector, descriptor, cpl);
    cpu.commit_returned_pointer(pointer.wrapping_add(extra), size);
    cpu.drop_inner_segments();
    cpu.rip = rip;
    debug_assert_eq!(cpu.rflags & flags::VM, 0);
    Ok(())
}
