//! The saved state of a machine, and how a machine takes it up.

use crate::board::state::BoardState;
use crate::processors::lock;
use crate::run::Machine;
use processor::memory::ram::PAGE_SIZE;
use processor::state::CpuState;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;

/// Saved state of a [`Machine`] between two instructions, without its memory. Two machines of the same configuration with equal states and
/// equal memory go on alike, as long as the host says the same to them and the disks hold the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineState {
    pub(crate) now: u64,
    pub(crate) turn: usize,
    pub(crate) turn_end: Option<u64>,
    pub(crate) next_look: u64,
    pub(crate) idle_looked: Option<u64>,
    pub(crate) typed: VecDeque<u8>,
    pub(crate) asleep: bool,
    pub(crate) processors: Vec<CpuState>,
    pub(crate) board: BoardState,
}

/// The memory of a machine: offset in its RAM and contents of each page that is not all zero, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMemory(Vec<(u64, Vec<u8>)>);

/// A state is of a machine with another configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherMachine;

impl fmt::Display for OtherMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the saved state is that of a machine with other processors, memory or devices")
    }
}

impl std::error::Error for OtherMachine {}

impl Machine {
    /// The state, without memory.
    pub fn save(&self) -> MachineState {
        MachineState {
            now: self.now,
            turn: self.turn,
            turn_end: self.turn_end,
            next_look: self.next_look,
            idle_looked: self.idle_looked,
            typed: self.typed.clone(),
            asleep: self.asleep,
            processors: self.cpus.iter().map(|cpu| cpu.save()).collect(),
            board: lock(&self.board).save(),
        }
    }

    /// The memory.
    pub fn save_memory(&self) -> SavedMemory {
        let mut pages = Vec::new();
        lock(&self.board).memory.ram.for_each_page(|offset, page| {
            if page.iter().any(|&byte| byte != 0) {
                pages.push((offset, page.to_vec()));
            }
        });
        SavedMemory(pages)
    }

    /// Takes up what a machine of the same configuration saved.
    ///
    /// # Errors
    /// When the configuration was another one. The machine is not to be run then.
    pub fn restore(&mut self, state: &MachineState, memory: &SavedMemory) -> Result<(), OtherMachine> {
        let MachineState { now, turn, turn_end, next_look, idle_looked, typed, asleep, processors, board } = state;
        if processors.len() != self.cpus.len() || *turn >= self.cpus.len() {
            return Err(OtherMachine);
        }
        {
            let mut mine = lock(&self.board);
            mine.restore(board).ok_or(OtherMachine)?;
            let ram = &mine.memory.ram;
            let mut written = Vec::new();
            ram.for_each_page(|offset, _| written.push(offset));
            for offset in written {
                ram.write(offset, &[0; PAGE_SIZE as usize]);
            }
            for (offset, page) in &memory.0 {
                if page.len() as u64 != PAGE_SIZE || offset.checked_add(PAGE_SIZE).is_none_or(|end| end > ram.length())
                {
                    return Err(OtherMachine);
                }
                ram.write(*offset, page);
            }
            self.code.clear(ram);
        }
        for (cpu, saved) in self.cpus.iter_mut().zip(processors) {
            cpu.restore(saved);
        }
        (self.now, self.turn, self.turn_end) = (*now, *turn, *turn_end);
        (self.next_look, self.idle_looked) = (*next_look, *idle_looked);
        self.typed.clone_from(typed);
        (self.end, self.reset_wanted, self.sleep_wanted) = (None, false, false);
        self.asleep = *asleep;
        self.renew_map();
        Ok(())
    }
}
