//! Power management of the ICH9: the ACPI fixed hardware at PMBASE (ICH9 datasheet, 13.8.3; ACPI 6.5, 4.8), the APM ports and
//! the reset control register.
//!
//! The machine is always in ACPI mode (SCI_EN reads 1) since there is no system management mode that could hand it over: the
//! APM control port is storage, and SMI_EN says from reset on that its SMI is enabled, which firmware takes for "set up".

use crate::memory_map::PM_SIZE;
use devices::device::{Device, Region};
use devices::ports::{Clock, Nanoseconds, PinBox, Power, PowerRequest};
use serde::{Deserialize, Serialize};

/// A control that is wired to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPower;

impl Power for NoPower {
    fn request(&self, _request: PowerRequest) {}
}

/// Frequency of the power management timer in Hz.
pub const PM_TIMER_HZ: u64 = 3_579_545;

/// Region of the ACPI block at PMBASE, 128 ports.
pub const REGION_PM: Region = 0;
/// Region of the APM control and status ports 0xb2 and 0xb3.
pub const REGION_APM: Region = 1;

/// Offsets in the ACPI block.
pub mod offset {
    /// PM1 status.
    pub const PM1_STS: u16 = 0x00;
    /// PM1 enable.
    pub const PM1_EN: u16 = 0x02;
    /// PM1 control.
    pub const PM1_CNT: u16 = 0x04;
    /// PM timer.
    pub const PM1_TMR: u16 = 0x08;
    /// General purpose event 0 status, 8 bytes.
    pub const GPE0_STS: u16 = 0x20;
    /// General purpose event 0 enable, 8 bytes.
    pub const GPE0_EN: u16 = 0x28;
    /// SMI control and enable.
    pub const SMI_EN: u16 = 0x30;
    /// SMI status.
    pub const SMI_STS: u16 = 0x34;
}

const TMR_STS: u16 = 1 << 0;
const GBL_STS: u16 = 1 << 5;
const PWRBTN_STS: u16 = 1 << 8;
const RTC_STS: u16 = 1 << 10;
const WAK_STS: u16 = 1 << 15;
/// Status bits that software clears by writing ones.
const STS_CLEARABLE: u16 = TMR_STS | 1 << 4 | GBL_STS | PWRBTN_STS | RTC_STS | 1 << 11 | 1 << 14 | WAK_STS;
/// Enable bits that exist: timer, global lock, power button, RTC.
const EN_WRITABLE: u16 = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS;
/// Events that wake the machine from S3, if enabled (ICH9 datasheet, 5.13.7.4).
const WAKES: u16 = PWRBTN_STS | RTC_STS;
const SCI_EN: u32 = 1;
const BM_RLD: u32 = 1 << 1;
const SLP_TYP_SHIFT: u32 = 10;
const SLP_TYP: u32 = 7 << SLP_TYP_SHIFT;
const SLP_EN: u32 = 1 << 13;
/// SLP_TYP of soft-off, as the \_S5 object of our tables says (QEMU's value as well).
pub const SLP_TYP_S5: u8 = 0;
/// SLP_TYP of suspend to RAM, as the \_S3 object says.
pub const SLP_TYP_S3: u8 = 1;
const SMI_EN_RESET: u32 = 1 << 5; // APMC_EN
const TIMER_MASK: u64 = 0xff_ffff;
/// TMR_STS is set whenever the timer's highest bit (23) changes.
const TIMER_HALF: u64 = 1 << 23;

/// The ACPI block and the APM ports.
pub struct PowerManagement {
    clock: Box<dyn Clock>,
    sci: PinBox,
    control: Box<dyn Power>,
    registers: Registers,
}

/// Saved state of [`PowerManagement`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerManagementState {
    registers: Registers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u16,
    enable: u16,
    control: u32,
    /// Timer tick (not wrapped) from which on TMR_STS is set.
    overflow_tick: u64,
    gpe0_enable: u64,
    smi_enable: u32,
    apm: [u8; 2],
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            status: 0,
            enable: 0,
            control: SCI_EN,
            overflow_tick: TIMER_HALF,
            gpe0_enable: 0,
            smi_enable: SMI_EN_RESET,
            apm: [0; 2],
        }
    }
}

impl PowerManagement {
    /// The block at power-on. `sci` is the system control interrupt (level-triggered), `control` hears of power-off.
    #[must_use]
    pub fn new(clock: Box<dyn Clock>, sci: PinBox, control: Box<dyn Power>) -> Self {
        let registers = Registers { overflow_tick: next_overflow(ticks(clock.now())), ..Registers::default() };
        Self { clock, sci, control, registers }
    }

    /// The power button is pressed: the operating system hears of it by an SCI if it enabled the event.
    pub fn press_power_button(&mut self) {
        self.registers.status |= PWRBTN_STS;
        self.update();
    }

    /// The real-time clock's interrupt request, IRQ8#, becomes `level`: RTC_STS remembers that it was asserted.
    pub fn set_rtc_interrupt(&mut self, level: bool) {
        if level {
            self.registers.status |= RTC_STS;
            self.update();
        }
    }

    /// An event that is enabled to wake the machine has happened.
    #[must_use]
    pub fn wakes(&self) -> bool {
        self.registers.status & self.registers.enable & WAKES != 0
    }

    /// The machine wakes: WAK_STS tells software. The other registers are on power that never goes.
    pub fn wake(&mut self) {
        self.registers.status |= WAK_STS;
        self.update();
    }

    /// Saves the registers.
    #[must_use]
    pub fn save(&self) -> PowerManagementState {
        let Self { clock: _, sci: _, control: _, registers } = self;
        PowerManagementState { registers: registers.clone() }
    }

    /// Restores the registers and drives the interrupt accordingly.
    pub fn restore(&mut self, state: &PowerManagementState) {
        let PowerManagementState { registers } = state;
        self.registers = registers.clone();
        self.update();
    }

    fn pm1_status(&self) -> u16 {
        let overflowed = ticks(self.clock.now()) >= self.registers.overflow_tick;
        self.registers.status | if overflowed { TMR_STS } else { 0 }
    }

    /// Drives the SCI, and sets the alarm for the next timer overflow while somebody wants to hear of it.
    fn update(&mut self) {
        let status = self.pm1_status();
        self.sci.set(status & self.registers.enable & EN_WRITABLE != 0);
        let wanted = self.registers.enable & TMR_STS != 0 && status & TMR_STS == 0;
        self.clock.set_alarm(wanted.then(|| first_nanosecond(self.registers.overflow_tick)));
    }

    fn byte(&self, offset: u16) -> u8 {
        let register = |value: u64, base: u16| (value >> (8 * (offset - base))) as u8;
        match offset {
            0x00..0x02 => register(self.pm1_status().into(), offset::PM1_STS),
            0x02..0x04 => register(self.registers.enable.into(), offset::PM1_EN),
            0x04..0x08 => register(self.registers.control.into(), offset::PM1_CNT),
            0x08..0x0c => register(ticks(self.clock.now()) & TIMER_MASK, offset::PM1_TMR),
            // Nothing here raises general purpose events: their status reads 0.
            0x28..0x30 => register(self.registers.gpe0_enable, offset::GPE0_EN),
            0x30..0x34 => register(self.registers.smi_enable.into(), offset::SMI_EN),
            _ => 0,
        }
    }

    /// Writes `size` bytes within the register that starts at `base`, merged into its value `old`.
    fn write_pm(&mut self, offset: u16, size: u8, value: u64) {
        let merge = |old: u64, base: u16, width: u16| {
            let mut bytes = old.to_le_bytes();
            for i in 0..u16::from(size) {
                let at = offset.wrapping_add(i);
                if (base..base + width).contains(&at) {
                    bytes[usize::from(at - base)] = (value >> (8 * i)) as u8;
                }
            }
            u64::from_le_bytes(bytes)
        };
        let touches = |base: u16, width: u16| offset < base + width && base < offset.saturating_add(size.into());
        if touches(offset::PM1_STS, 2) {
            let cleared = merge(0, offset::PM1_STS, 2) as u16 & STS_CLEARABLE;
            if cleared & self.pm1_status() & TMR_STS != 0 {
                self.registers.overflow_tick = next_overflow(ticks(self.clock.now()));
            }
            self.registers.status &= !cleared;
        }
        if touches(offset::PM1_EN, 2) {
            self.registers.enable = merge(self.registers.enable.into(), offset::PM1_EN, 2) as u16 & EN_WRITABLE;
        }
        if touches(offset::PM1_CNT, 4) {
            let control = merge(self.registers.control.into(), offset::PM1_CNT, 4) as u32;
            self.registers.control = control & (BM_RLD | SLP_TYP) | SCI_EN;
            if control & SLP_EN != 0 {
                match ((control & SLP_TYP) >> SLP_TYP_SHIFT) as u8 {
                    SLP_TYP_S5 => self.control.request(PowerRequest::PowerOff),
                    SLP_TYP_S3 => self.control.request(PowerRequest::SuspendToRam),
                    _ => {}
                }
            }
        }
        if touches(offset::GPE0_EN, 8) {
            self.registers.gpe0_enable = merge(self.registers.gpe0_enable, offset::GPE0_EN, 8);
        }
        if touches(offset::SMI_EN, 4) {
            self.registers.smi_enable =
                merge(self.registers.smi_enable.into(), offset::SMI_EN, 4) as u32 | SMI_EN_RESET;
        }
        self.update();
    }
}

impl Device for PowerManagement {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        (0..u64::from(size.min(8)))
            .map(|i| {
                let at = offset.wrapping_add(i);
                let byte = match region {
                    REGION_PM if at < PM_SIZE.into() => self.byte(at as u16),
                    REGION_APM if at < 2 => self.registers.apm[at as usize],
                    _ => 0xff,
                };
                u64::from(byte) << (8 * i)
            })
            .fold(0, |a, b| a | b)
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        match region {
            REGION_PM if offset < PM_SIZE.into() => self.write_pm(offset as u16, size.min(8), value),
            REGION_APM => {
                for i in 0..u64::from(size.min(8)) {
                    if let Some(byte) =
                        usize::try_from(offset.wrapping_add(i)).ok().and_then(|i| self.registers.apm.get_mut(i))
                    {
                        *byte = (value >> (8 * i)) as u8;
                    }
                }
            }
            _ => {}
        }
    }

    fn alarm(&mut self, _now: Nanoseconds) {
        self.update();
    }

    fn reset(&mut self) {
        self.registers = Registers { overflow_tick: next_overflow(ticks(self.clock.now())), ..Registers::default() };
        self.update();
    }
}

/// Ticks of the timer since power-on, not wrapped.
fn ticks(now: Nanoseconds) -> u64 {
    (u128::from(now) * u128::from(PM_TIMER_HZ) / 1_000_000_000) as u64
}

/// The first nanosecond at which [`ticks`] gives `tick`.
fn first_nanosecond(tick: u64) -> Nanoseconds {
    (u128::from(tick) * 1_000_000_000).div_ceil(u128::from(PM_TIMER_HZ)) as u64
}

/// The first tick after `tick` at which bit 23 changes.
fn next_overflow(tick: u64) -> u64 {
    (tick | (TIMER_HALF - 1)) + 1
}

/// The reset control register at port 0xcf9 (ICH9, 13.7.5).
pub struct ResetControl {
    control: Box<dyn Power>,
    value: u8,
}

/// Saved state of [`ResetControl`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetControlState {
    value: u8,
}

impl ResetControl {
    /// The register at power-on; `control` hears of resets.
    #[must_use]
    pub fn new(control: Box<dyn Power>) -> Self {
        Self { control, value: 0 }
    }

    /// Reads the register: the reset type last written.
    #[must_use]
    pub fn read(&self) -> u8 {
        self.value
    }

    /// Writes the register; bit 2 (RST_CPU) resets the machine.
    pub fn write(&mut self, value: u8) {
        self.value = value & 0x0a;
        if value & 0x04 != 0 {
            self.control.request(PowerRequest::Reset);
        }
    }

    /// Power-on reset.
    pub fn reset(&mut self) {
        self.value = 0;
    }

    /// Saves the register.
    #[must_use]
    pub fn save(&self) -> ResetControlState {
        let Self { control: _, value } = self;
        ResetControlState { value: *value }
    }

    /// Restores the register.
    pub fn restore(&mut self, state: &ResetControlState) {
        let ResetControlState { value } = state;
        self.value = *value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::ports::Pin;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Board(Arc<Mutex<BoardState>>);

    #[derive(Default)]
    struct BoardState {
        now: Nanoseconds,
        alarm: Option<Nanoseconds>,
        sci: bool,
        requests: Vec<PowerRequest>,
    }

    impl Clock for Board {
        fn now(&self) -> Nanoseconds {
            self.0.lock().unwrap().now
        }
        fn set_alarm(&self, deadline: Option<Nanoseconds>) {
            self.0.lock().unwrap().alarm = deadline;
        }
    }
    impl Pin for Board {
        fn set(&self, level: bool) {
            self.0.lock().unwrap().sci = level;
        }
    }
    impl Power for Board {
        fn request(&self, request: PowerRequest) {
            self.0.lock().unwrap().requests.push(request);
        }
    }

    fn block() -> (Board, PowerManagement) {
        let board = Board::default();
        let pm = PowerManagement::new(Box::new(board.clone()), Box::new(board.clone()), Box::new(board.clone()));
        (board, pm)
    }

    #[test]
    fn timer_counts_24_bits_at_3_579545_mhz() {
        let (board, mut pm) = block();
        board.0.lock().unwrap().now = 1_000_000_000;
        assert_eq!(pm.read(REGION_PM, 8, 4), PM_TIMER_HZ);
        board.0.lock().unwrap().now = 10_000_000_000;
        assert_eq!(pm.read(REGION_PM, 8, 4), (PM_TIMER_HZ * 10) & 0xff_ffff);
    }

    #[test]
    fn timer_overflow_interrupts_when_bit_23_changes_and_only_then() {
        let (board, mut pm) = block();
        pm.write(REGION_PM, 2, 2, 1);
        let deadline = board.0.lock().unwrap().alarm.unwrap();
        board.0.lock().unwrap().now = deadline - 1;
        assert_eq!(pm.read(REGION_PM, 0, 2) & 1, 0);
        board.0.lock().unwrap().now = deadline;
        pm.alarm(deadline);
        assert!(board.0.lock().unwrap().sci);
        assert_eq!(pm.read(REGION_PM, 8, 4), 0x80_0000);
        pm.write(REGION_PM, 0, 2, 1);
        assert!(!board.0.lock().unwrap().sci);
        assert_eq!(board.0.lock().unwrap().alarm, Some(first_nanosecond(0x100_0000)));
    }

    #[test]
    fn sleep_type_5_with_sleep_enable_powers_off() {
        let (board, mut pm) = block();
        pm.write(REGION_PM, 4, 2, 0x0800 | 0x2000);
        assert!(board.0.lock().unwrap().requests.is_empty(), "another sleep type");
        pm.write(REGION_PM, 4, 2, 0);
        pm.write(REGION_PM, 5, 1, 0x20);
        assert_eq!(board.0.lock().unwrap().requests, [PowerRequest::PowerOff]);
        assert_eq!(pm.read(REGION_PM, 4, 2), 1, "SLP_EN reads 0, SCI_EN 1");
    }

    #[test]
    fn sleep_type_1_suspends_and_only_what_is_enabled_wakes() {
        let (board, mut pm) = block();
        pm.write(REGION_PM, 4, 2, 0x0400);
        assert!(board.0.lock().unwrap().requests.is_empty(), "without SLP_EN");
        pm.write(REGION_PM, 4, 2, 0x2400);
        assert_eq!(board.0.lock().unwrap().requests, [PowerRequest::SuspendToRam]);
        pm.set_rtc_interrupt(true);
        assert!(!pm.wakes(), "RTC_EN is 0");
        pm.write(REGION_PM, 2, 2, 0x0400);
        assert!(pm.wakes());
        pm.set_rtc_interrupt(false);
        pm.wake();
        assert_eq!(pm.read(REGION_PM, 0, 2), 0x8400, "WAK_STS, and RTC_STS until it is cleared");
        pm.write(REGION_PM, 0, 2, 0x8400);
        assert_eq!((pm.read(REGION_PM, 0, 2), pm.wakes()), (0, false));
    }

    #[test]
    fn power_button_raises_the_sci_if_enabled() {
        let (board, mut pm) = block();
        pm.press_power_button();
        assert!(!board.0.lock().unwrap().sci);
        pm.write(REGION_PM, 0, 4, 0x0100_0000);
        assert!(board.0.lock().unwrap().sci);
        pm.write(REGION_PM, 0, 4, 0x0100_0100);
        assert!(!board.0.lock().unwrap().sci);
    }

    #[test]
    fn smi_of_the_apm_port_reads_as_set_up_from_reset_on() {
        let (_, mut pm) = block();
        assert_eq!(pm.read(REGION_PM, 0x30, 4), 0x20);
        pm.write(REGION_APM, 0, 2, 0x1234);
        assert_eq!(pm.read(REGION_APM, 1, 1), 0x12);
    }

    #[test]
    fn any_access_is_harmless() {
        let (_, mut pm) = block();
        for region in 0..3 {
            for offset in (0..256).chain([u64::MAX - 3, u64::MAX]) {
                for size in [1, 2, 4, 8] {
                    pm.write(region, offset, size, u64::MAX);
                    pm.read(region, offset, size);
                }
            }
        }
    }

    #[test]
    fn reset_control_resets_on_bit_2() {
        let board = Board::default();
        let mut register = ResetControl::new(Box::new(board.clone()));
        register.write(0x02);
        assert!(board.0.lock().unwrap().requests.is_empty());
        register.write(0x06);
        assert_eq!(board.0.lock().unwrap().requests, [PowerRequest::Reset]);
        assert_eq!(register.read(), 0x02);
    }
}
