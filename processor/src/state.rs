//! The saved state of a processor.

use crate::apic::{LocalApic, LocalApicState};
use crate::cpu::{Cpu, TableRegister};
use crate::run::{Activity, attention};
use crate::segment::Segment;
use crate::system::event::PendingEvents;
use crate::system::halt::Monitor;
use crate::system::msrs::Msrs;
use crate::vmx::state::VmxState;
use crate::x87::{X87, X87State};
use serde::{Deserialize, Serialize};

/// Saved state of a [`Cpu`] at an instruction boundary. Two processors with equal states behave alike from there on, given equal memory and
/// boards: what is cached (translations, decoded code) and what follows from the CPU model is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    registers: [u64; 16],
    rip: u64,
    rflags: u64,
    segments: [Segment; 6],
    ldtr: Segment,
    tr: Segment,
    gdtr: TableRegister,
    idtr: TableRegister,
    cpl: u8,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    xcr0: u64,
    efer: u64,
    pkru: u32,
    ssp: u64,
    pdptes: [u64; 4],
    dr: [u64; 8],
    ymm: [[u64; 4]; 16],
    mxcsr: u32,
    x87: X87State,
    instructions: u64,
    idle_time: u64,
    pending_breakpoints: u64,
    random_state: u64,
    activity: Activity,
    apic: LocalApicState,
    msrs: Msrs,
    events: PendingEvents,
    monitor: Monitor,
    vmx: VmxState,
    /// VT-x asked that something be seen to between instructions.
    vmx_attention: bool,
}

impl Cpu {
    /// The state, between two instructions.
    #[must_use]
    pub fn save(&self) -> CpuState {
        let Self {
            regs,
            flags: _,
            rip,
            rflags: _,
            segs,
            tlb: _,
            ram: _,
            exact: _,
            code_stores: _,
            trail: _,
            trap: _,
            fault_address: _,
            non_canonical: _,
            instructions,
            idle_time,
            attention: flags,
            cpl,
            mode: _,
            cr0,
            cr2,
            cr3,
            cr4,
            xcr0,
            efer,
            pkru,
            ssp,
            cet: _,
            watches_locks: _,
            pdptes,
            dr,
            gdtr,
            idtr,
            ldtr,
            tr,
            ymm,
            mxcsr,
            x87,
            sse_blocked: _,
            avx_blocked: _,
            physical_bits: _,
            map: _,
            bus: _,
            pending_breakpoints,
            random_state,
            index: _,
            activity,
            model: _,
            processors: _,
            apic,
            msrs,
            events,
            monitor,
            vmx,
            observer: _,
            history: _,
            peers: _,
            clock: _,
            published: _,
            locked: _,
            debugger: _,
            jumps: _,
            shadow_cache: _,
        } = self;
        CpuState {
            registers: std::array::from_fn(|number| regs[number]),
            rip: *rip,
            rflags: self.rflags(),
            segments: std::array::from_fn(|number| segs[number]),
            ldtr: *ldtr,
            tr: *tr,
            gdtr: *gdtr,
            idtr: *idtr,
            cpl: *cpl,
            cr0: *cr0,
            cr2: *cr2,
            cr3: *cr3,
            cr4: *cr4,
            xcr0: *xcr0,
            efer: *efer,
            pkru: *pkru,
            ssp: *ssp,
            pdptes: *pdptes,
            dr: *dr,
            ymm: *ymm,
            mxcsr: *mxcsr,
            x87: x87.save(),
            instructions: *instructions,
            idle_time: *idle_time,
            pending_breakpoints: *pending_breakpoints,
            random_state: *random_state,
            activity: *activity,
            apic: apic.save(),
            msrs: *msrs,
            // What is noted of the instruction that ran last on its own matters to nobody after it.
            events: PendingEvents {
                step_length: 0,
                interrupted: false,
                trace_late: false,
                loaded_rf: false,
                iterations_left: self.iterations_left(),
                ..*events
            },
            monitor: *monitor,
            vmx: vmx.save(),
            vmx_attention: *flags & attention::VMX != 0,
        }
    }

    /// Takes up a state that a processor of the same model saved.
    pub fn restore(&mut self, state: &CpuState) {
        let CpuState {
            registers,
            rip,
            rflags,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            cpl,
            cr0,
            cr2,
            cr3,
            cr4,
            xcr0,
            efer,
            pkru,
            ssp,
            pdptes,
            dr,
            ymm,
            mxcsr,
            x87,
            instructions,
            idle_time,
            pending_breakpoints,
            random_state,
            activity,
            apic,
            msrs,
            events,
            monitor,
            vmx,
            vmx_attention,
        } = state;
        self.regs = [0; 256];
        self.regs[..16].copy_from_slice(registers);
        self.rip = *rip;
        self.segs[..6].copy_from_slice(segments);
        (self.ldtr, self.tr, self.gdtr, self.idtr) = (*ldtr, *tr, *gdtr, *idtr);
        (self.cr0, self.cr2, self.cr3, self.cr4) = (*cr0, *cr2, *cr3, *cr4);
        self.ssp = *ssp;
        (self.xcr0, self.efer, self.pkru, self.pdptes, self.dr) = (*xcr0, *efer, *pkru, *pdptes, *dr);
        (self.ymm, self.mxcsr, self.x87) = (*ymm, *mxcsr, X87::restore(x87));
        (self.instructions, self.idle_time) = (*instructions, *idle_time);
        (self.pending_breakpoints, self.random_state) = (*pending_breakpoints, *random_state);
        (self.apic, self.msrs, self.events, self.monitor) = (LocalApic::restore(apic), *msrs, *events, *monitor);
        self.vmx.restore(vmx);
        self.cpl = (*cpl).min(3);
        self.activity = *activity;
        self.set_rflags(*rflags);
        self.attention = attention::EVENT | attention::DEADLINE;
        if *vmx_attention {
            self.attention |= attention::VMX;
        }
        if self.activity != Activity::Active {
            self.attention |= attention::INACTIVE;
        }
        self.tlb.flush_all();
        self.mode_changed();
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Machine;

    #[test]
    fn a_restored_processor_goes_on_alike() {
        let program = [
            0x48, 0xff, 0xc0, // inc rax
            0x0f, 0x31, // rdtsc
            0x48, 0x0f, 0xc7, 0xf3, // rdrand rbx
            0x48, 0x01, 0xd8, // add rax, rbx
            0xeb, 0xf2, // jmp back
        ];
        let mut first = Machine::long();
        first.cpu.rip = 0x8000;
        first.write(0x8000, &program);
        first.steps(7);
        let state = first.cpu.save();
        let mut second = Machine::long();
        second.write(0x8000, &program);
        second.cpu.restore(&state);
        assert_eq!(second.cpu.save(), state);
        first.steps(20);
        second.steps(20);
        assert_eq!(first.cpu.save(), second.cpu.save());
    }
}
