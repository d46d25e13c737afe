//! The network card (5.1).

named_bits! {
    /// Feature bits.
    Feature(u64) {
        0 CSUM "VIRTIO_NET_F_CSUM: the device completes checksums";
        1 GUEST_CSUM "VIRTIO_NET_F_GUEST_CSUM: the driver takes partial checksums";
        3 MTU "VIRTIO_NET_F_MTU: maximum MTU given";
        5 MAC "VIRTIO_NET_F_MAC: address given";
        7 GUEST_TSO4 "VIRTIO_NET_F_GUEST_TSO4";
        8 GUEST_TSO6 "VIRTIO_NET_F_GUEST_TSO6";
        11 HOST_TSO4 "VIRTIO_NET_F_HOST_TSO4";
        12 HOST_TSO6 "VIRTIO_NET_F_HOST_TSO6";
        15 MRG_RXBUF "VIRTIO_NET_F_MRG_RXBUF: mergeable receive buffers";
        16 STATUS "VIRTIO_NET_F_STATUS: link status given";
        17 CTRL_VQ "VIRTIO_NET_F_CTRL_VQ: control queue";
        18 CTRL_RX "VIRTIO_NET_F_CTRL_RX: receive mode control";
        22 MQ "VIRTIO_NET_F_MQ: several queue pairs";
    }
}

/// Length of the header before each packet, with `num_buffers`: flags (1), gso_type (1), hdr_len (2), gso_size (2),
/// csum_start (2), csum_offset (2), num_buffers (2).
pub const HEADER_SIZE: usize = 12;

/// Header flags.
pub mod header_flags {
    /// `csum_start` and `csum_offset` ask for a checksum.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum is verified.
    pub const DATA_VALID: u8 = 2;
}

/// Offsets in the device configuration.
pub mod config {
    /// MAC address, 6 bytes.
    pub const MAC: u64 = 0x00;
    /// Status, 2 bytes; bit 0: link up.
    pub const STATUS: u64 = 0x06;
    /// Most queue pairs, 2 bytes.
    pub const MAX_QUEUE_PAIRS: u64 = 0x08;
    /// MTU, 2 bytes.
    pub const MTU: u64 = 0x0a;
    /// Length in bytes.
    pub const LENGTH: u64 = 0x0c;
}

/// Receive queue of pair 0.
pub const QUEUE_RECEIVE: u16 = 0;
/// Transmit queue of pair 0.
pub const QUEUE_TRANSMIT: u16 = 1;
