//! What the processors of a parallel machine tell one another, each being run by a thread of its own.
//!
//! Guest memory is shared as it is; everything else of a processor belongs to its thread: TLB, decoded code, translations, local APIC. What another
//! one, or the board, has to say is put into its mail, and it is *kicked*: it looks into its mail at the next block of code, before it executes
//! more. Three things are said:
//!
//! * An **interrupt** message or the level of the 8259's line. To whom a message goes is decided by what each APIC has published of itself.
//! * **Code was written.** The writer first stores, then takes the page's mark away, then tells everybody. Who decodes sets the mark first and reads
//!   then, so one of the two sees the other.
//! * **Stores to a page must be seen** from now on, because code is decoded from it. The one who decodes waits until everybody who may have the page
//!   cached for stores has answered, or is not executing anything ([`Peer::running`]), in which case it answers before it does. So no store
//!   goes by unseen after the code was read. Another one who decodes from the page meanwhile waits for the same ([`Peers::marking`]).
//!
//! A locked access across pages cannot be left to the host: it is made while nobody else runs ([`Peers::exclusive`]).

use crate::apic::{Address, InterruptMessage, targets};
use crate::cpu::Cpu;
use crate::memory::ram::MANY_WRITERS;
use crate::memory::tlb::CONTEXTS;
use crate::run::attention;
use crate::translator::brake::Brake;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Virtual time that is the host's: nanoseconds since a moment, from a value on. All processors of a machine see the same.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    start: Instant,
    base: u64,
}

impl HostClock {
    /// A clock that now shows `base` nanoseconds.
    pub fn starting_at(base: u64) -> Self {
        Self { start: Instant::now(), base }
    }

    /// Nanoseconds.
    pub fn now(&self) -> u64 {
        self.base.saturating_add(self.start.elapsed().as_nanos() as u64)
    }
}

/// What waits for a processor.
#[derive(Default)]
struct Mail {
    letters: Vec<Letter>,
    /// Pages of RAM with decoded code that were written.
    written: Vec<u32>,
    /// RAM offset of pages to which stores must be seen, and who may have them cached.
    revocations: Vec<(u64, u16)>,
    /// How many revocations there ever were.
    asked: u64,
}

enum Letter {
    Interrupt(InterruptMessage),
    /// The 8259's line.
    Pin(bool),
}

/// One processor, as the others see it.
struct Peer {
    /// There is mail, or something else to look at.
    kicked: AtomicBool,
    /// It may store to guest memory by way of its TLB.
    running: AtomicBool,
    brake: Brake,
    mail: Mutex<Mail>,
    /// Revocations done.
    answered: AtomicU64,
    address: Mutex<Address>,
    /// Its thread, while that sleeps or is going to.
    sleeper: Mutex<Option<Thread>>,
    sleeping: AtomicBool,
    /// It sleeps without a limit.
    for_good: AtomicBool,
    /// Instructions retired, as far as told.
    retired: AtomicU64,
}

/// The processors of a parallel machine.
pub struct Peers {
    each: Box<[Peer]>,
    /// Held by who wants to be the only one that runs.
    exclusive: Mutex<()>,
    /// Nobody may begin to run.
    pausing: AtomicBool,
    /// Held by who marks a page as having code, until stores to it are seen: who finds it marked may rely on that.
    marking: Mutex<()>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("count", &self.each.len()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for another thread: first by spinning, for it may be quick.
fn wait_until(done: impl Fn() -> bool) {
    let mut turns = 0u32;
    while !done() {
        turns += 1;
        if turns < 200 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

impl Peer {
    fn new(index: usize) -> Self {
        Self {
            kicked: AtomicBool::new(false),
            running: AtomicBool::new(false),
            brake: Brake::default(),
            mail: Mutex::default(),
            answered: AtomicU64::new(0),
            address: Mutex::new(crate::apic::LocalApic::new(index as u32, index == 0).address()),
            sleeper: Mutex::new(None),
            sleeping: AtomicBool::new(false),
            for_good: AtomicBool::new(false),
            retired: AtomicU64::new(0),
        }
    }

    fn kick(&self) {
        self.kicked.store(true, SeqCst);
        self.brake.pull();
        if self.sleeping.load(SeqCst)
            && let Some(thread) = &*lock(&self.sleeper)
        {
            thread.unpark();
        }
    }

    /// Puts something into its mail and kicks it.
    fn post<T>(&self, put: impl FnOnce(&mut Mail) -> T) -> T {
        let result = put(&mut lock(&self.mail));
        self.kick();
        result
    }
}

impl Peers {
    /// So many processors.
    pub fn new(count: usize) -> Arc<Self> {
        let each = (0..count).map(Peer::new).collect();
        Arc::new(Self { each, exclusive: Mutex::new(()), pausing: AtomicBool::new(false), marking: Mutex::new(()) })
    }

    /// Delivers an interrupt message of processor `sender`, or of a device. Of a lowest-priority message's candidates the one takes it whose priority
    /// was lowest when its APIC was last written to.
    pub fn send(&self, sender: Option<usize>, message: &InterruptMessage) {
        for index in targets(self.each.iter().map(|peer| *lock(&peer.address)), sender, message) {
            self.each[index].post(|mail| mail.letters.push(Letter::Interrupt(*message)));
        }
    }

    /// Drives the 8259's line, which goes to the first processor.
    pub fn set_interrupt_pin(&self, level: bool) {
        if let Some(first) = self.each.first() {
            first.post(|mail| mail.letters.push(Letter::Pin(level)));
        }
    }

    /// Interrupts on their way are lost: everything starts anew.
    pub fn forget_interrupts(&self) {
        self.each.iter().for_each(|peer| lock(&peer.mail).letters.clear());
    }

    /// Makes every processor leave [`Cpu::run`], or not begin it.
    pub fn kick_all(&self) {
        for peer in &self.each {
            peer.kick();
        }
    }

    /// Lets the calling thread sleep, which runs processor `index`, until that is kicked or `limit`, if there is one, has passed.
    pub fn sleep(&self, index: usize, limit: Option<Duration>) {
        let peer = &self.each[index];
        *lock(&peer.sleeper) = Some(std::thread::current());
        peer.sleeping.store(true, SeqCst);
        peer.for_good.store(limit.is_none(), SeqCst);
        let start = Instant::now();
        while !peer.kicked.load(SeqCst) {
            let Some(limit) = limit else {
                std::thread::park();
                continue;
            };
            let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else { break };
            std::thread::park_timeout(left);
        }
        peer.for_good.store(false, SeqCst);
        peer.sleeping.store(false, SeqCst);
    }

    /// Every processor sleeps, without a limit and without mail.
    pub fn all_sleep_for_good(&self) -> bool {
        self.each.iter().all(|peer| peer.for_good.load(SeqCst) && !peer.kicked.load(SeqCst))
    }

    /// Instructions retired by all processors, as of their last return from [`Cpu::run`].
    pub fn retired(&self) -> u64 {
        self.each.iter().map(|peer| peer.retired.load(Relaxed)).sum()
    }

    /// Something waits for processor `index`.
    #[inline]
    pub(crate) fn is_kicked(&self, index: usize) -> bool {
        self.each[index].kicked.load(Relaxed)
    }

    /// The brake of processor `index`; whoever fits it looks for a kick afterwards.
    pub(crate) fn brake(&self, index: usize) -> &Brake {
        &self.each[index].brake
    }

    /// Processor `index` begins to run.
    fn begin(&self, index: usize) {
        let running = &self.each[index].running;
        loop {
            running.store(true, SeqCst);
            if !self.pausing.load(SeqCst) {
                return;
            }
            running.store(false, SeqCst);
            wait_until(|| !self.pausing.load(SeqCst));
        }
    }

    /// Processor `index` runs no more.
    fn end(&self, index: usize) {
        self.each[index].running.store(false, SeqCst);
    }

    /// Decoded code of `page` was written: to be called after the store.
    pub(crate) fn code_written(&self, page: u32) {
        for peer in &self.each {
            peer.post(|mail| {
                if mail.written.last() != Some(&page) {
                    mail.written.push(page);
                }
            });
        }
    }

    /// The written pages that processor `index` has not yet taken.
    pub(crate) fn take_written(&self, index: usize) -> Vec<u32> {
        std::mem::take(&mut lock(&self.each[index].mail).written)
    }

    /// Runs `mark` for processor `me` while nobody else marks pages. As with [`Peers::revoke`], others may ask revocations of it meanwhile.
    pub(crate) fn marking<T>(&self, me: usize, mark: impl FnOnce() -> T) -> T {
        let _held = match self.marking.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.end(me);
                let held = lock(&self.marking);
                self.begin(me);
                held
            }
        };
        mark()
    }

    /// Waits until none of the others stores to the page at RAM `offset` by way of its TLB, where `writer` may have it. The caller, processor `me`,
    /// has to see to the revocations that others ask of it before it stores anything.
    pub(crate) fn revoke(&self, me: usize, offset: u64, writer: u16) {
        let named = |index: usize| writer == MANY_WRITERS || usize::from(writer - 1) / CONTEXTS == index;
        let asked: Vec<(&Peer, u64)> = self
            .each
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != me && named(*index))
            .map(|(_, peer)| {
                let number = peer.post(|mail| {
                    mail.revocations.push((offset, writer));
                    mail.asked += 1;
                    mail.asked
                });
                (peer, number)
            })
            .collect();
        if asked.is_empty() {
            return;
        }
        self.end(me);
        for (peer, number) in asked {
            wait_until(|| !peer.running.load(SeqCst) || peer.answered.load(SeqCst) >= number);
        }
        self.begin(me);
    }

    /// Runs `act` for processor `me` while no other runs.
    pub(crate) fn exclusive<T>(&self, me: usize, act: impl FnOnce() -> T) -> T {
        self.end(me);
        let held = lock(&self.exclusive);
        self.pausing.store(true, SeqCst);
        for (index, peer) in self.each.iter().enumerate() {
            if index != me {
                peer.kick();
                wait_until(|| !peer.running.load(SeqCst));
            }
        }
        self.each[me].running.store(true, SeqCst);
        let result = act();
        self.pausing.store(false, SeqCst);
        drop(held);
        result
    }
}

impl Cpu {
    /// Makes this one of the processors of a parallel machine, whose time is the clock's.
    pub fn join(&mut self, peers: Arc<Peers>, clock: HostClock) {
        self.clock = Some(clock);
        self.peers = Some(peers);
        self.publish_address();
    }

    /// Something waits for this processor.
    #[inline]
    pub(crate) fn is_kicked(&self) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.is_kicked(self.index))
    }

    /// To be called around everything that executes instructions.
    pub(crate) fn begin_run(&mut self) {
        self.publish_address();
        if let Some(peers) = &self.peers {
            peers.begin(self.index);
        }
    }

    /// See [`Cpu::begin_run`].
    pub(crate) fn end_run(&self) {
        if let Some(peers) = &self.peers {
            peers.end(self.index);
            peers.each[self.index].retired.store(self.instructions, Relaxed);
        }
    }

    /// The local APIC may have another address.
    pub(crate) fn publish_address(&mut self) {
        let Some(peers) = &self.peers else { return };
        let address = self.apic.address();
        if self.published != Some(address) {
            *lock(&peers.each[self.index].address) = address;
            self.published = Some(address);
        }
    }

    /// Stores to the pages that others have code of are seen from now on.
    pub(crate) fn answer_revocations(&mut self) {
        let Some(peers) = &self.peers else { return };
        let (revocations, asked) = {
            let mut mail = lock(&peers.each[self.index].mail);
            (std::mem::take(&mut mail.revocations), mail.asked)
        };
        for (offset, writer) in revocations {
            self.tlb.revoke_stores(offset, writer);
        }
        peers.each[self.index].answered.store(asked, SeqCst);
    }

    /// Sees to the mail.
    pub(crate) fn open_mail(&mut self) {
        let Some(peers) = &self.peers else { return };
        let peer = &peers.each[self.index];
        peer.kicked.store(false, SeqCst);
        let (letters, written) = {
            let mut mail = lock(&peer.mail);
            (std::mem::take(&mut mail.letters), !mail.written.is_empty())
        };
        self.answer_revocations();
        if written {
            self.attention |= attention::CODE_WRITTEN;
        }
        for letter in letters {
            match letter {
                Letter::Interrupt(message) => self.accept(&message),
                Letter::Pin(level) => self.set_interrupt_pin(level),
            }
        }
    }
}

#[cfg(test)]
mod tests;
