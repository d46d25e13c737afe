//! What CPUID returns (SDM vol. 2, CPUID).

use super::frequency::{CRYSTAL_HZ, TSC_HZ};
use super::{Model, msrs};
use spec::x86::control_registers::Xcr0;
use spec::x86::cpuid::{Feature, Register, leaf};
use spec::x86::msr::MiscEnable;

/// EAX, EBX, ECX and EDX.
pub type CpuidResult = [u32; 4];

/// The state of processor and machine that CPUID shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidContext {
    /// Initial APIC id of this processor; ids are dense from 0.
    pub apic_id: u32,
    /// Number of processors of the machine: cores of one package, one thread each.
    pub processors: u32,
    /// IA32_APIC_BASE.EN.
    pub apic_enabled: bool,
    /// In 64-bit mode: elsewhere SYSCALL is not announced.
    pub in_64_bit_mode: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub ospke: bool,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
}

/// Size of the legacy region and header of an XSAVE area.
const XSAVE_BASE_SIZE: u32 = 576;

/// One extended state component: its bit, offset in the standard format (0 for supervisor components, which are not in it), and size
/// (SDM vol. 1, 13.4 and 13.5).
const XSAVE_COMPONENTS: [(u64, u32, u32); 4] =
    [(Xcr0::AVX, 576, 256), (Xcr0::PKRU, 2688, 8), (Xcr0::CET_U, 0, 16), (Xcr0::CET_S, 0, 24)];

/// Bytes of an XSAVE area in the standard format with these components.
fn standard_size(components: u64) -> u32 {
    XSAVE_COMPONENTS
        .iter()
        .filter(|(bit, ..)| components & bit != 0)
        .map(|(_, offset, size)| offset + size)
        .max()
        .unwrap_or(XSAVE_BASE_SIZE)
}

/// Bytes of an XSAVE area in the compacted format with these components; none is aligned to 64 bytes.
fn compacted_size(components: u64) -> u32 {
    XSAVE_COMPONENTS
        .iter()
        .filter(|(bit, ..)| components & bit != 0)
        .fold(XSAVE_BASE_SIZE, |end, (_, _, size)| end + size)
}

impl Model {
    /// Highest extended leaf.
    const MAX_EXTENDED_LEAF: u32 = leaf::ADDRESS_SIZES;

    /// What CPUID returns for EAX = `function` and ECX = `subleaf`. A function above the highest gives what the highest
    /// basic one gives.
    #[must_use]
    pub fn cpuid(&self, function: u32, subleaf: u32, context: &CpuidContext) -> CpuidResult {
        let limited = context.misc_enable & msrs::MISC_ENABLE_LIMIT_CPUID != 0;
        let highest = if limited { self.max_basic_leaf.min(2) } else { self.max_basic_leaf };
        match function {
            0 => {
                let [ebx, edx, ecx] = [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes);
                [highest, ebx, ecx, edx]
            }
            _ if function <= highest => self.basic_leaf(function, subleaf, context),
            leaf::EXTENDED_MAX..=Self::MAX_EXTENDED_LEAF => self.extended_leaf(function, context),
            _ => self.basic_leaf(highest, subleaf, context),
        }
    }

    fn basic_leaf(&self, function: u32, subleaf: u32, context: &CpuidContext) -> CpuidResult {
        match function {
            leaf::VERSION => self.version(context),
            // Descriptor 0xFF: caches are in leaf 4; 0xF0: 64-byte prefetch.
            leaf::CACHE_DESCRIPTORS => [0x00ff_f001, 0, 0, 0],
            leaf::CACHE_PARAMETERS => self.cache(subleaf, context),
            // Lines of 64 bytes; MWAIT takes "interrupt even if masked"; one sub-state each of C0 and C1.
            leaf::MONITOR if self.has(Feature::MONITOR) => [64, 64, 3, 0x11],
            leaf::THERMAL => self.flags(function, 0),
            leaf::EXTENDED_FEATURES => {
                let mut result = self.flags(function, subleaf);
                if subleaf == 0 {
                    // The highest sub-leaf.
                    result[0] = 2;
                    result[2] |= u32::from(context.ospke && self.has(Feature::PKU)) << Feature::OSPKE.place().bit;
                }
                result
            }
            leaf::PERFMON if self.has(Feature::PDCM) => crate::performance::LEAF,
            leaf::TOPOLOGY | leaf::TOPOLOGY_V2 => topology(subleaf, context),
            leaf::XSAVE => self.xsave(subleaf, context),
            leaf::TSC => [1, (TSC_HZ / CRYSTAL_HZ) as u32, CRYSTAL_HZ as u32, 0],
            leaf::FREQUENCY => {
                [(TSC_HZ / 1_000_000) as u32, (TSC_HZ / 1_000_000) as u32, (CRYSTAL_HZ / 1_000_000) as u32, 0]
            }
            _ => [0; 4],
        }
    }

    /// The feature flags of a sub-leaf.
    fn flags(&self, function: u32, subleaf: u32) -> CpuidResult {
        [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx]
            .map(|register| self.features.flags(function, subleaf, register))
    }

    fn version(&self, context: &CpuidContext) -> CpuidResult {
        let mut result = self.flags(leaf::VERSION, 0);
        let package_ids = context.processors.max(1).next_power_of_two().min(255);
        result[0] = self.signature;
        // APIC id, logical processors in the package, CLFLUSH line of 64 bytes.
        result[1] = (context.apic_id & 0xff) << 24 | package_ids << 16 | 8 << 8;
        if context.osxsave && self.has(Feature::XSAVE) {
            result[2] |= 1 << Feature::OSXSAVE.place().bit;
        }
        if context.misc_enable & msrs::MISC_ENABLE_MONITOR == 0 {
            result[2] &= !(1 << Feature::MONITOR.place().bit);
        }
        if !context.apic_enabled {
            result[3] &= !(1 << Feature::APIC.place().bit);
        }
        if context.processors > 1 {
            result[3] |= 1 << Feature::HTT.place().bit;
        }
        result
    }

    fn cache(&self, subleaf: u32, context: &CpuidContext) -> CpuidResult {
        let Some(cache) = self.caches.get(subleaf as usize) else { return [0; 4] };
        let cores = context.processors.max(1).next_power_of_two();
        let sharing = if cache.shared { cores.min(4096) } else { 1 };
        let eax = cache.kind as u32
            | u32::from(cache.level) << 5
            | 1 << 8 // self-initialising
            | (sharing - 1) << 14
            | (cores.min(64) - 1) << 26;
        let ebx = 63 | (cache.ways - 1) << 22;
        [eax, ebx, cache.sets - 1, u32::from(cache.inclusive) << 1]
    }

    fn xsave(&self, subleaf: u32, context: &CpuidContext) -> CpuidResult {
        let supported = self.xcr0_supported();
        if supported == 0 {
            return [0; 4];
        }
        match subleaf {
            0 => [supported as u32, standard_size(context.xcr0), standard_size(supported), (supported >> 32) as u32],
            1 => {
                let mut result = self.flags(leaf::XSAVE, 1);
                if self.has(Feature::XSAVEC) {
                    result[1] = compacted_size(context.xcr0 | context.xss);
                }
                let supervisor = self.xss_supported();
                (result[2], result[3]) = (supervisor as u32, (supervisor >> 32) as u32);
                result
            }
            2..64 => XSAVE_COMPONENTS
                .iter()
                .find(|(bit, ..)| (supported | self.xss_supported()) & bit != 0 && *bit == 1 << subleaf)
                .map_or([0; 4], |(_, offset, size)| [*size, *offset, u32::from(*offset == 0), 0]),
            _ => [0; 4],
        }
    }

    fn extended_leaf(&self, function: u32, context: &CpuidContext) -> CpuidResult {
        match function {
            leaf::EXTENDED_MAX => [Self::MAX_EXTENDED_LEAF, 0, 0, 0],
            leaf::EXTENDED_FLAGS => {
                let mut result = self.flags(function, 0);
                if !context.in_64_bit_mode {
                    result[3] &= !(1 << Feature::SYSCALL.place().bit);
                }
                if context.misc_enable & MiscEnable::XD_DISABLE != 0 {
                    result[3] &= !(1 << Feature::NX.place().bit);
                }
                result
            }
            leaf::BRAND..=0x8000_0004 => {
                let mut text = [0; 48];
                let length = self.brand.len().min(47);
                text[..length].copy_from_slice(&self.brand.as_bytes()[..length]);
                let start = (function - leaf::BRAND) as usize * 16;
                std::array::from_fn(|register| {
                    let at = start + register * 4;
                    u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]])
                })
            }
            leaf::L2_CACHE => {
                let size = self.caches.iter().find(|cache| cache.level == 2).map_or(0, |cache| cache.ways * cache.sets);
                // Kibibytes; associativity code 8 means 16 ways and stands for "many"; lines of 64 bytes.
                [0, 0, (size / 16) << 16 | 8 << 12 | 64, 0]
            }
            leaf::POWER => self.flags(function, 0),
            leaf::ADDRESS_SIZES => [u32::from(self.physical_bits) | u32::from(self.linear_bits()) << 8, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

/// Leaves 0xB and 0x1F: one thread a core, every core in one package.
fn topology(subleaf: u32, context: &CpuidContext) -> CpuidResult {
    let processors = context.processors.max(1);
    let (shift, count, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (processors.next_power_of_two().trailing_zeros(), processors, 2),
        _ => (0, 0, 0),
    };
    [shift, count, kind << 8 | subleaf & 0xff, context.apic_id]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> CpuidContext {
        CpuidContext {
            apic_id: 2,
            processors: 3,
            apic_enabled: true,
            in_64_bit_mode: true,
            xcr0: 1,
            misc_enable: msrs::MISC_ENABLE_MONITOR,
            ..CpuidContext::default()
        }
    }

    fn model() -> Model {
        Model::default_model()
    }

    #[test]
    fn vendor_is_genuine() {
        let [_, b, c, d] = model().cpuid(0, 0, &context());
        let text: Vec<u8> = [b, d, c].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(text, b"GenuineIntel");
    }

    #[test]
    fn dynamic_flags_follow_the_state() {
        let flag = |context: &CpuidContext, feature: Feature| {
            let place = feature.place();
            model().cpuid(place.leaf, 0, context)[place.register as usize] >> place.bit & 1 != 0
        };
        let off = CpuidContext { processors: 1, ..CpuidContext::default() };
        let on = CpuidContext { osxsave: true, ospke: true, ..context() };
        for feature in
            [Feature::OSXSAVE, Feature::OSPKE, Feature::APIC, Feature::SYSCALL, Feature::MONITOR, Feature::HTT]
        {
            assert!(!flag(&off, feature) && flag(&on, feature), "{feature:?}");
        }
    }

    #[test]
    fn topology_gives_ids_room_for_three_cores() {
        assert_eq!(model().cpuid(0xb, 0, &context()), [0, 1, 0x100, 2]);
        assert_eq!(model().cpuid(0xb, 1, &context()), [2, 3, 0x201, 2]);
        assert_eq!(model().cpuid(0x1f, 2, &context()), [0, 0, 2, 2]);
        assert_eq!(model().cpuid(4, 0, &context())[0] >> 26, 3);
        assert_eq!(model().cpuid(4, 3, &context())[0] >> 14 & 0xfff, 3);
    }

    #[test]
    fn tsc_ratio_gives_the_tsc_frequency() {
        let [denominator, numerator, crystal, _] = model().cpuid(0x15, 0, &context());
        assert_eq!(u64::from(crystal) * u64::from(numerator) / u64::from(denominator), TSC_HZ);
    }

    #[test]
    fn xsave_sizes_follow_xcr0() {
        assert_eq!(model().cpuid(0xd, 0, &context()), [0x207, 576, 2696, 0]);
        let avx = CpuidContext { xcr0: 7, ..context() };
        assert_eq!(model().cpuid(0xd, 0, &avx)[1], 832);
        let all = CpuidContext { xcr0: 0x207, ..context() };
        assert_eq!(model().cpuid(0xd, 1, &all), [0xf, 840, 0, 0]);
        assert_eq!(model().cpuid(0xd, 9, &all), [8, 2688, 0, 0]);
        assert_eq!(model().cpuid(0xd, 3, &all), [0; 4]);
    }

    #[test]
    fn a_leaf_too_high_gives_the_highest_basic_leaf() {
        let highest = model().cpuid(0x1f, 1, &context());
        assert_eq!(model().cpuid(0x4000_0000, 1, &context()), highest);
        assert_eq!(model().cpuid(0x8000_0009, 1, &context()), highest);
    }

    #[test]
    fn brand_is_whole() {
        let text: Vec<u8> = (leaf::BRAND..leaf::BRAND + 3)
            .flat_map(|function| model().cpuid(function, 0, &context()))
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(String::from_utf8(text).unwrap().trim_end_matches('\0'), model().brand);
    }
}
