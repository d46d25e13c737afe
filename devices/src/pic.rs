//! The two cascaded 8259A interrupt controllers (Intel 8259A data sheet, 231468) with the edge/level control registers
//! of the ICH south bridges (ICH9 data sheet, 13.4).
//!
//! Regions: 0 is ports 0x20-0x21 (first controller), 1 is ports 0xA0-0xA1 (second controller, wired to input 2 of the
//! first), 2 is ports 0x4D0-0x4D1 (ELCR).
//!
//! As in the south bridges, the trigger mode comes from the ELCR alone (LTIM of ICW1 is ignored), and an edge stays
//! latched until it is acknowledged, even if the input falls before.

use crate::device::{Device, Region};
use crate::ports::PinBox;
use serde::{Deserialize, Serialize};

/// Input of the first controller that the second is wired to.
const CASCADE: u8 = 2;

/// Inputs whose trigger mode the ELCR may set: not the timer, keyboard, cascade, RTC and FPU.
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

/// Which initialization command word comes next at the odd port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitStep {
    /// Initialized: the odd port is OCW1, the mask.
    #[default]
    Done,
    /// ICW2, the vector base.
    Icw2,
    /// ICW3, the cascade wiring.
    Icw3,
    /// ICW4, the modes.
    Icw4,
}

/// Saved state of one 8259A.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct PicState {
    pub lines: u8,
    pub irr: u8,
    pub isr: u8,
    pub imr: u8,
    pub elcr: u8,
    pub vector_base: u8,
    pub highest: u8,
    pub init: InitStep,
    pub icw4_follows: bool,
    pub single: bool,
    pub auto_eoi: bool,
    pub rotate_on_auto_eoi: bool,
    pub special_fully_nested: bool,
    pub special_mask: bool,
    pub read_isr: bool,
    pub poll: bool,
}

/// One 8259A.
#[derive(Debug, Default)]
struct Pic {
    /// Levels of the inputs.
    lines: u8,
    /// Interrupt request register: latched edges, and the level inputs that stand.
    irr: u8,
    /// In-service register.
    isr: u8,
    /// Interrupt mask register.
    imr: u8,
    /// Level-triggered inputs.
    elcr: u8,
    /// Upper five bits of the vector (ICW2).
    vector_base: u8,
    /// The input that has the highest priority now; 0 unless rotated.
    highest: u8,
    init: InitStep,
    icw4_follows: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    /// The even port reads ISR rather than IRR.
    read_isr: bool,
    /// The next read is a poll.
    poll: bool,
}

impl Pic {
    fn save(&self) -> PicState {
        let &Self {
            lines,
            irr,
            isr,
            imr,
            elcr,
            vector_base,
            highest,
            init,
            icw4_follows,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_fully_nested,
            special_mask,
            read_isr,
            poll,
        } = self;
        PicState {
            lines,
            irr,
            isr,
            imr,
            elcr,
            vector_base,
            highest,
            init,
            icw4_follows,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_fully_nested,
            special_mask,
            read_isr,
            poll,
        }
    }

    fn restore(state: &PicState) -> Self {
        let &PicState {
            lines,
            irr,
            isr,
            imr,
            elcr,
            vector_base,
            highest,
            init,
            icw4_follows,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_fully_nested,
            special_mask,
            read_isr,
            poll,
        } = state;
        Self {
            lines,
            irr,
            isr,
            imr,
            elcr,
            vector_base,
            highest: highest & 7,
            init,
            icw4_follows,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_fully_nested,
            special_mask,
            read_isr,
            poll,
        }
    }

    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        let rose = level && self.lines & bit == 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if self.elcr & bit != 0 {
            self.irr = (self.irr & !bit) | (self.lines & bit);
        } else if rose {
            self.irr |= bit;
        }
    }

    fn set_elcr(&mut self, value: u8) {
        let changed = self.elcr ^ value;
        self.elcr = value;
        // An input that becomes level-triggered requests by its level; one that becomes edge-triggered waits for an edge.
        self.irr = (self.irr & !changed) | (self.lines & changed & value);
    }

    /// Distance of the most urgent of `inputs` from the highest priority, 8 if there is none.
    fn priority(&self, inputs: u8) -> u8 {
        inputs.rotate_right(u32::from(self.highest)).trailing_zeros() as u8
    }

    /// The input whose request the controller presents on INT.
    fn requested(&self, is_first: bool) -> Option<u8> {
        let request = self.priority(self.irr & !self.imr);
        if request == 8 {
            return None;
        }
        let mut in_service = self.isr;
        if self.special_mask {
            in_service &= !self.imr;
        }
        if self.special_fully_nested && is_first {
            in_service &= !(1 << CASCADE);
        }
        (request < self.priority(in_service)).then_some((request + self.highest) & 7)
    }

    /// The acknowledge cycle for `input`.
    fn accept(&mut self, input: u8) {
        let bit = 1 << input;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.highest = (input + 1) & 7;
        }
    }

    fn write_even(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialize(value);
        } else if value & 0x08 != 0 {
            // OCW3.
            if value & 0x04 != 0 {
                self.poll = true;
            }
            if value & 0x02 != 0 {
                self.read_isr = value & 1 != 0;
            }
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
        } else {
            self.operate(value >> 5, value & 7);
        }
    }

    /// ICW1.
    fn initialize(&mut self, value: u8) {
        self.irr = self.lines & self.elcr;
        self.isr = 0;
        self.imr = 0;
        self.highest = 0;
        self.auto_eoi = false;
        self.rotate_on_auto_eoi = false;
        self.special_fully_nested = false;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
        self.icw4_follows = value & 1 != 0;
        self.single = value & 2 != 0;
        self.init = InitStep::Icw2;
    }

    /// OCW2: `command` is R, SL, EOI; `level` is L2-L0.
    fn operate(&mut self, command: u8, level: u8) {
        match command {
            // Rotate in automatic-EOI mode, clear and set.
            0 | 4 => self.rotate_on_auto_eoi = command == 4,
            // Non-specific EOI, without and with rotation. In special mask mode it leaves masked in-service bits alone.
            1 | 5 => {
                let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
                let priority = self.priority(candidates);
                if priority < 8 {
                    let input = (priority + self.highest) & 7;
                    self.isr &= !(1 << input);
                    if command == 5 {
                        self.highest = (input + 1) & 7;
                    }
                }
            }
            // Specific EOI, without and with rotation.
            3 | 7 => {
                self.isr &= !(1 << level);
                if command == 7 {
                    self.highest = (level + 1) & 7;
                }
            }
            // Set priority: `level` becomes the lowest.
            6 => self.highest = (level + 1) & 7,
            _ => {}
        }
    }

    fn write_odd(&mut self, value: u8) {
        let after_icw3 = if self.icw4_follows { InitStep::Icw4 } else { InitStep::Done };
        match self.init {
            InitStep::Done => self.imr = value,
            InitStep::Icw2 => {
                self.vector_base = value & 0xf8;
                self.init = if self.single { after_icw3 } else { InitStep::Icw3 };
            }
            InitStep::Icw3 => self.init = after_icw3,
            InitStep::Icw4 => {
                self.special_fully_nested = value & 0x10 != 0;
                self.auto_eoi = value & 0x02 != 0;
                self.init = InitStep::Done;
            }
        }
    }

    fn read(&mut self, odd: bool, is_first: bool) -> u8 {
        if core::mem::take(&mut self.poll) {
            return match self.requested(is_first) {
                Some(input) => {
                    self.accept(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (odd, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::default() };
    }
}

/// Saved state of [`DualPic`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DualPicState {
    /// First and second controller.
    pub pics: [PicState; 2],
    /// Level of INTR.
    pub output: bool,
}

/// Both controllers with their cascade; INTR goes to the processor (or to LINT0 of its local APIC).
pub struct DualPic {
    pics: [Pic; 2],
    output: bool,
    intr: PinBox,
}

impl DualPic {
    /// Two controllers after power-on, with INTR on the wire `intr`.
    pub fn new(intr: PinBox) -> Self {
        Self { pics: [Pic::default(), Pic::default()], output: false, intr }
    }

    /// Drives input `irq` (0-15). Input 2 is the cascade and no wire reaches it; it and numbers above 15 are ignored.
    pub fn set_line(&mut self, irq: u8, level: bool) {
        match irq {
            CASCADE => return,
            0..8 => self.pics[0].set_line(irq, level),
            8..16 => self.pics[1].set_line(irq - 8, level),
            _ => return,
        }
        self.update();
    }

    /// The level of INTR.
    pub fn output(&self) -> bool {
        self.output
    }

    /// The processor's interrupt acknowledge cycle: gives the vector. Without a request it is the vector of input 7 of
    /// the controller that was asked, with no in-service bit (spurious interrupt).
    pub fn acknowledge(&mut self) -> u8 {
        let [first, second] = &mut self.pics;
        let vector = match first.requested(true) {
            Some(CASCADE) => {
                first.accept(CASCADE);
                let vector = match second.requested(false) {
                    Some(input) => {
                        second.accept(input);
                        second.vector_base | input
                    }
                    None => second.vector_base | 7,
                };
                // INT of the second controller falls with the acknowledge; one that stands for another request makes a
                // new edge.
                first.set_line(CASCADE, false);
                vector
            }
            Some(input) => {
                first.accept(input);
                first.vector_base | input
            }
            None => first.vector_base | 7,
        };
        self.update();
        vector
    }

    /// Carries requests from the second controller to the first and on to INTR.
    fn update(&mut self) {
        let [first, second] = &mut self.pics;
        first.set_line(CASCADE, second.requested(false).is_some());
        let output = first.requested(true).is_some();
        if output != self.output {
            self.output = output;
            self.intr.set(output);
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> DualPicState {
        let Self { pics: [first, second], output, intr: _ } = self;
        DualPicState { pics: [first.save(), second.save()], output: *output }
    }

    /// Takes the state of a snapshot; wires keep their levels, which the board restores itself.
    pub fn restore(&mut self, state: &DualPicState) {
        let DualPicState { pics: [first, second], output } = state;
        self.pics = [Pic::restore(first), Pic::restore(second)];
        self.output = *output;
    }
}

impl Device for DualPic {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        let mut value = 0;
        for byte in 0..u64::from(size) {
            let offset = offset.wrapping_add(byte);
            let register = match (region, offset) {
                (0 | 1, 0 | 1) => {
                    let register = self.pics[usize::from(region)].read(offset == 1, region == 0);
                    self.update();
                    register
                }
                (2, 0) => self.pics[0].elcr,
                (2, 1) => self.pics[1].elcr,
                _ => 0xff,
            };
            value |= u64::from(register) << (8 * byte);
        }
        value
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        for byte in 0..u64::from(size) {
            let register = (value >> (8 * byte)) as u8;
            match (region, offset.wrapping_add(byte)) {
                (0 | 1, 0) => self.pics[usize::from(region)].write_even(register),
                (0 | 1, 1) => self.pics[usize::from(region)].write_odd(register),
                (2, index @ (0 | 1)) => {
                    let index = index as usize;
                    self.pics[index].set_elcr(register & ELCR_WRITABLE[index]);
                }
                _ => {}
            }
        }
        self.update();
    }

    fn reset(&mut self) {
        for pic in &mut self.pics {
            pic.reset();
        }
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordingPin;
    use alloc::boxed::Box;

    fn initialized() -> (DualPic, RecordingPin) {
        let pin = RecordingPin::new();
        let mut pic = DualPic::new(Box::new(pin.clone()));
        for (region, base, wiring) in [(0, 0x20, 4), (1, 0x28, 2)] {
            pic.write(region, 0, 1, 0x11);
            pic.write(region, 1, 1, base);
            pic.write(region, 1, 1, wiring);
            pic.write(region, 1, 1, 1);
        }
        (pic, pin)
    }

    fn pulse(pic: &mut DualPic, irq: u8) {
        pic.set_line(irq, true);
        pic.set_line(irq, false);
    }

    #[test]
    fn an_edge_is_latched_until_acknowledged() {
        let (mut pic, pin) = initialized();
        pulse(&mut pic, 4);
        assert!(pin.level());
        assert_eq!(pic.acknowledge(), 0x24);
        assert!(!pin.level());
        pic.write(0, 0, 1, 0x20);
        assert!(!pin.level());
    }

    #[test]
    fn a_level_request_stands_as_long_as_its_line() {
        let (mut pic, pin) = initialized();
        pic.write(2, 1, 1, 0x08);
        pic.set_line(11, true);
        assert_eq!(pic.acknowledge(), 0x2b);
        pic.write(1, 0, 1, 0x20);
        pic.write(0, 0, 1, 0x20);
        assert!(pin.level());
        pic.set_line(11, false);
        // The cascade input is edge-triggered and stays latched: what follows is a spurious IRQ 15.
        assert!(pin.level());
        assert_eq!(pic.acknowledge(), 0x2f);
        assert_eq!(pic.save().pics[1].isr, 0);
        assert_eq!(pic.save().pics[0].isr, 4);
    }

    #[test]
    fn elcr_does_not_touch_the_timer_keyboard_cascade_rtc_and_fpu() {
        let (mut pic, _) = initialized();
        pic.write(2, 0, 2, 0xffff);
        assert_eq!(pic.read(2, 0, 2), 0xdef8);
    }

    #[test]
    fn acknowledge_without_request_gives_irq_7() {
        let (mut pic, _) = initialized();
        pulse(&mut pic, 3);
        pic.write(0, 1, 1, 0xff);
        assert_eq!(pic.acknowledge(), 0x27);
        pic.write(0, 0, 1, 0x0b);
        assert_eq!(pic.read(0, 0, 1), 0);
    }

    #[test]
    fn lower_priority_waits_for_eoi_and_higher_interrupts() {
        let (mut pic, pin) = initialized();
        pulse(&mut pic, 4);
        assert_eq!(pic.acknowledge(), 0x24);
        pulse(&mut pic, 6);
        assert!(!pin.level());
        pulse(&mut pic, 1);
        assert_eq!(pic.acknowledge(), 0x21);
        pic.write(0, 0, 1, 0x20);
        assert_eq!(pic.save().pics[0].isr, 0x10);
        pic.write(0, 0, 1, 0x20);
        assert_eq!(pic.acknowledge(), 0x26);
    }

    #[test]
    fn two_requests_of_the_second_controller_both_arrive_in_auto_eoi_mode() {
        let (mut pic, pin) = initialized();
        for region in [0, 1] {
            pic.write(region, 0, 1, 0x11);
            pic.write(region, 1, 1, 0x20 + 8 * u64::from(region));
            pic.write(region, 1, 1, 0);
            pic.write(region, 1, 1, 3);
        }
        pulse(&mut pic, 9);
        pulse(&mut pic, 14);
        assert_eq!(pic.acknowledge(), 0x29);
        assert!(pin.level());
        assert_eq!(pic.acknowledge(), 0x2e);
        assert!(!pin.level());
        assert_eq!(pic.save().pics[1].isr, 0);
    }

    #[test]
    fn special_fully_nested_mode_lets_a_higher_request_of_the_same_second_controller_through() {
        for (icw4, through) in [(0x01, false), (0x11, true)] {
            let (mut pic, pin) = initialized();
            pic.write(0, 0, 1, 0x11);
            for word in [0x20, 4, icw4] {
                pic.write(0, 1, 1, word);
            }
            pulse(&mut pic, 12);
            assert_eq!(pic.acknowledge(), 0x2c);
            pulse(&mut pic, 9);
            assert_eq!(pin.level(), through);
        }
    }

    #[test]
    fn special_mask_mode_lets_lower_requests_through() {
        let (mut pic, pin) = initialized();
        pulse(&mut pic, 3);
        pic.acknowledge();
        pic.write(0, 1, 1, 0x08);
        pulse(&mut pic, 5);
        assert!(!pin.level());
        pic.write(0, 0, 1, 0x68);
        assert!(pin.level());
        assert_eq!(pic.acknowledge(), 0x25);
        // A non-specific EOI ends input 5, not the masked input 3.
        pic.write(0, 0, 1, 0x20);
        assert_eq!(pic.save().pics[0].isr, 0x08);
    }

    #[test]
    fn rotation_on_eoi_makes_the_served_input_the_lowest() {
        let (mut pic, _) = initialized();
        pulse(&mut pic, 3);
        pic.acknowledge();
        pic.write(0, 0, 1, 0xa0);
        pulse(&mut pic, 3);
        pulse(&mut pic, 4);
        assert_eq!(pic.acknowledge(), 0x24);
    }

    #[test]
    fn set_priority_names_the_lowest() {
        let (mut pic, _) = initialized();
        pic.write(0, 0, 1, 0xc5);
        pulse(&mut pic, 0);
        pulse(&mut pic, 6);
        assert_eq!(pic.acknowledge(), 0x26);
    }

    #[test]
    fn poll_acknowledges_and_names_the_request() {
        let (mut pic, pin) = initialized();
        pulse(&mut pic, 5);
        pic.write(0, 0, 1, 0x0c);
        assert_eq!(pic.read(0, 0, 1), 0x85);
        assert!(!pin.level());
        pic.write(0, 0, 1, 0x0c);
        assert_eq!(pic.read(0, 0, 1), 0);
    }

    #[test]
    fn icw1_forgets_edges_and_needs_a_new_one() {
        let (mut pic, pin) = initialized();
        pic.set_line(4, true);
        pic.write(0, 0, 1, 0x13);
        pic.write(0, 1, 1, 0x30);
        pic.write(0, 1, 1, 1);
        assert!(!pin.level());
        pic.set_line(4, false);
        pic.set_line(4, true);
        assert_eq!(pic.acknowledge(), 0x34);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let (mut pic, _) = initialized();
        pulse(&mut pic, 9);
        pulse(&mut pic, 1);
        pic.acknowledge();
        let state = pic.save();
        let mut other = DualPic::new(Box::new(RecordingPin::new()));
        other.restore(&state);
        assert_eq!(other.save(), state);
        other.write(0, 0, 1, 0x20);
        assert_eq!(other.acknowledge(), 0x29);
    }
}
