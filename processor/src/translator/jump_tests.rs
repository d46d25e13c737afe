//! Jumps to other pages, by both engines, while those pages change.

use super::both::{DATA, Mode, machine};
use crate::run::Activity;
use crate::testing::{Machine, PAGE_TABLES};

/// Linear pages: of the caller, of what it calls, and the one after that.
const CALLER: u64 = 0x20_0000;
const CALLED: u64 = 0x20_1000;
const AFTER: u64 = 0x20_2000;
/// What is called in one page, and what reaches into the next one.
const ONE_PAGE: u64 = CALLED + 0x123;
const TWO_PAGES: u64 = CALLED + 0xffe;
/// Rounds of a run, with two calls each.
const ROUNDS: u64 = 4;

/// The page-table entry of a linear page.
fn entry(linear: u64) -> u64 {
    PAGE_TABLES + 0x3000 + (linear >> 12 & 511) * 8
}

/// Code that stores R9B to [R8] and RSI to [RDI], invalidates the page of RDX, and calls `target` directly and by RBX, which must be the same.
fn caller(target: u64) -> Vec<u8> {
    // mov [r8], r9b; mov [rdi], rsi; invlpg [rdx]; mov ecx, ROUNDS; then the calls, dec ecx; jnz; hlt.
    let mut code = vec![0x45, 0x88, 0x08, 0x48, 0x89, 0x37, 0x0f, 0x01, 0x3a, 0xb9, ROUNDS as u8, 0, 0, 0, 0xe8];
    code.extend((target as u32).wrapping_sub((CALLER as usize + code.len() + 4) as u32).to_le_bytes());
    code.extend([0xff, 0xd3, 0xff, 0xc9, 0x75, 0xf5, 0xf4]);
    code
}

/// A machine with [`CALLER`] at 0xa000, [`CALLED`] at 0x1_0000 and [`AFTER`] at 0x1_2000. What is called adds to RAX: in one page 1 (at 0x1_0000) or
/// 0x100 (at 0x1_1000), in two pages what is in the second one, 0x1_0000 (at 0x1_2000) or 0x100_0000 (at 0x1_3000).
fn prepared(translator: bool, target: u64) -> Machine {
    let mut machine = machine(Mode::Long64, translator);
    machine.store(PAGE_TABLES + 0x2008, 8, (PAGE_TABLES + 0x3000) | 7);
    for (linear, page) in [(CALLER, 0xa000), (CALLED, 0x1_0000), (AFTER, 0x1_2000)] {
        machine.store(entry(linear), 8, page | 7);
    }
    machine.write(0xa000, &caller(target));
    for (page, number) in [(0x1_0000u64, 1u32), (0x1_1000, 0x100)] {
        // add rax, number; ret. At the end of the page add rax, … begins.
        machine.write(page + 0x123, &[&[0x48, 0x05], &number.to_le_bytes()[..], &[0xc3]].concat());
        machine.write(page + 0xffe, &[0x48, 0x05]);
    }
    for (page, number) in [(0x1_2000u64, 0x1_0000u32), (0x1_3000, 0x100_0000)] {
        machine.write(page, &[&number.to_le_bytes()[..], &[0xc3]].concat());
    }
    machine
}

/// Runs the caller: the byte is stored there, and the linear page is in that page of RAM from then on. Gives what each call added.
fn run(machine: &mut Machine, target: u64, (byte, at): (u8, u64), (linear, page): (u64, u64)) -> u64 {
    machine.cpu.activity_resumes();
    machine.cpu.rip = CALLER;
    let regs = &mut machine.cpu.regs;
    (regs[0], regs[4], regs[3]) = (0, DATA + 0x800, target);
    (regs[8], regs[9], regs[7], regs[6], regs[2]) = (at, u64::from(byte), entry(linear), page | 7, linear);
    assert_eq!(machine.run_to_halt(200), Activity::Halted);
    let sum = machine.cpu.regs[0];
    assert_eq!(sum % (2 * ROUNDS), 0);
    sum / (2 * ROUNDS)
}

const NOTHING: (u8, u64) = (0, DATA);

#[test]
fn a_page_that_is_exchanged_is_the_new_one_for_every_jump() {
    for translator in [false, true] {
        let mut machine = prepared(translator, ONE_PAGE);
        for (page, number) in [(0x1_0000, 1), (0x1_1000, 0x100), (0x1_0000, 1), (0x1_1000, 0x100)] {
            assert_eq!(run(&mut machine, ONE_PAGE, NOTHING, (CALLED, page)), number);
            assert_eq!(run(&mut machine, ONE_PAGE, NOTHING, (CALLED, page)), number);
        }
    }
}

#[test]
fn what_reaches_into_a_second_page_takes_the_one_that_is_there() {
    for translator in [false, true] {
        let mut machine = prepared(translator, TWO_PAGES);
        for (page, number) in [(0x1_2000, 0x1_0000), (0x1_3000, 0x100_0000), (0x1_2000, 0x1_0000)] {
            assert_eq!(run(&mut machine, TWO_PAGES, NOTHING, (AFTER, page)), number);
            assert_eq!(run(&mut machine, TWO_PAGES, NOTHING, (AFTER, page)), number);
        }
        assert_eq!(run(&mut machine, TWO_PAGES, NOTHING, (CALLED, 0x1_1000)), 0x1_0000);
        assert_eq!(run(&mut machine, TWO_PAGES, NOTHING, (AFTER, 0x1_3000)), 0x100_0000);
    }
}

#[test]
fn code_that_is_written_to_is_the_new_one_for_every_jump() {
    for translator in [false, true] {
        let mut machine = prepared(translator, ONE_PAGE);
        for byte in [1, 2, 3] {
            let store = (byte, 0x1_0125);
            assert_eq!(run(&mut machine, ONE_PAGE, store, (CALLED, 0x1_0000)), u64::from(byte));
            assert_eq!(run(&mut machine, ONE_PAGE, NOTHING, (CALLED, 0x1_0000)), u64::from(byte));
        }
        let mut machine = prepared(translator, TWO_PAGES);
        for byte in [0, 2, 3] {
            let number = 0x1_0000 + u64::from(byte);
            assert_eq!(run(&mut machine, TWO_PAGES, (byte, 0x1_2000), (CALLED, 0x1_0000)), number);
            assert_eq!(run(&mut machine, TWO_PAGES, NOTHING, (CALLED, 0x1_0000)), number);
        }
    }
}

#[test]
fn when_all_translations_are_dropped_pages_have_other_numbers() {
    let mut machine = prepared(true, ONE_PAGE);
    for (page, number) in [(0x1_0000, 1), (0x1_1000, 0x100), (0x1_0000, 1)] {
        assert_eq!(run(&mut machine, ONE_PAGE, NOTHING, (CALLED, page)), number);
        machine.code.drop_translations();
        // Other pages come first then.
        for target in [TWO_PAGES, ONE_PAGE] {
            machine.write(0xa000, &caller(target));
            let number = if target == TWO_PAGES { 0x1_0000 } else { number };
            assert_eq!(run(&mut machine, target, NOTHING, (AFTER, 0x1_2000)), number);
        }
    }
}

/// The state block of the running code, after both jumps: what is voided is not found any more.
#[test]
fn a_range_of_pages_is_forgotten() {
    let mut machine = prepared(true, ONE_PAGE);
    assert_eq!(run(&mut machine, ONE_PAGE, NOTHING, (CALLED, 0x1_0000)), 1);
    machine.store(entry(CALLED), 8, 0x1_1000 | 7);
    let context = machine.cpu.tlb.context_number();
    machine.cpu.tlb.native.as_mut().unwrap().forget_range(context, CALLER, !0x1f_ffff);
    let index = super::block_index(context, machine.cpu.tlb.class(), super::Width::Long64);
    let state = machine.cpu.tlb.native.as_mut().unwrap().get(index);
    for linear in [CALLER, CALLED] {
        assert_eq!(state.place(linear), super::jumps::place(linear, super::jumps::NONE));
    }
}
