//! What a debugger asks of a processor: breakpoints, watchpoints, single steps. The guest's memory and registers are not touched for any of
//! them, and a run in which a debugger only looks is the same as one without.
//!
//! A breakpoint is a linear address, matched where an instruction begins. The block cache ends blocks before every address with the same
//! offset in its page ([`CodeCache::set_stops`]), and blocks that begin at such an offset are found the slow way, where this module looks.
//! All other blocks run as ever. Pages with watchpoints are not entered into the TLB, so accesses to them come through the slow path.

use crate::cpu::Cpu;
use crate::decode::cache::CodeCache;
use crate::memory::paging::Kind;
use crate::memory::tlb;
use crate::run::attention;
use crate::trap::Exec;

/// Where a breakpoint or watchpoint counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Any,
    /// Outside VMX non-root operation: the hypervisor, or a system without one.
    Root,
    /// In VMX non-root operation.
    NonRoot,
    /// In VMX non-root operation with this EPT pointer; bits 11:0 do not count.
    Eptp(u64),
    /// In VMX non-root operation with this VPID.
    Vpid(u16),
    /// In VMX non-root operation with the VMCS at this address.
    Vmcs(u64),
}

/// A breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakpoint {
    /// The linear address of the instruction.
    pub linear: u64,
    /// Where it counts.
    pub scope: Scope,
}

/// A watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// The first linear address.
    pub linear: u64,
    /// Bytes.
    pub length: u64,
    /// Loads count.
    pub read: bool,
    /// Stores count.
    pub write: bool,
    /// Where it counts.
    pub scope: Scope,
}

impl Watchpoint {
    fn covers(&self, linear: u64, size: u64) -> bool {
        // Distances, so that the end of the address space is no special case.
        linear.wrapping_sub(self.linear) < self.length || self.linear.wrapping_sub(linear) < size
    }
}

/// Why a processor stopped for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The next instruction has a breakpoint.
    Breakpoint,
    /// The instruction just done accessed what this watchpoint watches.
    Watchpoint(Watchpoint),
    /// The step asked for is done: one instruction, or the delivery of an event.
    Step,
}

/// The debugger's wishes and what came of them. No part of the saved state: it is the debugger's, not the guest's.
#[derive(Clone, Debug, Default)]
pub struct Debugger {
    breakpoints: Vec<Breakpoint>,
    watchpoints: Vec<Watchpoint>,
    step: bool,
    /// Any of the above.
    active: bool,
    /// Why the processor stops at the next boundary.
    pending: Option<Stopped>,
    /// Instructions retired and linear address at the last stop: a breakpoint there is passed once.
    passed: Option<(u64, u64)>,
}

impl Debugger {
    fn renew(&mut self) {
        self.active = self.step || !self.breakpoints.is_empty() || !self.watchpoints.is_empty();
    }

    /// Something may have to be stopped for.
    #[inline]
    pub(crate) fn active(&self) -> bool {
        self.active
    }

    /// One instruction is to be run.
    #[inline]
    pub(crate) fn stepping(&self) -> bool {
        self.step
    }

    /// The page of `linear` has a watchpoint: its translation is not to be cached.
    #[inline]
    pub(crate) fn watches_page(&self, linear: u64) -> bool {
        self.watchpoints.iter().any(|watchpoint| watchpoint.covers(linear & !0xfff, 0x1000))
    }

    /// There are watchpoints.
    #[inline]
    pub(crate) fn watches(&self) -> bool {
        !self.watchpoints.is_empty()
    }
}

impl Cpu {
    /// Replaces the breakpoints and watchpoints. The block cache must know the breakpoints too ([`CodeCache::set_stops`]).
    pub fn set_debug_points(&mut self, breakpoints: Vec<Breakpoint>, watchpoints: Vec<Watchpoint>) {
        if self.debugger.watchpoints != watchpoints {
            self.tlb.flush_all();
        }
        self.debugger.breakpoints = breakpoints;
        self.debugger.watchpoints = watchpoints;
        self.debugger.renew();
    }

    /// Asks for a stop after one instruction, or takes that back.
    pub fn set_debug_step(&mut self, step: bool) {
        self.debugger.step = step;
        self.debugger.renew();
    }

    /// Why the last run ended in [`crate::RunExit::Debug`].
    pub fn take_stopped(&mut self) -> Option<Stopped> {
        self.debugger.pending.take()
    }

    fn in_scope(&self, scope: Scope) -> bool {
        let vmx = &self.vmx;
        match scope {
            Scope::Any => true,
            Scope::Root => !vmx.non_root,
            Scope::NonRoot => vmx.non_root,
            Scope::Eptp(eptp) => vmx.non_root && (vmx.eptp ^ eptp) & !0xfff == 0,
            Scope::Vpid(vpid) => vmx.non_root && vmx.vpid == vpid,
            Scope::Vmcs(pointer) => vmx.non_root && vmx.vmcs.pointer == pointer,
        }
    }

    /// Stops at the next boundary.
    pub(crate) fn stop_for_debugger(&mut self, why: Stopped) {
        self.debugger.pending = Some(why);
        self.attention |= attention::DEBUGGER;
    }

    /// The step asked for is done, if one was.
    pub(crate) fn debug_step_done(&mut self) {
        if self.debugger.step {
            self.set_debug_step(false);
            self.stop_for_debugger(Stopped::Step);
        }
    }

    /// A stop that is due is made now: remembers where. True if there is one.
    pub(crate) fn debugger_takes_over(&mut self) -> bool {
        self.attention &= !attention::DEBUGGER;
        if self.debugger.pending.is_none() {
            return false;
        }
        self.set_debug_step(false);
        self.debugger.passed = Some((self.instructions, self.code_linear()));
        true
    }

    /// Looks whether the instruction at RIP, which is about to run, has a breakpoint. True: stop.
    pub(crate) fn breakpoint_here(&mut self) -> bool {
        let linear = self.code_linear();
        let passed = self.debugger.passed == Some((self.instructions, linear));
        let hit = !passed && self.debugger.breakpoints.iter().any(|b| b.linear == linear && self.in_scope(b.scope));
        if hit {
            self.stop_for_debugger(Stopped::Breakpoint);
        }
        hit
    }

    /// Notes an access that a watchpoint is for. The instruction is run on its own, so that it is the last one before the stop.
    pub(crate) fn note_watchpoints(&mut self, linear: u64, size: usize, kind: Kind) -> Exec {
        let write = kind == Kind::Write;
        let hit = self.debugger.watchpoints.iter().copied().find(|watchpoint| {
            (if write { watchpoint.write } else { watchpoint.read })
                && watchpoint.covers(linear, size as u64)
                && self.in_scope(watchpoint.scope)
        });
        if let Some(watchpoint) = hit {
            self.require_exact()?;
            self.stop_for_debugger(Stopped::Watchpoint(watchpoint));
        }
        Ok(())
    }

    /// Runs the one instruction of a step.
    pub(crate) fn debug_step(&mut self, code: &mut CodeCache) {
        self.step(code);
        self.debug_step_done();
    }

    /// Writes memory at a linear address through the paging and EPT now in force, whatever the pages' rights say, setting no flag and raising
    /// nothing; gives how many bytes could be written. Devices are not disturbed.
    pub fn poke_linear(&mut self, linear: u64, bytes: &[u8]) -> usize {
        for (n, &byte) in bytes.iter().enumerate() {
            let at = linear.wrapping_add(n as u64);
            let physical = self.inspect_linear(at, Kind::Read, tlb::SUPERVISOR_AC).physical();
            if physical.is_none_or(|physical| !self.poke_physical(physical, byte)) {
                return n;
            }
        }
        bytes.len()
    }

    /// Writes a byte of RAM. False where there is none.
    pub fn poke_physical(&mut self, physical: u64, byte: u8) -> bool {
        let writable = matches!(self.map.lookup(physical), Some((_, true)));
        if writable {
            self.physical_store::<1>(physical, byte.into());
        }
        writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{RAX, RBX, RCX};
    use crate::run::RunExit;
    use crate::testing::Machine;

    /// A loop that counts in RAX and stores to 0x9000 in each turn:
    /// `inc rax; mov [rbx], rax; add rcx, [rbx+0x10]; jmp back`.
    fn machine() -> Machine {
        let mut machine = Machine::long();
        machine.write(0x8000, &[0x48, 0xff, 0xc0, 0x48, 0x89, 0x03, 0x48, 0x03, 0x4b, 0x10, 0xeb, 0xf4]);
        machine.cpu.rip = 0x8000;
        machine.cpu.regs[RAX] = 0;
        machine.cpu.regs[RBX] = 0x9000;
        machine.cpu.regs[RCX] = 0;
        machine
    }

    fn run(machine: &mut Machine) -> (RunExit, Option<Stopped>) {
        let exit = machine.cpu.run(&mut machine.code, machine.cpu.now() + 1000);
        (exit, machine.cpu.take_stopped())
    }

    fn set(machine: &mut Machine, breakpoints: &[(u64, Scope)], watchpoints: &[Watchpoint]) {
        let breakpoints: Vec<_> = breakpoints.iter().map(|&(linear, scope)| Breakpoint { linear, scope }).collect();
        machine.code.set_stops(&machine.cpu.ram, breakpoints.iter().map(|b| b.linear));
        machine.cpu.set_debug_points(breakpoints, watchpoints.to_vec());
    }

    const STOP: (RunExit, Option<Stopped>) = (RunExit::Debug, Some(Stopped::Breakpoint));

    #[test]
    fn a_breakpoint_in_a_block_that_has_run_stops_each_time_round() {
        let mut machine = machine();
        assert_eq!(run(&mut machine).0, RunExit::Deadline);
        set(&mut machine, &[(0x8006, Scope::Any)], &[]);
        let mut last = machine.cpu.regs[RAX];
        for _ in 0..3 {
            assert_eq!(run(&mut machine), STOP);
            assert_eq!(machine.cpu.rip, 0x8006);
            let (now, before) = (machine.cpu.regs[RAX], std::mem::replace(&mut last, machine.cpu.regs[RAX]));
            assert!(now == before + 1 || now == before, "one turn, or what was left of one");
        }
        set(&mut machine, &[], &[]);
        assert_eq!(run(&mut machine).0, RunExit::Deadline);
    }

    #[test]
    fn scopes_are_looked_at() {
        let mut machine = machine();
        for scope in [Scope::NonRoot, Scope::Eptp(0x1000), Scope::Vpid(0), Scope::Vmcs(0x2000)] {
            set(&mut machine, &[(0x8003, scope)], &[]);
            assert_eq!(run(&mut machine).0, RunExit::Deadline, "{scope:?}");
        }
        set(&mut machine, &[(0x8003, Scope::Root)], &[]);
        assert_eq!(run(&mut machine), STOP);
    }

    #[test]
    fn another_address_with_the_same_offset_does_not_stop() {
        let mut machine = machine();
        set(&mut machine, &[(0x1_8003, Scope::Any)], &[]);
        assert_eq!(run(&mut machine).0, RunExit::Deadline);
    }

    #[test]
    fn a_step_is_one_instruction() {
        let mut machine = machine();
        for rip in [0x8003, 0x8006, 0x800a, 0x8000] {
            machine.cpu.set_debug_step(true);
            assert_eq!(run(&mut machine), (RunExit::Debug, Some(Stopped::Step)));
            assert_eq!(machine.cpu.rip, rip);
        }
    }

    #[test]
    fn a_watchpoint_stops_after_the_access() {
        let mut machine = machine();
        let watch = |linear, read, write| Watchpoint { linear, length: 4, read, write, scope: Scope::Any };
        run(&mut machine);
        let written = watch(0x9004, false, true);
        set(&mut machine, &[], &[written]);
        assert_eq!(run(&mut machine), (RunExit::Debug, Some(Stopped::Watchpoint(written))));
        assert_eq!(machine.cpu.rip, 0x8006);
        let read = watch(0x9010, true, false);
        set(&mut machine, &[], &[read]);
        assert_eq!(run(&mut machine), (RunExit::Debug, Some(Stopped::Watchpoint(read))));
        assert_eq!(machine.cpu.rip, 0x800a);
        set(&mut machine, &[], &[watch(0x9008, true, true)]);
        assert_eq!(run(&mut machine).0, RunExit::Deadline, "beside what is accessed");
    }

    #[test]
    fn looking_does_not_change_the_run() {
        let mut plain = machine();
        let mut watched = machine();
        let end = plain.cpu.now() + 5000;
        plain.cpu.run(&mut plain.code, end);
        let watch = Watchpoint { linear: 0x9010, length: 8, read: true, write: true, scope: Scope::Any };
        set(&mut watched, &[(0x8000, Scope::Any), (0x8003, Scope::Any)], &[watch]);
        let mut stops = 0;
        while watched.cpu.run(&mut watched.code, end) == RunExit::Debug {
            watched.cpu.take_stopped();
            watched.cpu.set_debug_step(stops % 3 == 0);
            stops += 1;
        }
        assert!(stops > 1000);
        watched.cpu.set_debug_step(false);
        assert_eq!(watched.cpu.save(), plain.cpu.save());
    }

    #[test]
    fn memory_is_written_where_there_is_ram() {
        let mut machine = machine();
        assert_eq!(machine.cpu.poke_linear(0x9100, &[1, 2, 3]), 3);
        let mut bytes = [0; 3];
        assert_eq!((machine.cpu.peek_linear(0x9100, &mut bytes), bytes), (3, [1, 2, 3]));
        assert!(!machine.cpu.poke_physical(1 << 45, 1));
        // Code that has run is written, and what runs then is the new code.
        run(&mut machine);
        machine.cpu.rip = 0x8000;
        machine.cpu.regs[RAX] = 0;
        machine.cpu.poke_linear(0x8002, &[0xc8]); // dec rax
        machine.cpu.set_debug_step(true);
        run(&mut machine);
        assert_eq!(machine.cpu.regs[RAX], u64::MAX);
    }
}
