//! The registers, as memory (xAPIC) and as MSRs (x2APIC): SDM vol. 3, tables 11-1 and 11-6.

use super::lvt::{self, LocalSource, MASKED};
use super::message::{DeliveryMode, InterruptMessage, Shorthand};
use super::timer::{Moment, TimerMode};
use super::{Acceptance, Effect, LocalApic, Mode, Rejected, SVR_ENABLE, SVR_SUPPRESS_EOI, error};

/// Register offsets in the xAPIC page; an x2APIC register is MSR 0x800 + offset / 16.
pub mod offset {
    /// Local APIC id.
    pub const ID: u32 = 0x20;
    /// Version.
    pub const VERSION: u32 = 0x30;
    /// Task priority.
    pub const TASK_PRIORITY: u32 = 0x80;
    /// Arbitration priority.
    pub const ARBITRATION_PRIORITY: u32 = 0x90;
    /// Processor priority.
    pub const PROCESSOR_PRIORITY: u32 = 0xa0;
    /// End of interrupt.
    pub const EOI: u32 = 0xb0;
    /// Remote read.
    pub const REMOTE_READ: u32 = 0xc0;
    /// Logical destination.
    pub const LOGICAL_DESTINATION: u32 = 0xd0;
    /// Destination format.
    pub const DESTINATION_FORMAT: u32 = 0xe0;
    /// Spurious-interrupt vector.
    pub const SPURIOUS: u32 = 0xf0;
    /// In-service registers, the first of eight.
    pub const IN_SERVICE: u32 = 0x100;
    /// The last in-service register.
    pub const IN_SERVICE_LAST: u32 = 0x170;
    /// Trigger-mode registers.
    pub const TRIGGER_MODE: u32 = 0x180;
    /// The last trigger-mode register.
    pub const TRIGGER_MODE_LAST: u32 = 0x1f0;
    /// Interrupt-request registers.
    pub const REQUEST: u32 = 0x200;
    /// The last interrupt-request register.
    pub const REQUEST_LAST: u32 = 0x270;
    /// Error status.
    pub const ERROR_STATUS: u32 = 0x280;
    /// LVT: corrected machine-check errors.
    pub const LVT_CMCI: u32 = 0x2f0;
    /// Interrupt command, low half; the whole in x2APIC mode.
    pub const COMMAND: u32 = 0x300;
    /// Interrupt command, high half.
    pub const COMMAND_HIGH: u32 = 0x310;
    /// LVT: timer.
    pub const LVT_TIMER: u32 = 0x320;
    /// LVT: thermal sensor.
    pub const LVT_THERMAL: u32 = 0x330;
    /// LVT: performance counters.
    pub const LVT_PERFORMANCE: u32 = 0x340;
    /// LVT: LINT0.
    pub const LVT_LINT0: u32 = 0x350;
    /// LVT: LINT1.
    pub const LVT_LINT1: u32 = 0x360;
    /// LVT: error.
    pub const LVT_ERROR: u32 = 0x370;
    /// Timer initial count.
    pub const INITIAL_COUNT: u32 = 0x380;
    /// Timer current count.
    pub const CURRENT_COUNT: u32 = 0x390;
    /// Timer divide configuration.
    pub const DIVIDE: u32 = 0x3e0;
    /// Self IPI, x2APIC mode only.
    pub const SELF_IPI: u32 = 0x3f0;
}

/// First MSR of the x2APIC range.
pub const X2APIC_FIRST_MSR: u32 = 0x800;
/// Last MSR of the x2APIC range.
pub const X2APIC_LAST_MSR: u32 = 0x8ff;

/// An integrated APIC with seven LVT entries that can suppress EOI broadcasts.
const VERSION: u32 = 0x15 | 6 << 16 | 1 << 24;

/// Bits of the spurious-interrupt vector register that can be written: bit 9 (focus checking) went with the Pentium 4.
const SPURIOUS_WRITABLE: u32 = 0xff | SVR_ENABLE | SVR_SUPPRESS_EOI;

/// Vector, delivery mode, destination mode, level, trigger mode, shorthand.
const COMMAND_WRITABLE: u32 = 0xfff | 3 << 14 | 3 << 18;

fn lvt_source(register: u32) -> Option<LocalSource> {
    Some(match register {
        offset::LVT_CMCI => LocalSource::Cmci,
        offset::LVT_TIMER => LocalSource::Timer,
        offset::LVT_THERMAL => LocalSource::Thermal,
        offset::LVT_PERFORMANCE => LocalSource::Performance,
        offset::LVT_LINT0 => LocalSource::Lint0,
        offset::LVT_LINT1 => LocalSource::Lint1,
        offset::LVT_ERROR => LocalSource::Error,
        _ => return None,
    })
}

impl LocalApic {
    /// A read of `size` bytes (1, 2, 4 or 8) at `address` in the register page. The caller has checked
    /// [`LocalApic::page`]. Only aligned 32-bit reads are architectural; others give the bytes of the registers they touch.
    pub fn read(&mut self, address: u32, size: u8, at: Moment) -> u64 {
        let low = address & 0xf;
        if low >= 4 {
            return 0;
        }
        let value = self.read_register(address & 0xff0, at).unwrap_or_else(|| {
            self.record_error(error::ILLEGAL_REGISTER);
            0
        });
        let bits = 8 * u32::from(size.clamp(1, 4));
        u64::from(value >> (low * 8)) & ((1u64 << bits) - 1)
    }

    /// A write of `size` bytes at `address` in the register page. Writes that are not aligned 32-bit ones (or the low half of
    /// a 64-bit one) do nothing.
    pub fn write(&mut self, address: u32, size: u8, value: u64, at: Moment) -> Option<Effect> {
        if address & 0xf != 0 || size < 4 {
            return None;
        }
        let value = value as u32;
        match address & 0xff0 {
            offset::ID => self.id = (value >> 24) as u8,
            offset::LOGICAL_DESTINATION => self.logical_destination = value & 0xff00_0000,
            offset::DESTINATION_FORMAT => self.destination_format = value | 0x0fff_ffff,
            offset::COMMAND => {
                self.command = self.command & !0xffff_ffff | u64::from(value & COMMAND_WRITABLE);
                return self.send(InterruptMessage::widen((self.command >> 56) as u8));
            }
            offset::COMMAND_HIGH => {
                self.command = self.command & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            register => return self.write_common(register, value, at),
        }
        None
    }

    /// RDMSR of an x2APIC register.
    ///
    /// # Errors
    /// Not in x2APIC mode, no such register, or a write-only one.
    pub fn read_msr(&mut self, msr: u32, at: Moment) -> Result<u64, Rejected> {
        if self.mode() != Mode::X2Apic || !(X2APIC_FIRST_MSR..=X2APIC_LAST_MSR).contains(&msr) {
            return Err(Rejected);
        }
        match (msr - X2APIC_FIRST_MSR) << 4 {
            offset::COMMAND => Ok(self.command),
            offset::ARBITRATION_PRIORITY
            | offset::REMOTE_READ
            | offset::EOI
            | offset::DESTINATION_FORMAT
            | offset::COMMAND_HIGH => Err(Rejected),
            register => self.read_register(register, at).map(u64::from).ok_or(Rejected),
        }
    }

    /// WRMSR of an x2APIC register.
    ///
    /// # Errors
    /// Not in x2APIC mode, no such register, a read-only one, or a reserved bit set.
    pub fn write_msr(&mut self, msr: u32, value: u64, at: Moment) -> Result<Option<Effect>, Rejected> {
        if self.mode() != Mode::X2Apic || !(X2APIC_FIRST_MSR..=X2APIC_LAST_MSR).contains(&msr) {
            return Err(Rejected);
        }
        let register = (msr - X2APIC_FIRST_MSR) << 4;
        if register == offset::COMMAND {
            if value as u32 & !COMMAND_WRITABLE != 0 {
                return Err(Rejected);
            }
            self.command = value;
            return Ok(self.send((value >> 32) as u32));
        }
        let writable = match register {
            offset::TASK_PRIORITY | offset::SELF_IPI => 0xff,
            offset::EOI | offset::ERROR_STATUS => 0,
            offset::SPURIOUS => SPURIOUS_WRITABLE,
            offset::INITIAL_COUNT => u32::MAX,
            offset::DIVIDE => 0xb,
            _ => lvt_source(register).ok_or(Rejected)?.writable() | lvt::READ_ONLY,
        };
        if value & !u64::from(writable) != 0 {
            return Err(Rejected);
        }
        if register == offset::SELF_IPI {
            self.deliver(DeliveryMode::Fixed, value as u8, false);
            return Ok(None);
        }
        Ok(self.write_common(register, value as u32, at))
    }

    /// `None`: no such register.
    fn read_register(&mut self, register: u32, at: Moment) -> Option<u32> {
        let index = register >> 4;
        Some(match register {
            offset::ID if self.mode() == Mode::X2Apic => self.x2apic_id(),
            offset::ID => self.xapic_id() << 24,
            offset::VERSION => VERSION,
            offset::TASK_PRIORITY => u32::from(self.task_priority),
            offset::PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            offset::ARBITRATION_PRIORITY | offset::EOI | offset::REMOTE_READ => 0,
            offset::LOGICAL_DESTINATION => self.logical_destination,
            offset::DESTINATION_FORMAT => self.destination_format,
            offset::SPURIOUS => self.spurious,
            offset::IN_SERVICE..=offset::IN_SERVICE_LAST => self.in_service.register(index),
            offset::TRIGGER_MODE..=offset::TRIGGER_MODE_LAST => self.trigger_mode.register(index),
            offset::REQUEST..=offset::REQUEST_LAST => {
                self.advance(at);
                self.requested.register(index)
            }
            offset::ERROR_STATUS => self.error_status,
            offset::COMMAND => self.command as u32,
            offset::COMMAND_HIGH => (self.command >> 32) as u32,
            offset::INITIAL_COUNT if self.timer_mode() == TimerMode::TscDeadline => 0,
            offset::INITIAL_COUNT => self.timer.initial(),
            offset::CURRENT_COUNT => {
                self.advance(at);
                match self.timer_mode() {
                    TimerMode::OneShot | TimerMode::Periodic => self.timer.current(at),
                    TimerMode::TscDeadline | TimerMode::Reserved => 0,
                }
            }
            offset::DIVIDE => self.timer.divide(),
            _ => self.lvt[lvt_source(register)? as usize],
        })
    }

    /// Writes a register that both modes have alike; others are read-only or do not exist.
    fn write_common(&mut self, register: u32, value: u32, at: Moment) -> Option<Effect> {
        match register {
            offset::TASK_PRIORITY => self.task_priority = value as u8,
            offset::EOI => return self.end_of_interrupt(),
            offset::SPURIOUS => {
                self.advance(at);
                self.spurious = value & SPURIOUS_WRITABLE;
                if self.spurious & SVR_ENABLE == 0 {
                    for source in LocalSource::ALL {
                        self.lvt[source as usize] |= MASKED;
                    }
                }
            }
            offset::ERROR_STATUS => {
                self.error_status = self.error_pending;
                self.error_pending = 0;
            }
            offset::INITIAL_COUNT => {
                self.advance(at);
                if self.timer_mode() != TimerMode::TscDeadline {
                    self.timer.set_initial(value, at);
                }
            }
            offset::DIVIDE => {
                self.advance(at);
                self.timer.set_divide(value, at);
            }
            offset::ID
            | offset::VERSION
            | offset::ARBITRATION_PRIORITY
            | offset::PROCESSOR_PRIORITY
            | offset::REMOTE_READ
            | offset::CURRENT_COUNT
            | offset::IN_SERVICE..=offset::REQUEST_LAST => {}
            _ => match lvt_source(register) {
                Some(source) => self.write_lvt(source, value, at),
                None => self.record_error(error::ILLEGAL_REGISTER),
            },
        }
        None
    }

    fn write_lvt(&mut self, source: LocalSource, value: u32, at: Moment) {
        if source == LocalSource::Timer {
            self.advance(at);
            let (old, new) = (self.timer_mode(), TimerMode::of_entry(value));
            if old != new && (old == TimerMode::TscDeadline || new == TimerMode::TscDeadline) {
                self.timer.disarm();
            }
        }
        let kept = self.lvt[source as usize] & lvt::READ_ONLY;
        let forced = if self.is_software_enabled() { 0 } else { MASKED };
        self.lvt[source as usize] = value & source.writable() | kept | forced;
        self.sample_level_pins();
    }

    /// Sends what the interrupt command register says. A fixed interrupt to the sender alone stays inside.
    fn send(&mut self, destination: u32) -> Option<Effect> {
        let command = self.command as u32;
        let delivery = DeliveryMode::from_bits(command >> 8)?;
        let vector = command as u8;
        let shorthand = Shorthand::from_bits(command >> 18);
        match delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if vector < 16 => {
                self.record_error(error::SEND_ILLEGAL_VECTOR);
                return None;
            }
            // The level de-assert that once synchronised arbitration ids does nothing since the Pentium 4.
            DeliveryMode::Init if command & (1 << 15 | 1 << 14) == 1 << 15 => return None,
            // Only I/O APICs and LINT pins can send it.
            DeliveryMode::ExtInt => return None,
            _ => {}
        }
        if shorthand == Shorthand::Myself && delivery == DeliveryMode::Fixed {
            let delivered = self.deliver(delivery, vector, false);
            debug_assert!(matches!(delivered, Acceptance::Recorded | Acceptance::Ignored));
            return None;
        }
        Some(Effect::Send(InterruptMessage {
            destination,
            logical: command & 1 << 11 != 0,
            delivery,
            vector,
            level_triggered: false,
            shorthand,
        }))
    }
}
