//! The MSRs of CET: IA32_U_CET, IA32_S_CET, IA32_PL0_SSP to IA32_PL3_SSP, IA32_INTERRUPT_SSP_TABLE_ADDR (SDM Vol. 4, table 2-2).

use crate::cpu::Cpu;
use crate::models::Model;
use spec::x86::{CetControl, Feature, msr};

/// The bits of IA32_U_CET and IA32_S_CET that exist on `model`; 0: the MSRs do not exist.
pub(crate) const fn control_bits(model: &Model) -> u64 {
    (if model.has(Feature::CET_SS) { CetControl::SHADOW_STACK } else { 0 })
        | if model.has(Feature::CET_IBT) { CetControl::BRANCH_TRACKING } else { 0 }
}

impl Cpu {
    /// Whether a CET control MSR can be `value`.
    pub(crate) fn cet_control_is_valid(&self, value: u64) -> bool {
        CetControl(value).is_valid(control_bits(&self.model)) && self.is_canonical_for_any_paging(value)
    }

    /// Whether an SSP MSR can be `value`.
    pub(crate) fn ssp_is_valid(&self, value: u64) -> bool {
        value & 3 == 0 && self.is_canonical_for_any_paging(value)
    }

    /// The value of a CET MSR (6A0H to 6A8H). `None`: it does not exist.
    pub(crate) fn read_cet_msr(&self, number: u32) -> Option<u64> {
        let stacks = self.model.has(Feature::CET_SS);
        Some(match number {
            msr::U_CET if control_bits(&self.model) != 0 => self.msrs.u_cet,
            msr::S_CET if control_bits(&self.model) != 0 => self.msrs.s_cet,
            0x6a4..=0x6a7 if stacks => self.msrs.pl_ssp[(number - msr::PL0_SSP) as usize & 3],
            msr::INTERRUPT_SSP_TABLE_ADDR if stacks => self.msrs.interrupt_ssp_table,
            _ => return None,
        })
    }

    /// Writes a CET MSR. False: #GP(0).
    pub(crate) fn write_cet_msr(&mut self, number: u32, value: u64) -> bool {
        if self.read_cet_msr(number).is_none() {
            return false;
        }
        match number {
            msr::U_CET | msr::S_CET => {
                if !self.cet_control_is_valid(value) {
                    return false;
                }
                *(if number == msr::U_CET { &mut self.msrs.u_cet } else { &mut self.msrs.s_cet }) = value;
                self.cet_changed();
            }
            msr::INTERRUPT_SSP_TABLE_ADDR => {
                if !self.is_canonical_for_any_paging(value) {
                    return false;
                }
                self.msrs.interrupt_ssp_table = value;
            }
            _ => {
                if !self.ssp_is_valid(value) {
                    return false;
                }
                self.msrs.pl_ssp[(number - msr::PL0_SSP) as usize & 3] = value;
            }
        }
        true
    }
}
