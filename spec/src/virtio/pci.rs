//! Virtio over PCI (4.1).

/// PCI vendor ID of virtio devices.
pub const VENDOR_ID: u16 = 0x1af4;
/// PCI device ID of device type 0; add the type.
pub const DEVICE_ID_BASE: u16 = 0x1040;
/// PCI revision ID of a device with no legacy interface.
pub const REVISION_MODERN: u8 = 1;

/// Types of virtio's vendor-specific capabilities, `cfg_type` (4.1.4).
pub mod capability_type {
    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Notifications.
    pub const NOTIFY: u8 = 2;
    /// ISR status.
    pub const ISR: u8 = 3;
    /// Device-specific configuration.
    pub const DEVICE: u8 = 4;
    /// PCI configuration access.
    pub const PCI: u8 = 5;
    /// Shared memory region.
    pub const SHARED_MEMORY: u8 = 8;
    /// Vendor-specific data.
    pub const VENDOR: u8 = 9;
}

/// Offsets in a virtio capability (4.1.4).
pub mod capability {
    /// Capability length, 1 byte.
    pub const LENGTH: u16 = 2;
    /// One of [`super::capability_type`], 1 byte.
    pub const TYPE: u16 = 3;
    /// BAR number, 1 byte.
    pub const BAR: u16 = 4;
    /// Identifier among several capabilities of a type, 1 byte.
    pub const ID: u16 = 5;
    /// Offset in the BAR, 4 bytes.
    pub const OFFSET: u16 = 8;
    /// Length in the BAR, 4 bytes.
    pub const BAR_LENGTH: u16 = 12;
    /// Multiplier of a queue's notification offset, 4 bytes (notify capability).
    pub const NOTIFY_MULTIPLIER: u16 = 16;
    /// Data window, 4 bytes (PCI access capability).
    pub const PCI_DATA: u16 = 16;
}

/// Offsets in the common configuration (4.1.4.3).
pub mod common {
    /// Selects which 32 device features are seen, 4 bytes.
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    /// Features that the device offers, 4 bytes.
    pub const DEVICE_FEATURE: u64 = 0x04;
    /// Selects which 32 driver features are seen, 4 bytes.
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    /// Features that the driver accepts, 4 bytes.
    pub const DRIVER_FEATURE: u64 = 0x0c;
    /// MSI-X vector of configuration changes, 2 bytes.
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    /// Number of queues, 2 bytes.
    pub const NUM_QUEUES: u64 = 0x12;
    /// Device status, 1 byte.
    pub const DEVICE_STATUS: u64 = 0x14;
    /// Configuration generation, 1 byte.
    pub const CONFIG_GENERATION: u64 = 0x15;
    /// Queue select, 2 bytes.
    pub const QUEUE_SELECT: u64 = 0x16;
    /// Queue size, 2 bytes.
    pub const QUEUE_SIZE: u64 = 0x18;
    /// MSI-X vector of the queue, 2 bytes.
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    /// Queue enable, 2 bytes.
    pub const QUEUE_ENABLE: u64 = 0x1c;
    /// The queue's notification offset, 2 bytes.
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    /// Address of the descriptor area, 8 bytes.
    pub const QUEUE_DESC: u64 = 0x20;
    /// Address of the driver area (available ring), 8 bytes.
    pub const QUEUE_DRIVER: u64 = 0x28;
    /// Address of the device area (used ring), 8 bytes.
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// Notification data, 2 bytes.
    pub const QUEUE_NOTIFY_DATA: u64 = 0x38;
    /// Queue reset, 2 bytes.
    pub const QUEUE_RESET: u64 = 0x3a;
    /// Length in bytes with all of the above.
    pub const LENGTH: u64 = 0x3c;
}

/// The MSI-X vector number for "none".
pub const NO_VECTOR: u16 = 0xffff;

named_bits! {
    /// The ISR status (4.1.4.5): read clears it.
    Isr(u8) {
        0 QUEUE "a queue has used buffers";
        1 CONFIG "the device configuration changed";
    }
}
