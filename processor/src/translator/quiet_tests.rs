//! The forms for hosts without BMI2: no flag is lost in what is emitted between the guest's instructions.

use super::Tuning;
use super::both::{CODE, Mode, machine};
use crate::flags::LateFlags;

/// Where bits before it are not code.
const DATA: u64 = super::both::DATA + 0x100;

#[test]
fn flags_outlive_what_is_emitted_without_bmi2() {
    if !super::supported() {
        return;
    }
    #[rustfmt::skip]
    let code = [
        0x48, 0x89, 0x06,                         // mov [rsi], rax
        0x48, 0x8b, 0x5e, 8,                      // mov rbx, [rsi + 8]
        0x50,                                     // push rax
        0xe8, 0, 0, 0, 0,                         // call the next
        0x9c,                                     // pushfq
        0x48, 0x0f, 0xab, 0x06,                   // bts [rsi], rax
        0x0f, 0x92, 0xc2,                         // setb dl
        0x48, 0xd3, 0xe3,                         // shl rbx, cl
        0x48, 0x13, 0x1e,                         // adc rbx, [rsi]
        0x9c, 0xf4,                               // pushfq; hlt
    ];
    let tuning = Tuning { threshold: 1, without_bmi2: true, ..Tuning::default() };
    let (mut plain, mut translating) = (machine(Mode::Long64, false), machine(Mode::Long64, false));
    assert!(translating.code.use_tuned_translator(tuning) && translating.cpu.use_translator());
    for machine in [&mut plain, &mut translating] {
        machine.write(CODE, &code);
    }
    for flags in [0, 1, 4, 0x10, 0x40, 0x80, 0x800, 0x8d5, 0x841, 0x94] {
        for number in [0, 3, 64, u64::MAX] {
            let run = |machine: &mut crate::testing::Machine| {
                machine.store(DATA, 8, 0);
                machine.store(DATA + 8, 8, 0xf000_0000_0000_000f);
                machine.cpu.activity_resumes();
                let cpu = &mut machine.cpu;
                (cpu.rip, cpu.regs[4], cpu.regs[6]) = (CODE, 0x7000, DATA);
                (cpu.regs[0], cpu.regs[1], cpu.regs[2]) = (number, number & 3, 0);
                cpu.flags = LateFlags::from_bits(flags);
                machine.run_to_halt(100);
                let stack = [0x6fe0, 0x6fe8, 0x6ff0, 0x6ff8].map(|at| machine.load(at, 8));
                (machine.cpu.rip, machine.cpu.regs[..16].to_vec(), stack, machine.load(DATA, 8))
            };
            assert_eq!(run(&mut plain), run(&mut translating), "flags {flags:#x}, {number}");
        }
    }
    let translator = translating.code.translator.as_ref().unwrap();
    let interpreted = translator.interpreted();
    assert!(interpreted < 16, "{interpreted} operations: PUSHF and HLT alone are the interpreter's");
}
