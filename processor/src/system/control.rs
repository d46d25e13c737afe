//! Control registers: MOV CRn, LMSW, SMSW, CLTS, XSETBV, XGETBV, and the invalidation of translations
//! (SDM vol. 3A, 2.5, 2.6, 4.10 and 5.9).

use super::intercept::Intercept;
use crate::cpu::{Cpu, Mode, RAX, RCX, RDX};
use crate::decode::{Op, Table};
use crate::memory::tlb::ContextKey;
use crate::segment::{CS, LONG};
use crate::trap::Exec;
use crate::{last, op};
use iced_x86::Code;
use spec::x86::control_registers::{Cr0, Cr3, Cr4, Xcr0};
use spec::x86::efer::Efer;

pub(super) fn register(table: &mut Table) {
    table.one(Code::Mov_r32_cr, op!(mov_from_cr)).sized(4);
    table.one(Code::Mov_r64_cr, op!(mov_from_cr)).sized(8);
    table.end(Code::Mov_cr_r32, last!(mov_to_cr)).sized(4);
    table.end(Code::Mov_cr_r64, last!(mov_to_cr)).sized(8);
    table.end(Code::Clts, last!(clts));
    table.end(Code::Lmsw_rm16, last!(lmsw_register)).mem = last!(lmsw_memory).into();
    table.end(Code::Lmsw_r32m16, last!(lmsw_register)).mem = last!(lmsw_memory).into();
    table.end(Code::Lmsw_r64m16, last!(lmsw_register)).mem = last!(lmsw_memory).into();
    table.set(Code::Smsw_rm16, op!(smsw_register), op!(smsw_memory)).sized(2);
    table.set(Code::Smsw_r32m16, op!(smsw_register), op!(smsw_memory)).sized(4);
    table.set(Code::Smsw_r64m16, op!(smsw_register), op!(smsw_memory)).sized(8);
    table.one(Code::Xgetbv, op!(xgetbv));
    table.end(Code::Xsetbv, last!(xsetbv));
    table.end(Code::Invlpg_m, last!(invlpg));
    table.end(Code::Invpcid_r32_m128, last!(invpcid)).sized(4);
    table.end(Code::Invpcid_r64_m128, last!(invpcid)).sized(8);
}

/// CR0 bits whose change voids cached translations: they decide what is cached.
const CR0_PAGING: u64 = Cr0::PG | Cr0::WP | Cr0::PE;
/// CR4 bits whose change voids cached translations.
const CR4_PAGING: u64 = Cr4::PSE | Cr4::PAE | Cr4::PGE | Cr4::SMEP | Cr4::SMAP | Cr4::PKE | Cr4::LA57 | Cr4::PCIDE;
/// CR0 bits that exist.
const CR0_DEFINED: u64 = Cr0::ALL;

fn mov_from_cr(cpu: &mut Cpu, op: &Op) -> Exec {
    let (register, cr) = (op.r[0] & 15, op.r[1]);
    if !matches!(cr, 0 | 2 | 3 | 4 | 8) {
        return Err(cpu.undefined_opcode());
    }
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::ReadCr { cr, register })?;
    let value = match cr {
        0 => cpu.visible_cr0(),
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.visible_cr4(),
        _ => match cpu.virtual_cr8() {
            Some(value) => value,
            None => u64::from(cpu.apic.task_priority() >> 4),
        },
    };
    cpu.regs[register as usize] = if op.size == 4 { value & 0xffff_ffff } else { value };
    Ok(())
}

fn mov_to_cr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.drain_stores();
    let (cr, register) = (op.r[0], op.r[1] & 15);
    if !matches!(cr, 0 | 2 | 3 | 4 | 8) {
        return Err(cpu.undefined_opcode());
    }
    cpu.require_cpl0()?;
    let value = cpu.regs[register as usize] & if op.size == 4 { 0xffff_ffff } else { u64::MAX };
    cpu.intercept(Some(op), Intercept::WriteCr { cr, register, value })?;
    match cr {
        0 => {
            let value = cpu.cr0_to_set(value);
            cpu.write_cr0(value)
        }
        2 => {
            cpu.cr2 = value;
            Ok(())
        }
        3 => cpu.write_cr3(value),
        4 => {
            let value = cpu.cr4_to_set(value);
            cpu.write_cr4(value)
        }
        _ => cpu.write_cr8(value),
    }
}

impl Cpu {
    /// Drops the cached translations of the current VPID and EPT pointer, for every PCID.
    pub(crate) fn flush_own_translations(&mut self) {
        let own = self.context_key();
        self.tlb.flush_where(|key| same_space(key, &own));
    }

    /// MOV to CR0: checks, side effects, TLB.
    pub(crate) fn write_cr0(&mut self, value: u64) -> Exec {
        let old = self.cr0;
        if value >> 32 != 0
            || value & (Cr0::PG | Cr0::PE) == Cr0::PG
            || value & (Cr0::NW | Cr0::CD) == Cr0::NW
            || value & Cr0::WP == 0 && self.cr4 & Cr4::CET != 0
            || !self.vmx_allows_cr0(value)
        {
            return Err(self.general_protection(0));
        }
        let value = value & CR0_DEFINED | Cr0::ET;
        let mut efer = self.efer;
        if value & !old & Cr0::PG != 0 && efer & Efer::LME != 0 {
            if self.cr4 & Cr4::PAE == 0 || self.segs[CS].access & LONG != 0 || self.tr.kind() & 8 == 0 {
                return Err(self.general_protection(0));
            }
            efer |= Efer::LMA;
        }
        if old & !value & Cr0::PG != 0 {
            if self.mode == Mode::Long64 || self.cr4 & Cr4::PCIDE != 0 {
                return Err(self.general_protection(0));
            }
            efer &= !Efer::LMA;
        }
        let reloads = (old ^ value) & (Cr0::PG | Cr0::CD | Cr0::NW) != 0;
        if reloads && self.pae_paging(value, self.cr4, efer) {
            self.load_pdptes(self.cr3)?;
        }
        self.cr0 = value;
        self.efer = efer;
        if (old ^ value) & CR0_PAGING != 0 {
            self.flush_own_translations();
        }
        self.mode_changed();
        self.recheck_events();
        Ok(())
    }

    /// MOV to CR3.
    pub(crate) fn write_cr3(&mut self, value: u64) -> Exec {
        let pcid = self.cr4 & Cr4::PCIDE != 0;
        if self.long_mode() {
            let keep = if pcid { Cr3::NO_FLUSH } else { 0 };
            if (value & !keep) >> self.physical_bits != 0 {
                return Err(self.general_protection(0));
            }
        } else if self.pae_paging(self.cr0, self.cr4, self.efer) {
            self.load_pdptes(value)?;
        }
        let keeps = pcid && value & Cr3::NO_FLUSH != 0;
        self.cr3 = value & !Cr3::NO_FLUSH;
        self.mmu_mode_changed();
        if !keeps {
            let key = self.context_key();
            self.tlb.flush_where(|other| same_space(other, &key) && other.pcid == key.pcid);
        }
        Ok(())
    }

    /// CR3 loaded by a task switch.
    pub(crate) fn load_task_cr3(&mut self, value: u64) -> Exec {
        self.write_cr3(value)
    }

    /// MOV to CR4.
    pub(crate) fn write_cr4(&mut self, value: u64) -> Exec {
        let old = self.cr4;
        let changed = old ^ value;
        let long = self.long_mode();
        if value & !self.model.cr4_supported() != 0
            || long && (value & Cr4::PAE == 0 || changed & Cr4::LA57 != 0)
            || value & Cr4::CET != 0 && self.cr0 & Cr0::WP == 0
            || changed & value & Cr4::PCIDE != 0 && (!long || self.cr3 & Cr3::PCID != 0)
            || !self.vmx_allows_cr4(value)
        {
            return Err(self.general_protection(0));
        }
        let reloads = changed & (Cr4::PSE | Cr4::PAE | Cr4::PGE | Cr4::SMEP) != 0;
        if reloads && self.pae_paging(self.cr0, value, self.efer) {
            self.load_pdptes(self.cr3)?;
        }
        self.cr4 = value;
        if changed & CR4_PAGING != 0 {
            self.flush_own_translations();
        }
        self.mode_changed();
        Ok(())
    }

    fn write_cr8(&mut self, value: u64) -> Exec {
        if value > 15 {
            return Err(self.general_protection(0));
        }
        if !self.set_virtual_cr8(value) {
            self.apic.set_task_priority((value as u8) << 4);
            self.recheck_events();
        }
        Ok(())
    }
}

/// Whether two contexts belong to the same VPID and EPT pointer.
fn same_space(a: &ContextKey, b: &ContextKey) -> bool {
    (a.eptp, a.vpid, a.non_root) == (b.eptp, b.vpid, b.non_root)
}

fn clts(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::Clts)?;
    let value = cpu.cr0_to_set(cpu.cr0 & !Cr0::TS);
    cpu.cr0 = value;
    cpu.fpu_state_changed();
    Ok(())
}

fn lmsw_register(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let value = cpu.regs[op.r[0] as usize & 15] as u16;
    lmsw(cpu, op, value, None)
}

fn lmsw_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let linear = cpu.linear(op, 2, false)?;
    let value = cpu.load::<2>(linear)? as u16;
    lmsw(cpu, op, value, Some(linear))
}

fn lmsw(cpu: &mut Cpu, op: &Op, value: u16, linear: Option<u64>) -> Exec {
    cpu.intercept(Some(op), Intercept::Lmsw { value, linear })?;
    const LOADED: u64 = Cr0::MP | Cr0::EM | Cr0::TS;
    // PE can be set, not cleared.
    let new = cpu.cr0 & !LOADED | u64::from(value) & (LOADED | Cr0::PE);
    let new = cpu.cr0_to_set(new);
    cpu.write_cr0(new)
}

impl Cpu {
    /// #GP(0) for the instructions that CR4.UMIP keeps from user mode.
    pub(crate) fn check_umip(&mut self) -> Exec {
        if self.cr4 & Cr4::UMIP != 0 && self.cpl > 0 { Err(self.general_protection(0)) } else { Ok(()) }
    }
}

fn smsw_register(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_umip()?;
    let value = cpu.visible_cr0();
    let register = &mut cpu.regs[op.r[0] as usize & 15];
    *register = match op.size {
        2 => *register & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
    Ok(())
}

fn smsw_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_umip()?;
    let linear = cpu.linear(op, 2, true)?;
    cpu.store::<2>(linear, cpu.visible_cr0())
}

fn require_osxsave(cpu: &mut Cpu) -> Exec {
    if cpu.cr4 & Cr4::OSXSAVE == 0 { Err(cpu.undefined_opcode()) } else { Ok(()) }
}

/// The components in use, for XGETBV with ECX = 1.
pub(super) fn xinuse(cpu: &Cpu) -> u64 {
    let mut used = Xcr0::SSE;
    if !cpu.x87.is_initial() {
        used |= Xcr0::X87;
    }
    if cpu.ymm.iter().any(|register| register[2] | register[3] != 0) {
        used |= Xcr0::AVX;
    }
    if cpu.pkru != 0 {
        used |= Xcr0::PKRU;
    }
    if cpu.msrs.u_cet | cpu.msrs.pl_ssp[3] != 0 {
        used |= Xcr0::CET_U;
    }
    if cpu.msrs.pl_ssp[..3].iter().any(|&ssp| ssp != 0) {
        used |= Xcr0::CET_S;
    }
    if cpu.mxcsr == super::xsave::MXCSR_INITIAL && cpu.ymm.iter().all(|register| register[0] | register[1] == 0) {
        used &= !Xcr0::SSE;
    }
    used
}

fn xgetbv(cpu: &mut Cpu, _op: &Op) -> Exec {
    require_osxsave(cpu)?;
    let value = match cpu.regs[RCX] as u32 {
        0 => cpu.xcr0,
        1 if cpu.model.has(spec::x86::cpuid::Feature::XGETBV_ECX1) => cpu.xcr0 & xinuse(cpu),
        _ => return Err(cpu.general_protection(0)),
    };
    cpu.regs[RAX] = value & 0xffff_ffff;
    cpu.regs[RDX] = value >> 32;
    Ok(())
}

fn xsetbv(cpu: &mut Cpu, op: &Op) -> Exec {
    require_osxsave(cpu)?;
    // In VMX non-root operation the exit comes before the checks of operands but after that of the privilege.
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::Xsetbv)?;
    let value = cpu.regs[RDX] << 32 | cpu.regs[RAX] & 0xffff_ffff;
    let wrong = value & !cpu.model.xcr0_supported() != 0
        || value & Xcr0::X87 == 0
        || value & (Xcr0::AVX | Xcr0::SSE) == Xcr0::AVX;
    if cpu.regs[RCX] as u32 != 0 || wrong {
        return Err(cpu.general_protection(0));
    }
    cpu.xcr0 = value;
    cpu.fpu_state_changed();
    Ok(())
}

fn invlpg(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let offset = cpu.effective_address(op);
    let linear = if cpu.mode == Mode::Long64 {
        offset.wrapping_add(cpu.segs[op.seg as usize & 7].base)
    } else {
        offset.wrapping_add(cpu.segs[op.seg as usize & 7].base) & 0xffff_ffff
    };
    cpu.intercept(Some(op), Intercept::Invlpg(linear))?;
    // Global translations go for every PCID; that others of the page go too is allowed.
    let own = cpu.context_key();
    cpu.tlb.flush_page_where(linear, |key| same_space(key, &own));
    Ok(())
}

fn invpcid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::Invpcid)?;
    let mask = if op.size == 4 { 0xffff_ffff } else { u64::MAX };
    let kind = cpu.regs[op.r[0] as usize & 15] & mask;
    let at = cpu.linear(op, 16, false)?;
    let low = cpu.load::<8>(at)?;
    let linear = cpu.load::<8>(at.wrapping_add(8))?;
    let pcid = (low & 0xfff) as u16;
    let pcids_off = cpu.cr4 & Cr4::PCIDE == 0;
    let wrong = match kind {
        0 => low >> 12 != 0 || !cpu.is_canonical_for_any_paging(linear) || pcids_off && pcid != 0,
        1 => low >> 12 != 0 || pcids_off && pcid != 0,
        2 | 3 => false,
        _ => true,
    };
    if wrong {
        return Err(cpu.general_protection(0));
    }
    let own = cpu.context_key();
    match kind {
        0 => cpu.tlb.flush_page_where(linear, |key| same_space(key, &own) && key.pcid == pcid),
        1 => cpu.tlb.flush_where(|key| same_space(key, &own) && key.pcid == pcid),
        _ => cpu.tlb.flush_where(|key| same_space(key, &own)),
    }
    Ok(())
}
