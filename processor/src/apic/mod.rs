//! The local APIC (SDM vol. 3, chapter 11), in xAPIC and x2APIC mode.
//!
//! It is a register file over plain values. It knows no other APIC and no bus: what leaves it is returned as an
//! [`Effect`] and carried by the board; what arrives is given to [`LocalApic::accept`]. It has no clock either: calls that
//! depend on time take a [`Moment`], and the board learns from [`LocalApic::next_deadline`] when to call
//! [`LocalApic::advance`].

mod lvt;
mod message;
mod registers;
mod routing;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use lvt::LocalSource;
pub use message::{BROADCAST, InterruptMessage};
pub(crate) use registers::X2APIC_COMMAND_ACCEPTED;
pub use routing::{Address, targets};
pub use spec::apic::local_apic::{DeliveryMode, Shorthand};
pub use timer::Moment;
pub use vectors::VectorSet;

use serde::{Deserialize, Serialize};
use spec::apic::local_apic::{Esr, Lvt, Svr, TimerMode, x2apic_logical_id};
use spec::x86::msr::ApicBase;
use timer::Timer;

/// The operating mode, from bits 11:10 of IA32_APIC_BASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Globally disabled: the LINT pins are INTR and NMI, nothing else works.
    Disabled,
    /// Registers in memory, 8-bit destinations.
    XApic,
    /// Registers as MSRs, 32-bit destinations.
    X2Apic,
}

/// What a register write asks of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Give this message to [`targets`]; the sender may be among them.
    Send(InterruptMessage),
    /// Tell the I/O APICs that the level-triggered interrupt of this vector is over.
    BroadcastEoi(u8),
}

/// What the processor has to do about something its APIC was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Nothing beyond looking at [`LocalApic::pending`] again.
    Recorded,
    /// The message was refused: disabled, illegal vector, reserved mode.
    Ignored,
    /// Non-maskable interrupt.
    Nmi,
    /// System-management interrupt.
    Smi,
    /// INIT.
    Init,
    /// Start-up at page `vector`; the processor ignores it unless it waits for one.
    StartUp(u8),
}

/// The interrupt that would be delivered if the processor accepted one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The 8259 has the vector: acknowledge there.
    External,
    /// This vector: [`LocalApic::acknowledge`].
    Vector(u8),
}

/// A register access that raises #GP(0): x2APIC MSRs and IA32_APIC_BASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

/// A local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic {
    initial_id: u32,
    base: u64,
    id: u8,
    task_priority: u8,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    in_service: VectorSet,
    trigger_mode: VectorSet,
    requested: VectorSet,
    error_status: u32,
    error_pending: u32,
    command: u64,
    lvt: [u32; 7],
    timer: Timer,
    pins: [bool; 2],
    ext_int_latched: bool,
}

/// Saved state of a [`LocalApic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApicState {
    initial_id: u32,
    base: u64,
    id: u8,
    task_priority: u8,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    in_service: VectorSet,
    trigger_mode: VectorSet,
    requested: VectorSet,
    error_status: u32,
    error_pending: u32,
    command: u64,
    lvt: [u32; 7],
    timer: Timer,
    pins: [bool; 2],
    ext_int_latched: bool,
}

impl LocalApic {
    /// An APIC as power-up leaves it. `id` is the initial APIC id, which CPUID reports too.
    #[must_use]
    pub fn new(id: u32, bootstrap: bool) -> Self {
        Self {
            initial_id: id,
            base: ApicBase::DEFAULT_ADDRESS | ApicBase::ENABLE | if bootstrap { ApicBase::BSP } else { 0 },
            id: id as u8,
            task_priority: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: Svr::RESET,
            in_service: VectorSet::default(),
            trigger_mode: VectorSet::default(),
            requested: VectorSet::default(),
            error_status: 0,
            error_pending: 0,
            command: 0,
            lvt: [Lvt::RESET; 7],
            timer: Timer::RESET,
            pins: [false; 2],
            ext_int_latched: false,
        }
    }

    /// INIT: registers as after power-up, but for the APIC id, IA32_APIC_BASE and the pins (SDM vol. 3, 11.4.7.3).
    pub fn init(&mut self) {
        let fresh = Self::new(self.initial_id, false);
        *self = Self { base: self.base, id: self.id, pins: self.pins, ..fresh };
    }

    /// The wiring that a PC's firmware leaves on the bootstrap processor: enabled, LINT0 the 8259, LINT1 NMI. For
    /// boards that start a kernel without firmware.
    pub fn set_virtual_wire(&mut self) {
        self.spurious = Svr::ENABLE | 0xff;
        self.lvt[LocalSource::Lint0 as usize] = (DeliveryMode::ExtInt as u32) << 8;
        self.lvt[LocalSource::Lint1 as usize] = (DeliveryMode::Nmi as u32) << 8;
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> LocalApicState {
        let Self {
            initial_id,
            base,
            id,
            task_priority,
            logical_destination,
            destination_format,
            spurious,
            in_service,
            trigger_mode,
            requested,
            error_status,
            error_pending,
            command,
            lvt,
            timer,
            pins,
            ext_int_latched,
        } = self.clone();
        LocalApicState {
            initial_id,
            base,
            id,
            task_priority,
            logical_destination,
            destination_format,
            spurious,
            in_service,
            trigger_mode,
            requested,
            error_status,
            error_pending,
            command,
            lvt,
            timer,
            pins,
            ext_int_latched,
        }
    }

    /// An APIC in the state saved.
    #[must_use]
    pub fn restore(state: &LocalApicState) -> Self {
        let LocalApicState {
            initial_id,
            base,
            id,
            task_priority,
            logical_destination,
            destination_format,
            spurious,
            in_service,
            trigger_mode,
            requested,
            error_status,
            error_pending,
            command,
            lvt,
            timer,
            pins,
            ext_int_latched,
        } = state.clone();
        Self {
            initial_id,
            base,
            id,
            task_priority,
            logical_destination,
            destination_format,
            spurious,
            in_service,
            trigger_mode,
            requested,
            error_status,
            error_pending,
            command,
            lvt,
            timer,
            pins,
            ext_int_latched,
        }
    }

    /// IA32_APIC_BASE.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. Disabling the APIC resets it. `physical_bits` is MAXPHYADDR.
    ///
    /// # Errors
    /// Reserved bits, and the mode changes that SDM vol. 3, 11.12.5 forbids.
    pub fn set_base(&mut self, value: u64, physical_bits: u8, x2apic_supported: bool) -> Result<(), Rejected> {
        let x2apic = if x2apic_supported { ApicBase::X2APIC } else { 0 };
        let address = ((1u64 << physical_bits.clamp(32, 52)) - 1) & !0xfff;
        if value & !(address | ApicBase::BSP | ApicBase::ENABLE | x2apic) != 0 {
            return Err(Rejected);
        }
        let new = Self::mode_of(value);
        match (self.mode(), new) {
            _ if value & ApicBase::ENABLE == 0 && value & ApicBase::X2APIC != 0 => return Err(Rejected),
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => return Err(Rejected),
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => {
                self.init();
                self.id = self.initial_id as u8;
            }
            (Mode::XApic, Mode::X2Apic) => {
                self.logical_destination = x2apic_logical_id(self.initial_id);
                self.command &= 0xffff_ffff;
            }
            _ => {}
        }
        self.base = value;
        Ok(())
    }

    const fn mode_of(base: u64) -> Mode {
        match (base & ApicBase::ENABLE != 0, base & ApicBase::X2APIC != 0) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
        }
    }

    /// The operating mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Self::mode_of(self.base)
    }

    /// The physical page where the registers are; `None` unless in xAPIC mode.
    #[must_use]
    pub fn page(&self) -> Option<u64> {
        (self.mode() == Mode::XApic).then_some(self.base & !0xfff)
    }

    /// Whether this is the bootstrap processor.
    #[must_use]
    pub fn is_bootstrap(&self) -> bool {
        self.base & ApicBase::BSP != 0
    }

    /// Whether the APIC is enabled in the spurious-interrupt vector register too.
    #[must_use]
    pub fn is_software_enabled(&self) -> bool {
        self.mode() != Mode::Disabled && self.spurious & Svr::ENABLE != 0
    }

    /// The 32-bit id of x2APIC mode, the same as the initial id.
    #[must_use]
    pub fn x2apic_id(&self) -> u32 {
        self.initial_id
    }

    fn xapic_id(&self) -> u32 {
        u32::from(self.id)
    }

    fn logical_destination(&self) -> u32 {
        self.logical_destination
    }

    fn is_flat(&self) -> bool {
        self.destination_format >> 28 == 0xf
    }

    /// Task priority, the whole register; CR8 is its bits 7:4.
    #[must_use]
    pub fn task_priority(&self) -> u8 {
        self.task_priority
    }

    /// Sets the task priority. MOV to CR8 gives its operand shifted left by four.
    pub fn set_task_priority(&mut self, value: u8) {
        self.task_priority = value;
    }

    /// Processor priority: the task priority, or the class of the highest interrupt in service (SDM vol. 3, 11.8.3.1).
    #[must_use]
    pub fn processor_priority(&self) -> u8 {
        let in_service = self.in_service.highest().unwrap_or(0) & 0xf0;
        if self.task_priority & 0xf0 >= in_service { self.task_priority } else { in_service }
    }

    /// Whether `vector` is requested and not yet taken.
    #[must_use]
    pub fn is_requested(&self, vector: u8) -> bool {
        self.requested.contains(vector)
    }

    /// Takes a message addressed to this APIC.
    pub fn accept(&mut self, message: &InterruptMessage) -> Acceptance {
        if self.mode() == Mode::Disabled {
            return Acceptance::Ignored;
        }
        self.deliver(message.delivery, message.vector, message.level_triggered)
    }

    fn deliver(&mut self, delivery: DeliveryMode, vector: u8, level_triggered: bool) -> Acceptance {
        match delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if !self.is_software_enabled() {
                    return Acceptance::Ignored;
                }
                if vector < 16 {
                    self.record_error(Esr::RECEIVE_ILLEGAL_VECTOR);
                    return Acceptance::Ignored;
                }
                self.requested.insert(vector);
                if level_triggered {
                    self.trigger_mode.insert(vector);
                } else {
                    self.trigger_mode.remove(vector);
                }
                Acceptance::Recorded
            }
            DeliveryMode::Reserved3 => Acceptance::Ignored,
            DeliveryMode::Smi => Acceptance::Smi,
            DeliveryMode::Nmi => Acceptance::Nmi,
            DeliveryMode::Init => Acceptance::Init,
            DeliveryMode::StartUp => Acceptance::StartUp(vector),
            DeliveryMode::ExtInt => {
                self.ext_int_latched = true;
                Acceptance::Recorded
            }
        }
    }

    /// A local source fires. The timer fires by itself in [`LocalApic::advance`].
    pub fn raise(&mut self, source: LocalSource) -> Acceptance {
        let entry = self.lvt[source as usize];
        if entry & Lvt::MASKED != 0 {
            return Acceptance::Ignored;
        }
        if source == LocalSource::Performance {
            self.lvt[source as usize] |= Lvt::MASKED;
        }
        let delivery = match source {
            LocalSource::Timer | LocalSource::Error => DeliveryMode::Fixed,
            _ => DeliveryMode::of(entry),
        };
        self.deliver(delivery, entry as u8, false)
    }

    fn record_error(&mut self, bit: u32) {
        self.error_pending |= bit;
        let entry = self.lvt[LocalSource::Error as usize];
        // An illegal vector in the error entry itself must not raise a further error.
        if entry & Lvt::MASKED == 0 && entry & 0xff >= 16 && self.is_software_enabled() {
            self.requested.insert(entry as u8);
            self.trigger_mode.remove(entry as u8);
        }
    }

    /// Drives pin LINT0 (the 8259's INTR).
    pub fn set_lint0(&mut self, level: bool) -> Acceptance {
        self.set_pin(LocalSource::Lint0, level)
    }

    /// Drives pin LINT1 (NMI).
    pub fn set_lint1(&mut self, level: bool) -> Acceptance {
        self.set_pin(LocalSource::Lint1, level)
    }

    fn set_pin(&mut self, source: LocalSource, level: bool) -> Acceptance {
        let pin = &mut self.pins[source as usize - LocalSource::Lint0 as usize];
        let rising = level && !*pin;
        *pin = level;
        if self.mode() == Mode::Disabled {
            return if rising && source == LocalSource::Lint1 { Acceptance::Nmi } else { Acceptance::Recorded };
        }
        let entry = self.lvt[source as usize];
        match DeliveryMode::of(entry) {
            DeliveryMode::ExtInt => Acceptance::Recorded,
            DeliveryMode::Fixed if entry & Lvt::LEVEL != 0 => {
                self.sample_level_pins();
                Acceptance::Recorded
            }
            _ if rising => self.raise(source),
            _ => Acceptance::Recorded,
        }
    }

    /// Requests the level-triggered fixed interrupts of pins that stand high and were not yet accepted.
    fn sample_level_pins(&mut self) {
        for (pin, source) in [LocalSource::Lint0, LocalSource::Lint1].into_iter().enumerate() {
            let entry = self.lvt[source as usize];
            let fixed_level = entry & (Lvt::LEVEL | Lvt::MASKED | Lvt::REMOTE_IRR | Lvt::DELIVERY_MODE) == Lvt::LEVEL;
            if self.pins[pin]
                && fixed_level
                && self.deliver(DeliveryMode::Fixed, entry as u8, true) == Acceptance::Recorded
            {
                self.lvt[source as usize] |= Lvt::REMOTE_IRR;
            }
        }
    }

    /// Whether the 8259 asks for the processor through this APIC.
    #[must_use]
    pub fn external_pending(&self) -> bool {
        let entry = self.lvt[LocalSource::Lint0 as usize];
        let through_lint0 = match self.mode() {
            Mode::Disabled => true,
            _ => entry & (Lvt::MASKED | Lvt::DELIVERY_MODE) == (DeliveryMode::ExtInt as u32) << 8,
        };
        (self.pins[0] && through_lint0) || self.ext_int_latched
    }

    /// The 8259 was acknowledged: an ExtINT message is used up. The pin stays as the board drives it.
    pub fn acknowledge_external(&mut self) {
        self.ext_int_latched = false;
    }

    /// The interrupt that would be delivered now, by priority; the processor's own IF and shadows are not considered.
    #[must_use]
    pub fn pending(&self) -> Option<Pending> {
        if self.external_pending() {
            return Some(Pending::External);
        }
        self.pending_vector().map(Pending::Vector)
    }

    /// The highest requested vector whose class is above the processor priority.
    #[must_use]
    pub fn pending_vector(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (self.mode() != Mode::Disabled && vector & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// The processor takes the interrupt: its vector moves into service. The spurious vector when there is none any more.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.pending_vector() else { return self.spurious as u8 };
        self.requested.remove(vector);
        self.in_service.insert(vector);
        vector
    }

    /// End of the highest interrupt in service. Gives the vector to broadcast to the I/O APICs.
    pub fn end_of_interrupt(&mut self) -> Option<Effect> {
        let vector = self.in_service.highest()?;
        self.in_service.remove(vector);
        if !self.trigger_mode.contains(vector) {
            return None;
        }
        for source in [LocalSource::Lint0, LocalSource::Lint1] {
            let entry = &mut self.lvt[source as usize];
            if *entry as u8 == vector {
                *entry &= !Lvt::REMOTE_IRR;
            }
        }
        self.sample_level_pins();
        (self.spurious & Svr::EOI_BROADCAST_SUPPRESS == 0).then_some(Effect::BroadcastEoi(vector))
    }

    fn timer_mode(&self) -> TimerMode {
        TimerMode::of(self.lvt[LocalSource::Timer as usize])
    }

    /// Brings the timer to `at`, requesting its interrupt when it expired.
    pub fn advance(&mut self, at: Moment) {
        if self.timer.advance(self.timer_mode(), at) {
            self.raise(LocalSource::Timer);
        }
    }

    /// The virtual time at which [`LocalApic::advance`] will next request an interrupt; not before `at` but possibly equal. A
    /// write to the TSC moves it.
    #[must_use]
    pub fn next_deadline(&self, at: Moment) -> Option<u64> {
        if self.lvt[LocalSource::Timer as usize] & Lvt::MASKED != 0 || self.mode() == Mode::Disabled {
            return None;
        }
        self.timer.next(self.timer_mode(), at).map(|time| time.max(at.nanoseconds))
    }

    /// IA32_TSC_DEADLINE; zero unless the timer is in that mode and armed.
    pub fn tsc_deadline(&mut self, at: Moment) -> u64 {
        self.advance(at);
        self.timer.deadline()
    }

    /// Writes IA32_TSC_DEADLINE; ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, value: u64, at: Moment) {
        self.advance(at);
        if self.timer_mode() == TimerMode::TscDeadline {
            self.timer.set_deadline(value);
            self.advance(at);
        }
    }
}
