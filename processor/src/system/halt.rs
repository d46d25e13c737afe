//! HLT, MONITOR, MWAIT, PAUSE, the cache instructions, RDPKRU and WRPKRU (SDM vol. 2).

use super::intercept::Intercept;
use super::user_wait::WaitLimit;
use crate::cpu::{Cpu, Mode, RAX, RCX, RDX};
use crate::decode::{Op, Table};
use crate::memory::paging::Kind;
use crate::run::{Activity, attention};
use crate::trap::Exec;
use crate::{last, op};
use iced_x86::Code;
use serde::{Deserialize, Serialize};
use spec::x86::control_registers::Cr4;
use spec::x86::msr::MiscEnable;

pub(super) fn register(table: &mut Table) {
    table.end(Code::Hlt, last!(hlt));
    for (code, size) in [(Code::Monitorw, 2), (Code::Monitord, 4), (Code::Monitorq, 8)] {
        table.one(code, op!(monitor)).sized(size);
    }
    table.end(Code::Mwait, last!(mwait));
    table.end(Code::Pause, last!(pause));
    table.end(Code::Invd, last!(invd));
    table.end(Code::Wbinvd, last!(wbinvd));
    table.one(Code::Wbnoinvd, op!(wbinvd));
    table.one(Code::Rdpkru, op!(rdpkru));
    table.end(Code::Wrpkru, last!(wrpkru));
}

/// Bytes in the monitored range (CPUID leaf 5).
const LINE: u64 = 64;

/// What MONITOR set up.
///
/// A store is noticed by what it changes: the line's contents are kept and compared whenever the processor that waits gets its turn.
/// A store of the value that is already there goes unnoticed, which MWAIT allows for only because its users look again after
/// an interrupt; software that waits for a change is always woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// MONITOR or UMONITOR was executed, and nothing has happened since.
    pub armed: bool,
    /// It was UMONITOR: only UMWAIT waits for it, and only MWAIT for MONITOR's.
    pub user: bool,
    /// MWAIT, UMWAIT or TPAUSE waits.
    pub waiting: bool,
    /// Until when, for UMWAIT and TPAUSE.
    pub limit: Option<WaitLimit>,
    /// Physical address of the line.
    pub line: u64,
    /// The line's contents when it was armed.
    pub contents: [u64; 8],
}

impl Cpu {
    fn line_contents(&mut self, line: u64) -> [u64; 8] {
        std::array::from_fn(|word| self.physical_load::<8>(line + 8 * word as u64))
    }

    pub(super) fn monitor_triggered(&mut self) -> bool {
        self.monitor.armed && self.line_contents(self.monitor.line) != self.monitor.contents
    }

    /// Whether MWAIT, UMWAIT or TPAUSE has waited for long enough, or the monitored line has changed.
    fn wait_is_over(&mut self) -> bool {
        let late = self.monitor.limit.is_some_and(|limit| limit.until <= self.now());
        let watches = self.monitor.limit.is_none_or(|limit| limit.watches);
        self.monitor.waiting && (late || watches && self.monitor_triggered())
    }

    /// Ends MWAIT and the like when the monitored line has changed or their time has come. True when it did.
    pub(crate) fn see_to_monitor(&mut self) -> bool {
        if self.activity != Activity::Halted || !self.wait_is_over() {
            return false;
        }
        self.user_wait_over();
        self.activity_resumes();
        true
    }

    /// Whether [`Cpu::run`] would find something to do at the present time: running, or woken by an interrupt or a store. The board
    /// asks before it lets time pass.
    pub fn has_work(&mut self) -> bool {
        match self.activity {
            Activity::Active | Activity::Shutdown => true,
            Activity::WaitForSipi => self.events.init || self.events.startup.is_some(),
            Activity::Halted => {
                let waiting = self.apic.pending().is_some();
                let masked =
                    self.rflags & crate::flags::IF == 0 && !self.events.wake_if_masked && !self.vmx_takes_interrupts();
                self.events.init
                    || self.events.nmi && !self.events.nmi_blocked
                    || self.events.debug_trap != 0
                    || waiting && !masked
                    || self.virtual_interrupt_ready()
                    || self.wait_is_over()
            }
        }
    }
}

fn hlt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::Hlt)?;
    cpu.activity = Activity::Halted;
    cpu.attention |= attention::INACTIVE;
    Ok(())
}

/// Virtual nanoseconds that PAUSE takes besides that of every instruction: about 140 cycles on the processors modelled (Intel 64 and
/// IA-32 Architectures Optimization Reference Manual, 2.6.4). Loops that wait for time or for another processor spin that much less.
pub(crate) const PAUSE_TIME: u64 = 69;

fn pause(cpu: &mut Cpu, op: &Op) -> Exec {
    if cpu.vmx.non_root {
        cpu.require_exact()?; // PAUSE-loop exiting goes by the time
        cpu.intercept(Some(op), Intercept::Pause)?;
    }
    cpu.idle_time += PAUSE_TIME;
    cpu.attention |= attention::DEADLINE;
    if cpu.processors > 1 {
        cpu.attention |= attention::YIELD;
    }
    Ok(())
}

/// #UD where MONITOR and MWAIT are switched off, or above privilege level 0.
fn check_monitor(cpu: &mut Cpu) -> Exec {
    let off = cpu.msrs.misc_enable & MiscEnable::MONITOR == 0;
    if off || cpu.cpl != 0 { Err(cpu.undefined_opcode()) } else { Ok(()) }
}

fn monitor(cpu: &mut Cpu, op: &Op) -> Exec {
    check_monitor(cpu)?;
    cpu.intercept(Some(op), Intercept::Monitor)?;
    if cpu.regs[RCX] as u32 != 0 {
        return Err(cpu.general_protection(0));
    }
    let offset = cpu.regs[RAX];
    cpu.arm_monitor(op, offset, false)
}

impl Cpu {
    /// Watches the line at `offset`, cut to the address size, in the instruction's segment.
    pub(super) fn arm_monitor(&mut self, op: &Op, offset: u64, user: bool) -> Exec {
        self.require_exact()?;
        let mask = match op.size {
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        };
        let linear = self.string_linear(op.seg, offset & mask, 1, false)?;
        let linear = if self.mode == Mode::Long64 { linear } else { linear & 0xffff_ffff };
        if self.vmx.non_root && self.is_canonical(linear) {
            let physical = self.translate(linear, Kind::Read, self.tlb.class())?.physical;
            self.check_monitored_page(physical)?;
        }
        self.load::<1>(linear)?;
        let line = self.translate(linear, Kind::Read, self.tlb.class())?.physical & !(LINE - 1);
        self.monitor = Monitor { armed: true, user, line, contents: self.line_contents(line), ..Monitor::default() };
        Ok(())
    }
}

fn mwait(cpu: &mut Cpu, op: &Op) -> Exec {
    check_monitor(cpu)?;
    let armed = cpu.monitor.armed && !cpu.monitor.user;
    cpu.intercept(Some(op), Intercept::Mwait(armed))?;
    let extensions = cpu.regs[RCX] as u32;
    if extensions & !1 != 0 {
        return Err(cpu.general_protection(0));
    }
    if !armed || cpu.monitor_triggered() {
        cpu.monitor.armed = false;
        return Ok(());
    }
    cpu.monitor.waiting = true;
    cpu.events.wake_if_masked = extensions & 1 != 0;
    cpu.activity = Activity::Halted;
    cpu.attention |= attention::INACTIVE;
    Ok(())
}

/// There are no caches to lose.
fn invd(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::Invd)
}

fn wbinvd(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::Wbinvd)
}

fn check_pke(cpu: &mut Cpu) -> Exec {
    if cpu.cr4 & Cr4::PKE == 0 {
        return Err(cpu.undefined_opcode());
    }
    if cpu.regs[RCX] as u32 != 0 { Err(cpu.general_protection(0)) } else { Ok(()) }
}

fn rdpkru(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_pke(cpu)?;
    cpu.regs[RAX] = u64::from(cpu.pkru);
    cpu.regs[RDX] = 0;
    Ok(())
}

fn wrpkru(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_pke(cpu)?;
    if cpu.regs[RDX] as u32 != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.write_pkru(cpu.regs[RAX] as u32);
    Ok(())
}
