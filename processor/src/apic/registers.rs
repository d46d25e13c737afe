//! The registers, as memory (xAPIC) and as MSRs (x2APIC): SDM vol. 3, tables 11-1 and 11-6.

use super::lvt::{self, LocalSource};
use super::message::InterruptMessage;
use super::timer::Moment;
use super::{Acceptance, Effect, LocalApic, Mode, Rejected};
use spec::apic::local_apic::{DeliveryMode, Esr, Icr, Lvt, Shorthand, Svr, TimerMode, Version, offset};
use spec::x86::msr::{X2APIC_FIRST, X2APIC_LAST};

/// The last of the eight in-service registers.
const ISR_LAST: u16 = offset::ISR + 0x70;
/// The last trigger-mode register.
const TMR_LAST: u16 = offset::TMR + 0x70;
/// The last interrupt-request register.
const IRR_LAST: u16 = offset::IRR + 0x70;

/// An integrated APIC with seven LVT entries that can suppress EOI broadcasts.
const VERSION: u32 = 0x15 | 6 << 16 | Version::EOI_BROADCAST_SUPPRESSION;

/// Bits of the spurious-interrupt vector register that can be written: bit 9 (focus checking) went with the Pentium 4.
const SPURIOUS_WRITABLE: u32 = 0xff | Svr::ENABLE | Svr::EOI_BROADCAST_SUPPRESS;

/// Bits of the interrupt command register's low half that can be written: vector, delivery mode, destination mode, level, trigger mode,
/// shorthand.
const COMMAND_WRITABLE: u32 = 0xfff | 3 << 14 | 3 << 18;
/// Those that need not be 0 in x2APIC mode: the delivery status is ignored there, as Intel's processors do.
pub(crate) const X2APIC_COMMAND_ACCEPTED: u32 = COMMAND_WRITABLE | Icr::DELIVERY_STATUS as u32;

fn lvt_source(register: u16) -> Option<LocalSource> {
    Some(match register {
        offset::LVT_CMCI => LocalSource::Cmci,
        offset::LVT_TIMER => LocalSource::Timer,
        offset::LVT_THERMAL => LocalSource::Thermal,
        offset::LVT_PMI => LocalSource::Performance,
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
        let value = self.read_register((address & 0xff0) as u16, at).unwrap_or_else(|| {
            self.record_error(Esr::ILLEGAL_REGISTER);
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
        match (address & 0xff0) as u16 {
            offset::ID => self.id = (value >> 24) as u8,
            offset::LDR => self.logical_destination = value & 0xff00_0000,
            offset::DFR => self.destination_format = value | 0x0fff_ffff,
            offset::ICR_LOW => {
                self.command = self.command & !0xffff_ffff | u64::from(value & COMMAND_WRITABLE);
                return self.send(InterruptMessage::widen((self.command >> 56) as u8));
            }
            offset::ICR_HIGH => {
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
        if self.mode() != Mode::X2Apic || !(X2APIC_FIRST..=X2APIC_LAST).contains(&msr) {
            return Err(Rejected);
        }
        match ((msr - X2APIC_FIRST) << 4) as u16 {
            offset::ICR_LOW => Ok(self.command),
            offset::APR | offset::RRD | offset::EOI | offset::DFR | offset::ICR_HIGH => Err(Rejected),
            register => self.read_register(register, at).map(u64::from).ok_or(Rejected),
        }
    }

    /// WRMSR of an x2APIC register.
    ///
    /// # Errors
    /// Not in x2APIC mode, no such register, a read-only one, or a reserved bit set.
    pub fn write_msr(&mut self, msr: u32, value: u64, at: Moment) -> Result<Option<Effect>, Rejected> {
        if self.mode() != Mode::X2Apic || !(X2APIC_FIRST..=X2APIC_LAST).contains(&msr) {
            return Err(Rejected);
        }
        let register = ((msr - X2APIC_FIRST) << 4) as u16;
        if register == offset::ICR_LOW {
            if value as u32 & !X2APIC_COMMAND_ACCEPTED != 0 {
                return Err(Rejected);
            }
            self.command = value & !Icr::DELIVERY_STATUS;
            return Ok(self.send((value >> 32) as u32));
        }
        let writable = match register {
            offset::TPR | offset::SELF_IPI => 0xff,
            offset::EOI | offset::ESR => 0,
            offset::SVR => SPURIOUS_WRITABLE,
            offset::TIMER_INITIAL => u32::MAX,
            offset::TIMER_DIVIDE => 0xb,
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
    fn read_register(&mut self, register: u16, at: Moment) -> Option<u32> {
        let index = u32::from(register >> 4);
        Some(match register {
            offset::ID if self.mode() == Mode::X2Apic => self.x2apic_id(),
            offset::ID => self.xapic_id() << 24,
            offset::VERSION => VERSION,
            offset::TPR => u32::from(self.task_priority),
            offset::PPR => u32::from(self.processor_priority()),
            offset::APR | offset::EOI | offset::RRD => 0,
            offset::LDR => self.logical_destination,
            offset::DFR => self.destination_format,
            offset::SVR => self.spurious,
            offset::ISR..=ISR_LAST => self.in_service.register(index),
            offset::TMR..=TMR_LAST => self.trigger_mode.register(index),
            offset::IRR..=IRR_LAST => {
                self.advance(at);
                self.requested.register(index)
            }
            offset::ESR => self.error_status,
            offset::ICR_LOW => self.command as u32,
            offset::ICR_HIGH => (self.command >> 32) as u32,
            offset::TIMER_INITIAL if self.timer_mode() == TimerMode::TscDeadline => 0,
            offset::TIMER_INITIAL => self.timer.initial(),
            offset::TIMER_CURRENT => {
                self.advance(at);
                match self.timer_mode() {
                    TimerMode::OneShot | TimerMode::Periodic => self.timer.current(at),
                    TimerMode::TscDeadline | TimerMode::Reserved => 0,
                }
            }
            offset::TIMER_DIVIDE => self.timer.divide(),
            _ => self.lvt[lvt_source(register)? as usize],
        })
    }

    /// Writes a register that both modes have alike; others are read-only or do not exist.
    fn write_common(&mut self, register: u16, value: u32, at: Moment) -> Option<Effect> {
        match register {
            offset::TPR => self.task_priority = value as u8,
            offset::EOI => return self.end_of_interrupt(),
            offset::SVR => {
                self.advance(at);
                self.spurious = value & SPURIOUS_WRITABLE;
                if self.spurious & Svr::ENABLE == 0 {
                    for source in LocalSource::ALL {
                        self.lvt[source as usize] |= Lvt::MASKED;
                    }
                }
            }
            offset::ESR => {
                self.error_status = self.error_pending;
                self.error_pending = 0;
            }
            offset::TIMER_INITIAL => {
                self.advance(at);
                if self.timer_mode() != TimerMode::TscDeadline {
                    self.timer.set_initial(value, at);
                }
            }
            offset::TIMER_DIVIDE => {
                self.advance(at);
                self.timer.set_divide(value, at);
            }
            offset::ID
            | offset::VERSION
            | offset::APR
            | offset::PPR
            | offset::RRD
            | offset::TIMER_CURRENT
            | offset::ISR..=IRR_LAST => {}
            _ => match lvt_source(register) {
                Some(source) => self.write_lvt(source, value, at),
                None => self.record_error(Esr::ILLEGAL_REGISTER),
            },
        }
        None
    }

    fn write_lvt(&mut self, source: LocalSource, value: u32, at: Moment) {
        if source == LocalSource::Timer {
            self.advance(at);
            let (old, new) = (self.timer_mode(), TimerMode::of(value));
            if old != new && (old == TimerMode::TscDeadline || new == TimerMode::TscDeadline) {
                self.timer.disarm();
            }
        }
        let kept = self.lvt[source as usize] & lvt::READ_ONLY;
        let forced = if self.is_software_enabled() { 0 } else { Lvt::MASKED };
        self.lvt[source as usize] = value & source.writable() | kept | forced;
        self.sample_level_pins();
    }

    /// Sends what the interrupt command register says. A fixed interrupt to the sender alone stays inside.
    fn send(&mut self, destination: u32) -> Option<Effect> {
        let command = self.command as u32;
        let delivery = DeliveryMode::of(command);
        let vector = command as u8;
        let shorthand = Shorthand::of(command);
        match delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if vector < 16 => {
                self.record_error(Esr::SEND_ILLEGAL_VECTOR);
                return None;
            }
            // The level de-assert that once synchronised arbitration ids does nothing since the Pentium 4.
            DeliveryMode::Init if u64::from(command) & (Icr::LEVEL | Icr::ASSERT) == Icr::LEVEL => return None,
            // Only I/O APICs and LINT pins can send it.
            DeliveryMode::ExtInt | DeliveryMode::Reserved3 => return None,
            _ => {}
        }
        if shorthand == Shorthand::Itself && delivery == DeliveryMode::Fixed {
            let delivered = self.deliver(delivery, vector, false);
            debug_assert!(matches!(delivered, Acceptance::Recorded | Acceptance::Ignored));
            return None;
        }
        Some(Effect::Send(InterruptMessage {
            destination,
            logical: u64::from(command) & Icr::LOGICAL != 0,
            delivery,
            vector,
            level_triggered: false,
            shorthand,
        }))
    }
}
