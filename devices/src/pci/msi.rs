//! The MSI capability (PCI 3.0 section 6.8.1): 64-bit addresses, up to 32 messages, optional per-vector masking. All its
//! state is in configuration space; this type knows where.

use super::config::ConfigSpace;
use crate::ports::Msi;
use spec::pci::capability::id;

const ENABLE: u16 = 1 << 0;

/// Where a function's MSI capability lies and what it can do.
#[derive(Clone, Copy, Debug)]
pub struct MsiCapability {
    at: u16,
    maskable: bool,
}

impl MsiCapability {
    /// Adds the capability to `config`, with `vectors` messages (a power of two up to 32).
    ///
    /// # Panics
    /// If `vectors` is not such a number: a mistake in the device model.
    pub fn new(config: &mut ConfigSpace, vectors: u8, maskable: bool) -> Self {
        assert!(vectors.is_power_of_two() && vectors <= 32, "MSI has 1 to 32 messages");
        let control = 1 << 7 | (vectors.trailing_zeros() as u16) << 1 | u16::from(maskable) << 8;
        let mut body = [0u8; 22];
        body[..2].copy_from_slice(&control.to_le_bytes());
        let at = config.add_capability(id::MSI, &body[..if maskable { 22 } else { 12 }]);
        config.set_writable(at + 2, &[0x71]);
        config.set_writable(at + 4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        if maskable {
            let mask = ((1u64 << vectors) - 1) as u32;
            config.set_writable(at + 16, &mask.to_le_bytes());
        }
        Self { at, maskable }
    }

    /// Software has enabled MSI.
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        config.u16_at(self.at + 2) & ENABLE != 0
    }

    /// Sends message `vector`, or marks it pending while masked. A function given fewer messages than it asked for
    /// folds its vectors onto those it has.
    pub fn signal(&self, config: &mut ConfigSpace, port: &dyn Msi, vector: u8) {
        let control = config.u16_at(self.at + 2);
        let asked = control >> 1 & 7;
        let given = (control >> 4 & 7).min(asked).min(5);
        let vector = vector & ((1u8 << given) - 1);
        if self.maskable && config.u32_at(self.at + 16) >> vector & 1 != 0 || !config.bus_master() {
            if self.maskable {
                let pending = config.u32_at(self.at + 20) | 1 << vector;
                config.set_u32(self.at + 20, pending);
            }
            return;
        }
        self.send(config, port, vector);
    }

    /// Sends what waited for an unmasking; called after each write to configuration space.
    pub fn update(&self, config: &mut ConfigSpace, port: &dyn Msi) {
        if !self.maskable || !self.enabled(config) || !config.bus_master() {
            return;
        }
        let ready = config.u32_at(self.at + 20) & !config.u32_at(self.at + 16);
        if ready == 0 {
            return;
        }
        let pending = config.u32_at(self.at + 20) & !ready;
        config.set_u32(self.at + 20, pending);
        for vector in 0..32 {
            if ready >> vector & 1 != 0 {
                self.send(config, port, vector);
            }
        }
    }

    fn send(&self, config: &ConfigSpace, port: &dyn Msi, vector: u8) {
        let address = u64::from(config.u32_at(self.at + 4)) | u64::from(config.u32_at(self.at + 8)) << 32;
        let given = (config.u16_at(self.at + 2) >> 4 & 7).min(5);
        let low = (1u32 << given) - 1;
        let data = u32::from(config.u16_at(self.at + 12)) & !low | u32::from(vector) & low;
        port.send(address, data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Identity;
    use super::*;
    use crate::testing::RecordingMsi;

    /// A function with four messages, of which software has given it `given` (as a power of two).
    fn function(given: u16) -> (ConfigSpace, MsiCapability, RecordingMsi) {
        let mut config = ConfigSpace::conventional(Identity::default());
        let msi = MsiCapability::new(&mut config, 4, true);
        config.write(4, 2, 4);
        config.write(msi.at + 4, 4, 0xfee0_1003);
        config.write(msi.at + 8, 4, 0x1);
        config.write(msi.at + 12, 2, 0x4143);
        config.write(msi.at + 2, 2, (1 | given << 4).into());
        (config, msi, RecordingMsi::new())
    }

    #[test]
    fn the_vector_replaces_the_low_bits_of_the_data() {
        let (mut config, msi, port) = function(2);
        assert!(msi.enabled(&config));
        msi.signal(&mut config, &port, 2);
        assert_eq!(port.take(), [(0x1_fee0_1000, 0x4142)]);
    }

    #[test]
    fn vectors_fold_onto_those_given() {
        let (mut config, msi, port) = function(0);
        msi.signal(&mut config, &port, 3);
        assert_eq!(port.take(), [(0x1_fee0_1000, 0x4143)]);
        let (mut config, msi, port) = function(7);
        msi.signal(&mut config, &port, 3);
        assert_eq!(port.take().len(), 1, "more than asked for is not believed");
    }

    #[test]
    fn masked_vectors_wait() {
        let (mut config, msi, port) = function(2);
        config.write(msi.at + 16, 4, 0xffff_ffff);
        assert_eq!(config.read(msi.at + 16, 4), 0xf);
        msi.signal(&mut config, &port, 1);
        config.write(msi.at + 20, 4, 0);
        assert_eq!(config.read(msi.at + 20, 4), 2, "pending bits are read-only");
        msi.update(&mut config, &port);
        assert_eq!(port.take(), []);
        config.write(msi.at + 16, 4, 0xd);
        msi.update(&mut config, &port);
        assert_eq!(port.take(), [(0x1_fee0_1000, 0x4141)]);
        assert_eq!(config.read(msi.at + 20, 4), 0);
    }
}
