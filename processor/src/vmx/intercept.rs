//! What instructions ask before they run: in VMX non-root operation the controls may turn them into VM exits, change what they
//! see, or make them undefined (SDM Vol. 3C, 26.1 to 26.4).
//!
//! An instruction calls these after its own #UD and privilege (and I/O permission) checks and before anything else: those faults have
//! priority over VM exits, all others come after (26.1.1). Outside non-root operation each costs one test. What there is to intercept
//! is named in [`crate::system::intercept`].

use super::exit::{Exit, instruction_info};
use super::msr_bitmap;
use crate::cpu::Cpu;
use crate::decode::Op;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::system::halt::PAUSE_TIME;
use crate::system::intercept::{Intercept, TaskSwitchSource};
use crate::trap::Exec;
use spec::vmx::qualification::{cr_access, dr_access, instruction_info as layout, io, task_switch};
use spec::vmx::{ExitReason, PrimaryControls as Primary, SecondaryControls as Secondary, VmcsField};
use spec::x86::Cr0;
use spec::x86::control_registers::Cr4;

impl Cpu {
    /// Makes the VM exit that `what` causes, if it causes one; #UD where a control makes the instruction undefined. `op` is the
    /// instruction; for a task gate met while an event is delivered there is none.
    #[inline(always)]
    pub(crate) fn intercept(&mut self, op: Option<&Op>, what: Intercept) -> Exec {
        if self.vmx.non_root { self.intercept_non_root(op, what) } else { Ok(()) }
    }

    #[inline(never)]
    fn intercept_non_root(&mut self, op: Option<&Op>, what: Intercept) -> Exec {
        use ExitReason as R;
        let controls = self.vmx.controls;
        let primary = |bit| controls.primary.has(bit);
        let secondary = |bit| controls.secondary.has(bit);
        let mut exit = Exit::new(R::Cpuid, 0);
        if let Some(op) = op {
            exit.length = u32::from(op.length);
            exit.info = self.instruction_info(op, what);
            if exit.info != 0
                && exit.info & layout::REGISTER == 0
                && !matches!(what, Intercept::Rdrand | Intercept::Rdseed | Intercept::Umwait(_) | Intercept::Tpause)
            {
                exit.qualification = self.displacement(op);
            }
        }
        let (due, reason) = match what {
            Intercept::Cpuid => (true, R::Cpuid),
            Intercept::Invd => (true, R::Invd),
            Intercept::Xsetbv => (true, R::Xsetbv),
            Intercept::Hlt => (primary(Primary::HLT_EXITING), R::Hlt),
            Intercept::Invlpg(address) => {
                exit.qualification = address;
                (primary(Primary::INVLPG_EXITING), R::Invlpg)
            }
            Intercept::Invpcid => {
                self.enabled(Secondary::ENABLE_INVPCID)?;
                (primary(Primary::INVLPG_EXITING), R::Invpcid)
            }
            Intercept::Monitor => (primary(Primary::MONITOR_EXITING), R::Monitor),
            Intercept::Mwait(armed) => {
                exit.qualification = u64::from(armed);
                (primary(Primary::MWAIT_EXITING), R::Mwait)
            }
            Intercept::Pause => (self.pause_exits(), R::Pause),
            Intercept::UserWait => return self.enabled(Secondary::ENABLE_USER_WAIT),
            Intercept::Umwait(armed) => {
                exit.qualification = u64::from(armed);
                (primary(Primary::RDTSC_EXITING), R::Umwait)
            }
            Intercept::Tpause => (primary(Primary::RDTSC_EXITING), R::Tpause),
            Intercept::Rdmsr(number) => (self.msr_exits(number, false), R::Rdmsr),
            Intercept::Wrmsr(number) => (self.msr_exits(number, true), R::Wrmsr),
            Intercept::Rdpmc => (primary(Primary::RDPMC_EXITING), R::Rdpmc),
            Intercept::Rdtsc => (primary(Primary::RDTSC_EXITING), R::Rdtsc),
            Intercept::Rdtscp => {
                self.enabled(Secondary::ENABLE_RDTSCP)?;
                (primary(Primary::RDTSC_EXITING), R::Rdtscp)
            }
            Intercept::Rdpid => return self.enabled(Secondary::ENABLE_RDTSCP),
            Intercept::Rdrand => (secondary(Secondary::RDRAND_EXITING), R::Rdrand),
            Intercept::Rdseed => (secondary(Secondary::RDSEED_EXITING), R::Rdseed),
            Intercept::Wbinvd => (secondary(Secondary::WBINVD_EXITING), R::Wbinvd),
            Intercept::Xsaves(components) | Intercept::Xrstors(components) => {
                self.enabled(Secondary::ENABLE_XSAVES)?;
                let bitmap = self.vmx.vmcs.get(VmcsField::XSS_EXITING_BITMAP);
                let save = matches!(what, Intercept::Xsaves(_));
                (components & bitmap != 0, if save { R::Xsaves } else { R::Xrstors })
            }
            Intercept::GdtrIdtr => (secondary(Secondary::DESCRIPTOR_TABLE_EXITING), R::GdtrIdtr),
            Intercept::LdtrTr => (secondary(Secondary::DESCRIPTOR_TABLE_EXITING), R::LdtrTr),
            Intercept::MovDr { dr, register, read } => {
                let from = if read { dr_access::FROM_DR } else { 0 };
                exit.qualification = u64::from(dr & 7) | from | u64::from(register & 15) << dr_access::GPR_SHIFT;
                (primary(Primary::MOV_DR_EXITING), R::DrAccess)
            }
            Intercept::ReadCr { cr, register } => {
                exit.qualification = cr_qualification(cr, cr_access::MOV_FROM_CR, register);
                let control = if cr == 3 { Primary::CR3_STORE_EXITING } else { Primary::CR8_STORE_EXITING };
                (matches!(cr, 3 | 8) && primary(control), R::CrAccess)
            }
            Intercept::WriteCr { cr, register, value } => {
                exit.qualification = cr_qualification(cr, cr_access::MOV_TO_CR, register);
                (self.mov_to_cr_exits(cr, value), R::CrAccess)
            }
            Intercept::Clts => {
                exit.qualification = cr_qualification(0, cr_access::CLTS, 0);
                let owned = self.vmx.vmcs.get(VmcsField::CR0_MASK) & self.vmx.vmcs.get(VmcsField::CR0_READ_SHADOW);
                (owned & Cr0::TS != 0, R::CrAccess)
            }
            Intercept::Lmsw { value, linear } => {
                exit.qualification = cr_qualification(0, cr_access::LMSW, 0)
                    | if linear.is_some() { cr_access::LMSW_MEMORY } else { 0 }
                    | u64::from(value) << cr_access::LMSW_SOURCE_SHIFT;
                exit.linear = linear.unwrap_or(0);
                (self.lmsw_exits(value), R::CrAccess)
            }
            Intercept::Io { port, size, input, string, repeated, immediate } => {
                let flag = |set: bool, bit: u64| if set { bit } else { 0 };
                exit.qualification = u64::from(size.wrapping_sub(1) & 7)
                    | flag(input, io::IN)
                    | flag(string.is_some(), io::STRING)
                    | flag(repeated, io::REP)
                    | flag(immediate, io::IMMEDIATE)
                    | u64::from(port) << io::PORT_SHIFT;
                exit.linear = string.unwrap_or(0);
                (self.io_exits(port, size), R::Io)
            }
            Intercept::TaskSwitch { selector, source } => {
                exit.qualification = u64::from(selector) | (source as u64) << task_switch::SOURCE_SHIFT;
                if source == TaskSwitchSource::Gate {
                    exit.length = self.events.delivering.map_or(0, |event| u32::from(event.length));
                }
                (true, R::TaskSwitch)
            }
        };
        if due {
            return Err(self.vm_exit(Exit { reason, ..exit }));
        }
        Ok(())
    }

    /// VM-exit instruction information, for the instructions that have it; 0 for others.
    fn instruction_info(&self, op: &Op, what: Intercept) -> u32 {
        use iced_x86::Mnemonic;
        match what {
            Intercept::Invpcid => instruction_info::register_and_memory(op, op.r[0]),
            Intercept::Rdrand | Intercept::Rdseed => {
                let size = op.code().op_code().op_kind(0);
                let size = match size {
                    iced_x86::OpCodeOperandKind::r16_rm => 2,
                    iced_x86::OpCodeOperandKind::r64_rm => 8,
                    _ => 4,
                };
                instruction_info::random(op.r[0], size)
            }
            Intercept::Umwait(_) | Intercept::Tpause => instruction_info::random(op.r[0], 4),
            Intercept::Xsaves(_) | Intercept::Xrstors(_) => instruction_info::memory_operand(op),
            Intercept::GdtrIdtr => {
                let identity = match op.code().mnemonic() {
                    Mnemonic::Sgdt => 0,
                    Mnemonic::Sidt => 1,
                    Mnemonic::Lgdt => 2,
                    _ => 3,
                };
                self.table_register_info(op, identity)
            }
            Intercept::LdtrTr => {
                let identity = match op.code().mnemonic() {
                    Mnemonic::Sldt => 0,
                    Mnemonic::Str => 1,
                    Mnemonic::Lldt => 2,
                    _ => 3,
                };
                self.selector_register_info(op, identity)
            }
            Intercept::Io { string: Some(_), input, .. } => instruction_info::string_io(op, input),
            _ => 0,
        }
    }

    /// #UD unless the secondary control `bit` is 1.
    fn enabled(&mut self, bit: u32) -> Exec {
        if self.vmx.controls.secondary.has(bit) { Ok(()) } else { Err(self.undefined_opcode()) }
    }

    fn msr_exits(&mut self, number: u32, write: bool) -> bool {
        if !self.vmx.controls.primary.has(Primary::USE_MSR_BITMAPS) {
            return true;
        }
        let Some((offset, bit)) = msr_bitmap::msr_bit(number, write) else { return true };
        let bitmap = self.vmx.vmcs.get(VmcsField::MSR_BITMAPS);
        self.physical_load::<1>(bitmap.wrapping_add(offset)) >> bit & 1 != 0
    }

    /// PAUSE exiting, or PAUSE-loop exiting: at CPL 0, an exit when the loop has gone on for longer than PLE_Window, where a gap longer
    /// than PLE_Gap between two PAUSEs begins a new loop (SDM Vol. 3C, 26.1.3).
    fn pause_exits(&mut self) -> bool {
        if self.vmx.controls.primary.has(Primary::PAUSE_EXITING) {
            return true;
        }
        if self.cpl != 0 || !self.vmx.controls.secondary.has(Secondary::PAUSE_LOOP_EXITING) {
            return false;
        }
        let gap = self.vmx.vmcs.get(VmcsField::PLE_GAP);
        let window = self.vmx.vmcs.get(VmcsField::PLE_WINDOW);
        let now = self.now().wrapping_mul(TSC_TICKS_PER_NS);
        self.vmx.pause_loop.pause(now, PAUSE_TIME * TSC_TICKS_PER_NS, gap, window)
    }

    fn io_exits(&mut self, port: u16, size: u8) -> bool {
        let primary = self.vmx.controls.primary;
        if !primary.has(Primary::USE_IO_BITMAPS) {
            return primary.has(Primary::UNCONDITIONAL_IO_EXITING);
        }
        match msr_bitmap::io_bits(port, size) {
            None => true,
            Some(mut bits) => bits.any(|(second, offset, bit)| {
                let field = if second { VmcsField::IO_BITMAP_B } else { VmcsField::IO_BITMAP_A };
                let address = self.vmx.vmcs.get(field).wrapping_add(offset);
                self.physical_load::<1>(address) >> bit & 1 != 0
            }),
        }
    }

    /// MOV to CR0 or CR4 exits when it would change a bit that the host owns from what the read shadow shows.
    fn mov_to_cr_exits(&self, cr: u8, value: u64) -> bool {
        let vmcs = &self.vmx.vmcs;
        match cr {
            0 => (value ^ vmcs.get(VmcsField::CR0_READ_SHADOW)) & vmcs.get(VmcsField::CR0_MASK) != 0,
            3 => self.vmx.controls.primary.has(Primary::CR3_LOAD_EXITING) && !self.is_cr3_target(value),
            4 => (value ^ vmcs.get(VmcsField::CR4_READ_SHADOW)) & vmcs.get(VmcsField::CR4_MASK) != 0,
            8 => self.vmx.controls.primary.has(Primary::CR8_LOAD_EXITING),
            _ => false,
        }
    }

    /// LMSW never clears PE, so an owned PE matters only when it would be set.
    fn lmsw_exits(&self, source: u16) -> bool {
        let mask = self.vmx.vmcs.get(VmcsField::CR0_MASK);
        let shadow = self.vmx.vmcs.get(VmcsField::CR0_READ_SHADOW);
        let source = u64::from(source);
        source & mask & !shadow & Cr0::PE != 0 || (source ^ shadow) & mask & (Cr0::MP | Cr0::EM | Cr0::TS) != 0
    }

    fn is_cr3_target(&self, value: u64) -> bool {
        const TARGETS: [VmcsField; 4] =
            [VmcsField::CR3_TARGET_0, VmcsField::CR3_TARGET_1, VmcsField::CR3_TARGET_2, VmcsField::CR3_TARGET_3];
        let count = self.vmx.vmcs.get(VmcsField::CR3_TARGET_COUNT) as usize;
        TARGETS.iter().take(count).any(|field| self.vmx.vmcs.get(*field) == value)
    }

    /// A VMX capability MSR (480H to 493H). `None`: it does not exist.
    pub(crate) fn vmx_capability(&self, number: u32) -> Option<u64> {
        self.vmx.capabilities.read_msr(number)
    }

    /// What MOV to CR0 of `value` really sets: bits that the host owns keep their value.
    #[inline]
    pub(crate) fn cr0_to_set(&self, value: u64) -> u64 {
        if !self.vmx.non_root {
            return value;
        }
        let mask = self.vmx.vmcs.get(VmcsField::CR0_MASK);
        value & !mask | self.cr0 & mask
    }

    /// What MOV to CR4 of `value` really sets.
    #[inline]
    pub(crate) fn cr4_to_set(&self, value: u64) -> u64 {
        if !self.vmx.non_root {
            return value;
        }
        let mask = self.vmx.vmcs.get(VmcsField::CR4_MASK);
        value & !mask | self.cr4 & mask
    }

    /// CR0 as MOV from CR0 and SMSW show it: the bits that the host owns come from the read shadow.
    #[inline(always)]
    #[must_use]
    pub(crate) fn visible_cr0(&self) -> u64 {
        if !self.vmx.non_root {
            return self.cr0;
        }
        let mask = self.vmx.vmcs.get(VmcsField::CR0_MASK);
        self.cr0 & !mask | self.vmx.vmcs.get(VmcsField::CR0_READ_SHADOW) & mask
    }

    /// CR4 as MOV from CR4 shows it.
    #[inline(always)]
    #[must_use]
    pub(crate) fn visible_cr4(&self) -> u64 {
        if !self.vmx.non_root {
            return self.cr4;
        }
        let mask = self.vmx.vmcs.get(VmcsField::CR4_MASK);
        self.cr4 & !mask | self.vmx.vmcs.get(VmcsField::CR4_READ_SHADOW) & mask
    }

    /// Whether CR0 can be `value` now: in VMX operation some bits are fixed (SDM Vol. 3C, 24.8). Not: #GP(0).
    #[must_use]
    pub(crate) fn vmx_allows_cr0(&self, value: u64) -> bool {
        if !self.vmx.on {
            return true;
        }
        let mut fixed = self.vmx.capabilities.cr0_fixed0;
        if self.vmx.controls.secondary.has(Secondary::UNRESTRICTED_GUEST) {
            fixed &= !(Cr0::PE | Cr0::PG);
        }
        value & fixed == fixed && value & !self.vmx.capabilities.cr0_fixed1 == 0
    }

    /// Whether CR4 can be `value` now. Not: #GP(0).
    #[must_use]
    pub(crate) fn vmx_allows_cr4(&self, value: u64) -> bool {
        let capabilities = &self.vmx.capabilities;
        !self.vmx.on
            || value & capabilities.cr4_fixed0 == capabilities.cr4_fixed0 && value & !capabilities.cr4_fixed1 == 0
    }

    /// The TSC that RDTSC, RDTSCP and RDMSR show (SDM Vol. 3C, 26.3).
    #[inline]
    pub(crate) fn visible_tsc(&self) -> u64 {
        self.visible_tsc_of(self.tsc())
    }

    /// What RDTSC would give had no instruction been retired, where it gives that plus the ticks of those that were; `None` where it does not, or may not
    /// be executed.
    pub(crate) fn tsc_without_instructions(&self) -> Option<u64> {
        let may = self.clock.is_none() && (self.cpl == 0 || self.cr4 & Cr4::TSD == 0);
        let exits = self.vmx.controls.primary.has(Primary::RDTSC_EXITING);
        let scales = self.vmx.controls.secondary.has(Secondary::USE_TSC_SCALING);
        (may && !exits && !scales).then(|| self.visible_tsc_of(self.tsc_at(self.idle_time)))
    }

    fn visible_tsc_of(&self, tsc: u64) -> u64 {
        if !self.vmx.controls.primary.has(Primary::USE_TSC_OFFSETTING) {
            return tsc;
        }
        let scaled = if self.vmx.controls.secondary.has(Secondary::USE_TSC_SCALING) {
            ((u128::from(tsc) * u128::from(self.vmx.vmcs.get(VmcsField::TSC_MULTIPLIER))) >> 48) as u64
        } else {
            tsc
        };
        scaled.wrapping_add(self.vmx.vmcs.get(VmcsField::TSC_OFFSET))
    }
}

const fn cr_qualification(cr: u8, access: u64, register: u8) -> u64 {
    cr as u64 & 15 | access << cr_access::TYPE_SHIFT | (register as u64 & 15) << cr_access::GPR_SHIFT
}
