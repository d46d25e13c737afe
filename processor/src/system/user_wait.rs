//! UMONITOR, UMWAIT and TPAUSE (SDM vol. 2; vol. 3C, 26.3 for what VT-x changes).

use super::intercept::Intercept;
use crate::cpu::{Cpu, RAX, RDX};
use crate::decode::{Op, Table};
use crate::flags::{CF, LateFlags};
use crate::last;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::op;
use crate::run::{Activity, attention};
use crate::trap::Exec;
use iced_x86::Code;
use serde::{Deserialize, Serialize};
use spec::vmx::{PrimaryControls as Primary, SecondaryControls as Secondary, VmcsField};

pub(super) fn register(table: &mut Table) {
    for (code, size) in [(Code::Umonitor_r16, 2), (Code::Umonitor_r32, 4), (Code::Umonitor_r64, 8)] {
        table.one(code, op!(umonitor)).sized(size);
    }
    for code in [Code::Umwait_r32, Code::Umwait_r64] {
        table.end(code, last!(wait::<true>));
    }
    for code in [Code::Tpause_r32, Code::Tpause_r64] {
        table.end(code, last!(wait::<false>));
    }
}

/// Bits of IA32_UMWAIT_CONTROL: the longest time that a user may wait, in TSC ticks, whose bits 1:0 are 0.
const LONGEST: u32 = !3;

/// Until when UMWAIT or TPAUSE waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitLimit {
    /// Virtual time, in nanoseconds.
    pub until: u64,
    /// It is the operating system's limit, not the instruction's own.
    pub systems: bool,
    /// UMWAIT: a store to the monitored line ends the wait, too.
    pub watches: bool,
}

fn umonitor(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept(Some(op), Intercept::UserWait)?;
    let offset = cpu.regs[op.r[0] as usize];
    cpu.arm_monitor(op, offset, true)
}

/// UMWAIT (`WATCHES`) or TPAUSE. Both requested states, C0.1 and C0.2, are the same here.
fn wait<const WATCHES: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept(Some(op), Intercept::UserWait)?;
    cpu.check_tsd()?;
    let armed = cpu.monitor.armed && cpu.monitor.user;
    cpu.intercept(Some(op), if WATCHES { Intercept::Umwait(armed) } else { Intercept::Tpause })?;
    if cpu.regs[op.r[0] as usize] as u32 & !1 != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.require_exact()?;
    let deadline = cpu.regs[RDX] << 32 | cpu.regs[RAX] & 0xffff_ffff;
    let ticks = cpu.real_ticks(deadline.saturating_sub(cpu.visible_tsc()));
    let longest = u64::from(cpu.msrs.umwait_control & LONGEST);
    let systems = longest != 0 && longest < ticks;
    let ticks = if systems { longest } else { ticks };
    cpu.flags = LateFlags::from_bits(0);
    let nothing_to_wait_for = WATCHES && (!armed || cpu.monitor_triggered());
    if WATCHES && nothing_to_wait_for {
        cpu.monitor.armed = false;
    }
    if ticks == 0 || nothing_to_wait_for {
        return Ok(());
    }
    let until = cpu.now().saturating_add(ticks.div_ceil(TSC_TICKS_PER_NS));
    cpu.monitor.waiting = true;
    cpu.monitor.limit = Some(WaitLimit { until, systems, watches: WATCHES });
    // An interrupt ends the wait even where RFLAGS.IF does not let it be delivered.
    cpu.events.wake_if_masked = true;
    cpu.activity = Activity::Halted;
    cpu.attention |= attention::INACTIVE | attention::DEADLINE;
    Ok(())
}

impl Cpu {
    /// Ticks of the real TSC in `ticks` of the TSC that a guest sees.
    fn real_ticks(&self, ticks: u64) -> u64 {
        let scales = self.vmx.controls.primary.has(Primary::USE_TSC_OFFSETTING)
            && self.vmx.controls.secondary.has(Secondary::USE_TSC_SCALING);
        let multiplier = self.vmx.vmcs.get(VmcsField::TSC_MULTIPLIER);
        if !scales || multiplier == 0 {
            return ticks;
        }
        u64::try_from((u128::from(ticks) << 48) / u128::from(multiplier)).unwrap_or(u64::MAX)
    }

    /// The wait ends by itself: CF tells of the operating system's limit.
    pub(super) fn user_wait_over(&mut self) {
        if self.monitor.limit.is_some_and(|limit| limit.systems && limit.until <= self.now()) {
            self.flags = LateFlags::from_bits(CF);
        }
    }

    /// When UMWAIT or TPAUSE ends at the latest.
    pub(crate) fn wait_deadline(&self) -> u64 {
        let limit = self.monitor.limit.filter(|_| self.monitor.waiting && self.activity == Activity::Halted);
        limit.map_or(u64::MAX, |limit| limit.until)
    }
}
