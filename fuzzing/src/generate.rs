//! Seeded inputs for the bounded part of the fuzzing that every test run does. libFuzzer makes better ones, but not the
//! same ones each time.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }
}

/// Values at which code tends to break.
const EDGES: [u64; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX >> 1, u64::MAX];

/// Input number `index`: noise, noise of few values, or one of `seeds` with some changes.
pub fn input(random: &mut Random, seeds: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut data = match random.below(4) {
        choice @ 0..=2 if choice > 0 && !seeds.is_empty() => seeds[random.below(seeds.len() as u64) as usize].clone(),
        choice => {
            let length = random.below(longest as u64 + 1) as usize;
            let mask = if choice == 0 { 0x07 } else { 0xff };
            (0..length).map(|_| (random.draw() >> 32) as u8 & mask).collect()
        }
    };
    for _ in 0..random.below(8) {
        mutate(random, &mut data);
    }
    data
}

fn mutate(random: &mut Random, data: &mut Vec<u8>) {
    if data.is_empty() {
        data.push(random.draw() as u8);
        return;
    }
    let at = random.below(data.len() as u64) as usize;
    match random.below(6) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = random.draw() as u8,
        2 => data.truncate(at),
        3 => {
            let end = (at + 1 + random.below(16) as usize).min(data.len());
            let to = random.below((data.len() - (end - at) + 1) as u64) as usize;
            data.copy_within(at..end, to);
        }
        _ => {
            let bytes = EDGES[random.below(EDGES.len() as u64) as usize].to_le_bytes();
            let width = 1 << random.below(4);
            for (to, from) in data[at..].iter_mut().zip(&bytes[..width]) {
                *to = *from;
            }
        }
    }
}
