//! Hardware task switching (SDM vol. 3A, chapter 8).

use super::intercept::{Intercept, TaskSwitchSource};
use super::segments::Found;
use crate::cet::TaskShadow;
use crate::cpu::Cpu;
use crate::decode::Op;
use crate::flags;
use crate::segment::{CS, DS, ES, FS, GS, SS, Segment};
use crate::trap::{Exec, Trap};
use spec::x86::control_registers::{Cr0, Cr4};
use spec::x86::debug::Dr6;
use spec::x86::descriptors::{AccessRights, Descriptor, Selector, system_type};
use spec::x86::exceptions::Vector;
use spec::x86::tss::{tss16, tss32};

use TaskSwitchSource::{Call, Gate, Iret, Jump};
use Vector::InvalidTss as TS;

/// What a TSS holds of a task.
#[derive(Clone, Copy, Default)]
struct TaskState {
    cr3: u32,
    eip: u32,
    eflags: u32,
    registers: [u32; 8],
    /// ES, CS, SS, DS, FS, GS.
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
    /// The shadow stack's token, if the TSS has room for one.
    ssp: Option<u64>,
}

/// DR7's local enables, which a task switch clears.
const LOCAL_ENABLES: u64 = 0x55;

impl Cpu {
    /// Switches to the task whose TSS is `selector`. `next` is the RIP saved for the old task; `error` is pushed on the new
    /// task's stack. Faults found before the new task's state is loaded are the old task's, later ones the new task's.
    pub(crate) fn task_switch(
        &mut self,
        op: Option<&Op>,
        selector: u16,
        source: TaskSwitchSource,
        next: u64,
        error: Option<u32>,
    ) -> Exec {
        let (found, wide) = self.new_task(selector, source)?;
        self.intercept(op, Intercept::TaskSwitch { selector, source })?;
        self.require_exact()?;
        let old_linear = self.tr.base;
        let old_wide = self.tr.kind() & 8 != 0;
        let state_size = if old_wide { usize::from(tss32::LDT) } else { usize::from(tss16::LDT) };
        let base = u64::from(found.descriptor.base());
        let mut state = self.read_task(base, wide)?;
        let has_ssp = wide && found.descriptor.limit() >= u32::from(tss32::SSP) + 3;
        if self.cr4 & Cr4::CET != 0 && has_ssp {
            state.ssp = Some(self.system_load::<4>(base.wrapping_add(u64::from(tss32::SSP)))?);
        }
        self.probe_system_write(old_linear, state_size)?;
        if matches!(source, Call | Gate) {
            self.probe_system_write(base, 2)?;
        }
        let old_descriptor = self.old_descriptor_address();
        let v86 = u64::from(state.eflags) & flags::VM != 0;
        let new_cpl = if v86 { 3 } else { Selector(state.selectors[CS]).rpl() };
        let from = self.code_place(next);
        let shadow = self.shadow_leave_task(from, new_cpl, source == Iret, matches!(source, Call | Gate))?;
        if let (Jump | Iret, Some(linear)) = (source, old_descriptor) {
            let byte = self.system_load::<1>(linear)?;
            self.system_store::<1>(linear, byte & !2)?;
        }
        self.save_task(old_linear, old_wide, next, source == Iret)?;
        let mut eflags = u64::from(state.eflags);
        if matches!(source, Call | Gate) {
            self.system_store::<2>(base, u64::from(self.tr.selector))?;
            eflags |= flags::NT;
        }
        let mut busy = found.descriptor;
        if source != Iret {
            busy = Descriptor(busy.0 | Descriptor::RW_OR_BUSY);
            self.system_store::<1>(found.linear.wrapping_add(5), busy.0 >> 40)?;
        }
        // The new task's from here on.
        self.tr = Segment::of(selector, Descriptor(busy.0 | Descriptor::RW_OR_BUSY));
        self.events.interrupted = true;
        let loaded = self.load_task(&state, wide, eflags, error, (shadow, source == Iret));
        match (loaded, op, self.trap) {
            // The caller's instruction is done: the fault is at the first one of the new task.
            (Err(_), Some(_), Trap::Exception { vector, error }) => {
                self.exception(vector, error);
                Err(self.trapped(Trap::Continue))
            }
            (loaded, ..) => loaded,
        }
    }

    /// Finds and checks the TSS of the task to switch to; says whether it is a 32-bit one.
    fn new_task(&mut self, selector: u16, source: TaskSwitchSource) -> Exec<(Found, bool)> {
        let wrong = if source == Iret { TS } else { Vector::GeneralProtection };
        if Selector(selector).is_null() || Selector(selector).is_local() {
            return Err(self.selector_fault(wrong, selector));
        }
        let found = self.need_descriptor(selector, wrong)?;
        let access = found.descriptor.access();
        let kind = access.segment_type();
        let right = match source {
            Iret => matches!(kind, system_type::TSS_BUSY | system_type::TSS_16_BUSY),
            Call | Jump | Gate => matches!(kind, system_type::TSS_AVAILABLE | system_type::TSS_16_AVAILABLE),
        };
        if access.is_code_or_data() || !right {
            return Err(self.selector_fault(wrong, selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        let wide = kind & 8 != 0;
        if found.descriptor.limit() < if wide { tss32::MIN_LIMIT } else { tss16::MIN_LIMIT } {
            return Err(self.selector_fault(TS, selector));
        }
        Ok((found, wide))
    }

    /// Linear address of the type byte of the running task's TSS descriptor.
    fn old_descriptor_address(&self) -> Option<u64> {
        let offset = self.tr.selector & !7;
        let inside = offset != 0 && u32::from(offset) + 7 <= u32::from(self.gdtr.limit);
        inside.then(|| self.gdtr.base.wrapping_add(u64::from(offset) + 5))
    }

    /// Checks that the processor itself can write here.
    fn probe_system_write(&mut self, linear: u64, size: usize) -> Exec {
        for at in [linear, linear.wrapping_add(size as u64 - 1)] {
            let byte = self.system_load::<1>(at)?;
            self.system_store::<1>(at, byte)?;
        }
        Ok(())
    }

    fn read_task(&mut self, base: u64, wide: bool) -> Exec<TaskState> {
        let mut state = TaskState::default();
        if wide {
            let field = |cpu: &mut Self, at: u16| cpu.system_load::<4>(base.wrapping_add(u64::from(at)));
            state.cr3 = field(self, tss32::CR3)? as u32;
            state.eip = field(self, tss32::EIP)? as u32;
            state.eflags = field(self, tss32::EFLAGS)? as u32;
            for (number, register) in (0..).zip(&mut state.registers) {
                *register = field(self, tss32::EAX + 4 * number)? as u32;
            }
            for (number, selector) in (0..).zip(&mut state.selectors) {
                *selector = field(self, tss32::ES + 4 * number)? as u16;
            }
            state.ldt = field(self, tss32::LDT)? as u16;
            state.trap = field(self, tss32::TRAP)? & 1 != 0;
        } else {
            let field = |cpu: &mut Self, at: u16| cpu.system_load::<2>(base.wrapping_add(u64::from(at)));
            state.eip = field(self, tss16::IP)? as u32;
            state.eflags = field(self, tss16::FLAGS)? as u32;
            for (number, register) in (0..).zip(&mut state.registers) {
                *register = field(self, tss16::AX + 2 * number)? as u32;
            }
            for (number, selector) in (0..).zip(&mut state.selectors[..4]) {
                *selector = field(self, tss16::ES + 2 * number)? as u16;
            }
            state.ldt = field(self, tss16::LDT)? as u16;
        }
        Ok(state)
    }

    fn save_task(&mut self, base: u64, wide: bool, next: u64, clear_nested: bool) -> Exec {
        let eflags = if clear_nested { self.rflags() & !flags::NT } else { self.rflags() };
        let registers: [u64; 8] = std::array::from_fn(|number| self.regs[number]);
        let selectors: [u64; 6] = std::array::from_fn(|number| u64::from(self.segs[number].selector));
        if wide {
            let field = |cpu: &mut Self, at: u16, value| cpu.system_store::<4>(base.wrapping_add(u64::from(at)), value);
            field(self, tss32::EIP, next)?;
            field(self, tss32::EFLAGS, eflags)?;
            for (number, register) in (0..).zip(registers) {
                field(self, tss32::EAX + 4 * number, register)?;
            }
            let half = |cpu: &mut Self, at: u16, value| cpu.system_store::<2>(base.wrapping_add(u64::from(at)), value);
            for (number, selector) in (0..).zip(selectors) {
                half(self, tss32::ES + 4 * number, selector)?;
            }
        } else {
            let field = |cpu: &mut Self, at: u16, value| cpu.system_store::<2>(base.wrapping_add(u64::from(at)), value);
            field(self, tss16::IP, next)?;
            field(self, tss16::FLAGS, eflags)?;
            for (number, register) in (0..).zip(registers) {
                field(self, tss16::AX + 2 * number, register)?;
            }
            for (number, selector) in (0..).zip(&selectors[..4]) {
                field(self, tss16::ES + 2 * number, *selector)?;
            }
        }
        Ok(())
    }

    fn load_task(
        &mut self,
        state: &TaskState,
        wide: bool,
        eflags: u64,
        error: Option<u32>,
        (shadow, returns): (TaskShadow, bool),
    ) -> Exec {
        let v86 = eflags & flags::VM != 0;
        for (number, value) in state.registers.into_iter().enumerate() {
            self.regs[number] = u64::from(value);
        }
        self.rip = u64::from(state.eip);
        self.cr0 |= Cr0::TS;
        self.dr[7] &= !LOCAL_ENABLES;
        for (register, selector) in state.selectors.into_iter().enumerate() {
            self.segs[register] = Segment::null(selector, 0);
        }
        self.ldtr = Segment::null(state.ldt, 0);
        self.set_rflags(eflags);
        self.mode_changed();
        if wide && self.paging() {
            self.load_task_cr3(u64::from(state.cr3))?;
        }
        self.load_ldtr(state.ldt, TS)?;
        if v86 {
            self.cpl = 3;
            for (register, selector) in state.selectors.into_iter().enumerate() {
                self.segs[register] = Segment::virtual_8086(selector);
            }
        } else {
            self.load_task_segments(&state.selectors)?;
        }
        self.mode_changed();
        let to = self.code_place(self.rip);
        self.shadow_enter_task(shadow, state.ssp, returns, to)?;
        if state.trap {
            self.events.debug_trap |= Dr6::BT;
            self.attention |= crate::run::attention::DEBUG;
        }
        if let Some(error) = error {
            let mut stack = self.current_stack();
            stack.push(self, if wide { 4 } else { 2 }, u64::from(error))?;
            self.commit_stack_pointer(&stack);
        }
        if self.rip > u64::from(self.segs[CS].limit) {
            let external = self.external_bit();
            return Err(self.general_protection(external));
        }
        Ok(())
    }

    fn load_task_segments(&mut self, selectors: &[u16; 6]) -> Exec {
        let selector = selectors[CS];
        let cpl = Selector(selector).rpl();
        self.cpl = cpl;
        if Selector(selector).is_null() {
            return Err(self.selector_fault(TS, selector));
        }
        let found = self.need_descriptor(selector, TS)?;
        let access = found.descriptor.access();
        let allowed = if access.is_conforming() { access.dpl() <= cpl } else { access.dpl() == cpl };
        if !access.is_code() || !allowed {
            return Err(self.selector_fault(TS, selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        let code = self.mark_accessed(found)?;
        let stack_selector = selectors[SS];
        if Selector(stack_selector).is_null() {
            return Err(self.selector_fault(TS, stack_selector));
        }
        self.segs[SS] = self.stack_segment_for(stack_selector, cpl, TS)?;
        self.commit_code_segment(selector, code, cpl);
        for register in [DS, ES, FS, GS] {
            self.segs[register] = self.data_segment_for(selectors[register], TS)?;
        }
        Ok(())
    }
}
