//! The whole board: a guest's program of accesses to ports, memory-mapped I/O and configuration space, with time passing,
//! interrupts and the memory that devices reach. All devices are there at once and meet as they do in a machine.

use crate::input::Input;
use devices::network::NetworkBackend;
use devices::ports::{Discard, Nanoseconds};
use devices::storage::MemoryStorage;
use machine::{Boot, Config, Console, Disk, Machine, NoHost, Outcome, Sata, TestDevices};

/// Where the program is loaded.
const PROGRAM: u32 = 0x10_0000;
/// Memory for queues, command lists and buffers.
const ARENA: u32 = 0x20_0000;
const MEMORY: u64 = 4 << 20;
/// Instructions that one input may take.
const INSTRUCTIONS: u64 = 20_000;

/// Ports of the devices: the first and how many.
const PORTS: [(u16, u8); 22] = [
    (0x00, 0x10),
    (0x20, 2),
    (0xa0, 2),
    (0x4d0, 2),
    (0x40, 4),
    (0x60, 8),
    (0x70, 8),
    (0x80, 16),
    (0x92, 1),
    (0xb2, 2),
    (0xe0, 16),
    (0xf4, 4),
    (0x2f8, 8),
    (0x3f8, 8),
    (0x402, 1),
    (0x510, 12),
    (0x600, 0x80),
    (0xcf8, 8),
    (0x700, 0x40),
    (0x2000, 0x18),
    (0xc000, 0xff),
    (0xc100, 0xff),
];

/// Registers in memory that are always at the same place: the first and how many bytes.
const REGISTERS: [(u32, u32); 6] = [
    (0xfec0_0000, 0x50),
    (0xfed0_0000, 0x400),
    (0xfee0_0000, 0x400),
    (0xfed1_c000, 0x4000),
    (0xff00_0000, 0x1_0000),
    (0xb000_0000, 0x100_0000),
];

/// Devices on the bus, as `device << 3 | function`.
const FUNCTIONS: [u8; 9] = [0, 1 << 3, 2 << 3, 3 << 3, 4 << 3, 5 << 3, 31 << 3, 31 << 3 | 2, 31 << 3 | 3];

/// A network that sends back what it gets, up to a bound.
#[derive(Default)]
struct Echo {
    frames: Vec<Vec<u8>>,
}

impl NetworkBackend for Echo {
    fn send(&mut self, frame: &[u8]) {
        if self.frames.len() < 32 {
            self.frames.push(frame.to_vec());
        }
    }

    fn poll(&mut self, _now: Nanoseconds) -> Option<Vec<u8>> {
        self.frames.pop()
    }

    fn waiting_for_host(&self) -> bool {
        false
    }
}

/// 32-bit machine code, put together by the few forms that are needed.
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// An opcode and an immediate of four bytes.
    fn long(&mut self, opcode: u8, value: u32) {
        self.put(&[opcode]);
        self.put(&value.to_le_bytes());
    }

    /// `out` of `value`, or `in`, by DX.
    fn port(&mut self, port: u16, size: u8, value: Option<u32>) {
        self.long(0xba, port.into());
        if let Some(value) = value {
            self.long(0xb8, value);
        }
        let opcode = if value.is_some() { 0xee } else { 0xec };
        match size {
            1 => self.put(&[opcode]),
            2 => self.put(&[0x66, opcode | 1]),
            _ => self.put(&[opcode | 1]),
        }
    }

    /// A store of `value` to, or a load from, the address in EBX plus `offset`.
    fn memory(&mut self, offset: u32, size: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.long(0xb8, value);
        }
        let opcode = if value.is_some() { 0x88 } else { 0x8a };
        match size {
            1 => self.put(&[opcode]),
            2 => self.put(&[0x66, opcode | 1]),
            _ => self.put(&[opcode | 1]),
        }
        self.long(0x83, offset);
    }

    /// EBX becomes the base of BAR `bar` of `function`.
    fn load_bar(&mut self, function: u8, bar: u8) {
        self.port(0xcf8, 4, Some(1 << 31 | u32::from(function) << 8 | (0x10 + 4 * u32::from(bar))));
        self.port(0xcfc, 4, None);
        // and al, 0xf0; mov ebx, eax
        self.put(&[0x24, 0xf0, 0x89, 0xc3]);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let size = [1, 2, 4, 4][usize::from(operation >> 4 & 3)];
        let write = operation & 0x80 == 0;
        let value = |input: &mut Input<'_>| write.then(|| input.number(size) as u32);
        match operation & 0x0f {
            0..=2 => {
                let (base, length) = PORTS[usize::from(input.byte()) % PORTS.len()];
                let port = base + u16::from(input.byte()) % u16::from(length);
                let value = value(input);
                self.port(port, size, value);
            }
            3 => {
                let port = input.number(2) as u16;
                let value = value(input);
                self.port(port, size, value);
            }
            4 | 5 => {
                let function = FUNCTIONS[usize::from(input.byte()) % FUNCTIONS.len()];
                let register = u32::from(input.byte());
                self.port(0xcf8, 4, Some(1 << 31 | u32::from(function) << 8 | register & 0xfc));
                let value = value(input);
                self.port(0xcfc + (register & 3) as u16, size, value);
            }
            6..=8 => {
                let function = FUNCTIONS[usize::from(input.byte()) % FUNCTIONS.len()];
                let bar = input.byte();
                self.load_bar(function, bar % 6);
                let offset = if bar & 0x80 != 0 { input.number(2) as u32 } else { input.number(1) as u32 };
                let value = value(input);
                self.memory(offset, size, value);
            }
            9 => {
                let (base, length) = REGISTERS[usize::from(input.byte()) % REGISTERS.len()];
                self.long(0xbb, base);
                let offset = input.number(3) as u32 % length;
                let value = value(input);
                self.memory(offset, size, value);
            }
            10 => {
                self.long(0xbb, input.number(4) as u32);
                let value = value(input);
                self.memory(0, size, value);
            }
            11 => {
                // Something for devices to find.
                let address = ARENA + (input.number(2) as u32 & 0xfff0);
                self.long(0xbb, address);
                for index in 0..4 {
                    let value = input.number(4) as u32;
                    self.memory(4 * index, 4, Some(value));
                }
            }
            12 => {
                // mov ecx, n; loop $
                self.long(0xb9, 1 + input.byte() as u32);
                self.put(&[0xe2, 0xfe]);
            }
            // sti; hlt; cli
            13 => self.put(&[0xfb, 0xf4, 0xfa]),
            14 => self.put(&[0xfb, 0x90, 0xfa]),
            // A message to itself: interrupt, NMI, INIT or SIPI, by the local APIC.
            _ => {
                self.long(0xbb, 0xfee0_0000);
                self.memory(0x300, 4, Some(u32::from(input.byte()) | 0x4_4000 | u32::from(operation >> 4 & 7) << 8));
            }
        }
    }
}

/// The image: a multiboot header with addresses, an interrupt table, and the program made of the input.
fn image(input: &mut Input<'_>) -> Vec<u8> {
    const HEADER: usize = 48;
    const HANDLER: u32 = PROGRAM + HEADER as u32;
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0003_u32);
    let entry = HANDLER + 0x20;
    let header = [magic, flags, 0_u32.wrapping_sub(magic).wrapping_sub(flags), PROGRAM, PROGRAM, 0, 0, entry];
    let mut program = Program::default();
    for word in header {
        program.put(&word.to_le_bytes());
    }
    program.0.resize(HEADER, 0);
    // The handler of every interrupt: mov dword [0xfee000b0], 0; iret.
    program.put(&[0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0xcf]);
    program.0.resize(HEADER + 0x20, 0x90);
    // A stack; 256 gates at the arena's end, made by a loop; and the local APIC on.
    program.long(0xbc, ARENA);
    let gates = ARENA + 0x1_0000;
    program.long(0xbf, gates);
    program.long(0xb9, 256);
    // mov eax, low; mov [edi], eax; mov dword [edi + 4], high; add edi, 8; loop
    let low = HANDLER & 0xffff | 0x8 << 16;
    let high = HANDLER & 0xffff_0000 | 0x8e00;
    program.put(&[0xc7, 0x07]);
    program.put(&low.to_le_bytes());
    program.put(&[0xc7, 0x47, 0x04]);
    program.put(&high.to_le_bytes());
    program.put(&[0x83, 0xc7, 0x08, 0xe2, 0xee]);
    // sub esp, 8; mov word [esp], limit; mov dword [esp + 2], gates; lidt [esp]
    program.put(&[0x83, 0xec, 0x08, 0x66, 0xc7, 0x04, 0x24, 0xff, 0x07, 0xc7, 0x44, 0x24, 0x02]);
    program.put(&gates.to_le_bytes());
    program.put(&[0x0f, 0x01, 0x1c, 0x24]);
    program.long(0xbb, 0xfee0_0000);
    program.memory(0xf0, 4, Some(0x1ff));
    while !input.is_empty() {
        program.step(input);
    }
    // hlt, for ever; as interrupts are off, that ends the run.
    program.put(&[0xfa, 0xf4, 0xeb, 0xfc]);
    program.0
}

fn build(kernel: Vec<u8>, processors: usize) -> Machine {
    let mut config = Config::new(Boot::Direct {
        name: "program".into(),
        kernel,
        initrd: None,
        initrd_name: String::new(),
        command_line: String::new(),
    });
    let disk = |serial: &str| Disk { storage: Box::new(MemoryStorage::new(1 << 16)), serial: serial.into() };
    config.processors = processors;
    config.memory = MEMORY;
    config.network = Some(Box::new(Echo::default()));
    config.disks = vec![disk("virtio")];
    config.sata = vec![Sata::Disk(disk("sata")), Sata::Optical(disk("cd"))];
    config.serial = vec![Box::new(Discard), Box::new(Discard)];
    config.console = Some(Console { output: Box::new(Discard), size: (80, 25) });
    config.test_devices = TestDevices::ALL;
    config.edu = vec![devices::edu::DEFAULT_DMA_MASK];
    Machine::new(config)
        .expect("the configuration is the same each time, and a multiboot image of any length is loaded")
}

/// The first byte gives the number of processors and where the run is cut, the rest the program. From the cut on the machine goes on itself, or
/// another one does from its state; either must end as one does that was not cut.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let processors = 1 + usize::from(choice & 1);
    let kernel = image(&mut input);
    let mut whole = build(kernel.clone(), processors);
    let outcome = whole.run(&mut NoHost, Some(INSTRUCTIONS));
    let mut parts = build(kernel.clone(), processors);
    let first = parts.run(&mut NoHost, Some(u64::from(choice >> 2) * INSTRUCTIONS / 64));
    if first == Outcome::InstructionLimit {
        if choice & 2 != 0 {
            let mut copy = build(kernel, processors);
            let (state, memory) = (parts.save(), parts.save_memory());
            assert!(
                copy.restore(&state, &memory).is_ok(),
                "the state is refused by a machine like the one that saved it"
            );
            assert_eq!(copy.save(), state, "a state is not what it was after being restored");
            parts = copy;
        }
        assert_eq!(parts.run(&mut NoHost, Some(INSTRUCTIONS)), outcome);
    } else {
        assert_eq!(first, outcome);
    }
    assert_eq!(parts.save(), whole.save());
    assert_eq!(parts.digest(), whole.digest());
}
