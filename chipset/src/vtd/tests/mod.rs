//! A unit before memory of its own, with tables that the tests fill in.

mod device_tlb;
mod faults;
mod interrupts;
mod invalidation;
mod page_requests;
mod registers;
mod translation;

use super::{Access, Blocked, DeviceMessages, RemappingUnit, Request, Translation, UnitConfig, UnitPorts};
use devices::device::Device;
use devices::pci::ats::Message;
use devices::ports::{Dma, DmaFault};
use devices::testing::{FakeClock, RecordingMsi, VecDma};
use spec::vtd::FaultReason;
use spec::vtd::registers::{self as register, EventControl, GlobalCommand, fault_record, root_table};
use spec::vtd::tables::{FirstStageEntry, SecondStageEntry, context, pasid, scalable_context};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// The function whose requests the tests make: 00:03.0.
const SOURCE: u16 = 3 << 3;
/// Its domain.
const DOMAIN: u16 = 7;
/// Bytes of memory; addresses beyond have nothing behind them.
const MEMORY: u64 = 1 << 22;
/// An address without memory, for tables that cannot be read.
const NOWHERE: u64 = 1 << 30;

const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASIDS: u64 = 0x4000;
const QUEUE: u64 = 0x6000;
const INTERRUPTS: u64 = 0x8000;
/// Top tables of the second and the first stage.
const SECOND: u64 = 0x1_0000;
const FIRST: u64 = 0x2_0000;
/// Where tables below the top ones are put.
const MORE_TABLES: u64 = 0x4_0000;

const READ_WRITE: u64 = SecondStageEntry::READ | SecondStageEntry::WRITE;
const PRESENT: u64 = FirstStageEntry::PRESENT | FirstStageEntry::WRITE | FirstStageEntry::USER;

/// Messages to functions.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<(u16, Message)>>>);

impl Messages {
    fn take(&self) -> Vec<(u16, Message)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl DeviceMessages for Messages {
    fn send(&self, source: u16, message: Message) {
        self.0.lock().unwrap().push((source, message));
    }
}

/// Memory that can be made read-only.
#[derive(Clone)]
struct Guarded(VecDma, Arc<AtomicBool>);

impl Dma for Guarded {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        self.0.read(address, buffer)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        if self.1.load(Relaxed) { Err(DmaFault { address }) } else { self.0.write(address, data) }
    }
}

struct Bench {
    unit: RemappingUnit,
    memory: VecDma,
    read_only: Arc<AtomicBool>,
    events: RecordingMsi,
    clock: FakeClock,
    messages: Messages,
    next_table: u64,
    /// How many descriptors were put into the queue.
    queued: u64,
}

impl Bench {
    fn new(config: UnitConfig) -> Self {
        let memory = VecDma::new(MEMORY as usize);
        let events = RecordingMsi::new();
        let (clock, messages, read_only) = (FakeClock::new(), Messages::default(), Arc::<AtomicBool>::default());
        let ports = UnitPorts {
            memory: Box::new(Guarded(memory.clone(), read_only.clone())),
            events: Box::new(events.clone()),
            clock: Box::new(clock.clone()),
            messages: Box::new(messages.clone()),
        };
        let unit = RemappingUnit::new(config, ports);
        Self { unit, memory, read_only, events, clock, messages, next_table: MORE_TABLES, queued: 0 }
    }

    /// Legacy mode, on, with [`SOURCE`] in [`DOMAIN`] of 4 levels.
    fn legacy() -> Self {
        Self::legacy_with(UnitConfig::default())
    }

    fn legacy_with(config: UnitConfig) -> Self {
        let mut bench = Self::new(config);
        bench.put(ROOT, &[CONTEXTS | 1, 0]);
        bench.put_context(SECOND | 1, u64::from(DOMAIN) << context::DOMAIN_SHIFT | 2);
        bench.start(root_table::LEGACY);
        bench
    }

    /// Scalable mode, on, with [`SOURCE`]'s requests without PASID in PASID 1, whose translation type is `kind`.
    fn scalable(kind: u64) -> Self {
        let config = UnitConfig { scalable_mode: true, address_width: 57, ..UnitConfig::default() };
        Self::scalable_with(config, kind, scalable_context::PASID_ENABLE)
    }

    /// The same with device TLBs and page requests, which [`SOURCE`] may use.
    fn with_device_tlb(kind: u64) -> Self {
        let config = UnitConfig {
            scalable_mode: true,
            address_width: 57,
            device_tlb: true,
            page_requests: true,
            ..UnitConfig::default()
        };
        let flags =
            scalable_context::PASID_ENABLE | scalable_context::DEVICE_TLB | scalable_context::PAGE_REQUEST_ENABLE;
        Self::scalable_with(config, kind, flags)
    }

    fn scalable_with(config: UnitConfig, kind: u64, flags: u64) -> Self {
        let mut bench = Self::new(config);
        bench.put(ROOT, &[CONTEXTS | 1, 0]);
        let flags = flags | 1;
        bench.put(bench.context_at(SOURCE), &[DIRECTORY | flags, 1, 0, 0]);
        bench.put(DIRECTORY, &[PASIDS | 1]);
        bench.put_pasid(1, kind);
        bench.start(root_table::SCALABLE);
        bench
    }

    fn start(&mut self, mode: u64) {
        self.write(register::ROOT_TABLE_ADDRESS, ROOT | mode << root_table::MODE_SHIFT);
        self.command(GlobalCommand::SET_ROOT_TABLE);
        self.write(register::INTERRUPT_TABLE_ADDRESS, INTERRUPTS | 7 | register::interrupt_table::EXTENDED);
        self.command(GlobalCommand::SET_INTERRUPT_TABLE);
        let wide = if mode == root_table::SCALABLE { register::queue::WIDE } else { 0 };
        self.write(register::QUEUE_ADDRESS, QUEUE | wide);
        self.command(GlobalCommand::QUEUED_INVALIDATION);
        self.command(GlobalCommand::INTERRUPT_REMAPPING);
        self.command(GlobalCommand::TRANSLATION);
        self.write32(register::FAULT_EVENT_CONTROL + 4, 0x31);
        self.write32(register::FAULT_EVENT_CONTROL + 8, 0xfee0_0000);
        self.write32(register::FAULT_EVENT_CONTROL, 0);
    }

    /// The unit can write memory no more.
    fn refuse_writes(&mut self) {
        self.read_only.store(true, Relaxed);
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.unit.read(0, offset, 8)
    }

    fn read32(&mut self, offset: u64) -> u32 {
        self.unit.read(0, offset, 4) as u32
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.unit.write(0, offset, 8, value);
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.unit.write(0, offset, 4, value.into());
    }

    /// Adds `bit` to what is on.
    fn command(&mut self, bit: u32) {
        let one_shot = GlobalCommand::SET_ROOT_TABLE | GlobalCommand::SET_INTERRUPT_TABLE;
        let status = self.read32(register::GLOBAL_STATUS) & !one_shot;
        self.write32(register::GLOBAL_COMMAND, status | bit);
        assert!(self.read32(register::GLOBAL_STATUS) & bit != 0, "{bit:#x}");
    }

    fn put(&self, at: u64, quadwords: &[u64]) {
        for (i, quadword) in quadwords.iter().enumerate() {
            self.memory.put(at + 8 * i as u64, &quadword.to_le_bytes());
        }
    }

    fn get(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.memory.bytes(at, 8).try_into().unwrap())
    }

    fn context_at(&self, source: u16) -> u64 {
        let size = if self.unit.config.scalable_mode { scalable_context::SIZE } else { context::SIZE };
        CONTEXTS + u64::from(source) * size
    }

    fn put_context(&self, low: u64, high: u64) {
        self.put(self.context_at(SOURCE), &[low, high]);
    }

    fn pasid_at(number: u32) -> u64 {
        PASIDS + u64::from(number) * pasid::SIZE
    }

    /// PASID `number` in [`DOMAIN`], with 4 levels in both stages.
    fn put_pasid(&self, number: u32, kind: u64) {
        let second = if kind == pasid::TYPE_FIRST_STAGE { 0 } else { SECOND | 2 << pasid::WIDTH_SHIFT };
        self.put(
            Self::pasid_at(number),
            &[second | kind << pasid::TYPE_SHIFT | 1, DOMAIN.into(), FIRST, 0, 0, 0, 0, 0],
        );
    }

    /// Where the entry of `level` for `address` lies, below a top table of 4 levels; tables on the way are made.
    fn entry_at(&mut self, top: u64, address: u64, level: u32) -> u64 {
        let flags = if top == FIRST { PRESENT } else { READ_WRITE };
        let mut table = top;
        for upper in (level + 1..=4).rev() {
            let at = table + (address >> (12 + 9 * (upper - 1)) & 0x1ff) * 8;
            if self.get(at) == 0 {
                self.put(at, &[self.next_table | flags]);
                self.next_table += 0x1000;
            }
            table = self.get(at) & 0x000f_ffff_ffff_f000;
        }
        table + (address >> (12 + 9 * (level - 1)) & 0x1ff) * 8
    }

    /// Maps a page of the second stage; with a level of 2 or 3 a large one.
    fn map(&mut self, address: u64, entry: u64, level: u32) -> u64 {
        let at = self.entry_at(SECOND, address, level);
        self.put(at, &[entry | if level > 1 { SecondStageEntry::PAGE } else { 0 }]);
        at
    }

    /// Maps a page of the first stage.
    fn map_first(&mut self, address: u64, entry: u64, level: u32) -> u64 {
        let at = self.entry_at(FIRST, address, level);
        self.put(at, &[entry | if level > 1 { FirstStageEntry::PAGE } else { 0 }]);
        at
    }

    fn translate(&mut self, address: u64, access: Access) -> Result<u64, Option<FaultReason>> {
        self.request(&Request::new(SOURCE, address, access))
    }

    fn request(&mut self, request: &Request) -> Result<u64, Option<FaultReason>> {
        match self.unit.translate(request) {
            Ok(Translation { address, .. }) => Ok(address),
            Err(Blocked { reason }) => Err(reason),
        }
    }

    /// The faults recorded, which are cleared: reason, source id, low quadword.
    fn take_faults(&mut self) -> Vec<(FaultReason, u16, u64)> {
        let mut faults = Vec::new();
        let first = (self.read32(register::FAULT_STATUS) >> 8 & 0xff) as usize;
        for i in 0..super::registers::FAULT_RECORD_COUNT {
            let index = (first + i) % super::registers::FAULT_RECORD_COUNT;
            let at = super::registers::FAULT_RECORDS + index as u64 * fault_record::SIZE;
            let (low, high) = (self.read(at), self.read(at + 8));
            if high & fault_record::FAULT == 0 {
                break;
            }
            let reason = FaultReason::of((high >> fault_record::REASON_SHIFT) as u8).expect("a known reason");
            faults.push((reason, high as u16, low));
            self.write32(at + 12, 1 << 31);
        }
        self.write32(register::FAULT_STATUS, register::FaultStatus::CLEARABLE);
        faults
    }

    /// Puts a descriptor into the queue and lets it run.
    fn submit(&mut self, first: u64, second: u64) {
        let size = if self.unit.registers.queue_address & register::queue::WIDE != 0 { 32 } else { 16 };
        let at = self.queued * size % 0x1000;
        self.put(QUEUE + at, &[first, second]);
        if size == 32 {
            self.put(QUEUE + at + 16, &[0, 0]);
        }
        self.queued += 1;
        self.write(register::QUEUE_TAIL, (at + size) % 0x1000);
    }

    /// Masks or unmasks fault events.
    fn mask_fault_events(&mut self, on: bool) {
        self.write32(register::FAULT_EVENT_CONTROL, if on { EventControl::MASK } else { 0 });
    }
}
