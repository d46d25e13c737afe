//! The VMX instructions (SDM Vol. 3C, chapter 31).

use super::entry::checks::bad_ept_pointer;
use super::exit::{Exit, instruction_info};
use super::vmcs::{self, NO_POINTER};
use crate::cpu::{Cpu, Mode, RAX, RCX};
use crate::decode::op::MEMORY_FIRST;
use crate::decode::{Op, Table};
use crate::flags::LateFlags;
use crate::observe::Happening;
use crate::trap::Exec;
use crate::{branch, last, op};
use iced_x86::Code;
use spec::vmx::capability::{EptVpidCap, vmfunc};
use spec::vmx::ept::{Eptp, invept_type, invvpid_type};
use spec::vmx::{
    AccessType, ExitReason, FieldType, SecondaryControls as Secondary, VmInstructionError as Error, VmcsField, Width,
};
use spec::x86::Rflags;
use spec::x86::control_registers::Cr4;
use spec::x86::msr::FeatureControl;

/// Registers the VMX instructions.
pub fn register(table: &mut Table) {
    table.end(Code::Vmxon_m64, last!(vmxon));
    table.end(Code::Vmxoff, last!(vmxoff));
    table.end(Code::Vmclear_m64, last!(vmclear));
    table.end(Code::Vmptrld_m64, last!(vmptrld));
    table.one(Code::Vmptrst_m64, op!(vmptrst));
    table.set(Code::Vmread_rm32_r32, op!(vmread::<4>), op!(vmread::<4>));
    table.set(Code::Vmread_rm64_r64, op!(vmread::<8>), op!(vmread::<8>));
    table.set(Code::Vmwrite_r32_rm32, op!(vmwrite_register::<4>), op!(vmwrite_memory::<4>));
    table.set(Code::Vmwrite_r64_rm64, op!(vmwrite_register::<8>), op!(vmwrite_memory::<8>));
    table.end(Code::Vmlaunch, branch!(vmlaunch));
    table.end(Code::Vmresume, branch!(vmresume));
    table.end(Code::Vmcall, last!(vmcall));
    table.end(Code::Vmfunc, last!(vmfunc));
    table.end(Code::Invept_r32_m128, last!(invept)).sized(4);
    table.end(Code::Invept_r64_m128, last!(invept)).sized(8);
    table.end(Code::Invvpid_r32_m128, last!(invvpid)).sized(4);
    table.end(Code::Invvpid_r64_m128, last!(invvpid)).sized(8);
}

impl Cpu {
    /// VMsucceed: the status flags are all clear.
    pub(super) fn vm_succeed(&mut self) {
        self.flags = LateFlags::from_bits(0);
    }

    /// VMfailInvalid: CF.
    pub(super) fn vm_fail_invalid(&mut self) {
        self.flags = LateFlags::from_bits(Rflags::CF);
        self.observe(Happening::InstructionFailed(None));
    }

    /// VMfail: ZF and an error number if there is a current VMCS, else VMfailInvalid.
    pub(super) fn vm_fail(&mut self, error: Error) {
        if !self.vmx.vmcs.is_current() {
            return self.vm_fail_invalid();
        }
        self.flags = LateFlags::from_bits(Rflags::ZF);
        self.vmx.vmcs.set(VmcsField::VM_INSTRUCTION_ERROR, error as u64);
        self.observe(Happening::InstructionFailed(Some(error)));
    }

    /// The mode in which VMX instructions exist: protected or 64-bit, not virtual-8086, not compatibility.
    fn is_vmx_mode(&self) -> bool {
        matches!(self.mode, Mode::Protected | Mode::Long64)
    }

    /// What most VMX instructions begin with: #UD outside VMX operation or in a wrong mode; a VM exit in non-root operation; #GP(0) above
    /// privilege level 0.
    fn vmx_instruction(&mut self, op: &Op, reason: ExitReason, info: fn(&Op) -> u32) -> Exec {
        if !self.vmx.on || !self.is_vmx_mode() {
            return Err(self.undefined_opcode());
        }
        if self.vmx.non_root {
            return Err(self.vmx_instruction_exit(op, reason, info(op)));
        }
        self.history.instruction = Some((reason, self.rip_of(op)));
        if self.cpl != 0 { Err(self.general_protection(0)) } else { Ok(()) }
    }

    /// As [`Cpu::vmx_instruction`], for VMREAD and VMWRITE of the field in `register`: they do not exit when VMCS shadowing lets them reach
    /// the shadow VMCS. The field's encoding.
    fn vmcs_access(&mut self, op: &Op, access: &VmcsAccess, size: usize) -> Exec<u64> {
        self.history.instruction = Some((access.reason, self.rip_of(op)));
        if !self.vmx.on || !self.is_vmx_mode() {
            return Err(self.undefined_opcode());
        }
        let mask = if size == 4 { 0xffff_ffff } else { u64::MAX };
        let encoding = self.regs[op.r[access.register] as usize & 15] & mask;
        if self.vmx.non_root && !self.is_shadowed(access.bitmap, encoding) {
            let info = instruction_info::vmcs_access(op, 1 - access.register, access.memory);
            return Err(self.vmx_instruction_exit(op, access.reason, info));
        }
        if self.cpl != 0 { Err(self.general_protection(0)) } else { Ok(encoding) }
    }

    #[cold]
    fn vmx_instruction_exit(&mut self, op: &Op, reason: ExitReason, info: u32) -> crate::trap::Trapped {
        use spec::vmx::qualification::instruction_info::REGISTER;
        let mut exit = Exit::of_instruction(reason, op);
        exit.info = info;
        if info != 0 && info & REGISTER == 0 {
            exit.qualification = self.displacement(op);
        }
        self.vm_exit(exit)
    }

    /// The 64-bit physical address that is the memory operand of VMXON, VMCLEAR and VMPTRLD.
    fn vmx_pointer(&mut self, op: &Op) -> Exec<u64> {
        let at = self.linear(op, 8, false)?;
        self.load::<8>(at)
    }

    fn is_vmx_page(&self, address: u64) -> bool {
        address & 0xfff == 0 && address >> self.physical_bits == 0
    }

    /// Whether the region at `pointer` has a revision identifier that VMPTRLD takes: with bit 31, a shadow VMCS, where shadowing exists.
    fn is_known_revision(&mut self, pointer: u64) -> bool {
        let can_shadow = self.vmx.capabilities.secondary.allowed & Secondary::VMCS_SHADOWING != 0;
        let ignored = if can_shadow { vmcs::SHADOW } else { 0 };
        self.physical_load::<4>(pointer) as u32 & !ignored == vmcs::REVISION
    }

    /// Reads the VMCS region at `pointer` into the current VMCS.
    fn read_vmcs_region(&mut self, pointer: u64) {
        let mut vmcs = std::mem::take(&mut self.vmx.vmcs);
        vmcs.pointer = pointer;
        vmcs.shadow = self.physical_load::<4>(pointer) as u32 & vmcs::SHADOW != 0;
        vmcs.launched = self.physical_load::<4>(pointer + vmcs::LAUNCH_STATE_OFFSET) != 0;
        let mut at = pointer + vmcs::FIELDS_OFFSET;
        vmcs.take_values(|| {
            at += 8;
            self.physical_load::<8>(at - 8)
        });
        self.vmx.vmcs = vmcs;
    }

    /// Writes the current VMCS, if there is one, back to its region.
    pub(crate) fn write_vmcs_region(&mut self) {
        if !self.vmx.vmcs.is_current() {
            return;
        }
        let vmcs = std::mem::take(&mut self.vmx.vmcs);
        self.physical_store::<4>(vmcs.pointer + vmcs::LAUNCH_STATE_OFFSET, u64::from(vmcs.launched));
        for (n, value) in vmcs.values().enumerate() {
            self.physical_store::<8>(vmcs.pointer + vmcs::FIELDS_OFFSET + 8 * n as u64, value);
        }
        self.vmx.vmcs = vmcs;
    }
}

fn memory_info(op: &Op) -> u32 {
    instruction_info::memory_operand(op)
}

fn no_info(_op: &Op) -> u32 {
    0
}

fn vmxon(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.is_vmx_mode() || cpu.cr4 & Cr4::VMXE == 0 {
        return Err(cpu.undefined_opcode());
    }
    if cpu.vmx.non_root {
        return Err(cpu.vmx_instruction_exit(op, ExitReason::Vmxon, memory_info(op)));
    }
    if cpu.cpl != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.history.instruction = Some((ExitReason::Vmxon, cpu.rip_of(op)));
    if cpu.vmx.on {
        cpu.vm_fail(Error::VmxonInRoot);
        return Ok(());
    }
    let capabilities = &cpu.vmx.capabilities;
    let fixed = cpu.cr0 & capabilities.cr0_fixed0 == capabilities.cr0_fixed0
        && cpu.cr4 & capabilities.cr4_fixed0 == capabilities.cr4_fixed0;
    let enabled = FeatureControl(cpu.msrs.feature_control).has(FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX);
    if !fixed || !enabled {
        return Err(cpu.general_protection(0));
    }
    let pointer = cpu.vmx_pointer(op)?;
    if !cpu.is_vmx_page(pointer) || cpu.physical_load::<4>(pointer) as u32 != vmcs::REVISION {
        cpu.vm_fail_invalid();
        return Ok(());
    }
    cpu.vmx.on = true;
    cpu.vmx.vmxon_pointer = pointer;
    cpu.vmx.vmcs.pointer = NO_POINTER;
    cpu.vm_succeed();
    cpu.recheck_events();
    Ok(())
}

fn vmxoff(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vmx_instruction(op, ExitReason::Vmxoff, no_info)?;
    cpu.write_vmcs_region();
    cpu.vmx.leave_operation();
    cpu.vm_succeed();
    cpu.recheck_events();
    Ok(())
}

fn vmclear(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vmx_instruction(op, ExitReason::Vmclear, memory_info)?;
    let pointer = cpu.vmx_pointer(op)?;
    if !cpu.is_vmx_page(pointer) {
        cpu.vm_fail(Error::VmclearInvalidAddress);
    } else if pointer == cpu.vmx.vmxon_pointer {
        cpu.vm_fail(Error::VmclearVmxonPointer);
    } else {
        if pointer == cpu.vmx.vmcs.pointer {
            cpu.write_vmcs_region();
            cpu.vmx.vmcs.pointer = NO_POINTER;
        }
        cpu.physical_store::<4>(pointer + vmcs::LAUNCH_STATE_OFFSET, 0);
        cpu.vm_succeed();
    }
    Ok(())
}

fn vmptrld(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vmx_instruction(op, ExitReason::Vmptrld, memory_info)?;
    let pointer = cpu.vmx_pointer(op)?;
    if !cpu.is_vmx_page(pointer) {
        cpu.vm_fail(Error::VmptrldInvalidAddress);
    } else if pointer == cpu.vmx.vmxon_pointer {
        cpu.vm_fail(Error::VmptrldVmxonPointer);
    } else if !cpu.is_known_revision(pointer) {
        cpu.vm_fail(Error::VmptrldRevision);
    } else {
        if pointer != cpu.vmx.vmcs.pointer {
            cpu.write_vmcs_region();
            cpu.read_vmcs_region(pointer);
        }
        cpu.vm_succeed();
    }
    Ok(())
}

fn vmptrst(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vmx_instruction(op, ExitReason::Vmptrst, memory_info)?;
    let at = cpu.linear(op, 8, true)?;
    cpu.store::<8>(at, cpu.vmx.vmcs.pointer)?;
    cpu.vm_succeed();
    Ok(())
}

/// Whether the field `encoding` exists; the value of a general register, so up to 64 bits.
fn existing_field(cpu: &Cpu, encoding: u64) -> Option<VmcsField> {
    let field = VmcsField(u32::try_from(encoding).ok()?);
    cpu.vmx.capabilities.has_field(field).then_some(field)
}

/// VMREAD or VMWRITE.
struct VmcsAccess {
    reason: ExitReason,
    /// The bitmap that says which fields exit in spite of VMCS shadowing.
    bitmap: VmcsField,
    /// Which operand has the field's encoding.
    register: usize,
    /// The other operand is in memory.
    memory: bool,
}

const fn reading(memory: bool) -> VmcsAccess {
    VmcsAccess { reason: ExitReason::Vmread, bitmap: VmcsField::VMREAD_BITMAP, register: 1, memory }
}

const fn writing(memory: bool) -> VmcsAccess {
    VmcsAccess { reason: ExitReason::Vmwrite, bitmap: VmcsField::VMWRITE_BITMAP, register: 0, memory }
}

fn vmread<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let memory = op.has(MEMORY_FIRST);
    let encoding = cpu.vmcs_access(op, &reading(memory), N)?;
    if !cpu.has_accessible_vmcs() {
        cpu.vm_fail_invalid();
        return Ok(());
    }
    let Some(field) = existing_field(cpu, encoding) else {
        cpu.vm_fail(Error::UnsupportedComponent);
        return Ok(());
    };
    let mask = if N == 4 { 0xffff_ffff } else { u64::MAX };
    let whole = cpu.read_vmcs_field(field.full());
    let value = if field.access_type() == AccessType::High { whole >> 32 } else { whole } & mask;
    if memory {
        let at = cpu.linear(op, N as u64, true)?;
        cpu.store::<N>(at, value)?;
    } else {
        cpu.regs[op.r[0] as usize & 15] = value;
    }
    cpu.vm_succeed();
    Ok(())
}

fn vmwrite_register<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let encoding = cpu.vmcs_access(op, &writing(false), N)?;
    let value = cpu.regs[op.r[1] as usize & 15];
    vmwrite::<N>(cpu, encoding, value);
    Ok(())
}

fn vmwrite_memory<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let encoding = cpu.vmcs_access(op, &writing(true), N)?;
    if !cpu.has_accessible_vmcs() {
        cpu.vm_fail_invalid();
        return Ok(());
    }
    let at = cpu.linear(op, N as u64, false)?;
    let value = cpu.load::<N>(at)?;
    vmwrite::<N>(cpu, encoding, value);
    Ok(())
}

fn vmwrite<const N: usize>(cpu: &mut Cpu, encoding: u64, value: u64) {
    if !cpu.has_accessible_vmcs() {
        return cpu.vm_fail_invalid();
    }
    let mask = if N == 4 { 0xffff_ffff } else { u64::MAX };
    let value = value & mask;
    let Some(field) = existing_field(cpu, encoding) else {
        return cpu.vm_fail(Error::UnsupportedComponent);
    };
    if field.field_type() == FieldType::ExitInformation && !cpu.vmx.capabilities.writes_any_field() {
        return cpu.vm_fail(Error::VmwriteReadOnly);
    }
    let full = field.full();
    let value = match (field.width(), field.access_type()) {
        (Width::Bits16, _) => value & 0xffff,
        (Width::Bits32, _) => value & 0xffff_ffff,
        (Width::Bits64, AccessType::High) => cpu.read_vmcs_field(full) & 0xffff_ffff | value << 32,
        (Width::Bits64 | Width::Natural, _) => value,
    };
    cpu.write_vmcs_field(full, value);
    cpu.vm_succeed();
}

fn vmlaunch(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vmx_instruction(op, ExitReason::Vmlaunch, no_info)?;
    cpu.require_exact()?;
    cpu.vm_entry(cpu.next_rip(op), true)
}

fn vmresume(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vmx_instruction(op, ExitReason::Vmresume, no_info)?;
    cpu.require_exact()?;
    cpu.vm_entry(cpu.next_rip(op), false)
}

fn vmcall(cpu: &mut Cpu, op: &Op) -> Exec {
    // From non-root operation it exits in every mode and at every privilege level.
    if cpu.vmx.non_root {
        return Err(cpu.vmx_instruction_exit(op, ExitReason::Vmcall, 0));
    }
    cpu.vmx_instruction(op, ExitReason::Vmcall, no_info)?;
    cpu.vm_fail(Error::VmcallInRoot);
    Ok(())
}

fn vmfunc(cpu: &mut Cpu, op: &Op) -> Exec {
    let function = cpu.regs[RAX] as u32;
    if !cpu.vmx.controls.secondary.has(Secondary::ENABLE_VM_FUNCTIONS) || function >= 64 {
        return Err(cpu.undefined_opcode());
    }
    let enabled = cpu.vmx.vmcs.get(VmcsField::VM_FUNCTION_CONTROLS) >> function & 1 != 0;
    if !enabled || 1u64 << function != vmfunc::EPTP_SWITCHING {
        return Err(cpu.vm_exit(Exit::of_instruction(ExitReason::Vmfunc, op)));
    }
    // EPTP switching (26.5.6.3).
    let entry = cpu.regs[RCX] as u32;
    let list = cpu.vmx.vmcs.get(VmcsField::EPTP_LIST_ADDRESS);
    let pointer = if entry < 512 { cpu.physical_load::<8>(list.wrapping_add(8 * u64::from(entry))) } else { u64::MAX };
    let valid = entry < 512
        && bad_ept_pointer(pointer, cpu.vmx.capabilities.ept_vpid, cpu.physical_bits).is_none()
        && Eptp(pointer).walk_length() == Eptp(cpu.vmx.eptp).walk_length();
    if !valid {
        return Err(cpu.vm_exit(Exit::of_instruction(ExitReason::Vmfunc, op)));
    }
    cpu.vmx.vmcs.set(VmcsField::EPT_POINTER, pointer);
    cpu.vmx.eptp = pointer;
    let secondary = cpu.vmx.controls.secondary;
    if secondary.has(Secondary::EPT_VIOLATION_VE) {
        cpu.vmx.vmcs.set(VmcsField::EPTP_INDEX, u64::from(entry));
    }
    if !secondary.has(Secondary::ENABLE_VPID) {
        cpu.tlb.flush_where(|key| key.vpid == 0);
    }
    cpu.mmu_mode_changed();
    cpu.recheck_events();
    Ok(())
}

fn invalidation_info(op: &Op) -> u32 {
    instruction_info::register_and_memory(op, op.r[0])
}

/// The type (register operand) and the descriptor (memory operand) of INVEPT and INVVPID.
fn invalidation(cpu: &mut Cpu, op: &Op) -> Exec<(u64, u64, u64)> {
    let mask = if op.size == 4 { 0xffff_ffff } else { u64::MAX };
    let kind = cpu.regs[op.r[0] as usize & 15] & mask;
    let at = cpu.linear(op, 16, false)?;
    let low = cpu.load::<8>(at)?;
    let high = cpu.load::<8>(at.wrapping_add(8))?;
    Ok((kind, low, high))
}

fn invept(cpu: &mut Cpu, op: &Op) -> Exec {
    let supported = cpu.vmx.capabilities.ept_vpid;
    if !supported.has(EptVpidCap::INVEPT) {
        return Err(cpu.undefined_opcode());
    }
    cpu.vmx_instruction(op, ExitReason::Invept, invalidation_info)?;
    let (kind, pointer, _) = invalidation(cpu, op)?;
    match kind {
        invept_type::SINGLE_CONTEXT if supported.has(EptVpidCap::INVEPT_SINGLE) => {
            if bad_ept_pointer(pointer, cpu.vmx.capabilities.ept_vpid, cpu.physical_bits).is_some() {
                cpu.vm_fail(Error::InvalidOperand);
                return Ok(());
            }
            let table = Eptp(pointer).table();
            cpu.tlb.flush_where(|key| key.eptp != 0 && Eptp(key.eptp).table() == table);
        }
        invept_type::ALL_CONTEXT if supported.has(EptVpidCap::INVEPT_ALL) => cpu.tlb.flush_where(|key| key.eptp != 0),
        _ => {
            cpu.vm_fail(Error::InvalidOperand);
            return Ok(());
        }
    }
    cpu.vm_succeed();
    cpu.recheck_events();
    Ok(())
}

fn invvpid(cpu: &mut Cpu, op: &Op) -> Exec {
    let supported = cpu.vmx.capabilities.ept_vpid;
    if !supported.has(EptVpidCap::INVVPID) {
        return Err(cpu.undefined_opcode());
    }
    cpu.vmx_instruction(op, ExitReason::Invvpid, invalidation_info)?;
    let (kind, descriptor, linear) = invalidation(cpu, op)?;
    let vpid = descriptor as u16;
    let valid = descriptor >> 16 == 0
        && match kind {
            invvpid_type::INDIVIDUAL_ADDRESS => {
                supported.has(EptVpidCap::INVVPID_ADDRESS) && vpid != 0 && cpu.is_canonical(linear)
            }
            invvpid_type::SINGLE_CONTEXT => supported.has(EptVpidCap::INVVPID_SINGLE) && vpid != 0,
            invvpid_type::SINGLE_CONTEXT_RETAINING_GLOBALS => {
                supported.has(EptVpidCap::INVVPID_SINGLE_RETAIN_GLOBALS) && vpid != 0
            }
            invvpid_type::ALL_CONTEXT => supported.has(EptVpidCap::INVVPID_ALL),
            _ => false,
        };
    if !valid {
        cpu.vm_fail(Error::InvalidOperand);
        return Ok(());
    }
    match kind {
        invvpid_type::INDIVIDUAL_ADDRESS => cpu.tlb.flush_page_where(linear, |key| key.vpid == vpid),
        invvpid_type::ALL_CONTEXT => cpu.tlb.flush_where(|key| key.vpid != 0),
        _ => cpu.tlb.flush_where(|key| key.vpid == vpid),
    }
    cpu.vm_succeed();
    cpu.recheck_events();
    Ok(())
}
