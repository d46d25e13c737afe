//! The local APIC (SDM Vol. 3A, chapter 11).

/// Offsets of the registers in the xAPIC's page; the x2APIC MSR is 800H + offset / 16 (SDM Vol. 3A, tables 11-1 and 11-6).
pub mod offset {
    /// Local APIC ID.
    pub const ID: u16 = 0x020;
    /// Version.
    pub const VERSION: u16 = 0x030;
    /// Task priority (TPR).
    pub const TPR: u16 = 0x080;
    /// Arbitration priority.
    pub const APR: u16 = 0x090;
    /// Processor priority (PPR).
    pub const PPR: u16 = 0x0a0;
    /// End of interrupt.
    pub const EOI: u16 = 0x0b0;
    /// Remote read.
    pub const RRD: u16 = 0x0c0;
    /// Logical destination.
    pub const LDR: u16 = 0x0d0;
    /// Destination format (xAPIC only).
    pub const DFR: u16 = 0x0e0;
    /// Spurious interrupt vector.
    pub const SVR: u16 = 0x0f0;
    /// In-service register, vectors 31:0; seven more follow, 10H apart.
    pub const ISR: u16 = 0x100;
    /// Trigger mode register, vectors 31:0; seven more follow.
    pub const TMR: u16 = 0x180;
    /// Interrupt request register, vectors 31:0; seven more follow.
    pub const IRR: u16 = 0x200;
    /// Error status.
    pub const ESR: u16 = 0x280;
    /// LVT corrected machine check.
    pub const LVT_CMCI: u16 = 0x2f0;
    /// Interrupt command, low half (all 64 bits in x2APIC mode).
    pub const ICR_LOW: u16 = 0x300;
    /// Interrupt command, high half (xAPIC only).
    pub const ICR_HIGH: u16 = 0x310;
    /// LVT timer.
    pub const LVT_TIMER: u16 = 0x320;
    /// LVT thermal sensor.
    pub const LVT_THERMAL: u16 = 0x330;
    /// LVT performance counters.
    pub const LVT_PMI: u16 = 0x340;
    /// LVT LINT0.
    pub const LVT_LINT0: u16 = 0x350;
    /// LVT LINT1.
    pub const LVT_LINT1: u16 = 0x360;
    /// LVT error.
    pub const LVT_ERROR: u16 = 0x370;
    /// Timer initial count.
    pub const TIMER_INITIAL: u16 = 0x380;
    /// Timer current count.
    pub const TIMER_CURRENT: u16 = 0x390;
    /// Timer divide configuration.
    pub const TIMER_DIVIDE: u16 = 0x3e0;
    /// Self IPI (x2APIC only).
    pub const SELF_IPI: u16 = 0x3f0;
}

named_bits! {
    /// A local vector table entry (SDM Vol. 3A, figure 11-8). Bits 7:0 are the vector, 10:8 the delivery mode.
    Lvt(u32) {
        12 DELIVERY_STATUS "delivery status: send pending";
        13 ACTIVE_LOW "pin polarity: active low (LINT0, LINT1)";
        14 REMOTE_IRR "remote IRR (LINT0, LINT1)";
        15 LEVEL "trigger mode: level (LINT0, LINT1)";
        16 MASKED "masked";
    }
}

impl Lvt {
    /// The vector's bits.
    pub const VECTOR: u32 = 0xff;
    /// The delivery mode's bits.
    pub const DELIVERY_MODE: u32 = 7 << 8;
    /// The timer mode's bits (LVT timer).
    pub const TIMER_MODE: u32 = 3 << 17;
    /// Value after reset.
    pub const RESET: u32 = Lvt::MASKED;
}

/// The timer's mode, LVT timer bits 18:17 (SDM Vol. 3A, 11.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// 00: counts down once.
    OneShot,
    /// 01: counts down and reloads.
    Periodic,
    /// 10: interrupts at the value of IA32_TSC_DEADLINE.
    TscDeadline,
    /// 11: reserved.
    Reserved,
}

impl TimerMode {
    /// The mode in an LVT timer register.
    #[must_use]
    pub const fn of(lvt: u32) -> TimerMode {
        match lvt >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }
}

/// Delivery modes of LVT entries, the ICR, I/O APIC entries and MSIs (bits 10:8 of each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// 000: the interrupt with the given vector.
    Fixed,
    /// 001: the same to the processor of lowest priority (ICR, I/O APIC, MSI).
    LowestPriority,
    /// 010: system-management interrupt.
    Smi,
    /// 011: reserved.
    Reserved3,
    /// 100: non-maskable interrupt.
    Nmi,
    /// 101: INIT.
    Init,
    /// 110: start-up inter-processor interrupt (ICR only).
    StartUp,
    /// 111: the vector comes from the external interrupt controller (LVT, I/O APIC).
    ExtInt,
}

impl DeliveryMode {
    /// The mode in bits 10:8 of `word`.
    #[must_use]
    pub const fn of(word: u32) -> DeliveryMode {
        match word >> 8 & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            2 => DeliveryMode::Smi,
            3 => DeliveryMode::Reserved3,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            _ => DeliveryMode::ExtInt,
        }
    }
}

named_bits! {
    /// The interrupt command register (SDM Vol. 3A, figures 11-12 and 11-28). Bits 7:0 are the vector, 10:8 the delivery mode,
    /// 19:18 the destination shorthand; the destination is bits 63:56 (xAPIC) or 63:32 (x2APIC).
    Icr(u64) {
        11 LOGICAL "destination mode: logical";
        12 DELIVERY_STATUS "delivery status: send pending (xAPIC only)";
        14 ASSERT "level: assert";
        15 LEVEL "trigger mode: level";
    }
}

/// The destination shorthand, ICR bits 19:18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// 00: the destination field counts.
    None,
    /// 01: the sender.
    Itself,
    /// 10: every processor.
    AllIncludingSelf,
    /// 11: every processor but the sender.
    AllExcludingSelf,
}

impl Shorthand {
    /// The shorthand in the low half of an ICR.
    #[must_use]
    pub const fn of(icr_low: u32) -> Shorthand {
        match icr_low >> 18 & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Itself,
            2 => Shorthand::AllIncludingSelf,
            _ => Shorthand::AllExcludingSelf,
        }
    }
}

named_bits! {
    /// The spurious-interrupt vector register (SDM Vol. 3A, 11.9). Bits 7:0 are the vector.
    Svr(u32) {
        8 ENABLE "APIC software enable";
        9 FOCUS_DISABLE "focus processor checking disabled";
        12 EOI_BROADCAST_SUPPRESS "EOI-broadcast suppression";
    }
}

impl Svr {
    /// Value after reset.
    pub const RESET: u32 = 0xff;
}

named_bits! {
    /// The error status register (SDM Vol. 3A, 11.5.3).
    Esr(u32) {
        0 SEND_CHECKSUM "send checksum error (P6 only)";
        1 RECEIVE_CHECKSUM "receive checksum error (P6 only)";
        2 SEND_ACCEPT "send accept error (P6 only)";
        3 RECEIVE_ACCEPT "receive accept error (P6 only)";
        4 REDIRECTABLE_IPI "lowest-priority IPI where not supported";
        5 SEND_ILLEGAL_VECTOR "illegal vector sent";
        6 RECEIVE_ILLEGAL_VECTOR "illegal vector received";
        7 ILLEGAL_REGISTER "access to a reserved register";
    }
}

named_bits! {
    /// The version register (SDM Vol. 3A, 11.4.8). Bits 7:0 are the version (14H for these), 23:16 the number of LVT entries less 1.
    Version(u32) {
        24 EOI_BROADCAST_SUPPRESSION "EOI-broadcast suppression supported";
    }
}

/// The logical x2APIC ID of the processor with x2APIC ID `id` (SDM Vol. 3A, 11.12.10.2).
#[must_use]
pub const fn x2apic_logical_id(id: u32) -> u32 {
    (id & 0xffff_fff0) << 12 | 1 << (id & 0xf)
}

/// The factor by which the timer's input is divided, for the divide configuration register's value (SDM Vol. 3A, figure 11-10).
#[must_use]
pub const fn timer_divisor(divide_configuration: u32) -> u32 {
    match divide_configuration & 3 | divide_configuration >> 1 & 4 {
        7 => 1,
        n => 2 << n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divide_configuration_values() {
        let values = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011];
        assert_eq!(values.map(timer_divisor), [2, 4, 8, 16, 32, 64, 128, 1]);
    }

    #[test]
    fn logical_id_is_cluster_and_bit() {
        assert_eq!(x2apic_logical_id(0x12), 0x1_0004);
    }
}
