//! The state of one logical processor.

use crate::apic::LocalApic;
use crate::bus::Bus;
use crate::cet::{CetCode, ShadowCache};
use crate::debugger::Debugger;
use crate::decode::ops::Trail;
use crate::flags::{self, LateFlags};
use crate::memory::locked::Locked;
use crate::memory::map::MemoryMap;
use crate::memory::ram::GuestRam;
use crate::memory::tlb::Tlb;
use crate::models::Model;
use crate::observe::{History, Observer};
use crate::peers::{HostClock, Peers};
use crate::run::{Activity, JumpCache};
use crate::segment::{self, BIG, CS, LONG, SS, Segment};
use crate::system::event::PendingEvents;
use crate::system::halt::Monitor;
use crate::system::msrs::Msrs;
use crate::trap::Trap;
use crate::vmx::{Vmx, VmxCapabilities};
use crate::x87::X87;
use std::sync::Arc;

/// Slot in [`Cpu::regs`] that is always zero: "no base", "no index".
pub const ZERO_REG: u8 = 16;
/// Slot in [`Cpu::regs`] with the RIP that corresponds to offset 0 of the running block's page: base of RIP-relative operands.
pub const RIP_BASE_REG: u8 = 17;
/// RAX.
pub const RAX: usize = 0;
/// RCX.
pub const RCX: usize = 1;
/// RDX.
pub const RDX: usize = 2;
/// RBX.
pub const RBX: usize = 3;
/// RSP.
pub const RSP: usize = 4;
/// RBP.
pub const RBP: usize = 5;
/// RSI.
pub const RSI: usize = 6;
/// RDI.
pub const RDI: usize = 7;

/// The operating mode, from CR0.PE, RFLAGS.VM, EFER.LMA and CS.L.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode (IA-32e mode inactive).
    Protected,
    /// Compatibility mode.
    Compatibility,
    /// 64-bit mode.
    Long64,
}

/// A descriptor-table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Last valid byte.
    pub limit: u16,
}

/// One logical processor.
pub struct Cpu {
    /// General registers 0..16, then internal slots ([`ZERO_REG`], [`RIP_BASE_REG`]). As many as a `u8` can name, so that no index need be checked.
    pub regs: [u64; 256],
    /// Status flags.
    pub flags: LateFlags,
    /// RIP of the next instruction; right at instruction boundaries that the run loop sees, and inside an instruction that runs on its own.
    pub rip: u64,
    /// RFLAGS without the status flags (bit 1 is set).
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS and two with base zero ([`segment::ZERO`], [`segment::ZERO_STACK`]).
    pub segs: [Segment; 8],
    /// The software TLB.
    pub tlb: Tlb,
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// The instruction runs on its own: time is exact and the board may be touched.
    pub exact: bool,
    /// The running instruction ends its block, so it may store to code without being on its own.
    pub(crate) code_stores: bool,
    /// The way through linked blocks.
    pub(crate) trail: Trail,
    /// Why the last handler trapped.
    pub trap: Trap,
    /// The linear address of a page fault that was raised; it enters CR2 on delivery.
    pub fault_address: u64,
    /// The #GP just raised is for a non-canonical address: #SS if the operand is the stack's.
    pub non_canonical: bool,
    /// Instructions retired.
    pub instructions: u64,
    /// Virtual nanoseconds that passed without instructions (halted, waiting for the others).
    pub idle_time: u64,
    /// Something must be looked at between instructions; see [`crate::run::attention`].
    pub attention: u32,
    /// Current privilege level.
    pub cpl: u8,
    /// Operating mode; see [`Cpu::mode_changed`].
    pub mode: Mode,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// PKRU.
    pub pkru: u32,
    /// SSP, the shadow-stack pointer.
    pub ssp: u64,
    /// What code is decoded for, as far as CET matters; see [`Cpu::cet_changed`].
    pub cet: CetCode,
    /// Code is decoded to watch for bus locks.
    pub(crate) watches_locks: bool,
    /// The PDPTE registers of PAE paging.
    pub pdptes: [u64; 4],
    /// DR0..DR3, -, -, DR6, DR7.
    pub dr: [u64; 8],
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// YMM0..YMM15 as four quadwords each, low first.
    pub ymm: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 registers, which MMX shares.
    pub x87: X87,
    /// SSE instructions fault: 0 no, 1 #NM, 2 #UD. See [`Cpu::fpu_state_changed`].
    pub sse_blocked: u8,
    /// The same for VEX-encoded instructions.
    pub avx_blocked: u8,
    /// Bits in a physical address (MAXPHYADDR).
    pub physical_bits: u8,
    /// The physical map of memory.
    pub map: Arc<MemoryMap>,
    /// The board.
    pub bus: Box<dyn Bus>,
    /// Data breakpoints hit by the running instruction (bits 0..4 of DR6).
    pub pending_breakpoints: u64,
    /// State of RDRAND's generator.
    pub random_state: u64,
    /// Number of this processor, from 0; not its APIC id.
    pub index: usize,
    /// Running, halted, waiting.
    pub activity: Activity,
    /// The CPU model.
    pub model: Arc<Model>,
    /// Number of processors of the machine, which CPUID reports.
    pub processors: u32,
    /// The local APIC.
    pub apic: LocalApic,
    /// Model-specific registers that are no part of anything else.
    pub msrs: Msrs,
    /// Events that wait for an instruction boundary.
    pub events: PendingEvents,
    /// What MONITOR set up.
    pub monitor: Monitor,
    /// VT-x.
    pub vmx: Vmx,
    /// Who watches this processor.
    pub observer: Option<Box<dyn Observer>>,
    /// What is remembered for diagnosis.
    pub history: History,
    /// The other processors, on a parallel machine.
    pub(crate) peers: Option<Arc<Peers>>,
    /// The host's clock, where virtual time is its.
    pub(crate) clock: Option<HostClock>,
    /// What the others know of the local APIC.
    pub(crate) published: Option<crate::apic::Address>,
    /// The locked access that is being made, on a parallel machine.
    pub(crate) locked: Locked,
    /// What a debugger wants.
    pub(crate) debugger: Debugger,
    /// Blocks by linear address.
    pub(crate) jumps: JumpCache,
    /// Translations of shadow-stack pages.
    pub(crate) shadow_cache: ShadowCache,
}

impl Cpu {
    /// A processor after power-on reset (SDM Vol 3A, table 10-1).
    pub fn new(index: usize, ram: Arc<GuestRam>, map: Arc<MemoryMap>, bus: Box<dyn Bus>) -> Self {
        let mut cpu = Self {
            regs: [0; 256],
            flags: LateFlags::from_bits(0),
            rip: 0,
            rflags: 2,
            segs: [Segment::default(); 8],
            tlb: Tlb::new(index, ram.clone()),
            ram,
            exact: false,
            code_stores: false,
            trail: Trail::default(),
            trap: Trap::Continue,
            fault_address: 0,
            non_canonical: false,
            instructions: 0,
            idle_time: 0,
            attention: 0,
            cpl: 0,
            mode: Mode::Real,
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            xcr0: 1,
            efer: 0,
            pkru: 0,
            ssp: 0,
            cet: CetCode::Off,
            watches_locks: false,
            pdptes: [0; 4],
            dr: [0; 8],
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            ldtr: Segment::default(),
            tr: Segment::default(),
            ymm: [[0; 4]; 16],
            mxcsr: 0x1f80,
            x87: X87::power_on(),
            sse_blocked: 0,
            avx_blocked: 0,
            physical_bits: 46,
            map,
            bus,
            pending_breakpoints: 0,
            random_state: index as u64,
            index,
            activity: Activity::Active,
            processors: 1,
            apic: LocalApic::new(index as u32, index == 0),
            msrs: Msrs::default(),
            events: PendingEvents::default(),
            monitor: Monitor::default(),
            model: Arc::new(Model::default_model()),
            vmx: Vmx::new(VmxCapabilities::new(&Model::default_model())),
            observer: None,
            history: History::default(),
            peers: None,
            clock: None,
            published: None,
            locked: Locked::default(),
            debugger: Debugger::default(),
            jumps: JumpCache::new(),
            shadow_cache: ShadowCache::new(),
        };
        cpu.power_on();
        cpu
    }

    /// Makes ready for translated code. False where the host cannot.
    pub fn use_translator(&mut self) -> bool {
        let blocks = crate::translator::state::Blocks::new(self.ram.host_address());
        self.tlb.native = blocks.ok().filter(|_| crate::translator::supported()).map(Box::new);
        self.tlb.native.is_some()
    }

    /// The same processor as another model, in a machine with this many. The APIC id is the processor's number.
    #[must_use]
    pub fn with_model(mut self, model: Arc<Model>, processors: u32) -> Self {
        self.model = model;
        self.processors = processors;
        self.physical_bits = self.model.physical_bits;
        self.vmx = Vmx::new(VmxCapabilities::new(&self.model));
        self.power_on();
        self
    }

    /// Registers after power-on. A processor that is not the bootstrap one waits for a start-up message.
    pub fn power_on(&mut self) {
        self.apic = LocalApic::new(self.index as u32, self.index == 0);
        self.msrs = Msrs::reset(&self.model);
        self.events = PendingEvents::default();
        self.vmx.leave_operation();
        self.reset_registers();
        if !self.apic.is_bootstrap() {
            self.activity = Activity::WaitForSipi;
            self.attention |= crate::run::attention::INACTIVE;
        }
    }

    /// The registers that INIT resets too.
    pub(crate) fn reset_registers(&mut self) {
        self.regs = [0; 256];
        self.regs[RDX] = u64::from(self.model.signature);
        self.rip = 0xfff0;
        self.rflags = 2;
        self.flags = LateFlags::from_bits(0);
        self.segs = [Segment::real(0); 8];
        self.segs[CS] =
            Segment { base: 0xffff_0000, access: Segment::real(0).access | segment::CODE, ..Segment::real(0xf000) };
        self.ldtr = Segment { selector: 0, base: 0, limit: 0xffff, access: segment::PRESENT | 2 };
        self.tr = Segment { selector: 0, base: 0, limit: 0xffff, access: segment::PRESENT | 11 };
        self.gdtr = TableRegister { base: 0, limit: 0xffff };
        self.idtr = TableRegister { base: 0, limit: 0xffff };
        self.cr0 = 0x6000_0010;
        (self.cr2, self.cr3, self.cr4, self.efer, self.xcr0, self.pkru) = (0, 0, 0, 0, 1, 0);
        // INIT resets CET's state too, unlike most of what XSAVES manages.
        self.ssp = 0;
        self.msrs.reset_cet();
        self.dr = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];
        self.ymm = [[0; 4]; 16];
        self.mxcsr = 0x1f80;
        self.x87 = X87::power_on();
        self.cpl = 0;
        (self.activity, self.monitor) = (Activity::Active, Monitor::default());
        self.tlb.flush_all();
        self.mode_changed();
    }

    /// Virtual time in nanoseconds: one instruction is one nanosecond, exact only while [`Cpu::exact`] or between blocks; on a parallel machine
    /// it is the host's.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        match &self.clock {
            None => self.instructions.wrapping_add(self.idle_time),
            Some(clock) => clock.now(),
        }
    }

    /// RFLAGS, complete.
    #[inline]
    pub fn rflags(&self) -> u64 {
        self.rflags | self.flags.bits()
    }

    /// Sets every bit of RFLAGS that exists (bit 1 stays set). The caller has done the privilege checks.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags = LateFlags::from_bits(value);
        self.set_system_flags(value);
    }

    /// As [`Cpu::set_rflags`], for a caller that sees to the status flags.
    #[inline]
    pub(crate) fn set_system_flags(&mut self, value: u64) {
        let old = self.rflags;
        self.rflags = value & 0x003f_7700 | 2;
        if (old ^ self.rflags) & flags::VM != 0 {
            self.mode_changed();
        } else if (old ^ self.rflags) & flags::AC != 0 {
            self.privilege_changed();
        }
        if self.rflags & (flags::TF | flags::RF) != 0 {
            self.recheck_events();
        }
        if self.rflags & !old & flags::IF != 0 {
            self.interrupts_enabled();
        }
    }

    /// To be called after CR0, CR4, EFER, RFLAGS.VM, CS or SS changed: derives [`Cpu::mode`], and what follows from it.
    pub fn mode_changed(&mut self) {
        self.mode = if self.cr0 & 1 == 0 {
            Mode::Real
        } else if self.rflags & flags::VM != 0 {
            Mode::Virtual8086
        } else if self.efer & (1 << 10) == 0 {
            Mode::Protected
        } else if self.segs[CS].access & LONG != 0 {
            Mode::Long64
        } else {
            Mode::Compatibility
        };
        self.segs[segment::ZERO] = Segment { limit: u32::MAX, access: segment::PRESENT | 0x13, ..Segment::default() };
        self.segs[segment::ZERO_STACK] = self.segs[segment::ZERO];
        self.fpu_state_changed();
        self.mmu_mode_changed();
    }

    /// To be called after CR0.EM/TS, CR4.OSFXSR/OSXSAVE or XCR0 changed.
    pub fn fpu_state_changed(&mut self) {
        let (em, ts) = (self.cr0 & 4 != 0, self.cr0 & 8 != 0);
        self.sse_blocked = if em || self.cr4 & (1 << 9) == 0 { 2 } else { ts as u8 };
        let avx_off =
            self.cr4 & (1 << 18) == 0 || self.xcr0 & 6 != 6 || matches!(self.mode, Mode::Real | Mode::Virtual8086);
        self.avx_blocked = if avx_off { 2 } else { ts as u8 };
    }

    /// 16-, 32- or 64-bit code: 0, 1, 2.
    #[inline]
    pub fn code_size(&self) -> u8 {
        match self.mode {
            Mode::Long64 => 2,
            Mode::Real | Mode::Virtual8086 | Mode::Protected | Mode::Compatibility => {
                (self.segs[CS].access & BIG != 0) as u8
            }
        }
    }

    /// The mask of the stack pointer: 64-bit code, else SS.B.
    #[inline(always)]
    pub fn stack_mask(&self) -> u64 {
        if self.mode == Mode::Long64 {
            u64::MAX
        } else if self.segs[SS].access & BIG != 0 {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Sets the current privilege level.
    pub fn set_cpl(&mut self, cpl: u8) {
        self.cpl = cpl;
        self.mmu_mode_changed();
    }

    /// In protected mode of any width, not virtual-8086.
    #[inline]
    pub fn protected(&self) -> bool {
        !matches!(self.mode, Mode::Real | Mode::Virtual8086)
    }

    /// IA-32e mode is active.
    #[inline]
    pub fn long_mode(&self) -> bool {
        self.efer & (1 << 10) != 0
    }
}
