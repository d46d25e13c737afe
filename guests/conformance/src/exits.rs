//! For each basic exit reason, guests that cause it, with what the exit says (SDM Vol. 3C, 28.1 and 28.2).

use crate::change::Change::{
    self, EptVpid, Feature, Hole, HoleTable, Memory, Msr, Or, Page, Register, RegisterHole, RegisterPage, Set,
    ShadowHole, X2apic, Xss,
};
use crate::change::{HOLE, Obstacle};
use crate::code::{self, Code};
use crate::controls::{ENDLESS, SUB_PAGES};
use crate::report::Report;
use crate::startup;
use crate::trial::{Base, Exit, Outcome, Trial};
use bare::vmx::state::Word;
use bare::{cpu, println};
use spec::vmx::capability::{EptVpidCap, misc};
use spec::vmx::ept::{EptEntry, Eptp};
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::qualification::{EptViolation, apic_access, cr_access, dr_access, instruction_info as info, io};
use spec::vmx::{
    EntryControls as N, ExitControls as X, ExitReason as R, PinBasedControls as P, PrimaryControls as P1,
    SecondaryControls as P2, TertiaryControls as P3, VmcsField as F,
};
use spec::x86::{CetControl, Cr4, msr};

/// A guest that causes an exit, and what the exit says.
#[derive(Clone, Copy, Debug)]
pub struct ExitCase {
    reason: R,
    base: Base,
    changes: &'static [Change],
    code: Code,
    qualification: u64,
    /// Bits of the qualification that are defined.
    qualification_mask: u64,
    length: Option<u64>,
    /// Value and defined bits of the instruction information.
    info: Option<(u32, u32)>,
    interruption: Option<u64>,
    /// RIP is after the guest's first instruction, not at it.
    trap: bool,
    /// Another processor sends start-up IPIs meanwhile.
    started: bool,
}

/// An exit of the guest's first instruction, whose qualification is 0.
const fn exit(reason: R, changes: &'static [Change], code: Code) -> ExitCase {
    ExitCase {
        reason,
        base: Base::Long,
        changes,
        code,
        qualification: 0,
        qualification_mask: u64::MAX,
        length: None,
        info: None,
        interruption: None,
        trap: false,
        started: false,
    }
}

impl ExitCase {
    const fn on(self, base: Base) -> Self {
        Self { base, ..self }
    }

    const fn length(self, length: u64) -> Self {
        Self { length: Some(length), ..self }
    }

    const fn qualified(self, qualification: u64) -> Self {
        Self { qualification, ..self }
    }

    const fn masked(self, qualification_mask: u64) -> Self {
        Self { qualification_mask, ..self }
    }

    const fn info(self, value: u32, mask: u32) -> Self {
        Self { info: Some((value, mask)), ..self }
    }

    const fn event(self, interruption: u64) -> Self {
        Self { interruption: Some(interruption), ..self }
    }

    const fn started(self) -> Self {
        Self { started: true, ..self }
    }

    const fn trap(self) -> Self {
        Self { trap: true, ..self }
    }
}

/// A reason that is not raised here.
struct Unraised {
    reason: R,
    /// The control without which it cannot be; when it is announced there must be a case.
    control: Option<(Word, u64)>,
    why: &'static str,
}

const fn not(reason: R, why: &'static str) -> Unraised {
    Unraised { reason, control: None, why }
}

const fn until(reason: R, word: Word, bit: u64) -> Unraised {
    Unraised { reason, control: Some((word, bit)), why: "its control is not announced" }
}

const UNRAISED: &[Unraised] = &[
    not(R::IoSmi, "only with the dual-monitor treatment of SMIs"),
    not(R::OtherSmi, "only with the dual-monitor treatment of SMIs"),
    not(R::Rsm, "only in SMM; elsewhere RSM is #UD"),
    not(R::EntryMachineCheck, "no machine check can be raised at will"),
    not(R::Seamcall, "only with TDX"),
    not(R::Tdcall, "only with TDX"),
    until(R::Encls, Word::Secondary, P2::ENABLE_ENCLS_EXITING as u64),
    until(R::Enclv, Word::Secondary, P2::ENABLE_ENCLV_EXITING as u64),
    until(R::Pconfig, Word::Secondary, P2::ENABLE_PCONFIG as u64),
    until(R::Loadiwkey, Word::Tertiary, P3::LOADIWKEY_EXITING),
    until(R::EnqcmdPasid, Word::Secondary, P2::PASID_TRANSLATION as u64),
    until(R::EnqcmdsPasid, Word::Secondary, P2::PASID_TRANSLATION as u64),
    until(R::Rdmsrlist, Word::Tertiary, P3::ENABLE_MSR_LIST),
    until(R::Wrmsrlist, Word::Tertiary, P3::ENABLE_MSR_LIST),
];

const PRIMARY: F = F::PRIMARY_CONTROLS;
const SECONDARY: F = F::SECONDARY_CONTROLS;
const EPT: Change = Or(SECONDARY, P2::ENABLE_EPT as u64);
const MSR_BITMAPS: Change = Or(PRIMARY, P1::USE_MSR_BITMAPS as u64);
const TPR_SHADOW: Change = Or(PRIMARY, P1::USE_TPR_SHADOW as u64);
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSI: usize = 6;
const RDI: usize = 7;
const R9: usize = 9;
const APIC: u64 = 0xfee0_0000;
/// A fixed interrupt with vector 40H to this processor.
const SELF_40: u64 = 0x4_0040;
const NMI_TO_0: u64 = 0x4400;
const INIT_TO_0: u64 = 0x4500;

/// The instruction information of an operand [RDI] in 64-bit mode.
const AT_RDI: u32 =
    2 << info::ADDRESS_SIZE_SHIFT | 3 << info::SEGMENT_SHIFT | info::INDEX_INVALID | 7 << info::BASE_SHIFT;
/// What is defined of it: not the scaling and the number of an index that is not there.
const AT_RDI_MASK: u32 = 7 << info::ADDRESS_SIZE_SHIFT
    | 7 << info::SEGMENT_SHIFT
    | info::INDEX_INVALID
    | 15 << info::BASE_SHIFT
    | info::BASE_INVALID;
/// Bits 9 to 11 are defined with advanced information only.
const EPT_MASK: u64 = !(EptViolation::USER_PAGE
    | EptViolation::WRITABLE_PAGE
    | EptViolation::EXECUTE_DISABLED
    | EptViolation::USER_EXECUTABLE);

const fn primary(bit: u32) -> Change {
    Or(PRIMARY, bit as u64)
}

const fn secondary(bit: u32) -> Change {
    Or(SECONDARY, bit as u64)
}

const CASES: &[ExitCase] = &[
    exit(R::ExceptionOrNmi, &[Set(F::EXCEPTION_BITMAP, 1 << 6)], code::ud2).event(0x8000_0306),
    exit(R::ExceptionOrNmi, &[Set(F::EXCEPTION_BITMAP, 1 << 3)], code::int3).event(0x8000_0603).length(1),
    exit(R::ExceptionOrNmi, &[Set(F::EXCEPTION_BITMAP, 1 << 1)], code::int1).event(0x8000_0501).length(1),
    exit(R::ExceptionOrNmi, &[Set(F::EXCEPTION_BITMAP, 1 << 13), Register(RDI, 1 << 63)], code::load)
        .event(0x8000_0b0d),
    exit(R::ExceptionOrNmi, &[Set(F::EXCEPTION_BITMAP, 1 << 14), Register(RDI, 1 << 40)], code::load)
        .event(0x8000_0b0e)
        .qualified(1 << 40),
    exit(R::ExceptionOrNmi, &[Set(F::EXCEPTION_BITMAP, 1 << 1), Set(F::GUEST_RFLAGS, 0x102)], code::nops)
        .event(0x8000_0301)
        .qualified(1 << 14)
        .trap(),
    exit(
        R::ExceptionOrNmi,
        &[Or(F::PIN_BASED_CONTROLS, P::NMI_EXITING as u64), Register(RDI, APIC), Register(RSI, NMI_TO_0)],
        code::send,
    )
    .event(0x8000_0202)
    .trap(),
    exit(R::ExternalInterrupt, INTERRUPT, code::send).event(0).trap(),
    // RFLAGS.IF does not matter.
    exit(
        R::ExternalInterrupt,
        &[Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64), Register(RDI, APIC), Register(RSI, SELF_40)],
        code::send,
    )
    .event(0)
    .trap(),
    exit(
        R::ExternalInterrupt,
        &[
            Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64),
            Or(F::EXIT_CONTROLS, X::ACKNOWLEDGE_INTERRUPT_ON_EXIT as u64),
            Set(F::GUEST_RFLAGS, 0x202),
            Register(RDI, APIC),
            Register(RSI, SELF_40),
        ],
        code::send,
    )
    .event(0x8000_0040)
    .trap(),
    exit(R::TripleFault, &[Set(F::GUEST_IDTR_LIMIT, 0)], code::ud2),
    exit(R::InterruptWindow, &[primary(P1::INTERRUPT_WINDOW_EXITING), Set(F::GUEST_RFLAGS, 0x202)], code::nops),
    exit(
        R::NmiWindow,
        &[Or(F::PIN_BASED_CONTROLS, (P::NMI_EXITING | P::VIRTUAL_NMIS) as u64), primary(P1::NMI_WINDOW_EXITING)],
        code::nops,
    ),
    exit(R::TaskSwitch, TASK, code::jump_far).on(Base::Pae).qualified(2 << 30 | 0x40).length(2),
    exit(R::TaskSwitch, TASK, code::call_far).on(Base::Pae).qualified(0x40).length(2),
    exit(
        R::TaskSwitch,
        &[
            Page(F::GUEST_GDTR_BASE, 0, 0),
            Memory(0, 0x40, 0x0000_8900_0000_0067),
            Set(F::GUEST_GDTR_LIMIT, 0x47),
            // A task gate of DPL 3 for vector 3.
            Page(F::GUEST_IDTR_BASE, 1, 0),
            Memory(1, 3 * 8, 0x0000_e500_0040_0000),
        ],
        code::int3,
    )
    .on(Base::Pae)
    .qualified(3 << 30 | 0x40)
    .length(1),
    exit(R::Cpuid, &[], code::cpuid).length(2),
    exit(R::Getsec, &[Or(F::GUEST_CR4, Cr4::SMXE), Feature(1, 0, 2, 6, "SMX")], code::getsec).length(2),
    exit(R::Hlt, &[primary(P1::HLT_EXITING)], code::hlt).length(1),
    exit(R::Invd, &[], code::invd).length(2),
    exit(R::Invlpg, &[primary(P1::INVLPG_EXITING), Register(RDI, 0x12_3456)], code::invlpg)
        .length(3)
        .qualified(0x12_3456),
    exit(R::Rdpmc, &[primary(P1::RDPMC_EXITING)], code::rdpmc).length(2),
    exit(R::Rdtsc, &[primary(P1::RDTSC_EXITING)], code::rdtsc).length(2),
    exit(R::Vmcall, &[], code::done).length(3),
    exit(R::Vmclear, &[Register(RCX, 1), Register(RDI, 0x1000)], code::vmclear).length(6).qualified(0x40).info(
        3 | 2 << info::ADDRESS_SIZE_SHIFT | 3 << info::SEGMENT_SHIFT | 1 << info::INDEX_SHIFT | 7 << info::BASE_SHIFT,
        0x0fff_8383,
    ),
    exit(R::Vmlaunch, &[], code::vmlaunch).length(3),
    exit(R::Vmptrld, &[RegisterPage(RDI, 0, 0)], code::vmptrld).length(3).info(AT_RDI, AT_RDI_MASK),
    exit(R::Vmptrst, &[RegisterPage(RDI, 0, 0)], code::vmptrst).length(3).info(AT_RDI, AT_RDI_MASK),
    exit(R::Vmread, &[], code::vmread).length(3).info(
        info::REGISTER | 1 << info::REGISTER2_SHIFT,
        info::REGISTER | 15 << info::REGISTER1_SHIFT | 15 << info::REGISTER2_SHIFT,
    ),
    exit(R::Vmread, &[RegisterPage(RDI, 0, 0)], code::vmread_memory)
        .length(3)
        .info(AT_RDI | 1 << info::REGISTER2_SHIFT, AT_RDI_MASK | info::REGISTER | 15 << info::REGISTER2_SHIFT),
    exit(R::Vmresume, &[], code::vmresume).length(3),
    exit(R::Vmwrite, &[], code::vmwrite).length(3).info(
        info::REGISTER | 1 << info::REGISTER2_SHIFT,
        info::REGISTER | 15 << info::REGISTER1_SHIFT | 15 << info::REGISTER2_SHIFT,
    ),
    exit(R::Vmxoff, &[], code::vmxoff).length(3),
    exit(R::Vmxon, &[RegisterPage(RDI, 0, 0)], code::vmxon).length(4).info(AT_RDI, AT_RDI_MASK),
    // CR0.TS owned by the host.
    exit(R::CrAccess, &[Set(F::CR0_MASK, 8), Register(RAX, 0x8005_003b)], code::mov_to_cr0).length(3),
    exit(R::CrAccess, &[Set(F::CR4_MASK, 1 << 13), Set(F::CR4_READ_SHADOW, 0), Register(R9, 0x2620)], code::mov_to_cr4)
        .length(4)
        .qualified(4 | 9 << cr_access::GPR_SHIFT),
    exit(R::CrAccess, &[primary(P1::CR3_LOAD_EXITING)], code::mov_to_cr3).length(3).qualified(3),
    exit(R::CrAccess, &[primary(P1::CR3_STORE_EXITING)], code::mov_from_cr3)
        .length(3)
        .qualified(3 | cr_access::MOV_FROM_CR << cr_access::TYPE_SHIFT | 3 << cr_access::GPR_SHIFT),
    exit(R::CrAccess, &[primary(P1::CR8_LOAD_EXITING)], code::mov_to_cr8).length(4).qualified(8),
    exit(R::CrAccess, &[primary(P1::CR8_STORE_EXITING)], code::mov_from_cr8)
        .length(4)
        .qualified(8 | cr_access::MOV_FROM_CR << cr_access::TYPE_SHIFT),
    exit(R::CrAccess, &[Set(F::CR0_MASK, 8), Set(F::CR0_READ_SHADOW, 8)], code::clts)
        .length(2)
        .qualified(cr_access::CLTS << cr_access::TYPE_SHIFT),
    exit(R::CrAccess, &[Set(F::CR0_MASK, 8), Register(RAX, 0x3b)], code::lmsw)
        .length(3)
        .qualified(cr_access::LMSW << cr_access::TYPE_SHIFT | 0x3b << cr_access::LMSW_SOURCE_SHIFT)
        .masked(!0xf00),
    exit(R::CrAccess, &[Set(F::CR0_MASK, 8), RegisterPage(RDI, 0, 0), Memory(0, 0, 0x39)], code::lmsw_memory)
        .length(3)
        .qualified(
            cr_access::LMSW << cr_access::TYPE_SHIFT | cr_access::LMSW_MEMORY | 0x39 << cr_access::LMSW_SOURCE_SHIFT,
        )
        .masked(!0xf00),
    exit(R::DrAccess, &[primary(P1::MOV_DR_EXITING)], code::mov_to_dr7).length(3).qualified(7),
    exit(R::DrAccess, &[primary(P1::MOV_DR_EXITING)], code::mov_from_dr7)
        .length(3)
        .qualified(7 | dr_access::FROM_DR | 3 << dr_access::GPR_SHIFT),
    exit(R::Io, &[primary(P1::UNCONDITIONAL_IO_EXITING)], code::out_immediate)
        .length(2)
        .qualified(io::IMMEDIATE | 0x80 << io::PORT_SHIFT),
    exit(R::Io, &[primary(P1::UNCONDITIONAL_IO_EXITING), Register(RDX, 0x1234)], code::in_dx)
        .length(1)
        .qualified(3 | io::IN | 0x1234 << io::PORT_SHIFT),
    exit(
        R::Io,
        &[primary(P1::UNCONDITIONAL_IO_EXITING), Register(RDX, 0x99), Register(RCX, 5), RegisterPage(RSI, 0, 0)],
        code::rep_outsb,
    )
    .length(2)
    .qualified(io::STRING | io::REP | 0x99 << io::PORT_SHIFT)
    .info(
        2 << info::ADDRESS_SIZE_SHIFT | 3 << info::SEGMENT_SHIFT,
        7 << info::ADDRESS_SIZE_SHIFT | 7 << info::SEGMENT_SHIFT,
    ),
    exit(R::Io, &[primary(P1::UNCONDITIONAL_IO_EXITING), Register(RDX, 0x99), RegisterPage(RDI, 0, 0)], code::insd)
        .length(1)
        .qualified(3 | io::IN | io::STRING | 0x99 << io::PORT_SHIFT)
        .info(2 << info::ADDRESS_SIZE_SHIFT, 7 << info::ADDRESS_SIZE_SHIFT),
    // Bit 20H of bitmap B is port 8020H; the access of two ports wraps into it.
    exit(
        R::Io,
        &[primary(P1::USE_IO_BITMAPS), Page(F::IO_BITMAP_B, 0, 0), Memory(0, 0, 1 << 0x20), Register(RDX, 0x801d)],
        code::in_dx,
    )
    .length(1)
    .qualified(3 | io::IN | 0x801d << io::PORT_SHIFT),
    exit(R::Rdmsr, &[Register(RCX, 0x10)], code::rdmsr).length(2),
    exit(
        R::Rdmsr,
        &[primary(P1::USE_MSR_BITMAPS), Page(F::MSR_BITMAPS, 0, 0), Memory(0, 0, 1 << 0x10), Register(RCX, 0x10)],
        code::rdmsr,
    )
    .length(2),
    exit(R::Rdmsr, &[primary(P1::USE_MSR_BITMAPS), Register(RCX, 0x4000_0000)], code::rdmsr).length(2),
    exit(R::Wrmsr, &[Register(RCX, 0x10)], code::wrmsr).length(2),
    exit(
        R::Wrmsr,
        &[primary(P1::USE_MSR_BITMAPS), Page(F::MSR_BITMAPS, 0, 0), Memory(0, 0xc10, 4), Register(RCX, 0xc000_0082)],
        code::wrmsr,
    )
    .length(2),
    exit(R::InvalidGuestState, &[Set(F::GUEST_RFLAGS, 0)], code::done),
    exit(R::InvalidGuestState, &[Page(F::VMCS_LINK_POINTER, 0, 1)], code::done).qualified(4),
    exit(
        R::MsrLoading,
        &[Set(F::ENTRY_MSR_LOAD_COUNT, 1), Page(F::ENTRY_MSR_LOAD_ADDRESS, 0, 0), Msr(0, 0, 0xc000_0100, 0)],
        code::done,
    )
    .qualified(1),
    exit(R::Mwait, &[primary(P1::MWAIT_EXITING), MONITOR_FEATURE], code::mwait).length(3).masked(!1),
    exit(R::MonitorTrapFlag, &[primary(P1::MONITOR_TRAP_FLAG)], code::nops).trap(),
    exit(
        R::MonitorTrapFlag,
        &[primary(P1::MONITOR_TRAP_FLAG), Set(F::ENTRY_INTERRUPTION_INFO, 0x8000_0700)],
        code::nops,
    ),
    exit(R::Monitor, &[primary(P1::MONITOR_EXITING), MONITOR_FEATURE], code::monitor).length(3),
    exit(R::Pause, &[primary(P1::PAUSE_EXITING)], code::pause).length(2),
    exit(
        R::TprBelowThreshold,
        &[
            TPR_SHADOW,
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Memory(0, 0x80, 0x80),
            Set(F::TPR_THRESHOLD, 5),
            Register(RAX, 3),
        ],
        code::mov_to_cr8,
    )
    .trap(),
    exit(
        R::ApicAccess,
        &[secondary(P2::VIRTUALIZE_APIC_ACCESSES), Page(F::APIC_ACCESS_ADDRESS, 0, 0), RegisterPage(RDI, 0, 0x300)],
        code::load,
    )
    .qualified(0x300),
    exit(
        R::ApicAccess,
        &[secondary(P2::VIRTUALIZE_APIC_ACCESSES), Page(F::APIC_ACCESS_ADDRESS, 0, 0), RegisterPage(RDI, 0, 0x20)],
        code::modify,
    )
    .qualified(0x20 | apic_access::WRITE << apic_access::TYPE_SHIFT)
    .masked(0xfff),
    exit(
        R::ApicAccess,
        &[secondary(P2::VIRTUALIZE_APIC_ACCESSES), Page(F::APIC_ACCESS_ADDRESS, 0, 0), RegisterPage(RDI, 0, 0x30)],
        code::store,
    )
    .qualified(0x30 | apic_access::WRITE << apic_access::TYPE_SHIFT),
    exit(
        R::VirtualizedEoi,
        &[
            TPR_SHADOW,
            Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64),
            secondary(P2::VIRTUALIZE_APIC_ACCESSES | P2::VIRTUAL_INTERRUPT_DELIVERY),
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Page(F::APIC_ACCESS_ADDRESS, 1, 0),
            // Vector 50H is in service.
            Memory(0, 0x120, 1 << 16),
            Set(F::GUEST_INTERRUPT_STATUS, 0x5000),
            Set(F::EOI_EXIT_BITMAP_1, 1 << 16),
            RegisterPage(RDI, 1, 0xb0),
        ],
        code::modify_nothing,
    )
    .qualified(0x50)
    .trap(),
    exit(R::GdtrIdtr, &[secondary(P2::DESCRIPTOR_TABLE_EXITING), RegisterPage(RDI, 0, 0)], code::sgdt)
        .length(3)
        .info(AT_RDI, AT_RDI_MASK | 3 << info::IDENTITY_SHIFT),
    exit(R::GdtrIdtr, &[secondary(P2::DESCRIPTOR_TABLE_EXITING), RegisterPage(RDI, 0, 0)], code::lidt).length(4).info(
        2 << info::ADDRESS_SIZE_SHIFT
            | 3 << info::SEGMENT_SHIFT
            | 1 << info::INDEX_SHIFT
            | 7 << info::BASE_SHIFT
            | 3 << info::IDENTITY_SHIFT,
        0x3fff_8383,
    ),
    exit(R::LdtrTr, &[secondary(P2::DESCRIPTOR_TABLE_EXITING)], code::sldt)
        .length(3)
        .info(info::REGISTER, info::REGISTER | 15 << info::REGISTER1_SHIFT | 3 << info::IDENTITY_SHIFT),
    exit(R::LdtrTr, &[secondary(P2::DESCRIPTOR_TABLE_EXITING), RegisterPage(RDI, 0, 0)], code::ltr)
        .length(3)
        .info(AT_RDI | 3 << info::IDENTITY_SHIFT, AT_RDI_MASK | info::REGISTER | 3 << info::IDENTITY_SHIFT),
    exit(R::EptViolation, &[EPT, Hole(0), RegisterHole(RDI, 0, 0)], code::load)
        .qualified(EptViolation::READ | EptViolation::LINEAR_VALID | EptViolation::TRANSLATED)
        .masked(EPT_MASK),
    exit(R::EptViolation, &[EPT, Hole(NOT_WRITABLE), RegisterHole(RDI, 0, 0)], code::store)
        .qualified(
            EptViolation::WRITE
                | EptViolation::READABLE
                | EptViolation::EXECUTABLE
                | EptViolation::LINEAR_VALID
                | EptViolation::TRANSLATED,
        )
        .masked(EPT_MASK),
    exit(R::EptViolation, &[EPT, Hole(NOT_WRITABLE & !EptEntry::EXECUTE), Register(RDI, HOLE)], code::jump)
        .qualified(EptViolation::FETCH | EptViolation::READABLE | EptViolation::LINEAR_VALID | EptViolation::TRANSLATED)
        .masked(EPT_MASK)
        .trap(),
    // The guest's PML4 is where EPT has nothing.
    exit(R::EptViolation, &[EPT, Hole(0), Set(F::GUEST_CR3, HOLE)], code::done)
        .qualified(EptViolation::READ | EptViolation::LINEAR_VALID)
        .masked(EPT_MASK),
    // With supervisor shadow-stack control: a stack that is none to EPT, and one that is, on a page that others may not write.
    exit(R::EptViolation, SHADOW_STACK, code::call)
        .qualified(
            EptViolation::WRITE
                | EptViolation::READABLE
                | EptViolation::WRITABLE
                | EptViolation::EXECUTABLE
                | EptViolation::LINEAR_VALID
                | EptViolation::TRANSLATED
                | EptViolation::SHADOW_STACK,
        )
        .masked(EPT_MASK),
    exit(R::Vmcall, SUPERVISOR_SHADOW_STACK, code::call).length(3).trap(),
    exit(R::EptMisconfiguration, &[EPT, Hole(0xb2), RegisterHole(RDI, 0, 0)], code::load),
    exit(R::EptMisconfiguration, &[EPT, Hole(0x97), RegisterHole(RDI, 0, 0)], code::load),
    exit(R::Invept, &[EPT, RegisterPage(RDI, 0, 0)], code::invept)
        .length(5)
        .info(AT_RDI, AT_RDI_MASK | 15 << info::REGISTER2_SHIFT),
    exit(R::Rdtscp, &[primary(P1::RDTSC_EXITING), secondary(P2::ENABLE_RDTSCP)], code::rdtscp).length(3),
    exit(
        R::PreemptionTimer,
        &[Or(F::PIN_BASED_CONTROLS, P::PREEMPTION_TIMER as u64), Set(F::PREEMPTION_TIMER, 0)],
        code::nops,
    ),
    exit(R::Invvpid, &[secondary(P2::ENABLE_VPID), RegisterPage(RDI, 0, 0)], code::invvpid)
        .length(5)
        .info(AT_RDI | 1 << info::REGISTER2_SHIFT, AT_RDI_MASK | 15 << info::REGISTER2_SHIFT),
    exit(R::Wbinvd, &[secondary(P2::WBINVD_EXITING)], code::wbinvd).length(2),
    exit(R::Xsetbv, &[Feature(1, 0, 2, 26, "XSAVE"), Or(F::GUEST_CR4, Cr4::OSXSAVE)], code::xsetbv).length(3),
    exit(
        R::ApicWrite,
        &[
            TPR_SHADOW,
            secondary(P2::VIRTUALIZE_APIC_ACCESSES | P2::APIC_REGISTER_VIRTUALIZATION),
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Page(F::APIC_ACCESS_ADDRESS, 1, 0),
            RegisterPage(RDI, 1, 0x300),
        ],
        code::store32,
    )
    .qualified(0x300)
    .trap(),
    exit(R::Rdrand, &[secondary(P2::RDRAND_EXITING)], code::rdrand)
        .length(4)
        .info(10 << info::REGISTER1_SHIFT | 2 << info::OPERAND_SIZE_SHIFT, 0x1878),
    exit(
        R::Invpcid,
        &[primary(P1::INVLPG_EXITING), secondary(P2::ENABLE_INVPCID), RegisterPage(RDI, 0, 0)],
        code::invpcid,
    )
    .length(5)
    .info(AT_RDI | 2 << info::REGISTER2_SHIFT, AT_RDI_MASK | 15 << info::REGISTER2_SHIFT),
    exit(R::Vmfunc, &[EPT, secondary(P2::ENABLE_VM_FUNCTIONS)], code::vmfunc).length(3),
    // EPTP switching to an entry of the list that there is not.
    exit(
        R::Vmfunc,
        &[EPT, secondary(P2::ENABLE_VM_FUNCTIONS), Set(F::VM_FUNCTION_CONTROLS, 1), Register(RCX, 512)],
        code::vmfunc,
    )
    .length(3),
    exit(R::Rdseed, &[secondary(P2::RDSEED_EXITING)], code::rdseed).length(4).info(3 << info::REGISTER1_SHIFT, 0x1878),
    exit(
        R::PmlFull,
        &[EPT, secondary(P2::ENABLE_PML), Or(F::EPT_POINTER, 0x40), Set(F::PML_INDEX, 0xffff), RegisterHole(RDI, 0, 0)],
        code::store,
    )
    .masked(1 << 12),
    // Sub-page permissions that there are none of: a miss, bit 11.
    exit(
        R::SppEvent,
        &[
            EPT,
            secondary(P2::SUB_PAGE_WRITE),
            HoleTable(3, 0, SUB_PAGES),
            Page(F::SPP_TABLE_POINTER, 2, 0),
            RegisterHole(RDI, 0, 0),
        ],
        code::store,
    )
    .qualified(1 << 11),
    exit(R::Xsaves, XSAVES, code::xsaves).length(4).info(AT_RDI, AT_RDI_MASK),
    exit(R::Xrstors, XSAVES, code::xrstors).length(3).info(AT_RDI, AT_RDI_MASK),
    exit(R::Umwait, &[WAITPKG, secondary(P2::ENABLE_USER_WAIT), primary(P1::RDTSC_EXITING)], code::umwait)
        .length(4)
        .masked(!1)
        .info(1 << info::REGISTER1_SHIFT | 1 << info::OPERAND_SIZE_SHIFT, 0x1878),
    exit(R::Tpause, &[WAITPKG, secondary(P2::ENABLE_USER_WAIT), primary(P1::RDTSC_EXITING)], code::tpause)
        .length(4)
        .info(1 << info::REGISTER1_SHIFT | 1 << info::OPERAND_SIZE_SHIFT, 0x1878),
    exit(R::InstructionTimeout, ENDLESS_LIMITED, code::push).on(Base::Pae),
    // An IRET that ends virtual-NMI blocking and then faults: by #PF, by #GP, by an EPT violation.
    exit(
        R::ExceptionOrNmi,
        &[NMIS, NMI_BLOCKED, Set(F::EXCEPTION_BITMAP, 1 << 14), Set(F::GUEST_RSP, 1 << 40)],
        code::iretq,
    )
    .event(0x8000_1b0e)
    .qualified(1 << 40)
    .masked(ANY_OF_THE_FRAME),
    exit(
        R::ExceptionOrNmi,
        &[NMIS, NMI_BLOCKED, Set(F::EXCEPTION_BITMAP, 1 << 13), Page(F::GUEST_RSP, 0, 0)],
        code::iretq,
    )
    .event(0x8000_1b0d),
    exit(R::EptViolation, &[NMIS, NMI_BLOCKED, EPT, Hole(0), Set(F::GUEST_RSP, HOLE)], code::iretq)
        .qualified(
            EptViolation::READ | EptViolation::LINEAR_VALID | EptViolation::TRANSLATED | EptViolation::NMI_UNBLOCKING,
        )
        .masked(EPT_MASK),
    // Nothing was blocked.
    exit(R::ExceptionOrNmi, &[NMIS, Set(F::EXCEPTION_BITMAP, 1 << 14), Set(F::GUEST_RSP, 1 << 40)], code::iretq)
        .event(0x8000_0b0e)
        .qualified(1 << 40)
        .masked(ANY_OF_THE_FRAME),
    // In x2APIC mode so that it comes last: Bochs keeps an INIT signal pending after the exit that it causes.
    exit(R::Init, &[X2apic, MSR_BITMAPS, Register(RCX, 0x830), Register(RAX, INIT_TO_0)], code::wrmsr_nops).trap(),
    // Comes last, too: Bochs goes on blocking events after that exit.
    exit(R::Sipi, &[Set(F::GUEST_ACTIVITY_STATE, 3)], code::done).qualified(startup::VECTOR as u64).started(),
    exit(R::BusLock, &[secondary(P2::BUS_LOCK_DETECTION), RegisterPage(RDI, 0, 0x3e)], code::split_lock).trap(),
];

/// An interrupt with vector 40H, sent by the guest to itself.
const INTERRUPT: &[Change] = &[
    Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64),
    Set(F::GUEST_RFLAGS, 0x202),
    Register(RDI, APIC),
    Register(RSI, SELF_40),
];
/// A far pointer to a TSS that is available.
const TASK: &[Change] = &[
    Page(F::GUEST_GDTR_BASE, 0, 0),
    Memory(0, 0x40, 0x0000_8900_0000_0067),
    Set(F::GUEST_GDTR_LIMIT, 0x47),
    RegisterPage(RDI, 1, 0),
    Memory(1, 0, 0x40 << 32),
];
const XSAVES: &[Change] = &[
    Feature(1, 0, 2, 26, "XSAVE"),
    Or(F::GUEST_CR4, Cr4::OSXSAVE),
    secondary(P2::ENABLE_XSAVES),
    Xss,
    Set(F::XSS_EXITING_BITMAP, u64::MAX),
    Register(RAX, 0xffff_ffff),
    Register(RDX, 0xffff_ffff),
    RegisterPage(RDI, 0, 0),
];
const NMIS: Change = Or(F::PIN_BASED_CONTROLS, (P::NMI_EXITING | P::VIRTUAL_NMIS) as u64);
const NMI_BLOCKED: Change = Set(F::GUEST_INTERRUPTIBILITY, 8);
const ENDLESS_LIMITED: &[Change] = &{
    let mut changes = [secondary(P2::INSTRUCTION_TIMEOUT); ENDLESS.len() + 1];
    let mut n = 0;
    while n < ENDLESS.len() {
        changes[n + 1] = ENDLESS[n];
        n += 1;
    }
    changes
};
const SSS_CONTROL: Change = EptVpid(EptVpidCap::SUPERVISOR_SHADOW_STACK, "supervisor shadow-stack control");
const SHADOW_STACK: &[Change] = &[
    SSS_CONTROL,
    EPT,
    Or(F::EPT_POINTER, Eptp::SUPERVISOR_SHADOW_STACK),
    ShadowHole,
    Or(F::ENTRY_CONTROLS, N::LOAD_CET_STATE as u64),
    Or(F::GUEST_CR4, Cr4::CET),
    Set(F::GUEST_S_CET, CetControl::SH_STK_EN),
    Set(F::GUEST_SSP, HOLE + 0x1000),
];
const SUPERVISOR_SHADOW_STACK: &[Change] = &[
    SSS_CONTROL,
    EPT,
    Or(F::EPT_POINTER, Eptp::SUPERVISOR_SHADOW_STACK),
    Or(F::ENTRY_CONTROLS, N::LOAD_CET_STATE as u64),
    Or(F::GUEST_CR4, Cr4::CET),
    Set(F::GUEST_S_CET, CetControl::SH_STK_EN),
    Set(F::GUEST_SSP, HOLE + 0x1000),
    Hole(NOT_WRITABLE | EptEntry::SUPERVISOR_SHADOW_STACK),
    ShadowHole,
];
/// Which word of its frame IRET reads first is the processor's choice.
const ANY_OF_THE_FRAME: u64 = !0xff;
const MONITOR_FEATURE: Change = Feature(1, 0, 2, 3, "MONITOR");
const WAITPKG: Change = Feature(7, 0, 2, 5, "WAITPKG");
const NOT_WRITABLE: u64 = crate::trial::EVERYTHING & !EptEntry::WRITE;

/// Runs every case, those in x2APIC mode or the others; INIT after them all.
pub fn run(trial: &mut Trial, report: &mut Report, x2apic: bool) {
    let belongs = |case: &ExitCase| (case.started || crate::needs_x2apic(case.changes)) == x2apic;
    for (index, case) in CASES.iter().enumerate().filter(|(_, case)| belongs(case)) {
        let number = CASES[..index].iter().filter(|other| other.reason == case.reason).count();
        let name = case.reason.text();
        match run_case(trial, case) {
            Ok(Ok(())) => report.ok("exit", name, number),
            Ok(Err((what, outcome))) => report.fail("exit", name, number, format_args!("{what}: {outcome}")),
            Err(obstacle) => report.skip("exit", name, number, obstacle),
        }
    }
}

/// Says which exit reasons have no case.
pub fn find_missing(report: &mut Report) {
    for reason in R::ALL {
        let has_case = CASES.iter().any(|case| case.reason == *reason);
        let row = UNRAISED.iter().find(|row| row.reason == *reason);
        let announced = row.and_then(|row| row.control).is_some_and(|(word, bit)| word.limits().1 & bit != 0);
        match row {
            None if !has_case => report.fail("exit", reason.text(), 0, "has no case"),
            Some(_) if has_case => report.fail("exit", reason.text(), 0, "has a case and a reason to have none"),
            Some(_) if announced => {
                report.fail("exit", reason.text(), 0, "its control is announced, but it has no case");
            }
            Some(row) => println!("none exit {}: {}", reason.text(), row.why),
            None => {}
        }
    }
}

type Verdict = Result<(), (&'static str, Outcome)>;

fn run_case(trial: &mut Trial, case: &ExitCase) -> Result<Verdict, Obstacle> {
    trial.prepare(case.base)?;
    trial.apply(case.changes)?;
    if case.base != Base::Real {
        trial.guest_code(case.code);
    }
    if case.started {
        if cpu::read_msr(msr::VMX_MISC).unwrap_or(0) & misc::ACTIVITY_WAIT_FOR_SIPI == 0 {
            return Err(Obstacle::Missing("activity state wait-for-SIPI"));
        }
        if !startup::begin() {
            return Err(Obstacle::Missing("a second processor"));
        }
    }
    let outcome = trial.enter();
    if case.started {
        startup::end();
    }
    let Outcome::Exit(exit) = outcome else { return Ok(Err(("no exit", outcome))) };
    Ok(check(case, &exit).map_err(|what| (what, outcome)))
}

fn check(case: &ExitCase, exit: &Exit) -> Result<(), &'static str> {
    let failed_entry = matches!(case.reason, R::InvalidGuestState | R::MsrLoading);
    let flags = if failed_entry { exit_reason_flags::ENTRY_FAILURE } else { 0 };
    if exit.reason != case.reason as u32 | flags {
        return Err("another exit reason");
    }
    if (exit.qualification ^ case.qualification) & case.qualification_mask != 0 {
        return Err("another exit qualification");
    }
    if case.length.is_some_and(|length| length != exit.length) {
        return Err("another instruction length");
    }
    if let Some((value, mask)) = case.info
        && (exit.info as u32 ^ value) & mask != 0
    {
        return Err("other instruction information");
    }
    if case.interruption.is_some_and(|event| event != exit.interruption) {
        return Err("other interruption information");
    }
    // The guest's RIP: at the instruction that exits, or after one that has completed.
    let moved = exit.rip != code::address(case.code);
    if moved != case.trap && !failed_entry {
        return Err("RIP is elsewhere");
    }
    Ok(())
}
