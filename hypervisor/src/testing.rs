//! Processor and memory for tests.

use crate::configuration::{Boot, VmConfiguration};
use crate::destinations::Destinations;
use crate::host::{Host, Nanoseconds, ProcessorId};
use crate::memory::{GuestMemory, OutsideMemory, Page, Pages, RegisterPage};
use crate::vmcs::Vmcs;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spec::vmx::VmcsField;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::vec::Vec;

/// A guest of one vCPU that halts at once, with nothing besides.
pub fn guest(name: &str) -> VmConfiguration {
    VmConfiguration {
        name: name.into(),
        vcpus: 1,
        memory: 2,
        weight: 1,
        cap: 100,
        restart: false,
        watchdog: 0,
        background: false,
        network: false,
        disks: [].into(),
        assign: [].into(),
        after: None,
        virtio_console: false,
        console_to_file: false,
        boot: Boot::RealMode { image: [0xf4].into() },
    }
}

/// A VMCS that has every field.
#[derive(Debug, Default)]
pub struct TestVmcs(pub BTreeMap<u32, u64>);

impl Vmcs for TestVmcs {
    fn read(&self, field: VmcsField) -> u64 {
        self.0.get(&field.0).copied().unwrap_or(0)
    }
    fn write(&mut self, field: VmcsField, value: u64) {
        self.0.insert(field.0, value);
    }
}

/// A processor whose time stands where it is put, and which notes the calls to others.
#[derive(Debug, Default)]
pub struct TestHost {
    /// The time.
    pub now: AtomicU64,
    /// Kicks and notifications: the processor, and whether it was a notification.
    pub calls: Mutex<Vec<(ProcessorId, bool)>>,
    /// How often extended page tables were forgotten.
    pub forgotten: AtomicU32,
    /// What was written to the terminal.
    pub written: Mutex<Vec<u8>>,
    /// What was given to files, by the console's number.
    pub transferred: Mutex<Vec<(usize, Vec<u8>)>>,
}

impl Host for TestHost {
    fn now(&self) -> Nanoseconds {
        self.now.load(Ordering::Relaxed)
    }
    fn processor(&self) -> ProcessorId {
        0
    }
    fn kick(&self, processor: ProcessorId) {
        self.calls.lock().unwrap().push((processor, false));
    }
    fn notify(&self, processor: ProcessorId) {
        self.calls.lock().unwrap().push((processor, true));
    }
    fn cpuid(&self, leaf: u32, _: u32) -> [u32; 4] {
        if leaf == 0 { [0x16, 0, 0, 0] } else { [u32::MAX; 4] }
    }
    fn set_xcr0(&self, _: u64) {}
    fn forget_ept(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
    fn pause(&self, time: Nanoseconds) {
        self.now.fetch_add(time, Ordering::Relaxed);
    }
    fn write(&self, bytes: &[u8]) {
        self.written.lock().unwrap().extend(bytes);
    }
    fn transfer(&self, console: usize, bytes: &[u8]) {
        self.transferred.lock().unwrap().push((console, bytes.into()));
    }
}

impl TestHost {
    /// What was written to the terminal since the last call.
    pub fn take_written(&self) -> std::string::String {
        std::string::String::from_utf8(core::mem::take(&mut *self.written.lock().unwrap())).unwrap()
    }
}

/// Memory that the test's process gives.
#[derive(Debug)]
pub struct TestPages;

impl Pages for TestPages {
    fn page(&self) -> Option<&'static Page> {
        Some(Box::leak(Box::new(Page([const { AtomicU64::new(0) }; 512]))))
    }
    fn register_page(&self) -> Option<&'static RegisterPage> {
        Some(Box::leak(Box::new(RegisterPage([const { AtomicU32::new(0) }; 1024]))))
    }
    fn guest_memory(&self, size: u64) -> Option<Box<dyn GuestMemory>> {
        Some(Box::new(TestMemory(Mutex::new(std::vec![0; size as usize]))))
    }
}

/// The local APICs of so many vCPUs.
pub fn destinations(vcpus: usize) -> Arc<Destinations> {
    let pages = (0..vcpus).filter_map(|_| TestPages.register_page());
    Arc::new(Destinations::new(pages.collect()))
}

/// A guest's memory.
#[derive(Debug)]
pub struct TestMemory(pub Mutex<Vec<u8>>);

impl GuestMemory for TestMemory {
    fn base(&self) -> u64 {
        0x4000_0000
    }
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideMemory> {
        let memory = self.0.lock().unwrap();
        let from = memory.get(address as usize..).and_then(|m| m.get(..buffer.len())).ok_or(OutsideMemory)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
    fn write(&self, address: u64, data: &[u8]) -> Result<(), OutsideMemory> {
        let mut memory = self.0.lock().unwrap();
        let to = memory.get_mut(address as usize..).and_then(|m| m.get_mut(..data.len())).ok_or(OutsideMemory)?;
        to.copy_from_slice(data);
        Ok(())
    }
    fn clear(&self) {
        self.0.lock().unwrap().fill(0);
    }
}
