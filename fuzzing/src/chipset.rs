//! Root complex, power management and fw_cfg.

use crate::exercise::{Subject, exercise};
use crate::input::Input;
use chipset::fw_cfg::{FwCfg, FwCfgState, Items};
use chipset::power::{PowerManagement, PowerManagementState};
use chipset::root_complex::{RootComplex, Slot};
use devices::device::Region;
use devices::pci::InterruptPorts;
use devices::pci_testdev::PciTestdev;
use devices::testing::{FakeClock, RecordingMsi, RecordingPin, RecordingPower, VecDma};

/// The first byte chooses.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => root_complex(&mut input),
        1 => exercise::<PowerSubject>(&mut input),
        _ => exercise::<FwCfgSubject>(&mut input),
    }
}

fn root_complex(input: &mut Input<'_>) {
    let mut root = RootComplex::new(Box::new(RecordingPower::new()));
    let ports = InterruptPorts { pin: Box::new(RecordingPin::new()), msi: Box::new(RecordingMsi::new()) };
    let slot = Slot { device: 3, function: 0 };
    assert!(root.plug(slot, Box::new(PciTestdev::new(ports))).is_ok());
    while !input.is_empty() {
        let operation = input.byte();
        let size = 1 << ((operation >> 4) % 3);
        match operation & 0x0f {
            0..=3 => {
                root.port_write(0xcf8 + input.below(8) as u16, size, input.number(size) as u32);
            }
            4 => {
                root.port_read(0xcf8 + input.below(8) as u16, size);
            }
            5 => {
                root.port_write(0xcf8, 4, 0x8000_0000 | input.number(2) as u32);
            }
            6..=8 => {
                let offset = input.number(4);
                root.ecam_write(offset, size, input.number(size));
                root.ecam_read(offset, size);
            }
            9 => {
                let (device, pin, level) = (input.byte(), input.byte(), operation & 0x80 != 0);
                root.set_interrupt(device & 31, pin & 3, level);
            }
            10 => {
                let _ = root.decoded();
            }
            11 => {
                let slot = Slot { device: input.byte() & 31, function: input.byte() & 7 };
                let (region, offset) = (input.byte(), input.number(3));
                root.write(slot, region, offset, size, input.number(size));
                root.read(slot, region, offset, size);
            }
            12 => {
                let state = root.save();
                root.restore(&state);
                assert_eq!(root.save(), state, "a snapshot does not hold all of the state");
            }
            13 if operation >> 4 == 0 => root.reset(),
            _ => {}
        }
    }
}

struct PowerSubject;

impl Subject for PowerSubject {
    type Device = PowerManagement;
    type State = PowerManagementState;
    const REGIONS: &'static [(Region, u64)] = &[(0, 128), (1, 2), (0, 12)];

    fn build(clock: &FakeClock) -> PowerManagement {
        PowerManagement::new(Box::new(clock.clone()), Box::new(RecordingPin::new()), Box::new(RecordingPower::new()))
    }

    fn save(device: &PowerManagement) -> PowerManagementState {
        device.save()
    }

    fn restore(device: &mut PowerManagement, state: &PowerManagementState) {
        device.restore(state);
    }

    fn outside(device: &mut PowerManagement, _input: &mut Input<'_>) {
        device.press_power_button();
    }
}

struct FwCfgSubject;

impl Subject for FwCfgSubject {
    type Device = FwCfg;
    type State = FwCfgState;
    const REGIONS: &'static [(Region, u64)] = &[(0, 12), (0, 2)];

    fn build(_clock: &FakeClock) -> FwCfg {
        let mut items = Items::new();
        items.set(8, b"kernel");
        items.add_file("etc/some", vec![1; 5000]).expect("a short name");
        // Requests that are nearly in order, at each multiple of 16.
        let memory = (0..0x4000_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8 & 0x1f).collect();
        FwCfg::new(items, Box::new(VecDma::with_contents(memory)))
    }

    fn save(device: &FwCfg) -> FwCfgState {
        device.save()
    }

    fn restore(device: &mut FwCfg, state: &FwCfgState) {
        device.restore(state);
    }
}
