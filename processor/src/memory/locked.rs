//! Locked instructions of the interpreter where other processors run meanwhile.
//!
//! An instruction's body loads, computes and stores. On a parallel machine a locked one is run with its access noted here: its store is a
//! compare-and-exchange against what it loaded, and when another processor was quicker the instruction begins anew; it has changed nothing. An
//! access across pages, which no instruction of the host can make, is done while no other processor runs.

use crate::cpu::Cpu;
use crate::decode::op::{LOCK, MEMORY_FIRST};
use crate::decode::{At, Op, Stop, Table};
use crate::memory::paging::Kind;
use crate::trap::{Exec, Trap, Trapped};
use iced_x86::Mnemonic;

/// The locked access that is being made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Locked {
    /// Stores are compare-and-exchange.
    attempting: bool,
    /// What was loaded.
    loaded: u64,
    /// Why the instruction has to begin anew, if it has to.
    missed: Option<Missed>,
}

#[derive(Clone, Copy, Debug)]
enum Missed {
    /// Another processor stored in between.
    Overtaken,
    /// The access crosses pages.
    Crosses,
}

impl Locked {
    /// A store has to be a compare-and-exchange.
    pub(super) fn is_attempting(&self) -> bool {
        self.attempting
    }

    /// `value` was loaded.
    pub(super) fn note_load(&mut self, value: u64) {
        self.loaded = value;
    }
}

/// Whether `op` is locked: by the prefix, or because it exchanges a register with memory.
pub(crate) fn is_locked(op: &Op) -> bool {
    op.has(LOCK) || op.has(MEMORY_FIRST) && op.code().mnemonic() == Mnemonic::Xchg
}

/// The handler of a locked instruction on a parallel machine. It is run on its own, so that nothing but it is meant.
pub(crate) fn locked(cpu: &mut Cpu, at: At) -> Stop {
    if let Err(why) = cpu.require_exact() {
        return cpu.leave(at, why);
    }
    let handler = Table::shared().get(at.op().code()).mem.any;
    loop {
        cpu.tlb.hide(true);
        cpu.locked = Locked { attempting: true, ..Locked::default() };
        let stop = handler(cpu, at);
        let missed = std::mem::take(&mut cpu.locked).missed;
        cpu.tlb.hide(false);
        match missed {
            None => return stop,
            Some(Missed::Overtaken) => std::hint::spin_loop(),
            Some(Missed::Crosses) => {
                let Some(peers) = cpu.peers.clone() else { return stop };
                return peers.exclusive(cpu.index, || {
                    cpu.answer_revocations();
                    handler(cpu, at)
                });
            }
        }
    }
}

impl Cpu {
    fn missed(&mut self, why: Missed) -> Trapped {
        self.locked.missed = Some(why);
        self.trapped(Trap::Continue)
    }

    /// The locked access is one that the host cannot make.
    pub(super) fn lock_crosses(&mut self) -> Trapped {
        self.missed(Missed::Crosses)
    }

    /// The store of a locked access of `size` bytes at RAM `offset`.
    pub(super) fn store_locked(&mut self, offset: u64, size: usize, value: u64) -> Exec {
        let loaded = self.locked.loaded;
        let stored = match size {
            1 => self.ram.compare_exchange::<1>(offset, loaded, value),
            2 => self.ram.compare_exchange::<2>(offset, loaded, value),
            4 => self.ram.compare_exchange::<4>(offset, loaded, value),
            _ => self.ram.compare_exchange::<8>(offset, loaded, value),
        };
        if stored { Ok(()) } else { Err(self.missed(Missed::Overtaken)) }
    }

    /// The store of CMPXCHG16B, of `new` in the place of `old`, which was loaded. False: it is not a locked access, and nothing was stored.
    pub(crate) fn exchange_16_locked(&mut self, linear: u64, old: u128, new: u128) -> Exec<bool> {
        if !self.locked.attempting {
            return Ok(false);
        }
        let Some(offset) = self.ram_for_store(linear, Kind::Write)? else { return Ok(false) };
        if !self.ram.compare_exchange_16(offset, old, new) {
            return Err(self.missed(Missed::Overtaken));
        }
        if self.ram.note_store(offset) {
            self.attention |= crate::run::attention::CODE_WRITTEN;
        }
        Ok(true)
    }
}
