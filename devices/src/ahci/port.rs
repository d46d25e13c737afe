//! One port: its registers, its command list, its drive (AHCI 3.3, 5).

use super::command::{Header, TaskFile};
use super::disk::{AtaDisk, AtaDiskState};
use super::optical::{OpticalDrive, OpticalDriveState};
use crate::ports::{Dma, DmaFault};
use serde::{Deserialize, Serialize};

/// Register offsets.
mod register {
    pub const CLB: u64 = 0x00;
    pub const CLBU: u64 = 0x04;
    pub const FB: u64 = 0x08;
    pub const FBU: u64 = 0x0c;
    pub const IS: u64 = 0x10;
    pub const IE: u64 = 0x14;
    pub const CMD: u64 = 0x18;
    pub const TFD: u64 = 0x20;
    pub const SIG: u64 = 0x24;
    pub const SSTS: u64 = 0x28;
    pub const SCTL: u64 = 0x2c;
    pub const SERR: u64 = 0x30;
    pub const CI: u64 = 0x38;
}

/// Bits of PxIS and PxIE.
mod interrupt {
    pub const REGISTER_FIS: u32 = 1 << 0;
    pub const PIO_SETUP: u32 = 1 << 1;
    pub const CONNECT_CHANGE: u32 = 1 << 6;
    pub const HOST_BUS_FATAL: u32 = 1 << 29;
    pub const TASK_FILE_ERROR: u32 = 1 << 30;
    /// Those that can be enabled.
    pub const ALL: u32 = 0xfdc0_00ff;
}

/// Bits of PxCMD.
mod control {
    pub const START: u32 = 1 << 0;
    pub const SPIN_UP: u32 = 1 << 1;
    pub const POWER_ON: u32 = 1 << 2;
    pub const OVERRIDE: u32 = 1 << 3;
    pub const RECEIVE: u32 = 1 << 4;
    pub const CURRENT_SLOT: u32 = 0x1f << 8;
    pub const RECEIVE_RUNNING: u32 = 1 << 14;
    pub const RUNNING: u32 = 1 << 15;
    pub const ATAPI: u32 = 1 << 24;
    /// What software sets and reads back: start, receive, the ATAPI bit, LED and power management bits.
    pub const WRITABLE: u32 = START | RECEIVE | ATAPI | 7 << 25;
}

/// Bits of the ATA status register.
pub mod ata_status {
    /// Error; check condition of a packet command.
    pub const ERROR: u8 = 1 << 0;
    /// Data to be moved.
    pub const DATA_REQUEST: u8 = 1 << 3;
    /// Seek complete, which old software wants to see.
    pub const SEEK_COMPLETE: u8 = 1 << 4;
    /// Ready.
    pub const READY: u8 = 1 << 6;
    /// Busy.
    pub const BUSY: u8 = 1 << 7;
}

/// PxSERR: the link came up anew.
const SERR_EXCHANGED: u32 = 1 << 26;
/// PxSSTS: device present, link up at 3 Gb/s, active.
const SSTS_UP: u32 = 0x123;
/// PxSCTL: the field DET, of which 1 resets the link.
const SCTL_DET: u32 = 0xf;
/// Task file of a port without device.
const NO_DEVICE: u32 = 0x7f;

/// What is at the other end of the cable.
pub enum Drive {
    /// A disk.
    Disk(AtaDisk),
    /// A CD or DVD drive.
    Optical(OpticalDrive),
}

/// The saved state of a [`Drive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DriveState {
    Disk(AtaDiskState),
    Optical(OpticalDriveState),
}

/// How a command moves its data, which decides what FISes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// No data, or data by DMA.
    Dma,
    /// Data to the host by PIO.
    PioIn,
    /// Data from the host by PIO.
    PioOut,
    /// A packet command with PIO data to the host.
    PacketPioIn,
}

/// Why a command was not carried out to its end.
pub enum Broken {
    /// The scatter list or a buffer is where there is no memory.
    Memory,
    /// The scatter list is shorter than the command's data.
    ListTooShort,
}

impl From<DmaFault> for Broken {
    fn from(_: DmaFault) -> Self {
        Self::Memory
    }
}

impl Drive {
    /// The task file after a reset (ATA8-ACS 9.12): the signature says what the device is.
    fn signature(&self) -> TaskFile {
        let lba = match self {
            Self::Disk(_) => 0x00_0001,
            Self::Optical(_) => 0xeb_1401,
        };
        let command = match self {
            Self::Disk(_) => ata_status::READY | ata_status::SEEK_COMPLETE,
            Self::Optical(_) => 0,
        };
        TaskFile { command, features: 1, lba, count: 1, ..TaskFile::default() }
    }

    fn reset(&mut self) {
        match self {
            Self::Disk(disk) => disk.reset(),
            Self::Optical(drive) => drive.reset(),
        }
    }
}

/// The saved state of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PortState {
    pub command_list: u64,
    pub received: u64,
    pub interrupts: u32,
    pub enabled: u32,
    pub control: u32,
    pub task_file: u32,
    pub signature: u32,
    pub link_control: u32,
    pub link_errors: u32,
    pub issued: u32,
    pub signature_waiting: bool,
    pub resetting: bool,
    pub halted: bool,
    pub drive: Option<DriveState>,
}

/// A port.
pub struct Port {
    drive: Option<Drive>,
    command_list: u64,
    received: u64,
    interrupts: u32,
    enabled: u32,
    control: u32,
    task_file: u32,
    signature: u32,
    link_control: u32,
    link_errors: u32,
    issued: u32,
    /// The device's first FIS waits for the host to take FISes.
    signature_waiting: bool,
    /// Between the two FISes of a software reset.
    resetting: bool,
    /// An error has stopped the command list until software restarts it (AHCI 6.2.2).
    halted: bool,
}

impl Port {
    /// A port after power-on.
    pub fn new(drive: Option<Drive>) -> Self {
        let mut port = Self {
            drive,
            command_list: 0,
            received: 0,
            interrupts: 0,
            enabled: 0,
            control: 0,
            task_file: NO_DEVICE,
            signature: u32::MAX,
            link_control: 0,
            link_errors: 0,
            issued: 0,
            signature_waiting: false,
            resetting: false,
            halted: false,
        };
        port.link_up();
        port
    }

    /// Reset of the controller.
    pub fn reset(&mut self) {
        *self = Self::new(self.drive.take());
    }

    /// The port wants an interrupt.
    pub fn interrupting(&self) -> bool {
        self.interrupt_status() & self.enabled != 0
    }

    /// PxIS: a changed connection shows as long as its cause does.
    fn interrupt_status(&self) -> u32 {
        self.interrupts | if self.link_errors & SERR_EXCHANGED != 0 { interrupt::CONNECT_CHANGE } else { 0 }
    }

    /// The link has come up: the device resets and sends its signature.
    fn link_up(&mut self) {
        let Some(drive) = &mut self.drive else { return };
        drive.reset();
        let signature = drive.signature();
        self.link_errors |= SERR_EXCHANGED;
        self.signature_waiting = true;
        self.resetting = false;
        self.take_signature(signature);
    }

    fn take_signature(&mut self, task: TaskFile) {
        self.task_file = u32::from(task.features as u8) << 8 | u32::from(task.command);
        self.signature = (task.lba as u32) << 8 | u32::from(task.count);
    }

    /// Reads the register at `at`.
    pub fn read(&self, at: u64) -> u32 {
        match at {
            register::CLB => self.command_list as u32,
            register::CLBU => (self.command_list >> 32) as u32,
            register::FB => self.received as u32,
            register::FBU => (self.received >> 32) as u32,
            register::IS => self.interrupt_status(),
            register::IE => self.enabled,
            register::CMD => self.control | control::SPIN_UP | control::POWER_ON,
            register::TFD => self.task_file,
            register::SIG => self.signature,
            register::SSTS if self.drive.is_some() && self.link_control & SCTL_DET == 0 => SSTS_UP,
            register::SCTL => self.link_control,
            register::SERR => self.link_errors,
            register::CI => self.issued,
            _ => 0,
        }
    }

    /// Writes the register at `at`; `dma` if the function may use memory.
    pub fn write(&mut self, dma: Option<&dyn Dma>, at: u64, value: u32) {
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        let low = |old: u64, mask: u32| old & !0xffff_ffff | u64::from(value & mask);
        match at {
            register::CLB => self.command_list = low(self.command_list, !0x3ff),
            register::CLBU => self.command_list = high(self.command_list),
            register::FB => self.received = low(self.received, !0xff),
            register::FBU => self.received = high(self.received),
            register::IS => self.interrupts &= !value,
            register::IE => self.enabled = value & interrupt::ALL,
            register::CMD => self.write_control(dma, value),
            register::SCTL => {
                let was = self.link_control & SCTL_DET;
                self.link_control = value & 0xfff;
                let now = value & SCTL_DET;
                if self.drive.is_some() {
                    match (was, now) {
                        (1 | 4, 0) => {
                            self.link_up();
                            self.deliver_signature(dma);
                        }
                        (_, 1 | 4) => {
                            self.task_file = NO_DEVICE;
                            self.signature = u32::MAX;
                            self.issued = 0;
                        }
                        _ => {}
                    }
                }
            }
            register::SERR => self.link_errors &= !value,
            // Commands can be issued only while the list runs.
            register::CI if self.control & control::START != 0 => {
                self.issued |= value;
                self.run(dma);
            }
            _ => {}
        }
    }

    fn write_control(&mut self, dma: Option<&dyn Dma>, value: u32) {
        let was = self.control;
        let mut now = value & control::WRITABLE | was & control::CURRENT_SLOT;
        if value & control::OVERRIDE != 0 && was & control::START == 0 {
            self.task_file &= !u32::from(ata_status::BUSY | ata_status::DATA_REQUEST);
        }
        if now & control::RECEIVE != 0 {
            now |= control::RECEIVE_RUNNING;
        }
        if now & control::START != 0 {
            now |= control::RUNNING;
        } else {
            // Stopping forgets what was issued.
            self.issued = 0;
            self.halted = false;
            now &= !control::CURRENT_SLOT;
        }
        self.control = now;
        self.deliver_signature(dma);
        if now & control::START != 0 {
            self.run(dma);
        }
    }

    /// Sends the device's first FIS once the host takes FISes.
    fn deliver_signature(&mut self, dma: Option<&dyn Dma>) {
        let (Some(dma), Some(drive)) = (dma, &self.drive) else { return };
        if self.signature_waiting && self.control & control::RECEIVE != 0 {
            self.signature_waiting = false;
            let task = drive.signature();
            self.take_signature(task);
            if task.send_register(dma, self.received, false).is_err() {
                self.interrupts |= interrupt::HOST_BUS_FATAL;
            }
        }
    }

    /// Carries out what is issued, lowest slot first, until there is nothing or an error stops the list.
    pub fn run(&mut self, dma: Option<&dyn Dma>) {
        let Some(dma) = dma else { return };
        self.deliver_signature(Some(dma));
        while self.control & control::START != 0 && self.issued != 0 && !self.halted {
            if self.drive.is_none() || self.link_control & SCTL_DET != 0 {
                return;
            }
            let slot = self.issued.trailing_zeros();
            self.control = self.control & !control::CURRENT_SLOT | slot << 8;
            match self.command(dma, slot) {
                Ok(true) => self.issued &= !(1 << slot),
                // The command stays issued, as software expects of the one that failed.
                Ok(false) => {
                    self.interrupts |= interrupt::TASK_FILE_ERROR;
                    self.halted = true;
                }
                Err(_) => {
                    self.interrupts |= interrupt::HOST_BUS_FATAL;
                    self.halted = true;
                }
            }
        }
    }

    /// Carries out the command of `slot`; false if the device reports an error.
    fn command(&mut self, dma: &dyn Dma, slot: u32) -> Result<bool, DmaFault> {
        let address = self.command_list.wrapping_add(32 * u64::from(slot));
        let header = Header::read(dma, address)?;
        let (fis, packet) = header.table(dma)?;
        let Some(task) = TaskFile::parse(&fis) else {
            // Not a command: the device ignores it.
            return Ok(true);
        };
        if !task.is_command {
            self.device_control(dma, &header, &task)?;
            return Ok(true);
        }
        let Some(drive) = &mut self.drive else { return Ok(true) };
        let mut list = header.list(dma);
        let mut result = task;
        let outcome = match drive {
            Drive::Disk(disk) => disk.execute(&mut result, &mut list),
            Drive::Optical(drive) => drive.execute(&mut result, &packet, &mut list),
        };
        let protocol = match outcome {
            Ok(protocol) => protocol,
            Err(Broken::Memory) => return Err(DmaFault { address }),
            Err(Broken::ListTooShort) => {
                // The device has more data than the host has room for: overflow, without an end to the command.
                result.command = ata_status::READY | ata_status::ERROR;
                result.features = 1 << 2;
                Protocol::Dma
            }
        };
        let done = list.done();
        dma.write(address.wrapping_add(4), &(done as u32).to_le_bytes())?;
        self.answer(dma, &result, protocol, done)
    }

    /// Sends the FISes that end a command; false if it failed.
    fn answer(&mut self, dma: &dyn Dma, result: &TaskFile, protocol: Protocol, done: u64) -> Result<bool, DmaFault> {
        let failed = result.command & ata_status::ERROR != 0;
        self.task_file = u32::from(result.features as u8) << 8 | u32::from(result.command);
        let receive = self.control & control::RECEIVE != 0;
        let pio = done > 0 && protocol != Protocol::Dma;
        if pio {
            let to_host = protocol != Protocol::PioOut;
            let status = result.command & !ata_status::ERROR | ata_status::DATA_REQUEST;
            let flags = u8::from(to_host) << 5 | u8::from(to_host) << 6;
            if receive {
                let block = done.min(0xfffe) as u16;
                result.send_pio_setup(dma, self.received, flags, status, block)?;
            }
            if to_host {
                self.interrupts |= interrupt::PIO_SETUP;
            }
        }
        // PIO to the host ends with the last PIO setup; all else with a register FIS.
        if failed || !(pio && protocol == Protocol::PioIn) {
            if receive {
                result.send_register(dma, self.received, true)?;
            }
            self.interrupts |= interrupt::REGISTER_FIS;
        }
        Ok(!failed)
    }

    /// A FIS that writes device control: software reset by setting and clearing SRST.
    fn device_control(&mut self, dma: &dyn Dma, header: &Header, task: &TaskFile) -> Result<(), DmaFault> {
        const SRST: u8 = 1 << 2;
        let reset = task.control & SRST != 0;
        if reset {
            self.resetting = true;
            if !header.clear_busy && !header.reset {
                self.task_file |= u32::from(ata_status::BUSY);
            }
        } else if self.resetting {
            self.resetting = false;
            let Some(drive) = &mut self.drive else { return Ok(()) };
            drive.reset();
            let signature = drive.signature();
            self.take_signature(signature);
            if self.control & control::RECEIVE != 0 {
                signature.send_register(dma, self.received, false)?;
            }
        }
        Ok(())
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> PortState {
        let Self {
            drive,
            command_list,
            received,
            interrupts,
            enabled,
            control,
            task_file,
            signature,
            link_control,
            link_errors,
            issued,
            signature_waiting,
            resetting,
            halted,
        } = self;
        PortState {
            command_list: *command_list,
            received: *received,
            interrupts: *interrupts,
            enabled: *enabled,
            control: *control,
            task_file: *task_file,
            signature: *signature,
            link_control: *link_control,
            link_errors: *link_errors,
            issued: *issued,
            signature_waiting: *signature_waiting,
            resetting: *resetting,
            halted: *halted,
            drive: drive.as_ref().map(|drive| match drive {
                Drive::Disk(disk) => DriveState::Disk(disk.save()),
                Drive::Optical(drive) => DriveState::Optical(drive.save()),
            }),
        }
    }

    /// Takes over a saved state.
    pub fn restore(&mut self, state: &PortState) {
        let PortState {
            command_list,
            received,
            interrupts,
            enabled,
            control,
            task_file,
            signature,
            link_control,
            link_errors,
            issued,
            signature_waiting,
            resetting,
            halted,
            drive,
        } = state;
        self.command_list = *command_list;
        self.received = *received;
        self.interrupts = *interrupts;
        self.enabled = *enabled;
        self.control = *control;
        self.task_file = *task_file;
        self.signature = *signature;
        self.link_control = *link_control;
        self.link_errors = *link_errors;
        self.issued = *issued;
        self.signature_waiting = *signature_waiting;
        self.resetting = *resetting;
        self.halted = *halted;
        match (&mut self.drive, drive) {
            (Some(Drive::Disk(mine)), Some(DriveState::Disk(saved))) => mine.restore(saved),
            (Some(Drive::Optical(mine)), Some(DriveState::Optical(saved))) => mine.restore(saved),
            _ => {}
        }
    }
}
