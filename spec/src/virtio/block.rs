//! The block device (5.2).

named_bits! {
    /// Feature bits.
    Feature(u64) {
        1 SIZE_MAX "VIRTIO_BLK_F_SIZE_MAX: largest segment";
        2 SEG_MAX "VIRTIO_BLK_F_SEG_MAX: most segments";
        4 GEOMETRY "VIRTIO_BLK_F_GEOMETRY";
        5 RO "VIRTIO_BLK_F_RO: read-only";
        6 BLK_SIZE "VIRTIO_BLK_F_BLK_SIZE: block size";
        9 FLUSH "VIRTIO_BLK_F_FLUSH: cache flush command";
        10 TOPOLOGY "VIRTIO_BLK_F_TOPOLOGY";
        11 CONFIG_WCE "VIRTIO_BLK_F_CONFIG_WCE: write-back can be toggled";
        12 MQ "VIRTIO_BLK_F_MQ: several queues";
        13 DISCARD "VIRTIO_BLK_F_DISCARD";
        14 WRITE_ZEROES "VIRTIO_BLK_F_WRITE_ZEROES";
    }
}

/// Request types.
pub mod request {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Flush.
    pub const FLUSH: u32 = 4;
    /// Get the identity string, 20 bytes.
    pub const GET_ID: u32 = 8;
    /// Discard.
    pub const DISCARD: u32 = 11;
    /// Write zeroes.
    pub const WRITE_ZEROES: u32 = 13;
}

/// Request status.
pub mod status {
    /// Done.
    pub const OK: u8 = 0;
    /// Device or driver error.
    pub const IOERR: u8 = 1;
    /// Not supported.
    pub const UNSUPPORTED: u8 = 2;
}

/// Bytes of a sector, the unit of capacity and of a request's position.
pub const SECTOR: u64 = 512;
/// Length of a request's header: type (4), reserved (4), sector (8).
pub const HEADER_SIZE: u32 = 16;
/// Length of the identity string.
pub const ID_LENGTH: usize = 20;

/// Offsets in the device configuration.
pub mod config {
    /// Capacity in sectors, 8 bytes.
    pub const CAPACITY: u64 = 0x00;
    /// Largest segment, 4 bytes.
    pub const SIZE_MAX: u64 = 0x08;
    /// Most segments, 4 bytes.
    pub const SEG_MAX: u64 = 0x0c;
    /// Block size, 4 bytes.
    pub const BLK_SIZE: u64 = 0x14;
    /// Write-back cache, 1 byte.
    pub const WRITEBACK: u64 = 0x20;
    /// Number of queues, 2 bytes.
    pub const NUM_QUEUES: u64 = 0x22;
    /// Length in bytes up to the write-zeroes fields.
    pub const LENGTH: u64 = 0x3c;
}
