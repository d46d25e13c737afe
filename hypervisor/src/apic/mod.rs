//! A guest's local APIC (SDM Vol. 3A, chapter 11), with its registers in the virtual-APIC page: where the processor has APIC virtualization
//! it reads and writes the same page, where it has not, every access comes here. In x2APIC mode the registers are MSRs.

pub mod timer;

use crate::host::Nanoseconds;
use crate::memory::RegisterPage;
use core::sync::atomic::Ordering;
use spec::apic::local_apic::{DeliveryMode, Lvt, Svr, offset};
use timer::Timer;

/// The page's guest-physical address; it does not move.
pub const BASE: u64 = 0xfee0_0000;

/// Version 14H with six LVT entries.
const VERSION: u32 = 0x0005_0014;

/// What a write asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An IPI by this interrupt command (high half, low half).
    Command(u32, u32),
    /// The end of the interrupt with this vector.
    Ended(u8),
}

/// The local APIC of one vCPU.
#[derive(Debug)]
pub struct LocalApic {
    page: &'static RegisterPage,
    id: u8,
    x2apic: bool,
    timer: Timer,
}

/// The high half of the interrupt command in x2APIC mode: one register there is 64 bits wide.
const X2APIC_ICR_HIGH: u16 = offset::ICR_LOW + 4;

impl LocalApic {
    /// An APIC after reset, with its registers in `page`.
    #[must_use]
    pub fn new(page: &'static RegisterPage, id: u8) -> Self {
        let mut apic = Self { page, id, x2apic: false, timer: Timer::default() };
        apic.reset();
        apic
    }

    /// The page of the registers.
    #[must_use]
    pub fn page(&self) -> &'static RegisterPage {
        self.page
    }

    /// Power-on reset.
    pub fn reset(&mut self) {
        for register in &self.page.0 {
            register.store(0, Ordering::Relaxed);
        }
        self.timer = Timer::default();
        self.x2apic = false;
        self.set(offset::ID, u32::from(self.id) << 24);
        self.set(offset::VERSION, VERSION);
        self.set(offset::DFR, u32::MAX);
        self.set(offset::SVR, Svr::RESET);
        let lvt = [
            offset::LVT_TIMER,
            offset::LVT_THERMAL,
            offset::LVT_PMI,
            offset::LVT_LINT0,
            offset::LVT_LINT1,
            offset::LVT_ERROR,
        ];
        lvt.into_iter().for_each(|entry| self.set(entry, Lvt::RESET));
    }

    /// It is in x2APIC mode.
    #[must_use]
    pub fn is_x2apic(&self) -> bool {
        self.x2apic
    }

    /// Goes into x2APIC mode, whose ids have 32 bits and follow from the first one (11.12.5.1).
    pub fn enter_x2apic(&mut self) {
        self.x2apic = true;
        self.set(offset::ID, self.id.into());
        self.set(offset::LDR, logical_id(self.id.into()));
        self.set(offset::ICR_HIGH, 0);
    }

    /// Reads the MSR of x2APIC mode for the register at this offset; `None`: there is none.
    #[must_use]
    pub fn read_msr(&self, register: u16, now: Nanoseconds) -> Option<u64> {
        match register {
            offset::ICR_LOW => Some(u64::from(self.get(X2APIC_ICR_HIGH)) << 32 | u64::from(self.get(offset::ICR_LOW))),
            offset::ID | offset::VERSION | offset::TPR | offset::PPR | offset::LDR | offset::SVR => {
                Some(self.read(register, now).into())
            }
            offset::ISR..=offset::ESR | offset::LVT_CMCI => Some(self.read(register, now).into()),
            offset::LVT_TIMER..=offset::TIMER_CURRENT | offset::TIMER_DIVIDE => Some(self.read(register, now).into()),
            _ => None,
        }
    }

    /// Writes such an MSR; `None`: there is none to write, or not this value.
    pub fn write_msr(&mut self, register: u16, value: u64, now: Nanoseconds) -> Option<Effect> {
        match register {
            offset::ICR_LOW => {
                self.set(X2APIC_ICR_HIGH, (value >> 32) as u32);
                self.set(offset::ICR_LOW, value as u32);
                return Some(Effect::Command((value >> 32) as u32, value as u32));
            }
            _ if value >> 32 != 0 => return None,
            offset::SELF_IPI if value < 256 => self.request(value as u8),
            offset::EOI | offset::ESR if value != 0 => return None,
            offset::TPR if value > 255 => return None,
            offset::TPR | offset::EOI | offset::SVR | offset::ESR | offset::LVT_CMCI => {
                return Some(self.write(register, value as u32, now));
            }
            offset::LVT_TIMER..=offset::TIMER_INITIAL | offset::TIMER_DIVIDE => {
                return Some(self.write(register, value as u32, now));
            }
            _ => return None,
        }
        Some(Effect::None)
    }

    fn get(&self, register: u16) -> u32 {
        self.page.0[usize::from(register / 4)].load(Ordering::Relaxed)
    }

    fn set(&self, register: u16, value: u32) {
        self.page.0[usize::from(register / 4)].store(value, Ordering::Relaxed);
    }

    /// Software has enabled it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.get(offset::SVR) & Svr::ENABLE != 0
    }

    /// Interrupts of the PIC pass: through LINT0, or past an APIC that is not enabled.
    #[must_use]
    pub fn admits_pic(&self) -> bool {
        let lint0 = self.get(offset::LVT_LINT0);
        !self.is_enabled() || lint0 & Lvt::MASKED == 0 && DeliveryMode::of(lint0) == DeliveryMode::ExtInt
    }

    /// Reads the register at `offset` of the page.
    #[must_use]
    pub fn read(&self, register: u16, now: Nanoseconds) -> u32 {
        match register & 0xff0 {
            offset::TIMER_CURRENT => self.timer.current(now),
            offset::PPR => self.priority().into(),
            register => self.get(register),
        }
    }

    /// Writes the register at `offset` of the page.
    pub fn write(&mut self, register: u16, value: u32, now: Nanoseconds) -> Effect {
        let register = register & 0xff0;
        match register {
            offset::ID | offset::VERSION | offset::PPR | offset::APR | offset::RRD | offset::TIMER_CURRENT => {}
            offset::ISR..offset::ESR => {}
            offset::EOI => return self.end_of_interrupt().map_or(Effect::None, Effect::Ended),
            offset::TPR => self.set(register, value & 0xff),
            offset::ESR => self.set(register, 0),
            _ => {
                self.set(register, value);
                return self.written(register, now);
            }
        }
        Effect::None
    }

    /// Does what a write that the processor has put into the page asks for ("APIC write" exits).
    pub fn written(&mut self, register: u16, now: Nanoseconds) -> Effect {
        let value = self.get(register & 0xff0);
        match register & 0xff0 {
            offset::ICR_LOW => return Effect::Command(self.get(offset::ICR_HIGH), value),
            offset::DFR => self.set(offset::DFR, value | 0x0fff_ffff),
            offset::LDR => self.set(offset::LDR, value & 0xff00_0000),
            offset::SVR if value & Svr::ENABLE == 0 => {
                // While it is disabled, every LVT entry is masked (11.4.7.2).
                for entry in (offset::LVT_TIMER..=offset::LVT_ERROR).step_by(0x10) {
                    self.set(entry, self.get(entry) | Lvt::MASKED);
                }
            }
            offset::LVT_TIMER => self.timer.set_lvt(value, now),
            offset::TIMER_INITIAL => self.timer.set_initial(value, now),
            offset::TIMER_DIVIDE => self.timer.set_divide(value, now),
            _ => {}
        }
        Effect::None
    }

    /// Takes requested interrupts, as 256 bits, into IRR. An APIC that is not enabled takes none.
    pub fn accept(&self, requests: [u64; 4]) {
        if !self.is_enabled() {
            return;
        }
        for (word, bits) in requests.into_iter().enumerate().filter(|(_, bits)| *bits != 0) {
            for half in 0..2 {
                let register = usize::from(offset::IRR / 4) + 4 * (2 * word + half);
                self.page.0[register].fetch_or((bits >> (32 * half)) as u32, Ordering::Relaxed);
            }
        }
    }

    /// Requests one interrupt.
    fn request(&self, vector: u8) {
        let mut requests = [0; 4];
        requests[usize::from(vector >> 6)] = 1 << (vector & 63);
        self.accept(requests);
    }

    /// The highest vector of the eight registers from `first` on.
    fn highest(&self, first: u16) -> Option<u8> {
        (0..8u16).rev().find_map(|word| {
            let bits = self.get(first + 0x10 * word);
            (bits != 0).then(|| (word as u8) << 5 | (31 - bits.leading_zeros()) as u8)
        })
    }

    /// The highest vector requested.
    #[must_use]
    pub fn requested(&self) -> Option<u8> {
        self.highest(offset::IRR)
    }

    /// The highest vector in service.
    #[must_use]
    pub fn in_service(&self) -> Option<u8> {
        self.highest(offset::ISR)
    }

    /// The task priority.
    #[must_use]
    pub fn task_priority(&self) -> u8 {
        self.get(offset::TPR) as u8
    }

    /// Sets the task priority.
    pub fn set_task_priority(&self, value: u8) {
        self.set(offset::TPR, value.into());
    }

    /// The processor priority (11.8.3.1).
    fn priority(&self) -> u8 {
        let (task, service) = (self.task_priority(), self.in_service().unwrap_or(0) & 0xf0);
        if task & 0xf0 >= service { task } else { service }
    }

    /// The interrupt that is due: requested, and of a class above the processor's priority.
    #[must_use]
    pub fn due(&self) -> Option<u8> {
        self.requested().filter(|vector| vector >> 4 > self.priority() >> 4)
    }

    /// The guest gets `vector`: from IRR to ISR.
    pub fn acknowledge(&self, vector: u8) {
        let register = 4 * usize::from(vector >> 5);
        let bit = 1 << (vector & 31);
        self.page.0[usize::from(offset::IRR / 4) + register].fetch_and(!bit, Ordering::Relaxed);
        self.page.0[usize::from(offset::ISR / 4) + register].fetch_or(bit, Ordering::Relaxed);
    }

    fn end_of_interrupt(&self) -> Option<u8> {
        let vector = self.in_service()?;
        let register = usize::from(offset::ISR / 4) + 4 * usize::from(vector >> 5);
        self.page.0[register].fetch_and(!(1 << (vector & 31)), Ordering::Relaxed);
        Some(vector)
    }

    /// When the timer is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanoseconds> {
        self.timer.deadline()
    }

    /// Lets the timer come to `now`.
    pub fn advance(&mut self, now: Nanoseconds) {
        if self.timer.advance(now) {
            let lvt = self.get(offset::LVT_TIMER);
            if lvt & Lvt::MASKED == 0 {
                self.request(lvt as u8);
            }
        }
    }
}

/// The logical id that goes with an x2APIC id: the cluster, and one of 16 bits (11.12.10.2).
fn logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}

/// Whether the x2APIC with this id is the destination `mda` of a logical message (11.12.10.2).
#[must_use]
pub fn is_x2apic_logical_destination(id: u32, mda: u32) -> bool {
    let own = logical_id(id);
    mda == u32::MAX || mda >> 16 == own >> 16 && mda & own & 0xffff != 0
}

/// Whether the APIC with these registers is the destination `mda` of a logical message (11.6.2.2).
#[must_use]
pub fn is_logical_destination(page: &RegisterPage, mda: u8) -> bool {
    let ldr = (page.0[usize::from(offset::LDR / 4)].load(Ordering::Relaxed) >> 24) as u8;
    let flat = page.0[usize::from(offset::DFR / 4)].load(Ordering::Relaxed) >> 28 == 0xf;
    if flat { ldr & mda != 0 } else { mda == 0xff || ldr >> 4 == mda >> 4 && ldr & mda & 0xf != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pages;
    use crate::testing::TestPages;

    fn apic() -> LocalApic {
        let mut apic = LocalApic::new(TestPages.register_page().unwrap(), 1);
        assert_eq!(apic.write(offset::SVR, 0x1ff, 0), Effect::None);
        apic
    }

    #[test]
    fn an_interrupt_is_due_when_its_class_is_above_the_priority() {
        let mut apic = apic();
        apic.request(0x41);
        apic.request(0x52);
        assert_eq!(apic.due(), Some(0x52));
        apic.acknowledge(0x52);
        assert_eq!((apic.due(), apic.read(offset::PPR, 0)), (None, 0x50));
        assert_eq!(apic.write(offset::EOI, 0, 0), Effect::Ended(0x52));
        assert_eq!(apic.due(), Some(0x41));
        apic.write(offset::TPR, 0x4f, 0);
        assert_eq!(apic.due(), None);
    }

    #[test]
    fn a_disabled_apic_takes_no_interrupts_and_lets_the_pic_s_pass() {
        let mut apic = LocalApic::new(TestPages.register_page().unwrap(), 0);
        apic.request(0x41);
        assert_eq!((apic.requested(), apic.admits_pic()), (None, true));
        apic.write(offset::SVR, 0x1ff, 0);
        assert!(!apic.admits_pic());
        apic.write(offset::LVT_LINT0, 0x700, 0);
        assert!(apic.admits_pic());
    }

    #[test]
    fn the_timer_requests_its_vector_unless_masked() {
        let mut apic = apic();
        apic.write(offset::TIMER_DIVIDE, 0xb, 0);
        apic.write(offset::LVT_TIMER, 0x2_0060, 0);
        apic.write(offset::TIMER_INITIAL, 100, 0);
        assert_eq!(apic.deadline(), Some(100));
        assert_eq!(apic.read(offset::TIMER_CURRENT, 40), 60);
        apic.advance(100);
        assert_eq!((apic.requested(), apic.deadline()), (Some(0x60), Some(200)));
    }

    #[test]
    fn in_x2apic_mode_registers_are_msrs_with_ids_of_32_bits() {
        let mut apic = apic();
        apic.enter_x2apic();
        assert_eq!((apic.read_msr(offset::ID, 0), apic.read_msr(offset::LDR, 0)), (Some(1), Some(2)));
        let command = 3 << 32 | 0x4041;
        assert_eq!(apic.write_msr(offset::ICR_LOW, command, 0), Some(Effect::Command(3, 0x4041)));
        assert_eq!(apic.read_msr(offset::ICR_LOW, 0), Some(command));
        assert_eq!(apic.write_msr(offset::SELF_IPI, 0x52, 0), Some(Effect::None));
        assert_eq!(apic.requested(), Some(0x52));
        for (register, value) in
            [(offset::EOI, 1), (offset::ID, 0), (offset::DFR, 0), (offset::ICR_HIGH, 0), (offset::SVR, 1 << 32)]
        {
            assert_eq!(apic.write_msr(register, value, 0), None, "{register:#x}");
        }
        assert_eq!(apic.read_msr(offset::DFR, 0), None);
        assert!(is_x2apic_logical_destination(0x12, 0x1_0004) && !is_x2apic_logical_destination(0x12, 4));
    }

    #[test]
    fn the_interrupt_command_goes_out_with_both_halves() {
        let mut apic = apic();
        apic.write(offset::ICR_HIGH, 2 << 24, 0);
        assert_eq!(apic.write(offset::ICR_LOW, 0x4041, 0), Effect::Command(2 << 24, 0x4041));
    }
}
