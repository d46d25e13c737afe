//! A `dma-tester` behind the unit, which software and whoever writes its registers may tell anything.

use crate::input::Input;
use chipset::vtd::{self, Access, DeviceMessages, RemappingUnit, RequestKind, UnitConfig, UnitPorts};
use devices::device::Device;
use devices::dma_tester::DmaTester;
use devices::pci::PciFunction;
use devices::pci::ats::{
    Attributes, Message, PageRequest, TranslationAgent, TranslationCompletion, TranslationError, TranslationRequest,
};
use devices::pci::core::InterruptPorts;
use devices::ports::{Clock, Dma, DmaFault};
use devices::testing::{FakeClock, RecordingMsi, RecordingPin, VecDma};
use spec::dma_tester::{ENGINES, Flags, START, engine, engine_register};
use spec::pci::capability::{EXTENDED_FIRST, ats, extended_id, pasid, pri};
use std::sync::{Arc, Mutex, MutexGuard};

/// The function's source id.
pub const SOURCE: u16 = 1 << 3;
/// Alarms in one go. Sixteen engines have no more at one time.
const ALARMS: usize = 40;

/// Messages of the unit to the function.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<(u16, Message)>>>);

impl DeviceMessages for Messages {
    fn send(&self, source: u16, message: Message) {
        self.0.lock().expect("nobody panicked").push((source, message));
    }
}

/// The function's way through the unit.
#[derive(Clone)]
struct Agent {
    unit: Arc<Mutex<RemappingUnit>>,
    memory: VecDma,
}

impl Agent {
    fn lock(&self) -> MutexGuard<'_, RemappingUnit> {
        self.unit.lock().expect("nobody panicked")
    }

    fn translated(&self, attributes: Attributes, address: u64, access: Access) -> Result<u64, DmaFault> {
        let request = vtd::Request {
            kind: if attributes.translated { RequestKind::Translated } else { RequestKind::Untranslated },
            pasid: attributes.pasid,
            privileged: attributes.privileged,
            ..vtd::Request::new(SOURCE, address, access)
        };
        let translation = self.lock().translate(&request);
        translation.map(|translation| translation.address).map_err(|_| DmaFault { address })
    }
}

// The function's requests stay within a page.
impl TranslationAgent for Agent {
    fn read(&self, attributes: Attributes, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        let access = Access { execute: attributes.execute, ..Access::READ };
        self.memory.read(self.translated(attributes, address, access)?, buffer)
    }

    fn write(&self, attributes: Attributes, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.memory.write(self.translated(attributes, address, Access::WRITE)?, data)
    }

    fn translate(&self, request: &TranslationRequest) -> Result<TranslationCompletion, TranslationError> {
        self.lock().translation_request(SOURCE, request)
    }

    fn request_page(&self, request: &PageRequest) {
        self.lock().page_request(SOURCE, request);
    }

    fn invalidated(&self, tag: u8) {
        self.lock().invalidated(SOURCE, tag);
    }
}

/// A unit and a function behind it.
pub struct World {
    /// Memory.
    pub memory: VecDma,
    agent: Agent,
    tester: DmaTester,
    /// Of the function, and of the unit.
    clocks: [FakeClock; 2],
    messages: Messages,
}

impl World {
    /// Both after reset, the function with everything enabled.
    pub fn new(config: UnitConfig, memory: usize) -> Self {
        let (memory, messages, clocks) =
            (VecDma::new(memory), Messages::default(), [FakeClock::new(), FakeClock::new()]);
        let ports = UnitPorts {
            memory: Box::new(memory.clone()),
            events: Box::new(RecordingMsi::new()),
            clock: Box::new(clocks[1].clone()),
            messages: Box::new(messages.clone()),
        };
        let unit = Arc::new(Mutex::new(RemappingUnit::new(config, ports)));
        let agent = Agent { unit, memory: memory.clone() };
        let interrupts = InterruptPorts { pin: Box::new(RecordingPin::new()), msi: Box::new(RecordingMsi::new()) };
        let mut tester = DmaTester::new(Box::new(agent.clone()), Box::new(clocks[0].clone()), interrupts);
        tester.config_write(4, 2, 6);
        for (id, control, bits) in [
            (extended_id::ATS, ats::CONTROL, ats::ENABLE),
            (extended_id::PRI, pri::CONTROL, pri::ENABLE),
            (extended_id::PASID, pasid::CONTROL, pasid::ENABLE | pasid::EXECUTE | pasid::PRIVILEGED),
        ] {
            let mut at = EXTENDED_FIRST;
            while tester.config_read(at, 4) as u16 != id {
                at = (tester.config_read(at, 4) >> 20) as u16;
            }
            tester.config_write(at + control, 2, bits.into());
        }
        Self { memory, agent, tester, clocks, messages }
    }

    /// The unit.
    pub fn unit(&self) -> MutexGuard<'_, RemappingUnit> {
        self.agent.lock()
    }

    /// Does something with the function.
    pub fn act(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        match operation & 7 {
            0..=3 => self.program(input),
            4 => self.tester.write(operation >> 6, input.number(2), 4 << (operation >> 3 & 1), input.number(4)),
            5 => {
                let (offset, size) = (input.number(2) as u16 & 0xfff, 1 << (operation >> 3 & 1));
                self.tester.config_write(offset, size, input.number(2) as u32);
                self.tester.config_read(offset, 4);
            }
            6 => {
                let state = self.tester.save();
                self.tester.restore(&state);
                assert_eq!(self.tester.save(), state, "the state holds everything");
            }
            _ => self.pass(input.number(3)),
        }
        self.settle();
    }

    /// Tells an engine something that it might do, and starts it.
    fn program(&mut self, input: &mut Input<'_>) {
        let n = u64::from(input.byte()) % ENGINES as u64;
        for (register, value) in [
            (engine::SOURCE, input.number(2)),
            (engine::SOURCE + 4, u64::from(input.byte() >> 5)),
            (engine::DESTINATION, input.number(2)),
            (engine::DESTINATION + 4, u64::from(input.byte() >> 5)),
            (engine::LENGTH, input.number(2)),
            (engine::FLAGS, input.number(2) & u64::from(Flags::ALL)),
            (engine::PASID, u64::from(input.byte() & 7)),
            (engine::RUNS, u64::from(input.byte() & 3)),
            (engine::COMMAND, START.into()),
        ] {
            self.tester.write(0, engine_register(n, register), 4, value);
        }
        self.pass(100_000);
    }

    /// Lets time pass.
    fn pass(&mut self, time: u64) {
        let before = self.clocks[0].now();
        let until = before.saturating_add(time);
        let rung = self.clocks[0].run(&mut self.tester, until, ALARMS);
        assert!(rung < ALARMS || self.clocks[0].now() > before, "the alarm rings without end");
        self.settle();
        let mut unit = self.agent.lock();
        self.clocks[1].run(&mut *unit, until, ALARMS);
    }

    /// Delivers the unit's messages.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let messages = std::mem::take(&mut *self.messages.0.lock().expect("nobody panicked"));
            if messages.is_empty() {
                return;
            }
            for (source, message) in messages {
                if source == SOURCE {
                    self.tester.message(&message);
                }
            }
        }
        panic!("messages have no end");
    }
}
