use super::*;
use crate::pci::ats::TranslationCompletion;
use crate::ports::{Dma, DmaFault};
use crate::testing::{FakeClock, RecordingMsi, RecordingPin, VecDma};
use spec::dma_tester::{State, engine_register};
use spec::pci::capability::EXTENDED_FIRST;
use std::sync::{Arc, Mutex};

/// An agent that translates addresses by adding this, where they are below the limit.
const OFFSET: u64 = 0x1_0000;

#[derive(Default)]
struct Seen {
    limit: u64,
    requests: Vec<Attributes>,
    translations: usize,
    pages: Vec<PageRequest>,
    completions: Vec<u8>,
}

#[derive(Clone)]
struct Agent {
    memory: VecDma,
    seen: Arc<Mutex<Seen>>,
}

impl Agent {
    fn at(&self, attributes: Attributes, address: u64) -> u64 {
        self.seen.lock().unwrap().requests.push(attributes);
        if attributes.translated { address } else { address + OFFSET }
    }
}

impl TranslationAgent for Agent {
    fn read(&self, attributes: Attributes, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        self.memory.read(self.at(attributes, address), buffer)
    }

    fn write(&self, attributes: Attributes, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.memory.write(self.at(attributes, address), data)
    }

    fn translate(&self, request: &TranslationRequest) -> Result<TranslationCompletion, TranslationError> {
        let mut seen = self.seen.lock().unwrap();
        seen.translations += 1;
        let there = request.address < seen.limit;
        let (read, write) = (there, there && !request.no_write);
        Ok(TranslationCompletion { address: request.address + OFFSET, shift: 12, read, write, execute: false })
    }

    fn request_page(&self, request: &PageRequest) {
        self.seen.lock().unwrap().pages.push(*request);
    }

    fn invalidated(&self, tag: u8) {
        self.seen.lock().unwrap().completions.push(tag);
    }
}

struct Bench {
    tester: DmaTester,
    agent: Agent,
    clock: FakeClock,
    msi: RecordingMsi,
}

impl Bench {
    fn new() -> Self {
        let agent = Agent { memory: VecDma::new(0x4_0000), seen: Arc::default() };
        agent.seen.lock().unwrap().limit = OFFSET;
        let (clock, msi) = (FakeClock::new(), RecordingMsi::new());
        let ports = InterruptPorts { pin: Box::new(RecordingPin::new()), msi: Box::new(msi.clone()) };
        let mut tester = DmaTester::new(Box::new(agent.clone()), Box::new(clock.clone()), ports);
        tester.config_write(4, 2, 6);
        let mut bench = Self { tester, agent, clock, msi };
        for (id, control, bits) in
            [(extended_id::ATS, 6, ats::ENABLE), (extended_id::PRI, 4, pri::ENABLE), (extended_id::PASID, 6, 7)]
        {
            let at = bench.capability(id) + control;
            bench.tester.config_write(at, 2, bits.into());
        }
        bench
    }

    fn capability(&mut self, id: u16) -> u16 {
        let mut at = EXTENDED_FIRST;
        loop {
            let header = self.tester.config_read(at, 4);
            if header as u16 == id {
                return at;
            }
            at = (header >> 20) as u16;
            assert_ne!(at, 0, "no capability {id:#x}");
        }
    }

    fn set(&mut self, n: u64, register: u64, value: u64) {
        let wide = register < 0x10;
        self.tester.write(0, engine_register(n, register), if wide { 8 } else { 4 }, value);
    }

    fn get(&mut self, n: u64, register: u64) -> u64 {
        self.tester.read(0, engine_register(n, register), 4)
    }

    fn global(&mut self, register: u64) -> u64 {
        self.tester.read(0, register, 4)
    }

    /// Has engine `n` copy 16 bytes from 0x100 to `to`.
    fn copy(&mut self, n: u64, to: u64, flags: u32) {
        use spec::dma_tester::engine as e;
        for (register, value) in
            [(e::SOURCE, 0x100), (e::DESTINATION, to), (e::LENGTH, 16), (e::PASID, 7), (e::FLAGS, flags.into())]
        {
            self.set(n, register, value);
        }
        self.set(n, e::COMMAND, START.into());
        self.pass();
    }

    fn pass(&mut self) {
        let until = self.clock.now() + 1_000_000;
        self.clock.run(&mut self.tester, until, 1000);
    }

    fn status(&mut self, n: u64) -> (u64, u64) {
        let status = self.get(n, spec::dma_tester::engine::STATUS);
        (status & 0xf, status >> 8)
    }

    fn failure(&mut self, n: u64) -> u64 {
        let (state, failure) = self.status(n);
        assert_eq!(state, State::Failed as u64);
        failure
    }
}

const DONE: (u64, u64) = (State::Done as u64, 0);

#[test]
fn an_engine_copies_and_sums() {
    let mut bench = Bench::new();
    bench.agent.memory.put(OFFSET + 0x100, &[3; 16]);
    bench.copy(2, 0x2ff8, 0);
    assert_eq!(bench.status(2), DONE);
    assert_eq!(bench.agent.memory.bytes(OFFSET + 0x2ff8, 16), [3; 16]);
    assert_eq!((bench.get(2, 0x24), bench.get(2, 0x30)), (16, 48));
}

#[test]
fn a_fill_writes_its_pattern_and_reads_nothing() {
    let mut bench = Bench::new();
    bench.set(0, 0, 0x0807_0605_0403_0201);
    bench.set(0, 8, 0x2ffe);
    bench.set(0, 0x10, 10);
    bench.set(0, 0x18, Flags::FILL.into());
    bench.set(0, 0x1c, START.into());
    bench.pass();
    assert_eq!(bench.agent.memory.bytes(OFFSET + 0x2ffe, 10), [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]);
}

#[test]
fn requests_have_what_the_flags_say() {
    let mut bench = Bench::new();
    bench.copy(0, 0x2000, Flags::PASID | Flags::PRIVILEGED | Flags::EXECUTE);
    let seen = std::mem::take(&mut bench.agent.seen.lock().unwrap().requests);
    let write = Attributes { pasid: Some(7), privileged: true, execute: false, translated: false };
    assert_eq!(seen, [Attributes { execute: true, ..write }, write]);
    bench.copy(0, 0x2000, Flags::TRUSTED);
    assert!(bench.agent.seen.lock().unwrap().requests[0].translated);
}

#[test]
fn what_configuration_space_does_not_enable_is_not_done() {
    for (id, control, flags) in [
        (extended_id::ATS, 6, Flags::TRANSLATE),
        (extended_id::ATS, 6, Flags::TRUSTED),
        (extended_id::PRI, 4, Flags::TRANSLATE | Flags::ASK),
        (extended_id::PASID, 6, Flags::PASID),
        (extended_id::PASID, 6, Flags::PASID | Flags::PRIVILEGED),
    ] {
        let mut bench = Bench::new();
        let at = bench.capability(id) + control;
        bench.tester.config_write(at, 2, if flags & Flags::PRIVILEGED != 0 { 1 } else { 0 });
        bench.copy(0, 0x2000, flags);
        assert_eq!(bench.failure(0), Failure::NotEnabled as u64, "{flags:#x}");
    }
    let mut bench = Bench::new();
    bench.tester.config_write(4, 2, 2);
    bench.copy(0, 0x2000, 0);
    assert_eq!(bench.failure(0), Failure::NotEnabled as u64, "bus mastering");
}

#[test]
fn translations_are_kept_until_they_are_invalidated() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.copy(0, 0x2000, Flags::TRANSLATE);
        assert_eq!(bench.status(0), DONE);
    }
    assert_eq!(bench.agent.seen.lock().unwrap().translations, 2);
    assert_eq!(bench.global(register::TRANSLATIONS), 2);
    assert!(bench.agent.seen.lock().unwrap().requests.iter().all(|request| request.translated));
    let invalidate =
        |pasid, global, first: u64| Message::Invalidate { tag: 5, pasid, global, first, last: first | 0xfff };
    bench.tester.message(&invalidate(Some(7), false, 0x2000));
    bench.tester.message(&invalidate(None, true, 0x2000));
    bench.tester.message(&invalidate(None, false, 0x3000));
    assert_eq!(bench.global(register::TRANSLATIONS), 2, "others were meant");
    bench.tester.message(&invalidate(None, false, 0x2000));
    assert_eq!((bench.global(register::TRANSLATIONS), bench.global(register::INVALIDATIONS)), (1, 4));
    assert_eq!(bench.agent.seen.lock().unwrap().completions, [5; 4]);
    let at = bench.capability(extended_id::ATS) + 6;
    bench.tester.config_write(at, 2, 0);
    assert_eq!(bench.global(register::TRANSLATIONS), 0);
}

#[test]
fn completions_can_be_held() {
    let mut bench = Bench::new();
    bench.tester.write(0, register::CONTROL, 4, Control::HOLD.into());
    bench.tester.message(&Message::Invalidate { tag: 9, pasid: None, global: false, first: 0, last: u64::MAX });
    assert_eq!(bench.agent.seen.lock().unwrap().completions, []);
    let state = bench.tester.save();
    bench.tester.restore(&state);
    bench.tester.write(0, register::COMPLETE, 4, 1);
    assert_eq!(bench.agent.seen.lock().unwrap().completions, [9]);
}

#[test]
fn a_page_that_is_not_there_is_asked_for_and_the_engine_goes_on() {
    let mut bench = Bench::new();
    let (to, flags) = (OFFSET + 0x1000, Flags::TRANSLATE | Flags::ASK | Flags::PASID | Flags::INTERRUPT);
    bench.copy(4, to, flags);
    assert_eq!(bench.status(4).0, State::Waiting as u64);
    let pages = bench.agent.seen.lock().unwrap().pages.clone();
    assert_eq!((pages.len(), pages[0].address, pages[0].group), (1, to, 4));
    assert!(pages[0].write && !pages[0].read && pages[0].last && pages[0].attributes.pasid == Some(7));
    // A response for another PASID is none of its.
    bench.tester.message(&Message::Response { pasid: None, group: 4, code: ResponseCode::Success });
    let status = bench.capability(extended_id::PRI) + pri::STATUS;
    assert_eq!(bench.tester.config_read(status, 2) as u16 & pri::UNEXPECTED_GROUP, pri::UNEXPECTED_GROUP);
    bench.agent.seen.lock().unwrap().limit = 2 * OFFSET;
    bench.tester.message(&Message::Response { pasid: Some(7), group: 4, code: ResponseCode::Success });
    assert_eq!(bench.status(4), DONE);
}

#[test]
fn refused_pages_and_promises_that_are_not_kept_end_the_engine() {
    let flags = Flags::TRANSLATE | Flags::ASK;
    for (code, failure) in
        [(ResponseCode::Invalid, Failure::PageInvalid), (ResponseCode::Failure, Failure::PageFailure)]
    {
        let mut bench = Bench::new();
        bench.copy(0, OFFSET, flags);
        bench.tester.message(&Message::Response { pasid: None, group: 0, code });
        assert_eq!((bench.failure(0), bench.get(0, 0x28)), (failure as u64, OFFSET));
    }
    let mut bench = Bench::new();
    bench.copy(0, OFFSET, flags);
    for _ in 0..MAXIMUM_ATTEMPTS {
        bench.tester.message(&Message::Response { pasid: None, group: 0, code: ResponseCode::Success });
    }
    assert_eq!(bench.failure(0), Failure::TooManyAttempts as u64);
    let mut bench = Bench::new();
    bench.copy(0, OFFSET, Flags::TRANSLATE);
    assert_eq!(bench.failure(0), Failure::NoPermission as u64);
}

#[test]
fn narrow_addresses_lose_their_upper_half() {
    let mut bench = Bench::new();
    bench.tester.write(0, register::CONTROL, 4, Control::NARROW.into());
    bench.agent.memory.put(OFFSET + 0x100, &[9; 16]);
    bench.copy(0, 0x7_0000_2000, 0);
    assert_eq!(bench.agent.memory.bytes(OFFSET + 0x2000, 16), [9; 16]);
}

#[test]
fn runs_are_repeated_each_with_its_interrupt() {
    let mut bench = Bench::new();
    bench.tester.write(BAR_MSIX, 16, 8, 0xfee0_0000);
    bench.tester.write(BAR_MSIX, 24, 8, 0x41);
    let capability = u16::from(bench.tester.config_read(0x34, 1) as u8);
    let msix = u16::from(bench.tester.config_read(capability + 1, 1) as u8);
    bench.tester.config_write(msix + 2, 2, 0x8000);
    bench.set(1, spec::dma_tester::engine::RUNS, 5);
    bench.copy(1, 0x2000, Flags::INTERRUPT);
    assert_eq!(bench.msi.take(), [(0xfee0_0000, 0x41); 5]);
    assert_eq!(bench.status(1), DONE);
}

#[test]
fn a_function_level_reset_forgets_everything() {
    let mut bench = Bench::new();
    bench.copy(0, 0x2000, Flags::TRANSLATE);
    let express = u16::from(bench.tester.config_read(0x34, 1) as u8);
    bench.tester.config_write(express + 8, 2, 0x8000);
    assert_eq!((bench.status(0), bench.global(register::TRANSLATIONS)), ((0, 0), 0));
}
