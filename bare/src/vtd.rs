//! A remapping unit's registers, its invalidation queue and its fault records (VT-d, chapters 6, 7 and 11): what every program that owns
//! one does with it. The tables are the owner's.

use crate::{cpu, device, memory};
use spec::vtd::FaultRecord;
use spec::vtd::capability::Capability;
use spec::vtd::invalidation::{DescriptorType, wait};
use spec::vtd::registers::{self as register, EventControl, FaultStatus, GlobalCommand, fault_record, queue};

/// Time-stamp counts that an invalidation or a command may take: longer than the unit's own time-out.
const PATIENCE: u64 = 200_000_000;

/// A unit.
#[derive(Debug)]
pub struct Unit {
    base: u64,
    /// Descriptors have 32 bytes.
    wide: bool,
    queue: u64,
    tail: u64,
    status: u64,
    waits: u32,
}

impl Unit {
    /// The unit whose registers are at `base`. `wide`: descriptors have 32 bytes, as scalable mode wants them.
    #[must_use]
    pub fn new(base: u64, wide: bool) -> Self {
        let [queue, status] = [(); 2].map(|()| memory::take_pages(1));
        Self { base, wide, queue, tail: 0, status, waits: 0 }
    }

    /// Reads 4 bytes of the registers.
    #[must_use]
    pub fn read32(&self, offset: u64) -> u32 {
        device::read32(self.base + offset)
    }

    /// Writes 4 bytes of the registers.
    pub fn write32(&self, offset: u64, value: u32) {
        device::write32(self.base + offset, value);
    }

    /// Reads 8 bytes of the registers.
    #[must_use]
    pub fn read64(&self, offset: u64) -> u64 {
        device::read64(self.base + offset)
    }

    /// Writes 8 bytes of the registers.
    pub fn write64(&self, offset: u64, value: u64) {
        device::write64(self.base + offset, value);
    }

    /// Turns a bit of the global command on or off, with what else is on.
    ///
    /// # Errors
    /// When the unit does not do it.
    pub fn command(&self, bit: u32, on: bool) -> Result<(), &'static str> {
        const ONE_SHOT: u32 = GlobalCommand::SET_ROOT_TABLE | GlobalCommand::SET_INTERRUPT_TABLE;
        let status = self.read32(register::GLOBAL_STATUS) & !ONE_SHOT;
        self.write32(register::GLOBAL_COMMAND, if on { status | bit } else { status & !bit });
        let start = cpu::timestamp();
        while (self.read32(register::GLOBAL_STATUS) & bit != 0) != on {
            if cpu::timestamp().wrapping_sub(start) > PATIENCE {
                return Err("the unit does not carry out a command");
            }
        }
        Ok(())
    }

    /// Turns off whatever somebody has turned on before.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn stop(&self) -> Result<(), &'static str> {
        [GlobalCommand::TRANSLATION, GlobalCommand::INTERRUPT_REMAPPING, GlobalCommand::QUEUED_INVALIDATION]
            .into_iter()
            .filter(|bit| self.read32(register::GLOBAL_STATUS) & bit != 0)
            .try_for_each(|bit| self.command(bit, false))
    }

    /// Sets the root table: its address and mode.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn set_root_table(&self, value: u64) -> Result<(), &'static str> {
        self.write64(register::ROOT_TABLE_ADDRESS, value);
        self.command(GlobalCommand::SET_ROOT_TABLE, true)
    }

    /// Sets the interrupt-remapping table: its address and size.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn set_interrupt_table(&self, value: u64) -> Result<(), &'static str> {
        self.write64(register::INTERRUPT_TABLE_ADDRESS, value);
        self.command(GlobalCommand::SET_INTERRUPT_TABLE, true)
    }

    /// Turns the invalidation queue on, which is empty.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn start_queue(&mut self) -> Result<(), &'static str> {
        self.tail = 0;
        self.write64(register::QUEUE_TAIL, 0);
        self.write64(register::QUEUE_ADDRESS, self.queue | if self.wide { queue::WIDE } else { 0 });
        self.command(GlobalCommand::QUEUED_INVALIDATION, true)
    }

    /// Has one of the unit's events, whose control register is at `control`, send this message.
    pub fn set_event(&self, control: u64, address: u64, data: u32) {
        self.write32(control, EventControl::MASK);
        self.write32(control + 4, data);
        self.write32(control + 8, address as u32);
        self.write32(control + 12, (address >> 32) as u32);
        self.write32(control, 0);
    }

    /// Puts a descriptor into the queue.
    pub fn submit(&mut self, first: u64, second: u64) {
        let size = if self.wide { 32 } else { 16 };
        for (n, quadword) in (0..).zip([first, second, 0, 0]).take(size as usize / 8) {
            memory::write(self.queue + self.tail + 8 * n, quadword);
        }
        self.tail = (self.tail + size) % memory::PAGE;
        self.write64(register::QUEUE_TAIL, self.tail);
    }

    /// Submits a wait descriptor; gives the status that it will write.
    pub fn submit_wait(&mut self) -> u32 {
        self.waits += 1;
        let first = DescriptorType::Wait as u64 | wait::STATUS_WRITE | u64::from(self.waits) << wait::DATA_SHIFT;
        self.submit(first, self.status);
        self.waits
    }

    /// Whether the wait descriptor with this status is complete.
    #[must_use]
    pub fn is_complete(&self, waited: u32) -> bool {
        memory::read(self.status) as u32 == waited
    }

    /// Waits until everything in the queue is carried out.
    ///
    /// # Errors
    /// When it is not, or the queue has stopped.
    pub fn wait(&mut self) -> Result<(), &'static str> {
        let (waited, start) = (self.submit_wait(), cpu::timestamp());
        while !self.is_complete(waited) {
            if self.fault_status() & (FaultStatus::QUEUE_ERROR | FaultStatus::TIMEOUT_ERROR) != 0 {
                return Err("the invalidation queue has stopped");
            }
            if cpu::timestamp().wrapping_sub(start) > PATIENCE {
                return Err("an invalidation is never complete");
            }
        }
        Ok(())
    }

    /// FSTS_REG.
    #[must_use]
    pub fn fault_status(&self) -> u32 {
        self.read32(register::FAULT_STATUS)
    }

    /// Clears bits of it.
    pub fn clear_fault_status(&self, bits: u32) {
        self.write32(register::FAULT_STATUS, bits);
    }

    /// Where the fault records are, and how many.
    fn fault_records(&self) -> (u64, u64) {
        let capability = self.read64(register::CAPABILITY);
        let first = (capability >> Capability::FAULT_RECORDS_SHIFT & 0x3ff) * 16;
        (first, (capability >> Capability::FAULT_RECORD_COUNT_SHIFT & 0xff) + 1)
    }

    /// The oldest fault, whose record is free then.
    pub fn take_fault(&self) -> Option<FaultRecord> {
        let (first, count) = self.fault_records();
        let status = self.fault_status();
        if status & FaultStatus::PENDING == 0 {
            return None;
        }
        // The index is that of the first fault since none was pending: those that are cleared since then lie behind it.
        let index = u64::from(status >> FaultStatus::RECORD_INDEX_SHIFT & 0xff);
        let at = (0..count).map(|n| first + (index + n) % count * fault_record::SIZE);
        let at = at.into_iter().find(|at| self.read64(at + 8) & fault_record::FAULT != 0)?;
        let record = FaultRecord::of(self.read64(at), self.read64(at + 8));
        self.write32(at + 12, 1 << 31);
        Some(record)
    }

    /// Whether there were more faults than there are records for since this was asked last.
    pub fn take_overflow(&self) -> bool {
        let overflow = self.fault_status() & FaultStatus::OVERFLOW != 0;
        if overflow {
            self.clear_fault_status(FaultStatus::OVERFLOW);
        }
        overflow
    }

    /// Clears all faults.
    pub fn forget_faults(&self) {
        let (first, count) = self.fault_records();
        for n in 0..count {
            self.write32(first + n * fault_record::SIZE + 12, 1 << 31);
        }
        self.clear_fault_status(FaultStatus::OVERFLOW);
    }
}
