//! Descriptors and the loading of segment registers (SDM vol. 3A, 5.1 to 5.7; vol. 2, MOV, LDS, LAR, LSL, VERR).

use crate::cpu::{Cpu, Mode};
use crate::segment::{CS, DS, ES, FS, GS, SS, Segment, UNUSABLE};
use crate::trap::{Exec, Trapped};
use spec::x86::descriptors::{AccessRights, Descriptor, Selector, system_type};
use spec::x86::exceptions::{SelectorErrorCode, Vector};

/// A descriptor and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub descriptor: Descriptor,
    /// Linear address of its first byte.
    pub linear: u64,
}

/// Access rights of every segment in virtual-8086 mode: present, DPL 3, writable data, accessed.
const V86_ACCESS: u32 = 0xf3;

impl Segment {
    /// A virtual-8086 mode segment.
    pub(crate) const fn virtual_8086(selector: u16) -> Self {
        Self { selector, base: (selector as u64) << 4, limit: 0xffff, access: V86_ACCESS }
    }

    /// What a register holds after a null selector was loaded: nothing usable. The DPL matters for SS, whose is the CPL.
    pub(crate) const fn null(selector: u16, dpl: u8) -> Self {
        Self { selector, base: 0, limit: 0, access: UNUSABLE | (dpl as u32) << 5 }
    }

    /// The register contents for a descriptor.
    pub(crate) fn of(selector: u16, descriptor: Descriptor) -> Self {
        Self { selector, base: u64::from(descriptor.base()), limit: descriptor.limit(), access: descriptor.access().0 }
    }
}

impl Cpu {
    /// Bit 0 of an error code: the fault comes while an event is delivered that the program did not ask for.
    pub(crate) fn external_bit(&self) -> u32 {
        u32::from(self.events.delivering.is_some_and(|event| !event.is_software()))
    }

    /// The error code that names `selector`.
    pub(crate) fn selector_error(&self, selector: u16) -> u32 {
        u32::from(selector & 0xfffc) | self.external_bit()
    }

    /// An exception whose error code names `selector`.
    #[cold]
    pub(crate) fn selector_fault(&mut self, vector: Vector, selector: u16) -> Trapped {
        let error = self.selector_error(selector);
        self.raise(vector as u8, Some(error))
    }

    /// An exception whose error code names entry `vector` of the IDT.
    #[cold]
    pub(crate) fn idt_fault(&mut self, fault: Vector, vector: u8) -> Trapped {
        let error = u32::from(vector) << 3 | SelectorErrorCode::IDT | self.external_bit();
        self.raise(fault as u8, Some(error))
    }

    /// Linear address of the descriptor of `selector`, if its `size` bytes are within the table.
    fn descriptor_address(&self, selector: u16, size: u32) -> Option<u64> {
        let selector = Selector(selector);
        let (base, limit) = if selector.is_local() {
            if !self.ldtr.usable() {
                return None;
            }
            (self.ldtr.base, self.ldtr.limit)
        } else {
            (self.gdtr.base, u32::from(self.gdtr.limit))
        };
        let offset = u32::from(selector.offset());
        (offset + size - 1 <= limit).then(|| base.wrapping_add(u64::from(offset)))
    }

    /// Reads the descriptor of `selector`; `None` if it is beyond the table's limit. Not for null selectors.
    pub(crate) fn find_descriptor(&mut self, selector: u16) -> Exec<Option<Found>> {
        let Some(linear) = self.descriptor_address(selector, 8) else { return Ok(None) };
        let descriptor = Descriptor(self.system_load::<8>(linear)?);
        Ok(Some(Found { descriptor, linear }))
    }

    /// As [`Cpu::find_descriptor`], with a fault of `vector` that names the selector when it is beyond the limit.
    pub(crate) fn need_descriptor(&mut self, selector: u16, vector: Vector) -> Exec<Found> {
        match self.find_descriptor(selector)? {
            Some(found) => Ok(found),
            None => Err(self.selector_fault(vector, selector)),
        }
    }

    /// The upper eight bytes of a system descriptor of IA-32e mode; `None` if they are beyond the limit, or the type field in
    /// them is not zero.
    pub(crate) fn find_upper_half(&mut self, selector: u16) -> Exec<Option<u64>> {
        let Some(linear) = self.descriptor_address(selector, 16) else { return Ok(None) };
        let high = self.system_load::<8>(linear.wrapping_add(8))?;
        Ok((high >> 40 & 0x1f == 0).then_some(high))
    }

    /// Sets the accessed bit of a code or data segment descriptor, in memory too.
    pub(crate) fn mark_accessed(&mut self, found: Found) -> Exec<Descriptor> {
        if found.descriptor.0 & Descriptor::ACCESSED == 0 {
            let byte = (found.descriptor.0 >> 40) as u8 | 1;
            self.system_store::<1>(found.linear.wrapping_add(5), u64::from(byte))?;
        }
        Ok(Descriptor(found.descriptor.0 | Descriptor::ACCESSED))
    }

    /// Whether the processor is in real-address or virtual-8086 mode, where a selector is a paragraph number.
    #[inline]
    pub(crate) fn paragraphs(&self) -> bool {
        matches!(self.mode, Mode::Real | Mode::Virtual8086)
    }

    /// A segment register's contents after loading `selector` in real-address or virtual-8086 mode. In real mode the limit
    /// and rights stay: "unreal" mode lives by that.
    pub(crate) fn paragraph_segment(&self, register: usize, selector: u16) -> Segment {
        if self.mode == Mode::Virtual8086 {
            return Segment::virtual_8086(selector);
        }
        let old = self.segs[register & 7];
        if old.usable() { Segment { selector, base: u64::from(selector) << 4, ..old } } else { Segment::real(selector) }
    }

    /// Loads ES, SS, DS, FS or GS, with every check of the mode.
    pub(crate) fn load_segment(&mut self, register: usize, selector: u16) -> Exec {
        let loaded = if self.paragraphs() {
            self.paragraph_segment(register, selector)
        } else if register == SS {
            self.check_stack_segment(selector)?
        } else {
            self.data_segment_for(selector, Vector::GeneralProtection)?
        };
        self.segs[register & 7] = loaded;
        if register == SS {
            self.mode_changed();
        }
        Ok(())
    }

    /// Checks a selector for a data segment register: `vector` for a wrong one, #NP for one not present.
    pub(crate) fn data_segment_for(&mut self, selector: u16, vector: Vector) -> Exec<Segment> {
        if Selector(selector).is_null() {
            return Ok(Segment::null(selector, 0));
        }
        let found = self.need_descriptor(selector, vector)?;
        let access = found.descriptor.access();
        let readable = access.is_code_or_data() && (!access.is_code() || access.has(AccessRights::RW));
        let privilege = self.cpl.max(Selector(selector).rpl());
        if !readable || (!access.is_conforming() && privilege > access.dpl()) {
            return Err(self.selector_fault(vector, selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        Ok(Segment::of(selector, self.mark_accessed(found)?))
    }

    fn check_stack_segment(&mut self, selector: u16) -> Exec<Segment> {
        let rpl = Selector(selector).rpl();
        if Selector(selector).is_null() {
            if self.mode == Mode::Long64 && self.cpl < 3 && rpl == self.cpl {
                return Ok(Segment::null(selector, self.cpl));
            }
            return Err(self.general_protection(0));
        }
        self.stack_segment_for(selector, self.cpl, Vector::GeneralProtection)
    }

    /// Checks a selector that is not null as a stack segment for privilege level `cpl`: `vector` for a wrong one, #SS for one
    /// not present.
    pub(crate) fn stack_segment_for(&mut self, selector: u16, cpl: u8, vector: Vector) -> Exec<Segment> {
        let found = self.need_descriptor(selector, vector)?;
        let access = found.descriptor.access();
        if Selector(selector).rpl() != cpl || access.dpl() != cpl || !access.is_writable_data() {
            return Err(self.selector_fault(vector, selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::StackFault, selector));
        }
        Ok(Segment::of(selector, self.mark_accessed(found)?))
    }

    /// After a return to a less privileged level: data segments that it may not use become null. Their bases stay, as the next
    /// 64-bit code sees in FS and GS.
    pub(crate) fn drop_inner_segments(&mut self) {
        for register in [ES, DS, FS, GS] {
            let segment = &self.segs[register];
            let access = AccessRights(segment.access);
            if segment.usable() && access.dpl() < self.cpl && !access.is_conforming() {
                self.segs[register].selector = 0;
                self.segs[register].access |= UNUSABLE;
            }
        }
    }

    /// Loads CS with a code segment whose checks are done; the selector's RPL becomes `cpl`, which becomes the CPL.
    pub(crate) fn commit_code_segment(&mut self, selector: u16, descriptor: Descriptor, cpl: u8) {
        self.segs[CS] = Segment::of(selector & !3 | u16::from(cpl), descriptor);
        self.cpl = cpl;
        self.mode_changed();
    }

    /// Whether LAR, or LSL, or VERR and VERW may look at a descriptor, and what it is. `None`: ZF is cleared.
    pub(crate) fn inspect(&mut self, selector: u16, allowed_system_types: u32) -> Exec<Option<Descriptor>> {
        if Selector(selector).is_null() {
            return Ok(None);
        }
        let Some(found) = self.find_descriptor(selector)? else { return Ok(None) };
        let access = found.descriptor.access();
        if !access.is_code_or_data() && allowed_system_types >> access.segment_type() & 1 == 0 {
            return Ok(None);
        }
        if !access.is_conforming() && self.cpl.max(Selector(selector).rpl()) > access.dpl() {
            return Ok(None);
        }
        if !access.is_code_or_data() && self.long_mode() && self.find_upper_half(selector)?.is_none() {
            return Ok(None);
        }
        Ok(Some(found.descriptor))
    }

    /// System segment types for which LAR succeeds (SDM vol. 2, LAR, table 3-53).
    pub(crate) fn lar_types(&self) -> u32 {
        let both = 1 << system_type::LDT
            | 1 << system_type::TSS_AVAILABLE
            | 1 << system_type::TSS_BUSY
            | 1 << system_type::CALL_GATE;
        if self.long_mode() {
            both
        } else {
            both | 1 << system_type::TSS_16_AVAILABLE
                | 1 << system_type::TSS_16_BUSY
                | 1 << system_type::CALL_GATE_16
                | 1 << system_type::TASK_GATE
        }
    }

    /// System segment types for which LSL succeeds (SDM vol. 2, LSL, table 3-56).
    pub(crate) fn lsl_types(&self) -> u32 {
        self.lar_types() & !(1 << system_type::CALL_GATE | 1 << system_type::CALL_GATE_16 | 1 << system_type::TASK_GATE)
    }

    /// Loads LDTR. The caller has checked mode and privilege.
    pub(crate) fn load_ldtr(&mut self, selector: u16, vector: Vector) -> Exec {
        if Selector(selector).is_null() {
            self.ldtr = Segment::null(selector, 0);
            return Ok(());
        }
        if Selector(selector).is_local() {
            return Err(self.selector_fault(vector, selector));
        }
        let found = self.need_descriptor(selector, vector)?;
        let access = found.descriptor.access();
        if access.is_code_or_data() || access.segment_type() != system_type::LDT {
            return Err(self.selector_fault(vector, selector));
        }
        let base = self.system_base(selector, found.descriptor, vector)?;
        if !access.has(AccessRights::P) {
            let absent = if vector == Vector::InvalidTss { vector } else { Vector::SegmentNotPresent };
            return Err(self.selector_fault(absent, selector));
        }
        self.ldtr = Segment { base, ..Segment::of(selector, found.descriptor) };
        Ok(())
    }

    /// The base of an LDT or TSS, 64 bits wide in IA-32e mode.
    pub(crate) fn system_base(&mut self, selector: u16, descriptor: Descriptor, vector: Vector) -> Exec<u64> {
        let low = u64::from(descriptor.base());
        if !self.long_mode() {
            return Ok(low);
        }
        let base = self.find_upper_half(selector)?.map(|high| high << 32 | low);
        match base {
            Some(base) if self.is_canonical_for_any_paging(base) => Ok(base),
            _ => Err(self.selector_fault(vector, selector)),
        }
    }

    /// Whether `address` is canonical for the widest paging that the model has. System registers that hold linear addresses (bases
    /// of segments and descriptor tables, entry points in MSRs) are checked like this, whatever CR4.LA57 is.
    pub(crate) fn is_canonical_for_any_paging(&self, address: u64) -> bool {
        let unused = 64 - u32::from(self.model.linear_bits());
        ((address << unused) as i64 >> unused) as u64 == address
    }

    /// LTR: loads TR and marks the TSS busy. The caller has checked mode and privilege.
    pub(crate) fn load_task_register(&mut self, selector: u16) -> Exec {
        if Selector(selector).is_null() {
            return Err(self.general_protection(0));
        }
        if Selector(selector).is_local() {
            return Err(self.selector_fault(Vector::GeneralProtection, selector));
        }
        let found = self.need_descriptor(selector, Vector::GeneralProtection)?;
        let access = found.descriptor.access();
        let kind = access.segment_type();
        let available =
            kind == system_type::TSS_AVAILABLE || (kind == system_type::TSS_16_AVAILABLE && !self.long_mode());
        if access.is_code_or_data() || !available {
            return Err(self.selector_fault(Vector::GeneralProtection, selector));
        }
        if !access.has(AccessRights::P) {
            return Err(self.selector_fault(Vector::SegmentNotPresent, selector));
        }
        let base = self.system_base(selector, found.descriptor, Vector::GeneralProtection)?;
        let busy = Descriptor(found.descriptor.0 | Descriptor::RW_OR_BUSY);
        self.system_store::<1>(found.linear.wrapping_add(5), busy.0 >> 40)?;
        self.tr = Segment { base, ..Segment::of(selector, busy) };
        Ok(())
    }

    /// The privilege level at which LDTR-type instructions must run: #GP(0) above 0.
    pub(crate) fn require_cpl0(&mut self) -> Exec {
        if self.cpl == 0 { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// #UD in real-address and virtual-8086 mode.
    pub(crate) fn require_protected(&mut self) -> Exec {
        if self.paragraphs() { Err(self.undefined_opcode()) } else { Ok(()) }
    }
}

/// Whether the segment kept in a register can be named by VERR or VERW after [`Cpu::inspect`].
pub(crate) fn verifiable(access: AccessRights, write: bool) -> bool {
    if write {
        access.is_writable_data()
    } else {
        access.is_code_or_data() && (!access.is_code() || access.has(AccessRights::RW))
    }
}
