//! The PC's own devices.

use crate::exercise::{Subject, exercise};
use crate::input::Input;
use devices::debug_port::{DebugPort, DebugPortState};
use devices::device::{Device, Region};
use devices::edu::{BUFFER, DEFAULT_DMA_MASK, Edu, EduState};
use devices::hpet::{Hpet, HpetState};
use devices::i8042::{I8042, I8042Pins, I8042State};
use devices::ioapic::{IoApic, IoApicState};
use devices::pc_testdev::{PcTestdev, PcTestdevState};
use devices::pci::{InterruptPorts, PciFunction};
use devices::pci_testdev::{PciTestdev, PciTestdevState};
use devices::pic::{DualPic, DualPicState};
use devices::pit::{Pit, PitState};
use devices::rtc::{DEFAULT_START, Rtc, RtcState};
use devices::serial::{Serial, SerialState};
use devices::testing::{FakeClock, RecordingMsi, RecordingPin, VecDma, VecOutput};

/// The first byte chooses the device.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 11 {
        0 => exercise::<PicSubject>(&mut input),
        1 => exercise::<PitSubject>(&mut input),
        2 => exercise::<RtcSubject>(&mut input),
        3 => exercise::<HpetSubject>(&mut input),
        4 => exercise::<IoApicSubject>(&mut input),
        5 => exercise::<SerialSubject>(&mut input),
        6 => exercise::<I8042Subject>(&mut input),
        7 => exercise::<PcTestdevSubject>(&mut input),
        8 => exercise::<PciTestdevSubject>(&mut input),
        9 => exercise::<EduSubject>(&mut input),
        _ => exercise::<DebugPortSubject>(&mut input),
    }
}

fn pin() -> Box<RecordingPin> {
    Box::new(RecordingPin::new())
}

/// Names the device, its state and its regions; the rest is the same for all.
macro_rules! subject {
    ($subject:ident, $device:ty, $state:ty, $regions:expr, $build:expr $(, $outside:expr)?) => {
        struct $subject;

        impl Subject for $subject {
            type Device = $device;
            type State = $state;
            const REGIONS: &'static [(Region, u64)] = &$regions;

            fn build(clock: &FakeClock) -> $device {
                let build: fn(&FakeClock) -> $device = $build;
                build(clock)
            }

            fn save(device: &$device) -> $state {
                device.save()
            }

            fn restore(device: &mut $device, state: &$state) {
                device.restore(state);
            }

            $(fn outside(device: &mut $device, input: &mut Input<'_>) {
                let outside: fn(&mut $device, &mut Input<'_>) = $outside;
                outside(device, input);
            })?
        }
    };
}

subject!(PicSubject, DualPic, DualPicState, [(0, 2), (1, 2), (2, 2)], |_| DualPic::new(pin()), |pic, input| {
    let byte = input.byte();
    if byte & 0x40 != 0 {
        pic.acknowledge();
    } else {
        pic.set_line(byte & 0x1f, byte & 0x80 != 0);
    }
});

subject!(PitSubject, Pit, PitState, [(0, 4), (1, 1)], |clock| Pit::new(pin(), Box::new(clock.clone())));

subject!(
    RtcSubject,
    Rtc,
    RtcState,
    [(0, 4)],
    |clock| Rtc::new(DEFAULT_START, pin(), Box::new(clock.clone())),
    |rtc, input| rtc.set_cmos(input.byte(), input.byte())
);

subject!(HpetSubject, Hpet, HpetState, [(0, 0x400), (0, 0x28), (0, 0x160)], |clock| Hpet::new(
    |_| pin(),
    [pin(), pin()],
    Box::new(RecordingMsi::new()),
    Box::new(clock.clone())
));

subject!(
    IoApicSubject,
    IoApic,
    IoApicState,
    [(0, 0x18), (0, 0x48), (0, 0x1000)],
    |_| IoApic::new(Box::new(RecordingMsi::new())),
    |ioapic, input| {
        let byte = input.byte();
        if byte & 0x40 != 0 {
            ioapic.eoi(input.byte());
        } else {
            ioapic.set_line(byte & 0x1f, byte & 0x80 != 0);
        }
    }
);

subject!(
    SerialSubject,
    Serial,
    SerialState,
    [(0, 8)],
    |clock| Serial::new(pin(), Box::new(VecOutput::new()), Box::new(clock.clone())),
    |serial, input| {
        let count = usize::from(input.byte());
        if count == 0 {
            serial.receive_break();
        } else {
            let room = serial.room();
            let taken = serial.receive(input.bytes(count));
            assert!(taken <= room, "more bytes taken than there was room for");
        }
    }
);

subject!(
    I8042Subject,
    I8042,
    I8042State,
    [(0, 1), (1, 1), (2, 1)],
    |_| I8042::new(I8042Pins { keyboard: pin(), auxiliary: pin(), a20: pin(), reset: pin() }),
    |i8042, input| {
        i8042.key(input.byte());
    }
);

subject!(PcTestdevSubject, PcTestdev, PcTestdevState, [(0, 4), (1, 4), (2, 4), (3, 24), (4, 0x1_0000)], |_| {
    PcTestdev::new(|_| pin())
});

subject!(
    PciTestdevSubject,
    PciTestdev,
    PciTestdevState,
    [(0, 4096), (0, 16), (1, 256)],
    |_| PciTestdev::new(InterruptPorts { pin: pin(), msi: Box::new(RecordingMsi::new()) }),
    |device, input| {
        let (offset, size) = (input.below(256) as u16, 1 << (input.byte() % 3));
        device.config_write(offset, size, input.number(4) as u32);
        device.config_read(offset, size);
        device.windows();
    }
);

subject!(
    EduSubject,
    Edu,
    EduState,
    [(0, 0xa0), (0, 0xa0), (0, 0x10_0000)],
    |clock| {
        let ports = InterruptPorts { pin: pin(), msi: Box::new(RecordingMsi::new()) };
        Edu::new(DEFAULT_DMA_MASK, Box::new(VecDma::new(0x4000)), Box::new(clock.clone()), ports)
    },
    |edu, input| {
        let byte = input.byte();
        if byte & 1 == 0 {
            let (offset, size) = (input.below(256) as u16, 1 << (byte >> 1 & 1));
            edu.config_write(offset, size, input.number(4) as u32);
            return;
        }
        // A transfer near the ends of the buffer, which random numbers do not find.
        edu.config_write(4, 2, 6);
        let inside = BUFFER.wrapping_add(input.number(2)).wrapping_sub(16);
        let places = if byte & 2 == 0 { [input.number(2), inside] } else { [inside, input.number(2)] };
        for (register, value) in [(0x80, places[0]), (0x88, places[1]), (0x90, input.number(2)), (0x98, byte.into())] {
            edu.write(0, register, 8, value);
        }
    }
);

subject!(DebugPortSubject, DebugPort, DebugPortState, [(0, 1), (1, 1)], |_| DebugPort::new(Box::new(VecOutput::new())));
