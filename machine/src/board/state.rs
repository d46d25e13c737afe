//! The saved state of the board: chipset, devices, and the wires between them.

use super::Board;
use crate::interrupts::InterruptWires;
use chipset::fw_cfg::FwCfgState;
use chipset::power::PowerManagementState;
use chipset::root_complex::{RootComplexState, Slot};
use chipset::vtd::RemappingUnitState;
use devices::debug_port::DebugPortState;
use devices::hpet::HpetState;
use devices::i8042::I8042State;
use devices::ioapic::IoApicState;
use devices::pc_testdev::PcTestdevState;
use devices::pic::DualPicState;
use devices::pit::PitState;
use devices::ports::Nanoseconds;
use devices::rtc::RtcState;
use devices::serial::SerialState;
use serde::{Deserialize, Serialize};

/// Saved state of a [`Board`] that has carried out everything asked of it. RAM is not in it, nor is what lies outside the machine: the
/// contents of disks, the other ends of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardState {
    now: Nanoseconds,
    /// By number of the clock.
    alarms: Vec<Option<Nanoseconds>>,
    root: RootComplexState,
    /// What is plugged in, each in the encoding of its own state.
    functions: Vec<(Slot, Vec<u8>)>,
    units: Vec<RemappingUnitState>,
    interrupts: InterruptWires,
    pic: DualPicState,
    io_apic: IoApicState,
    pit: PitState,
    rtc: RtcState,
    hpet: HpetState,
    serial: Vec<SerialState>,
    keyboard: I8042State,
    power: PowerManagementState,
    fw_cfg: Option<FwCfgState>,
    debug: DebugPortState,
    test: Option<PcTestdevState>,
}

impl Board {
    /// The state. Nothing may be pending (see [`Board::settle`]).
    pub fn save(&self) -> BoardState {
        let Self {
            wires,
            memory: _,
            root,
            units,
            verify_io_apic: _,
            decoded: _,
            interrupts,
            pic,
            io_apic,
            pit,
            rtc,
            hpet,
            serial,
            keyboard,
            power,
            fw_cfg,
            debug,
            test,
            has_pit: _,
            debug_exit: _,
            alarms: _,
            console: _,
            messages: _,
            pic_output: _,
            power_requests: _,
            map_changed: _,
        } = self;
        debug_assert!(!wires.pending() && self.messages.is_empty() && self.pic_output.is_none());
        BoardState {
            now: wires.now(),
            alarms: wires.alarms(),
            root: root.save(),
            functions: root.save_functions(),
            units: units.iter().map(|unit| unit.lock().save()).collect(),
            interrupts: interrupts.clone(),
            pic: pic.save(),
            io_apic: io_apic.save(),
            pit: pit.save(),
            rtc: rtc.save(),
            hpet: hpet.save(),
            serial: serial.iter().map(|serial| serial.save()).collect(),
            keyboard: keyboard.save(),
            power: power.save(),
            fw_cfg: fw_cfg.as_ref().map(|fw_cfg| fw_cfg.save()),
            debug: debug.save(),
            test: test.as_ref().map(|test| test.save()),
        }
    }

    /// Takes over the state of a board with the same devices. `None`: it has others; the board is not to be used then.
    pub fn restore(&mut self, state: &BoardState) -> Option<()> {
        let BoardState {
            now,
            alarms,
            root,
            functions,
            units,
            interrupts,
            pic,
            io_apic,
            pit,
            rtc,
            hpet,
            serial,
            keyboard,
            power,
            fw_cfg,
            debug,
            test,
        } = state;
        self.wires.set_now(*now);
        self.root.restore(root);
        self.root.restore_functions(functions)?;
        if units.len() != self.units.iter().count() {
            return None;
        }
        for (mine, saved) in self.units.iter().zip(units) {
            mine.lock().restore(saved);
        }
        self.pic.restore(pic);
        self.io_apic.restore(io_apic);
        self.pit.restore(pit);
        self.rtc.restore(rtc);
        self.hpet.restore(hpet);
        if serial.len() != self.serial.len() {
            return None;
        }
        for (mine, saved) in self.serial.iter_mut().zip(serial) {
            mine.restore(saved);
        }
        self.keyboard.restore(keyboard);
        self.power.restore(power);
        restore_both(self.fw_cfg.as_mut(), fw_cfg.as_ref(), |mine, saved| mine.restore(saved))?;
        self.debug.restore(debug);
        restore_both(self.test.as_mut(), test.as_ref(), |mine, saved| mine.restore(saved))?;
        // What devices said to the board while they took over their states is in the board's own state already.
        self.wires.restore(alarms)?;
        self.decoded = self.root.decoded();
        self.interrupts = interrupts.clone();
        self.messages.clear();
        self.power_requests.clear();
        self.pic_output = None;
        self.map_changed = false;
        Some(())
    }
}

/// Restores what a board may have or not. `None`: one of the two has it, the other not.
fn restore_both<M, S>(mine: Option<M>, saved: Option<&S>, restore: impl FnOnce(M, &S)) -> Option<()> {
    match (mine, saved) {
        (Some(mine), Some(saved)) => restore(mine, saved),
        (None, None) => {}
        _ => return None,
    }
    Some(())
}
