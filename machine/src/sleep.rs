//! Suspend to RAM, ACPI sleep state S3 (ACPI 6.5, 16.1.1.3 and 16.3): what sleeps, what wakes it, and where it goes on.

use crate::board::Board;
use crate::boot::acpi_address;
use crate::processors::{lock, start_real};
use crate::run::{Machine, Starter};
use chipset::acpi::WAKING_VECTOR;

/// What firmware finds in the CMOS memory's shutdown status when it shall go on after a sleep, instead of starting (SeaBIOS and QEMU agree on it).
const RESUME: u8 = 0xfe;

impl Machine {
    /// Only memory, the real-time clock and power management keep their state.
    pub(crate) fn fall_asleep(&mut self) {
        lock(&self.board).power_down();
        self.power_on_processors();
        (self.turn, self.turn_end, self.paused) = (0, None, None);
        self.asleep = true;
        self.renew_map();
        self.service();
    }

    /// Wakes the machine if something has happened that is to wake it.
    pub(crate) fn wake_if_due(&mut self) {
        let mut board = lock(&self.board);
        if !board.power().wakes() {
            return;
        }
        self.asleep = false;
        board.power().wake();
        match &self.starter {
            Starter::Firmware => board.set_cmos(0x0f, RESUME),
            Starter::Direct { acpi, .. } => {
                let at = acpi_address(board.memory.layout, acpi) + WAKING_VECTOR;
                let vector = waking_vector(&mut board, at);
                // Nobody waits for it: it starts anew, as firmware would.
                if vector == 0 || board.configure().is_err() {
                    self.reset_wanted = true;
                } else {
                    start_real(&mut self.cpus[0], vector);
                }
            }
        }
        drop(board);
        self.renew_map();
        self.service();
    }
}

fn waking_vector(board: &mut Board, address: u64) -> u32 {
    let mut bytes = [0; 4];
    if address + 4 <= board.memory.layout.low {
        board.memory.ram.read(address, &mut bytes);
    }
    u32::from_le_bytes(bytes)
}
