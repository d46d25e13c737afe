//! The console (5.3).

named_bits! {
    /// Feature bits.
    Feature(u64) {
        0 SIZE "VIRTIO_CONSOLE_F_SIZE: columns and rows given";
        1 MULTIPORT "VIRTIO_CONSOLE_F_MULTIPORT: several ports";
        2 EMERG_WRITE "VIRTIO_CONSOLE_F_EMERG_WRITE: emergency write";
    }
}

/// Offsets in the device configuration.
pub mod config {
    /// Columns, 2 bytes.
    pub const COLUMNS: u64 = 0;
    /// Rows, 2 bytes.
    pub const ROWS: u64 = 2;
    /// Most ports, 4 bytes.
    pub const MAX_PORTS: u64 = 4;
    /// Emergency write, 4 bytes.
    pub const EMERGENCY_WRITE: u64 = 8;
    /// Length in bytes.
    pub const LENGTH: u64 = 12;
}

/// Receive queue of port 0.
pub const QUEUE_RECEIVE: u16 = 0;
/// Transmit queue of port 0.
pub const QUEUE_TRANSMIT: u16 = 1;
