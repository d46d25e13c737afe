//! A program that computes and does nothing else, for the same on the machine itself and in a guest: what a second level costs. A number on
//! its command line is how long, in rounds.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]
#![cfg_attr(not(panic = "abort"), allow(dead_code, unused_imports, reason = "there is nothing to run"))]

use bare::{cpu, memory, multiboot, println};

bare::program!(run, "`vanderpool run` runs it");

const PAGES: usize = 64;
const WORDS: u64 = PAGES as u64 * memory::PAGE / 8;
/// Without a number.
const ROUNDS: u64 = 120;

/// Fills the words with random numbers, sieves their indices, and adds them up in an order that depends on them.
fn round(start: u64, seed: u64) -> u64 {
    let mut random = seed | 1;
    for n in 0..WORDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        memory::write(start + 8 * n, random);
    }
    let mut step = 2;
    while step * step < WORDS {
        for n in (step * step..WORDS).step_by(step as usize) {
            memory::write(start + 8 * n, memory::read(start + 8 * n).rotate_left(step as u32));
        }
        step += 1;
    }
    let (mut at, mut sum) = (0, 0u64);
    for _ in 0..WORDS {
        let word = memory::read(start + 8 * at);
        sum = sum.wrapping_add(word) ^ at;
        at = word % WORDS;
    }
    sum
}

fn run() -> ! {
    let start = memory::take_pages(PAGES);
    let rounds = multiboot::numbers().next().unwrap_or(ROUNDS);
    println!("compute begins");
    let sum = (0..rounds).fold(0, |sum: u64, seed| sum.wrapping_add(round(start, seed)));
    println!("compute ends with {sum:#x}");
    cpu::end(0)
}
