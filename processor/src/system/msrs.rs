//! The model-specific registers that are no part of anything else, and RDMSR and WRMSR.

use super::intercept::Intercept;
use crate::apic::Mode as ApicMode;
use crate::cpu::{Cpu, RAX, RCX, RDX};
use crate::decode::{Op, Table};
use crate::last;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::models::{MCG_BANKS, MTRR_VARIABLE_RANGES, Model};
use crate::observe::Happening;
use crate::performance::Performance;
use crate::segment::{FS, GS};
use crate::trap::Exec;
use iced_x86::Code;
use serde::{Deserialize, Serialize};
use spec::vmx::{TertiaryControls as Tertiary, VmcsField};
use spec::x86::control_registers::Cr0;
use spec::x86::cpuid::Feature;
use spec::x86::debug::DebugCtl;
use spec::x86::efer::Efer;
use spec::x86::msr::{self, FeatureControl, MiscEnable, MtrrDefType, SpecCtrl};
use spec::x86::paging::MemoryType;

/// Memory type range registers (SDM vol. 3A, 12.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mtrrs {
    /// IA32_MTRR_DEF_TYPE.
    pub default_type: u64,
    /// The eleven fixed-range registers, in the order of addresses.
    pub fixed: [u64; 11],
    /// IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn.
    pub variable: [(u64, u64); MTRR_VARIABLE_RANGES],
}

/// MSRs that only RDMSR and WRMSR (and what they control) touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// What software added to the TSC by writing it or IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// MTRRs.
    pub mtrrs: Mtrrs,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// MSR_POWER_CTL, which controls nothing here.
    pub power_ctl: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_U_CET.
    pub u_cet: u64,
    /// IA32_S_CET.
    pub s_cet: u64,
    /// IA32_PL0_SSP to IA32_PL3_SSP.
    pub pl_ssp: [u64; 4],
    /// IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub interrupt_ssp_table: u64,
    /// IA32_PKRS.
    pub pkrs: u32,
    /// IA32_UMWAIT_CONTROL.
    pub umwait_control: u32,
    /// IA32_BIOS_SIGN_ID.
    pub bios_sign_id: u64,
    /// IA32_MCG_STATUS.
    pub mcg_status: u64,
    /// Performance monitoring.
    pub performance: Performance,
    /// CTL, STATUS, ADDR and MISC of each machine-check bank.
    pub machine_check: [[u64; 4]; MCG_BANKS],
}

impl Msrs {
    /// Values after power-up.
    #[must_use]
    pub fn reset(model: &Model) -> Self {
        let reset = model.reset_msrs();
        Self {
            pat: reset.pat,
            misc_enable: reset.misc_enable,
            feature_control: reset.feature_control.unwrap_or(0),
            bios_sign_id: reset.bios_sign_id,
            performance: Performance::reset(model),
            ..Self::default()
        }
    }
}

impl Msrs {
    /// CET's registers as INIT leaves them.
    pub(crate) fn reset_cet(&mut self) {
        (self.u_cet, self.s_cet, self.pl_ssp, self.interrupt_ssp_table) = (0, 0, [0; 4], 0);
    }
}

pub(super) fn register(table: &mut Table) {
    table.end(Code::Rdmsr, last!(rdmsr));
    table.end(Code::Wrmsr, last!(wrmsr));
}

/// MSR_PKG_CST_CONFIG_CONTROL bit 15: locked by firmware, so that software reads it only. The package has no deeper state than C1.
const PKG_CST_LOCK: u64 = 1 << 15;

/// Bits of IA32_DEBUGCTL that can be set.
pub(crate) fn debugctl_writable(model: &Model) -> u64 {
    const FREEZE: u64 = DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI;
    let with = |feature, bits| if model.has(feature) { bits } else { 0 };
    DebugCtl::LBR | DebugCtl::BTF | with(Feature::PDCM, FREEZE) | with(Feature::BUS_LOCK_DETECT, DebugCtl::BLD)
}

/// Bits of IA32_SPEC_CTRL that can be set.
pub(crate) fn spec_ctrl_writable(model: &Model) -> u64 {
    let with = |feature, bits| if model.has(feature) { bits } else { 0 };
    with(Feature::IBRS_IBPB, SpecCtrl::IBRS)
        | with(Feature::STIBP, SpecCtrl::STIBP)
        | with(Feature::BHI_CTRL, SpecCtrl::BHI_DIS_S)
}

fn rdmsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let number = cpu.regs[RCX] as u32;
    cpu.intercept(Some(op), Intercept::Rdmsr(number))?;
    cpu.require_exact()?;
    let value = match cpu.virtual_msr_read(number) {
        Some(value) => value,
        None if number == msr::TSC => cpu.visible_tsc(),
        None if number == msr::SPEC_CTRL && cpu.virtualizes_spec_ctrl() => {
            cpu.vmx.vmcs.get(VmcsField::SPEC_CTRL_SHADOW)
        }
        None => match cpu.read_msr(number) {
            Some(value) => value,
            None => return Err(cpu.general_protection(0)),
        },
    };
    cpu.observe(Happening::Msr { number, value, write: false });
    cpu.regs[RAX] = value & 0xffff_ffff;
    cpu.regs[RDX] = value >> 32;
    Ok(())
}

fn wrmsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.drain_stores();
    cpu.require_cpl0()?;
    let number = cpu.regs[RCX] as u32;
    let value = cpu.regs[RDX] << 32 | cpu.regs[RAX] & 0xffff_ffff;
    cpu.intercept(Some(op), Intercept::Wrmsr(number))?;
    cpu.require_exact()?;
    let written = if number == msr::SPEC_CTRL && cpu.virtualizes_spec_ctrl() {
        cpu.write_virtual_spec_ctrl(value)
    } else {
        cpu.virtual_msr_write(number, value)? || cpu.write_msr(number, value)
    };
    if written {
        cpu.observe(Happening::Msr { number, value, write: true });
        return Ok(());
    }
    Err(cpu.general_protection(0))
}

impl Cpu {
    /// With "virtualize IA32_SPEC_CTRL", a guest sees its shadow in the VMCS, and bits in the mask keep their value (SDM vol. 3C, 26.3).
    fn virtualizes_spec_ctrl(&self) -> bool {
        self.vmx.controls.tertiary.has(Tertiary::VIRTUALIZE_SPEC_CTRL)
    }

    /// WRMSR to IA32_SPEC_CTRL under that control. False: #GP(0).
    fn write_virtual_spec_ctrl(&mut self, value: u64) -> bool {
        let (mask, real) = (self.vmx.vmcs.get(VmcsField::SPEC_CTRL_MASK), self.msrs.spec_ctrl);
        let written = self.write_msr(msr::SPEC_CTRL, value & !mask | real & mask);
        if written {
            self.vmx.vmcs.set(VmcsField::SPEC_CTRL_SHADOW, value);
        }
        written
    }
}

impl Mtrrs {
    /// The fixed-range register with this MSR number.
    fn fixed_index(number: u32) -> Option<usize> {
        Some(match number {
            msr::MTRR_FIX64K_00000 => 0,
            msr::MTRR_FIX16K_80000 => 1,
            msr::MTRR_FIX16K_A0000 => 2,
            0x268..=0x26f => (number - msr::MTRR_FIX4K_C0000) as usize + 3,
            _ => return None,
        })
    }

    /// The variable range, and whether its mask, of this MSR number.
    fn variable_index(number: u32) -> Option<(usize, bool)> {
        let offset = number.checked_sub(msr::MTRR_PHYSBASE0)? as usize;
        (offset < 2 * MTRR_VARIABLE_RANGES).then_some((offset / 2, offset & 1 != 0))
    }

    fn read(&self, number: u32) -> Option<u64> {
        if number == msr::MTRR_DEF_TYPE {
            return Some(self.default_type);
        }
        if let Some(index) = Self::fixed_index(number) {
            return Some(self.fixed[index]);
        }
        Self::variable_index(number).map(|(range, mask)| {
            let (base, masks) = self.variable[range];
            if mask { masks } else { base }
        })
    }

    /// False: #GP(0).
    fn write(&mut self, number: u32, value: u64, physical_bits: u8) -> bool {
        let is_type = |value: u64| matches!(value as u8, 0 | 1 | 4 | 5 | 6);
        let address = ((1u64 << physical_bits) - 1) & !0xfff;
        if number == msr::MTRR_DEF_TYPE {
            let valid = is_type(value) && value & !(0xff | MtrrDefType::FIXED_ENABLE | MtrrDefType::ENABLE) == 0;
            if valid {
                self.default_type = value;
            }
            return valid;
        }
        if let Some(index) = Self::fixed_index(number) {
            let valid = value.to_le_bytes().iter().all(|byte| is_type(u64::from(*byte)));
            if valid {
                self.fixed[index] = value;
            }
            return valid;
        }
        let Some((range, mask)) = Self::variable_index(number) else { return false };
        const VALID: u64 = 1 << 11;
        let right =
            if mask { value & !(address | VALID) == 0 } else { value & !(address | 0xff) == 0 && is_type(value) };
        if right {
            let slot = &mut self.variable[range];
            *(if mask { &mut slot.1 } else { &mut slot.0 }) = value;
        }
        right
    }
}

impl Cpu {
    /// The value of an MSR as RDMSR gives it outside VMX non-root operation. `None`: #GP(0). Time must be exact.
    pub fn read_msr(&mut self, number: u32) -> Option<u64> {
        let has = |feature| self.model.has(feature);
        let reset = self.model.reset_msrs();
        let msrs = &self.msrs;
        Some(match number {
            msr::P5_MC_ADDR | msr::P5_MC_TYPE => 0,
            msr::TSC => self.tsc(),
            msr::PLATFORM_ID => reset.platform_id,
            msr::APIC_BASE => self.apic.base(),
            msr::FEATURE_CONTROL if reset.feature_control.is_some() => msrs.feature_control,
            msr::TSC_ADJUST if has(Feature::TSC_ADJUST) => msrs.tsc_adjust,
            msr::SPEC_CTRL if has(Feature::IBRS_IBPB) => msrs.spec_ctrl,
            msr::UMWAIT_CONTROL if has(Feature::WAITPKG) => u64::from(msrs.umwait_control),
            msr::BIOS_SIGN_ID => msrs.bios_sign_id,
            msr::PLATFORM_INFO if self.model.platform_msrs => reset.platform_info,
            msr::PKG_CST_CONFIG_CONTROL if self.model.platform_msrs => PKG_CST_LOCK,
            msr::POWER_CTL if self.model.platform_msrs => msrs.power_ctl,
            msr::MTRRCAP => reset.mtrr_cap,
            msr::ARCH_CAPABILITIES => reset.arch_capabilities?,
            msr::SYSENTER_CS => msrs.sysenter_cs,
            msr::SYSENTER_ESP => msrs.sysenter_esp,
            msr::SYSENTER_EIP => msrs.sysenter_eip,
            msr::MCG_CAP => reset.mcg_cap,
            msr::MCG_STATUS => msrs.mcg_status,
            msr::MISC_ENABLE => msrs.misc_enable,
            msr::DEBUGCTL => msrs.debugctl,
            msr::PAT => msrs.pat,
            0x200..=0x20f | 0x250 | 0x258 | 0x259 | 0x268..=0x26f | msr::MTRR_DEF_TYPE => msrs.mtrrs.read(number)?,
            0x400..0x480 => {
                let at = (number - msr::MC0_CTL) as usize;
                msrs.machine_check.get(at / 4)?[at % 4]
            }
            0x480..=0x493 => self.vmx_capability(number)?,
            msr::TSC_DEADLINE if has(Feature::TSC_DEADLINE) => {
                let moment = self.moment();
                self.apic.tsc_deadline(moment)
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST if has(Feature::X2APIC) => {
                let moment = self.moment();
                self.apic.read_msr(number, moment).ok()?
            }
            msr::XSS if has(Feature::XSAVES) => msrs.xss,
            msr::U_CET..=msr::INTERRUPT_SSP_TABLE_ADDR => self.read_cet_msr(number)?,
            msr::PKRS if has(Feature::PKS) => u64::from(msrs.pkrs),
            msr::EFER => self.efer,
            msr::STAR => msrs.star,
            msr::LSTAR => msrs.lstar,
            msr::CSTAR => msrs.cstar,
            msr::FMASK => msrs.fmask,
            msr::FS_BASE => self.segs[FS].base,
            msr::GS_BASE => self.segs[GS].base,
            msr::KERNEL_GS_BASE => msrs.kernel_gs_base,
            msr::TSC_AUX if has(Feature::RDTSCP) || has(Feature::RDPID) => msrs.tsc_aux,
            _ => return self.read_performance_msr(number),
        })
    }

    /// Writes an MSR as WRMSR does outside VMX non-root operation. False: #GP(0). Time must be exact.
    pub fn write_msr(&mut self, number: u32, value: u64) -> bool {
        let canonical = self.is_canonical_for_any_paging(value);
        match number {
            msr::P5_MC_ADDR | msr::P5_MC_TYPE => {}
            msr::TSC => self.set_tsc_adjust(value.wrapping_sub(self.now().wrapping_mul(TSC_TICKS_PER_NS))),
            msr::TSC_ADJUST if self.model.has(Feature::TSC_ADJUST) => self.set_tsc_adjust(value),
            msr::APIC_BASE => return self.write_apic_base(value),
            msr::FEATURE_CONTROL if self.model.reset_msrs().feature_control.is_some() => {
                const DEFINED: u64 = FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX;
                if self.msrs.feature_control & FeatureControl::LOCK != 0 || value & !DEFINED != 0 {
                    return false;
                }
                self.msrs.feature_control = value;
            }
            msr::SPEC_CTRL if self.model.has(Feature::IBRS_IBPB) => {
                if value & !spec_ctrl_writable(&self.model) != 0 {
                    return false;
                }
                self.msrs.spec_ctrl = value;
            }
            // Bit 1 and the upper half are reserved; whether C0.2 is allowed makes no difference here.
            msr::UMWAIT_CONTROL if self.model.has(Feature::WAITPKG) => {
                if value & !0xffff_fffd != 0 {
                    return false;
                }
                self.msrs.umwait_control = value as u32;
            }
            // The indirect branch predictor barrier: there is no predictor.
            msr::PRED_CMD if self.model.has(Feature::IBRS_IBPB) => return value & !1 == 0,
            // A microcode update is taken and changes nothing; software reads the revision after clearing it and CPUID.
            msr::BIOS_UPDT_TRIG | msr::BIOS_SIGN_ID => {}
            msr::POWER_CTL if self.model.platform_msrs => self.msrs.power_ctl = value,
            msr::SYSENTER_CS => self.msrs.sysenter_cs = value & 0xffff_ffff,
            msr::SYSENTER_ESP if canonical => self.msrs.sysenter_esp = value,
            msr::SYSENTER_EIP if canonical => self.msrs.sysenter_eip = value,
            msr::MCG_STATUS => {
                if value & !7 != 0 {
                    return false;
                }
                self.msrs.mcg_status = value;
            }
            msr::MISC_ENABLE => {
                let writable = self.model.reset_msrs().misc_enable_writable;
                let before = self.msrs.misc_enable;
                self.msrs.misc_enable = before & !writable | value & writable;
                if (before ^ self.msrs.misc_enable) & MiscEnable::XD_DISABLE != 0 {
                    self.tlb.flush_all();
                }
            }
            msr::DEBUGCTL => {
                if value & !debugctl_writable(&self.model) != 0 {
                    return false;
                }
                self.msrs.debugctl = value;
                self.mmu_mode_changed();
            }
            msr::PAT => {
                if !MemoryType::pat_is_valid(value) {
                    return false;
                }
                self.msrs.pat = value;
            }
            0x200..=0x20f | 0x250 | 0x258 | 0x259 | 0x268..=0x26f | msr::MTRR_DEF_TYPE => {
                return self.msrs.mtrrs.write(number, value, self.physical_bits);
            }
            0x400..0x480 => return self.write_machine_check((number - msr::MC0_CTL) as usize, value),
            msr::TSC_DEADLINE if self.model.has(Feature::TSC_DEADLINE) => {
                let moment = self.moment();
                self.apic.set_tsc_deadline(value, moment);
                self.apic_effect(None);
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST if self.model.has(Feature::X2APIC) => {
                let moment = self.moment();
                let Ok(effect) = self.apic.write_msr(number, value, moment) else { return false };
                self.apic_effect(effect);
            }
            msr::XSS if self.model.has(Feature::XSAVES) => {
                if value & !self.model.xss_supported() != 0 {
                    return false;
                }
                self.msrs.xss = value;
            }
            msr::U_CET..=msr::INTERRUPT_SSP_TABLE_ADDR => return self.write_cet_msr(number, value),
            msr::PKRS if self.model.has(Feature::PKS) => {
                if value >> 32 != 0 {
                    return false;
                }
                self.msrs.pkrs = value as u32;
                self.mmu_mode_changed();
            }
            msr::EFER => return self.write_efer(value),
            msr::STAR => self.msrs.star = value,
            msr::LSTAR if canonical => self.msrs.lstar = value,
            msr::CSTAR if canonical => self.msrs.cstar = value,
            msr::FMASK => {
                if value >> 32 != 0 {
                    return false;
                }
                self.msrs.fmask = value;
            }
            msr::FS_BASE if canonical => self.segs[FS].base = value,
            msr::GS_BASE if canonical => self.segs[GS].base = value,
            msr::KERNEL_GS_BASE if canonical => self.msrs.kernel_gs_base = value,
            msr::TSC_AUX if self.model.has(Feature::RDTSCP) || self.model.has(Feature::RDPID) => {
                if value >> 32 != 0 {
                    return false;
                }
                self.msrs.tsc_aux = value;
            }
            _ => return self.write_performance_msr(number, value),
        }
        true
    }

    fn set_tsc_adjust(&mut self, value: u64) {
        self.msrs.tsc_adjust = value;
        self.apic_effect(None);
    }

    fn write_apic_base(&mut self, value: u64) -> bool {
        let x2apic = self.model.has(Feature::X2APIC);
        if self.apic.set_base(value, self.physical_bits, x2apic).is_err() {
            return false;
        }
        // The page of the registers may have moved: whatever is cached of the old and the new place is void.
        if self.apic.mode() != ApicMode::X2Apic {
            self.tlb.flush_all();
        }
        self.apic_effect(None);
        true
    }

    fn write_machine_check(&mut self, at: usize, value: u64) -> bool {
        let Some(bank) = self.msrs.machine_check.get_mut(at / 4) else { return false };
        let allowed = match at % 4 {
            // All banks' errors on or off; two bits may differ, which systems clear for the sake of other processors.
            0 => value == 0 || value | 1 | 1 << 10 == u64::MAX,
            1 => value == 0,
            _ => true,
        };
        if !allowed {
            return false;
        }
        bank[at % 4] = value;
        true
    }

    /// Writes IA32_EFER. LMA follows LME and CR0.PG.
    pub(crate) fn write_efer(&mut self, value: u64) -> bool {
        let without = if self.msrs.misc_enable & MiscEnable::XD_DISABLE != 0 { Efer::NXE } else { 0 };
        if value & !(self.model.efer_supported() & !without) != 0 {
            return false;
        }
        let changed = self.efer ^ value;
        if changed & Efer::LME != 0 && self.cr0 & Cr0::PG != 0 {
            return false;
        }
        self.efer = self.efer & Efer::LMA | value & !Efer::LMA;
        if changed & Efer::NXE != 0 {
            self.flush_own_translations();
        }
        self.mode_changed();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtrr_writes_are_checked() {
        let mut mtrrs = Mtrrs::default();
        assert!(mtrrs.write(0x2ff, 0xc06, 46));
        assert!(!mtrrs.write(0x2ff, 0x2, 46), "reserved type");
        assert!(!mtrrs.write(0x250, 0x0303_0303_0303_0303, 46));
        assert!(mtrrs.write(0x200, 0xc000_0006, 46));
        assert!(!mtrrs.write(0x201, 1 << 46 | 0x800, 46), "beyond MAXPHYADDR");
        assert!(mtrrs.write(0x20f, 0x3fff_c000_0800, 46));
        assert_eq!((mtrrs.read(0x200), mtrrs.read(0x20f)), (Some(0xc000_0006), Some(0x3fff_c000_0800)));
        assert_eq!(mtrrs.read(0x210), None);
    }
}
