//! Two guests that exchange frames by their virtio network cards: "send" sends so many of the full length, each by itself, and waits now
//! and then for word of the other, "receive" counts them. With one frame in each notification this is the dearest way to send them.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![allow(unsafe_code, reason = "memory is known by address here")]
#![cfg_attr(not(panic = "abort"), allow(dead_code, unused_imports, reason = "there is nothing to run"))]

extern crate alloc;

use alloc::boxed::Box;
use bare::heap::Heap;
use bare::{cpu, device, exceptions, memory, multiboot, pci, println};
use hypervisor::memory::{GuestMemory, Page, Pages, RegisterPage};
use hypervisor::nic::{Function, Nic};

bare::program!(run, "`vanderpool run` runs it");

const FRAMES: u32 = 4000;
/// Frames between two words of the receiver: fewer than wait for a guest before they are dropped.
const WINDOW: u32 = 16;
const LENGTH: usize = 1514;
/// An Ethernet type for experiments (IEEE 802, 9.2.3).
const TYPE: [u8; 2] = [0x88, 0xb5];
const VECTOR: u8 = 0x50;

#[cfg_attr(panic = "abort", global_allocator)]
static HEAP: Heap = Heap::empty();

struct OfMachine(pci::Function);

impl Function for OfMachine {
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.0.config_read(offset, size)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.0.config_write(offset, size, value);
    }
    fn read(&self, address: u64, size: u8) -> u32 {
        device::read(address, size)
    }
    fn write(&self, address: u64, size: u8, value: u32) {
        device::write(address, size, value);
    }
}

/// Pages of the pool.
struct Pool;

impl Pages for Pool {
    fn page(&self) -> Option<&'static Page> {
        // SAFETY: a zeroed page that nobody else has, of atomics only.
        Some(unsafe { &*(memory::take_pages(1) as *const Page) })
    }
    fn register_page(&self) -> Option<&'static RegisterPage> {
        // SAFETY: as above.
        Some(unsafe { &*(memory::take_pages(1) as *const RegisterPage) })
    }
    fn guest_memory(&self, _: u64) -> Option<Box<dyn GuestMemory>> {
        None
    }
}

/// The next frame; waits for its interrupt.
fn next(nic: &mut Nic) -> alloc::vec::Vec<u8> {
    loop {
        let seen = exceptions::interrupts(VECTOR);
        if let Some(frame) = nic.receive() {
            return frame;
        }
        if exceptions::interrupts(VECTOR) == seen {
            cpu::wait_for_interrupt();
        }
    }
}

fn run() -> ! {
    const HEAP_PAGES: usize = 16;
    // SAFETY: pages of the pool that nobody else has.
    unsafe { HEAP.set_up(memory::take_pages(HEAP_PAGES), HEAP_PAGES as u64 * memory::PAGE) };
    memory::write_apic(0xf0, 0x1ff);
    let function = pci::Function::all().map(OfMachine).find(|function| Nic::is_one(function));
    let Some(function) = function else {
        println!("there is no network card");
        cpu::end(1)
    };
    let mut nic = match Nic::start(Box::new(function), &Pool, Some((0xfee0_0000, VECTOR.into()))) {
        Ok(nic) => nic,
        Err(why) => {
            println!("the network card: {why}");
            cpu::end(1)
        }
    };
    let mut frame = [0; LENGTH];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&nic.mac);
    frame[12..14].copy_from_slice(&TYPE);
    if multiboot::command_line_has("send") {
        // The receiver's first word tells that it is there, and its address.
        let other = next(&mut nic);
        frame[..6].copy_from_slice(&other[6..12]);
        for n in 0..FRAMES {
            while !nic.send(&frame) {
                core::hint::spin_loop();
            }
            if (n + 1) % WINDOW == 0 {
                next(&mut nic);
            }
        }
        println!("{FRAMES} frames of {LENGTH} bytes sent");
    } else {
        nic.send(&frame[..60]);
        for n in 0..FRAMES {
            let came = next(&mut nic);
            if (n + 1) % WINDOW == 0 {
                frame[..6].copy_from_slice(&came[6..12]);
                nic.send(&frame[..60]);
            }
        }
        println!("{FRAMES} frames received");
    }
    cpu::end(0)
}
