//! MSR bitmaps and I/O bitmaps (SDM Vol. 3C, 25.6.4 and 25.6.9).

/// Where the bit for an access to MSR `number` lies in the 4-KiB MSR bitmap: byte offset and bit. `None`: the access always exits.
#[must_use]
pub const fn msr_bit(number: u32, write: bool) -> Option<(u64, u32)> {
    let half = match number {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x400,
        _ => return None,
    };
    let write = if write { 0x800 } else { 0 };
    let low = number & 0x1fff;
    Some((half + write + (low >> 3) as u64, low & 7))
}

/// The bits for the `size` ports from `port`: for each, whether it is in bitmap B, the byte offset, and the bit. `None` when the
/// access wraps around port FFFFH, which always exits.
#[must_use]
pub fn io_bits(port: u16, size: u8) -> Option<impl Iterator<Item = (bool, u64, u32)>> {
    let last = port.checked_add(u16::from(size.max(1)) - 1)?;
    Some((port..=last).map(|p| (p & 0x8000 != 0, u64::from(p & 0x7fff) >> 3, u32::from(p) & 7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_parts_of_the_msr_bitmap() {
        assert_eq!(msr_bit(0x10, false), Some((2, 0)));
        assert_eq!(msr_bit(0xc000_0080, false), Some((0x410, 0)));
        assert_eq!(msr_bit(0x1b, true), Some((0x803, 3)));
        assert_eq!(msr_bit(0xc000_1fff, true), Some((0xfff, 7)));
        assert_eq!(msr_bit(0x2000, false), None);
        assert_eq!(msr_bit(0x4000_0000, true), None);
    }

    #[test]
    fn ports_of_both_io_bitmaps() {
        let bits = |port, size| io_bits(port, size).map(Iterator::collect::<Vec<_>>);
        assert_eq!(bits(0x7fff, 2), Some(vec![(false, 0xfff, 7), (true, 0, 0)]));
        assert_eq!(bits(0xfffe, 4), None);
        assert_eq!(bits(0xffff, 1), Some(vec![(true, 0xfff, 7)]));
    }
}
