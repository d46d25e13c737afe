//! `dma-tester`: a function of our own with many DMA engines, PASID, a device TLB and page requests ([`spec::dma_tester`]).
//!
//! - [`engine`]: an engine's registers and phase
//! - [`device_tlb`]: translations kept in the function
//! - here: transfers, and what the translation agent says

pub mod device_tlb;
pub mod engine;
#[cfg(test)]
mod tests;

use crate::device::{Device, Region};
use crate::pci::ats::{
    Attributes, Message, PageRequest, ResponseCode, TranslationAgent, TranslationError, TranslationRequest,
};
use crate::pci::config::{BarKind, ConfigSpace, Identity};
use crate::pci::core::{FunctionCore, FunctionCoreState, InterruptPorts};
use crate::pci::{Msix, PciFunction, Window, decode, encode};
use crate::ports::{Clock, Nanoseconds};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use device_tlb::{DeviceTlb, Requester, Wanted};
use engine::{Engine, Phase};
use serde::{Deserialize, Serialize};
use spec::dma_tester::{
    BAR_SIZE, Control, DEVICE, ENGINES, Failure, Flags, IDENTIFICATION, MAXIMUM_ATTEMPTS, MAXIMUM_LENGTH, START, STOP,
    VENDOR, engine as engine_register, register,
};
use spec::pci::capability::{ats, extended_id, pasid, pri};

/// Registers.
const BAR_REGISTERS: u8 = 0;
/// MSI-X.
const BAR_MSIX: u8 = 2;
/// Bytes in a page of the smallest size.
const PAGE: u64 = 4096;

/// Saved state of a [`DmaTester`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DmaTesterState {
    pub core: FunctionCoreState,
    pub engines: Vec<Engine>,
    pub tlb: DeviceTlb,
    pub control: u32,
    pub held: Vec<u8>,
    pub invalidations: u32,
    pub page_requests: u32,
    pub responses: u32,
}

/// Where the capabilities lie.
#[derive(Clone, Copy, Debug)]
struct Capabilities {
    ats: u16,
    pri: u16,
    pasid: u16,
}

/// The function.
pub struct DmaTester {
    core: FunctionCore,
    agent: Box<dyn TranslationAgent>,
    clock: Box<dyn Clock>,
    capabilities: Capabilities,
    engines: Vec<Engine>,
    tlb: DeviceTlb,
    control: u32,
    /// Tags of invalidations that are to be completed.
    held: Vec<u8>,
    invalidations: u32,
    page_requests: u32,
    responses: u32,
}

/// Why a transfer does not go on.
enum Stop {
    /// Until a page request is answered.
    Waiting,
    Failed(Failure, u64),
}

impl DmaTester {
    /// A function whose requests go to `agent`.
    pub fn new(agent: Box<dyn TranslationAgent>, clock: Box<dyn Clock>, interrupts: InterruptPorts) -> Self {
        let identity = Identity {
            vendor: VENDOR,
            device: DEVICE,
            subsystem_vendor: VENDOR,
            subsystem: DEVICE,
            revision: 1,
            class: 0x00_ff00,
            multifunction: false,
        };
        let mut config = ConfigSpace::integrated_endpoint(identity, true);
        config.add_bar(BAR_REGISTERS, BarKind::Memory32 { prefetchable: false }, BAR_SIZE);
        config.add_bar(BAR_MSIX, BarKind::Memory32 { prefetchable: false }, Msix::window_size(ENGINES as u16));
        let capabilities = add_capabilities(&mut config);
        let mut core = FunctionCore::new(config, interrupts);
        core.add_msix(ENGINES as u16, BAR_MSIX);
        Self {
            core,
            agent,
            clock,
            capabilities,
            engines: vec![Engine::default(); ENGINES],
            tlb: DeviceTlb::default(),
            control: 0,
            held: Vec::new(),
            invalidations: 0,
            page_requests: 0,
            responses: 0,
        }
    }

    fn ats_enabled(&self) -> bool {
        self.core.config.u16_at(self.capabilities.ats + ats::CONTROL) & ats::ENABLE != 0
    }

    fn page_requests_enabled(&self) -> bool {
        self.core.config.u16_at(self.capabilities.pri + pri::CONTROL) & pri::ENABLE != 0
    }

    fn set_page_request_status(&mut self, bit: u16) {
        let at = self.capabilities.pri + pri::STATUS;
        let status = self.core.config.u16_at(at) | bit;
        self.core.config.set_u16(at, status);
    }

    /// Configuration space allows the requests that `engine` makes.
    fn is_allowed(&self, engine: &Engine) -> bool {
        let needs = |flag, ok: bool| !engine.has(flag) || ok;
        let pasid = self.core.config.u16_at(self.capabilities.pasid + pasid::CONTROL);
        let allows = |bit: u16| pasid & (pasid::ENABLE | bit) == pasid::ENABLE | bit;
        let privileges = !engine.has(Flags::PASID)
            || needs(Flags::PRIVILEGED, allows(pasid::PRIVILEGED)) && needs(Flags::EXECUTE, allows(pasid::EXECUTE));
        self.core.config.bus_master()
            && needs(Flags::PASID, allows(0))
            && privileges
            && needs(Flags::TRANSLATE, self.ats_enabled())
            && needs(Flags::TRUSTED, self.ats_enabled())
            && needs(Flags::ASK, self.page_requests_enabled())
    }

    fn set_alarm(&self) {
        self.clock.set_alarm(self.engines.iter().filter_map(Engine::due).min());
    }

    /// Goes on with engine `n` until it is done, must wait, or fails.
    fn run(&mut self, n: usize) {
        let result = self.transfer(n);
        let now = self.clock.now();
        let engine = &mut self.engines[n];
        match result {
            Ok(()) => {
                engine.left = engine.left.saturating_sub(1);
                if engine.left == 0 {
                    engine.phase = Phase::Done;
                } else {
                    engine.start_run(now);
                }
            }
            Err(Stop::Waiting) => {
                engine.phase = Phase::Waiting;
                return;
            }
            Err(Stop::Failed(failure, at)) => engine.fail(failure, at),
        }
        if engine.has(Flags::INTERRUPT) {
            self.core.signal(n as u16);
        }
    }

    /// Moves what is left of a run, page by page.
    fn transfer(&mut self, n: usize) -> Result<(), Stop> {
        if !self.is_allowed(&self.engines[n]) {
            return Err(Stop::Failed(Failure::NotEnabled, 0));
        }
        if self.engines[n].length > MAXIMUM_LENGTH {
            return Err(Stop::Failed(Failure::Length, 0));
        }
        while self.engines[n].moved < self.engines[n].length {
            let engine = &self.engines[n];
            let done = u64::from(engine.moved);
            let (from, to) = (self.address(engine.source, done), self.address(engine.destination, done));
            let (fills, discards) = (engine.has(Flags::FILL), engine.has(Flags::DISCARD));
            let mut part = u64::from(engine.length - engine.moved).min(PAGE - to % PAGE);
            let mut bytes = [0; PAGE as usize];
            if fills {
                let pattern = engine.source.to_le_bytes();
                (0..part as usize).for_each(|i| bytes[i] = pattern[(done as usize + i) % pattern.len()]);
            } else {
                part = part.min(PAGE - from % PAGE);
                let (attributes, address) = self.translated(n, from, false)?;
                let buffer = &mut bytes[..part as usize];
                let read = self.agent.read(attributes, address, buffer);
                read.map_err(|_| Stop::Failed(Failure::Read, from))?;
            }
            let bytes = &bytes[..part as usize];
            if !discards {
                let (attributes, address) = self.translated(n, to, true)?;
                let written = self.agent.write(attributes, address, bytes);
                written.map_err(|_| Stop::Failed(Failure::Write, to))?;
            }
            let engine = &mut self.engines[n];
            engine.sum = bytes.iter().fold(engine.sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
            engine.moved += part as u32;
            engine.attempts = 0;
        }
        Ok(())
    }

    fn address(&self, base: u64, done: u64) -> u64 {
        let address = base.wrapping_add(done);
        if self.control & Control::NARROW != 0 { address & 0xffff_ffff } else { address }
    }

    /// The address that a request of engine `n` has, and what else it has.
    fn translated(&mut self, n: usize, address: u64, write: bool) -> Result<(Attributes, u64), Stop> {
        let engine = &self.engines[n];
        let attributes = engine.attributes(write);
        if !engine.has(Flags::TRANSLATE) {
            return Ok((attributes, address));
        }
        let wanted = match (write, attributes.execute) {
            (true, _) => Wanted::Write,
            (_, true) => Wanted::Execute,
            _ => Wanted::Read,
        };
        let requester = Requester { pasid: attributes.pasid, privileged: attributes.privileged };
        // A translated request tells its PASID no more than it must.
        let plain = Attributes { translated: true, ..Attributes::default() };
        if let Some(target) = self.tlb.find(requester, address, wanted) {
            return Ok((plain, target));
        }
        let attributes = Attributes { translated: false, ..attributes };
        let request = TranslationRequest { attributes, address: address & !(PAGE - 1), no_write: !write };
        let completion = self.agent.translate(&request).map_err(|error| {
            let failure = match error {
                TranslationError::Unsupported => Failure::TranslationUnsupported,
                TranslationError::Aborted => Failure::TranslationAborted,
            };
            Stop::Failed(failure, address)
        })?;
        self.tlb.insert(requester, address, &completion);
        match self.tlb.find(requester, address, wanted) {
            Some(target) => Ok((plain, target)),
            None => Err(self.ask(n, attributes, address, write)),
        }
    }

    /// Asks for a page, if engine `n` is to.
    fn ask(&mut self, n: usize, attributes: Attributes, address: u64, write: bool) -> Stop {
        let engine = &mut self.engines[n];
        if !engine.has(Flags::ASK) {
            return Stop::Failed(Failure::NoPermission, address);
        }
        if engine.attempts == MAXIMUM_ATTEMPTS {
            return Stop::Failed(Failure::TooManyAttempts, address);
        }
        engine.attempts += 1;
        engine.failed_at = address;
        self.page_requests = self.page_requests.wrapping_add(1);
        self.agent.request_page(&PageRequest {
            attributes,
            address: address & !(PAGE - 1),
            read: !write,
            write,
            last: true,
            group: n as u16,
        });
        Stop::Waiting
    }

    fn response(&mut self, pasid: Option<u32>, group: u16, code: ResponseCode) {
        self.responses = self.responses.wrapping_add(1);
        let n = usize::from(group);
        let waits = |engine: &Engine| engine.phase == Phase::Waiting && engine.attributes(false).pasid == pasid;
        if !self.engines.get(n).is_some_and(waits) {
            self.set_page_request_status(pri::UNEXPECTED_GROUP);
            return;
        }
        let failure = match code {
            ResponseCode::Success => {
                self.run(n);
                return;
            }
            ResponseCode::Invalid => Failure::PageInvalid,
            ResponseCode::Failure => {
                self.set_page_request_status(pri::RESPONSE_FAILURE);
                Failure::PageFailure
            }
        };
        let engine = &mut self.engines[n];
        engine.fail(failure, engine.failed_at);
        if engine.has(Flags::INTERRUPT) {
            self.core.signal(group);
        }
    }

    fn complete(&mut self) {
        for tag in core::mem::take(&mut self.held) {
            self.agent.invalidated(tag);
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        if let Some(at) = offset.checked_sub(register::FIRST_ENGINE) {
            let Some(engine) = self.engines.get((at / register::STRIDE) as usize) else { return 0 };
            let at = at % register::STRIDE;
            return match at {
                0..0x10 | 0x28..0x38 => (engine.read(at & !7) >> (8 * (at & 4))) as u32,
                _ => engine.read(at) as u32,
            };
        }
        match offset {
            register::IDENTIFICATION => IDENTIFICATION,
            register::ENGINES => ENGINES as u32,
            register::CONTROL => self.control,
            register::TRANSLATIONS => self.tlb.count() as u32,
            register::INVALIDATIONS => self.invalidations,
            register::PAGE_REQUESTS => self.page_requests,
            register::RESPONSES => self.responses,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        if let Some(at) = offset.checked_sub(register::FIRST_ENGINE) {
            self.write_engine((at / register::STRIDE) as usize, at % register::STRIDE, value);
            return;
        }
        match offset {
            register::CONTROL => self.control = value & Control::ALL,
            register::COMPLETE => self.complete(),
            register::STRAY_COMPLETION => self.agent.invalidated(value as u8 & 0x1f),
            _ => {}
        }
    }

    fn write_engine(&mut self, n: usize, at: u64, value: u32) {
        let now = self.clock.now();
        let Some(engine) = self.engines.get_mut(n) else { return };
        match at {
            engine_register::COMMAND if value == START && !engine.is_busy() => engine.start(now),
            engine_register::COMMAND if value == STOP => engine.phase = Phase::Idle,
            _ if engine.is_busy() => {}
            0..0x10 => {
                let (at, shift) = (at & !7, 8 * (at & 4));
                let old = engine.read(at) & !(0xffff_ffff << shift);
                engine.write(at, old | u64::from(value) << shift);
            }
            _ => engine.write(at, value.into()),
        }
        self.set_alarm();
    }

    fn forget(&mut self) {
        self.engines.fill(Engine::default());
        self.tlb.clear();
        self.control = 0;
        self.held.clear();
        (self.invalidations, self.page_requests, self.responses) = (0, 0, 0);
        self.set_alarm();
    }

    /// The state for a snapshot.
    pub fn save(&self) -> DmaTesterState {
        let Self {
            core,
            agent: _,
            clock: _,
            capabilities: _,
            engines,
            tlb,
            control,
            held,
            invalidations,
            page_requests,
            responses,
        } = self;
        DmaTesterState {
            core: core.save(),
            engines: engines.clone(),
            tlb: tlb.clone(),
            control: *control,
            held: held.clone(),
            invalidations: *invalidations,
            page_requests: *page_requests,
            responses: *responses,
        }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &DmaTesterState) {
        let DmaTesterState { core, engines, tlb, control, held, invalidations, page_requests, responses } = state;
        self.engines.clone_from(engines);
        self.engines.resize(ENGINES, Engine::default());
        self.tlb.clone_from(tlb);
        self.held.clone_from(held);
        self.control = *control;
        (self.invalidations, self.page_requests, self.responses) = (*invalidations, *page_requests, *responses);
        self.core.restore(core);
        self.set_alarm();
    }
}

/// ATS, page requests and PASID.
fn add_capabilities(config: &mut ConfigSpace) -> Capabilities {
    const PASID_BITS: u16 = 20;
    let ats_bits = ats::PAGE_ALIGNED | ats::GLOBAL_INVALIDATE;
    let mut body = [0; (ats::LENGTH - 4) as usize];
    body[..2].copy_from_slice(&ats_bits.to_le_bytes());
    let at_ats = config.add_extended_capability(extended_id::ATS, &body);
    config.set_writable(at_ats + ats::CONTROL, &(ats::ENABLE | ats::SMALLEST_UNIT).to_le_bytes());
    let mut body = [0; (pri::LENGTH - 4) as usize];
    body[2..4].copy_from_slice(&(pri::STOPPED | pri::RESPONSE_PASID).to_le_bytes());
    body[4..8].copy_from_slice(&(ENGINES as u32).to_le_bytes());
    let at_pri = config.add_extended_capability(extended_id::PRI, &body);
    config.set_writable(at_pri + pri::CONTROL, &pri::ENABLE.to_le_bytes());
    config.set_write_one_clears(at_pri + pri::STATUS, &(pri::RESPONSE_FAILURE | pri::UNEXPECTED_GROUP).to_le_bytes());
    config.set_writable(at_pri + pri::ALLOCATION, &[0xff; 4]);
    let bits = pasid::EXECUTE | pasid::PRIVILEGED | PASID_BITS << pasid::WIDTH_SHIFT;
    let mut body = [0; (pasid::LENGTH - 4) as usize];
    body[..2].copy_from_slice(&bits.to_le_bytes());
    let at_pasid = config.add_extended_capability(extended_id::PASID, &body);
    let control = pasid::ENABLE | pasid::EXECUTE | pasid::PRIVILEGED;
    config.set_writable(at_pasid + pasid::CONTROL, &control.to_le_bytes());
    Capabilities { ats: at_ats, pri: at_pri, pasid: at_pasid }
}

impl Device for DmaTester {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        match (region, size) {
            (BAR_MSIX, _) => self.core.msix_read(offset, size),
            (BAR_REGISTERS, 4) if offset & 3 == 0 => self.read_register(offset).into(),
            (BAR_REGISTERS, 8) if offset & 7 == 0 => {
                u64::from(self.read_register(offset)) | u64::from(self.read_register(offset + 4)) << 32
            }
            _ => 0,
        }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        match (region, size) {
            (BAR_MSIX, _) => self.core.msix_write(offset, size, value),
            (BAR_REGISTERS, 4) if offset & 3 == 0 => self.write_register(offset, value as u32),
            (BAR_REGISTERS, 8) if offset & 7 == 0 => {
                self.write_register(offset, value as u32);
                self.write_register(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn alarm(&mut self, now: Nanoseconds) {
        for n in 0..ENGINES {
            if self.engines[n].due().is_some_and(|due| due <= now) {
                self.run(n);
            }
        }
        self.set_alarm();
    }

    fn reset(&mut self) {
        self.forget();
        self.core.reset();
    }
}

impl PciFunction for DmaTester {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.core.config_read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        let change = self.core.config_write(offset, size, value);
        if change.function_level_reset {
            self.reset();
            return true;
        }
        if !self.ats_enabled() {
            self.tlb.clear();
        }
        change.windows
    }

    fn windows(&self) -> Vec<Window> {
        self.core.windows()
    }

    fn message(&mut self, message: &Message) {
        // With ATS off a function does not know these messages, nor answers them.
        if !self.ats_enabled() {
            return;
        }
        match *message {
            Message::Invalidate { tag, pasid, global, first, last } => {
                self.invalidations = self.invalidations.wrapping_add(1);
                self.tlb.invalidate(pasid, global, first, last);
                if self.control & Control::HOLD == 0 {
                    self.agent.invalidated(tag);
                } else if self.held.len() < 32 {
                    self.held.push(tag);
                }
            }
            Message::Response { pasid, group, code } => {
                self.response(pasid, group, code);
                self.set_alarm();
            }
        }
    }

    fn save_encoded(&self) -> Vec<u8> {
        encode(&self.save())
    }

    fn restore_encoded(&mut self, state: &[u8]) -> bool {
        decode(state).map(|state| self.restore(&state)).is_some()
    }
}
