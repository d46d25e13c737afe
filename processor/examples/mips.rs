use processor::apic::InterruptMessage;
use processor::*;
use std::sync::Arc;
struct Null;
impl Bus for Null {
    fn read(&mut self, _: u64, _: u64, _: u8) -> u64 {
        0
    }
    fn write(&mut self, _: u64, _: u64, _: u8, _: u64) {}
    fn io_read(&mut self, _: u64, _: u16, _: u8) -> u32 {
        0
    }
    fn io_write(&mut self, _: u64, _: u16, _: u8, _: u32) {}
    fn send_interrupt(&mut self, _: u64, _: InterruptMessage) {}
    fn end_of_interrupt(&mut self, _: u64, _: u8) {}
    fn acknowledge_external(&mut self, _: u64) -> u8 {
        0
    }
    fn needs_service(&self) -> bool {
        false
    }
}
fn main() {
    let ram = Arc::new(GuestRam::new(64 << 20));
    let map =
        Arc::new(MemoryMap { regions: vec![MemoryRegion { base: 0, length: 64 << 20, offset: 0, writable: true }] });
    // identity 2M pages at 0x1000..
    ram.write(0x1000, &(0x2003u64).to_le_bytes());
    ram.write(0x2000, &(0x3003u64).to_le_bytes());
    for i in 0..512u64 {
        ram.write(0x3000 + 8 * i, &((i << 21) | 0x83).to_le_bytes());
    }
    let mut cpu = Cpu::new(0, ram.clone(), map, Box::new(Null));
    cpu.cr3 = 0x1000;
    cpu.cr4 = 0x20;
    cpu.cr0 = 0x80000011;
    cpu.efer = 0x500;
    cpu.segs[1].access = 0xa09b;
    cpu.segs[1].base = 0;
    cpu.rip = 0x10000;
    cpu.regs[4] = 0x80000;
    cpu.mode_changed();
    let which = std::env::args().nth(1).unwrap_or("loop".into());
    let code: &[u8] = match which.as_str() {
        // table crc-like: xor eax,[rsi]; mov ecx,eax ; and ecx,0xff; mov eax,[rdi+rcx*4]; add rsi,4; and rsi,0xffff|0x100000 ; dec edx ; jnz
        "mem" => &[
            0x33, 0x06, 0x89, 0xc1, 0x81, 0xe1, 0xff, 0, 0, 0, 0x8b, 0x04, 0x8f, 0x48, 0x83, 0xc6, 0x04, 0x48, 0x81,
            0xe6, 0xff, 0xff, 0x0f, 0, 0xff, 0xca, 0x75, 0xe4,
        ],
        // add rax,rbx; lea rcx,[rax+rbx*2]; xor rbx,rcx; sub rdx,1; jnz
        _ => &[0x48, 0x01, 0xd8, 0x48, 0x8d, 0x0c, 0x58, 0x48, 0x31, 0xcb, 0x48, 0x83, 0xea, 0x01, 0x75, 0xf0],
    };
    ram.write(0x10000, code);
    cpu.regs[6] = 0x20000;
    cpu.regs[7] = 0x40000;
    cpu.regs[2] = u64::MAX >> 1;
    cpu.regs[3] = 3;
    let mut cc = CodeCache::new(|_| true);
    let t = std::time::Instant::now();
    let e = cpu.run(&mut cc, 300_000_000);
    println!(
        "{which} {e:?} {} insns rip {:x} {:.0} MIPS",
        cpu.instructions,
        cpu.rip,
        cpu.instructions as f64 / t.elapsed().as_secs_f64() / 1e6
    );
}
