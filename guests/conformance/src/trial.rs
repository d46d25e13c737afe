//! One VMCS at a time: prepared, changed, entered.

use crate::change::{Change, Obstacle, Places, SCRATCH_PAGES};
use crate::code;
use bare::vmx::instructions::invept;
use bare::vmx::state::{self, CODE32, Word, nth};
use bare::vmx::{self, Entered, Failure, Hypervisor, Registers};
use bare::{cpu, memory};
use spec::vmx::capability::EptVpidCap;
use spec::vmx::ept::{EptEntry, invept_type};
use spec::vmx::{
    EntryControls, ExitReason, PinBasedControls, SecondaryControls, VmInstructionError, VmcsField as Field,
};
use spec::x86::{Cr0, Cr4, Efer, msr};

/// An EPT entry of a 2 MiB page with every permission, write-back.
pub const EVERYTHING: u64 = EptEntry::PERMISSIONS | EptEntry::PAGE | 6 << EptEntry::MEMORY_TYPE_SHIFT;

/// Where guests in real mode begin, in the page of the PDPTEs.
const REAL_CODE: u64 = 0x100;
/// Bytes of a guest's stack.
const STACK: u64 = 2 * memory::PAGE;
/// What the preemption timer begins with in every trial whose processor has it: no guest runs for longer.
const PATIENCE: u64 = 0x4000;

/// The mode that the guest is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// 64-bit mode.
    Long,
    /// Protected mode, 32-bit code, PAE paging.
    Pae,
    /// Virtual-8086 mode, PAE paging.
    V86,
    /// Real-address mode, an unrestricted guest.
    Real,
    /// As [`Base::Pae`], and the hypervisor is in that mode, too.
    Legacy,
}

/// What a VM exit said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit-reason field.
    pub reason: u32,
    /// The exit qualification.
    pub qualification: u64,
    /// The VM-exit instruction length.
    pub length: u64,
    /// The VM-exit instruction information.
    pub info: u64,
    /// VM-exit interruption information.
    pub interruption: u64,
    /// RIP of the guest.
    pub rip: u64,
}

impl Exit {
    fn read(reason: u32) -> Exit {
        Exit {
            reason,
            qualification: vmx::read(Field::EXIT_QUALIFICATION),
            length: vmx::read(Field::EXIT_INSTRUCTION_LENGTH),
            info: vmx::read(Field::EXIT_INSTRUCTION_INFO),
            interruption: vmx::read(Field::EXIT_INTERRUPTION_INFO),
            rip: vmx::read(Field::GUEST_RIP),
        }
    }

    /// Whether the basic exit reason is `reason` and the entry did not fail.
    #[must_use]
    pub fn is(&self, reason: ExitReason) -> bool {
        self.reason & 0x8000_ffff == reason as u32
    }

    /// The vector that the guest's own IDT delivered, when the exit is the VMCALL of its handler.
    #[must_use]
    pub fn delivered(&self) -> Option<u8> {
        if self.is(ExitReason::Vmcall) { bare::boot::guest_vector(self.rip) } else { None }
    }

    /// Whether the guest came to the VMCALL at the end of its code.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is(ExitReason::Vmcall) && self.delivered().is_none()
    }
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// VMfail or an exception.
    Failed(Failure),
    /// A VM exit, or a VM-entry failure that looks like one.
    Exit(Exit),
}

impl Outcome {
    /// The exit, if there was one.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Outcome::Exit(exit) => Some(*exit),
            Outcome::Failed(_) => None,
        }
    }

    /// Whether it is an exit for this reason, of an entry that did not fail.
    #[must_use]
    pub fn is(&self, reason: ExitReason) -> bool {
        self.exit().is_some_and(|exit| exit.is(reason))
    }

    /// Whether the guest came to the VMCALL at the end of its code.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.exit().is_some_and(|exit| exit.is_done())
    }

    /// The vector that the guest's own IDT delivered.
    #[must_use]
    pub fn delivered(&self) -> Option<u8> {
        self.exit().and_then(|exit| exit.delivered())
    }

    /// Whether the entry failed by VMfailValid with this error.
    #[must_use]
    pub fn failed_with(&self, error: VmInstructionError) -> bool {
        matches!(self, Outcome::Failed(failure) if failure.is(error))
    }
}

impl core::fmt::Display for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Outcome::Failed(failure) => write!(f, "{failure:?}"),
            Outcome::Exit(exit) => {
                let name = ExitReason::from_number(exit.reason as u16).map_or("unknown", ExitReason::text);
                write!(f, "exit {:#x} ({name})", exit.reason)?;
                if let Some(vector) = exit.delivered() {
                    write!(f, " in the guest's handler of vector {vector}")?;
                }
                write!(
                    f,
                    ", qualification {:#x}, length {}, information {:#x}, interruption {:#x}, RIP {:#x}",
                    exit.qualification, exit.length, exit.info, exit.interruption, exit.rip
                )
            }
        }
    }
}

/// The processor with one VMCS, and memory for its tables.
#[derive(Debug)]
pub struct Trial {
    /// The hypervisor.
    pub hypervisor: Hypervisor,
    /// The first of the scratch pages.
    pub scratch: u64,
    /// A page of zeroes, where every table is that a case says nothing of.
    zero: u64,
    stack: u64,
    /// A PDPT of the first 4 GiB, for PAE paging.
    pae_table: u64,
    /// The EPT pointer of the first 4 GiB, one to one.
    pub eptp: u64,
    /// The page directory of the first GiB in EPT: 512 entries of 2 MiB pages.
    pub ept_directory: u64,
    /// The guest's general registers, before and after.
    pub registers: Registers,
    base: Base,
    cr0: u64,
    cr4: u64,
    /// The local APIC stays in x2APIC mode once it is: not every processor gets it out again.
    pub keeps_x2apic: bool,
    /// MSRs that cases change, as they were.
    msrs: [(u32, u64); 8],
}

/// Offsets of the local APIC's registers.
mod apic {
    pub const END_OF_INTERRUPT: u64 = 0xb0;
    pub const SPURIOUS: u64 = 0xf0;
}

impl Trial {
    /// Enters VMX operation.
    ///
    /// # Errors
    /// What the processor refused.
    pub fn new() -> Result<Self, &'static str> {
        let hypervisor = Hypervisor::start()?;
        let (eptp, ept_directory) = identity_ept();
        let pae_table = memory::take_pages(1);
        // The page directories of the host's own tables serve PAE paging as well; PDPTEs have fewer bits.
        let directories = vmx::page_tables() + 2 * memory::PAGE;
        for n in 0..4 {
            memory::write(pae_table + 8 * n, (directories + memory::PAGE * n) | 1);
        }
        Ok(Self {
            hypervisor,
            scratch: memory::take_pages(SCRATCH_PAGES as usize),
            zero: memory::take_pages(1),
            stack: memory::take_pages((STACK / memory::PAGE) as usize),
            pae_table,
            eptp,
            ept_directory,
            registers: [0; 16],
            base: Base::Long,
            cr0: cpu::read_cr0(),
            cr4: cpu::read_cr4(),
            keeps_x2apic: false,
            msrs: [
                msr::PAT,
                msr::EFER,
                msr::XSS,
                msr::S_CET,
                msr::PKRS,
                msr::SPEC_CTRL,
                msr::PERF_GLOBAL_CTRL,
                msr::KERNEL_GS_BASE,
            ]
            .map(|number| (number, cpu::read_msr(number).unwrap_or(0))),
        })
    }

    /// A clear VMCS that passes every check, with a guest in this mode at a VMCALL.
    ///
    /// # Errors
    /// Why there is no guest in this mode.
    pub fn prepare(&mut self, base: Base) -> Result<(), Obstacle> {
        self.restore_host();
        self.base = base;
        self.registers = [0; 16];
        (0..SCRATCH_PAGES).for_each(|page| memory::fill(crate::change::scratch(self.scratch, page), 0));
        memory::fill(self.zero, 0);
        self.places().set_hole(EVERYTHING);
        let _ = invept(invept_type::ALL_CONTEXT, [0; 2]);
        self.hypervisor.clear().map_err(Obstacle::Missing)?;
        state::write_valid(code::address(code::done), self.stack + STACK - 64);
        for field in TABLES {
            vmx::write(field, self.zero);
        }
        for (field, value) in [
            (Field::EPT_POINTER, self.eptp),
            (Field::VPID, 1),
            (Field::TSC_MULTIPLIER, 1 << 48),
            (Field::PREEMPTION_TIMER, PATIENCE),
        ] {
            vmx::write(field, value);
        }
        let timer = u64::from(PinBasedControls::PREEMPTION_TIMER);
        vmx::write(Field::PIN_BASED_CONTROLS, vmx::read(Field::PIN_BASED_CONTROLS) | timer & Word::Pin.limits().1);
        match base {
            Base::Long => Ok(()),
            Base::Pae | Base::Legacy => {
                if base == Base::Legacy {
                    vmx::legacy::write_host(self.pae_table);
                }
                self.leave_ia32e();
                vmx::write(Field::GUEST_CS_ACCESS_RIGHTS, CODE32);
                Ok(())
            }
            Base::V86 => {
                self.leave_ia32e();
                vmx::write(Field::GUEST_RFLAGS, 0x2_0002);
                (0..6).for_each(|n| real_segment(n, 0xf3));
                Ok(())
            }
            Base::Real => self.real_mode(),
        }
    }

    /// The processor as it was at first, whatever the last exit loaded.
    fn restore_host(&mut self) {
        if cpu::read_cr0() != self.cr0 {
            cpu::write_cr0(self.cr0);
        }
        if cpu::read_cr4() != self.cr4 {
            cpu::write_cr4(self.cr4);
        }
        cpu::write_dr7(0x400);
        cpu::write_cr8(0);
        for (number, value) in self.msrs {
            if cpu::read_msr(number).is_ok_and(|now| now != value) {
                let _ = cpu::write_msr(number, value);
            }
        }
        let base = cpu::read_msr(msr::APIC_BASE).unwrap_or(0);
        if base & X2APIC_ENABLE != 0 && self.keeps_x2apic {
            let _ = cpu::write_msr(msr::X2APIC_FIRST + 0xb, 0);
        } else if base & X2APIC_ENABLE != 0 {
            let _ = cpu::write_msr(msr::APIC_BASE, base & !(X2APIC_ENABLE | APIC_ENABLE));
            let _ = cpu::write_msr(msr::APIC_BASE, base & !X2APIC_ENABLE);
        }
        if base & X2APIC_ENABLE == 0 || !self.keeps_x2apic {
            memory::write_apic(apic::SPURIOUS, 0x1ff);
            memory::write_apic(apic::END_OF_INTERRUPT, 0);
        }
        cpu::unblock_nmis();
        cpu::admit_interrupts();
        let _ = bare::exceptions::take_interrupt();
    }

    fn leave_ia32e(&self) {
        let entry = vmx::read(Field::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E_MODE_GUEST);
        vmx::write(Field::ENTRY_CONTROLS, entry);
        vmx::write(Field::GUEST_CR3, self.pae_table);
        for (n, field) in
            (0..).zip([Field::GUEST_PDPTE0, Field::GUEST_PDPTE1, Field::GUEST_PDPTE2, Field::GUEST_PDPTE3])
        {
            vmx::write(field, memory::read(self.pae_table + 8 * n));
        }
        vmx::write(Field::GUEST_EFER, vmx::read(Field::GUEST_EFER) & !(Efer::LMA | Efer::LME));
    }

    fn real_mode(&mut self) -> Result<(), Obstacle> {
        let bits = SecondaryControls::ENABLE_EPT | SecondaryControls::UNRESTRICTED_GUEST;
        self.apply(&[Change::Or(Field::SECONDARY_CONTROLS, bits.into())])?;
        self.leave_ia32e();
        vmx::write(Field::GUEST_CR0, vmx::read(Field::GUEST_CR0) & !(Cr0::PE | Cr0::PG));
        vmx::write(Field::GUEST_CR4, vmx::read(Field::GUEST_CR4) & !Cr4::PAE);
        (0..6).for_each(|n| real_segment(n, if n == 1 { 0x9b } else { 0x93 }));
        vmx::write(Field::GUEST_IDTR_BASE, 0);
        vmx::write(Field::GUEST_IDTR_LIMIT, 0x3ff);
        // This program is out of reach at 16 bits: VMCALL, behind the PDPTEs, ends a guest that just passes.
        memory::write(self.pae_table + REAL_CODE, 0xc1_010f);
        vmx::write(Field::GUEST_CS_BASE, self.pae_table);
        vmx::write(Field::GUEST_RIP, REAL_CODE);
        Ok(())
    }

    /// Makes changes, in order.
    ///
    /// # Errors
    /// Why the first that cannot be made cannot.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Obstacle> {
        let mut places = self.places();
        changes.iter().try_for_each(|change| change.apply(&mut places))
    }

    /// Where changes are made.
    pub fn places(&mut self) -> Places<'_> {
        Places { scratch: self.scratch, ept_directory: self.ept_directory, registers: &mut self.registers }
    }

    /// The guest begins with this code.
    pub fn guest_code(&self, code: code::Code) {
        vmx::write(Field::GUEST_RIP, code::address(code));
    }

    /// The address of a scratch page.
    #[must_use]
    pub fn page(&self, page: u64) -> u64 {
        crate::change::scratch(self.scratch, page)
    }

    /// Enters the guest.
    pub fn enter(&mut self) -> Outcome {
        let entered = match self.base {
            Base::Legacy => self.hypervisor.enter_from_32_bits(self.pae_table),
            _ => self.hypervisor.enter(&mut self.registers),
        };
        match entered {
            Entered::Failed(failure) => Outcome::Failed(failure),
            Entered::Exit(reason) => Outcome::Exit(Exit::read(reason)),
        }
    }

    /// The guest goes on after the instruction that exited.
    pub fn skip_instruction(&self) {
        vmx::write(Field::GUEST_RIP, vmx::read(Field::GUEST_RIP) + vmx::read(Field::EXIT_INSTRUCTION_LENGTH));
    }
}

/// IA32_APIC_BASE: x2APIC mode.
pub const X2APIC_ENABLE: u64 = 1 << 10;
/// IA32_APIC_BASE: the local APIC is on.
pub const APIC_ENABLE: u64 = 1 << 11;

/// Address fields that a case may bring into use without saying where.
const TABLES: [Field; 13] = [
    Field::IO_BITMAP_A,
    Field::IO_BITMAP_B,
    Field::MSR_BITMAPS,
    Field::VIRTUAL_APIC_ADDRESS,
    Field::APIC_ACCESS_ADDRESS,
    Field::POSTED_INTERRUPT_DESCRIPTOR,
    Field::PML_ADDRESS,
    Field::EPTP_LIST_ADDRESS,
    Field::VMREAD_BITMAP,
    Field::VMWRITE_BITMAP,
    Field::VE_INFORMATION_ADDRESS,
    Field::SPP_TABLE_POINTER,
    Field::PID_POINTER_TABLE,
];

fn real_segment(n: u32, rights: u64) {
    vmx::write(nth(Field::GUEST_ES_SELECTOR, n), 0);
    vmx::write(nth(Field::GUEST_ES_BASE, n), 0);
    vmx::write(nth(Field::GUEST_ES_LIMIT, n), 0xffff);
    vmx::write(nth(Field::GUEST_ES_ACCESS_RIGHTS, n), rights);
}

/// EPT tables for the first 4 GiB in pages of 2 MiB: the EPT pointer and the first page directory.
fn identity_ept() -> (u64, u64) {
    let capabilities = EptVpidCap(cpu::read_msr(msr::VMX_EPT_VPID_CAP).unwrap_or(0));
    let memory_type = if capabilities.has(EptVpidCap::MEMORY_WB) { 6 } else { 0 };
    let tables = memory::take_pages(6);
    memory::write(tables, (tables + memory::PAGE) | EptEntry::PERMISSIONS);
    for n in 0..4 {
        memory::write(tables + memory::PAGE + 8 * n, (tables + memory::PAGE * (2 + n)) | EptEntry::PERMISSIONS);
    }
    for n in 0..2048 {
        memory::write(tables + 2 * memory::PAGE + 8 * n, n << 21 | EVERYTHING | EptEntry::ACCESSED | EptEntry::DIRTY);
    }
    (tables | memory_type | 3 << 3, tables + 2 * memory::PAGE)
}
