//! Split virtqueues (2.7).

/// Length of a descriptor in bytes: address (8), length (4), flags (2), next (2).
pub const DESCRIPTOR_SIZE: u64 = 16;

named_bits! {
    /// Flags of a descriptor (2.7.5).
    DescriptorFlags(u16) {
        0 NEXT "VIRTQ_DESC_F_NEXT: the buffer goes on in the descriptor `next`";
        1 WRITE "VIRTQ_DESC_F_WRITE: the device writes (else reads)";
        2 INDIRECT "VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors";
    }
}

/// Offsets in the available ring (2.7.6): flags, idx, ring of 2-byte entries, used_event.
pub mod available {
    /// Flags, 2 bytes.
    pub const FLAGS: u64 = 0;
    /// Index, 2 bytes.
    pub const INDEX: u64 = 2;
    /// First entry.
    pub const RING: u64 = 4;
    /// Flag: the driver asks for no interrupts.
    pub const NO_INTERRUPT: u16 = 1;
}

/// Offsets in the used ring (2.7.8): flags, idx, ring of 8-byte entries (id, length), avail_event.
pub mod used {
    /// Flags, 2 bytes.
    pub const FLAGS: u64 = 0;
    /// Index, 2 bytes.
    pub const INDEX: u64 = 2;
    /// First entry.
    pub const RING: u64 = 4;
    /// Length of an entry in bytes.
    pub const ENTRY_SIZE: u64 = 8;
    /// Flag: the device asks for no notifications.
    pub const NO_NOTIFY: u16 = 1;
}

/// The largest queue size.
pub const MAX_QUEUE_SIZE: u16 = 32768;
