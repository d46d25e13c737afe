//! The machine as gdb's target: registers, memory, breakpoints, and which processor does what next.

use super::monitor;
use super::registers::{AllRegisters, Number, X86, description};
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use machine::Machine;
use processor::debugger::{Breakpoint, Scope, Watchpoint};
use processor::run::Activity;
use std::convert::Infallible;
use std::fmt::Write;

/// EFAULT.
const FAULT: u8 = 14;

/// The thread of processor `index`: gdb counts from 1.
pub(super) fn thread(index: usize) -> Tid {
    Tid::new(index + 1).unwrap_or(Tid::MIN)
}

fn index(tid: Tid) -> usize {
    tid.get() - 1
}

/// The machine under gdb.
pub(super) struct Debugged<'a> {
    pub machine: &'a mut Machine,
    breakpoints: Vec<u64>,
    watchpoints: Vec<(u64, u64, WatchKind)>,
    /// Where breakpoints and watchpoints count.
    pub scope: Scope,
    /// Where those at one address count.
    pub scopes: Vec<(u64, Scope)>,
    /// Processors that are to do one instruction.
    steps: Vec<usize>,
}

impl<'a> Debugged<'a> {
    pub fn new(machine: &'a mut Machine) -> Self {
        Self {
            machine,
            breakpoints: Vec::new(),
            watchpoints: Vec::new(),
            scope: Scope::Any,
            scopes: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn scope_at(&self, linear: u64) -> Scope {
        self.scopes.iter().find(|(address, _)| *address == linear).map_or(self.scope, |(_, scope)| *scope)
    }

    /// Tells the processors what to stop for.
    fn arm(&mut self) {
        let breakpoints: Vec<Breakpoint> =
            self.breakpoints.iter().map(|&linear| Breakpoint { linear, scope: self.scope_at(linear) }).collect();
        let watchpoint = |&(linear, length, kind): &(u64, u64, WatchKind)| Watchpoint {
            linear,
            length,
            read: kind != WatchKind::Write,
            write: kind != WatchKind::Read,
            scope: self.scope_at(linear),
        };
        let watchpoints: Vec<Watchpoint> = self.watchpoints.iter().map(watchpoint).collect();
        self.machine.set_debug_points(&breakpoints, &watchpoints);
        for index in std::mem::take(&mut self.steps) {
            self.machine.step_processor(index);
        }
    }

    /// Forgets everything that the debugger asked for.
    pub fn disarm(&mut self) {
        self.breakpoints.clear();
        self.watchpoints.clear();
        self.steps.clear();
        self.machine.set_debug_points(&[], &[]);
    }

    fn toggle(&mut self, address: u64, add: bool) -> bool {
        if add {
            self.breakpoints.push(address);
            return true;
        }
        let found = self.breakpoints.iter().position(|breakpoint| *breakpoint == address);
        found.map(|at| self.breakpoints.swap_remove(at)).is_some()
    }
}

impl Target for Debugged<'_> {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(&mut self) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl TargetDescriptionXmlOverride for Debugged<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let rest =
            usize::try_from(offset).ok().and_then(|from| description().as_bytes().get(from..)).unwrap_or_default();
        let count = rest.len().min(length).min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl MultiThreadBase for Debugged<'_> {
    fn read_registers(&mut self, regs: &mut AllRegisters, tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.machine.processors().get(index(tid)).ok_or(TargetError::NonFatal)?;
        *regs = AllRegisters::of(cpu);
        Ok(())
    }

    fn write_registers(&mut self, regs: &AllRegisters, tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.machine.processor_mut(index(tid)).ok_or(TargetError::NonFatal)?;
        regs.apply(cpu);
        Ok(())
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let cpu = self.machine.processors().get(index(tid)).ok_or(TargetError::NonFatal)?;
        match cpu.peek_linear(start, data) {
            0 => Err(TargetError::Errno(FAULT)),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.machine.processor_mut(index(tid)).ok_or(TargetError::NonFatal)?;
        if cpu.poke_linear(start, data) == data.len() { Ok(()) } else { Err(TargetError::Errno(FAULT)) }
    }

    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (0..self.machine.processors().len()).for_each(|index| thread_is_active(thread(index)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Debugged<'_> {
    fn read_register(&mut self, tid: Tid, number: Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let cpu = self.machine.processors().get(index(tid)).ok_or(TargetError::NonFatal)?;
        Ok(number.read(cpu, buf))
    }

    fn write_register(&mut self, tid: Tid, number: Number, val: &[u8]) -> TargetResult<(), Self> {
        let cpu = self.machine.processor_mut(index(tid)).ok_or(TargetError::NonFatal)?;
        if number.write(cpu, val) { Ok(()) } else { Err(TargetError::NonFatal) }
    }
}

impl ThreadExtraInfo for Debugged<'_> {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Infallible> {
        let mut text = String::new();
        if let Some(cpu) = self.machine.processors().get(index(tid)) {
            let activity = match cpu.activity {
                Activity::Active => "running",
                Activity::Halted => "halted",
                Activity::Shutdown => "shut down",
                Activity::WaitForSipi => "waits for SIPI",
            };
            let _ = write!(text, "CPU {}, {activity}", index(tid));
            if cpu.vmx.non_root {
                let _ = write!(
                    text,
                    ", L2 (VPID {}, EPTP {:#x}, VMCS {:#x})",
                    cpu.vmx.vpid, cpu.vmx.eptp, cpu.vmx.vmcs.pointer
                );
            } else if cpu.vmx.on {
                text.push_str(", VMX root");
            }
        }
        let count = text.len().min(buf.len());
        buf[..count].copy_from_slice(&text.as_bytes()[..count]);
        Ok(count)
    }
}

impl MultiThreadResume for Debugged<'_> {
    fn resume(&mut self) -> Result<(), Infallible> {
        self.arm();
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.steps.clear();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSchedulerLocking for Debugged<'_> {
    /// gdb wants the other threads to stand still (over a breakpoint that it has taken out, say). A step of the processor whose turn it is
    /// does one instruction and nothing else anyway; apart from that the processors take turns as they do without gdb.
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl MultiThreadSingleStep for Debugged<'_> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.steps.push(index(tid));
        Ok(())
    }
}

impl Breakpoints for Debugged<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugged<'_> {
    fn add_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.toggle(addr, true))
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.toggle(addr, false))
    }
}

impl HwBreakpoint for Debugged<'_> {
    fn add_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.toggle(addr, true))
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.toggle(addr, false))
    }
}

impl HwWatchpoint for Debugged<'_> {
    fn add_hw_watchpoint(&mut self, addr: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        self.watchpoints.push((addr, len.max(1), kind));
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, addr: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let found = self.watchpoints.iter().position(|watchpoint| *watchpoint == (addr, len.max(1), kind));
        Ok(found.map(|at| self.watchpoints.swap_remove(at)).is_some())
    }
}

impl MonitorCmd for Debugged<'_> {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        out.write_raw(monitor::answer(self, &String::from_utf8_lossy(cmd)).as_bytes());
        Ok(())
    }
}
