//! The processors on the board: their bus, their start.

use crate::board::Board;
use crate::boot::InitialState;
use crate::parallel::Shared;
use processor::apic::InterruptMessage;
use processor::cpu::TableRegister;
use processor::flags::LateFlags;
use processor::segment::{CS, Segment};
use processor::{Bus, Cpu};
use std::sync::{Arc, Mutex, MutexGuard};

/// One processor's way to the board.
pub struct BoardBus {
    board: Arc<Mutex<Board>>,
    index: usize,
    service: bool,
    /// On a parallel machine: what is asked for is carried out at once.
    shared: Option<Arc<Shared>>,
}

impl BoardBus {
    /// The bus of processor `index`.
    pub fn new(board: Arc<Mutex<Board>>, index: usize, shared: Option<Arc<Shared>>) -> Self {
        Self { board, index, service: false, shared }
    }

    fn with<T>(&mut self, now: u64, act: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = lock(&self.board);
        board.wires.set_now(now);
        let result = act(&mut board);
        let asked = board.wires.pending() || !board.messages.is_empty();
        match &self.shared {
            None => self.service = asked,
            Some(shared) if asked => shared.carry_out(&mut board),
            Some(_) => {}
        }
        result
    }
}

/// Locks the board. A panic elsewhere does not make it unusable.
pub fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Bus for BoardBus {
    fn read(&mut self, now: u64, address: u64, size: u8) -> u64 {
        self.with(now, |board| board.memory_read(address, size))
    }
    fn write(&mut self, now: u64, address: u64, size: u8, value: u64) {
        self.with(now, |board| board.memory_write(address, size, value));
    }
    fn io_read(&mut self, now: u64, port: u16, size: u8) -> u32 {
        self.with(now, |board| board.io_read(port, size))
    }
    fn io_write(&mut self, now: u64, port: u16, size: u8, value: u32) {
        self.with(now, |board| board.io_write(port, size, value));
    }
    fn send_interrupt(&mut self, now: u64, message: InterruptMessage) {
        let sender = self.index;
        if let Some(shared) = &self.shared {
            return shared.peers.send(Some(sender), &message);
        }
        self.with(now, |board| board.messages.push((Some(sender), message)));
    }
    fn end_of_interrupt(&mut self, now: u64, vector: u8) {
        self.with(now, |board| board.end_of_interrupt(vector));
    }
    fn acknowledge_external(&mut self, now: u64) -> u8 {
        self.with(now, Board::acknowledge)
    }
    fn floating_point_error(&mut self, now: u64) {
        self.with(now, Board::floating_point_error);
    }
    fn needs_service(&self) -> bool {
        self.service
    }
}

fn segment(from: &crate::boot::Segment) -> Segment {
    Segment { selector: from.selector, base: from.base, limit: from.limit, access: from.access_rights }
}

/// Puts the first processor into the state that a loader asks for.
pub fn start(cpu: &mut Cpu, state: &InitialState) {
    let InitialState { rip, rflags, gprs, segments, ldtr, tr, gdtr, idtr, cr0, cr3, cr4, efer } = state;
    cpu.regs[..16].copy_from_slice(gprs);
    cpu.rip = *rip;
    cpu.rflags = rflags & !processor::flags::STATUS | 2;
    cpu.flags = LateFlags::from_bits(*rflags);
    for (to, from) in cpu.segs.iter_mut().zip(segments) {
        *to = segment(from);
    }
    cpu.ldtr = segment(ldtr);
    cpu.tr = segment(tr);
    cpu.gdtr = TableRegister { base: gdtr.base, limit: gdtr.limit };
    cpu.idtr = TableRegister { base: idtr.base, limit: idtr.limit };
    (cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer) = (*cr0, *cr3, *cr4, *efer);
    cpu.mode_changed();
    // Firmware would have done this: the 8259's interrupts pass through LINT0.
    cpu.apic.set_virtual_wire();
}

/// Lets the first processor, as it is after power-on, go on in real mode at the physical address `vector` below 1 MiB, as firmware does after a
/// sleep (ACPI 6.5, 5.2.10).
pub fn start_real(cpu: &mut Cpu, vector: u32) {
    let selector = (vector >> 4) as u16;
    cpu.segs[CS] = Segment { selector, base: u64::from(selector) << 4, ..cpu.segs[CS] };
    cpu.rip = u64::from(vector & 15);
    cpu.mode_changed();
    cpu.apic.set_virtual_wire();
}
