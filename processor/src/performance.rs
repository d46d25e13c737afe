//! Architectural performance monitoring, version 2 (SDM Vol. 3B, chapter 20): four general counters, which count instructions, core cycles
//! and reference cycles, and the three fixed-function counters of the same events.
//!
//! All of these are multiples of the instructions retired: while it is not halted, the core runs at the TSC's frequency, and an
//! instruction takes a nanosecond. So nothing is done while code runs: the counters are brought up to date ([`Cpu::settle_counters`])
//! when they are looked at, when the privilege level changes, and at the instruction with which the next one overflows.

use crate::apic::LocalSource;
use crate::cpu::Cpu;
use crate::models::Model;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::run::{Activity, attention};
use serde::{Deserialize, Serialize};
use spec::x86::cpuid::Feature;
use spec::x86::debug::DebugCtl;
use spec::x86::msr;
use spec::x86::performance::{
    CORE_CYCLES, EventSelect, FixedControl, GlobalStatus, INSTRUCTIONS, PerfCapabilities, REFERENCE_CYCLES, unavailable,
};

/// General counters.
const GENERAL: usize = 4;
/// Fixed-function counters: instructions, core cycles, reference cycles.
const FIXED: usize = 3;
/// Bits of a counter.
const WIDTH: u32 = 48;
const COUNTER: u64 = (1 << WIDTH) - 1;
/// The bits of IA32_PERF_GLOBAL_CTRL that exist.
const GLOBAL: u64 = ((1 << GENERAL) - 1) | ((1 << FIXED) - 1) << 32;
/// The bits of IA32_PERFEVTSELx that exist: ANY_THREAD came with version 3.
const SELECT: u64 = 0xffff_ffff & !EventSelect::ANY_THREAD;
/// The bits of a counter in IA32_FIXED_CTR_CTRL that exist.
const FIXED_CONTROL: u64 = FixedControl::OS | FixedControl::USR | FixedControl::PMI;
/// Architectural events in CPUID leaf 0AH.
const EVENTS: u32 = 7;

/// CPUID leaf 0AH.
pub(crate) const LEAF: [u32; 4] = [
    2 | (GENERAL as u32) << 8 | WIDTH << 16 | EVENTS << 24,
    unavailable::CACHE_REFERENCES
        | unavailable::CACHE_MISSES
        | unavailable::BRANCHES
        | unavailable::MISPREDICTED_BRANCHES,
    0,
    FIXED as u32 | WIDTH << 5,
];

/// The state of performance monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Performance {
    /// IA32_PERFEVTSELx.
    select: [u64; GENERAL],
    /// IA32_FIXED_CTR_CTRL.
    fixed_control: u64,
    /// IA32_PERF_GLOBAL_CTRL.
    global_control: u64,
    /// IA32_PERF_GLOBAL_STATUS.
    status: u64,
    /// The general counters, then the fixed-function ones, as they were after `since` instructions.
    counters: [u64; GENERAL + FIXED],
    /// Instructions retired when the counters were last brought up to date.
    since: u64,
    /// CPL was 0 then.
    supervisor: bool,
    /// A counter is enabled.
    counting: bool,
}

impl Performance {
    /// After power-up (SDM Vol. 3A, table 10-1).
    pub(crate) fn reset(model: &Model) -> Self {
        let global_control = if model.has(Feature::PDCM) { (1 << GENERAL) - 1 } else { 0 };
        Self { global_control, ..Self::default() }
    }

    /// The control bits of fixed-function counter `number`.
    fn fixed(&self, number: usize) -> u64 {
        self.fixed_control >> (4 * number) & 0xf
    }

    /// What counter `index` gains in an instruction at CPL 0 (`supervisor`) or above.
    fn rate(&self, index: usize, supervisor: bool) -> u64 {
        let (enable, level) = match index.checked_sub(GENERAL) {
            None => {
                let select = self.select[index];
                let level = if supervisor { EventSelect::OS } else { EventSelect::USR };
                (self.global_control >> index & 1 != 0 && select & EventSelect::EN != 0, select & level)
            }
            Some(number) => {
                let level = if supervisor { FixedControl::OS } else { FixedControl::USR };
                (self.global_control >> (32 + number) & 1 != 0, self.fixed(number) & level)
            }
        };
        if !enable || level == 0 {
            return 0;
        }
        match index.checked_sub(GENERAL) {
            None => event_rate(self.select[index]),
            Some(0) => 1,
            Some(_) => TSC_TICKS_PER_NS,
        }
    }

    /// An overflow of counter `index` interrupts.
    fn interrupts(&self, index: usize) -> bool {
        match index.checked_sub(GENERAL) {
            None => self.select[index] & EventSelect::INT != 0,
            Some(number) => self.fixed(number) & FixedControl::PMI != 0,
        }
    }

    /// The bit of counter `index` in the global registers.
    fn bit(index: usize) -> u64 {
        match index.checked_sub(GENERAL) {
            None => 1 << index,
            Some(number) => 1 << (32 + number),
        }
    }

    /// Brings the counters up to `instructions`. True: an overflow that interrupts.
    fn settle(&mut self, instructions: u64) -> bool {
        let passed = instructions.wrapping_sub(self.since);
        self.since = instructions;
        if !self.counting {
            return false;
        }
        let mut interrupt = false;
        for index in 0..GENERAL + FIXED {
            let value = self.counters[index].wrapping_add(self.rate(index, self.supervisor).wrapping_mul(passed));
            self.counters[index] = value & COUNTER;
            if value > COUNTER {
                self.status |= Self::bit(index);
                interrupt |= self.interrupts(index);
            }
        }
        interrupt
    }

    /// Instructions retired when the next counter overflows.
    fn next_overflow(&self) -> Option<u64> {
        let left = |index| {
            let rate = self.rate(index, self.supervisor);
            (rate != 0).then(|| (COUNTER + 1 - self.counters[index]).div_ceil(rate))
        };
        (0..GENERAL + FIXED).filter_map(left).min().map(|left| self.since.saturating_add(left))
    }

    fn controls_changed(&mut self) {
        self.counting = (0..GENERAL + FIXED).any(|index| self.rate(index, true) | self.rate(index, false) != 0);
    }
}

/// What a general counter that selects `select` gains in an instruction, which is retired in one of its cycles.
fn event_rate(select: u64) -> u64 {
    // For each cycle of an instruction, the first of which retires it: how often the event happens in it.
    let happens: [u64; TSC_TICKS_PER_NS as usize] = match select & EventSelect::EVENT {
        INSTRUCTIONS => std::array::from_fn(|cycle| u64::from(cycle == 0)),
        CORE_CYCLES | REFERENCE_CYCLES => [1; TSC_TICKS_PER_NS as usize],
        _ => return 0,
    };
    let mask = select >> EventSelect::COUNTER_MASK_SHIFT;
    let invert = select & EventSelect::INV != 0;
    let counts = |times: u64| if mask == 0 { times } else { u64::from((times >= mask) != invert) };
    if select & EventSelect::EDGE == 0 {
        return happens.into_iter().map(counts).sum();
    }
    let met = happens.map(|times| counts(times) != 0);
    (0..met.len()).map(|cycle| u64::from(met[cycle] && !met[(cycle + met.len() - 1) % met.len()])).sum()
}

/// What a counter's MSR takes: all bits (general counters through IA32_A_PMCx, fixed-function ones), or 32 bits with sign.
fn counter_of(number: u32) -> Option<(usize, bool)> {
    let within = |first: u32, count: usize| number.checked_sub(first).map(|n| n as usize).filter(|n| *n < count);
    within(msr::PMC0, GENERAL)
        .map(|n| (n, false))
        .or_else(|| within(msr::A_PMC0, GENERAL).map(|n| (n, true)))
        .or_else(|| within(msr::FIXED_CTR0, FIXED).map(|n| (GENERAL + n, true)))
}

fn select_of(number: u32) -> Option<usize> {
    number.checked_sub(msr::PERFEVTSEL0).map(|n| n as usize).filter(|n| *n < GENERAL)
}

/// The bits of IA32_PERF_GLOBAL_CTRL that can be set.
pub(crate) fn global_control_bits(model: &Model) -> u64 {
    if model.has(Feature::PDCM) { GLOBAL } else { 0 }
}

impl Cpu {
    /// Brings the performance counters up to the instruction that comes next, whose count must be exact.
    pub(crate) fn settle_counters(&mut self) {
        let interrupt = self.msrs.performance.settle(self.instructions);
        self.msrs.performance.supervisor = self.cpl == 0;
        if interrupt {
            self.counter_interrupt();
        }
        self.attention |= attention::DEADLINE;
    }

    /// As [`Cpu::settle_counters`], if a counter counts: between instructions, after whatever called for attention.
    #[inline]
    pub(crate) fn settle_running_counters(&mut self) {
        if self.msrs.performance.counting {
            self.settle_counters();
        }
    }

    /// The privilege level may have changed: counters may count at one of the two only.
    #[inline]
    pub(crate) fn counters_see_cpl(&mut self) {
        if self.msrs.performance.counting && self.msrs.performance.supervisor != (self.cpl == 0) {
            self.attention |= attention::DEADLINE;
        }
    }

    fn counter_interrupt(&mut self) {
        let debugctl = self.msrs.debugctl;
        if debugctl & DebugCtl::FREEZE_PERFMON_ON_PMI != 0 {
            self.msrs.performance.global_control = 0;
            self.msrs.performance.controls_changed();
        }
        if debugctl & DebugCtl::FREEZE_LBRS_ON_PMI != 0 {
            self.msrs.debugctl &= !DebugCtl::LBR;
        }
        self.raise_local(LocalSource::Performance);
    }

    /// When a counter overflows next, in virtual time; never while halted.
    pub(crate) fn counters_deadline(&self) -> u64 {
        let performance = &self.msrs.performance;
        if !performance.counting || self.activity != Activity::Active {
            return u64::MAX;
        }
        performance.next_overflow().map_or(u64::MAX, |instructions| instructions.saturating_add(self.idle_time))
    }

    /// RDMSR of an MSR of performance monitoring. `None`: there is none of this number.
    pub(crate) fn read_performance_msr(&mut self, number: u32) -> Option<u64> {
        if !self.model.has(Feature::PDCM) {
            return None;
        }
        self.settle_counters();
        let performance = &self.msrs.performance;
        if let Some((index, _)) = counter_of(number) {
            return Some(performance.counters[index]);
        }
        if let Some(index) = select_of(number) {
            return Some(performance.select[index]);
        }
        Some(match number {
            msr::PERF_CAPABILITIES => PerfCapabilities::FULL_WIDTH_WRITE,
            msr::FIXED_CTR_CTRL => performance.fixed_control,
            msr::PERF_GLOBAL_STATUS => performance.status,
            msr::PERF_GLOBAL_CTRL => performance.global_control,
            msr::PERF_GLOBAL_OVF_CTRL => 0,
            _ => return None,
        })
    }

    /// WRMSR of an MSR of performance monitoring. False: #GP(0).
    pub(crate) fn write_performance_msr(&mut self, number: u32, value: u64) -> bool {
        if !self.model.has(Feature::PDCM) {
            return false;
        }
        self.settle_counters();
        let performance = &mut self.msrs.performance;
        let every_fixed = (0..FIXED).fold(0, |all, number| all | FIXED_CONTROL << (4 * number));
        let (register, allowed) = if let Some((index, full)) = counter_of(number) {
            let value = if full { value } else { value as u32 as i32 as u64 & COUNTER };
            if value & !COUNTER == 0 {
                performance.counters[index] = value;
            }
            return value & !COUNTER == 0;
        } else if let Some(index) = select_of(number) {
            (&mut performance.select[index], SELECT)
        } else {
            match number {
                msr::FIXED_CTR_CTRL => (&mut performance.fixed_control, every_fixed),
                msr::PERF_GLOBAL_CTRL => (&mut performance.global_control, GLOBAL),
                msr::PERF_GLOBAL_OVF_CTRL => {
                    let valid = value & !(GLOBAL | GlobalStatus::BUFFER | GlobalStatus::CHANGED) == 0;
                    performance.status &= if valid { !value } else { u64::MAX };
                    return valid;
                }
                _ => return false,
            }
        };
        if value & !allowed != 0 {
            return false;
        }
        *register = value;
        performance.controls_changed();
        true
    }

    /// What RDPMC gives for `selector` (ECX). `None`: #GP(0).
    pub(crate) fn performance_counter(&mut self, selector: u32) -> Option<u64> {
        const FIXED_FUNCTION: u32 = 1 << 30;
        if !self.model.has(Feature::PDCM) {
            return None;
        }
        self.settle_counters();
        let (number, first, count) = match selector & FIXED_FUNCTION {
            0 => (selector, 0, GENERAL),
            _ => (selector & !FIXED_FUNCTION, GENERAL, FIXED),
        };
        let number = number as usize;
        (number < count).then(|| self.msrs.performance.counters[first + number])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    const COUNT_KERNEL: u64 = EventSelect::EN | EventSelect::OS;
    const NOP: u8 = 0x90;
    const HLT: u8 = 0xf4;

    fn machine() -> Machine {
        let mut machine = Machine::long_with(Model::named("full").unwrap());
        machine.cpu.rip = 0x8000;
        machine
    }

    fn set(machine: &mut Machine, registers: &[(u32, u64)]) {
        for (number, value) in registers {
            assert!(machine.cpu.write_msr(*number, *value), "{number:#x}");
        }
    }

    fn get(machine: &mut Machine, number: u32) -> u64 {
        machine.cpu.read_msr(number).unwrap()
    }

    #[test]
    fn instructions_and_cycles_are_counted_while_not_halted() {
        let mut machine = machine();
        set(
            &mut machine,
            &[
                (msr::PERFEVTSEL0, COUNT_KERNEL | INSTRUCTIONS),
                (msr::PERFEVTSEL0 + 1, COUNT_KERNEL | CORE_CYCLES),
                (msr::PERFEVTSEL0 + 2, COUNT_KERNEL | 0x2e),
                (msr::FIXED_CTR_CTRL, 0x111),
                (msr::PERF_GLOBAL_CTRL, 7 | 7 << 32),
            ],
        );
        machine.write(0x8000, &[NOP, NOP, NOP, NOP, HLT]);
        machine.run_to_halt(100);
        machine.cpu.idle_time += 1000;
        let counters: Vec<u64> = (0..3).map(|n| get(&mut machine, msr::PMC0 + n)).collect();
        assert_eq!(counters, [5, 10, 0]);
        let fixed: Vec<u64> = (0..3).map(|n| get(&mut machine, msr::FIXED_CTR0 + n)).collect();
        assert_eq!(fixed, [5, 10, 10]);
    }

    #[test]
    fn counters_count_at_the_privilege_levels_they_are_told() {
        let mut machine = machine();
        machine.flat(3);
        (machine.cpu.msrs.star, machine.cpu.msrs.lstar) = (8 << 32, 0x9000);
        set(
            &mut machine,
            &[
                (msr::PERFEVTSEL0, COUNT_KERNEL | INSTRUCTIONS),
                (msr::PERFEVTSEL0 + 1, EventSelect::EN | EventSelect::USR | INSTRUCTIONS),
                (msr::PERFEVTSEL0 + 2, EventSelect::USR | COUNT_KERNEL | INSTRUCTIONS),
            ],
        );
        machine.write(0x8000, &[NOP, NOP, NOP, 0x0f, 0x05]); // syscall
        machine.write(0x9000, &[NOP, HLT]);
        machine.run_to_halt(100);
        let counters: Vec<u64> = (0..3).map(|n| get(&mut machine, msr::PMC0 + n)).collect();
        assert_eq!(counters, [2, 4, 6]);
    }

    #[test]
    fn an_overflow_interrupts_after_the_instruction_that_makes_it() {
        let mut machine = machine();
        machine.idt(2, 8, 0x9000, 0x8e);
        machine.write(0x8000, &[NOP; 20]);
        machine.write(0x9000, &[HLT]);
        machine.cpu.apic.set_base(0xfee0_0d00, 46, true).unwrap();
        assert!(machine.cpu.write_msr(msr::X2APIC_FIRST + 0xf, 0x1ff), "software enable");
        assert!(machine.cpu.write_msr(msr::X2APIC_FIRST + 0x34, 0x400), "LVT: NMI");
        set(
            &mut machine,
            &[
                (msr::FIXED_CTR0, COUNTER - 6),
                (msr::FIXED_CTR_CTRL, FixedControl::OS | FixedControl::PMI),
                (msr::DEBUGCTL, DebugCtl::FREEZE_PERFMON_ON_PMI),
                (msr::PERF_GLOBAL_CTRL, 1 << 32),
            ],
        );
        machine.run_to_halt(100);
        assert_eq!(machine.load(machine.cpu.regs[4], 8), 0x8007);
        assert_eq!(get(&mut machine, msr::PERF_GLOBAL_STATUS), 1 << 32);
        assert_eq!(get(&mut machine, msr::X2APIC_FIRST + 0x34), 0x1_0400, "masked");
        assert_eq!((get(&mut machine, msr::FIXED_CTR0), get(&mut machine, msr::PERF_GLOBAL_CTRL)), (0, 0), "frozen");
        set(&mut machine, &[(msr::PERF_GLOBAL_OVF_CTRL, 1 << 32)]);
        assert_eq!(get(&mut machine, msr::PERF_GLOBAL_STATUS), 0);
    }

    #[test]
    fn reserved_bits_and_the_status_register_are_not_written() {
        let mut machine = machine();
        for (number, value) in [
            (msr::PERFEVTSEL0, 1 << 32),
            (msr::PERFEVTSEL0, EventSelect::ANY_THREAD),
            (msr::FIXED_CTR_CTRL, FixedControl::ANY_THREAD),
            (msr::FIXED_CTR_CTRL, 1 << 12),
            (msr::PERF_GLOBAL_CTRL, 1 << 4),
            (msr::PERF_GLOBAL_CTRL, 1 << 35),
            (msr::PERF_GLOBAL_STATUS, 0),
            (msr::PERF_GLOBAL_OVF_CTRL, 1 << 40),
            (msr::A_PMC0, 1 << 48),
            (msr::PMC0 + GENERAL as u32, 0),
            (msr::PERF_CAPABILITIES, 0),
        ] {
            assert!(!machine.cpu.write_msr(number, value), "{number:#x} {value:#x}");
        }
        assert!(Machine::long().cpu.read_msr(msr::PMC0).is_none(), "the default model has none");
    }

    #[test]
    fn a_general_counter_takes_32_bits_with_sign_or_all() {
        let mut machine = machine();
        set(&mut machine, &[(msr::PMC0, 0xffff_ffff_8000_0001), (msr::A_PMC0 + 1, 0x8000_0001)]);
        assert_eq!(get(&mut machine, msr::PMC0), 0xffff_8000_0001);
        assert_eq!(get(&mut machine, msr::PMC0 + 1), 0x8000_0001);
    }

    #[test]
    fn the_counter_mask_compares_events_of_a_cycle() {
        let mask = |mask: u64| mask << EventSelect::COUNTER_MASK_SHIFT;
        for (select, rate) in [
            (INSTRUCTIONS | mask(1), 1),
            (INSTRUCTIONS | mask(2), 0),
            (INSTRUCTIONS | mask(1) | EventSelect::INV, 1),
            (INSTRUCTIONS | mask(2) | EventSelect::INV, 2),
            (INSTRUCTIONS | mask(1) | EventSelect::EDGE, 1),
            (CORE_CYCLES | mask(1), 2),
            (CORE_CYCLES | mask(1) | EventSelect::EDGE, 0),
        ] {
            assert_eq!(event_rate(select), rate, "{select:#x}");
        }
    }

    #[test]
    fn rdpmc_reads_general_and_fixed_function_counters() {
        let mut machine = machine();
        set(&mut machine, &[(msr::A_PMC0 + 1, 0x1_0000_0002), (msr::FIXED_CTR0, 7)]);
        for (selector, value) in [(1, 0x1_0000_0002), (1 << 30, 7)] {
            machine.cpu.rip = 0x8000;
            machine.cpu.regs[1] = selector;
            machine.execute(&[0x0f, 0x33], 1);
            assert_eq!(machine.cpu.regs[2] << 32 | machine.cpu.regs[0], value);
        }
    }
}
