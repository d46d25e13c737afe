//! What a processor does all day: chooses one of its vCPUs, runs it until its time is up or it waits, and waits itself when none can run.

use crate::processor::{self, PROCESSOR, say};
use crate::remapping;
use crate::slot::Slot;
use crate::vmx::{self, CurrentVmcs};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bare::console::Console;
use bare::cpu;
use bare::processors::Tables;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::capabilities::{ApicVirtualization, Capabilities};
use hypervisor::console::Terminal;
use hypervisor::exits::{self, Exit};
use hypervisor::host::{Host, Nanoseconds, ProcessorId};
use hypervisor::memory::Pages;
use hypervisor::network::Switch;
use hypervisor::remapping::Remapping;
use hypervisor::scheduler::{Account, Decision, Scheduler};
use hypervisor::vcpu::Vcpu;
use hypervisor::vm::{End, Vm, all_have_ended, begin_waiting};
use hypervisor::vmcs::{Vmcs, field};
use spec::vmx::ExitReason;
use spec::vmx::ept::invept_type;
use spin::Mutex;

/// What all processors share.
pub struct Shared {
    /// What the processor has.
    pub capabilities: Capabilities,
    /// The MSR bitmaps of all guests: for a local APIC in xAPIC mode, and in x2APIC mode.
    pub msr_bitmaps: [u64; 2],
    /// The guests.
    pub vms: Vec<Arc<Vm>>,
    /// The switch between them.
    pub switch: Arc<Switch>,
    /// Their terminal.
    pub terminal: Arc<Terminal>,
    /// The remapping units, where there are any.
    pub remapping: Option<Arc<Remapping>>,
    /// The processors that idle, as bits.
    pub idle: AtomicU64,
    /// vCPUs on their way to these processors.
    pub moving: Mutex<Vec<(ProcessorId, Slot, Account)>>,
    /// The vCPUs of each processor, until it takes them.
    pub vcpus: Mutex<Vec<Vec<Vcpu>>>,
}

/// Runs this processor's vCPUs until all guests have ended (the first processor) or its own have.
pub fn processor(shared: &Shared, tables: Tables, first: bool) {
    let me = PROCESSOR.processor();
    let Some(region) = crate::memory::PAGES.page() else { return };
    if let Err(failure) = vmx::start(&shared.capabilities, region.address()) {
        say!("processor {me}: VMXON: {failure:?}");
        return;
    }
    let mut slots = settle(shared, me, &tables);
    let mut scheduler = Scheduler::default();
    for slot in &slots {
        let configuration = &slot.vcpu.vm.configuration;
        scheduler.add(Account::new(configuration.weight, configuration.cap));
    }
    let mut loaded: Option<usize> = None;
    let timer = shared.capabilities.preemption_timer();
    let me_bit = 1 << me;
    loop {
        shared.idle.fetch_and(!me_bit, Ordering::SeqCst);
        for (slot, account) in arrivals(shared, me, &tables) {
            // The VMCS that was current is not any more.
            if let Some(before) = loaded.take() {
                slots[before].unload();
            }
            slots.push(slot);
            scheduler.add(account);
        }
        if first {
            shared.switch.poll();
            take_keys(shared);
        }
        if let Some(remapping) = &shared.remapping {
            remapping::pass_all(remapping, &shared.vms);
            if first && remapping::have_faults_come() {
                remapping::tell_faults(remapping, &shared.vms);
            }
        }
        slots.iter_mut().for_each(|slot| slot.vcpu.attend(&PROCESSOR));
        let mut begins = None;
        if first {
            if all_have_ended(&PROCESSOR, &shared.vms) {
                return;
            }
            begins = begin_waiting(&PROCESSOR, &shared.vms);
        }
        let now = PROCESSOR.now();
        let deadline = slots.iter().filter_map(|slot| slot.vcpu.deadline()).chain(begins).min();
        match scheduler.choose(now, |place| slots[place].vcpu.is_ready()) {
            Decision::Run(mut place, until) => {
                if let Some((surplus, to)) = surplus(shared, &scheduler, place) {
                    if loaded == Some(surplus) {
                        slots[surplus].unload();
                        loaded = None;
                    }
                    let mut slot = slots.remove(surplus);
                    slot.leave();
                    shared.moving.lock().push((to, slot, scheduler.remove(surplus)));
                    PROCESSOR.kick(to);
                    let after = |place: usize| if place > surplus { place - 1 } else { place };
                    (place, loaded) = (after(place), loaded.map(after));
                }
                if loaded != Some(place) {
                    if let Some(before) = loaded {
                        slots[before].unload();
                    }
                    slots[place].load();
                    loaded = Some(place);
                }
                run(shared, &mut slots[place], until.min(deadline.unwrap_or(u64::MAX)), timer);
                scheduler.ran(place, now, PROCESSOR.now());
                if core::mem::take(&mut slots[place].vcpu.spins) {
                    scheduler.pass(place);
                }
            }
            Decision::Idle(resumes) => {
                let until = [deadline, resumes].into_iter().flatten().min();
                processor::set_timer(until.map(|until| until.saturating_sub(PROCESSOR.now())));
                let mail = slots.iter().any(|slot| slot.vcpu.mailbox().has_mail());
                if !mail {
                    shared.idle.fetch_or(me_bit, Ordering::SeqCst);
                    cpu::wait_for_interrupt();
                }
            }
        }
    }
}

/// The vCPUs that others have given to this processor.
fn arrivals(shared: &Shared, me: ProcessorId, tables: &Tables) -> Vec<(Slot, Account)> {
    let mut moving = shared.moving.lock();
    if moving.is_empty() {
        return Vec::new();
    }
    let (mine, others): (Vec<_>, Vec<_>) = core::mem::take(&mut *moving).into_iter().partition(|(to, ..)| *to == me);
    *moving = others;
    drop(moving);
    let posts = posts(shared);
    mine.into_iter()
        .map(|(_, mut slot, account)| {
            slot.arrive(tables);
            slot.vcpu.mailbox().settle(me, posts);
            slot.vcpu.vm.vcpu_moved();
            // It may have been here before, and have changed its page tables since.
            let _ = vmx::invept(invept_type::ALL_CONTEXT, [0, 0]);
            (slot, account)
        })
        .collect()
}

/// A vCPU that waits here while another processor idles, and that processor, which idles no more then.
fn surplus(shared: &Shared, scheduler: &Scheduler, chosen: usize) -> Option<(usize, ProcessorId)> {
    let place = scheduler.surplus(chosen)?;
    let idle = shared.idle.load(Ordering::SeqCst);
    if idle == 0 {
        return None;
    }
    let processor = idle.trailing_zeros();
    let bit = 1 << processor;
    (shared.idle.fetch_and(!bit, Ordering::SeqCst) & bit != 0).then_some((place, processor))
}

fn posts(shared: &Shared) -> bool {
    shared.capabilities.apic() == ApicVirtualization::PostedInterrupts
}

/// Gives what was typed to the guests that it is for.
fn take_keys(shared: &Shared) {
    let mut keys = Vec::new();
    while let Some(key) = Console::read() {
        keys.push(key);
    }
    for (console, bytes) in shared.terminal.typed(&keys) {
        if let Some(vm) = shared.vms.iter().find(|vm| vm.console == console) {
            vm.type_bytes(&PROCESSOR, &bytes);
        }
    }
}

/// Takes this processor's vCPUs, waiting until there are lists of them, and makes their VMCSs.
fn settle(shared: &Shared, me: u32, tables: &Tables) -> Vec<Slot> {
    let vcpus = loop {
        let mut lists = shared.vcpus.lock();
        if !lists.is_empty() {
            break lists.get_mut(me as usize).map(core::mem::take).unwrap_or_default();
        }
        drop(lists);
        cpu::wait_for_interrupt();
    };
    let posts = posts(shared);
    let mut slots = Vec::new();
    for vcpu in vcpus {
        let vm = Arc::clone(&vcpu.vm);
        vcpu.mailbox().settle(me, posts);
        vm.vcpu_moved();
        // VPID 0 is the hypervisor's.
        let vpid = (vm.index * 64 + vcpu.index + 1) as u16;
        let Some(slot) = Slot::new(vcpu, vpid, &shared.capabilities, shared.msr_bitmaps, tables) else {
            vm.end(&PROCESSOR, End::Failed("there is not enough memory for its VMCSs".into()));
            continue;
        };
        // What another use of the processor may have left.
        let _ = vmx::invept(invept_type::ALL_CONTEXT, [0, 0]);
        slots.push(slot);
    }
    slots
}

/// Runs a vCPU until `until`, or until it waits for something.
fn run(shared: &Shared, slot: &mut Slot, until: Nanoseconds, timer: Option<u32>) {
    slot.vcpu.statistics.turns += 1;
    slot.vcpu.mailbox().set_turn(true);
    let mut left = cpu::timestamp();
    loop {
        slot.vcpu.attend(&PROCESSOR);
        let now = PROCESSOR.now();
        if !slot.vcpu.is_ready() || now >= until {
            break;
        }
        slot.vcpu.prepare(&mut CurrentVmcs, &PROCESSOR);
        let time = until.min(slot.vcpu.deadline().unwrap_or(u64::MAX)).saturating_sub(now);
        limit(time, timer);
        // Who has sent something since `attend` has called this processor, which ends the guest's turn at once.
        slot.vcpu.mailbox().set_inside(true);
        let entered = cpu::timestamp();
        slot.vcpu.statistics.outside += entered - left;
        let result = slot.enter();
        left = cpu::timestamp();
        slot.vcpu.mailbox().set_inside(false);
        slot.vcpu.statistics.inside += left - entered;
        match result {
            Ok(reason) => {
                leave(shared, slot, reason);
                if reason == ExitReason::ExternalInterrupt as u32 {
                    // Another vCPU may have been woken, and be more in need of the processor.
                    break;
                }
                if slot.vcpu.spins {
                    break;
                }
            }
            Err(error) => {
                let why = alloc::format!("VM entry failed: VM-instruction error {error}");
                slot.vcpu.vm.restart(&PROCESSOR, End::Failed(why));
            }
        }
    }
    slot.vcpu.mailbox().set_turn(false);
    slot.vcpu.statistics.outside += cpu::timestamp() - left;
}

/// Makes the guest leave after `time`: by the VMX-preemption timer, which counts every `1 << timer` time-stamp counts, or without one by the
/// local APIC's.
fn limit(time: Nanoseconds, timer: Option<u32>) {
    if let Some(rate) = timer {
        let count = (processor::ticks(time) >> rate).min(u64::from(u32::MAX));
        (&mut CurrentVmcs as &mut dyn Vmcs).set(field::PREEMPTION_TIMER, count as u32);
    } else {
        processor::set_timer(Some(time));
    }
}

/// After a VM exit.
fn leave(shared: &Shared, slot: &mut Slot, reason: u32) {
    if reason == ExitReason::ExternalInterrupt as u32 {
        let vmcs: &mut dyn Vmcs = &mut CurrentVmcs;
        let info = vmcs.get(field::EXIT_INTERRUPTION_INFO);
        if info.is_valid() {
            processor::end_of_interrupt();
            if let Some(remapping) = &shared.remapping {
                remapping::arrived(remapping, &shared.vms, info.vector());
            }
        } else {
            cpu::admit_interrupts();
        }
    }
    exits::handle(Exit { vcpu: &mut slot.vcpu, vmcs: &mut CurrentVmcs, host: &PROCESSOR }, reason);
}
