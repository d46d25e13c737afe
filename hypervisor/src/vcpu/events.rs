//! What the next VM entry injects, and the windows that are waited for (SDM Vol. 3C, 25.8.3, 27.6).

use super::Vcpu;
use crate::host::Host;
use crate::vmcs::{InterruptStatus, Vmcs, field};
use alloc::sync::Arc;
use spec::vmx::{Interruptibility, InterruptionInfo, InterruptionType, PrimaryControls};
use spec::x86::{Cr0, Rflags, Vector};

/// An event for a VM entry to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The interruption information.
    pub info: InterruptionInfo,
    /// The error code, where the information says that there is one.
    pub error_code: u32,
    /// The instruction's length, for software events.
    pub length: u32,
}

impl Injection {
    /// A fault of the running instruction.
    #[must_use]
    pub fn exception(vector: Vector, error_code: Option<u32>) -> Self {
        let info = InterruptionInfo::new(vector as u8, InterruptionType::HardwareException, error_code.is_some());
        Self { info, error_code: error_code.unwrap_or(0), length: 0 }
    }

    fn external(vector: u8) -> Self {
        Self { info: InterruptionInfo::new(vector, InterruptionType::External, false), error_code: 0, length: 0 }
    }

    fn nmi() -> Self {
        Self { info: InterruptionInfo::new(2, InterruptionType::Nmi, false), error_code: 0, length: 0 }
    }

    /// The event whose delivery a VM exit interrupted.
    #[must_use]
    pub fn interrupted(vmcs: &dyn Vmcs) -> Option<Self> {
        let info = vmcs.get(field::IDT_VECTORING_INFO);
        // Bit 12 is undefined there, and reserved here.
        info.is_valid().then(|| Self {
            info: InterruptionInfo(info.0 & !InterruptionInfo::NMI_UNBLOCKING),
            error_code: vmcs.get(field::IDT_VECTORING_ERROR_CODE),
            length: vmcs.get(field::EXIT_INSTRUCTION_LENGTH),
        })
    }
}

impl Vcpu {
    /// Gives the VMCS what the next VM entry needs.
    pub fn prepare(&mut self, vmcs: &mut dyn Vmcs, host: &dyn Host) {
        if let Some(begin) = self.begin.take() {
            self.reset(vmcs, host, begin);
        }
        let changes = self.vm.ept_changes();
        if self.ept_changes != changes {
            self.ept_changes = changes;
            host.forget_ept();
        }
        let waiting = self.choose(vmcs, host);
        if let Some(Injection { mut info, error_code, length }) = self.injection.take() {
            if !vmcs.get(field::GUEST_CR0).has(Cr0::PE) {
                // There are no error codes in real-address mode, and entries that would deliver one fail.
                info.0 &= !InterruptionInfo::ERROR_CODE;
            }
            vmcs.set(field::ENTRY_INTERRUPTION_INFO, info);
            if info.has(InterruptionInfo::ERROR_CODE) {
                vmcs.set(field::ENTRY_EXCEPTION_ERROR_CODE, error_code);
            }
            if info.kind().is_software() {
                vmcs.set(field::ENTRY_INSTRUCTION_LENGTH, length);
            }
            self.statistics.injected += 1;
        }
        self.wait_for_window(vmcs, waiting);
        if self.virtualization.delivers() {
            self.hand_over(vmcs, host);
        } else if self.virtualization.shadows_tpr() {
            vmcs.set(field::TPR_THRESHOLD, self.threshold());
        }
    }

    /// Chooses the event to inject; true when one waits that cannot be injected now.
    fn choose(&mut self, vmcs: &mut dyn Vmcs, host: &dyn Host) -> bool {
        if self.injection.is_some() {
            return self.pic_interrupts() || !self.virtualization.delivers() && self.apic.due().is_some();
        }
        let blocking = vmcs.get(field::GUEST_INTERRUPTIBILITY);
        let shadow = blocking.0 & (Interruptibility::STI | Interruptibility::MOV_SS) != 0;
        if self.nmi && !shadow && !blocking.has(Interruptibility::NMI) {
            self.nmi = false;
            self.injection = Some(Injection::nmi());
            return self.pic_interrupts();
        }
        let pic = self.pic_interrupts();
        let due = if self.virtualization.delivers() { None } else { self.apic.due() };
        if !pic && due.is_none() {
            return false;
        }
        if shadow || !vmcs.get(field::GUEST_RFLAGS).has(Rflags::IF) {
            return true;
        }
        let vector = if pic {
            let vm = Arc::clone(&self.vm);
            vm.with_board(host, crate::board::Board::acknowledge)
        } else {
            let vector = due.unwrap_or_default();
            self.apic.acknowledge(vector);
            vector
        };
        self.injection = Some(Injection::external(vector));
        self.pic_interrupts() || !self.virtualization.delivers() && self.apic.due().is_some()
    }

    fn wait_for_window(&mut self, vmcs: &mut dyn Vmcs, waiting: bool) {
        let window = PrimaryControls::INTERRUPT_WINDOW_EXITING;
        let primary = if waiting { self.controls.primary | window } else { self.controls.primary & !window };
        if primary != self.controls.primary {
            self.controls.primary = primary;
            vmcs.set(field::PRIMARY_CONTROLS, PrimaryControls(primary));
        }
    }

    /// With virtual-interrupt delivery: tells the processor what is requested and in service, and whose end concerns the I/O APIC.
    fn hand_over(&mut self, vmcs: &mut dyn Vmcs, host: &dyn Host) {
        let requesting = self.apic.requested().unwrap_or(0);
        // What is in service changes here where the processor does not virtualize the APIC's mode.
        let servicing = self.apic.in_service().unwrap_or(0);
        let (before, status) = (vmcs.get(field::GUEST_INTERRUPT_STATUS), InterruptStatus { requesting, servicing });
        if status != before {
            self.statistics.virtual_interrupts += u64::from(requesting > before.requesting);
            vmcs.set(field::GUEST_INTERRUPT_STATUS, status);
        }
        let routes = self.vm.routes();
        if self.routes != Some(routes) {
            self.routes = Some(routes);
            let vm = Arc::clone(&self.vm);
            let [a, b, c, d] = vm.with_board(host, |board| board.level_vectors());
            vmcs.set(field::EOI_EXIT_BITMAP_0, a);
            vmcs.set(field::EOI_EXIT_BITMAP_1, b);
            vmcs.set(field::EOI_EXIT_BITMAP_2, c);
            vmcs.set(field::EOI_EXIT_BITMAP_3, d);
        }
    }

    /// With a TPR shadow: the class below which the task priority must fall for the requested interrupt to be due.
    fn threshold(&self) -> u32 {
        let class = u32::from(self.apic.requested().unwrap_or(0) >> 4);
        if class <= u32::from(self.apic.task_priority() >> 4) { class } else { 0 }
    }
}
